/* ckptfs.json: any text is refused, with a reason, or gives a whole config. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/core/store_internal.h"
#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const struct cfs_store_config *c)
{
	if (c->version != CFS_STORE_VERSION || !c->markers ||
	    c->sync_seconds < 1 || c->sync_seconds > 86400 ||
	    c->frame_bytes != CFS_FRAME_BYTES ||
	    c->chunk_bytes != CFS_CHUNK_BYTES)
		abort();
	for (size_t i = 0; i < c->n_markers; i++)
		if (!c->markers[i][0])
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_freep) char *text = malloc(len + 1);
	struct cfs_error err = {""};
	struct cfs_store_config c;
	int r;

	if (!text)
		return 0;
	if (len)
		memcpy(text, data, len);
	text[len] = '\0';
	r = cfs_config_parse(text, "store", &c, &err);
	if (r == 0) {
		check(&c);
		cfs_config_fini(&c);
	} else if (!err.text[0] || (r != -EBADMSG && r != -EPROTONOSUPPORT)) {
		abort();
	}
	return 0;
}
