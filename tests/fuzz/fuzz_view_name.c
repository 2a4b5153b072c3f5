/* Names of views: what is understood has one canonical spelling. */
#include "fs/view/view.h"

#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_request first, second;
	struct cfs_error err = {.text = ""};
	char name[300], canonical[128], again[128];

	if (size >= sizeof(name))
		return 0;
	memcpy(name, data, size);
	name[size] = '\0';
	if (cfs_view_name_parse(name, &first, &err) < 0) {
		if (!err.text[0])
			abort();
		return 0;
	}
	cfs_view_name_format(&first, canonical, sizeof(canonical));
	if (cfs_view_name_parse(canonical, &second, NULL) < 0)
		abort();
	cfs_view_name_format(&second, again, sizeof(again));
	if (strcmp(canonical, again) != 0)
		abort();
	return 0;
}
