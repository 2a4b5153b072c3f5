/* The server of ranks, by raw frames: opening, agreeing, failing together. */
#include "tests/unit/rank_server_bed.h"
#include "tests/unit/rank_fake.h"

#include <poll.h>

#define PUT                                                                    \
	"{\"op\":\"put\",\"id\":%d,\"name\":\"%s\",\"role\":\"master\","       \
	"\"dtype\":\"float32\",\"shape\":[%d],\"offset\":[0],"                 \
	"\"extent\":[%d]}"
#define DATA "{\"op\":\"data\",\"id\":%d,\"slot\":%d,\"len\":%d}"

static struct bed bed;

static void start(void)
{
	setup();
	fake_reset();
	bed_start(&bed);
}

/* Nothing is left of any save, whatever happened. */
static void stop(void)
{
	struct fake_counts c;

	bed_stop(&bed);
	c = fake_counts();
	ck_assert_uint_eq(c.stages, 0);
	ck_assert_uint_eq(c.streams, 0);
	fake_reset();
	teardown();
}

/* ---- opening ---- */

static void refused(const char *arguments, int ring_fd, int want,
		    const char *part)
{
	char text[1024];
	struct peer p = {.fd = -1};

	ck_assert_int_eq(cfs_wire_connect(bed.path, &p.fd), 0);
	snprintf(text, sizeof(text), "{\"verb\":\"rank\",\"arguments\":{%s}}",
		 arguments);
	send_text(&p, text, ring_fd);
	ask_fails(&p, want, part);
	close(p.fd);
}

#define HELLO                                                                  \
	"\"version\":1,\"run\":\"run\",\"job\":\"\",\"slots\":4,"              \
	"\"slot_bytes\":65536,\"timeout\":30,\"umask\":18,"

START_TEST(test_hello)
{
	int fd = ring_new((uint64_t)SLOT * SLOTS, SEALS);
	int odd = ring_new((uint64_t)SLOT * SLOTS, F_SEAL_GROW);
	int small = ring_new(SLOT, SEALS);

	refused("\"version\":2", fd, -EPROTONOSUPPORT, "release");
	refused("\"run\":\"r\"", fd, -EINVAL, "version");
	refused(HELLO "\"rank\":1,\"ranks\":1", fd, -EINVAL, "rank");
	refused(HELLO "\"rank\":-1,\"ranks\":1", fd, -EINVAL, "rank");
	refused(HELLO "\"rank\":0.5,\"ranks\":1", fd, -EINVAL, "rank");
	refused(HELLO "\"rank\":1,\"ranks\":2", fd, -EINVAL, "job");
	refused(HELLO "\"rank\":0,\"ranks\":1e300", fd, -EINVAL, "ranks");
	refused(HELLO "\"rank\":0,\"ranks\":4097", fd, -EINVAL,
		"a job of 4097 ranks: 4096");
	refused(HELLO "\"rank\":4095,\"ranks\":4096", fd, -EINVAL, "job");
	refused(HELLO "\"rank\":0,\"ranks\":1", -1, -EINVAL, "no ring");
	refused(HELLO "\"rank\":0,\"ranks\":1", odd, -EINVAL, "sealed");
	refused(HELLO "\"rank\":0,\"ranks\":1", small, -EINVAL, "slots");
	refused(HELLO "\"rank\":0,\"ranks\":1", STDIN_FILENO, -EINVAL, "memfd");
	refused("\"version\":1,\"run\":\"../x\",\"job\":\"\",\"slots\":4,"
		"\"slot_bytes\":65536,\"timeout\":30,\"umask\":18,\"rank\":0,"
		"\"ranks\":1",
		fd, -EINVAL, "run");
	refused("\"version\":1,\"run\":\"x\",\"job\":\"\",\"slots\":5,"
		"\"slot_bytes\":52428,\"timeout\":30,\"umask\":18,\"rank\":0,"
		"\"ranks\":1",
		fd, -EINVAL, "power");
	refused("\"version\":1,\"run\":\"x\",\"job\":\"\",\"slots\":"
		"4503599627370496,\"slot_bytes\":65536,\"timeout\":30,"
		"\"umask\":18,\"rank\":0,\"ranks\":1",
		fd, -EINVAL, "slots");
	refused("\"version\":1,\"run\":\"x\",\"job\":\"00\",\"slots\":4,"
		"\"slot_bytes\":65536,\"timeout\":30,\"umask\":18,\"rank\":1,"
		"\"ranks\":2",
		fd, -EREMOTE, "one machine");
	close(fd);
	close(odd);
	close(small);
}
END_TEST

