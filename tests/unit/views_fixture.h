/* A directory of fake steps and its views: what test_views*.c start from. */
#ifndef CFS_UNIT_VIEWS_FIXTURE_H
#define CFS_UNIT_VIEWS_FIXTURE_H

#include "fs/view/view.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/log.h"
#include "tests/fake_format.h"
#include "tests/test.h"

static char top[] = "/tmp/cfs-views-XXXXXX";
static int dir_fd = -1;
static struct cfs_source *source;
static struct cfs_views *views;
static struct cfs_vnode *root;
static char logged[8192];
static unsigned n_logged;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(enum cfs_log_level level, const char *line)
{
	size_t len;

	(void)level;
	pthread_mutex_lock(&log_lock);
	len = strlen(logged);
	snprintf(logged + len, sizeof(logged) - len, "%s\n", line);
	n_logged++;
	pthread_mutex_unlock(&log_lock);
}

static void make_parents(const char *path)
{
	char part[512];
	const char *slash = path;

	while ((slash = strchr(slash, '/'))) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		ck_assert(!mkdirat(dir_fd, part, 0755) || errno == EEXIST);
		slash++;
	}
}

static void write_to(const char *path, const char *text, int flags)
{
	int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | flags, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(close(fd), 0);
}

/* As trainers do: another file renamed over. */
static void put(const char *path, const char *text)
{
	make_parents(path);
	write_to("new~", text, O_CREAT | O_TRUNC);
	ck_assert_int_eq(renameat(dir_fd, "new~", dir_fd, path), 0);
}

static void take_away(const char *path)
{
	ck_assert_int_eq(unlinkat(dir_fd, path, 0), 0);
}

static void close_views(void)
{
	cfs_vnode_unref(root);
	root = NULL;
	cfs_views_close(views);
	views = NULL;
}

static void open_views(const char *view)
{
	struct cfs_views_options options = {.view = view, .forget_trees = true};

	ck_assert_int_eq(cfs_views_open(source, &options, &views, NULL), 0);
	root = cfs_views_root(views);
}

static void put_step(const char *name, const char *a, const char *b)
{
	char path[256];

	snprintf(path, sizeof(path), "run/%s/shard_0_of_2.bin", name);
	put(path, a);
	snprintf(path, sizeof(path), "run/%s/shard_1_of_2.bin", name);
	put(path, b);
}

static void set_up(void)
{
	cfs_log_set_sink(keep_line, CFS_LOG_INFO);
	logged[0] = '\0';
	n_logged = 0;
	strcpy(top + strlen(top) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(top));
	dir_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dir_fd, 0);
	ck_assert_int_eq(cfs_source_dir_open(top, &source), 0);
	put_step("step1", "abcd", "efgh");
	put_step("step2", "ABCD", "EFGH");
	put("run/step2/zero_to_fp32.py", "print()");
	put("run/latest", "step2");
	put("run/log.txt", "epoch 1");
	put("plain/file", "x");
	atomic_store(&cfs_fake_reads, 0);
	atomic_store(&cfs_fake_writes, 0);
	atomic_store(&cfs_fake_builds, 0);
	open_views(NULL);
}

static void tear_down(void)
{
	char command[64];

	close_views();
	cfs_source_free(source);
	cfs_log_set_sink(NULL, CFS_LOG_ERR);
	ck_assert_int_eq(close(dir_fd), 0);
	snprintf(command, sizeof(command), "rm -rf %s", top);
	ck_assert_int_eq(system(command), 0);
}

static struct cfs_vnode *at(const char *path)
{
	struct cfs_vnode *node = NULL;
	int r = cfs_vnode_walk(root, path, &node, NULL);

	ck_assert_msg(!r, "%s: %s", path, strerror(-r));
	return node;
}

static int error_at(const char *path, struct cfs_error *err)
{
	struct cfs_vnode *node = NULL;
	struct cfs_error unused = {.text = ""};
	int r = cfs_vnode_walk(root, path, &node, err ? err : &unused);

	cfs_vnode_unref(node);
	return r;
}

static int read_node(struct cfs_vnode *node, char *buf, size_t size)
{
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *handle = NULL;
	ssize_t n;
	int r;

	r = cfs_vnode_open(node, &handle, NULL);
	if (r < 0)
		return r;
	n = cfs_vhandle_pread(handle, buf, size - 1, 0);
	if (n < 0)
		return (int)n;
	buf[n] = '\0';
	return 0;
}

static void expect_text(const char *path, const char *text)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = at(path);
	struct stat st;
	char buf[256];

	ck_assert_int_eq(read_node(node, buf, sizeof(buf)), 0);
	ck_assert_str_eq(buf, text);
	ck_assert_int_eq(cfs_vnode_stat(node, &st, NULL), 0);
	ck_assert_uint_eq((uint64_t)st.st_size, strlen(text));
	ck_assert(S_ISREG(st.st_mode));
}

static uint64_t ino_of(const char *path)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = at(path);
	struct stat st;

	ck_assert_int_eq(cfs_vnode_stat(node, &st, NULL), 0);
	return st.st_ino;
}

/* "name name …", sorted; names whose number is unknown have a '?'. */
static int add_name(void *arg, const char *name, const struct stat *st)
{
	struct cfs_buf *names = arg;

	cfs_buf_printf(names, "%s%s ", name, st->st_ino ? "" : "?");
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void expect_names(const char *path, const char *names)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = at(path);
	_cleanup_(cfs_buf_free) struct cfs_buf got = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf sorted = CFS_BUF_INIT;
	_cleanup_(cfs_freep) char *copy = NULL;
	char *list[64], *rest = NULL, *name;
	size_t n = 0, i;

	ck_assert_int_eq(cfs_vnode_readdir(node, add_name, &got), 0);
	copy = strdup(cfs_buf_str(&got));
	for (name = strtok_r(copy, " ", &rest); name;
	     name = strtok_r(NULL, " ", &rest))
		list[n++] = name;
	qsort(list, n, sizeof(*list), by_text);
	for (i = 0; i < n; i++)
		cfs_buf_printf(&sorted, "%s%s", i ? " " : "", list[i]);
	ck_assert_str_eq(cfs_buf_str(&sorted), names);
}

#endif
