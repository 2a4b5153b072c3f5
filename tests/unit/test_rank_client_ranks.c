/* The rank client with several ranks, each a process: all commit or none, and
 * whoever dies or disagrees is told of by name, to all in the same words. */
#include "fs/daemon/nstree.h"
#include "tests/unit/rank_client_bed.h"

#define KILLS 30

static struct daemon d;

static void start(void)
{
	setup();
	daemon_new(&d);
}

static void stop(void)
{
	daemon_stop(&d);
	teardown();
}

static void say(struct said *said, int r)
{
	said->r = r;
	snprintf(said->text, sizeof(said->text), "%s",
		 r ? cfs_rank_error() : "");
}

static int open_rank(const struct cfs_rank_comm *comm, struct cfs_rank **out)
{
	struct cfs_rank_options o = {.size = sizeof(o),
				     .comm = comm,
				     .ring_bytes = RING,
				     .timeout_s = 60};

	return cfs_rank_open(d.run, &o, out);
}

static int begin_step(struct cfs_rank *rank, const char *step,
		      struct cfs_rank_save **out)
{
	struct cfs_rank_save_options o = {
		.size = sizeof(o), .format = "files", .replace = 1};

	return cfs_rank_save_begin(rank, step, &o, out);
}

static uint8_t *bytes_of(uint32_t rank)
{
	return random_bytes(100 + rank, 2 * RING);
}

static int write_own(struct cfs_rank_save *save, uint32_t rank)
{
	_cleanup_(cfs_freep) uint8_t *data = bytes_of(rank);
	struct cfs_rank_file *file = NULL;
	char name[32];
	int r, i;

	snprintf(name, sizeof(name), "part-%u", rank);
	r = cfs_rank_file_begin(save, name, &file);
	for (i = 0; !r && i < 16; i++)
		r = cfs_rank_file_write(file, data + i * (RING / 8), RING / 8,
					CFS_RANK_HOST, NULL);
	return r ? r : cfs_rank_file_end(file);
}

/* ---- all well ---- */

static void save_all(struct daemon *daemon, const struct cfs_rank_comm *comm,
		     struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		tell_ready();
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

static void all_well(uint32_t n)
{
	struct ranks ranks;
	struct said said;
	char name[64];
	uint32_t i;

	ranks_start(&ranks, &d, n, save_all);
	for (i = 0; i < n; i++) {
		ck_assert(rank_end(&ranks, i, &said));
		ck_assert_msg(!said.r, "rank %u: %d %s", i, said.r, said.text);
	}
	for (i = 0; i < n; i++) {
		_cleanup_(cfs_freep) uint8_t *data = bytes_of(i);

		snprintf(name, sizeof(name), "run/global_step1/part-%u", i);
		expect_file(&d, name, data, 2 * RING);
	}
}

START_TEST(test_all_well)
{
	all_well(2);
	all_well(4);
	all_well(1);
	scrub_clean(&d);
}
END_TEST

/* ---- one that fails ---- */

static void expect_same(uint32_t n, rank_fn *fn, int r, const char *part)
{
	struct said said, first = {0, ""};
	struct ranks ranks;
	uint32_t i;

	ranks_start(&ranks, &d, n, fn);
	for (i = 0; i < n; i++) {
		ck_assert(rank_end(&ranks, i, &said));
		if (!i)
			first = said;
		ck_assert_msg(said.r == r && strstr(said.text, part),
			      "rank %u: %d %s", i, said.r, said.text);
		ck_assert_str_eq(said.text, first.text);
	}
	ck_assert(!is_there(&d, "run/global_step1"));
}

static void one_bad_put(struct daemon *daemon, const struct cfs_rank_comm *comm,
			struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r && comm->rank == 1 &&
	    put_flat(save, "w", "weight", CFS_RANK_U8, 4, 3, 2, "xx") !=
		    -EINVAL)
		r = -EIO;
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

START_TEST(test_one_bad_put)
{
	expect_same(4, one_bad_put, -EINVAL, "rank 1: tensor w");
}
END_TEST

/* What is wrong without asking the daemon the others hear of, too. */
static void no_options(struct daemon *daemon, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r && comm->rank == 2)
		r = cfs_rank_save_begin(rank, "global_step1", NULL, &save);
	else if (!r)
		r = begin_step(rank, "global_step1", &save);
	say(said, r);
	cfs_rank_close(rank);
}

START_TEST(test_no_options)
{
	expect_same(4, no_options, -EINVAL, "rank 2: begin: a save needs");
}
END_TEST

