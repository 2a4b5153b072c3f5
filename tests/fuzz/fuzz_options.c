/* Options of views and files of rules: understood, or refused in words. */
#include "fs/format/options.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int r, const struct cfs_error *err)
{
	if (r < 0 && r != -ENOMEM && !err->text[0])
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_options options;
	struct cfs_error err = {.text = ""};
	cJSON *rules = NULL;
	char *text = strndup((const char *)data, size);
	int r;

	if (!text)
		return 0;
	r = cfs_options_parse(text, &options, &err);
	check(r, &err);
	if (!r)
		cfs_options_fini(&options);
	err.text[0] = '\0';
	check(cfs_options_read_rules((const char *)data, size, &rules, &err),
	      &err);
	cJSON_Delete(rules);
	free(text);
	return 0;
}
