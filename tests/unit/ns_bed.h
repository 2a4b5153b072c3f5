/* A namespace over a store in memory, for the tests of store/ns. */
#ifndef CFS_NS_BED_H
#define CFS_NS_BED_H

#include <fcntl.h>

#include "store/ns/ns.h"
#include "store/util/buf.h"
#include "tests/unit/core_bed.h"

struct ns_bed {
	struct bed bed;
	struct cfs_ns *ns;
};

static const struct cfs_ns_cred ns_cred = {1000, 1000};

static inline void ns_bed_open(struct ns_bed *b, struct cfs_engine *engine)
{
	struct cfs_store_options options = bed_options;
	struct cfs_error err = {""};
	int r;

	options.pack_bytes = 16u << 20; /* several chunks */
	b->bed.engine = engine ? engine : cfs_engine_mem_new();
	b->bed.index = cfs_index_mem_new();
	ck_assert(b->bed.engine && b->bed.index);
	r = cfs_store_open_engine(b->bed.engine, b->bed.index, &options,
				  &b->bed.store, &err);
	ck_assert_msg(r == 0, "open: %d %s", r, err.text);
	ck_assert_msg(cfs_ns_open(b->bed.store, NULL, &b->ns, &err) == 0, "%s",
		      err.text);
}

static inline void ns_bed_close(struct ns_bed *b)
{
	ck_assert_int_eq(cfs_ns_close(b->ns), 0);
	ck_assert_int_eq(cfs_store_close(b->bed.store), 0);
}

/* Power goes; what the disk held after @events (0: all) is opened anew. */
static inline void ns_bed_crash(struct ns_bed *b, size_t events)
{
	size_t all = cfs_engine_mem_events(b->bed.engine);
	struct cfs_engine *disk = cfs_engine_mem_after_power_cut(
		b->bed.engine, events ? events : all, 0);

	ck_assert_ptr_nonnull(disk);
	(void)cfs_ns_close(b->ns);
	(void)cfs_store_close(b->bed.store);
	ns_bed_open(b, disk);
}

/* Closed properly and opened again, without the index. */
static inline void ns_bed_reopen(struct ns_bed *b)
{
	struct cfs_engine *disk;

	ck_assert_int_eq(cfs_ns_close(b->ns), 0);
	disk = bed_disk(&b->bed);
	ck_assert_int_eq(cfs_store_close(b->bed.store), 0);
	ns_bed_open(b, disk);
}

static inline struct cfs_ns_file *ns_create(struct ns_bed *b, uint64_t dir,
					    const char *name)
{
	struct cfs_ns_file *f = NULL;
	struct stat st;
	int r = cfs_ns_create(b->ns, &ns_cred, dir, name, 0644, O_RDWR, &st,
			      &f);

	ck_assert_msg(r == 0, "create %s: %d", name, r);
	cfs_ns_forget(b->ns, st.st_ino, 1);
	return f;
}

static inline uint64_t ns_ino(struct ns_bed *b, const char *path)
{
	struct stat st;
	int r = cfs_ns_walk(b->ns, path, &st);

	ck_assert_msg(r == 0, "walk %s: %d", path, r);
	return st.st_ino;
}

static inline struct cfs_ns_file *ns_open(struct ns_bed *b, const char *path,
					  int flags)
{
	struct cfs_ns_file *f = NULL;
	int r = cfs_ns_open_file(b->ns, ns_ino(b, path), flags, &f);

	ck_assert_msg(r == 0, "open %s: %d", path, r);
	return f;
}

static inline uint64_t ns_mkdir(struct ns_bed *b, uint64_t dir,
				const char *name)
{
	struct stat st;
	int r = cfs_ns_mkdir(b->ns, &ns_cred, dir, name, 0755, &st);

	ck_assert_msg(r == 0, "mkdir %s: %d", name, r);
	cfs_ns_forget(b->ns, st.st_ino, 1);
	return st.st_ino;
}

static inline void ns_write(struct cfs_ns_file *f, const void *data, size_t len,
			    uint64_t off)
{
	ck_assert_int_eq(cfs_ns_pwrite(f, data, len, off), (ssize_t)len);
}

/* Writes what bed_bytes(@seed) gives. */
static inline void ns_fill(struct cfs_ns_file *f, uint64_t seed, size_t len,
			   uint64_t off)
{
	uint8_t *p = bed_bytes(seed, len);

	ns_write(f, p, len, off);
	free(p);
}

static inline void ns_expect(struct cfs_ns_file *f, const void *want,
			     size_t len, uint64_t off)
{
	uint8_t *is = malloc(len + 1);

	ck_assert_ptr_nonnull(is);
	ck_assert_int_eq(cfs_ns_pread(f, is, len, off), (ssize_t)len);
	for (size_t i = 0; i < len; i++)
		if (is[i] != ((const uint8_t *)want)[i])
			ck_abort_msg("byte %zu at %llu differs", i,
				     (unsigned long long)off);
	free(is);
}

static inline void ns_expect_fill(struct cfs_ns_file *f, uint64_t seed,
				  size_t len, uint64_t off)
{
	uint8_t *p = bed_bytes(seed, len);

	ns_expect(f, p, len, off);
	free(p);
}

static inline void ns_no_problems(struct ns_bed *b)
{
	struct cfs_fsck_result result;
	struct cfs_error err = {""};

	ck_assert_int_eq(cfs_ns_sync(b->ns), 0);
	ck_assert_msg(cfs_store_fsck(b->bed.store, NULL, &result, &err) == 0,
		      "%s", err.text);
	ck_assert_uint_eq(result.problems, 0);
}

#endif
