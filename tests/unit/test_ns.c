/* Names, attributes, extended attributes, listings. */
#include "store/ns/ns.h"

#include <stdio.h>
#include <sys/xattr.h>

#include "tests/unit/ns_bed.h"

static struct ns_bed bed;

static void setup(void)
{
	ns_bed_open(&bed, NULL);
}

static void teardown(void)
{
	ns_no_problems(&bed);
	ns_bed_close(&bed);
}

static void touch(uint64_t dir, const char *name)
{
	cfs_ns_close_file(ns_create(&bed, dir, name));
}

static struct stat stat_of(const char *path)
{
	struct stat st;
	int r = cfs_ns_walk(bed.ns, path, &st);

	ck_assert_msg(r == 0, "%s: %d", path, r);
	return st;
}

static int walk(const char *path)
{
	struct stat st;

	return cfs_ns_walk(bed.ns, path, &st);
}

static int do_rename(uint64_t a, const char *from, uint64_t b, const char *to)
{
	return cfs_ns_rename(bed.ns, a, from, b, to, 0);
}

START_TEST(names)
{
	uint64_t a = ns_mkdir(&bed, 1, "a"), b = ns_mkdir(&bed, a, "b=c%.");
	char longest[257];
	struct stat st;
	struct cfs_buf path = CFS_BUF_INIT;

	memset(longest, 'n', 256);
	longest[256] = '\0';
	ck_assert_int_eq(cfs_ns_mkdir(bed.ns, &ns_cred, 1, longest, 0755, &st),
			 -ENAMETOOLONG);
	ck_assert_int_eq(cfs_ns_lookup(bed.ns, 1, longest, &st), -ENAMETOOLONG);
	longest[255] = '\0';
	touch(b, longest);
	ck_assert_int_eq(cfs_ns_lookup(bed.ns, b, longest, &st), 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	ck_assert_int_eq(cfs_ns_lookup(bed.ns, b, "..", &st), 0);
	ck_assert_uint_eq(st.st_ino, a);
	cfs_ns_forget(bed.ns, a, 1);
	ck_assert_int_eq(cfs_ns_mkdir(bed.ns, &ns_cred, 1, "a", 0755, &st),
			 -EEXIST);
	ck_assert_int_eq(
		cfs_ns_mkdir(bed.ns, &ns_cred, st.st_ino + 99, "x", 0755, &st),
		-ENOENT);
	ck_assert_int_eq(
		cfs_ns_lookup(bed.ns, stat_of("a/b=c%.").st_ino, "no", &st),
		-ENOENT);
	ck_assert_int_eq(cfs_ns_path(bed.ns, b, &path), 0);
	ck_assert_str_eq(cfs_buf_str(&path), "a/b=c%.");
	cfs_buf_free(&path);
	ck_assert_uint_eq(stat_of("").st_nlink, 3);
	ck_assert_uint_eq(stat_of("a").st_nlink, 3);
	touch(1, "file");
	ck_assert_int_eq(walk("file/x"), -ENOTDIR);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "file"), -ENOTDIR);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "a"), -EISDIR);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "a"), -ENOTEMPTY);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "."), -EINVAL);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, b, longest), 0);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, a, "b=c%."), 0);
	ck_assert_uint_eq(stat_of("a").st_nlink, 2);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "a"), 0);
	ck_assert_int_eq(walk("a"), -ENOENT);
}
END_TEST

/* A directory that was removed but is still known takes no new names. */
START_TEST(removed_directory)
{
	struct stat st;
	uint64_t dir;

	ck_assert_int_eq(cfs_ns_mkdir(bed.ns, &ns_cred, 1, "d", 0755, &st), 0);
	dir = st.st_ino;
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "d"), 0);
	ck_assert_int_eq(cfs_ns_mkdir(bed.ns, &ns_cred, dir, "x", 0755, &st),
			 -ENOENT);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, dir, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	cfs_ns_forget(bed.ns, dir, 1);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, dir, &st), -ENOENT);
}
END_TEST

