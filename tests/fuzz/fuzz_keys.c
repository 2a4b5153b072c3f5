/*
 * Keys, values and batches from outside.  Byte 0 picks the decoder; what it
 * accepts must encode to the very same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "store/index/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define EXTENT_OFF 4096u

static void expect_same(const struct cfs_buf *out, const void *data, size_t len)
{
	if (out->failed || out->len != len ||
	    (len && memcmp(out->data, data, len) != 0))
		abort();
}

static int copy_entry(void *arg, struct cfs_slice key,
		      const struct cfs_slice *val)
{
	if (val)
		cfs_batch_put(arg, key, *val);
	else
		cfs_batch_del(arg, key);
	return 0;
}

static void try_batch(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_batch_fini) struct cfs_batch batch = CFS_BATCH_INIT;

	if (!cfs_batch_each(data, len, copy_entry, &batch))
		expect_same(&batch.bytes, data, len);
}

static void try_inode(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_inode_record rec;

	if (cfs_inode_decode(data, len, &rec) < 0)
		return;
	cfs_inode_encode(&rec, &out);
	expect_same(&out, data, len);
}

static void try_dirent(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_dirent_value v;

	if (cfs_dirent_decode(data, len, &v) < 0)
		return;
	cfs_dirent_encode(&v, &out);
	expect_same(&out, data, len);
}

static void try_extent(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_extent e;

	if (cfs_extent_decode(EXTENT_OFF, data, len, &e) < 0)
		return;
	cfs_extent_encode(&e, &out);
	expect_same(&out, data, len);
	if (e.off != EXTENT_OFF || !e.len || e.chunk_off > e.chunk_len ||
	    e.len > e.chunk_len - e.chunk_off)
		abort();
}

static void try_object(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_object_value v;

	if (cfs_object_decode(data, len, &v) < 0)
		return;
	cfs_object_encode(&v, &out);
	expect_same(&out, data, len);
}

static void try_map(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	uint64_t end = 0;

	if (cfs_content_map_decode(data, len, &map) < 0)
		return;
	cfs_content_map_encode(&map, &out);
	expect_same(&out, data, len);
	for (size_t i = 0; i < map.count; i++) {
		uint64_t off =
			map.level ? map.children[i].off : map.extents[i].off;

		if (off < end)
			abort();
		end = off +
		      (map.level ? map.children[i].len : map.extents[i].len);
	}
	if (end > map.size)
		abort();
}

static void try_key(const uint8_t *data, size_t len)
{
	const struct cfs_slice slice = {data, len};
	struct cfs_digest digest;
	uint64_t ino, second;
	struct cfs_key key = {.len = 0};
	const char *name;
	size_t n;

	if (!cfs_key_parse_ino(slice, &ino)) {
		cfs_key_prefix(&key, (char)data[0], 0);
		if (data[0] == 'i')
			cfs_key_inode(&key, ino);
		else
			cfs_key_orphan(&key, ino);
	} else if (!cfs_key_parse_u64(slice, &ino, &second)) {
		if (data[0] == 'D')
			cfs_key_cookie(&key, ino, second);
		else
			cfs_key_extent(&key, ino, second);
	} else if (!cfs_key_parse_name(slice, &ino, &name, &n)) {
		if (data[0] == 'd')
			cfs_key_dirent(&key, ino, name, n);
		else
			cfs_key_xattr(&key, ino, name, n);
	} else if (!cfs_key_parse_digest(slice, &digest)) {
		if (data[0] == 'c')
			cfs_key_chunk(&key, &digest);
		else
			cfs_key_map(&key, &digest);
	} else {
		return;
	}
	if (key.len != len || memcmp(key.data, data, len) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static void (*const tries[])(const uint8_t *, size_t) = {
		try_batch,  try_inode, try_dirent, try_extent,
		try_object, try_map,   try_key,
	};

	if (len && data[0] < CFS_ARRAY_SIZE(tries))
		tries[data[0]](data + 1, len - 1);
	return 0;
}
