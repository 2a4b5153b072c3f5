/* The control socket and the verbs of a store. */
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/open.h"
#include "fs/daemon/pins.h"
#include "fs/daemon/prune_rules.h"
#include "fs/daemon/steps.h"
#include "fs/daemon/verb.h"
#include "fs/daemon/wire.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"
#include "store/util/digest.h"

#define GOLDEN CFS_TEST_DATA "/deepspeed-0.16.5/bf16-g3-fused_z1-dp8"
#define STEP   "global_step7"

/* ---- a place with stores in it ---- */

static char top[PATH_MAX];

static void run_rm(void)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%s/ckptfs-control-XXXXXX",
		 tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_int_eq(chmod(top, 0755), 0);
}

static const char *below(const char *name)
{
	static char paths[4][PATH_MAX + 512];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

static const char *new_store(const char *name)
{
	struct cfs_store_init_options options = {0};
	struct cfs_error err = {""};
	const char *path = below(name);

	ck_assert_msg(cfs_store_init(path, &options, &err) == 0, "%s",
		      err.text);
	return path;
}

static void open_store(const char *path, struct cfs_opened *o,
		       struct cfs_verb_context *context)
{
	static const struct cfs_verb_caller self = {0, 0, false, {-1, -1}, 0};
	struct cfs_error err = {""};

	ck_assert_msg(cfs_opened_open(path, NULL, o, &err) == 0, "%s",
		      err.text);
	cfs_opened_context(o, context);
	context->caller = &self;
}

static int run_verb(struct cfs_verb_context *context, const char *verb,
		    const char *arguments, cJSON **result_out,
		    struct cfs_error *err)
{
	cJSON *parsed = cJSON_Parse(arguments);
	cJSON *result = cJSON_CreateObject();
	int r;

	ck_assert_ptr_nonnull(parsed);
	err->text[0] = 0;
	r = cfs_verb_run(context, verb, parsed, NULL, result, err);
	cJSON_Delete(parsed);
	if (result_out && !r)
		*result_out = result;
	else
		cJSON_Delete(result);
	return r;
}

static void run_ok(struct cfs_verb_context *context, const char *verb,
		   const char *arguments)
{
	struct cfs_error err;
	int r = run_verb(context, verb, arguments, NULL, &err);

	ck_assert_msg(r == 0, "%s: %d %s", verb, r, err.text);
}

static void import_golden(struct cfs_verb_context *context)
{
	run_ok(context, "import",
	       "{\"path\":\"\",\"sources\":[{\"path\":\"" GOLDEN
	       "\",\"name\":\"run\"}]}");
}

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

/* ---- sets ---- */

START_TEST(test_chunkset)
{
	_cleanup_(cfs_chunkset_free) struct cfs_chunkset set = {0};
	struct cfs_chunkset_item *item;
	struct cfs_digest d;
	uint32_t i;
	bool fresh;

	for (i = 0; i < 5000; i++) {
		cfs_digest_of(&i, sizeof(i), &d);
		ck_assert_ptr_null(cfs_chunkset_get(&set, &d));
		ck_assert_int_eq(cfs_chunkset_put(&set, &d, &item, &fresh), 0);
		ck_assert(fresh);
		item->owner = i;
	}
	for (i = 0; i < 5000; i++) {
		cfs_digest_of(&i, sizeof(i), &d);
		ck_assert_int_eq(cfs_chunkset_put(&set, &d, &item, &fresh), 0);
		ck_assert(!fresh);
		ck_assert_uint_eq(item->owner, i);
	}
	ck_assert_uint_eq(set.n, 5000);
}
END_TEST

/* ---- retention ---- */

static bool pinned_2(void *arg, const char *name)
{
	(void)arg;
	return !strcmp(name, "s2");
}

START_TEST(test_prune_rules)
{
	const int64_t hour = INT64_C(3600000000000), now = 1000 * hour;
	struct cfs_steps_item items[] = {
		{(char *)(uintptr_t) "best", -1, 1, true, "", 0},
		{(char *)(uintptr_t) "s1", 1, 1, false, "", 0},
		{(char *)(uintptr_t) "s2", 2, 1, true, "", 0},
		{(char *)(uintptr_t) "s3", 3, 1, true, "", 0},
		{(char *)(uintptr_t) "s4", 4, now - hour / 2, false, "", 0},
		{(char *)(uintptr_t) "s10", 10, now - hour, true, "", 0},
		{(char *)(uintptr_t) "s11", 11, 1, true, "", 0},
		{(char *)(uintptr_t) "s12", 12, 1, true, "", 0},
		{(char *)(uintptr_t) "s13", 13, 1, false, "", 0},
	};
	struct cfs_steps steps = {CFS_ARRAY_SIZE(items), 0, items};
	struct cfs_prune_rules rules = {.keep_last = 1,
					.keep_every = 0,
					.newer_than_ns = INT64_MAX,
					.now_ns = now,
					.pointer = "s11",
					.settled = "s11",
					.pinned = pinned_2};
	static const bool last[] = {true,  false, true, false, true,
				    false, true,  true, true};
	const char *why[CFS_ARRAY_SIZE(items)];
	size_t i;

	cfs_prune_rules_apply(&rules, &steps, why);
	for (i = 0; i < CFS_ARRAY_SIZE(items); i++)
		ck_assert_msg(!!why[i] == last[i], "%s: %s", items[i].name,
			      why[i] ? why[i] : "goes");
	rules.keep_last = 0;
	rules.keep_every = 3;
	cfs_prune_rules_apply(&rules, &steps, why);
	ck_assert_ptr_nonnull(why[3]);
	ck_assert_ptr_null(why[5]);
	ck_assert_ptr_nonnull(why[7]);
	rules.keep_every = 0;
	rules.newer_than_ns = now - 2 * hour;
	cfs_prune_rules_apply(&rules, &steps, why);
	ck_assert_ptr_null(why[3]);
	ck_assert_ptr_nonnull(why[5]);
	ck_assert_ptr_null(why[7]);
}
END_TEST

/* ---- pins and pointers ---- */

static int count_pin(void *arg, const char *path)
{
	(void)path;
	++*(int *)arg;
	return 0;
}

START_TEST(test_pins)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct cfs_error err = {""};
	const char *path = new_store("s");
	char store[PATH_MAX];
	int n = 0;

	snprintf(store, sizeof(store), "%s", path);
	open_store(store, &o, &context);
	import_golden(&context);
	run_ok(&context, "pin", "{\"path\":\"run/" STEP "\"}");
	ck_assert_int_eq(
		run_verb(&context, "pin", "{\"path\":\"run/x\"}", NULL, &err),
		-ENOENT);
	ck_assert_int_eq(run_verb(&context, "pin", "{\"path\":\"run/../run\"}",
				  NULL, &err),
			 -EINVAL);
	ck_assert_int_eq(cfs_opened_close(&o), 0);
	open_store(store, &o, &context); /* it is durable */
	ck_assert_int_eq(cfs_pins_has(o.store, "run/" STEP), 1);
	ck_assert_int_eq(cfs_pins_each(o.store, count_pin, &n), 0);
	ck_assert_int_eq(n, 1);
	run_ok(&context, "pin", "{\"path\":\"run/" STEP "\",\"unpin\":true}");
	ck_assert_int_eq(cfs_pins_has(o.store, "run/" STEP), 0);
	cfs_opened_closep(&o);
}
END_TEST

