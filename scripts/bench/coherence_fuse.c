/*
 * coherence_fuse - a flat passthrough server, to try policies of coherence
 *
 * Shows the regular files of one directory that others change underneath.
 * What a server may choose is an option: the timeouts, when the page cache
 * is kept, what a node stands for, and whether reads are checked. coherence.py
 * asks which choices can show a mixture of old and new bytes.
 */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	MAX_NODES = 1 << 16,
	NAME_LEN = 64,
	MAX_IO = 1 << 20
};

static struct options {
	char *source, *keep, *node;
	double attr_timeout, entry_timeout;
	int check, notify, auto_inval, settle, direct;
} opt = {.keep = NULL, .node = NULL};

#define OPT(templ, field, value)                                               \
	{                                                                      \
		templ, offsetof(struct options, field), value                  \
	}
static const struct fuse_opt opt_spec[] = {
	OPT("--source=%s", source, 0),
	OPT("--keep=%s", keep, 0), /* always never unchanged */
	OPT("--node=%s", node, 0), /* inode version */
	OPT("--attr-timeout=%lf", attr_timeout, 0),
	OPT("--entry-timeout=%lf", entry_timeout, 0),
	OPT("--check", check, 1),   /* compare after each read: ESTALE */
	OPT("--notify", notify, 1), /* invalidate on a changed open */
	OPT("--auto-inval", auto_inval, 1),
	OPT("--settle", settle, 1), /* wait out the clock tick of ctime */
	OPT("--direct", direct, 1),
	FUSE_OPT_END,
};

/* A file (dev, ino), or with --node=version one content of it. */
struct node {
	char name[NAME_LEN];
	struct stat st;	    /* at the last look-up; fixed for a version */
	struct stat opened; /* at the last open; st_ino 0: none yet */
};

struct handle {
	int fd;
	struct stat st;
};

static struct node nodes[MAX_NODES]; /* guarded by lock; never removed */
static size_t n_nodes = 2;	     /* node numbers are indices */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int dir_fd = -1;
static struct fuse_session *session;

static bool is(const char *s, const char *name)
{
	return s && !strcmp(s, name);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/*
 * Same content? An unlink or a new hard link moves ctime and says so in
 * nlink; any other move of ctime may be a write with mtime put back.
 */
static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size && same_time(a->st_mtim, b->st_mtim) &&
	       (same_time(a->st_ctim, b->st_ctim) ||
		a->st_nlink != b->st_nlink);
}

/* After this, a later write cannot leave ctime as it is. */
static void settle(int fd, struct stat *st)
{
	struct timespec now, nap = {0, 4000000};

	for (int i = 0; opt.settle && i < 50; i++) {
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
		if (now.tv_sec - st->st_ctim.tv_sec > 1 ||
		    (now.tv_sec - st->st_ctim.tv_sec) * 1000000000L +
				    (now.tv_nsec - st->st_ctim.tv_nsec) >
			    12000000)
			return;
		nanosleep(&nap, NULL);
		if (fstat(fd, st) < 0)
			return;
	}
}

static size_t find_node(const char *name, const struct stat *st)
{
	size_t i;

	pthread_mutex_lock(&lock);
	for (i = 2; i < n_nodes; i++) {
		const struct stat *o = &nodes[i].st;

		if (is(opt.node, "version") ? same(o, st)
					    : o->st_ino == st->st_ino &&
						      o->st_dev == st->st_dev)
			break;
	}
	if (i == n_nodes) {
		if (n_nodes == MAX_NODES)
			abort();
		n_nodes++;
	}
	nodes[i].st = *st;
	snprintf(nodes[i].name, NAME_LEN, "%s", name);
	pthread_mutex_unlock(&lock);
	return i;
}

static void on_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->max_write = MAX_IO;
	conn->max_readahead = MAX_IO;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	if (opt.auto_inval)
		conn->want |= FUSE_CAP_AUTO_INVAL_DATA;
	else
		conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
}

