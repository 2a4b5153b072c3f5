/* One suite over the engines: a directory, and its twin in memory. */
#include "store/pack/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/buf.h"
#include "store/util/error.h"
#include "tests/test.h"

struct bed {
	struct cfs_engine *engine;
	char dir[64];
	int dirfd;
};

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* @i 0: a directory, 1: memory */
static void bed_open(struct bed *bed, int i)
{
	struct cfs_error err = {.text = ""};

	*bed = (struct bed){.dirfd = -1};
	if (i == 1) {
		bed->engine = cfs_engine_mem_new();
		ck_assert_ptr_nonnull(bed->engine);
		return;
	}
	(void)snprintf(bed->dir, sizeof(bed->dir), "/tmp/cfs_engine_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(bed->dir));
	bed->dirfd = open(bed->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(bed->dirfd, 0);
	ck_assert_msg(cfs_engine_dir_open(bed->dirfd, &bed->engine, &err) == 0,
		      "%s", err.text);
}

static void bed_close(struct bed *bed)
{
	cfs_engine_close(bed->engine);
	if (bed->dirfd < 0)
		return;
	(void)close(bed->dirfd);
	ck_assert_int_eq(nftw(bed->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS),
			 0);
}

static int put(struct bed *bed, struct cfs_pack_id id, const char *text,
	       uint64_t off)
{
	size_t len = strlen(text);
	char copy[64];
	/* an empty piece, and several */
	struct iovec iov[4] = {{copy, 0},
			       {copy, len / 2},
			       {copy, 0},
			       {copy + len / 2, len - len / 2}};

	memcpy(copy, text, len + 1);
	return bed->engine->ops->write(bed->engine, id, iov, 4, off);
}

static int count(void *arg, struct cfs_pack_id id, uint64_t size)
{
	char *text = arg;
	size_t len = strlen(text);

	(void)snprintf(text + len, 200 - len, "%u/%u:%u ", id.lane, id.number,
		       (unsigned)size);
	return id.number == 77 ? 5 : 0;
}

START_TEST(test_packs)
{
	const struct cfs_pack_id a = {0, 1}, b = {0, 16}, c = {2, 3},
				 none = {0, 2};
	struct cfs_engine *e;
	struct bed bed;
	char buf[32], text[200] = "";
	uint64_t size;

	bed_open(&bed, _i);
	e = bed.engine;
	ck_assert_int_eq(e->ops->list(e, count, text), 0);
	ck_assert_str_eq(text, "");
	ck_assert_int_eq(e->ops->create(e, b, 1 << 20), 0);
	ck_assert_int_eq(e->ops->create(e, a, 0), 0);
	ck_assert_int_eq(e->ops->create(e, c, 4096), 0);
	ck_assert_int_eq(e->ops->create(e, a, 0), -EEXIST);
	ck_assert_int_eq(put(&bed, a, "hello world", 0), 0);
	ck_assert_int_eq(put(&bed, a, "again", 20), 0);
	ck_assert_int_eq(put(&bed, none, "x", 0), -ENOENT);
	ck_assert_int_eq(e->ops->sync(e, a), 0);
	ck_assert_int_eq(e->ops->read(e, a, buf, sizeof(buf), 0), 25);
	ck_assert_int_eq(memcmp(buf, "hello world\0\0\0\0\0\0\0\0\0again", 25),
			 0);
	ck_assert_int_eq(e->ops->read(e, a, buf, 4, 6), 4);
	ck_assert_int_eq(memcmp(buf, "worl", 4), 0);
	ck_assert_int_eq(e->ops->read(e, a, buf, 4, 25), 0);
	ck_assert_int_eq(e->ops->read(e, a, buf, 4, 99), 0);
	ck_assert_int_eq(e->ops->read(e, none, buf, 4, 0), -ENOENT);
	ck_assert_int_eq(e->ops->size(e, a, &size), 0);
	ck_assert_uint_eq(size, 25);
	ck_assert_int_eq(e->ops->size(e, none, &size), -ENOENT);
	ck_assert_int_eq(e->ops->list(e, count, text), 0);
	ck_assert_str_eq(text, "0/1:25 0/16:0 2/3:0 ");
	ck_assert_int_eq(e->ops->seal(e, a, 25), 0);
	ck_assert_int_eq(e->ops->read(e, a, buf, 4, 6), 4);
	ck_assert_int_eq(e->ops->remove(e, a), 0);
	ck_assert_int_eq(e->ops->remove(e, a), -ENOENT);
	ck_assert_int_eq(e->ops->read(e, a, buf, 4, 6), -ENOENT);
	ck_assert_int_eq(e->ops->create(e, (struct cfs_pack_id){0, 77}, 0), 0);
	text[0] = '\0';
	ck_assert_int_eq(e->ops->list(e, count, text), 5);
	ck_assert_str_eq(text, "0/16:0 0/77:0 ");
	bed_close(&bed);
}
END_TEST

START_TEST(test_refs)
{
	struct cfs_buf one = CFS_BUF_INIT, two = CFS_BUF_INIT,
		       got = CFS_BUF_INIT;
	struct cfs_engine *e;
	struct bed bed;

	bed_open(&bed, _i);
	e = bed.engine;
	cfs_buf_put_str(&one, "one");
	cfs_buf_put_str(&two, "two2");
	ck_assert_int_eq(e->ops->ref_get(e, "head", &got), -ENOENT);
	ck_assert_int_eq(e->ops->ref_cas(e, "head", &one, &two), -EAGAIN);
	ck_assert_int_eq(e->ops->ref_cas(e, "head", NULL, &one), 0);
	ck_assert_int_eq(e->ops->ref_cas(e, "head", NULL, &one), -EAGAIN);
	ck_assert_int_eq(e->ops->ref_cas(e, "head", &two, &one), -EAGAIN);
	ck_assert_int_eq(e->ops->ref_cas(e, "head", &one, &two), 0);
	ck_assert_int_eq(e->ops->ref_get(e, "head", &got), 0);
	ck_assert_str_eq(cfs_buf_str(&got), "two2");
	ck_assert_int_eq(e->ops->ref_cas(e, "../x", NULL, &two), -EINVAL);
	ck_assert_int_eq(e->ops->ref_cas(e, "", NULL, &two), -EINVAL);
	cfs_buf_free(&one);
	cfs_buf_free(&two);
	cfs_buf_free(&got);
	bed_close(&bed);
}
END_TEST

/* Readers of packs that go, more packs than descriptors are kept. */
#define MANY 600u

static void *reader(void *arg)
{
	struct cfs_engine *e = arg;
	uint32_t v;

	for (uint32_t k = 0; k < 6 * MANY; k++) {
		struct cfs_pack_id id = {0, 1 + (k * 7919) % MANY};
		ssize_t n = e->ops->read(e, id, &v, sizeof(v), 0);

		if (n == -ENOENT && id.number % 2)
			continue; /* odd ones are removed meanwhile */
		ck_assert_int_eq(n, 4);
		ck_assert_uint_eq(v, id.number);
	}
	return NULL;
}

START_TEST(test_many)
{
	pthread_t threads[3];
	struct cfs_engine *e;
	struct bed bed;

	bed_open(&bed, _i);
	e = bed.engine;
	for (uint32_t i = 1; i <= MANY; i++) {
		struct cfs_pack_id id = {0, i};
		struct iovec iov = {&i, sizeof(i)};

		ck_assert_int_eq(e->ops->create(e, id, 4096), 0);
		ck_assert_int_eq(e->ops->write(e, id, &iov, 1, 0), 0);
		ck_assert_int_eq(e->ops->seal(e, id, 4), 0);
	}
	for (int t = 0; t < 3; t++)
		ck_assert_int_eq(pthread_create(&threads[t], NULL, reader, e),
				 0);
	for (uint32_t i = 1; i <= MANY; i += 2)
		ck_assert_int_eq(e->ops->remove(e, (struct cfs_pack_id){0, i}),
				 0);
	for (int t = 0; t < 3; t++)
		(void)pthread_join(threads[t], NULL);
	bed_close(&bed);
}
END_TEST

/* Room is taken at once and what is not used goes back when sealed. */
START_TEST(test_room)
{
	const struct cfs_pack_id id = {0, 1};
	struct stat st;
	struct bed bed;
	bool kept;

	bed_open(&bed, 0);
	ck_assert_int_eq(bed.engine->ops->create(bed.engine, id, 8 << 20), 0);
	ck_assert_int_eq(fstatat(bed.dirfd, "packs/0000/00000001.pack", &st, 0),
			 0);
	ck_assert_int_eq(st.st_size, 0);
	kept = st.st_blocks * 512 >= 8 << 20; /* else no fallocate here */
	ck_assert_int_eq(put(&bed, id, "something", 0), 0);
	ck_assert_int_eq(bed.engine->ops->sync(bed.engine, id), 0);
	ck_assert_int_eq(bed.engine->ops->seal(bed.engine, id, 9), 0);
	ck_assert_int_eq(fstatat(bed.dirfd, "packs/0000/00000001.pack", &st, 0),
			 0);
	ck_assert_int_eq(st.st_size, 9);
	ck_assert(!kept || st.st_blocks * 512 < 1 << 20);
	ck_assert_int_eq(bed.engine->ops->create(bed.engine,
						 (struct cfs_pack_id){0, 2},
						 (uint64_t)1 << 60) < 0,
			 1);
	ck_assert_int_eq(fstatat(bed.dirfd, "packs/0000/00000002.pack", &st, 0),
			 -1);
	bed_close(&bed);
}
END_TEST

/* What is no pack is not listed; what was there before is. */
START_TEST(test_names)
{
	static const char *const others[] = {"packs/0000/0000000g.pack",
					     "packs/0000/00000001.pack~",
					     "packs/0000/1.pack",
					     "packs/0000/00000000.pack",
					     "packs/x",
					     "packs/0000/0000000A.pack"};
	struct cfs_engine *e;
	char text[200] = "";
	struct bed bed;

	bed_open(&bed, 0);
	e = bed.engine;
	ck_assert_int_eq(e->ops->create(e, (struct cfs_pack_id){0, 0xabc}, 0),
			 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(others); i++) {
		int fd = openat(bed.dirfd, others[i], O_CREAT | O_WRONLY, 0600);

		ck_assert_int_ge(fd, 0);
		(void)close(fd);
	}
	cfs_engine_close(e);
	ck_assert_int_eq(cfs_engine_dir_open(bed.dirfd, &bed.engine, NULL), 0);
	ck_assert_int_eq(bed.engine->ops->list(bed.engine, count, text), 0);
	ck_assert_str_eq(text, "0/2748:0 ");
	bed_close(&bed);
}
END_TEST

/* The twin: failures by number, a limit, and what a power cut leaves. */
START_TEST(test_mem)
{
	const struct cfs_pack_id a = {0, 1}, b = {0, 2};
	struct cfs_engine *e, *cut;
	bool gone = false, kept = false, torn = false;
	struct bed bed;
	char buf[16];
	ssize_t n;

	bed_open(&bed, 1);
	e = bed.engine;
	cfs_engine_mem_limit(e, 1000);
	cfs_engine_mem_fail(e, CFS_ENGINE_WRITE, 2, -EIO);
	ck_assert_int_eq(e->ops->create(e, a, 900), 0);
	ck_assert_int_eq(e->ops->create(e, b, 101), -ENOSPC);
	ck_assert_int_eq(e->ops->create(e, b, 100), 0);
	ck_assert_int_eq(put(&bed, a, "synced", 0), 0);
	ck_assert_int_eq(put(&bed, a, "broken", 6), -EIO);
	ck_assert_int_eq(put(&bed, a, "broken", 6), 0);
	ck_assert_int_eq(e->ops->sync(e, a), 0);
	ck_assert_int_eq(put(&bed, a, "!!!!", 12), 0);
	for (uint64_t seed = 0; seed < 64; seed++) {
		cut = cfs_engine_mem_after_power_cut(
			e, cfs_engine_mem_events(e), seed);
		n = cut->ops->read(cut, a, buf, sizeof(buf), 0);
		ck_assert_int_ge(n, 12);
		ck_assert_int_eq(memcmp(buf, "syncedbroken", 12), 0);
		ck_assert(seed || (n == 16 && !memcmp(buf + 12, "!!!!", 4)));
		gone = gone || n == 12;
		kept = kept || (n == 16 && !memcmp(buf + 12, "!!!!", 4));
		torn = torn || (n == 16 && memcmp(buf + 12, "!!!!", 4) != 0);
		cfs_engine_close(cut);
	}
	ck_assert(gone && kept && torn);
	/* before the sync nothing is certain, not even the name */
	cut = cfs_engine_mem_after_power_cut(e, 0, 0);
	ck_assert_int_eq(cut->ops->read(cut, a, buf, 1, 0), -ENOENT);
	cfs_engine_close(cut);
	bed_close(&bed);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("engine");
	TCase *t = tcase_create("engine");

	tcase_add_loop_test(t, test_packs, 0, 2);
	tcase_add_loop_test(t, test_refs, 0, 2);
	tcase_add_loop_test(t, test_many, 0, 2);
	tcase_add_test(t, test_room);
	tcase_add_test(t, test_names);
	tcase_add_test(t, test_mem);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
