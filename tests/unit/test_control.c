/* The control socket: frames, calls, who may call, verbs that exclude. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "store/util/wire.h"
#include "tests/unit/control_bed.h"

/* ---- frames ---- */

START_TEST(test_wire)
{
	cJSON *json = cJSON_Parse("{\"a\":1}"), *got = NULL;
	int s[2], fds[2], p[2];
	uint8_t big[4] = {0, 0, 1, 0};

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(cfs_wire_send(s[0], json, p, 2), 0);
	ck_assert_int_eq(cfs_wire_receive(s[1], 4096, &got, fds), 0);
	ck_assert(cJSON_Compare(json, got, true));
	cJSON_Delete(got);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	ck_assert_int_eq(read(p[0], big, 1), 1);
	close(fds[0]);
	close(fds[1]);
	close(p[0]);
	close(p[1]);
	/* longer than allowed, no JSON, cut off */
	big[0] = 0;
	ck_assert_int_eq(write(s[0], big, 4), 4);
	ck_assert_int_eq(cfs_wire_receive(s[1], 4096, &got, NULL), -EMSGSIZE);
	ck_assert_int_eq(write(s[0], "\3\0\0\0[1]", 7), 7);
	ck_assert_int_eq(cfs_wire_receive(s[1], 4096, &got, NULL), -EBADMSG);
	ck_assert(!cfs_wire_gone(s[1]));
	ck_assert_int_eq(write(s[0], "\3\0\0\0[", 5), 5);
	close(s[0]);
	ck_assert(cfs_wire_gone(s[1]));
	ck_assert_int_eq(cfs_wire_receive(s[1], 4096, &got, NULL), -EPIPE);
	close(s[1]);
	cJSON_Delete(json);
}
END_TEST

/* ---- calls ---- */

static void check_call(const char *store)
{
	struct cfs_error err = {""};
	cJSON *arguments = cJSON_Parse("{\"path\":\"\"}"), *result = NULL;

	ck_assert_msg(cfs_control_call(store, "du", arguments, NULL, &result,
				       &err) == 0,
		      "%s", err.text);
	ck_assert(cJSON_IsArray(
		cJSON_GetObjectItemCaseSensitive(result, "entries")));
	cJSON_Delete(result);
	ck_assert_int_eq(cfs_control_call(store, "nonsense", arguments, NULL,
					  &result, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "nonsense"));
	cJSON_Delete(arguments);
}

START_TEST(test_call_here)
{
	struct cfs_error err = {""};
	cJSON *result;

	check_call(new_store("s"));
	ck_assert_int_eq(cfs_control_call(top, "du", NULL, NULL, &result, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "no store"));
}
END_TEST

static void check_served(const char *path)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct cfs_control *control = NULL;
	struct cfs_error err = {""};
	char socket_path[PATH_MAX];
	struct stat st;

	open_store(path, &o, &context);
	snprintf(socket_path, sizeof(socket_path), "%s/control", path);
	ck_assert_msg(cfs_control_start(path, &context, &control, &err) == 0,
		      "%s", err.text);
	ck_assert_int_eq(stat(socket_path, &st), 0);
	check_call(path);
	check_call(path);
	cfs_control_stop(control);
	ck_assert_int_eq(stat(socket_path, &st), -1);
	ck_assert_int_eq(cfs_opened_close(&o), 0);
}

START_TEST(test_served)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s", new_store("s"));
	check_served(path);
	/* one that a daemon left when it was killed */
	ck_assert_int_eq(cfs_wire_listen(path, &fd), 0);
	close(fd);
	check_call(path);
	check_served(path);
}
END_TEST

START_TEST(test_long_path)
{
	char name[201];

	memset(name, 'x', 200);
	name[200] = 0;
	check_served(new_store(name));
}
END_TEST

