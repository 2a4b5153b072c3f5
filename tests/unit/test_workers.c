/* The pool runs every job once and in order; digests name bytes. */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/util/digest.h"
#include "store/util/workers.h"

#define JOBS 5000u

struct count_job {
	struct cfs_job job;
	struct tally *tally;
	unsigned number, again;
};

struct tally {
	struct cfs_workers *workers;
	atomic_uint ran, out_of_order;
	unsigned last; /* one thread only */
};

static void count(struct cfs_job *job, unsigned worker)
{
	struct count_job *c = container_of(job, struct count_job, job);
	struct tally *t = c->tally;

	ck_assert_uint_lt(worker, cfs_workers_count(t->workers));
	atomic_fetch_add(&t->ran, 1);
	if (cfs_workers_count(t->workers) == 1) {
		if (c->number < t->last)
			atomic_fetch_add(&t->out_of_order, 1);
		t->last = c->number;
	}
	/* from here on the job is ours: it may be given again at once */
	if (c->again) {
		c->again--;
		cfs_workers_submit(t->workers, job);
	}
}

static void run_jobs(unsigned threads, unsigned again, struct tally *t)
{
	static struct count_job jobs[JOBS];
	unsigned i;

	memset(t, 0, sizeof(*t));
	ck_assert_int_eq(cfs_workers_new(threads, &t->workers), 0);
	for (i = 0; i < JOBS; i++) {
		jobs[i] = (struct count_job){.job.run = count,
					     .tally = t,
					     .number = i,
					     .again = again};
		cfs_workers_submit(t->workers, &jobs[i].job);
	}
	cfs_workers_free(t->workers); /* runs what is queued */
}

START_TEST(one_thread_keeps_order)
{
	struct tally t;

	run_jobs(1, 0, &t);
	ck_assert_uint_eq(t.ran, JOBS);
	ck_assert_uint_eq(t.out_of_order, 0);
}
END_TEST

START_TEST(many_threads_run_each_once)
{
	struct tally t;

	run_jobs(7, 0, &t);
	ck_assert_uint_eq(t.ran, JOBS);
}
END_TEST

/* A job that gives itself again while the pool is ending still runs. */
START_TEST(jobs_submit_jobs)
{
	struct tally t;

	run_jobs(3, 2, &t);
	ck_assert_uint_eq(t.ran, 3 * JOBS);
}
END_TEST

struct gate {
	struct cfs_job job;
	pthread_barrier_t *barrier;
	atomic_uint *seen;
};

static void meet(struct cfs_job *job, unsigned worker)
{
	struct gate *g = container_of(job, struct gate, job);

	atomic_fetch_or(g->seen, 1u << worker);
	pthread_barrier_wait(g->barrier);
}

/* All threads at once, each under a number of its own. */
START_TEST(threads_run_at_once)
{
	struct cfs_workers *w = NULL;
	pthread_barrier_t barrier;
	struct gate gates[4];
	atomic_uint seen = 0;
	size_t i;

	ck_assert_int_eq(cfs_workers_new(4, &w), 0);
	ck_assert_uint_eq(cfs_workers_count(w), 4);
	pthread_barrier_init(&barrier, NULL, 4);
	for (i = 0; i < 4; i++) {
		gates[i] = (struct gate){
			.job.run = meet, .barrier = &barrier, .seen = &seen};
		cfs_workers_submit(w, &gates[i].job);
	}
	cfs_workers_free(w);
	pthread_barrier_destroy(&barrier);
	ck_assert_uint_eq(seen, 15);
}
END_TEST

START_TEST(default_is_one_per_processor)
{
	struct cfs_workers *w = NULL;

	ck_assert_int_eq(cfs_workers_new(0, &w), 0);
	ck_assert_uint_ge(cfs_workers_count(w), 1);
	cfs_workers_free(w);
	cfs_workers_free(NULL);
}
END_TEST

/* NIST's examples. */
START_TEST(digest_is_sha256)
{
	static const char *const hex[] = {
		"e3b0c44298fc1c149afbf4c8996fb924"
		"27ae41e4649b934ca495991b7852b855",
		"ba7816bf8f01cfea414140de5dae2223"
		"b00361a396177a9cb410ff61f20015ad",
	};
	static const char *const text[] = {"", "abc"};
	char buf[CFS_DIGEST_HEX];
	struct cfs_digest d, back;
	size_t i;

	for (i = 0; i < 2; i++) {
		cfs_digest_of(text[i], strlen(text[i]), &d);
		ck_assert_str_eq(cfs_digest_hex(&d, buf), hex[i]);
		ck_assert_int_eq(cfs_digest_parse(buf, &back), 0);
		ck_assert_int_eq(cfs_digest_cmp(&d, &back), 0);
	}
	memset(buf, 'A', 64);
	ck_assert_int_eq(cfs_digest_parse(buf, &back), 0);
	ck_assert_uint_eq(back.bytes[31], 0xaa);
	ck_assert_int_ne(cfs_digest_cmp(&d, &back), 0);
	buf[63] = 'g';
	ck_assert_int_eq(cfs_digest_parse(buf, &back), -EINVAL);
	buf[63] = '\0';
	ck_assert_int_eq(cfs_digest_parse(buf, &back), -EINVAL);
	ck_assert_int_eq(cfs_digest_parse("", &back), -EINVAL);
}
END_TEST

