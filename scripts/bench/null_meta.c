/*
 * null_meta - a FUSE server that takes names and bytes and keeps nothing
 *
 * The ceiling for creating, writing and removing small files: what the round
 * trips through the kernel cost when the server does nothing. Directories can
 * be made; nothing can be listed.
 */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define SECONDS 3600.0

static atomic_ulong last = FUSE_ROOT_ID; /* relaxed: a counter */

static void fill(fuse_ino_t ino, mode_t mode, struct fuse_entry_param *out)
{
	memset(out, 0, sizeof(*out));
	out->ino = out->attr.st_ino = ino;
	out->generation = 1;
	out->attr.st_mode = mode;
	out->attr.st_nlink = S_ISDIR(mode) ? 2 : 1;
	out->attr_timeout = out->entry_timeout = SECONDS;
}

static fuse_ino_t next(void)
{
	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

static void on_lookup(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	(void)dir;
	(void)name;
	fuse_reply_err(req, ENOENT);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct fuse_entry_param e;

	(void)fi;
	fill(ino, ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644, &e);
	fuse_reply_attr(req, &e.attr, SECONDS);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name,
		     mode_t mode)
{
	struct fuse_entry_param e;

	(void)dir;
	(void)name;
	fill(next(), S_IFDIR | mode, &e);
	fuse_reply_entry(req, &e);
}

static void on_create(fuse_req_t req, fuse_ino_t dir, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;

	(void)dir;
	(void)name;
	fill(next(), S_IFREG | (mode & 07777), &e);
	fi->direct_io = 1;
	fi->keep_cache = 1;
	fuse_reply_create(req, &e, fi);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)buf;
	(void)off;
	(void)fi;
	fuse_reply_write(req, size);
}

static void on_close(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void on_unlink(fuse_req_t req, fuse_ino_t dir, const char *name)
{
	(void)dir;
	(void)name;
	fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = on_lookup,
	.getattr = on_getattr,
	.mkdir = on_mkdir,
	.create = on_create,
	.write = on_write,
	.flush = on_close,
	.release = on_close,
	.unlink = on_unlink,
	.rmdir = on_unlink,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_cmdline_opts cmd;
	struct fuse_session *se;
	int r = 1;

	if (!config || fuse_parse_cmdline(&args, &cmd) || !cmd.mountpoint)
		return 2;
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se || fuse_set_signal_handlers(se) ||
	    fuse_session_mount(se, cmd.mountpoint))
		return 1;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, 16);
	fuse_loop_cfg_set_idle_threads(config, 16);
	r = fuse_session_loop_mt(se, config);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	fuse_loop_cfg_destroy(config);
	return r != 0 && r != SIGTERM;
}