static void write_text(struct cfs_ns *ns, const char *path, const char *text)
{
	struct cfs_ns_file *file;
	struct stat st;

	ck_assert_int_eq(cfs_ns_walk(ns, path, &st), 0);
	ck_assert_int_eq(
		cfs_ns_open_file(ns, st.st_ino, O_WRONLY | O_TRUNC, &file), 0);
	ck_assert_int_eq(cfs_ns_pwrite(file, text, strlen(text), 0),
			 (ssize_t)strlen(text));
	cfs_ns_close_file(file);
}

static void check_pointer(struct cfs_opened *o, const char *want)
{
	char name[256];

	ck_assert_int_eq(cfs_steps_pointer(o->source, "run", name), 1);
	ck_assert_str_eq(name, want);
}

static void remove_a_file(struct cfs_ns *ns, const char *step)
{
	_cleanup_(cfs_nstree_names_free) struct cfs_nstree_names names = {0};
	struct stat st;
	size_t i;

	ck_assert_int_eq(cfs_ns_walk(ns, step, &st), 0);
	ck_assert_int_eq(cfs_nstree_list(ns, st.st_ino, &names), 0);
	for (i = 0; i < names.n; i++)
		if (strstr(names.list[i].name, "optim_states"))
			break;
	ck_assert_uint_lt(i, names.n);
	ck_assert_int_eq(cfs_ns_unlink(ns, st.st_ino, names.list[i].name), 0);
}