START_TEST(digest_by_pieces)
{
	struct cfs_digester *d = cfs_digester_new();
	struct cfs_digest whole, pieces;
	uint8_t data[1000];
	size_t i, n;

	ck_assert_ptr_nonnull(d);
	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * i);
	for (i = 0; i < sizeof(data); i += n) {
		n = CFS_MIN(i % 7 + 1, sizeof(data) - i);
		cfs_digester_add(d, data + i, n);
		cfs_digester_add(d, data, 0);
	}
	cfs_digester_end(d, &pieces);
	cfs_digest_of(data, sizeof(data), &whole);
	ck_assert_int_eq(cfs_digest_cmp(&whole, &pieces), 0);
	cfs_digester_free(d);
	cfs_digester_free(NULL);
}
END_TEST

/* Every way two texts can end in their blocks, at odd places in memory. */
START_TEST(digest_pairs)
{
	static uint8_t bytes[2][4096 + 8];
	struct cfs_digest d[2], want;
	struct cfs_digest *const out[2] = {&d[0], &d[1]};
	size_t a, k, i;

	for (k = 0; k < 2; k++)
		for (i = 0; i < sizeof(bytes[k]); i++)
			bytes[k][i] = (uint8_t)((i * 2654435761u) >> (k + 7));
	for (a = 0; a < 300; a++) {
		const size_t len[2] = {a, (a * 7919) % 4096};
		const void *const data[2] = {bytes[0] + a % 5,
					     bytes[1] + a % 3};

		cfs_digest_pair(data, len, out);
		for (k = 0; k < 2; k++) {
			cfs_digest_of(data[k], len[k], &want);
			ck_assert_int_eq(cfs_digest_cmp(&d[k], &want), 0);
		}
	}
}
END_TEST

struct together {
	struct cfs_job job;
	struct cfs_workers *workers;
	pthread_barrier_t *begun, *go;
	atomic_uint *ran, *taken;
};

static void alone(struct cfs_job *job, unsigned worker)
{
	(void)worker;
	atomic_fetch_add(container_of(job, struct together, job)->ran, 1);
}

static void together(struct cfs_job *job, unsigned worker)
{
	struct together *t = container_of(job, struct together, job);
	struct cfs_job *other;

	(void)worker;
	if (t->begun) {
		(void)pthread_barrier_wait(t->begun);
		(void)pthread_barrier_wait(t->go);
	}
	atomic_fetch_add(t->ran, 1);
	other = cfs_workers_take(t->workers, together);
	if (!other)
		return;
	atomic_fetch_add(t->taken, 1);
	atomic_fetch_add(t->ran, 1);
}

/* The only thread is busy: the next job is taken if it is of the kind. */
START_TEST(jobs_are_taken)
{
	struct cfs_workers *w;
	pthread_barrier_t begun, go;
	atomic_uint ran, taken;
	struct together jobs[4];
	unsigned i;

	atomic_init(&ran, 0);
	atomic_init(&taken, 0);
	ck_assert_int_eq(pthread_barrier_init(&begun, NULL, 2), 0);
	ck_assert_int_eq(pthread_barrier_init(&go, NULL, 2), 0);
	ck_assert_int_eq(cfs_workers_new(1, &w), 0);
	for (i = 0; i < 4; i++)
		jobs[i] =
			(struct together){.job.run = i == 2 ? alone : together,
					  .workers = w,
					  .ran = &ran,
					  .taken = &taken};
	jobs[0].begun = &begun;
	jobs[0].go = &go;
	cfs_workers_submit(w, &jobs[0].job);
	(void)pthread_barrier_wait(&begun);
	for (i = 1; i < 4; i++)
		cfs_workers_submit(w, &jobs[i].job);
	(void)pthread_barrier_wait(&go);
	cfs_workers_free(w);
	ck_assert_uint_eq(atomic_load(&ran), 4);
	ck_assert_uint_eq(atomic_load(&taken), 1); /* 0 takes 1, not 2 */
	(void)pthread_barrier_destroy(&begun);
	(void)pthread_barrier_destroy(&go);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("workers");
	TCase *tc = tcase_create("workers");

	tcase_add_test(tc, one_thread_keeps_order);
	tcase_add_test(tc, many_threads_run_each_once);
	tcase_add_test(tc, jobs_submit_jobs);
	tcase_add_test(tc, threads_run_at_once);
	tcase_add_test(tc, default_is_one_per_processor);
	tcase_add_test(tc, digest_is_sha256);
	tcase_add_test(tc, digest_by_pieces);
	tcase_add_test(tc, digest_pairs);
	tcase_add_test(tc, jobs_are_taken);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
