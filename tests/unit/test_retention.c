/* Which steps stay: prune's rules, pins, pointers put right after a crash. */
#include <errno.h>
#include <fcntl.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/pins.h"
#include "fs/daemon/prune_rules.h"
#include "fs/daemon/steps.h"
#include "fs/rank/stage.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"
#include "tests/unit/control_bed.h"

static bool pinned_2(void *arg, const char *name)
{
	(void)arg;
	return !strcmp(name, "s2");
}

START_TEST(test_prune_rules)
{
	const int64_t hour = INT64_C(3600000000000), now = 1000 * hour;
	struct cfs_steps_item items[] = {
		{(char *)(uintptr_t) "best", -1, 1, true, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s1", 1, 1, false, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s2", 2, 1, true, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s3", 3, 1, true, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s4", 4, now - hour / 2, false, "", 0,
		 NULL, 0},
		{(char *)(uintptr_t) "s10", 10, now - hour, true, "", 0, NULL,
		 0},
		{(char *)(uintptr_t) "s11", 11, 1, true, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s12", 12, 1, true, "", 0, NULL, 0},
		{(char *)(uintptr_t) "s13", 13, 1, false, "", 0, NULL, 0},
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

static unsigned count_kept(struct cfs_verb_context *context,
			   const char *arguments)
{
	struct cfs_error err;
	cJSON *result = NULL;
	const cJSON *step;
	unsigned kept = 0;
	int r = run_verb(context, "prune", arguments, &result, &err);

	ck_assert_msg(r == 0, "%d %s", r, err.text);
	cJSON_ArrayForEach(
		step, cJSON_GetObjectItemCaseSensitive(result, "steps")) kept +=
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(step, "keep"));
	cJSON_Delete(result);
	return kept;
}

/* A rule that asks for more than can be counted keeps all: 292 years of
 * nanoseconds, or a number that JSON does not hold. */
START_TEST(test_prune_newer_than_anything)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;

	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	run_ok(&context, "import",
	       "{\"path\":\"run\",\"sources\":[{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step3\"}]}");
	ck_assert_uint_eq(count_kept(&context,
				     "{\"path\":\"run\",\"dry_run\":true,"
				     "\"newer_than_seconds\":1}"),
			  1);
	ck_assert_uint_eq(count_kept(&context,
				     "{\"path\":\"run\",\"dry_run\":true,"
				     "\"newer_than_seconds\":9223372035}"),
			  2);
	ck_assert_uint_eq(count_kept(&context,
				     "{\"path\":\"run\",\"dry_run\":true,"
				     "\"newer_than_seconds\":9460800000}"),
			  2);
	ck_assert_uint_eq(count_kept(&context,
				     "{\"path\":\"run\",\"dry_run\":true,"
				     "\"newer_than_seconds\":1e17}"),
			  2);
	cfs_opened_closep(&o);
}
END_TEST

/* As a save that replaces a step does, while prune is about to remove it. */
static bool replace_step(void *arg, uint64_t done, uint64_t total,
			 const char *what)
{
	struct cfs_verb_context *context = arg;
	const struct cfs_ns_cred cred = {0};
	struct stat run, st;

	(void)done;
	(void)total;
	if (strcmp(what, "global_step3") != 0)
		return true;
	ck_assert_int_eq(cfs_ns_walk(context->ns, "run", &run), 0);
	ck_assert_int_eq(cfs_ns_rename(context->ns, run.st_ino, what,
				       CFS_ROOT_INO, "old", 0),
			 0);
	ck_assert_int_eq(
		cfs_ns_mkdir(context->ns, &cred, run.st_ino, what, 0755, &st),
		0);
	cfs_ns_forget(context->ns, st.st_ino, 1);
	return true;
}

START_TEST(test_prune_leaves_what_was_saved_anew)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	struct cfs_verb_reply reply = {.progress = replace_step,
				       .arg = &context};
	cJSON *arguments = cJSON_Parse("{\"path\":\"run\",\"keep_last\":1}");
	cJSON *result = cJSON_CreateObject();
	struct cfs_error err = {""};
	struct stat st;
	char *text;

	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	run_ok(&context, "import",
	       "{\"path\":\"run\",\"sources\":[{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step2\"},{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step3\"}]}");
	ck_assert_msg(cfs_verb_run(&context, "prune", arguments, &reply, result,
				   &err) == 0,
		      "%s", err.text);
	ck_assert_int_eq(cfs_ns_walk(o.ns, "run/global_step3", &st), 0);
	ck_assert_int_eq(cfs_ns_walk(o.ns, "run/global_step2", &st), -ENOENT);
	text = cJSON_PrintUnformatted(result);
	ck_assert_ptr_nonnull(strstr(text, "\"removed\":1,"));
	cJSON_free(text);
	cJSON_Delete(arguments);
	cJSON_Delete(result);
	cfs_opened_closep(&o);
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

/* A step that ranks committed is whole, whatever is in it. */
START_TEST(test_resolve_a_committed_step)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	char arguments[PATH_MAX + 600], name[256];
	struct stat st;

	put_file(below("in"), "my.bin", "weights");
	ck_assert_int_eq(mkdir(below("in/ckptfs"), 0755), 0);
	put_file(below("in/ckptfs"), "step.json", "{}");
	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	ck_assert_int_lt(snprintf(arguments, sizeof(arguments),
				  "{\"path\":\"run\",\"sources\":[{\"path\":"
				  "\"%s\",\"name\":\"step9\"}]}",
				  below("in")),
			 (int)sizeof(arguments));
	run_ok(&context, "import", arguments);
	write_text(o.ns, "run/latest", "step9");
	ck_assert_int_eq(cfs_steps_resolve(o.source, "run", name), 1);
	ck_assert_str_eq(name, "step9");
	/* any other directory is no step */
	ck_assert_int_eq(cfs_ns_walk(o.ns, "run/step9/ckptfs", &st), 0);
	ck_assert_int_eq(cfs_ns_unlink(o.ns, st.st_ino, "step.json"), 0);
	ck_assert_int_eq(cfs_steps_resolve(o.source, "run", name), 1);
	ck_assert_str_eq(name, STEP);
	cfs_opened_closep(&o);
}
END_TEST