START_TEST(renames)
{
	uint64_t a = ns_mkdir(&bed, 1, "a"), b = ns_mkdir(&bed, 1, "b");
	uint64_t sub = ns_mkdir(&bed, a, "sub");
	struct stat before, after;

	touch(1, "f");
	touch(b, "g");
	before = stat_of("f");
	ck_assert_int_eq(do_rename(1, "a", sub, "x"), -EINVAL);
	ck_assert_int_eq(do_rename(1, "a", a, "x"), -EINVAL);
	ck_assert_int_eq(do_rename(1, "f", 1, "a"), -EISDIR);
	ck_assert_int_eq(do_rename(1, "a", 1, "f"), -ENOTDIR);
	ck_assert_int_eq(do_rename(1, "a", 1, "b"), -ENOTEMPTY);
	ck_assert_int_eq(do_rename(1, "none", 1, "b"), -ENOENT);
	ck_assert_int_eq(
		cfs_ns_rename(bed.ns, 1, "f", b, "g", RENAME_NOREPLACE),
		-EEXIST);
	ck_assert_int_eq(do_rename(1, "f", b, "g"), 0);
	after = stat_of("b/g");
	ck_assert_uint_eq(after.st_ino, before.st_ino);
	ck_assert_int_eq(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	ck_assert_int_ne(after.st_ctim.tv_nsec, before.st_ctim.tv_nsec);
	ck_assert_int_eq(walk("f"), -ENOENT);
	/* a whole directory, with what is in it; link counts follow */
	ck_assert_int_eq(do_rename(a, "sub", b, "sub"), 0);
	ck_assert_uint_eq(stat_of("a").st_nlink, 2);
	ck_assert_uint_eq(stat_of("b").st_nlink, 3);
	ck_assert_int_eq(do_rename(1, "b", 1, "a"), 0); /* over an empty one */
	ck_assert_uint_eq(stat_of("a").st_nlink, 3);
	ck_assert_uint_eq(stat_of("").st_nlink, 3);
	ck_assert_int_eq(walk("a/sub"), 0);
	touch(1, "h");
	ck_assert_int_eq(cfs_ns_rename(bed.ns, 1, "h", stat_of("a").st_ino,
				       "sub", RENAME_EXCHANGE),
			 0);
	ck_assert(S_ISDIR(stat_of("h").st_mode));
	ck_assert(S_ISREG(stat_of("a/sub").st_mode));
	ck_assert_uint_eq(stat_of("a").st_nlink, 2);
	ck_assert_uint_eq(stat_of("").st_nlink, 4);
	ck_assert_int_eq(
		cfs_ns_rename(bed.ns, 1, "h", 1, "none", RENAME_EXCHANGE),
		-ENOENT);
	ck_assert_int_eq(cfs_ns_rename(bed.ns, 1, "h", 1, "x", 64), -EINVAL);
	ns_bed_reopen(&bed);
	ck_assert_uint_eq(stat_of("a/g").st_ino, before.st_ino);
}
END_TEST

START_TEST(links)
{
	uint64_t d = ns_mkdir(&bed, 1, "d");
	struct stat st, again;
	struct cfs_buf target = CFS_BUF_INIT;
	char name[300];

	touch(1, "f");
	st = stat_of("f");
	ck_assert_int_eq(cfs_ns_link(bed.ns, st.st_ino, d, "g", &again), 0);
	cfs_ns_forget(bed.ns, again.st_ino, 1);
	ck_assert_uint_eq(again.st_nlink, 2);
	ck_assert_uint_eq(again.st_ino, st.st_ino);
	ck_assert_int_eq(cfs_ns_link(bed.ns, st.st_ino, d, "g", &again),
			 -EEXIST);
	ck_assert_int_eq(cfs_ns_link(bed.ns, d, 1, "e", &again), -EPERM);
	/* renaming one name over the other changes nothing */
	ck_assert_int_eq(do_rename(1, "f", d, "g"), 0);
	ck_assert_int_eq(walk("f"), 0);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	ck_assert_uint_eq(stat_of("d/g").st_nlink, 1);

	memset(name, 't', 299);
	name[299] = '\0';
	ck_assert_int_eq(cfs_ns_symlink(bed.ns, &ns_cred, d, "s", name, &st),
			 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	ck_assert_int_eq(st.st_size, 299);
	st.st_mode = 0600;
	ck_assert_int_eq(
		cfs_ns_setattr(bed.ns, st.st_ino, &st, CFS_SET_MTIME, &st), 0);
	ns_bed_reopen(&bed);
	ck_assert_int_eq(
		cfs_ns_readlink(bed.ns, stat_of("d/s").st_ino, &target), 0);
	ck_assert_str_eq(cfs_buf_str(&target), name);
	cfs_buf_free(&target);
	ck_assert_int_eq(cfs_ns_readlink(bed.ns, d, &target), -EINVAL);
}
END_TEST

START_TEST(special_inodes)
{
	struct stat st;

	ck_assert_int_eq(cfs_ns_mknod(bed.ns, &ns_cred, 1, "fifo",
				      S_IFIFO | 0640, 0, &st),
			 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	ck_assert_int_eq(cfs_ns_mknod(bed.ns, &ns_cred, 1, "dev",
				      S_IFCHR | 0600, 0x103, &st),
			 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	ns_bed_reopen(&bed);
	st = stat_of("dev");
	ck_assert(S_ISCHR(st.st_mode));
	ck_assert_uint_eq(st.st_rdev, 0x103);
	ck_assert_uint_eq(stat_of("fifo").st_mode, S_IFIFO | 0640);
}
END_TEST

static void set(const char *path, const struct stat *st, unsigned what)
{
	struct stat out;

	ck_assert_int_eq(
		cfs_ns_setattr(bed.ns, stat_of(path).st_ino, st, what, &out),
		0);
}

START_TEST(attributes)
{
	struct stat st = {.st_mode = 06755}, a, b;
	uint64_t d;

	touch(1, "f");
	a = stat_of("f");
	ck_assert_uint_eq(a.st_uid, 1000);
	ck_assert_uint_eq(a.st_mode, S_IFREG | 0644);
	set("f", &st, CFS_SET_MODE);
	st.st_uid = 5;
	set("f", &st, CFS_SET_UID); /* powers are for the old owner */
	b = stat_of("f");
	ck_assert_uint_eq(b.st_mode, S_IFREG | 0755);
	ck_assert_uint_eq(b.st_uid, 5);
	ck_assert_uint_eq(b.st_gid, 1000);
	ck_assert_int_eq(b.st_mtim.tv_nsec, a.st_mtim.tv_nsec);
	ck_assert_int_ne(b.st_ctim.tv_nsec, a.st_ctim.tv_nsec);
	st.st_atim = (struct timespec){100, 123456789};
	st.st_mtim = (struct timespec){-5, 999999999};
	set("f", &st, CFS_SET_ATIME | CFS_SET_MTIME);
	ns_bed_reopen(&bed);
	b = stat_of("f");
	ck_assert_int_eq(b.st_atim.tv_nsec, 123456789);
	ck_assert_int_eq(b.st_mtim.tv_sec, -5);
	ck_assert_int_eq(b.st_mtim.tv_nsec, 999999999);
	ck_assert_uint_eq(b.st_ino, a.st_ino);

	/* setgid directories hand their group on */
	d = ns_mkdir(&bed, 1, "d");
	st.st_mode = 02775;
	st.st_gid = 77;
	set("d", &st, CFS_SET_MODE | CFS_SET_GID);
	touch(d, "f");
	(void)ns_mkdir(&bed, d, "sub");
	ck_assert_uint_eq(stat_of("d/f").st_gid, 77);
	ck_assert_uint_eq(stat_of("d/sub").st_gid, 77);
	ck_assert_uint_eq(stat_of("d/sub").st_mode, S_IFDIR | 02755);
	ck_assert_int_eq(cfs_ns_setattr(bed.ns, d, &st, CFS_SET_SIZE, &a),
			 -EISDIR);
}
END_TEST

START_TEST(xattrs)
{
	uint64_t ino;
	char buf[100];
	uint8_t *big = bed_bytes(3, 70000);

	touch(1, "f");
	ino = stat_of("f").st_ino;
	ck_assert_int_eq(cfs_ns_getxattr(bed.ns, ino, "user.a", buf, 100),
			 -ENODATA);
	ck_assert_int_eq(cfs_ns_listxattr(bed.ns, ino, buf, 100), 0);
	ck_assert_int_eq(
		cfs_ns_setxattr(bed.ns, ino, "user.a", "one", 3, XATTR_REPLACE),
		-ENODATA);
	ck_assert_int_eq(
		cfs_ns_setxattr(bed.ns, ino, "user.a", "one", 3, XATTR_CREATE),
		0);
	ck_assert_int_eq(
		cfs_ns_setxattr(bed.ns, ino, "user.a", "two", 3, XATTR_CREATE),
		-EEXIST);
	ck_assert_int_eq(cfs_ns_setxattr(bed.ns, ino, "user.b", "", 0, 0), 0);
	ck_assert_int_eq(cfs_ns_setxattr(bed.ns, ino, "user.c", big, 65536, 0),
			 0);
	ck_assert_int_eq(cfs_ns_setxattr(bed.ns, ino, "user.d", big, 65537, 0),
			 -E2BIG);
	ns_bed_reopen(&bed);
	ck_assert_int_eq(cfs_ns_getxattr(bed.ns, ino, "user.a", NULL, 0), 3);
	ck_assert_int_eq(cfs_ns_getxattr(bed.ns, ino, "user.a", buf, 2),
			 -ERANGE);
	ck_assert_int_eq(cfs_ns_getxattr(bed.ns, ino, "user.a", buf, 100), 3);
	ck_assert_mem_eq(buf, "one", 3);
	ck_assert_int_eq(cfs_ns_getxattr(bed.ns, ino, "user.c", NULL, 0),
			 65536);
	ck_assert_int_eq(cfs_ns_listxattr(bed.ns, ino, NULL, 0), 21);
	ck_assert_int_eq(cfs_ns_listxattr(bed.ns, ino, buf, 20), -ERANGE);
	ck_assert_int_eq(cfs_ns_listxattr(bed.ns, ino, buf, 21), 21);
	ck_assert_mem_eq(buf, "user.a\0user.b\0user.c\0", 21);
	ck_assert_int_eq(cfs_ns_removexattr(bed.ns, ino, "user.a"), 0);
	ck_assert_int_eq(cfs_ns_removexattr(bed.ns, ino, "user.a"), -ENODATA);
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	free(big);
}
END_TEST

/* ---- listings ---- */

struct listing {
	uint64_t cookie;
	unsigned n, stop_after, dots;
	bool seen[10000];
};

static int on_name(void *arg, const char *name, const struct stat *st,
		   uint64_t cookie)
{
	struct listing *l = arg;
	unsigned i;

	if (!l->stop_after)
		return 1;
	l->stop_after--;
	ck_assert_uint_gt(cookie, l->cookie);
	l->cookie = cookie;
	ck_assert_uint_ne(st->st_ino, 0);
	if (name[0] == '.') {
		l->dots++;
		return 0;
	}
	ck_assert_int_eq(sscanf(name, "n%u", &i), 1);
	ck_assert_uint_lt(i, 10000);
	ck_assert(!l->seen[i]);
	l->seen[i] = true;
	l->n++;
	return 0;
}

static bool list_some(struct listing *l, uint64_t dir, unsigned n)
{
	l->stop_after = n;
	ck_assert_int_eq(
		cfs_ns_readdir(bed.ns, dir, l->cookie, false, on_name, l), 0);
	return !l->stop_after;
}

static void name_in(char *text, unsigned i)
{
	(void)snprintf(text, 16, "n%u", i);
}

START_TEST(ten_thousand_names)
{
	static struct listing l;
	uint64_t dir = ns_mkdir(&bed, 1, "d");
	char text[16];
	struct stat st;

	for (unsigned i = 0; i < 10000; i++) {
		name_in(text, i);
		ck_assert_int_eq(cfs_ns_mknod(bed.ns, &ns_cred, dir, text,
					      S_IFREG | 0644, 0, &st),
				 0);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
		if (i == 5000)
			ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	}
	/* removing what was listed, as rm -r does, disturbs nothing */
	for (unsigned gone = 0; list_some(&l, dir, 777);) {
		for (; gone < l.n; gone++) {
			name_in(text, gone);
			ck_assert_int_eq(cfs_ns_unlink(bed.ns, dir, text), 0);
		}
	}
	ck_assert_uint_eq(l.n, 10000);
	ck_assert_uint_eq(l.dots, 2);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "d"), -ENOTEMPTY);
	for (unsigned i = 8000; i < 10000; i++) {
		name_in(text, i);
		(void)!cfs_ns_unlink(bed.ns, dir, text);
	}
	ck_assert_int_eq(cfs_ns_rmdir(bed.ns, 1, "d"), 0);
}
END_TEST

static int count_full(void *arg, const char *name, const struct stat *st,
		      uint64_t cookie)
{
	unsigned *n = arg;

	(void)cookie;
	if (name[0] == '.')
		return 0;
	if (*n == 3)
		return 1;
	++*n;
	ck_assert_uint_eq(st->st_mode, S_IFREG | 0644);
	return 0;
}

/* With all attributes, what was given out counts as looked up. */
START_TEST(full_listing)
{
	uint64_t ino[5];
	struct stat st;
	unsigned n = 0;

	for (unsigned i = 0; i < 5; i++) {
		char text[16];

		name_in(text, i);
		touch(1, text);
		ino[i] = stat_of(text).st_ino;
	}
	ck_assert_int_eq(cfs_ns_readdir(bed.ns, 1, 0, true, count_full, &n), 0);
	ck_assert_uint_eq(n, 3);
	for (unsigned i = 0; i < 5; i++) {
		char text[16];

		name_in(text, i);
		ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, text), 0);
	}
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino[i], &st),
				 i < 3 ? 0 : -ENOENT);
	for (unsigned i = 0; i < 3; i++)
		cfs_ns_forget(bed.ns, ino[i], 1);
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	ck_assert_int_eq(cfs_ns_getattr(bed.ns, ino[0], &st), -ENOENT);
}
END_TEST

