/* The directory, every local header, every record. */
#include <assert.h>

#include "fs/container/zip.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "tests/fuzz/memfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct memfile m = MEMFILE(data, len);
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena =
		cfs_arena_new(32u << 20);
	struct cfs_error err = {""};
	struct cfs_zip zip;
	int r;

	if (!arena)
		return 0;
	r = cfs_zip_read(&m.base, len, arena, &zip, &err);
	assert(!r || err.text[0]);
	for (uint32_t i = 0; !r && i < zip.n_entries; i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
		const struct cfs_zip_entry *e = &zip.entries[i];
		uint64_t off;

		err.text[0] = '\0';
		if (!cfs_zip_payload(&m.base, len, e, &off, &err))
			assert(off + e->csize <= len);
		else
			assert(err.text[0]);
		if (!cfs_zip_extract(&m.base, len, e, 1u << 20, &buf, &err))
			assert(buf.len == e->usize);
	}
	return 0;
}
