/*
 * Files of a store, kept in keys as store/ns keeps them, to be collected: made,
 * removed and checked, what they hold named by seeds.
 */
#ifndef CFS_GC_BED_H
#define CFS_GC_BED_H

#include <sys/stat.h>
#include <time.h>

#include "tests/unit/keys_bed.h"

#define FILES  60
#define CHUNKS 6 /* of a file, at most */
#define SEEDS  80

/* A file of the namespace that the tests keep: chunks by their seeds. */
struct file {
	bool there, sealed;
	unsigned n;
	uint64_t seeds[CHUNKS];
};

/* Of this run, printed. */
static uint64_t gc_seed;

static inline void gc_seed_new(void)
{
	gc_seed = (uint64_t)time(NULL);
	printf("seed %llu\n", (unsigned long long)gc_seed);
	(void)fflush(stdout);
}

static inline size_t len_of(uint64_t chunk_seed)
{
	return 2000 + (size_t)(chunk_seed * 2654435761u % 30000);
}

static inline void put_inode(struct bed *b, uint64_t ino, uint64_t size,
			     const struct cfs_digest *map)
{
	struct cfs_inode_record record = {.ino = ino,
					  .mode = S_IFREG | 0644,
					  .nlink = 1,
					  .size = size,
					  .content = CFS_CONTENT_EXTENTS};

	if (map) {
		record.content = CFS_CONTENT_SEALED;
		record.map = *map;
	}
	bed_put_inode(b, &record);
}

/* Level 0, or two of level 0 under one of level 1. */
static inline struct cfs_digest put_maps(struct bed *b,
					 struct cfs_extent *extents, unsigned n,
					 uint64_t size, bool deep)
{
	struct cfs_content_map map = {
		.size = size, .count = n, .extents = extents};
	struct cfs_map_child children[2];
	struct cfs_digest digest;
	uint64_t half;

	if (!deep || n < 2) {
		ck_assert_int_eq(cfs_store_put_map(b->store, &map, &digest), 0);
		return digest;
	}
	half = extents[n / 2].off;
	map.count = n / 2;
	map.size = half;
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &children[0].digest),
			 0);
	children[0].off = 0;
	children[0].len = half;
	map.extents = extents + n / 2;
	map.count = n - n / 2;
	map.size = size - half;
	for (size_t i = 0; i < map.count; i++)
		map.extents[i].off -= half;
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &children[1].digest),
			 0);
	children[1].off = half;
	children[1].len = size - half;
	map = (struct cfs_content_map){
		.level = 1, .size = size, .count = 2, .children = children};
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &digest), 0);
	return digest;
}

/* As store/ns does it: what refers is recorded before leaving. */
static inline void make_file(struct bed *b, uint64_t ino, const struct file *f)
{
	struct cfs_extent e[CHUNKS] = {0};
	struct cfs_digest map;
	uint64_t off = 0;

	cfs_store_enter(b->store);
	for (unsigned i = 0; i < f->n; i++) {
		const size_t len = len_of(f->seeds[i]);

		e[i] = (struct cfs_extent){
			.off = off, .len = len, .chunk_len = (uint32_t)len};
		bed_store_chunk(b, f->seeds[i], len, &e[i].digest);
		off += len;
		if (!f->sealed)
			bed_put_extent(b, ino, &e[i]);
	}
	if (f->sealed) {
		map = put_maps(b, e, f->n, off, ino % 3 == 0);
		put_inode(b, ino, off, &map);
	} else {
		put_inode(b, ino, off, NULL);
	}
	cfs_store_leave(b->store);
}

static inline void remove_file(struct bed *b, uint64_t ino,
			       const struct file *f)
{
	struct cfs_levels *levels = cfs_store_levels(b->store);
	struct cfs_key key;
	uint64_t off = 0;

	cfs_store_enter(b->store);
	cfs_key_inode(&key, ino);
	ck_assert_int_eq(cfs_levels_del(levels, cfs_key_slice(&key)), 0);
	for (unsigned i = 0; !f->sealed && i < f->n; i++) {
		cfs_key_extent(&key, ino, off);
		ck_assert_int_eq(cfs_levels_del(levels, cfs_key_slice(&key)),
				 0);
		off += len_of(f->seeds[i]);
	}
	cfs_store_leave(b->store);
}