START_TEST(test_open_together)
{
	struct peer p[3], late;

	job_open(&bed, p, 3);
	/* no place for another */
	peer_open(&bed, &late);
	hello(&late, 1, 3, p[0].job);
	ask_fails(&late, -EINVAL, "rank 1");
	peer_close(&late);
	for (int i = 0; i < 3; i++)
		peer_close(&p[i]);
	/* one that says something else fails for those who wait, too */
	peer_open(&bed, &p[0]);
	peer_open(&bed, &p[1]);
	hello(&p[0], 0, 3, "");
	take_job(&p[0]);
	hello(&p[1], 1, 2, p[0].job);
	ask_fails(&p[1], -EINVAL, "one of 2 ranks, rank 0 one of 3");
	ask_fails(&p[0], -EINVAL, "one of 2 ranks, rank 0 one of 3");
	peer_close(&p[0]);
	peer_close(&p[1]);
}
END_TEST

/* All ranks of a job come at once, and verbs are still run beside them. */
START_TEST(test_many_at_once)
{
	struct cfs_error err = {""};
	cJSON *result = NULL;
	int fds[64];

	for (size_t i = 0; i < CFS_ARRAY_SIZE(fds); i++)
		ck_assert_int_eq(cfs_wire_connect(bed.path, &fds[i]), 0);
	ck_assert_msg(cfs_control_call(bed.path, "stats", NULL, NULL, &result,
				       &err) == 0,
		      "%s", err.text);
	cJSON_Delete(result);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(fds); i++) {
		struct pollfd answer = {.fd = fds[i], .events = POLLIN};

		ck_assert_int_eq(poll(&answer, 1, 0), 0); /* nobody refused */
		close(fds[i]);
	}
}
END_TEST

START_TEST(test_read_only)
{
	struct peer p;
	cJSON *frame;

	fake_no_write = true;
	peer_open(&bed, &p);
	hello(&p, 0, 1, "");
	take_job(&p);
	frame = next_frame(&p);
	ck_assert(cJSON_IsFalse(
		cJSON_GetObjectItemCaseSensitive(frame, "may_write")));
	cJSON_Delete(frame);
	begin(&p, "global_step1");
	ask_fails(&p, -EACCES, "not yours");
	peer_close(&p);
}
END_TEST

START_TEST(test_another_user)
{
	struct peer p[2];
	pid_t pid;
	int status;

	if (geteuid() != 0)
		return; /* there is nobody else to be */
	peer_open(&bed, &p[0]);
	hello(&p[0], 0, 2, "");
	take_job(&p[0]);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		char text[640];
		int r;

		if (setgid(65534) || setuid(65534))
			_exit(3);
		peer_open(&bed, &p[1]);
		hello(&p[1], 1, 2, p[0].job);
		r = answer_of(&p[1], text);
		_exit(r == -EPERM && strstr(text, "another user") ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	/* which harms nobody */
	peer_open(&bed, &p[1]);
	hello(&p[1], 1, 2, p[0].job);
	ask_ok(&p[0]);
	ask_ok(&p[1]);
	peer_close(&p[0]);
	peer_close(&p[1]);
}
END_TEST

/* ---- saving ---- */

START_TEST(test_save)
{
	struct peer p[2];
	const uint8_t *got;

	job_open(&bed, p, 2);
	begin_all(p, 2);
	for (int i = 0; i < 2; i++) {
		ask(&p[i], PUT, 1, "w", 20000, 20000);
		for (unsigned k = 0; k < 80000; k++)
			p[i].ring[SLOT + k] = (uint8_t)(k * 7 + i);
		ask(&p[i], DATA, 1, 1, 65536);
		ask(&p[i], DATA, 1, 2, 80000 - 65536);
		ask(&p[i], "{\"op\":\"object\",\"id\":2,\"name\":\"rng\"}");
		ask(&p[i], "{\"op\":\"end\",\"id\":2}");
	}
	ask(&p[0], "{\"op\":\"commit\"}");
	ask(&p[1], "{\"op\":\"commit\"}");
	ask_ok(&p[0]);
	ask_ok(&p[1]);
	ck_assert_uint_eq(fake_counts().commits, 1);
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(p[i].n_freed, 2);
		ck_assert_uint_eq(p[i].freed[0], 1);
		ck_assert_uint_eq(p[i].freed[1], 2);
		ck_assert_int_eq(fake_bytes("w", (uint32_t)i, &got), 80000);
		ck_assert_mem_eq(got, p[i].ring + SLOT, 80000);
		ck_assert_int_eq(fake_bytes("rng", (uint32_t)i, NULL), 0);
	}
	/* and another, by the same ranks */
	begin_all(p, 2);
	ask(&p[0], "{\"op\":\"commit\"}");
	ask(&p[1], "{\"op\":\"commit\"}");
	ask_ok(&p[1]);
	ask_ok(&p[0]);
	ck_assert_uint_eq(fake_counts().commits, 2);
	peer_close(&p[0]);
	peer_close(&p[1]);
}
END_TEST

