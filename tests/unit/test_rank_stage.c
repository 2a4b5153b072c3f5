/* Stages: what is committed is there, whole; what is not leaves nothing. */
#include "tests/unit/rank_bed.h"

#include "fs/daemon/layouts.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/pins.h"
#include "store/map/source.h"

#define MIB ((size_t)1 << 20)

/* ---- committed ---- */

/* What tells that ranks committed all of it. */
static void expect_mark(const char *step, const char *format, int n_files)
{
	struct cfs_source *source = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	char path[200], want[200];
	const char *s;

	ck_assert_int_eq(cfs_source_ns_open(bed.ns, &source), 0);
	(void)snprintf(path, sizeof(path), "%s/ckptfs/step.json", step);
	ck_assert_int_eq(cfs_source_read_small(source, path, 1000, &text), 0);
	s = cfs_buf_str(&text);
	(void)snprintf(want, sizeof(want), "\"format\": \"%s\", \"ranks\": 4,",
		       format);
	ck_assert_msg(strstr(s, want), "%s", s);
	(void)snprintf(want, sizeof(want), "\"files\": %d}", n_files);
	ck_assert_msg(strstr(s, want), "%s", s);
	ck_assert_int_eq(cfs_layout_committed(source, step), 1);
	cfs_source_free(source);
}

START_TEST(files_and_objects)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};
	struct stat st;

	stage_file(stage, 0, "a.bin", 1, 3 * MIB + 5);
	stage_file(stage, 3, "x/y/b.bin", 2, 1000);
	stage_file(stage, 2, "empty", 3, 0);
	ck_assert_int_eq(stage_object(stage, 1, "rng", "dice", &err), 0);
	ck_assert_int_eq(stage_object(stage, 2, "rng", "dice", &err), 0);
	ck_assert(!is_there("runs"));
	stage_commit(stage);
	expect_text("runs/a/latest", "global_step7");
	cfs_stage_free(stage);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	ck_assert_uint_ge(n_told, 2);

	expect_file("runs/a/global_step7/a.bin", 1, 3 * MIB + 5);
	expect_file("runs/a/global_step7/x/y/b.bin", 2, 1000);
	expect_file("runs/a/global_step7/empty", 3, 0);
	expect_text("runs/a/global_step7/ckptfs/rng", "dice");
	expect_mark("runs/a/global_step7", "files", 4);
	ck_assert_int_eq(cfs_ns_walk(bed.ns, "runs/a/global_step7/x", &st), 0);
	ck_assert_uint_eq(st.st_uid, 1000);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0755);
	ck_assert_int_eq(cfs_ns_walk(bed.ns, "runs/a/latest", &st), 0);
	ck_assert_uint_eq(st.st_gid, 1000);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0644);
	ns_no_problems(&bed);
	ns_bed_crash(&bed, 0);
	expect_file("runs/a/global_step7/a.bin", 1, 3 * MIB + 5);
	expect_text("runs/a/latest", "global_step7");
}
END_TEST

START_TEST(replaced)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};

	stage_file(stage, 0, "old", 1, 5000);
	stage_commit(stage);
	cfs_stage_free(stage);
	stage = NULL;
	ck_assert_int_eq(cfs_stage_new(&context, &o, &stage, &err), -EEXIST);
	ck_assert_ptr_nonnull(strstr(err.text, "runs/a/global_step7"));
	o.replace = true;
	o.pointer = "newest";
	stage = stage_new(&o);
	stage_file(stage, 0, "new", 2, 6000);
	stage_commit(stage);
	cfs_stage_free(stage);
	expect_file("runs/a/global_step7/new", 2, 6000);
	ck_assert(!is_there("runs/a/global_step7/old"));
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	expect_text("runs/a/newest", "global_step7");
	ns_no_problems(&bed);
}
END_TEST

/* ---- refused ---- */

