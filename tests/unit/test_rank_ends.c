/* The server of ranks, by raw frames: how jobs and saves end before their time,
 * and who hears of it. */
#include <signal.h>

#include "tests/unit/rank_server_bed.h"
#include "tests/unit/rank_fake.h"

#define OBJECT "{\"op\":\"object\",\"id\":%d,\"name\":\"%s\"}"
#define DATA   "{\"op\":\"data\",\"id\":%d,\"slot\":%d,\"len\":%d}"

static struct bed bed;

static void start(void)
{
	setup();
	fake_reset();
	bed_start(&bed);
}

static void stop(void)
{
	bed_stop(&bed);
	ck_assert_uint_eq(fake_counts().stages, 0);
	ck_assert_uint_eq(fake_counts().streams, 0);
	fake_reset();
	teardown();
}

/* ---- unmounting ---- */

enum where {
	OPENING,
	BEGINNING,
	COMMITTING,
	IDLE,
	WHERE_END
};

static void go_there(enum where where, struct peer *p)
{
	if (where == OPENING) {
		peer_open(&bed, &p[0]);
		hello(&p[0], 0, 2, "");
		take_job(&p[0]);
		return;
	}
	job_open(&bed, p, 2);
	if (where == BEGINNING)
		begin(&p[0], "global_step1");
	if (where == COMMITTING) {
		begin_all(p, 2);
		ask(&p[0], "{\"op\":\"commit\"}");
	}
}

/* Frees and answers until the connection ends: how often was it said that the
 * store goes? */
static int count_goodbyes(struct peer *p)
{
	cJSON *frame = NULL;
	int n = 0;

	while (!cfs_wire_receive(p->fd, CFS_WIRE_REPLY_MAX, &frame, NULL)) {
		char *text = cJSON_PrintUnformatted(frame);

		n += strstr(text, "being unmounted") != NULL;
		cJSON_free(text);
		cJSON_Delete(frame);
	}
	return n;
}

START_TEST(test_unmount)
{
	for (enum where where = OPENING; where < WHERE_END; where++) {
		struct cfs_error err = {""};
		struct peer p[2];

		go_there(where, p);
		usleep(20000); /* the frame may be under way */
		cfs_rank_server_stop(bed.server);
		cfs_control_stop(bed.control);
		ck_assert_int_ge(count_goodbyes(&p[0]), 1);
		peer_close(&p[0]);
		if (where != OPENING) {
			ck_assert_int_ge(count_goodbyes(&p[1]), 1);
			peer_close(&p[1]);
		}
		ck_assert_uint_eq(fake_counts().commits, 0);
		cfs_rank_server_free(bed.server);
		bed.server = cfs_rank_server_new();
		bed.context.session_arg = bed.server;
		ck_assert_int_eq(cfs_control_start(bed.path, &bed.context,
						   &bed.control, &err),
				 0);
	}
}
END_TEST