/* Those that go on putting hear early that it is in vain. */
static void told_early(struct daemon *daemon, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank_file *file = NULL;
	struct cfs_rank *rank = NULL;
	char name[32];
	int r, i;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	snprintf(name, sizeof(name), "part-%u", comm->rank);
	if (!r && comm->rank != 1)
		r = cfs_rank_file_begin(save, name, &file);
	if (!r && comm->rank == 1)
		r = cfs_rank_put_object(save, "", "x", 1);
	for (i = 0; !r && i < 3000; i++) {
		static uint8_t block[SLOT];

		r = cfs_rank_file_write(file, block, sizeof(block),
					CFS_RANK_HOST, NULL);
	}
	if (!r)
		strcpy(said->text, "it was not told");
	if (r && !cfs_rank_commit(save))
		(void)cfs_rank_test(save); /* the result is the same */
	if (r)
		say(said, save ? cfs_rank_wait(save) : r);
	cfs_rank_close(rank);
}

START_TEST(test_told_early)
{
	expect_same(3, told_early, -EINVAL, "rank 1: an object has no name");
}
END_TEST

static int put_next(struct cfs_rank_save *save)
{
	static unsigned n;
	char name[32];

	snprintf(name, sizeof(name), "o%u", n++);
	return cfs_rank_put_object(save, name, "x", 1);
}

/* The store is unmounted while ranks do all kinds of things. */
static void is_unmounted(struct daemon *daemon,
			 const struct cfs_rank_comm *comm, struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank_load *load = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		tell_ready();
	if (!r && !comm->rank) { /* waits for the others */
		r = cfs_rank_commit(save);
		if (!r)
			r = cfs_rank_wait(save);
	}
	while (!r && comm->rank == 1) { /* is putting */
		r = put_next(save);
		usleep(1000);
	}
	while (!r && comm->rank == 2) { /* asks */
		r = cfs_rank_load_open(rank, "none", &load);
		if (r == -ENOENT)
			r = 0;
	}
	while (!r && comm->rank == 3) { /* only looks now and then */
		usleep(300000);
		r = cfs_rank_wait_copied(save);
	}
	say(said, r);
	cfs_rank_close(rank);
}

START_TEST(test_unmount)
{
	struct ranks ranks;
	struct said said;
	uint32_t i;

	ranks_start(&ranks, &d, 4, is_unmounted);
	ranks_wait_ready(&ranks);
	usleep(50000);
	daemon_stop(&d);
	for (i = 0; i < 4; i++) {
		ck_assert(rank_end(&ranks, i, &said));
		ck_assert_msg(said.r == -EPIPE &&
				      strstr(said.text, "is being unmounted; "
							"mount it again"),
			      "rank %u: %d %s", i, said.r, said.text);
	}
	daemon_start(&d);
	ck_assert(!is_there(&d, "run/global_step1"));
}
END_TEST

static void other_step(struct daemon *daemon, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		r = begin_step(
			rank, comm->rank == 2 ? "global_step2" : "global_step1",
			&save);
	say(said, r);
	cfs_rank_close(rank);
}

START_TEST(test_other_step)
{
	expect_same(4, other_step, -EINVAL, "global_step2");
}
END_TEST

/* Rank 1 cannot open at all: nobody waits for it until the time is up. */
static void other_run(struct daemon *daemon, const struct cfs_rank_comm *comm,
		      struct said *said)
{
	struct cfs_rank_options o = {.size = sizeof(o),
				     .comm = comm,
				     .ring_bytes = RING,
				     .timeout_s = 60};
	struct cfs_rank *rank = NULL;

	say(said, cfs_rank_open(comm->rank == 1 ? "/nowhere" : daemon->run, &o,
				&rank));
	cfs_rank_close(rank);
}

START_TEST(test_other_run)
{
	struct ranks ranks;
	struct said said;
	uint32_t i;

	ranks_start(&ranks, &d, 3, other_run);
	for (i = 0; i < 3; i++) {
		ck_assert(rank_end(&ranks, i, &said));
		/* who comes last may find no job any more */
		ck_assert_msg(i == 1 ? said.r == -ENOENT
				     : said.r == -EINVAL || said.r == -EREMOTE,
			      "rank %u: %d %s", i, said.r, said.text);
		ck_assert_msg(strstr(said.text, i == 1 ? "/nowhere" : "rank"),
			      "rank %u: %s", i, said.text);
	}
}
END_TEST

static void nobody_home(struct daemon *daemon, const struct cfs_rank_comm *comm,
			struct said *said)
{
	struct cfs_rank *rank = NULL;

