/*
 * Ranks that put slices, in memory: one file of pieces a rank.
 */
#ifndef CFS_TESTS_PUTS_BED_H
#define CFS_TESTS_PUTS_BED_H

#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/container/pickle.h"
#include "fs/format/format.h"
#include "fs/format/puts.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/hash.h"

#define BED_RANKS_MAX	32
#define BED_PUTS_MAX	4096
#define BED_OBJECTS_MAX 8

struct bed {
	struct cfs_source *source;
	struct cfs_filepool *pool;
	struct cfs_filetab *files;
	struct cfs_buf parts[BED_RANKS_MAX];
	uint32_t n_ranks;
	struct cfs_put puts[BED_PUTS_MAX];
	size_t n_puts;
	struct cfs_put_object objects[BED_OBJECTS_MAX];
	struct cfs_buf object_bytes[BED_OBJECTS_MAX];
	size_t n_objects;
	struct cfs_error err;
};

static inline void bed_init(struct bed *b, uint32_t n_ranks)
{
	memset(b, 0, sizeof(*b));
	ck_assert_uint_le(n_ranks, BED_RANKS_MAX);
	b->n_ranks = n_ranks;
	b->source = cfs_source_mem_new();
	ck_assert_ptr_nonnull(b->source);
	b->pool = cfs_filepool_new(b->source);
	b->files = cfs_filetab_new();
	ck_assert(b->pool && b->files);
}

static inline void bed_fini(struct bed *b)
{
	cfs_filetab_unref(b->files);
	cfs_filepool_free(b->pool);
	cfs_source_free(b->source);
	for (uint32_t i = 0; i < BED_RANKS_MAX; i++)
		cfs_buf_free(&b->parts[i]);
	for (uint32_t i = 0; i < BED_OBJECTS_MAX; i++)
		cfs_buf_free(&b->object_bytes[i]);
}

/* Where element @flat of @put's box lies in its tensor. */
static inline uint64_t bed_place(const struct cfs_put *put, uint64_t flat)
{
	uint64_t at = 0, stride = 1;

	for (uint32_t i = put->ndim; i-- > 0;) {
		at += (put->offset[i] + flat % put->extent[i]) * stride;
		flat /= put->extent[i];
		stride *= put->shape[i];
	}
	return at;
}

/* Rank @put->rank puts its slice of @whole. */
static inline void bed_put(struct bed *b, const struct cfs_put *like,
			   const uint8_t *whole)
{
	struct cfs_put put = *like;
	uint32_t size = cfs_dtype_size(put.dtype);
	struct cfs_buf *part = &b->parts[put.rank];

	ck_assert_uint_lt(b->n_puts, BED_PUTS_MAX);
	ck_assert_uint_lt(put.rank, b->n_ranks);
	ck_assert_msg(!cfs_put_check(&put, &b->err), "%s", b->err.text);
	put.file = put.rank;
	put.file_off = part->len;
	for (uint64_t i = 0; i < put.flat_count; i++)
		cfs_buf_put(part,
			    whole + size * bed_place(&put, put.flat_start + i),
			    size);
	ck_assert_uint_eq(part->len - put.file_off, cfs_put_bytes(&put));
	put.hash = cfs_hash64(part->data + put.file_off,
			      part->len - put.file_off, 0);
	b->puts[b->n_puts++] = put;
}

static inline struct cfs_put bed_whole(uint32_t rank, const char *name,
				       const char *role, enum cfs_dtype dtype,
				       uint32_t ndim, const uint64_t *shape)
{
	struct cfs_put put = {.name = name,
			      .role = role,
			      .dtype = dtype,
			      .ndim = ndim,
			      .rank = rank};

	for (uint32_t i = 0; i < ndim; i++)
		put.shape[i] = put.extent[i] = shape[i];
	return put;
}

/* The pickle of @root. */
static inline void bed_object(struct bed *b, const char *name,
			      const struct cfs_node *root)
{
	struct cfs_buf *buf = &b->object_bytes[b->n_objects];

	ck_assert_uint_lt(b->n_objects, BED_OBJECTS_MAX);
	ck_assert_ptr_nonnull(root);
	ck_assert_int_eq(cfs_pickle_encode(root, NULL, buf, &b->err), 0);
	b->objects[b->n_objects++] = (struct cfs_put_object){
		.name = name, .data = buf->data, .len = buf->len};
}

/* The parts become files, and the puts are theirs. */
static inline struct cfs_puts bed_puts(struct bed *b)
{
	struct cfs_puts puts = {.files = b->files,
				.puts = b->puts,
				.n_puts = b->n_puts,
				.objects = b->objects,
				.n_objects = b->n_objects,
				.step = 7,
				.dp = 1,
				.zero_stage = 1};

	for (uint32_t i = 0; i < b->n_ranks; i++) {
		_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
		struct cfs_version version;
		struct stat st;
		char name[32];
		uint32_t row;

		(void)snprintf(name, sizeof(name), "part-%u", i);
		ck_assert_int_eq(cfs_source_mem_put(b->source, name,
						    b->parts[i].data,
						    b->parts[i].len),
				 0);
		ck_assert_int_eq(b->source->ops->open(b->source, name, &file),
				 0);
		ck_assert_int_eq(file->ops->stat(file, &st), 0);
		cfs_version_of(&st, &version);
		ck_assert_int_eq(
			cfs_filetab_add(b->files, name, &version, &row), 0);
		ck_assert_uint_eq(row, i);
	}
	return puts;
}

/* The bytes of @map. */
static inline void bed_read(const struct bed *b, struct cfs_map *map,
			    struct cfs_buf *out)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	struct cfs_error err = {""};
	uint64_t size = cfs_map_size(map);
	uint8_t *p;

	ck_assert_msg(!cfs_reader_open(map, b->pool, NULL, &reader, &err), "%s",
		      err.text);
	p = cfs_buf_grow(out, size);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(cfs_reader_pread(reader, p, size, 0), size);
}

/* Puts a file of a step into the source, below @arg's directory. */
struct bed_dir {
	struct bed *bed;
	const char *dir;
	uint32_t n;
};

static inline int bed_file(void *arg, const char *name, struct cfs_map *map)
{
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct bed_dir *d = arg;
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", d->dir, name);
	bed_read(d->bed, map, &bytes);
	ck_assert_int_eq(
		cfs_source_mem_put(d->bed->source, path, bytes.data, bytes.len),
		0);
	d->n++;
	return 0;
}

#endif