START_TEST(names_that_meet)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};
	struct cfs_stage_stream *s;

	stage_file(stage, 2, "a", 1, 10);
	ck_assert_int_eq(cfs_stage_file(stage, 3, "a", &s, &err), -EEXIST);
	ck_assert_str_eq(err.text, "a: ranks 2 and 3 both write it");
	ck_assert_int_eq(cfs_stage_file(stage, 3, "a/b", &s, &err), -ENOTDIR);
	ck_assert_int_eq(cfs_stage_file(stage, 0, "../a", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 0, "/a", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 0, "a/", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 0, "", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 9, "z", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_object(stage, 0, "a/b", &s, &err), -EINVAL);
	ck_assert_int_eq(stage_object(stage, 0, "o", "one", &err), 0);
	ck_assert_int_eq(cfs_stage_file(stage, 1, "ckptfs/o", &s, &err),
			 -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 1, "ckptfs", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 1, "@dp8", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_file(stage, 1, "a/./b", &s, &err), -EINVAL);
	ck_assert_int_eq(cfs_stage_object(stage, 0, "step.json", &s, &err),
			 -EINVAL);
	ck_assert_int_eq(cfs_stage_object(stage, 0, "..", &s, &err), -EINVAL);
	ck_assert_int_eq(stage_object(stage, 1, "o", "two", &err), -EEXIST);
	ck_assert_str_eq(err.text,
			 "object o: ranks 0 and 1 put different bytes");
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	cfs_stage_free(stage);
	ck_assert(!is_there("runs"));
	ck_assert(!is_there(CFS_NSTREE_TRASH));
}
END_TEST

static int try(struct cfs_stage_options o, struct cfs_error *err)
{
	struct cfs_stage *stage = NULL;
	int r = cfs_stage_new(&context, &o, &stage, err);

	cfs_stage_free(stage);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	return r;
}

START_TEST(options_refused)
{
	static const char *const no_names[] = {"", ".", "..", "@dp8", "a/b"};
	struct cfs_stage_options o = rank_options("files"), t = o;
	struct cfs_error err = {""};
	struct stat st;

	t.step = "a/b";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t.step = "latest";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t = o;
	t = o;
	t.step = "latest";
	t.pointer = "";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t = o;
	t.run = "../x";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t.run = CFS_NSTREE_TRASH "/x";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t.run = "runs/@dp8";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t.run = "/runs";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(no_names); i++) {
		t = o;
		t.step = no_names[i];
		ck_assert_int_eq(try(t, &err), -EINVAL);
		t = o;
		t.pointer = no_names[i];
		ck_assert_int_eq(try(t, &err), no_names[i][0] ? -EINVAL : 0);
	}
	t = o;
	t.format = "tape";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t = o;
	t.zero_stage = 4;
	ck_assert_int_eq(try(t, &err), -EINVAL);
	t = o;
	t.pointer = "..";
	ck_assert_int_eq(try(t, &err), -EINVAL);
	/* whose directory it is decides */
	(void)ns_mkdir(&bed, 1, "runs");
	o.uid = 1001;
	ck_assert_int_eq(try(o, &err), -EACCES);
	ck_assert_ptr_nonnull(strstr(err.text, "runs: permission"));
	o.uid = 1000;
	ck_assert_int_eq(try(o, &err), 0);
	o.uid = 0;
	ck_assert_int_eq(try(o, &err), 0);
	st.st_mode = 0770;
	ck_assert_int_eq(cfs_ns_setattr(bed.ns, ns_ino(&bed, "runs"), &st,
					CFS_SET_MODE, &st),
			 0);
	o.uid = 1001;
	ck_assert_int_eq(try(o, &err), 0); /* the group's */
	o.gid = 1001;
	ck_assert_int_eq(try(o, &err), -EACCES);
	o.groups = (const gid_t[]){5, 1000};
	o.n_groups = 2;
	ck_assert_int_eq(try(o, &err), 0);
}
END_TEST

/* ---- not committed ---- */

START_TEST(unfinished)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_stage_stream *s;
	struct cfs_error err = {""};

	stage_file(stage, 0, "a", 1, 10);
	ck_assert_int_eq(cfs_stage_file(stage, 1, "b", &s, &err), 0);
	stage_bytes(s, 2, 100);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	cfs_stage_drop(s);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EINVAL);
	cfs_stage_free(stage);
	ck_assert(!is_there("runs"));
	ns_no_problems(&bed);
}
END_TEST

/* Somebody takes the name while the save runs. */
START_TEST(name_taken)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};
	uint64_t run = ns_mkdir(&bed, ns_mkdir(&bed, 1, "runs"), "a");

	stage_file(stage, 0, "mine", 1, 10);
	(void)ns_mkdir(&bed, ns_mkdir(&bed, run, "global_step7"), "x");
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EEXIST);
	cfs_stage_free(stage);
	ck_assert(!is_there("runs/a/global_step7/mine"));
	ck_assert(is_there("runs/a/global_step7/x"));
	ck_assert(!is_there("runs/a/latest"));
}
END_TEST