START_TEST(test_disagree)
{
	struct peer p[3];

	job_open(&bed, p, 3);
	begin(&p[0], "global_step1");
	ask(&p[1], "{\"op\":\"begin\",\"step\":\"global_step1\",\"format\":"
		   "\"files\",\"pointer\":\"\"}");
	begin(&p[2], "global_step1");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -EINVAL, "the ranks disagree");
	for (int i = 0; i < 3; i++)
		begin(&p[i], i == 2 ? "global_step3" : "global_step2");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -EINVAL, "global_step3");
	/* one whose options are none */
	begin(&p[0], "global_step1");
	begin(&p[1], "a/b");
	begin(&p[2], "global_step1");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -EINVAL, "rank 1: begin: \"step\"");
	/* and one that the store refuses */
	strcpy(fake_fail_begin, "global_step1");
	for (int i = 0; i < 3; i++)
		begin(&p[i], "global_step1");
	for (int i = 0; i < 3; i++)
		ask_fails(&p[i], -EEXIST, "there already");
	/* the job goes on */
	fake_fail_begin[0] = 0;
	begin_all(p, 3);
	for (int i = 0; i < 3; i++)
		peer_close(&p[i]);
}
END_TEST

/* A rank that ends while others wait, at each place where they do. */
START_TEST(test_member_goes)
{
	for (int where = 0; where < 4; where++) {
		struct peer p[3];

		if (!where) {
			for (int i = 0; i < 2; i++) {
				peer_open(&bed, &p[i]);
				hello(&p[i], (uint32_t)i, 3, i ? p[0].job : "");
				if (!i)
					take_job(&p[0]);
			}
		} else {
			job_open(&bed, p, 3);
		}
		if (where == 1)
			begin(&p[0], "global_step1");
		if (where >= 2)
			begin_all(p, 3);
		if (where == 2) {
			ask(&p[1], PUT, 1, "w", 20000, 20000);
			ask(&p[1], DATA, 1, 0, 65536);
		}
		if (where >= 2)
			ask(&p[0], "{\"op\":\"commit\"}");
		if (where == 3) /* it waits as well */
			ask(&p[1], "{\"op\":\"commit\"}");
		peer_close(&p[1]);
		ask_fails(&p[0], -EPIPE, "rank 1 (pid");
		if (where) {
			/* the same text later, and for good */
			begin(&p[2], "global_step1");
			ask_fails(&p[2], where >= 2 ? -EBUSY : -EPIPE, "");
			if (where >= 2) {
				ask(&p[2], "{\"op\":\"commit\"}");
				ask_fails(&p[2], -EPIPE, "rank 1 (pid");
				begin(&p[2], "global_step1");
				ask_fails(&p[2], -EPIPE, "rank 1 (pid");
			}
			peer_close(&p[2]);
		}
		peer_close(&p[0]);
		ck_assert_uint_eq(fake_counts().commits, 0);
	}
}
END_TEST

/* Ranks that live and do not come. */
START_TEST(test_late)
{
	struct peer p[3];

	peer_open(&bed, &p[0]);
	hello_for(&p[0], 0, 3, "", 1);
	take_job(&p[0]);
	ask_fails(&p[0], -ETIMEDOUT, "ranks 1, 2 did not come to open");
	peer_close(&p[0]);
	for (uint32_t i = 0; i < 3; i++) {
		peer_open(&bed, &p[i]);
		hello_for(&p[i], i, 3, i ? p[0].job : "", 1);
		if (!i)
			take_job(&p[0]);
	}
	for (int i = 0; i < 3; i++)
		ask_ok(&p[i]);
	begin_all(p, 3);
	ask(&p[0], "{\"op\":\"commit\"}");
	ask(&p[2], "{\"op\":\"commit\"}");
	ask_fails(&p[0], -ETIMEDOUT, "rank 1 did not come to commit");
	ask_fails(&p[2], -ETIMEDOUT, "rank 1 did not come to commit");
	ask(&p[1], "{\"op\":\"commit\"}");
	ask_fails(&p[1], -ETIMEDOUT, "rank 1 did not come to commit");
	ck_assert_uint_eq(fake_counts().commits, 0);
	for (int i = 0; i < 3; i++)
		peer_close(&p[i]);
}
END_TEST

