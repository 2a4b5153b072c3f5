/* A store in a directory: opening it, its configuration, lock and index. */
#include <ftw.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/core_bed.h"

static char dir[64], store_dir[80];

static void make_dir(void)
{
	strcpy(dir, "/tmp/cfs_store_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(store_dir, sizeof(store_dir), "%s/s", dir);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_dir(void)
{
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void replace_in_config(const char *from, const char *to)
{
	char path[128], text[4096], out[4200], *at;
	size_t len;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/ckptfs.json", store_dir);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	text[len] = '\0';
	(void)fclose(f);
	at = strstr(text, from);
	ck_assert_ptr_nonnull(at);
	(void)snprintf(out, sizeof(out), "%.*s%s%s", (int)(at - text), text, to,
		       at + strlen(from));
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(out, 1, strlen(out), f), strlen(out));
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(keeps_what_was_stored)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	int i;

	ck_assert_int_eq(cfs_store_probe(store_dir), 0);
	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), -EEXIST);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	for (i = 0; i < 3; i++) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		ck_assert(!cfs_store_was_unclean(b.store));
		ck_assert_uint_eq(cfs_store_config(b.store)->sync_seconds, 5);
		ck_assert_uint_gt(cfs_store_config(b.store)->n_markers, 5);
		ck_assert_str_eq(bed_get(&b, "a"), i ? "1" : "");
		if (i == 0) {
			bed_store_chunk(&b, 1, 300000, &d);
			bed_set(&b, "a", "1");
		}
		ck_assert_int_eq(bed_check_chunk(&b, 1, 300000, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
	}
}
END_TEST

/* Opening only to look must not write. */
START_TEST(looking_writes_nothing)
{
	struct cfs_store_facts before, after;
	struct cfs_error err = {""};
	struct bed b = {0};

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &before), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &after), 0);
	ck_assert_uint_eq(before.packs, after.packs);
	ck_assert_uint_eq(before.groups, after.groups);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static uint64_t room_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* A killed process leaves room set aside: the next one gives it back. */
START_TEST(room_of_the_killed)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	char path[128];
	int status;
	pid_t pid;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (cfs_store_open(store_dir, &bed_options, &b.store, &err) < 0)
			_exit(1);
		bed_store_chunk(&b, 4, 10000, &d);
		_exit(cfs_store_commit(b.store) < 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	(void)snprintf(path, sizeof(path), "%s/packs/0000/00000001.pack",
		       store_dir);
	/* else this filesystem sets nothing aside */
	if (room_of(path) >= bed_options.pack_bytes) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		bed_store_chunk(&b, 6, 10000, &d);
		ck_assert_uint_lt(room_of(path), bed_options.pack_bytes / 4);
		ck_assert_int_eq(bed_check_chunk(&b, 6, 10000, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
	}
}
END_TEST

START_TEST(two_opens_are_refused)
{
	struct cfs_store *one = NULL, *two = NULL;
	struct cfs_error err = {""};
	char pid[64], path[128];

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &one, &err),
			 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	(void)snprintf(pid, sizeof(pid), "in use by process %ld",
		       (long)getpid());
	ck_assert_msg(strstr(err.text, pid), "%s", err.text);
	ck_assert_int_eq(cfs_store_set_mount(one, "/mnt/here"), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	ck_assert_msg(strstr(err.text, "(mounted at /mnt/here)"), "%s",
		      err.text);
	/* deleting the file does not let a second one in */
	(void)snprintf(path, sizeof(path), "%s/lock", store_dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	ck_assert_msg(strstr(err.text, "in use by another process"), "%s",
		      err.text);
	ck_assert_int_eq(cfs_store_close(one), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 0);
	ck_assert_int_eq(cfs_store_close(two), 0);
}
END_TEST

START_TEST(newer_stores_are_refused)
{
	struct cfs_error err = {""};
	struct cfs_store *s = NULL;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	replace_in_config("[]", "[\"warp\"]");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err),
			 -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.text, "warp"), "%s", err.text);
	replace_in_config("[\"warp\"]", "[]");
	replace_in_config("\"version\":\t1", "\"version\":\t2");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err),
			 -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.text, "version 2"), "%s", err.text);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	replace_in_config("\"version\":\t2", "\"version\":\t1, \"new\": [3]");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err), 0);
	ck_assert_int_eq(cfs_store_close(s), 0);
}
END_TEST

