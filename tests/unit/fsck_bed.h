/*
 * A namespace made by hand in `bed`, whole as setup() leaves it, and what fsck
 * says of it.
 */
#ifndef CFS_FSCK_BED_H
#define CFS_FSCK_BED_H

#include <dirent.h>
#include <sys/stat.h>

#include "tests/unit/keys_bed.h"

static struct bed bed;
static struct cfs_digest chunk, chunk2, leaf, top;

#define CHUNK 300000u

static inline void put(const struct cfs_key *key, struct cfs_buf *val)
{
	cfs_store_enter(bed.store);
	bed_put(&bed, key, val);
	cfs_store_leave(bed.store);
}

static inline void put_inode(const struct cfs_inode_record *record)
{
	cfs_store_enter(bed.store);
	bed_put_inode(&bed, record);
	cfs_store_leave(bed.store);
}

static inline void put_dir(uint64_t ino, uint64_t parent, uint32_t nlink)
{
	put_inode(&(struct cfs_inode_record){.ino = ino,
					     .mode = S_IFDIR | 0755,
					     .nlink = nlink,
					     .parent = parent});
}

static inline void put_file(uint64_t ino, uint32_t nlink,
			    enum cfs_content_kind content)
{
	put_inode(&(struct cfs_inode_record){
		.ino = ino,
		.mode = S_IFREG | 0644,
		.nlink = nlink,
		.size = CHUNK,
		.content = content,
		.map = top,
		.inline_data = (const uint8_t *)"x",
		.inline_len = 1,
	});
}

static inline void put_cookie(uint64_t dir, uint64_t cookie, const char *name)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_cookie(&key, dir, cookie);
	cfs_buf_put_str(&val, name);
	put(&key, &val);
}

static inline void put_dirent(uint64_t dir, const char *name, uint64_t ino,
			      uint64_t cookie, uint8_t type)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_dirent(&key, dir, name, strlen(name));
	cfs_dirent_encode(&(struct cfs_dirent_value){ino, cookie, type}, &val);
	put(&key, &val);
}

static inline void put_name(uint64_t dir, const char *name, uint64_t ino,
			    uint64_t cookie, uint8_t type)
{
	put_dirent(dir, name, ino, cookie, type);
	put_cookie(dir, cookie, name);
}

static inline void put_extent(uint64_t ino, const struct cfs_extent *e)
{
	cfs_store_enter(bed.store);
	bed_put_extent(&bed, ino, e);
	cfs_store_leave(bed.store);
}

static inline void put_u64(const char *name, uint64_t v)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_setting(&key, name);
	cfs_buf_put_le64(&val, v);
	put(&key, &val);
}

static inline void put_empty(const struct cfs_key *key)
{
	struct cfs_buf val = CFS_BUF_INIT;

	put(key, &val);
}

static inline struct cfs_extent whole(uint64_t off)
{
	return (struct cfs_extent){off, CHUNK, chunk, 0, CHUNK};
}

/* A map of two levels: two chunks, then nothing. */
static inline void put_maps(void)
{
	struct cfs_extent extents[2] = {whole(0),
					{CHUNK, CHUNK, chunk2, 0, CHUNK}};
	struct cfs_map_child child = {0, (uint64_t)2 * CHUNK, {{0}}};
	struct cfs_content_map map = {0, (uint64_t)2 * CHUNK, 2, extents, NULL};

	ck_assert_int_eq(cfs_store_put_map(bed.store, &map, &leaf), 0);
	child.digest = leaf;
	map = (struct cfs_content_map){1, (uint64_t)3 * CHUNK, 1, NULL, &child};
	ck_assert_int_eq(cfs_store_put_map(bed.store, &map, &top), 0);
}

/*
 *   1 /          2 /sub     3 /sub/sealed = /other
 *   4 /extents   5 /small   6 /sub/deep   7 no name, still open
 */
static inline void setup(void)
{
	struct cfs_extent e;
	struct cfs_key key;

	bed_open(&bed, NULL, NULL);
	bed_store_chunk(&bed, 1, CHUNK, &chunk);
	bed_store_chunk(&bed, 2, CHUNK, &chunk2);
	put_maps();
	put_dir(1, 1, 3);
	put_dir(2, 1, 3);
	put_dir(6, 2, 2);
	put_file(3, 2, CFS_CONTENT_SEALED);
	put_file(4, 1, CFS_CONTENT_EXTENTS);
	put_file(5, 1, CFS_CONTENT_INLINE);
	put_file(7, 0, CFS_CONTENT_NONE);
	cfs_key_orphan(&key, 7);
	put_empty(&key);
	put_name(1, "sub", 2, 3, DT_DIR);
	put_name(1, "other", 3, 4, DT_REG);
	put_name(1, "extents", 4, 5, DT_REG);
	put_name(1, "small", 5, 6, DT_REG);
	put_name(2, "sealed", 3, 7, DT_REG);
	put_name(2, "deep", 6, 8, DT_DIR);
	e = whole(0);
	put_extent(4, &e);
	e = whole(CHUNK);
	put_extent(4, &e);
	cfs_key_xattr(&key, 5, "user.a", 6);
	put_empty(&key);
	put_u64("next_ino", 8);
	put_u64("next_cookie", 9);
}

static inline void teardown(void)
{
	(void)cfs_store_close(bed.store);
}

/* ---- what was told ---- */

static struct cfs_buf told;

static inline void finding(void *arg, const char *text)
{
	unsigned *n = arg;

	/* what it is about, not one more of them */
	if (strncmp(text, "file ", 5) != 0)
		++*n;
	ck_assert_ptr_null(strchr(text, '\n'));
	cfs_buf_printf(&told, "%s\n", text);
}

static inline struct cfs_fsck_result fsck(void)
{
	unsigned n = 0;
	const struct cfs_job_control control = {NULL, finding, &n};
	struct cfs_fsck_result result;
	struct cfs_error err = {""};
	int r;

	cfs_buf_free(&told);
	r = cfs_store_fsck(bed.store, &control, &result, &err);
	ck_assert_msg(r == 0, "%s", err.text);
	ck_assert_uint_eq(n, result.problems);
	return result;
}

#endif
