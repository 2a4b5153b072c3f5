/* The session: what is negotiated with the kernel, the loop, and its end. */
#include "fs/fuse/fuse.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/fuse/ender.h"
#include "fs/fuse/store.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/log.h"

enum {
	READ_AHEAD_KIB = 1024,
	/* A look-up that plans holds a thread for as long as that takes. */
	THREADS = 16,
	BACKGROUND = 64,
	/* From Linux 6.6 on a write past the page cache drops what it covers
	 * there. */
	DROPS_PAGES_MINOR = 39,
};

void cfs_on_init(void *data, struct fuse_conn_info *conn)
{
	struct cfs_mount *mount = data;

	mount->stale_pages = conn->proto_minor < DROPS_PAGES_MINOR;
	conn->max_read = CFS_MAX_IO;
	conn->max_write = CFS_MAX_IO;
	conn->max_readahead = CFS_MAX_IO;
	conn->max_background = BACKGROUND;
	/* Replies come from memory: splicing them costs more than a copy. */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE);
	/* Pages are never dropped for times or sizes that moved: a changed file
	 * of a directory is another node, one of a store changes here only. */
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	/* Delays writes past close(2), and loses their order and errors. */
	conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
	/* The kernel removes set-user-ID where it can. */
	conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
	/* O_TRUNC comes with the open: a small file's rewriting is one change.
	 */
	conn->want |= conn->capable &
		      (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_CACHE_SYMLINKS |
		       FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS);
}

static const struct fuse_lowlevel_ops ops = {
	.init = cfs_on_init,
	.lookup = cfs_op_lookup,
	.forget = cfs_op_forget,
	.forget_multi = cfs_op_forget_multi,
	.getattr = cfs_op_getattr,
	.readlink = cfs_op_readlink,
	.statfs = cfs_op_statfs,
	.opendir = cfs_op_opendir,
	.readdir = cfs_op_readdir,
	.readdirplus = cfs_op_readdirplus,
	.releasedir = cfs_op_releasedir,
	.open = cfs_op_open,
	.read = cfs_op_read,
	.release = cfs_op_release,
	.getxattr = cfs_op_getxattr,
	.listxattr = cfs_op_listxattr,
};

CFS_PRINTF(2, 0)
static void log_libfuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	while (len && line[len - 1] == '\n')
		line[--len] = '\0';
	if (len)
		cfs_log(level <= FUSE_LOG_ERR ? CFS_LOG_ERR : CFS_LOG_INFO,
			"%s", line);
}

/* ---- options ---- */

/* As an option's value: libfuse takes '\' before ',' and '\'. */
static void put_escaped(struct cfs_buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == ',' || *s == '\\')
			cfs_buf_put_u8(out, '\\');
		cfs_buf_put_u8(out, (uint8_t)*s);
	}
}

static int make_args(const struct cfs_fuse_options *o, struct fuse_args *args)
{
	_cleanup_(cfs_buf_free) struct cfs_buf opts = CFS_BUF_INIT;

	cfs_buf_put_str(&opts, o->ns && !o->read_only ? "rw" : "ro");
	cfs_buf_put_str(&opts, ",nosuid,nodev,default_permissions,"
			       "subtype=ckptfs,fsname=");
	put_escaped(&opts, o->source);
	cfs_buf_printf(&opts, ",max_read=%u", CFS_MAX_IO);
	if (o->noexec)
		cfs_buf_put_str(&opts, ",noexec");
	if (o->allow_other)
		cfs_buf_put_str(&opts, ",allow_other");
	if (opts.failed || fuse_opt_add_arg(args, "ckptfs") ||
	    fuse_opt_add_arg(args, "-o") ||
	    fuse_opt_add_arg(args, cfs_buf_str(&opts)))
		return -ENOMEM;
	return 0;
}

/* ---- when it answers ---- */