/* Not "no store": whoever said that would show or overwrite its packs. */
START_TEST(a_damaged_config_is_named)
{
	static const char *const damages[][2] = {
		{"\"format\"", "\"fornat\""},
		{"ckptfs store", "ckptfs stare"},
		{"\"version\":\t1", "\"version\":\t0"},
		{"\"uuid\":\t\"", "\"uuid\":\t\"x"},
		{"{", "("},
	};
	struct cfs_store *s = NULL;
	struct cfs_error err = {""};
	char path[128];

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(damages); i++) {
		replace_in_config(damages[i][0], damages[i][1]);
		ck_assert_int_eq(cfs_store_probe(store_dir), 1);
		err.text[0] = '\0';
		ck_assert_int_eq(
			cfs_store_open(store_dir, &bed_options, &s, &err),
			-EBADMSG);
		ck_assert_msg(strstr(err.text, store_dir) &&
				      strstr(err.text, "ckptfs.json") &&
				      strstr(err.text, "put it back"),
			      "%s", err.text);
		ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err),
				 -EEXIST);
		replace_in_config(damages[i][1], damages[i][0]);
	}
	(void)snprintf(path, sizeof(path), "%s/ckptfs.json", store_dir);
	ck_assert_int_eq(truncate(path, 0), 0);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(cfs_store_probe(store_dir), 0);
}
END_TEST

/* Who may not look is told so; a directory that only lets through is passed. */
START_TEST(what_may_not_be_read_is_told)
{
	struct cfs_error err = {""};
	pid_t pid;
	int st;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(chmod(dir, 0711), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (!geteuid() && seteuid(65534) < 0)
			_exit(1);
		if (cfs_store_probe(dir) != 0)
			_exit(2);
		_exit(cfs_store_probe(store_dir) == (getuid() ? 1 : -EACCES)
			      ? 0
			      : 3);
	}
	ck_assert_int_eq(waitpid(pid, &st, 0), pid);
	ck_assert_int_eq(st, 0);
}
END_TEST

START_TEST(a_deleted_or_damaged_index_is_rebuilt)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	char path[128];
	FILE *f;
	int i;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	for (i = 0; i < 3; i++) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		if (i == 0) {
			bed_set(&b, "a", "1");
			bed_store_chunk(&b, 4, 99999, &d);
		}
		ck_assert_str_eq(bed_get(&b, "a"), "1");
		ck_assert_int_eq(bed_check_chunk(&b, 4, 99999, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
		if (i == 0) {
			(void)snprintf(path, sizeof(path), "%s/index",
				       store_dir);
			ck_assert_int_eq(nftw(path, remove_one, 16,
					      FTW_DEPTH | FTW_PHYS),
					 0);
		} else if (i == 1) {
			(void)snprintf(path, sizeof(path), "%s/index/CURRENT",
				       store_dir);
			f = fopen(path, "w");
			ck_assert_ptr_nonnull(f);
			(void)fputs("nonsense\n", f);
			ck_assert_int_eq(fclose(f), 0);
		}
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("store_dir");
	TCase *t = tcase_create("store_dir");

	tcase_add_checked_fixture(t, make_dir, remove_dir);
	tcase_add_test(t, keeps_what_was_stored);
	tcase_add_test(t, looking_writes_nothing);
	tcase_add_test(t, room_of_the_killed);
	tcase_add_test(t, two_opens_are_refused);
	tcase_add_test(t, newer_stores_are_refused);
	tcase_add_test(t, a_damaged_config_is_named);
	tcase_add_test(t, what_may_not_be_read_is_told);
	tcase_add_test(t, a_deleted_or_damaged_index_is_rebuilt);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