static int stat_at(const char *name, struct stat *st)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int r = fd < 0 || fstat(fd, st) < 0 ? -errno : 0;

	if (r == 0)
		settle(fd, st);
	if (fd >= 0)
		close(fd);
	return r;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.attr_timeout = opt.attr_timeout,
				     .entry_timeout = opt.entry_timeout};
	int r = parent == FUSE_ROOT_ID ? stat_at(name, &e.attr) : -ENOENT;

	if (r < 0 || !S_ISREG(e.attr.st_mode)) {
		fuse_reply_err(req, r < 0 ? -r : ENOENT);
		return;
	}
	e.ino = find_node(name, &e.attr);
	e.attr.st_ino = e.ino;
	fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct node n;
	struct stat st;
	int r = 0;

	(void)fi;
	if (ino == FUSE_ROOT_ID) {
		if (fstat(dir_fd, &st) < 0)
			st = (struct stat){.st_mode = S_IFDIR | 0755};
		st.st_ino = 1;
		fuse_reply_attr(req, &st, 0);
		return;
	}
	pthread_mutex_lock(&lock);
	n = nodes[ino];
	pthread_mutex_unlock(&lock);
	st = n.st;
	if (!is(opt.node, "version"))
		r = fi ? (fstat(((struct handle *)(uintptr_t)fi->fh)->fd, &st)
				  ? -errno
				  : 0)
		       : stat_at(n.name, &st);
	st.st_ino = ino;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &st, opt.attr_timeout);
}

/* Settles under which conditions pages of earlier opens may still be used. */
static int admit(fuse_ino_t ino, const struct stat *st,
		 struct fuse_file_info *fi)
{
	bool unchanged;

	pthread_mutex_lock(&lock);
	unchanged = same(&nodes[ino].opened, st);
	nodes[ino].opened = *st;
	if (is(opt.node, "version") && !same(&nodes[ino].st, st)) {
		pthread_mutex_unlock(&lock);
		return -ESTALE; /* the kernel looks the path up again */
	}
	pthread_mutex_unlock(&lock);
	if (opt.notify && !unchanged)
		fuse_lowlevel_notify_inval_inode(session, ino, 0, 0);
	fi->keep_cache = is(opt.keep, "always") ||
			 (is(opt.keep, "unchanged") && unchanged);
	fi->direct_io = opt.direct;
	return 0;
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = calloc(1, sizeof(*h));
	char name[NAME_LEN];
	int r = 0;

	pthread_mutex_lock(&lock);
	memcpy(name, nodes[ino].name, NAME_LEN);
	pthread_mutex_unlock(&lock);
	h->fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (h->fd < 0 || fstat(h->fd, &h->st) < 0)
		r = -errno;
	if (r == 0) {
		settle(h->fd, &h->st);
		r = admit(ino, &h->st, fi);
	}
	if (r < 0) {
		if (h->fd >= 0)
			close(h->fd);
		free(h);
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)h;
	fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	static _Thread_local char *buf; /* per thread, kept until exit */
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;
	struct stat st;
	ssize_t n;

	(void)ino;
	if (!buf)
		buf = malloc(MAX_IO);
	n = pread(h->fd, buf, size, off);
	if (n < 0 || (opt.check && fstat(h->fd, &st) < 0))
		fuse_reply_err(req, errno);
	else if (opt.check && !same(&h->st, &st))
		fuse_reply_err(req, ESTALE);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void on_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct handle *h = (struct handle *)(uintptr_t)fi->fh;

	(void)ino;
	close(h->fd);
	free(h);
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.open = on_open,
	.read = on_read,
	.release = on_release,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	struct fuse_cmdline_opts cmd;
	int r = 1;

	if (fuse_opt_parse(&args, &opt, opt_spec, NULL) != 0 ||
	    fuse_parse_cmdline(&args, &cmd) != 0 || !cmd.mountpoint ||
	    !opt.source) {
		fprintf(stderr, "usage: coherence_fuse --source=DIR "
				"[--OPTION=VALUE...] DIR\n");
		return 2;
	}
	dir_fd = open(opt.source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (dir_fd >= 0 && session && cfg &&
	    fuse_set_signal_handlers(session) == 0 &&
	    fuse_session_mount(session, cmd.mountpoint) == 0) {
		r = fuse_session_loop_mt(session, cfg) != 0;
		fuse_session_unmount(session);
	}
	fuse_loop_cfg_destroy(cfg);
	fuse_opt_free_args(&args);
	free(cmd.mountpoint);
	return r;
}