static void save_files(struct cfs_verb_context *context, const char *step)
{
	struct cfs_stage_options o = {.run = "own",
				      .step = step,
				      .format = "files",
				      .n_ranks = 1,
				      .uid = geteuid(),
				      .gid = getegid(),
				      .umask = 022};
	struct cfs_stage_stream *s = NULL;
	struct cfs_stage *stage = NULL;
	struct cfs_error err = {""};

	ck_assert_msg(cfs_stage_new(context, &o, &stage, &err) == 0, "%s",
		      err.text);
	ck_assert_int_eq(cfs_stage_file(stage, 0, "my.bin", &s, &err), 0);
	ck_assert_int_eq(cfs_stage_write(s, step, strlen(step), &err), 0);
	ck_assert_int_eq(cfs_stage_end(s, &err), 0);
	ck_assert_msg(cfs_stage_commit(stage, &err) == 0, "%s", err.text);
	cfs_stage_free(stage);
}

/* What a daemon that was killed leaves: a copy made while it runs. */
static void copy_store(const char *from, const char *to)
{
	char command[2 * PATH_MAX + 20];

	ck_assert_int_lt(
		snprintf(command, sizeof(command), "cp -a %s %s", from, to),
		(int)sizeof(command));
	ck_assert_int_eq(system(command), 0);
}

/* The pointer stays on a step that no format knows, also where its name is one
 * that says what must be in it. */
START_TEST(test_recover_a_committed_step)
{
	static const char *const names[] = {"step2", "checkpoint-2"};
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	char from[PATH_MAX], to[PATH_MAX], name[256];

	ck_assert_int_lt(snprintf(from, sizeof(from), "%s", new_store("s")),
			 (int)sizeof(from));
	ck_assert_int_lt(snprintf(to, sizeof(to), "%s", below("copy")),
			 (int)sizeof(to));
	open_store(from, &o, &context);
	save_files(&context, _i ? "checkpoint-1" : "step1");
	save_files(&context, names[_i]);
	copy_store(from, to);
	cfs_opened_closep(&o);
	open_store(to, &o, &context);
	ck_assert(cfs_store_was_unclean(o.store));
	check_text(&o, "own/latest", names[_i]);
	ck_assert_int_eq(cfs_steps_resolve(o.source, "own", name), 1);
	ck_assert_str_eq(name, names[_i]);
	cfs_opened_closep(&o);
}
END_TEST

/* What a process that is gone left goes, whether it crashed or not. */
START_TEST(test_sweep_when_opened)
{
	struct cfs_ns_cred cred = {geteuid(), getegid()};
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	char store[PATH_MAX];
	struct stat st;
	uint64_t trash;

	ck_assert_int_lt(snprintf(store, sizeof(store), "%s", new_store("s")),
			 (int)sizeof(store));
	open_store(store, &o, &context);
	ck_assert_int_eq(cfs_nstree_mkdirs(o.ns, &cred,
					   CFS_NSTREE_TRASH "/left/step",
					   &trash),
			 0);
	cfs_opened_closep(&o);
	open_store(store, &o, &context);
	ck_assert(!cfs_store_was_unclean(o.store));
	ck_assert_int_eq(cfs_ns_walk(o.ns, CFS_NSTREE_TRASH, &st), -ENOENT);
	cfs_opened_closep(&o);
}
END_TEST

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

