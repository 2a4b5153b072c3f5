/* Random numbers, files in memory and a captured log, for tests of maps. */
#ifndef CFS_TEST_MAP_BED_H
#define CFS_TEST_MAP_BED_H

#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "store/map/blockcache.h"
#include "store/map/eval.h"
#include "store/map/filepool.h"
#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/log.h"

static uint64_t rng_state;

static inline uint64_t rng(void)
{
	uint64_t z = rng_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static inline void rng_seed(void)
{
	const char *env = getenv("CFS_SEED");

	rng_state = env ? strtoull(env, NULL, 0) : 20261121;
	(void)printf("CFS_SEED=%llu\n", (unsigned long long)rng_state);
}

/* In [lo, hi]. */
static inline uint64_t pick(uint64_t lo, uint64_t hi)
{
	return lo + rng() % (hi - lo + 1);
}

static inline void fill_random(uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)rng();
}

#define N_FILES	  5
#define FILE_SIZE 20000

/* Files in memory, the bytes they hold, and what is needed to read them. */
struct bed {
	struct cfs_source *source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	uint8_t files[N_FILES][FILE_SIZE];
};

static inline uint32_t tab_add(struct cfs_filetab *tab,
			       struct cfs_source *source, const char *path)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_version v;
	uint32_t index;

	ck_assert_int_eq(source->ops->open(source, path, &file), 0);
	ck_assert_int_eq(cfs_file_settle(file, &v), 0);
	ck_assert_int_eq(cfs_filetab_add(tab, path, &v, &index), 0);
	return index;
}

static inline void bed_open(struct bed *bed)
{
	bed->source = cfs_source_mem_new();
	bed->tab = cfs_filetab_new();
	bed->pool = cfs_filepool_new(bed->source);
	ck_assert(bed->source && bed->tab && bed->pool);
	for (unsigned i = 0; i < N_FILES; i++) {
		char path[16];

		(void)snprintf(path, sizeof(path), "file%u", i);
		fill_random(bed->files[i], FILE_SIZE);
		ck_assert_int_eq(cfs_source_mem_put(bed->source, path,
						    bed->files[i], FILE_SIZE),
				 0);
		ck_assert_uint_eq(tab_add(bed->tab, bed->source, path), i);
	}
}

static inline void bed_close(struct bed *bed)
{
	ck_assert_uint_eq(cfs_filepool_count(bed->pool), 0);
	cfs_filepool_free(bed->pool);
	cfs_filetab_unref(bed->tab);
	cfs_source_free(bed->source);
}

/* A map and, beside it, the bytes it must show. */
struct pair {
	struct cfs_map *map;
	struct cfs_buf bytes;
};

static inline void pair_free(struct pair *p)
{
	cfs_map_unref(p->map);
	cfs_buf_free(&p->bytes);
}

static inline void expect_read(struct cfs_reader *reader,
			       const struct cfs_buf *bytes, size_t off,
			       size_t len)
{
	_cleanup_(cfs_freep) uint8_t *got = malloc(len + 1);
	size_t want = off < bytes->len ? CFS_MIN(len, bytes->len - off) : 0;

	ck_assert_ptr_nonnull(got);
	got[want] = 0xa5;
	ck_assert_int_eq(cfs_reader_pread(reader, got, len, off),
			 (ssize_t)want);
	ck_assert_uint_eq(got[want], 0xa5);
	if (want && memcmp(got, bytes->data + off, want) != 0) {
		size_t i = 0;

		while (got[i] == bytes->data[off + i])
			i++;
		ck_abort_msg("byte %zu of [%zu, %zu) differs", off + i, off,
			     off + want);
	}
}

static inline void expect_map(struct bed *bed, struct cfs_map *map,
			      const struct cfs_buf *bytes,
			      struct cfs_blockcache *cache, unsigned reads)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	struct cfs_error err = {""};

	ck_assert_msg(cfs_reader_open(map, bed->pool, cache, &reader, &err) ==
			      0,
		      "%s", err.text);
	expect_read(reader, bytes, 0, bytes->len + 10);
	expect_read(reader, bytes, bytes->len, 1);
	expect_read(reader, bytes, bytes->len + 5, 1);
	while (reads--) {
		size_t off = pick(0, bytes->len);

		expect_read(reader, bytes, off,
			    pick(0, rng() % 2 ? 20 : bytes->len));
	}
}

/* What went to the log. */
static char log_text[4096];
static unsigned log_lines;

static inline void log_sink(enum cfs_log_level level, const char *line)
{
	size_t n = strlen(log_text);

	ck_assert_int_eq(level, CFS_LOG_ERR);
	(void)snprintf(log_text + n, sizeof(log_text) - n, "%s\n", line);
	log_lines++;
}

static inline void log_begin(void)
{
	log_text[0] = '\0';
	log_lines = 0;
	cfs_log_set_sink(log_sink, CFS_LOG_DEBUG);
}

#endif