/* Root only; others keep the kernel's 128 KiB. */
static void raise_read_ahead(dev_t dev)
{
	_cleanup_(cfs_closep) int fd = -1;
	char path[64], value[16];
	int n;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(dev), minor(dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = snprintf(value, sizeof(value), "%d", READ_AHEAD_KIB);
	if (write(fd, value, (size_t)n) < 0)
		cfs_log(CFS_LOG_INFO, "%s cannot be raised", path);
}

/* Asks the mount itself, which says that the kernel and we have agreed. */
static void *announce(void *arg)
{
	const struct cfs_fuse_options *o = arg;
	struct stat st;

	if (!stat(o->dir, &st))
		raise_read_ahead(st.st_dev);
	else if (errno == ENOTCONN || errno == ECONNABORTED)
		return NULL; /* it ended before it began; serve() tells */
	if (o->ready)
		o->ready(o->ready_arg);
	return NULL;
}

/* ---- the loop ---- */

static int loop(struct fuse_session *se)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int r;

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, THREADS);
	fuse_loop_cfg_set_idle_threads(config, THREADS);
	r = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	/* Positive: ended by a signal, which is as good as umount. */
	return r < 0 ? r : 0;
}

static int serve(struct fuse_session *se, const struct cfs_fuse_options *o,
		 struct cfs_error *err)
{
	struct cfs_fuse_options copy = *o;
	struct cfs_ender *ender;
	pthread_t announcer;
	int r;

	if (fuse_session_mount(se, o->dir))
		return cfs_fail(err, -EIO, "%s: cannot mount there", o->dir);
	r = cfs_ender_start(se, o->dir, &ender);
	if (r < 0)
		goto out;
	r = -pthread_create(&announcer, NULL, announce, &copy);
	if (r < 0) {
		cfs_ender_stop(ender);
		goto out;
	}
	r = loop(se);
	if (r < 0)
		cfs_log_err(r, "%s: the mount ended", o->dir);
	cfs_ender_stop(ender);
	/* Without the mount the announcer's stat() ends, too. */
	fuse_session_unmount(se);
	pthread_join(announcer, NULL);
	return r;
out:
	fuse_session_unmount(se);
	return r;
}

/* ---- over a store ---- */

#ifdef CFS_HAVE_STORE
static void invalidate(void *handle, uint64_t ino, const char *name)
{
	struct cfs_mount *mount = handle;

	if (name)
		cfs_notify_entry(mount->notify, ino, name);
	else
		cfs_notify_inode(mount->notify, ino);
	cfs_notify_wait(mount->notify);
}

static int serve_store(struct fuse_session *se, struct cfs_mount *mount,
		       const struct cfs_fuse_options *o, struct cfs_error *err)
{
	int r;

	mount->lookup_in = cfs_store_lookup_in;
	mount->handles = cfs_handles_new();
	if (!mount->handles)
		return -ENOMEM;
	r = cfs_notify_start(se, &mount->notify);
	if (!r && o->start)
		r = o->start(o->service_arg, invalidate, mount, err);
	if (!r) {
		r = serve(se, o, err);
		if (o->stop)
			o->stop(o->service_arg);
	}
	cfs_notify_stop(mount->notify);
	cfs_handles_free(mount->handles);
	return r;
}
#endif

static int run(struct cfs_mount *mount, const struct fuse_lowlevel_ops *table,
	       const struct cfs_fuse_options *options, struct fuse_args *args,
	       struct cfs_error *err)
{
	struct fuse_session *se;
	int r;

	se = fuse_session_new(args, table, sizeof(*table), mount);
	if (!se)
		return -ENOMEM;
#ifdef CFS_HAVE_STORE
	if (mount->ns)
		r = serve_store(se, mount, options, err);
	else
#endif
		r = serve(se, options, err);
	fuse_session_destroy(se);
	return r;
}

int cfs_fuse_run(struct cfs_views *views,
		 const struct cfs_fuse_options *options, struct cfs_error *err)
{
	struct cfs_mount mount = {
		.views = views,
		.direct_io = options->direct_io,
		.ns = options->ns,
		.view_root = options->view_root,
	};
	const struct fuse_lowlevel_ops *table = &ops;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int r;

#ifdef CFS_HAVE_STORE
	if (mount.ns)
		table = &cfs_store_ops;
#endif
	fuse_set_log_func(log_libfuse);
	r = make_args(options, &args);
	if (!r) {
		mount.nodes = cfs_nodes_new(cfs_views_root(views));
		r = mount.nodes ? run(&mount, table, options, &args, err)
				: -ENOMEM;
	}
	cfs_nodes_free(mount.nodes);
	fuse_opt_free_args(&args);
	return r;
}