/* A universal checkpoint by its names; without @whole still being made. */
static void put_universal(const char *run, const char *name, bool whole)
{
	char step[250], zero[300];

	(void)snprintf(step, sizeof(step), "%s/%s", run, name);
	(void)snprintf(zero, sizeof(zero), "%s/zero", step);
	put_file(step, "mp_rank_00_model_states.pt", "x");
	put_file(zero, whole ? "optimizer_state.pt" : "other", "x");
}

/* Each pointer settles to a step of its own kind. */
START_TEST(test_recover_universal)
{
	static const struct {
		const char *latest, *universal; /* as found */
		const char *latest_want, *universal_want;
	} cases[] = {
		{"s3", "s3_universal", "s3", "s2_universal"},
		{"s9", "s9_universal", "s9", "s9_universal"},
		{"s5", "s1_universal", "s3", "s1_universal"},
		{"u3", "u3", "u1", "u1"},
		{"s3", "a3_universal", "s3", "a3_universal"}, /* none before */
		{"s3", "s3", "s3", "s3"}, /* not ours to judge: it is whole */
		{"s3", "s8", "s3", "s4"},
		{"s3", "../s3_universal", "s3", "../s3_universal"},
	};
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	static const char *prune = "{\"path\":\"run\",\"dry_run\":true,"
				   "\"keep_every\":1000}";
	char run[200], arguments[1000];
	unsigned kept;
	size_t i;

	ck_assert_int_lt(snprintf(run, sizeof(run), "%s", below("universal")),
			 (int)sizeof(run));
	put_file(run, "latest", "");
	put_file(run, "latest_universal", "");
	put_universal(run, "s1_universal", true);
	put_universal(run, "s2_universal", true);
	put_universal(run, "s3_universal", false);
	put_universal(run, "s9_universal", true);
	put_universal(run, "s4", true);
	put_universal(run, "u1", true);
	put_universal(run, "u3", false);
	put_universal(run, "a3_universal", false);
	open_store(new_store("s"), &o, &context);
	(void)snprintf(arguments, sizeof(arguments),
		       "{\"path\":\"\",\"sources\":[{\"path\":\"%s\","
		       "\"name\":\"run\"}]}",
		       run);
	run_ok(&context, "import", arguments);
	(void)snprintf(arguments, sizeof(arguments),
		       "{\"path\":\"run\",\"sources\":["
		       "{\"path\":\"%s\",\"name\":\"s3\"},"
		       "{\"path\":\"%s\",\"name\":\"u2\"},"
		       "{\"path\":\"%s\",\"name\":\"s5\"},"
		       "{\"path\":\"%s\",\"name\":\"s9\"}]}",
		       GOLDEN "/" STEP, GOLDEN "/" STEP, GOLDEN "/" STEP,
		       GOLDEN "/" STEP);
	run_ok(&context, "import", arguments);
	remove_a_file(o.ns, "run/s5");
	for (i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		write_text(o.ns, "run/latest", cases[i].latest);
		write_text(o.ns, "run/latest_universal", cases[i].universal);
		ck_assert_int_eq(cfs_daemon_recover_pointers(&context), 0);
		check_text(&o, "run/latest", cases[i].latest_want);
		check_text(&o, "run/latest_universal", cases[i].universal_want);
	}
	/* what it names, or a load gets, is not pruned */
	write_text(o.ns, "run/latest_universal", "s9_universal");
	kept = count_kept(&context, prune);
	write_text(o.ns, "run/latest_universal", "u1");
	ck_assert_uint_eq(count_kept(&context, prune), kept + 1);
	write_text(o.ns, "run/latest_universal", "u3");
	ck_assert_uint_eq(count_kept(&context, prune), kept + 1);
	cfs_opened_closep(&o);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("retention");
	TCase *t = tcase_create("retention");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_prune_rules);
	tcase_add_test(t, test_prune_newer_than_anything);
	tcase_add_test(t, test_prune_leaves_what_was_saved_anew);
	tcase_add_test(t, test_resolve_a_committed_step);
	tcase_add_test(t, test_pins);
	tcase_add_test(t, test_recover_pointers);
	tcase_add_loop_test(t, test_recover_a_committed_step, 0, 2);
	tcase_add_test(t, test_sweep_when_opened);
	tcase_add_test(t, test_recover_a_number);
	tcase_add_test(t, test_recover_universal);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
