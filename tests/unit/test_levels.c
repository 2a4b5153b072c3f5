/* Changes over an index: what is seen when, and what reaches the index. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/index/index.h"
#include "store/util/endian.h"
#include "tests/test.h"

/* ---- an index that fails on request, over the twin ---- */

struct faulty {
	struct cfs_index base;
	struct cfs_index *real;
	int fail; /* the next commit */
};

static int faulty_get(struct cfs_index *index, struct cfs_slice key,
		      struct cfs_buf *val_out)
{
	struct faulty *f = container_of(index, struct faulty, base);

	return f->real->ops->get(f->real, key, val_out);
}

static int faulty_commit(struct cfs_index *index, const struct cfs_batch *batch)
{
	struct faulty *f = container_of(index, struct faulty, base);
	int r = f->fail;

	f->fail = 0;
	return r ? r : f->real->ops->commit(f->real, batch);
}

static int faulty_iter_new(struct cfs_index *index, struct cfs_slice prefix,
			   struct cfs_slice from, struct cfs_index_iter **out)
{
	struct faulty *f = container_of(index, struct faulty, base);

	return f->real->ops->iter_new(f->real, prefix, from, out);
}

static void faulty_close(struct cfs_index *index)
{
	cfs_index_close(container_of(index, struct faulty, base)->real);
}

static const struct cfs_index_ops faulty_ops = {
	.get = faulty_get,
	.commit = faulty_commit,
	.iter_new = faulty_iter_new,
	.close = faulty_close,
};

static struct faulty below;
static struct cfs_levels *levels;

static void setup(void)
{
	below = (struct faulty){{&faulty_ops}, cfs_index_mem_new(), 0};
	ck_assert_ptr_nonnull(below.real);
	levels = cfs_levels_new(&below.base);
	ck_assert_ptr_nonnull(levels);
}

static void teardown(void)
{
	cfs_levels_free(levels);
	cfs_index_close(&below.base);
}

static struct cfs_slice str(const char *s)
{
	return (struct cfs_slice){s, strlen(s)};
}

static void put(const char *key, const char *val)
{
	ck_assert_int_eq(cfs_levels_put(levels, str(key), str(val)), 0);
}

static void del(const char *key)
{
	ck_assert_int_eq(cfs_levels_del(levels, str(key)), 0);
}

static void freeze(void)
{
	ck_assert_int_eq(cfs_levels_freeze(levels), 0);
}

static void settle(void)
{
	ck_assert_int_eq(cfs_levels_settle(levels, NULL), 0);
}

static void to_string(struct cfs_index_iter *iter, struct cfs_buf *out)
{
	struct cfs_slice key, val;

	while (iter->ops->next(iter, &key, &val) == 1)
		cfs_buf_printf(out, "%.*s=%.*s ", (int)key.len,
			       (const char *)key.data, (int)val.len,
			       (const char *)val.data);
	cfs_index_iter_freep(&iter);
}

/* All keys, seen through the levels; and each by itself. */
static void expect(const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	struct cfs_index_iter *iter;
	char key[2] = "a";

	ck_assert_int_eq(cfs_levels_iter(levels, str(""), str(""), &iter), 0);
	to_string(iter, &all);
	ck_assert_str_eq(cfs_buf_str(&all), want);
	for (; key[0] <= 'z'; key[0]++) {
		_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
		_cleanup_(cfs_buf_free) struct cfs_buf pair = CFS_BUF_INIT;
		int r = cfs_levels_get(levels, str(key), &val);

		ck_assert(r == 0 || r == -ENOENT);
		cfs_buf_printf(&pair, "%s=%s ", key, cfs_buf_str(&val));
		ck_assert_int_eq(r == 0,
				 strstr(want, cfs_buf_str(&pair)) != NULL);
	}
}

/* What the index itself holds. */
static void expect_index(const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	struct cfs_index_iter *iter;

	ck_assert_int_eq(
		below.real->ops->iter_new(below.real, str(""), str(""), &iter),
		0);
	to_string(iter, &all);
	ck_assert_str_eq(cfs_buf_str(&all), want);
}

START_TEST(test_order)
{
	ck_assert(!cfs_levels_dirty(levels));
	put("a", "1");
	put("b", "1");
	put("c", "1");
	put("d", "1");
	freeze();
	settle();
	ck_assert(!cfs_levels_dirty(levels));
	expect_index("a=1 b=1 c=1 d=1 ");
	del("b");
	put("c", "2");
	put("e", "2");
	expect("a=1 c=2 d=1 e=2 ");
	freeze();
	ck_assert(cfs_levels_dirty(levels));
	expect("a=1 c=2 d=1 e=2 ");
	put("b", "3");
	del("c");
	del("e");
	put("a", "3");
	put("a", "4");
	expect("a=4 b=3 d=1 ");
	expect_index("a=1 b=1 c=1 d=1 ");
	settle();
	expect("a=4 b=3 d=1 ");
	expect_index("a=1 c=2 d=1 e=2 ");
	freeze();
	settle();
	expect("a=4 b=3 d=1 ");
	expect_index("a=4 b=3 d=1 ");
}
END_TEST

