/* One suite over both backends of the index. */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "tests/unit/index_bed.h"

static void setup_rocksdb(void)
{
	setup_dir();
	ck_assert_int_eq(open_index(), 0);
}

static void setup_mem(void)
{
	dir[0] = '\0';
	idx = cfs_index_mem_new();
	ck_assert_ptr_nonnull(idx);
}

static void teardown_mem(void)
{
	cfs_index_close(idx);
}

/* "key=value " for each. */
static void expect_list(struct cfs_index_iter *iter, const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_slice key, val;

	while (iter->ops->next(iter, &key, &val) == 1)
		cfs_buf_printf(&buf, "%.*s=%.*s ", (int)key.len,
			       (const char *)key.data, (int)val.len,
			       (const char *)val.data);
	ck_assert_int_eq(iter->ops->next(iter, &key, &val), 0);
	ck_assert_str_eq(cfs_buf_str(&buf), want);
	cfs_index_iter_freep(&iter);
}

START_TEST(test_put_get_del)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	expect("a", NULL);
	put("a", "1");
	put("a", "22");
	put("b", "");
	expect("a", "22");
	expect("b", "");
	reopen();
	expect("a", "22");
	expect("aa", NULL);
	cfs_batch_del(&batch, str("a"));
	cfs_batch_del(&batch, str("never there"));
	cfs_batch_put(&batch, str("c"), str("3"));
	cfs_batch_put(&batch, str("c"), str("4"));
	cfs_batch_put(&batch, str("d"), str("5"));
	cfs_batch_del(&batch, str("d"));
	ck_assert_uint_eq(batch.count, 6);
	commit(&batch);
	expect("a", NULL);
	expect("c", "4");
	expect("d", NULL);
	reopen();
	expect("a", NULL);
	expect("b", "");
	expect("c", "4");
}
END_TEST

START_TEST(test_get_appends)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	put("a", "xyz");
	cfs_buf_put_str(&buf, "w");
	ck_assert_int_eq(idx->ops->get(idx, str("a"), &buf), 0);
	ck_assert_int_eq(idx->ops->get(idx, str("no"), &buf), -ENOENT);
	ck_assert_str_eq(cfs_buf_str(&buf), "wxyz");
}
END_TEST

START_TEST(test_iterate)
{
	for (int i = 0; i < 2; i++) {
		put("a1", "1");
		put("a\xff", "2");
		put("b", "3");
		put("a", "0");
		expect_list(list("a", ""), "a=0 a1=1 a\xff=2 ");
		expect_list(list("a", "a"), "a=0 a1=1 a\xff=2 ");
		expect_list(list("a", "a0"), "a1=1 a\xff=2 ");
		expect_list(list("a", "a2"), "a\xff=2 ");
		expect_list(list("a", "b"), "");
		expect_list(list("", ""), "a=0 a1=1 a\xff=2 b=3 ");
		expect_list(list("c", ""), "");
		reopen();
	}
}
END_TEST

START_TEST(test_iterate_one_moment)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_index_iter *iter;
	struct cfs_slice key, val;

	put("a", "1");
	put("b", "1");
	put("d", "1");
	reopen(); /* some of it on disk */
	put("b", "2");
	iter = list("", "");
	ck_assert_int_eq(iter->ops->next(iter, &key, &val), 1);
	ck_assert_int_eq(memcmp(key.data, "a", 1), 0);
	cfs_batch_del(&batch, str("b"));
	cfs_batch_put(&batch, str("c"), str("new"));
	cfs_batch_put(&batch, str("d"), str("new"));
	commit(&batch);
	ck_assert_int_eq(memcmp(val.data, "1", 1), 0);
	expect_list(iter, "b=2 d=1 ");
	expect_list(list("", ""), "a=1 c=new d=new ");
}
END_TEST

START_TEST(test_commit_is_atomic)
{
	struct cfs_batch batch = CFS_BATCH_INIT;

	put("a", "1");
	cfs_batch_put(&batch, str("a"), str("2"));
	cfs_batch_put(&batch, str("b"), str("2"));
	batch.bytes.len--; /* no batch any more */
	ck_assert_int_eq(idx->ops->commit(idx, &batch), -EBADMSG);
	expect("a", "1");
	expect("b", NULL);
	batch.bytes.len++;
	batch.bytes.failed = true;
	ck_assert_int_eq(idx->ops->commit(idx, &batch), -ENOMEM);
	expect("a", "1");
	batch.bytes.failed = false;
	commit(&batch);
	expect("b", "2");
}
END_TEST

#define KEYS 300

/* Against an array, reopened now and then. */
START_TEST(test_random)
{
	unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();
	static char model[KEYS][12]; /* "": absent */

	(void)printf("seed %u\n", seed);
	srandom(seed);
	for (int round = 0; round < 200; round++) {
		struct cfs_batch batch = CFS_BATCH_INIT;
		_cleanup_(cfs_buf_free) struct cfs_buf want = CFS_BUF_INIT;
		char key[8], from[8];
		int first = (int)random() % KEYS;

		for (int i = 0; i < 30; i++) {
			int k = (int)random() % KEYS;

			(void)snprintf(key, sizeof(key), "k%03d", k);
			model[k][0] = '\0';
			if (random() % 3) {
				(void)snprintf(model[k], sizeof(model[k]), "%d",
					       (int)random() % 100000);
				cfs_batch_put(&batch, str(key), str(model[k]));
			} else {
				cfs_batch_del(&batch, str(key));
			}
		}
		commit(&batch);
		(void)snprintf(from, sizeof(from), "k%03d", first);
		for (int k = first; k < KEYS; k++)
			if (model[k][0])
				cfs_buf_printf(&want, "k%03d=%s ", k, model[k]);
		expect_list(list("k", from), cfs_buf_str(&want));
		expect(from, model[first][0] ? model[first] : NULL);
		if (round % 20 == 19)
			reopen();
	}
}
END_TEST

static atomic_bool stop;

static void *read_on(void *arg)
{
	uint64_t last = 0, *rounds = arg;

	while (!atomic_load(&stop)) {
		uint64_t n = expect_together();

		ck_assert_uint_ge(n, last);
		last = n;
		(*rounds)++;
	}
	return NULL;
}

START_TEST(test_threads)
{
	pthread_t threads[3];
	uint64_t rounds[3] = {0};

	atomic_store(&stop, false);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(
			pthread_create(&threads[i], NULL, read_on, &rounds[i]),
			0);
	/* enough bytes for flushes under way */
	for (uint64_t n = 1; n <= 300; n++)
		commit_together(n, 200000);
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
	ck_assert_uint_eq(expect_together(), 300);
}
END_TEST

static void add_backend(Suite *s, const char *name, SFun setup, SFun teardown)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_put_get_del);
	tcase_add_test(t, test_get_appends);
	tcase_add_test(t, test_iterate);
	tcase_add_test(t, test_iterate_one_moment);
	tcase_add_test(t, test_commit_is_atomic);
	tcase_add_test(t, test_random);
	tcase_add_test(t, test_threads);
	suite_add_tcase(s, t);
}

static Suite *suite(void)
{
	Suite *s = suite_create("index");

	add_backend(s, "mem", setup_mem, teardown_mem);
	add_backend(s, "rocksdb", setup_rocksdb, teardown_dir);
	return s;
}

TEST_MAIN(suite)