static inline int check_map(struct bed *b, const struct cfs_digest *digest,
			    const struct file *f, unsigned *at)
{
	struct cfs_content_map map = {0};
	int r = cfs_store_get_map(b->store, digest, &map);

	for (size_t i = 0; r == 0 && i < map.count; i++, *at += !map.level)
		r = map.level ? check_map(b, &map.children[i].digest, f, at)
			      : bed_check_chunk(b, f->seeds[*at],
						len_of(f->seeds[*at]),
						&map.extents[i].digest);
	cfs_content_map_fini(&map);
	return r;
}

static inline int check_file(struct bed *b, uint64_t ino, const struct file *f)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_inode_record record;
	struct cfs_extent e;
	struct cfs_key key;
	uint64_t off = 0;
	unsigned n = 0;
	int r;

	cfs_key_inode(&key, ino);
	r = cfs_levels_get(cfs_store_levels(b->store), cfs_key_slice(&key),
			   &buf);
	if (r == 0)
		r = cfs_inode_decode(buf.data, buf.len, &record);
	if (r == 0 && record.content == CFS_CONTENT_SEALED) {
		r = check_map(b, &record.map, f, &n);
		ck_assert(r < 0 || n == f->n);
		return r;
	}
	for (; r == 0 && n < f->n; n++) {
		cfs_key_extent(&key, ino, off);
		cfs_buf_reset(&buf);
		r = cfs_levels_get(cfs_store_levels(b->store),
				   cfs_key_slice(&key), &buf);
		if (r == 0)
			r = cfs_extent_decode(off, buf.data, buf.len, &e);
		if (r == 0)
			r = bed_check_chunk(b, f->seeds[n], e.len, &e.digest);
		off += len_of(f->seeds[n]);
	}
	return r;
}

/* ---- many files ---- */

static inline void random_file(struct file *f, uint64_t *state)
{
	f->there = true;
	f->sealed = bed_random(state) % 3;
	f->n = (unsigned)(bed_random(state) % CHUNKS) + 1;
	for (unsigned i = 0; i < f->n; i++)
		f->seeds[i] = bed_random(state) % SEEDS + 1;
}

static inline void make_files(struct bed *b, struct file *files,
			      uint64_t *state)
{
	for (uint64_t i = 0; i < FILES; i++) {
		random_file(&files[i], state);
		make_file(b, i + 2, &files[i]);
		if (i % 16 == 0)
			ck_assert_int_eq(cfs_store_commit(b->store), 0);
	}
	ck_assert_int_eq(cfs_store_commit(b->store), 0);
}

static inline void remove_some(struct bed *b, struct file *files,
			       unsigned percent, uint64_t *state)
{
	for (uint64_t i = 0; i < FILES; i++) {
		if (!files[i].there || bed_random(state) % 100 >= percent)
			continue;
		remove_file(b, i + 2, &files[i]);
		files[i].there = false;
	}
}

static inline void all_are_there(struct bed *b, const struct file *files)
{
	for (uint64_t i = 0; i < FILES; i++)
		if (files[i].there)
			ck_assert_int_eq(check_file(b, i + 2, &files[i]), 0);
}

/* ---- one chunk ---- */

static inline void refer(struct bed *b, uint64_t ino,
			 const struct cfs_digest *digest, size_t len)
{
	const struct cfs_extent e = {
		.len = len, .digest = *digest, .chunk_len = (uint32_t)len};

	cfs_store_enter(b->store);
	put_inode(b, ino, len, NULL);
	bed_put_extent(b, ino, &e);
	cfs_store_leave(b->store);
}

static inline void unrefer(struct bed *b, uint64_t ino)
{
	const struct file one = {.n = 1};

	remove_file(b, ino, &one);
}

static inline struct cfs_digest digest_of(uint64_t chunk_seed, size_t len)
{
	_cleanup_(cfs_freep) void *p = bed_bytes(chunk_seed, len);
	struct cfs_digest digest;

	cfs_digest_of(p, len, &digest);
	return digest;
}

static inline void gc(struct bed *b, const struct cfs_gc_options *options,
		      struct cfs_gc_result *result)
{
	struct cfs_error err = {""};
	int r = cfs_store_gc(b->store, options, NULL, result, &err);

	ck_assert_msg(r == 0, "gc: %d %s", r, err.text);
}

#endif