START_TEST(test_put_fails)
{
	struct peer p[2];

	job_open(&bed, p, 2);
	begin_all(p, 2);
	strcpy(fake_fail_write, "w");
	ask(&p[0], PUT, 1, "w", 40000, 40000);
	ask(&p[0], DATA, 1, 0, 65536);
	ask(&p[0], DATA, 1, 1, 65536);
	ask(&p[0], DATA, 1, 3, 160000 - 2 * 65536);
	ask(&p[0], "{\"op\":\"commit\"}");
	ask_fails(&p[0], -ENOSPC, "rank 0: w: no room");
	ck_assert_uint_eq(p[0].n_freed, 3); /* all slots came back */
	ask(&p[1], PUT, 1, "v", 4, 4);
	ask(&p[1], DATA, 1, 0, 16);
	ask(&p[1], "{\"op\":\"commit\"}");
	ask_fails(&p[1], -ENOSPC, "rank 0: w: no room");
	ck_assert_int_eq(fake_bytes("v", 1, NULL), -1);
	/* the next save is another */
	fake_fail_write[0] = 0;
	begin_all(p, 2);
	fake_fail_commit = true;
	ask(&p[0], "{\"op\":\"commit\"}");
	ask(&p[1], "{\"op\":\"commit\"}");
	ask_fails(&p[0], -EIO, "a gap");
	ask_fails(&p[1], -EIO, "a gap");
	fake_fail_commit = false;
	begin_all(p, 2);
	ask(&p[0], "{\"op\":\"commit\"}");
	ask(&p[1], "{\"op\":\"abort\",\"reason\":\"no loss\"}");
	ask_fails(&p[0], -ECANCELED, "rank 1 aborted: no loss");
	begin_all(p, 2);
	ck_assert_uint_eq(fake_counts().commits, 0);
	peer_close(&p[0]);
	peer_close(&p[1]);
}
END_TEST

/* The save fails with @part, and all else goes on. */
static void spoils(struct peer *p, const char *frame, int want,
		   const char *part)
{
	begin_all(p, 1);
	send_text(p, frame, -1);
	ask(p, "{\"op\":\"commit\"}");
	ask_fails(p, want, part);
}

START_TEST(test_bad_puts)
{
	struct peer p;

	job_open(&bed, &p, 1);
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EINVAL, "no save");
	spoils(&p, "{\"op\":\"put\",\"id\":1}", -EINVAL, "name");
	spoils(&p,
	       "{\"op\":\"put\",\"id\":1,\"name\":\"w\",\"role\":\"r\","
	       "\"dtype\":\"float31\",\"shape\":[1],\"offset\":[0],"
	       "\"extent\":[1]}",
	       -EINVAL, "dtype");
	spoils(&p,
	       "{\"op\":\"put\",\"id\":1,\"name\":\"w\",\"role\":\"r\","
	       "\"dtype\":\"float32\",\"shape\":[4],\"offset\":[1],"
	       "\"extent\":[4]}",
	       -EINVAL, "w");
	spoils(&p,
	       "{\"op\":\"put\",\"id\":1,\"name\":\"w\",\"role\":\"r\","
	       "\"dtype\":\"float32\",\"shape\":[1,1,1,1,1,1,1,1,1],"
	       "\"offset\":[0],\"extent\":[4]}",
	       -EINVAL, "shape");
	spoils(&p,
	       "{\"op\":\"put\",\"id\":1,\"name\":\"w\",\"role\":\"r\","
	       "\"dtype\":\"float32\",\"shape\":[9e15,9e15,9e15],"
	       "\"offset\":[0,0,0],\"extent\":[9e15,9e15,9e15]}",
	       -EINVAL, "");
	spoils(&p,
	       "{\"op\":\"put\",\"id\":1,\"name\":\"w\",\"role\":\"master\","
	       "\"dtype\":\"float32\",\"shape\":[4],\"offset\":[0],"
	       "\"extent\":[4]}",
	       -EINVAL, "16 bytes did not come");
	spoils(&p, "{\"op\":\"file\",\"id\":1,\"name\":\"a/../b\"}", -EINVAL,
	       "name");
	spoils(&p, "{\"op\":\"file\",\"id\":1,\"name\":\"/b\"}", -EINVAL,
	       "name");
	spoils(&p, "{\"op\":\"file\",\"id\":1,\"name\":\"b\"}", -EINVAL,
	       "not ended");
	spoils(&p, "{\"op\":\"file\",\"id\":0,\"name\":\"b\"}", -EINVAL, "id");
	spoils(&p, "{\"op\":\"object\",\"id\":1,\"name\":\"a/b\"}", -EINVAL,
	       "name");
	spoils(&p, "{\"op\":\"end\",\"id\":1}", -EINVAL, "id 1");
	spoils(&p, "{\"op\":\"data\",\"id\":1,\"slot\":0,\"len\":1}", -EINVAL,
	       "id 1");
	begin_all(&p, 1);
	ask(&p, "{\"op\":\"file\",\"id\":7,\"name\":\"b\"}");
	ask(&p, DATA, 7, 4, 1);
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EINVAL, "slot 4");
	begin_all(&p, 1);
	ask(&p, "{\"op\":\"file\",\"id\":7,\"name\":\"b\"}");
	ask(&p, DATA, 7, 3, 65537);
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EINVAL, "65537");
	begin_all(&p, 1);
	ask(&p, "{\"op\":\"file\",\"id\":7,\"name\":\"b\"}");
	ask(&p, "{\"op\":\"file\",\"id\":7,\"name\":\"c\"}");
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EINVAL, "id 7");
	begin_all(&p, 1);
	ask(&p, PUT, 1, "w", 4, 4);
	ask(&p, DATA, 1, 0, 17);
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EINVAL, "more bytes");
	begin_all(&p, 1);
	for (int i = 1; i <= 65; i++)
		ask(&p, "{\"op\":\"file\",\"id\":%d,\"name\":\"%d\"}", i, i);
	ask(&p, "{\"op\":\"commit\"}");
	ask_fails(&p, -EMFILE, "64 files");
	peer_close(&p);
}
END_TEST

