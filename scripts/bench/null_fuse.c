/*
 * null_fuse - a FUSE server that does as little as a server can
 *
 * The ceiling that the real mount is measured against: a flat directory of
 * files f0 f1 ..., every byte of which comes from memory, or by pread() from
 * one real file. All that the kernel lets a server choose is an option, so
 * that both can be run in the same mode. At exit it prints how many read
 * requests came, and how large they were.
 */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	MAX_IO = 1 << 20,
	SIZE_CLASSES = 12
};

static struct options {
	int files;
	unsigned long size_mib, span_mib; /* of a file; of the memory */
	unsigned max_write, max_readahead, max_background, threads;
	double attr_timeout, entry_timeout;
	char *source, *reply, *mode;
	int clone_fd, no_async, auto_inval, splice, quiet;
} opt = {
	.files = 4,
	.size_mib = 1024,
	.span_mib = 8,
	.max_write = MAX_IO,
	.max_readahead = 1 << 20,
	.max_background = 64,
	.threads = 4,
	.attr_timeout = 60.0,
	.entry_timeout = 60.0,
};

#define OPT(templ, field, value)                                               \
	{                                                                      \
		templ, offsetof(struct options, field), value                  \
	}
static const struct fuse_opt opt_spec[] = {
	OPT("--files=%d", files, 0),
	OPT("--size=%lu", size_mib, 0),
	OPT("--span=%lu", span_mib, 0),
	OPT("--source=%s", source, 0),
	OPT("--reply=%s", reply, 0), /* buf iov data */
	OPT("--mode=%s", mode, 0),   /* direct keep plain */
	OPT("--max-write=%u", max_write, 0),
	OPT("--readahead=%u", max_readahead, 0),
	OPT("--background=%u", max_background, 0),
	OPT("--threads=%u", threads, 0),
	OPT("--attr-timeout=%lf", attr_timeout, 0),
	OPT("--entry-timeout=%lf", entry_timeout, 0),
	OPT("--clone-fd", clone_fd, 1),
	OPT("--no-async", no_async, 1),
	OPT("--auto-inval", auto_inval, 1),
	OPT("--splice", splice, 1),
	OPT("--quiet", quiet, 1),
	FUSE_OPT_END,
};

static int data_fd = -1; /* the source, or a memfd of span bytes */
static char *span;	 /* the same memory, mapped */
static atomic_ulong reads[SIZE_CLASSES], getattrs; /* relaxed: statistics */

static bool is(const char *s, const char *name)
{
	return s && !strcmp(s, name);
}

static void fill_attr(fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_mtime = st->st_ctime = 1;
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0755;
		st->st_nlink = 2;
		return;
	}
	st->st_mode = S_IFREG | 0444;
	st->st_nlink = 1;
	st->st_size = (off_t)opt.size_mib << 20;
}