/* Another user is told so, in one line. */
START_TEST(test_refused)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct cfs_control *control = NULL;
	struct cfs_error err = {""};
	char path[PATH_MAX];
	int status;
	pid_t pid;

	if (geteuid() != 0)
		return; /* there is nobody else to be */
	snprintf(path, sizeof(path), "%s", new_store("s"));
	ck_assert_int_eq(chmod(path, 0755), 0);
	open_store(path, &o, &context);
	ck_assert_int_eq(cfs_control_start(path, &context, &control, &err), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		cJSON *result;
		int r;

		if (setgid(65534) || setuid(65534))
			_exit(3);
		r = cfs_control_call(path, "du", NULL, NULL, &result, &err);
		_exit(r == -EPERM && strstr(err.text, "owner") ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	/* the owner of the directory is served, whoever mounted it */
	cfs_control_stop(control);
	ck_assert_int_eq(chown(path, 65534, 65534), 0);
	ck_assert_int_eq(cfs_control_start(path, &context, &control, &err), 0);
	pid = fork();
	if (!pid) {
		cJSON *result = NULL;

		if (setgid(65534) || setuid(65534))
			_exit(3);
		_exit(cfs_control_call(path, "du", NULL, NULL, &result, &err)
			      ? 1
			      : 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	cfs_control_stop(control);
	cfs_opened_closep(&o);
}
END_TEST

struct nested {
	struct cfs_verb_context *context;
	int r;
	unsigned calls;
};

static bool nest(void *arg, uint64_t done, uint64_t total, const char *what)
{
	struct nested *n = arg;
	struct cfs_error err = {""};

	(void)done;
	(void)total;
	(void)what;
	if (!n->calls++)
		n->r = run_verb(n->context, "scrub", "{}", NULL, &err);
	return false;
}

/* One of gc, scrub, fsck, prune at a time; and who is told to stop, stops. */
START_TEST(test_exclusive)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct nested nested = {&context, 0, 0};
	struct cfs_verb_reply reply = {nest, NULL, &nested};
	struct cfs_error err = {""};
	cJSON *result = cJSON_CreateObject();

	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	ck_assert_int_eq(
		cfs_verb_run(&context, "scrub", NULL, &reply, result, &err),
		-ECANCELED);
	ck_assert_uint_ge(nested.calls, 1);
	ck_assert_int_eq(nested.r, -EBUSY);
	run_ok(&context, "scrub", "{}");
	run_ok(&context, "fsck", "{}");
	cJSON_Delete(result);
	cfs_opened_closep(&o);
}
END_TEST

static bool never(void *arg, uint64_t done, uint64_t total, const char *what)
{
	(void)done;
	(void)total;
	(void)what;
	++*(unsigned *)arg;
	return false;
}

/* A caller that goes away: its verb ends, and stopping waits for that. */
START_TEST(test_caller_goes)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct cfs_control *control = NULL;
	struct cfs_error err = {""};
	unsigned calls = 0;
	struct cfs_verb_reply reply = {never, NULL, &calls};
	char path[PATH_MAX];
	cJSON *result = NULL;
	int fd, r;

	snprintf(path, sizeof(path), "%s", new_store("s"));
	open_store(path, &o, &context);
	import_golden(&context);
	ck_assert_int_eq(cfs_control_start(path, &context, &control, &err), 0);
	r = cfs_control_call(path, "du", NULL, &reply, &result, &err);
	ck_assert(r == -ECANCELED || (r == 0 && !calls));
	cJSON_Delete(result);
	/* one that asks nothing, one that asks half */
	ck_assert_int_eq(cfs_wire_connect(path, &fd), 0);
	close(fd);
	ck_assert_int_eq(cfs_wire_connect(path, &fd), 0);
	ck_assert_int_eq(write(fd, "\377\0\0\0{", 5), 5);
	close(fd);
	check_call(path);
	cfs_control_stop(control);
	cfs_opened_closep(&o);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("control");
	TCase *t = tcase_create("control");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_wire);
	tcase_add_test(t, test_call_here);
	tcase_add_test(t, test_served);
	tcase_add_test(t, test_long_path);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_exclusive);
	tcase_add_test(t, test_caller_goes);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