/* What is no operation, or comes when there is no save, ends a connection. */
START_TEST(test_hostile)
{
	static const char *const frames[] = {
		"{}", "{\"op\":1}", "{\"op\":\"nonsense\"}",
		"{\"op\":\"data\",\"id\":1,\"slot\":0,\"len\":1}",
		"{\"op\":\"put\"}"};
	static const uint8_t big[4] = {255, 255, 255, 255};
	char text[640];
	struct peer p;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(frames); i++) {
		cJSON *frame = NULL;

		job_open(&bed, &p, 1);
		send_text(&p, frames[i], -1);
		ck_assert_int_lt(answer_of(&p, text), 0);
		ck_assert_int_eq(cfs_wire_receive(p.fd, 4096, &frame, NULL),
				 -EPIPE);
		peer_close(&p);
	}
	job_open(&bed, &p, 1);
	ck_assert_int_eq(write(p.fd, big, 4), 4);
	ask_fails(&p, -EMSGSIZE, "");
	peer_close(&p);
	job_open(&bed, &p, 1);
	ck_assert_int_eq(write(p.fd, big, 2), 2);
	peer_close(&p);
}
END_TEST

/* Stopping the daemon ends ranks that wait, and those that say nothing. */
START_TEST(test_stop)
{
	struct peer p[2];
	cJSON *frame = NULL;

	job_open(&bed, p, 2);
	begin_all(p, 2);
	ask(&p[0], "{\"op\":\"commit\"}");
	cfs_control_stop(bed.control);
	while (!cfs_wire_receive(p[1].fd, 4096, &frame, NULL))
		cJSON_Delete(frame);
	ck_assert_uint_eq(fake_counts().commits, 0);
	ck_assert_uint_eq(fake_counts().stages, 0);
	peer_close(&p[0]);
	peer_close(&p[1]);
	bed.control = NULL;
}
END_TEST

/* A daemon without the hook says so. */
START_TEST(test_no_hook)
{
	struct cfs_error err = {""};
	struct peer p;

	cfs_control_stop(bed.control);
	bed.context.session = NULL;
	ck_assert_int_eq(
		cfs_control_start(bed.path, &bed.context, &bed.control, &err),
		0);
	peer_open(&bed, &p);
	hello(&p, 0, 1, "");
	ask_fails(&p, -EOPNOTSUPP, "no steps of ranks");
	peer_close(&p);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_server");
	TCase *t = tcase_create("rank_server");

	tcase_add_checked_fixture(t, start, stop);
	tcase_add_test(t, test_hello);
	tcase_add_test(t, test_open_together);
	tcase_add_test(t, test_many_at_once);
	tcase_add_test(t, test_read_only);
	tcase_add_test(t, test_another_user);
	tcase_add_test(t, test_save);
	tcase_add_test(t, test_disagree);
	tcase_add_test(t, test_member_goes);
	tcase_add_test(t, test_late);
	tcase_add_test(t, test_put_fails);
	tcase_add_test(t, test_bad_puts);
	tcase_add_test(t, test_hostile);
	tcase_add_test(t, test_stop);
	tcase_add_test(t, test_no_hook);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
