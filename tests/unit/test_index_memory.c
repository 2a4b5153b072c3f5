/*
 * Memory for each chunk a store knows: n distinct ones (200,000, or
 * CFS_CHUNKS=n) go into a store on disk in two halves; after each it is opened
 * anew and asked for all, and, from a million on, scrubbed.  Counted is what a
 * store with twice the chunks takes more for the same work.
 *
 * From a million on that must be under 100 bytes for each chunk, and so must
 * all that the process takes.  With fewer, buffers of the index that come and
 * go may weigh as much as the chunks: their size is granted, so only what takes
 * twice as much is sure to fail.
 */
#include <ftw.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/core/store.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "tests/test.h"

#define MIB	      (1u << 20)
#define PER_CHUNK_MAX 100
#define CHUNK_BYTES   40u
#define FLIGHT	      1000u
#define GROUP	      20000u
#define MANY	      1000000u
/* A write buffer of the index, full in one measurement and empty in another. */
#define BUFFERS ((size_t)8 * MIB)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEASURABLE 0
#define FEW	   20000u /* that it runs is all there is to see */
#else
#define MEASURABLE 1
#define FEW	   200000u
#endif

static char top[64];

static size_t rss(void)
{
	char line[256];
	size_t kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	ck_assert_ptr_nonnull(f);
	(void)malloc_trim(0);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "RssAnon:", 8))
			kib = strtoull(line + 8, NULL, 10);
	(void)fclose(f);
	return kib << 10;
}

static void chunk(uint8_t out[CHUNK_BYTES], uint64_t i)
{
	memset(out, 0xa5, CHUNK_BYTES);
	cfs_put_le64(out, i);
}

static void wait_all(struct cfs_pending **v, size_t n)
{
	struct cfs_digest digest;

	for (size_t i = 0; i < n; i++) {
		ck_assert_int_eq(cfs_pending_wait(v[i], &digest), 0);
		cfs_pending_unref(v[i]);
	}
}

static void fill(struct cfs_store *store, uint64_t from, uint64_t to)
{
	static struct cfs_pending *v[FLIGHT];
	size_t n = 0;

	for (uint64_t i = from; i < to; i++) {
		uint8_t *data = malloc(CHUNK_BYTES);

		ck_assert_ptr_nonnull(data);
		chunk(data, i);
		ck_assert_int_eq(cfs_store_reserve(store, CHUNK_BYTES, false),
				 0);
		v[n] = cfs_store_ingest(store, data, CHUNK_BYTES, 0);
		ck_assert_ptr_nonnull(v[n]);
		if (++n == FLIGHT) {
			wait_all(v, n);
			n = 0;
		}
	}
	wait_all(v, n);
	ck_assert_int_eq(cfs_store_commit(store), 0);
}

static void write_chunks(struct cfs_store *store, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i += GROUP)
		fill(store, i, CFS_MIN(i + GROUP, to));
}

static void read_chunks(struct cfs_store *store, uint64_t from, uint64_t to)
{
	struct cfs_chunk_facts facts;
	struct cfs_digest digest;
	uint8_t data[CHUNK_BYTES];

	for (uint64_t i = from; i < to; i++) {
		chunk(data, i);
		cfs_digest_of(data, sizeof(data), &digest);
		ck_assert_int_eq(cfs_store_chunk_facts(store, &digest, &facts),
				 0);
	}
}

static size_t peak; /* of the process that scrubs */

static bool watch(void *arg, uint64_t done, uint64_t total, const char *what)
{
	static unsigned calls;

	(void)arg;
	(void)done;
	(void)total;
	/* where all keys are gone through: each 1024 of them */
	if (!strcmp(what, "objects") && calls++ % 16 == 0)
		peak = CFS_MAX(peak, rss());
	return true;
}

static void scrub_chunks(struct cfs_store *store, uint64_t from, uint64_t to)
{
	const struct cfs_job_control control = {.progress = watch};
	struct cfs_scrub_result result;

	ck_assert_int_eq(cfs_store_scrub(store, &control, &result, NULL), 0);
	ck_assert_uint_eq(result.chunks, to - from);
}

typedef void through(struct cfs_store *, uint64_t from, uint64_t to);

/* What an open store takes once @fn has been through [@from, @to); in a process
 * of its own, as memory that was freed before would hide some. */
static size_t taken(through *fn, uint64_t from, uint64_t to)
{
	int ends[2], status;
	size_t bytes = 0;
	pid_t pid;

	ck_assert_int_eq(pipe(ends), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct cfs_store_options options = {.cache_bytes = MIB,
						    .workers = 2};
		struct cfs_error err = {.text = ""};
		struct cfs_store *store = NULL;

		ck_assert_msg(cfs_store_open(top, &options, &store, &err) == 0,
			      "%s", err.text);
		fn(store, from, to);
		bytes = CFS_MAX(rss(), peak);
		ck_assert_int_eq(write(ends[1], &bytes, sizeof(bytes)),
				 (ssize_t)sizeof(bytes));
		ck_assert_int_eq(cfs_store_close(store), 0);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(read(ends[0], &bytes, sizeof(bytes)),
			 (ssize_t)sizeof(bytes));
	close(ends[0]);
	close(ends[1]);
	return bytes;
}

static void few_each(const char *what, uint64_t n, size_t half, size_t all)
{
	const uint64_t added = n - n / 2;
	size_t more = added * PER_CHUNK_MAX;

	printf("%llu chunks %s: %.1f MB with half, %.1f MB with all of them; "
	       "%.1f bytes each\n",
	       (unsigned long long)n, what, (double)half * 1e-6,
	       (double)all * 1e-6,
	       ((double)all - (double)half) / (double)added);
	if (!MEASURABLE)
		return;
	if (n < MANY)
		more += BUFFERS;
	else
		ck_assert_uint_lt(all, n * PER_CHUNK_MAX);
	ck_assert_uint_lt(all, half + more);
}

START_TEST(per_chunk)
{
	const char *text = getenv("CFS_CHUNKS");
	uint64_t n = text ? strtoull(text, NULL, 0) : FEW;
	size_t written[2], looked_up[2], scrubbed[2] = {0};

	written[0] = taken(write_chunks, 0, n / 2);
	looked_up[0] = taken(read_chunks, 0, n / 2);
	if (n >= MANY)
		scrubbed[0] = taken(scrub_chunks, 0, n / 2);
	written[1] = taken(write_chunks, n / 2, n);
	looked_up[1] = taken(read_chunks, 0, n);
	if (n >= MANY)
		scrubbed[1] = taken(scrub_chunks, 0, n);
	few_each("written", n, written[0], written[1]);
	few_each("looked up", n, looked_up[0], looked_up[1]);
	if (n >= MANY)
		few_each("scrubbed", n, scrubbed[0], scrubbed[1]);
}
END_TEST

static void setup(void)
{
	struct cfs_error err = {.text = ""};

	(void)snprintf(top, sizeof(top), "/tmp/ckptfs-memory-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_msg(cfs_store_init(top, NULL, &err) == 0, "%s", err.text);
}

static int drop(const char *path, const struct stat *st, int type,
		struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void teardown(void)
{
	ck_assert_int_eq(nftw(top, drop, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static Suite *suite(void)
{
	Suite *s = suite_create("index_memory");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, per_chunk);
	tcase_set_timeout(t, 580);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