START_TEST(test_freeze_once)
{
	freeze(); /* also of nothing */
	ck_assert_int_eq(cfs_levels_freeze(levels), -EBUSY);
	settle();
	freeze();
	ck_assert_int_eq(cfs_levels_thaw(levels), 0);
	freeze();
}
END_TEST

START_TEST(test_put_frozen)
{
	ck_assert_int_eq(cfs_levels_put_frozen(levels, str("a"), str("1")),
			 -EINVAL);
	put("a", "1");
	put("b", "1");
	freeze();
	put("a", "3");
	ck_assert_int_eq(cfs_levels_put_frozen(levels, str("a"), str("2")), 0);
	ck_assert_int_eq(cfs_levels_put_frozen(levels, str("c"), str("2")), 0);
	ck_assert_int_eq(cfs_levels_del_frozen(levels, str("b")), 0);
	expect("a=3 c=2 ");
	settle();
	expect_index("a=2 c=2 ");
	expect("a=3 c=2 ");
}
END_TEST

static int add(void *arg, struct cfs_slice key, const struct cfs_slice *val)
{
	cfs_buf_printf(arg, "%.*s%s%.*s ", (int)key.len, (const char *)key.data,
		       val ? "=" : "-", val ? (int)val->len : 0,
		       val ? (const char *)val->data : "");
	return key.len == 4; /* "stop" */
}

START_TEST(test_each_frozen)
{
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;

	put("c", "1");
	put("a", "");
	del("b");
	freeze();
	put("d", "not frozen");
	ck_assert_int_eq(cfs_levels_each_frozen(levels, add, &all), 0);
	ck_assert_str_eq(cfs_buf_str(&all), "a= b- c=1 ");
	settle();
	put("stop", "");
	put("z", "");
	freeze();
	ck_assert_int_eq(cfs_levels_each_frozen(levels, add, &all), 1);
}
END_TEST

START_TEST(test_thaw)
{
	put("a", "1");
	put("b", "1");
	put("c", "1");
	freeze();
	settle();
	put("a", "2");
	del("b");
	put("d", "2");
	freeze();
	put("a", "3");
	del("d");
	put("e", "3");
	ck_assert_int_eq(cfs_levels_thaw(levels), 0);
	expect("a=3 c=1 e=3 ");
	expect_index("a=1 b=1 c=1 ");
	freeze();
	settle();
	expect_index("a=3 c=1 e=3 ");
	expect("a=3 c=1 e=3 ");
}
END_TEST

START_TEST(test_settle_fails)
{
	struct cfs_batch extra = CFS_BATCH_INIT;

	put("a", "1");
	freeze();
	put("b", "2");
	cfs_batch_put(&extra, str("t"), str("9"));
	below.fail = -ENOSPC;
	ck_assert_int_eq(cfs_levels_settle(levels, &extra), -ENOSPC);
	expect("a=1 b=2 ");
	expect_index("");
	ck_assert_int_eq(cfs_levels_settle(levels, &extra), 0);
	expect_index("a=1 t=9 ");
	freeze();
	extra.bytes.failed = true;
	ck_assert_int_eq(cfs_levels_settle(levels, &extra), -ENOMEM);
	extra.bytes.failed = false;
	settle();
	expect("a=1 b=2 t=9 ");
	cfs_batch_fini(&extra);
}
END_TEST

START_TEST(test_prefix_and_from)
{
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	struct cfs_index_iter *iter;

	put("a", "0");
	put("b1", "0");
	put("b5", "0");
	freeze();
	settle();
	put("b2", "1");
	del("b5");
	put("c", "1");
	freeze();
	put("b", "2");
	put("b9", "2");
	ck_assert_int_eq(cfs_levels_iter(levels, str("b"), str("b1"), &iter),
			 0);
	to_string(iter, &all);
	ck_assert_str_eq(cfs_buf_str(&all), "b1=0 b2=1 b9=2 ");
}
END_TEST

/* Freezing, settling and thawing under an open iterator. */
START_TEST(test_iterate_while_it_changes)
{
	_cleanup_(cfs_buf_free) struct cfs_buf all = CFS_BUF_INIT;
	struct cfs_index_iter *iter;
	struct cfs_slice key, val;

	put("a", "1");
	put("b", "1");
	freeze();
	put("c", "1");
	ck_assert_int_eq(cfs_levels_iter(levels, str(""), str(""), &iter), 0);
	ck_assert_int_eq(iter->ops->next(iter, &key, &val), 1);
	settle();
	del("b");
	freeze();
	put("c", "2");
	settle();
	ck_assert_int_eq(memcmp(key.data, "a", 1), 0);
	ck_assert_int_eq(memcmp(val.data, "1", 1), 0);
	to_string(iter, &all);
	ck_assert_str_eq(cfs_buf_str(&all), "b=1 c=1 ");
	expect("a=1 c=2 ");
}
END_TEST

/* ---- random, against an array ---- */

#define KEYS 200

struct model {
	int val[KEYS]; /* 0: absent */
};

