/*
 * Decodes maps, as they come and with their checksum put right; what decodes
 * must encode to the same bytes, and be read without harm over an empty source.
 */
#include <stdint.h>
#include <string.h>

#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void expect_same_bytes(const struct cfs_map *map, const uint8_t *data,
			      size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;

	if (cfs_map_encode(map, &out) < 0 || out.len != len ||
	    memcmp(out.data, data, len) != 0)
		abort();
}

/* Few bytes in many places: a hostile gather may ask for a read per byte. */
static void read_some(struct cfs_map *map, struct cfs_filepool *pool)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	uint64_t size = cfs_map_size(map);
	uint8_t buf[24];

	if (cfs_reader_open(map, pool, NULL, &reader, NULL) < 0)
		return;
	for (unsigned i = 0; i < 16; i++) {
		uint64_t off = size / 16 * i + i % 5;
		ssize_t n = cfs_reader_pread(reader, buf, sizeof(buf), off);
		size_t want = off < size
				      ? (size_t)CFS_MIN(size - off, sizeof(buf))
				      : 0;

		if (n >= 0 && (size_t)n != want)
			abort();
	}
}

static void try_one(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_source_freep) struct cfs_source *source = NULL;
	_cleanup_(cfs_filepool_freep) struct cfs_filepool *pool = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;

	if (cfs_map_decode(data, len, &map) < 0)
		return;
	expect_same_bytes(map, data, len);
	source = cfs_source_mem_new();
	pool = source ? cfs_filepool_new(source) : NULL;
	if (pool)
		read_some(map, pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf fixed = CFS_BUF_INIT;

	try_one(data, len);
	if (len < 8)
		return 0;
	cfs_buf_put(&fixed, data, len);
	if (fixed.failed)
		return 0;
	cfs_put_le64(fixed.data + len - 8, cfs_hash64(data, len - 8, 0));
	try_one(fixed.data, len);
	return 0;
}
