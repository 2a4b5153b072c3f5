/* One namespace, `bed`, for each test of files in it: setup and teardown. */
#ifndef CFS_NS_FILE_BED_H
#define CFS_NS_FILE_BED_H

#include "tests/unit/ns_bed.h"

#define MIB (1u << 20)

static struct ns_bed bed;

static inline void setup(void)
{
	ns_bed_open(&bed, NULL);
}

static inline void teardown(void)
{
	ns_bed_close(&bed);
}

static inline off_t size_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	return st.st_size;
}

static inline void resize(const char *path, off_t size)
{
	struct stat st = {.st_size = size};

	ck_assert_int_eq(cfs_ns_setattr(bed.ns, ns_ino(&bed, path), &st,
					CFS_SET_SIZE, &st),
			 0);
	ck_assert_int_eq(st.st_size, size);
}

static inline void expect_small(const char *path, uint64_t seed, size_t len)
{
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);

	ck_assert_int_eq(size_of(path), (off_t)len);
	ns_expect_fill(f, seed, len, 0);
	cfs_ns_close_file(f);
}

#endif
