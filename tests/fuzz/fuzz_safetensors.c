/* Headers of safetensors: understood, or refused in words. */
#include "fs/format/safetensors/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The first byte pair says how much lies behind the header. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_st_header header = {0};
	struct cfs_error err = {.text = ""};
	uint64_t bytes, at = 0;
	char *text;
	int r;

	if (size < 2)
		return 0;
	bytes = (uint64_t)(data[0] | data[1] << 8);
	text = malloc(size); /* so that reading behind the end is seen */
	if (!text)
		return 0;
	memcpy(text, data + 2, size - 2);
	r = cfs_st_header_parse(text, size - 2, bytes, &header, &err);
	if (r < 0 && r != -ENOMEM && !err.text[0])
		abort();
	for (uint32_t i = 0; !r && i < header.n; i++) {
		if (header.v[i].begin != at || header.v[i].end < at)
			abort();
		at = header.v[i].end;
	}
	if (!r && at != bytes)
		abort();
	cfs_st_header_fini(&header);
	free(text);
	return 0;
}