/* Who does not read what it asked for does not hold the store. */
START_TEST(test_unmount_deaf)
{
	struct cfs_error err = {""};
	struct peer p;

	job_open(&bed, &p, 1);
	begin_all(&p, 1);
	ck_assert_int_eq(fcntl(p.fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 1; i < 100000; i++) {
		char text[128];
		cJSON *json;
		int r;

		snprintf(text, sizeof(text), DATA, 9, i % (int)SLOTS, 1);
		json = cJSON_Parse(text);
		r = cfs_wire_send(p.fd, json, NULL, 0);
		cJSON_Delete(json);
		if (r < 0)
			break; /* both ways are full */
	}
	cfs_rank_server_stop(bed.server);
	cfs_control_stop(bed.control);
	peer_close(&p);
	ck_assert_int_eq(
		cfs_control_start(bed.path, &bed.context, &bed.control, &err),
		0);
}
END_TEST

/* ---- a process that ends, and leaves its socket to a child ---- */

static void be_rank_1(const char *job, int pipe_fd)
{
	struct peer p;

	peer_open(&bed, &p);
	hello(&p, 1, 2, job);
	ask_ok(&p);
	begin(&p, "global_step1");
	ask_ok(&p);
	if (!fork()) {
		ck_assert_int_eq(
			write(pipe_fd, &(pid_t){getpid()}, sizeof(pid_t)),
			sizeof(pid_t));
		for (;;)
			pause();
	}
	_exit(0);
}

START_TEST(test_heir)
{
	int fds[2], status;
	struct peer p;
	pid_t pid, heir = 0;

	ck_assert_int_eq(pipe(fds), 0);
	peer_open(&bed, &p);
	hello(&p, 0, 2, "");
	take_job(&p);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid)
		be_rank_1(p.job, fds[1]);
	ask_ok(&p);
	begin(&p, "global_step1");
	ask_ok(&p);
	ck_assert_int_eq(read(fds[0], &heir, sizeof(heir)), sizeof(heir));
	ask(&p, "{\"op\":\"commit\"}");
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ask_fails(&p, -EPIPE, "rank 1 (pid");
	kill(heir, SIGKILL);
	peer_close(&p);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* ---- saves ---- */

START_TEST(test_cannot_begin)
{
	struct peer p[3];

	job_open(&bed, p, 3);
	begin(&p[0], "global_step1");
	ask(&p[1], "{\"op\":\"begin\",\"save\":1,\"r\":-12,"
		   "\"reason\":\"no room\"}");
	begin(&p[2], "global_step1");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -ENOMEM, "rank 1: begin: no room");
	/* no error is none */
	ask(&p[0], "{\"op\":\"begin\",\"save\":2,\"r\":5}");
	begin(&p[1], "global_step1");
	begin(&p[2], "global_step1");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -EINVAL, "rank 0: begin: \"r\"");
	begin_all(p, 3);
	for (int i = 0; i < 3; i++)
		peer_close(&p[i]);
}
END_TEST

/* Its next bytes tell a rank that another's failed: once, and of which save. */
START_TEST(test_told_early)
{
	struct peer p[2];

	job_open(&bed, p, 2);
	for (int save = 7; save < 9; save++) {
		for (int i = 0; i < 2; i++)
			ask(&p[i],
			    "{\"op\":\"begin\",\"step\":\"s\",\"format\":"
			    "\"files\",\"save\":%d}",
			    save);
		ask_ok(&p[0]);
		ask_ok(&p[1]);
		p[0].n_failed = p[1].n_failed = p[0].n_freed = 0;
		ask(&p[1], "{\"op\":\"fail\",\"r\":-28,\"reason\":\"full\"}");
		ask(&p[1], "{\"op\":\"commit\",\"save\":%d}", save);
		ask_fails(&p[1], -ENOSPC, "rank 1: full");
		ask(&p[0], OBJECT, 1, "o");
		for (int i = 0; i < 3; i++)
			ask(&p[0], DATA, 1, i, 10);
		ask(&p[0], "{\"op\":\"commit\"}");
		ask_fails(&p[0], -ENOSPC, "rank 1: full");
		ck_assert_uint_eq(p[0].n_failed, 1);
		ck_assert_double_eq(p[0].failed_save, save);
		ck_assert_uint_eq(p[0].n_freed, 3);
	}
	peer_close(&p[0]);
	peer_close(&p[1]);
}
END_TEST

/* ---- who may ---- */

static int other_user_opens(char text[640])
{
	struct peer p;

	if (setgid(65534) || setuid(65534))
		_exit(3);
	peer_open(&bed, &p);
	hello(&p, 0, 1, "");
	return answer_of(&p, text);
}

START_TEST(test_private)
{
	struct cfs_error err = {""};
	struct peer p;
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return; /* there is nobody else to be */
	cfs_control_stop(bed.control);
	bed.context.private = true;
	ck_assert_int_eq(
		cfs_control_start(bed.path, &bed.context, &bed.control, &err),
		0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		char text[640];
		int r = other_user_opens(text);

		_exit(r == -EACCES && strstr(text, "allow_other") ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	job_open(&bed, &p, 1);
	peer_close(&p);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_ends");
	TCase *t = tcase_create("rank_ends");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_checked_fixture(t, start, stop);
	tcase_add_test(t, test_unmount);
	tcase_add_test(t, test_unmount_deaf);
	tcase_add_test(t, test_heir);
	tcase_add_test(t, test_cannot_begin);
	tcase_add_test(t, test_told_early);
	tcase_add_test(t, test_private);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
