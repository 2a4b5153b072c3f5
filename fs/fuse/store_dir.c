/* Listings.  A store's cookies last, so its directories need no state; views
 * take their names down when they are opened (ops_dir.c). */
#include "fs/fuse/store.h"

#include <string.h>

void cfs_store_op_opendir(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	if (cfs_is_view(cfs_mount_of(req), ino)) {
		cfs_op_opendir(req, ino, fi);
		return;
	}
	fi->fh = 0;
	fuse_reply_open(req, fi);
}

void cfs_store_op_releasedir(fuse_req_t req, fuse_ino_t ino,
			     struct fuse_file_info *fi)
{
	if (fi->fh)
		cfs_op_releasedir(req, ino, fi);
	else
		fuse_reply_err(req, 0);
}

void cfs_store_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
			   struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	cfs_reply_result(req, cfs_ns_sync(cfs_mount_of(req)->ns));
}

struct reply {
	fuse_req_t req;
	char *buf;
	size_t size, len;
	bool plus;
	uint64_t *known; /* looked up by this reply */
	size_t n_known;
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* 1: the reply is full. */
static int put(void *arg, const char *name, const struct stat *st,
	       uint64_t cookie)
{
	struct reply *reply = arg;
	char *at = reply->buf + reply->len;
	size_t room = reply->size - reply->len, need;
	struct fuse_entry_param entry;

	if (!reply->plus) {
		need = fuse_add_direntry(reply->req, at, room, name, st,
					 (off_t)cookie);
	} else {
		cfs_store_entry(st, false, &entry);
		if (is_dots(name))
			entry.ino = 0; /* not looked up */
		need = fuse_add_direntry_plus(reply->req, at, room, name,
					      &entry, (off_t)cookie);
	}
	if (need > room)
		return 1;
	if (reply->plus && entry.ino)
		reply->known[reply->n_known++] = entry.ino;
	reply->len += need;
	return 0;
}

static void forget_all(struct cfs_mount *mount, const struct reply *reply)
{
	size_t i;

	for (i = 0; i < reply->n_known; i++)
		cfs_ns_forget(mount->ns, reply->known[i], 1);
}

static void reply_names(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			bool plus)
{
	struct cfs_mount *mount = cfs_mount_of(req);
	_cleanup_(cfs_freep) char *buf = malloc(size);
	/* No entry takes less than its attributes. */
	_cleanup_(cfs_freep) uint64_t *known =
		calloc(size / sizeof(struct stat) + 1, sizeof(*known));
	struct reply reply = {req, buf, size, 0, plus, known, 0};
	int r = -ENOMEM;

	if (buf && known)
		r = cfs_ns_readdir(mount->ns, ino, (uint64_t)off, plus, put,
				   &reply);
	if (r < 0 && !reply.len)
		cfs_reply_result(req, r);
	else if (fuse_reply_buf(req, buf, reply.len) == -ENOENT)
		forget_all(mount, &reply); /* interrupted */
}

void cfs_store_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size,
			  off_t off, struct fuse_file_info *fi)
{
	if (fi->fh)
		cfs_op_readdir(req, ino, size, off, fi);
	else
		reply_names(req, ino, size, off, false);
}

void cfs_store_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			      off_t off, struct fuse_file_info *fi)
{
	if (fi->fh)
		cfs_op_readdirplus(req, ino, size, off, fi);
	else
		reply_names(req, ino, size, off, true);
}