START_TEST(numbers_stay)
{
	struct stat a, b;

	touch(1, "f");
	a = stat_of("f");
	ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
	for (unsigned i = 0; i < 3; i++) {
		ns_bed_reopen(&bed);
		touch(1, "f");
		b = stat_of("f");
		ck_assert_uint_gt(b.st_ino, a.st_ino);
		ck_assert_int_eq(cfs_ns_unlink(bed.ns, 1, "f"), 0);
		a = b;
	}
}
END_TEST

/* In whatever way @name comes to be there. */
static void make(unsigned way, const char *name)
{
	struct stat st;
	int r;

	if (way == 0) {
		touch(1, name);
		return;
	}
	if (way == 1)
		r = cfs_ns_mkdir(bed.ns, &ns_cred, 1, name, 0755, &st);
	else if (way == 2)
		r = cfs_ns_symlink(bed.ns, &ns_cred, 1, name, "to", &st);
	else if (way == 3)
		r = cfs_ns_link(bed.ns, ns_ino(&bed, "one"), 1, name, &st);
	else
		r = cfs_ns_mknod(bed.ns, &ns_cred, 1, name, S_IFIFO | 0600, 0,
				 &st);
	ck_assert_int_eq(r, 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
}

/* Looked for in vain, then there, then not: each time as it is. */
START_TEST(absent_names)
{
	struct cfs_ns_file *f;
	uint64_t dir = ns_mkdir(&bed, 1, "dir");
	struct stat st;
	char name[16];

	touch(1, "one");
	for (unsigned i = 0; i < 300; i++) {
		unsigned way = i % 6;

		(void)snprintf(name, sizeof(name), "n%u", i);
		ck_assert_int_eq(cfs_ns_lookup(bed.ns, 1, name, &st), -ENOENT);
		ck_assert_int_eq(cfs_ns_lookup(bed.ns, dir, name, &st),
				 -ENOENT);
		if (way < 5) {
			make(way, name);
		} else {
			touch(1, "from");
			ck_assert_int_eq(do_rename(1, "from", 1, name), 0);
		}
		ck_assert_int_eq(cfs_ns_create(bed.ns, &ns_cred, 1, name, 0644,
					       O_RDWR, &st, &f),
				 -EEXIST);
		ck_assert_int_eq(
			cfs_ns_mkdir(bed.ns, &ns_cred, 1, name, 0755, &st),
			-EEXIST);
		ck_assert_int_eq(cfs_ns_lookup(bed.ns, 1, name, &st), 0);
		cfs_ns_forget(bed.ns, st.st_ino, 1);
		ck_assert_int_eq(cfs_ns_lookup(bed.ns, dir, name, &st),
				 -ENOENT);
		ck_assert_int_eq(way == 1 ? cfs_ns_rmdir(bed.ns, 1, name)
					  : cfs_ns_unlink(bed.ns, 1, name),
				 0);
		ck_assert_int_eq(cfs_ns_lookup(bed.ns, 1, name, &st), -ENOENT);
		touch(1, name);
		touch(dir, name);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns");
	TCase *t = tcase_create("names");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, names);
	tcase_add_test(t, removed_directory);
	tcase_add_test(t, renames);
	tcase_add_test(t, absent_names);
	tcase_add_test(t, links);
	tcase_add_test(t, special_inodes);
	tcase_add_test(t, attributes);
	tcase_add_test(t, xattrs);
	tcase_add_test(t, ten_thousand_names);
	tcase_add_test(t, full_listing);
	tcase_add_test(t, numbers_stay);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
