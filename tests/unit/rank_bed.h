/* Stages over a namespace in memory. */
#ifndef CFS_RANK_BED_H
#define CFS_RANK_BED_H

#include <stdio.h>

#include "fs/rank/stage.h"
#include "tests/unit/ns_bed.h"

static struct ns_bed bed;
static struct cfs_verb_context context;
static unsigned n_told; /* names the kernel was told to forget */

static inline void told(void *arg, uint64_t ino, const char *name)
{
	(void)arg;
	(void)ino;
	(void)name;
	n_told++;
}

static inline void setup(void)
{
	struct stat st = {.st_mode = 0777};

	ns_bed_open(&bed, NULL);
	ck_assert_int_eq(cfs_ns_setattr(bed.ns, 1, &st, CFS_SET_MODE, &st), 0);
	context = (struct cfs_verb_context){.ns = bed.ns, .invalidate = told};
	n_told = 0;
}

static inline void teardown(void)
{
	ns_bed_close(&bed);
}

static inline struct cfs_stage_options rank_options(const char *format)
{
	return (struct cfs_stage_options){
		.run = "runs/a",
		.step = "global_step7",
		.format = format,
		.n_ranks = 4,
		.uid = 1000,
		.gid = 1000,
		.umask = 022,
	};
}

static inline struct cfs_stage *stage_new(const struct cfs_stage_options *o)
{
	struct cfs_error err = {""};
	struct cfs_stage *stage = NULL;
	int r = cfs_stage_new(&context, o, &stage, &err);

	ck_assert_msg(r == 0, "new: %d %s", r, err.text);
	return stage;
}

static inline void stage_bytes(struct cfs_stage_stream *s, uint64_t seed,
			       size_t len)
{
	_cleanup_(cfs_freep) uint8_t *p = bed_bytes(seed, len);
	struct cfs_error err = {""};

	for (size_t at = 0; at < len; at += 100000) {
		size_t n = CFS_MIN(len - at, (size_t)100000);
		int r = cfs_stage_write(s, p + at, n, &err);

		ck_assert_msg(r == 0, "write: %d %s", r, err.text);
	}
}

static inline void stage_end(struct cfs_stage_stream *s)
{
	struct cfs_error err = {""};
	int r = cfs_stage_end(s, &err);

	ck_assert_msg(r == 0, "end: %d %s", r, err.text);
}

static inline void stage_file(struct cfs_stage *stage, uint32_t rank,
			      const char *name, uint64_t seed, size_t len)
{
	struct cfs_error err = {""};
	struct cfs_stage_stream *s;
	int r = cfs_stage_file(stage, rank, name, &s, &err);

	ck_assert_msg(r == 0, "file: %d %s", r, err.text);
	stage_bytes(s, seed, len);
	stage_end(s);
}

static inline int stage_object(struct cfs_stage *stage, uint32_t rank,
			       const char *name, const char *text,
			       struct cfs_error *err)
{
	struct cfs_stage_stream *s;
	int r = cfs_stage_object(stage, rank, name, &s, err);

	if (r < 0)
		return r;
	r = cfs_stage_write(s, text, strlen(text), err);
	ck_assert_int_eq(r, 0);
	return cfs_stage_end(s, err);
}

static inline void stage_commit(struct cfs_stage *stage)
{
	struct cfs_error err = {""};
	int r = cfs_stage_commit(stage, &err);

	ck_assert_msg(r == 0, "commit: %d %s", r, err.text);
}

static inline bool is_there(const char *path)
{
	struct stat st;
	int r = cfs_ns_walk(bed.ns, path, &st);

	ck_assert(r == 0 || r == -ENOENT);
	return r == 0;
}

static inline void expect_file(const char *path, uint64_t seed, size_t len)
{
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	ck_assert_uint_eq(st.st_size, len);
	ns_expect_fill(f, seed, len, 0);
	cfs_ns_close_file(f);
}

static inline void expect_text(const char *path, const char *text)
{
	struct cfs_ns_file *f = ns_open(&bed, path, O_RDONLY);
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(bed.ns, path, &st), 0);
	ck_assert_uint_eq(st.st_size, strlen(text));
	ns_expect(f, text, strlen(text), 0);
	cfs_ns_close_file(f);
}

#endif