START_TEST(test_recover_pointers)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	char name[256];

	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	run_ok(&context, "import",
	       "{\"path\":\"run\",\"sources\":[{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step3\"},{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step9\"}]}");
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	check_pointer(&o, STEP); /* whole: it stays */
	remove_a_file(o.ns, "run/" STEP);
	ck_assert_int_eq(cfs_steps_resolve(o.source, "run", name), 1);
	ck_assert_str_eq(name, "global_step3");
	check_pointer(&o, STEP);
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	check_pointer(&o, "global_step3"); /* before it, not global_step9 */
	/* nothing whole before it: left alone, but a load gets what there is */
	remove_a_file(o.ns, "run/global_step3");
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	check_pointer(&o, "global_step3");
	ck_assert_int_eq(cfs_steps_resolve(o.source, "run", name), 1);
	ck_assert_str_eq(name, "global_step9");
	/* a pointer that is none */
	write_text(o.ns, "run/latest", "../" STEP "\n");
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	ck_assert_int_eq(cfs_steps_pointer(o.source, "run", name), 0);
	cfs_opened_closep(&o);
}
END_TEST

static void put_file(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	ck_assert(mkdir(dir, 0755) == 0 || errno == EEXIST);
	ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s", dir, name),
			 (int)sizeof(path));
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

static void check_text(struct cfs_opened *o, const char *path, const char *want)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_source_read_small(o->source, path, 100, &text), 0);
	ck_assert_str_eq(cfs_buf_str(&text), want);
}

/* Megatron's pointer is a number; it counts where there is no `latest`. */
START_TEST(test_recover_a_number)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	char run[200], step[250], rank[300], arguments[400];
	int n;

	ck_assert_int_lt(snprintf(run, sizeof(run), "%s", below("megatron")),
			 (int)sizeof(run));
	put_file(run, "latest_checkpointed_iteration.txt", "2");
	for (n = 1; n <= 2; n++) {
		(void)snprintf(step, sizeof(step), "%s/iter_%07d", run, n);
		(void)snprintf(rank, sizeof(rank), "%s/mp_rank_00", step);
		put_file(step, "common.pt", "");
		put_file(rank, n == 1 ? "model_optim_rng.pt" : "other", "x");
	}
	open_store(new_store("s"), &o, &context);
	(void)snprintf(arguments, sizeof(arguments),
		       "{\"path\":\"\",\"sources\":[{\"path\":\"%s\","
		       "\"name\":\"run\"}]}",
		       run);
	run_ok(&context, "import", arguments);
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	check_text(&o, "run/latest_checkpointed_iteration.txt", "1");
	ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
	check_text(&o, "run/latest_checkpointed_iteration.txt", "1");
	cfs_opened_closep(&o);
}
END_TEST

/* ---- send, receive ---- */

static int send_to_file(struct cfs_verb_context *context, const char *arguments,
			const char *file)
{
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, 1};
	struct cfs_error err = {""};
	int r;

	caller.fds[0] = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(caller.fds[0], 0);
	context->caller = &caller;
	r = run_verb(context, "send", arguments, NULL, &err);
	close(caller.fds[0]);
	return r;
}