static void on_init(void *data, struct fuse_conn_info *conn)
{
	(void)data;
	conn->max_write = opt.max_write;
	conn->max_readahead = opt.max_readahead;
	conn->max_background = opt.max_background;
	conn->want &=
		~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ |
			    FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	if (opt.auto_inval)
		conn->want |= FUSE_CAP_AUTO_INVAL_DATA;
	else
		conn->want |= conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
	if (opt.splice)
		conn->want |= conn->capable &
			      (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	if (opt.no_async)
		conn->want &=
			~(unsigned)(FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO);
	if (!opt.quiet)
		fprintf(stderr, "negotiated: max_write %u max_readahead %u\n",
			conn->max_write, conn->max_readahead);
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.attr_timeout = opt.attr_timeout,
				     .entry_timeout = opt.entry_timeout};
	int n;

	if (parent != FUSE_ROOT_ID || sscanf(name, "f%d", &n) != 1 || n < 0 ||
	    n >= opt.files) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	e.ino = (fuse_ino_t)n + 2;
	fill_attr(e.ino, &e.attr);
	fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	atomic_fetch_add_explicit(&getattrs, 1, memory_order_relaxed);
	fill_attr(ino, &st);
	fuse_reply_attr(req, &st, opt.attr_timeout);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = is(opt.mode, "direct");
	fi->keep_cache = is(opt.mode, "keep");
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void count(size_t size)
{
	int i = 0;

	while (i < SIZE_CLASSES - 1 && size > (size_t)4096 << i)
		i++;
	atomic_fetch_add_explicit(&reads[i], 1, memory_order_relaxed);
}

static void reply_fd(fuse_req_t req, size_t size, off_t off)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(size);

	v.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	v.buf[0].fd = data_fd;
	v.buf[0].pos = off;
	fuse_reply_data(req, &v, FUSE_BUF_SPLICE_MOVE);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	static _Thread_local char *own; /* per thread, kept until exit */
	off_t end = (off_t)opt.size_mib << 20;
	char *p;

	(void)ino;
	(void)fi;
	if (off >= end)
		size = 0;
	else if (size > (size_t)(end - off))
		size = (size_t)(end - off);
	count(size);
	if (!opt.source)
		off %= (off_t)(opt.span_mib << 20);
	if (is(opt.reply, "data")) {
		reply_fd(req, size, off);
		return;
	}
	p = span ? span + off : NULL;
	if (opt.source) {
		if (!own)
			own = aligned_alloc(4096, MAX_IO);
		if (!own || pread(data_fd, own, size, off) != (ssize_t)size) {
			fuse_reply_err(req, EIO);
			return;
		}
		p = own;
	}
	if (is(opt.reply, "iov")) {
		struct iovec iov[2] = {{p, size / 2},
				       {p + size / 2, size - size / 2}};

		fuse_reply_iov(req, iov, 2);
		return;
	}
	fuse_reply_buf(req, p, size);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	char buf[4096], name[32];
	size_t used = 0, n;
	struct stat st;

	(void)ino;
	(void)fi;
	if (size > sizeof(buf))
		size = sizeof(buf);
	for (; off < opt.files; off++) {
		fill_attr((fuse_ino_t)off + 2, &st);
		snprintf(name, sizeof(name), "f%d", (int)off);
		n = fuse_add_direntry(req, buf + used, size - used, name, &st,
				      off + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
}

static const struct fuse_lowlevel_ops ops = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.open = on_open,
	.read = on_read,
	.readdir = on_readdir,
};

/* The memory the files repeat; one request past the end, so none wraps. */
static int make_data(void)
{
	size_t len = (opt.span_mib << 20) + MAX_IO;

	if (opt.source) {
		data_fd = open(opt.source, O_RDONLY | O_CLOEXEC);
		return data_fd < 0 ? -errno : 0;
	}
	data_fd = memfd_create("null_fuse", MFD_CLOEXEC);
	if (data_fd < 0 || ftruncate(data_fd, (off_t)len) < 0)
		return -errno;
	span = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, data_fd, 0);
	if (span == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < len; i++)
		span[i] = (char)(i * 2654435761u >> 13);
	return 0;
}

static void print_stats(void)
{
	fprintf(stderr, "getattr %lu; reads by size:", atomic_load(&getattrs));
	for (int i = 0; i < SIZE_CLASSES; i++)
		if (atomic_load(&reads[i]))
			fprintf(stderr, " %dK:%lu", 4 << i,
				atomic_load(&reads[i]));
	fputc('\n', stderr);
}

static int serve(struct fuse_session *se, const char *dir)
{
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	int r = 1;

	if (!cfg || fuse_set_signal_handlers(se) != 0)
		goto out_cfg;
	if (fuse_session_mount(se, dir) != 0)
		goto out_signals;
	fuse_loop_cfg_set_clone_fd(cfg, (unsigned)opt.clone_fd);
	fuse_loop_cfg_set_max_threads(cfg, opt.threads);
	fuse_loop_cfg_set_idle_threads(cfg, opt.threads);
	r = opt.threads == 1 ? fuse_session_loop(se)
			     : fuse_session_loop_mt(se, cfg);
	fuse_session_unmount(se);
	if (!opt.quiet)
		print_stats();
out_signals:
	fuse_remove_signal_handlers(se);
out_cfg:
	fuse_loop_cfg_destroy(cfg);
	return r ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts cmd;
	struct fuse_session *se;
	int r;

	if (fuse_opt_parse(&args, &opt, opt_spec, NULL) != 0 ||
	    fuse_parse_cmdline(&args, &cmd) != 0 || !cmd.mountpoint) {
		fprintf(stderr, "usage: null_fuse [--OPTION=VALUE...] DIR\n");
		return 2;
	}
	r = make_data();
	if (r < 0) {
		fprintf(stderr, "null_fuse: %s\n", strerror(-r));
		return 1;
	}
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se)
		return 1;
	r = serve(se, cmd.mountpoint);
	fuse_session_destroy(se);
	free(cmd.mountpoint);
	fuse_opt_free_args(&args);
	return r;
}