/* A directory with nothing in it is what a trainer makes before it saves. */
START_TEST(empty_directory)
{
	struct cfs_stage_options o = rank_options("files");
	uint64_t run = ns_mkdir(&bed, ns_mkdir(&bed, 1, "runs"), "a");
	struct cfs_stage *stage;

	if (_i)
		(void)ns_mkdir(&bed, run, "global_step7");
	stage = stage_new(&o);
	stage_file(stage, 0, "mine", 1, 10);
	if (!_i)
		(void)ns_mkdir(&bed, run, "global_step7");
	stage_commit(stage);
	cfs_stage_free(stage);
	expect_file("runs/a/global_step7/mine", 1, 10);
	ck_assert(!is_there(CFS_NSTREE_TRASH));
	ns_no_problems(&bed);
}
END_TEST

static void set_pinned(bool pinned)
{
	ck_assert_int_eq(
		cfs_pins_set(bed.bed.store, "runs/a/global_step7", pinned), 0);
}

/* When it begins, or only when it is to be published. */
START_TEST(pinned)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct cfs_error err = {""};

	stage_file(stage, 0, "old", 1, 5000);
	stage_commit(stage);
	cfs_stage_free(stage);
	o.replace = true;
	set_pinned(true);
	ck_assert_int_eq(try(o, &err), -EBUSY);
	ck_assert_msg(strstr(err.text, "runs/a/global_step7 is pinned"), "%s",
		      err.text);
	set_pinned(false);
	stage = stage_new(&o);
	stage_file(stage, 0, "new", 2, 6000);
	set_pinned(true);
	ck_assert_int_eq(cfs_stage_commit(stage, &err), -EBUSY);
	cfs_stage_free(stage);
	expect_file("runs/a/global_step7/old", 1, 5000);
	ck_assert(!is_there("runs/a/global_step7/new"));
	ns_no_problems(&bed);
}
END_TEST

static void set_mode(const char *path, mode_t mode, uid_t uid)
{
	struct stat st = {.st_mode = mode, .st_uid = uid};

	ck_assert_int_eq(cfs_ns_setattr(bed.ns, ns_ino(&bed, path), &st,
					CFS_SET_MODE | CFS_SET_UID, &st),
			 0);
}

/* What was right when the save began may be wrong at its end. */
START_TEST(run_changed)
{
	struct cfs_stage_options o = rank_options("files");
	uint64_t runs = ns_mkdir(&bed, 1, "runs");
	struct cfs_error err = {""};
	struct cfs_stage *stage;

	(void)ns_mkdir(&bed, runs, "a");
	stage = stage_new(&o);
	stage_file(stage, 0, "mine", 1, 10);
	if (_i) {
		set_mode("runs/a", 0555, 0);
	} else {
		ck_assert_int_eq(cfs_ns_rmdir(bed.ns, runs, "a"), 0);
		(void)ns_mkdir(&bed, runs, "a");
	}
	ck_assert_int_eq(cfs_stage_commit(stage, &err), _i ? -EACCES : -ESTALE);
	ck_assert_msg(strstr(err.text, "runs/a"), "%s", err.text);
	cfs_stage_free(stage);
	ck_assert(is_there("runs/a"));
	ck_assert(!is_there("runs/a/global_step7"));
}
END_TEST

static void make_link(uint64_t dir, const char *name, const char *target)
{
	struct cfs_ns_cred cred = {1000, 1000};
	struct stat st;

	ck_assert_int_eq(cfs_ns_symlink(bed.ns, &cred, dir, name, target, &st),
			 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
}

START_TEST(links)
{
	struct cfs_stage_options o = rank_options("files");
	uint64_t runs = ns_mkdir(&bed, 1, "runs");
	uint64_t run = ns_mkdir(&bed, runs, "b");
	struct cfs_error err = {""};

	make_link(runs, "a", "b");
	ck_assert_int_eq(try(o, &err), -ELOOP);
	ck_assert_msg(strstr(err.text, "runs/a: is a symbolic link"), "%s",
		      err.text);
	o.run = "runs/a/c";
	ck_assert_int_eq(try(o, &err), -ELOOP);
	/* a pointer is a file of the run's own */
	o.run = "runs/b";
	make_link(run, "latest", "/etc/passwd");
	ck_assert_int_eq(try(o, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, "latest is no regular file"), "%s",
		      err.text);
	/* of others nothing is replaced where the sticky bit keeps it */
	o.pointer = "";
	o.step = "global_step8";
	(void)ns_mkdir(&bed, ns_mkdir(&bed, run, "global_step8"), "x");
	o.replace = true;
	set_mode("runs/b", 01777, 0);
	set_mode("runs/b/global_step8", 0755, 1001);
	ck_assert_int_eq(try(o, &err), -EPERM);
	set_mode("runs/b/global_step8", 0755, 1000);
	ck_assert_int_eq(try(o, &err), 0);
}
END_TEST

/* What others can change is no place for what gets a name later. */
START_TEST(trash_of_others)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = NULL;
	struct cfs_error err = {""};

	(void)ns_mkdir(&bed, 1, CFS_NSTREE_TRASH);
	set_mode(CFS_NSTREE_TRASH, _i ? 0720 : 0700, _i ? 0 : geteuid() + 77);
	ck_assert_int_eq(cfs_stage_new(&context, &o, &stage, &err), -EPERM);
	ck_assert_ptr_null(stage);
	ck_assert_msg(strstr(err.text, CFS_NSTREE_TRASH), "%s", err.text);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, CFS_NSTREE_TRASH), 0);
	ck_assert_int_eq(try(o, &err), 0);
}
END_TEST