static uint8_t *read_file(const char *file, size_t *len_out)
{
	FILE *f = fopen(file, "rb");
	struct stat st;
	uint8_t *data;

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fstat(fileno(f), &st), 0);
	data = malloc((size_t)st.st_size);
	ck_assert_ptr_nonnull(data);
	*len_out = fread(data, 1, (size_t)st.st_size, f);
	ck_assert_uint_eq(*len_out, (size_t)st.st_size);
	(void)fclose(f);
	return data;
}

static int receive_bytes(struct cfs_verb_context *context, const void *data,
			 size_t len, const char *arguments)
{
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, 1};
	struct cfs_error err = {""};
	const char *file = below("damaged");
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600), r;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	caller.fds[0] = fd;
	context->caller = &caller;
	r = run_verb(context, "receive", arguments, NULL, &err);
	close(fd);
	return r;
}

/* Some bits of a stored chunk say nothing (zstd's, for one): what was taken
 * must be what was sent, then, and goes again. */
static void check_same(struct cfs_opened *o, struct cfs_verb_context *context,
		       const uint8_t *want, size_t want_len)
{
	_cleanup_(cfs_freep) uint8_t *got = NULL;
	struct stat st;
	size_t len;

	ck_assert_int_eq(
		send_to_file(context, "{\"path\":\"a/b\"}", below("again")), 0);
	got = read_file(below("again"), &len);
	ck_assert_uint_eq(len, want_len);
	ck_assert_mem_eq(got, want, len);
	ck_assert_int_eq(cfs_ns_walk(o->ns, "a", &st), 0);
	ck_assert_int_eq(cfs_nstree_remove(o->ns, st.st_ino, "b"), 0);
}

/* Whatever is done to a stream, nothing else than what was sent comes of it. */
START_TEST(test_receive_damaged)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	unsigned seed = (unsigned)time(NULL), i, taken = 0;
	_cleanup_(cfs_freep) uint8_t *data = NULL, *copy = NULL;
	struct stat st;
	size_t len;

	printf("seed %u\n", seed);
	srandom(seed);
	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	ck_assert_int_eq(
		send_to_file(&context, "{\"path\":\"run\"}", below("stream")),
		0);
	data = read_file(below("stream"), &len);
	copy = malloc(len);
	ck_assert_ptr_nonnull(copy);
	for (i = 0; i < 300; i++) {
		size_t n = len;

		memcpy(copy, data, len);
		if (i % 3 == 0)
			n = (size_t)random() % len;
		else
			copy[(size_t)random() % (i % 3 == 1 ? len : 512)] ^=
				(uint8_t)(1 + random() % 255);
		if (receive_bytes(&context, copy, n, "{\"path\":\"a/b\"}") ==
		    0) {
			ck_assert_uint_eq(n, len);
			taken++;
			check_same(&o, &context, data, len);
		}
		ck_assert_int_eq(cfs_ns_walk(o.ns, "a/b", &st), -ENOENT);
	}
	ck_assert_uint_lt(taken, 30);
	ck_assert_int_eq(
		receive_bytes(&context, data, len, "{\"path\":\"a/b\"}"), 0);
	ck_assert_int_eq(cfs_ns_walk(o.ns, "a/b/" STEP, &st), 0);
	ck_assert_int_eq(cfs_ns_walk(o.ns, CFS_NSTREE_TRASH, &st), -ENOENT);
	ck_assert_int_eq(
		receive_bytes(&context, data, len, "{\"path\":\"a/b\"}"),
		-EEXIST);
	run_ok(&context, "fsck", "{}");
	cfs_opened_closep(&o);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("control");
	TCase *t = tcase_create("control");

	tcase_add_checked_fixture(t, setup, run_rm);
	tcase_add_test(t, test_wire);
	tcase_add_test(t, test_call_here);
	tcase_add_test(t, test_served);
	tcase_add_test(t, test_long_path);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_exclusive);
	tcase_add_test(t, test_caller_goes);
	tcase_add_test(t, test_chunkset);
	tcase_add_test(t, test_prune_rules);
	tcase_add_test(t, test_pins);
	tcase_add_test(t, test_recover_pointers);
	tcase_add_test(t, test_recover_a_number);
	tcase_add_test(t, test_receive_damaged);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