	(void)daemon;
	say(said, open_rank(comm, &rank));
	cfs_rank_close(rank);
}

START_TEST(test_no_daemon)
{
	daemon_stop(&d);
	{
		struct ranks ranks;
		struct said said;
		uint32_t i;

		ranks_start(&ranks, &d, 3, nobody_home);
		for (i = 0; i < 3; i++) {
			ck_assert(rank_end(&ranks, i, &said));
			ck_assert_msg(said.r == -ENOTCONN, "%d %s", said.r,
				      said.text);
		}
	}
	daemon_start(&d);
}
END_TEST

static void one_aborts(struct daemon *daemon, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	(void)daemon;
	r = open_rank(comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r && comm->rank == 2) {
		cfs_rank_abort(save, "the loss is not a number");
		cfs_rank_close(rank);
		return;
	}
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

START_TEST(test_one_aborts)
{
	struct ranks ranks;
	struct said said;
	uint32_t i;

	ranks_start(&ranks, &d, 3, one_aborts);
	for (i = 0; i < 3; i++) {
		ck_assert(rank_end(&ranks, i, &said));
		ck_assert_msg(i == 2 ? !said.r
				     : said.r < 0 && strstr(said.text,
							    "rank 2 aborted"),
			      "rank %u: %d %s", i, said.r, said.text);
	}
	ck_assert(!is_there(&d, "run/global_step1"));
}
END_TEST

/* ---- one that dies ---- */

static void expect_all_or_nothing(uint32_t victim, const char *where,
				  struct ranks *ranks)
{
	char text[640] = "";
	struct said said;
	bool there, saved = false, failed = false;
	uint32_t i;

	for (i = 0; i < ranks->n; i++) {
		if (!rank_end(ranks, i, &said)) {
			ck_assert_uint_eq(i, victim);
			continue;
		}
		saved |= !said.r;
		failed |= said.r < 0;
		if (i == victim || !said.r)
			continue;
		if (!text[0])
			snprintf(text, sizeof(text), "%s", said.text);
		ck_assert_msg(strstr(said.text, "rank"), "%s: %d %s", where,
			      said.r, said.text);
		ck_assert_msg(!strcmp(said.text, text), "%s: %s, %s", where,
			      said.text, text);
	}
	ck_assert_msg(!(saved && failed), "%s: some were told of success",
		      where);
	there = is_there(&d, "run/global_step1");
	ck_assert_msg(!saved || there, "%s", where);
	ck_assert_msg(!failed || !there, "%s: what failed is there: %s", where,
		      text);
}

static void remove_step(void)
{
	struct stat run;

	ck_assert_int_eq(cfs_ns_walk(d.opened.ns, "run", &run), 0);
	ck_assert_int_eq(
		cfs_nstree_remove(d.opened.ns, run.st_ino, "global_step1"), 0);
}

START_TEST(test_kills)
{
	const char *given = getenv("CFS_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 0)
			      : (unsigned)time(NULL);
	unsigned i, steps = 0;
	char where[64];

	printf("seed %u\n", seed);
	fflush(stdout);
	for (i = 0; i < KILLS; i++) {
		uint32_t n = 2 + (unsigned)rand_r(&seed) % 3;
		uint32_t victim = (unsigned)rand_r(&seed) % n;
		struct ranks ranks;

		snprintf(where, sizeof(where), "kill %u, rank %u of %u", i,
			 victim, n);
		ranks_start(&ranks, &d, n, save_all);
		ranks_wait_ready(&ranks);
		usleep((unsigned)rand_r(&seed) % 60000);
		kill(ranks.pids[victim], SIGKILL);
		expect_all_or_nothing(victim, where, &ranks);
		if (is_there(&d, "run/global_step1")) {
			steps++;
			remove_step();
		}
	}
	printf("%u of %u saved before they died\n", steps, KILLS);
	all_well(3);
	scrub_clean(&d);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_client_ranks");
	TCase *t = tcase_create("several ranks");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_checked_fixture(t, start, stop);
	tcase_add_test(t, test_all_well);
	tcase_add_test(t, test_one_bad_put);
	tcase_add_test(t, test_no_options);
	tcase_add_test(t, test_told_early);
	tcase_add_test(t, test_unmount);
	tcase_add_test(t, test_other_step);
	tcase_add_test(t, test_other_run);
	tcase_add_test(t, test_no_daemon);
	tcase_add_test(t, test_one_aborts);
	tcase_add_test(t, test_kills);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