/* The kernel would never say that it forgets what only the stage looked at. */
START_TEST(nothing_stays_looked_up)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	struct stat st;
	uint64_t ino;

	stage_file(stage, 0, "x/mine", 1, 10);
	stage_commit(stage);
	cfs_stage_free(stage);
	ck_assert_int_eq(cfs_ns_walk(bed.ns, "runs/a/global_step7/x/mine", &st),
			 0);
	ino = st.st_ino;
	ck_assert_int_eq(cfs_nstree_remove(bed.ns, 1, "runs"), 0);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino, &st), -ENOENT);
}
END_TEST

/* The power goes at any record: both names or none, new or old together. */
START_TEST(power_cut)
{
	struct cfs_stage_options o = rank_options("files");
	struct cfs_stage *stage = stage_new(&o);
	size_t from, to;
	bool seen[2] = {false, false};

	stage_file(stage, 0, "n", 1, 300000);
	stage_commit(stage);
	cfs_stage_free(stage);
	o.replace = true;
	if (_i)
		o.step = "global_step8";
	from = cfs_engine_mem_events(bed.bed.engine);
	stage = stage_new(&o);
	stage_file(stage, 0, "n", 2, 400000);
	stage_commit(stage);
	to = cfs_engine_mem_events(bed.bed.engine);
	cfs_stage_free(stage);
	for (size_t i = from; i <= to; i++) {
		struct ns_bed was = bed;
		bool there;

		ns_bed_open(&bed, cfs_engine_mem_after_power_cut(was.bed.engine,
								 i, 0));
		if (_i) {
			there = is_there("runs/a/global_step8");
			expect_text("runs/a/latest",
				    there ? "global_step8" : "global_step7");
			if (there)
				expect_file("runs/a/global_step8/n", 2, 400000);
			expect_file("runs/a/global_step7/n", 1, 300000);
		} else {
			struct stat st;

			ck_assert_int_eq(cfs_ns_walk(bed.ns,
						     "runs/a/global_step7/n",
						     &st),
					 0);
			there = st.st_size == 400000;
			expect_file("runs/a/global_step7/n", there ? 2 : 1,
				    there ? 400000 : 300000);
		}
		seen[there] = true;
		ck_assert_int_eq(cfs_nstree_sweep(bed.ns), 0);
		ns_no_problems(&bed);
		ns_bed_close(&bed);
		bed = was;
	}
	ck_assert(seen[0] && seen[1]);
}
END_TEST

Suite *suite(void);
Suite *suite(void)
{
	Suite *s = suite_create("rank_stage");
	TCase *c = tcase_create("all");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, files_and_objects);
	tcase_add_test(c, replaced);
	tcase_add_test(c, names_that_meet);
	tcase_add_test(c, options_refused);
	tcase_add_test(c, unfinished);
	tcase_add_test(c, name_taken);
	tcase_add_loop_test(c, empty_directory, 0, 2);
	tcase_add_test(c, pinned);
	tcase_add_loop_test(c, run_changed, 0, 2);
	tcase_add_test(c, links);
	tcase_add_loop_test(c, trash_of_others, 0, 2);
	tcase_add_test(c, nothing_stays_looked_up);
	tcase_add_loop_test(c, power_cut, 0, 2);
	suite_add_tcase(s, c);
	return s;
}

TEST_MAIN(suite)
