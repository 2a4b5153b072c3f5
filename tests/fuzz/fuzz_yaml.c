/* Configurations: a tree, or a refusal in words. */
#include "fs/container/yaml.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>

#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_error err = {.text = ""};
	cJSON *tree = NULL;
	int r = cfs_yaml_read(data, size, &tree, &err);

	if (r < 0 ? tree || (r != -ENOMEM && !err.text[0]) : !tree)
		abort();
	cJSON_Delete(tree);
	return 0;
}