static void expect_model(const struct model *m)
{
	_cleanup_(cfs_buf_free) struct cfs_buf want = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf have = CFS_BUF_INIT;
	struct cfs_index_iter *iter;

	for (int k = 0; k < KEYS; k++)
		if (m->val[k])
			cfs_buf_printf(&want, "%03d=%d ", k, m->val[k]);
	ck_assert_int_eq(cfs_levels_iter(levels, str(""), str(""), &iter), 0);
	to_string(iter, &have);
	ck_assert_str_eq(cfs_buf_str(&have), cfs_buf_str(&want));
}

static void change(struct model *m, int n)
{
	char key[16], val[16];

	while (n--) {
		int k = (int)(random() % KEYS);

		m->val[k] = random() % 3 ? (int)(random() % 1000) + 1 : 0;
		(void)snprintf(key, sizeof(key), "%03d", k);
		(void)snprintf(val, sizeof(val), "%d", m->val[k]);
		if (m->val[k])
			put(key, val);
		else
			del(key);
	}
}

START_TEST(test_random)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();
	struct model m = {{0}};

	(void)printf("seed %u\n", seed);
	srandom(seed);
	for (int round = 0; round < 300; round++) {
		change(&m, (int)(random() % 20));
		freeze();
		change(&m, (int)(random() % 20));
		expect_model(&m);
		if (random() % 3)
			settle();
		else
			ck_assert_int_eq(cfs_levels_thaw(levels), 0);
		expect_model(&m);
	}
}
END_TEST

/* A large directory is listed in one go and name by name. */
START_TEST(test_many_names)
{
	enum {
		MANY = 100000
	};
	struct cfs_index_iter *iter;
	struct cfs_slice key, val;
	int n = 0;

	for (int i = 0; i < MANY; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "%06d", i);
		put(name, "x");
		if (i == MANY / 3)
			freeze();
		if (i == MANY / 2)
			settle();
	}
	ck_assert_int_eq(cfs_levels_iter(levels, str(""), str(""), &iter), 0);
	for (; iter->ops->next(iter, &key, &val) == 1; n++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "%06d", n);
		ck_assert_uint_eq(key.len, 6);
		ck_assert_int_eq(memcmp(key.data, name, 6), 0);
	}
	ck_assert_int_eq(n, MANY);
	cfs_index_iter_freep(&iter);
	for (int i = 0; i < MANY; i += 7) {
		char name[16];

		(void)snprintf(name, sizeof(name), "%06d", i);
		ck_assert_int_eq(
			cfs_levels_iter(levels, str(""), str(name), &iter), 0);
		ck_assert_int_eq(iter->ops->next(iter, &key, &val), 1);
		ck_assert_int_eq(memcmp(key.data, name, 6), 0);
		cfs_index_iter_freep(&iter);
	}
}
END_TEST

/* ---- threads: a counter that is always there and never goes back ---- */

static atomic_bool stop;

static uint64_t read_counter(void)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_levels_get(levels, str("n"), &buf), 0);
	ck_assert_uint_eq(buf.len, 8);
	return cfs_get_le64(buf.data);
}

static void *reader(void *arg)
{
	uint64_t last = 0;

	(void)arg;
	while (!atomic_load(&stop)) {
		struct cfs_index_iter *iter;
		struct cfs_slice key, val;
		uint64_t n = read_counter();

		ck_assert_uint_ge(n, last);
		ck_assert_int_eq(
			cfs_levels_iter(levels, str("n"), str(""), &iter), 0);
		ck_assert_int_eq(iter->ops->next(iter, &key, &val), 1);
		last = cfs_get_le64(val.data);
		ck_assert_uint_ge(last, n);
		ck_assert_int_eq(iter->ops->next(iter, &key, &val), 0);
		cfs_index_iter_freep(&iter);
	}
	return NULL;
}

static void *committer(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		freeze();
		if (random() % 2)
			settle();
		else
			ck_assert_int_eq(cfs_levels_thaw(levels), 0);
	}
	return NULL;
}

START_TEST(test_threads)
{
	void *(*const run[])(void *) = {reader, reader, committer};
	pthread_t threads[CFS_ARRAY_SIZE(run)];
	uint8_t raw[8] = {0};

	ck_assert_int_eq(
		cfs_levels_put(levels, str("n"), (struct cfs_slice){raw, 8}),
		0);
	atomic_store(&stop, false);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(run); i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, run[i], NULL), 0);
	for (uint64_t n = 1; n <= 20000; n++) {
		cfs_put_le64(raw, n);
		ck_assert_int_eq(cfs_levels_put(levels, str("n"),
						(struct cfs_slice){raw, 8}),
				 0);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(run); i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(read_counter(), 20000);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("levels");
	TCase *t = tcase_create("levels");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_order);
	tcase_add_test(t, test_freeze_once);
	tcase_add_test(t, test_put_frozen);
	tcase_add_test(t, test_each_frozen);
	tcase_add_test(t, test_thaw);
	tcase_add_test(t, test_settle_fails);
	tcase_add_test(t, test_prefix_and_from);
	tcase_add_test(t, test_iterate_while_it_changes);
	tcase_add_test(t, test_random);
	tcase_add_test(t, test_many_names);
	tcase_add_test(t, test_threads);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
