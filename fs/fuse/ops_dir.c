/*
 * Listings.  One pass over a directory is one moment's names, taken when it
 * starts, however the source changes while it is read.
 */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "store/util/buf.h"

#define MADE_BIT    (UINT64_C(1) << 63)
#define UNKNOWN_INO UINT64_C(0xffffffff) /* as libfuse says it */

struct name {
	uint64_t ino;
	mode_t type;
	size_t text; /* offset in texts */
};

struct listing {
	pthread_mutex_t lock; /* guards all below */
	struct cfs_vnode *dir;
	struct cfs_buf names; /* struct name */
	struct cfs_buf texts;
	bool taken;
};

static int add_name(void *arg, const char *name, const struct stat *st)
{
	struct listing *l = arg;
	struct name entry = {st->st_ino, st->st_mode & S_IFMT, l->texts.len};

	cfs_buf_put(&l->names, &entry, sizeof(entry));
	cfs_buf_put(&l->texts, name, strlen(name) + 1);
	return l->names.failed || l->texts.failed ? -ENOMEM : 0;
}

static int take(struct listing *l)
{
	struct stat st;
	int r;

	cfs_buf_reset(&l->names);
	cfs_buf_reset(&l->texts);
	r = cfs_vnode_stat(l->dir, &st, NULL);
	if (!r)
		r = add_name(l, ".", &st);
	st.st_ino = UNKNOWN_INO;
	if (!r)
		r = add_name(l, "..", &st);
	if (!r)
		r = cfs_vnode_readdir(l->dir, add_name, l);
	l->taken = !r;
	return r;
}

static void free_listing(struct listing *l)
{
	cfs_vnode_unref(l->dir);
	cfs_buf_free(&l->names);
	cfs_buf_free(&l->texts);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static struct listing *listing_of(const struct fuse_file_info *fi)
{
	return (struct listing *)(uintptr_t)fi->fh; /* set by opendir */
}

void cfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_init(&l->lock, NULL);
	l->dir = cfs_req_vnode(req, ino);
	fi->fh = (uintptr_t)l;
	if (fuse_reply_open(req, fi) == -ENOENT)
		free_listing(l); /* interrupted: no release will come */
}

void cfs_op_releasedir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	(void)ino;
	free_listing(listing_of(fi));
	fuse_reply_err(req, 0);
}

/* One reply under construction. */
struct reply {
	fuse_req_t req;
	char *buf;
	size_t size, len;
	bool plus;
};

/*
 * Attributes too, where they cost one lstat: not for what would be planned or
 * built for them.  No number means that nothing was looked up.
 */
static void look(struct cfs_mount *mount, struct listing *l,
		 const struct name *name, const char *text,
		 struct fuse_entry_param *entry)
{
	memset(entry, 0, sizeof(*entry));
	if (name->ino && !(name->ino & MADE_BIT) && strcmp(text, ".") &&
	    strcmp(text, "..") && !cfs_mount_lookup(mount, l->dir, text, entry))
		entry->entry_timeout = CFS_LISTED_SECONDS;
	else
		memset(entry, 0, sizeof(*entry));
	if (!entry->ino) {
		entry->attr.st_ino = name->ino ? name->ino : UNKNOWN_INO;
		entry->attr.st_mode = name->type;
	}
}

/* Appends entry @i; false when the reply is full. */
static bool put(struct listing *l, struct reply *reply, size_t i)
{
	struct cfs_mount *mount = cfs_mount_of(reply->req);
	char *at = reply->buf + reply->len;
	size_t room = reply->size - reply->len, need;
	struct fuse_entry_param entry;
	const char *text;
	struct name name;

	memcpy(&name, l->names.data + i * sizeof(name), sizeof(name));
	text = (const char *)l->texts.data + name.text;
	if (!reply->plus) {
		struct stat st = {
			.st_ino = name.ino ? name.ino : UNKNOWN_INO,
			.st_mode = name.type,
		};

		need = fuse_add_direntry(reply->req, at, room, text, &st,
					 (off_t)i + 1);
	} else {
		need = fuse_add_direntry_plus(reply->req, NULL, 0, text, NULL,
					      0);
		if (need > room)
			return false;
		look(mount, l, &name, text, &entry);
		need = fuse_add_direntry_plus(reply->req, at, room, text,
					      &entry, (off_t)i + 1);
	}
	if (need > room)
		return false;
	reply->len += need;
	return true;
}

static int fill(struct listing *l, struct reply *reply, size_t from)
{
	size_t n, i;
	int r = 0;

	pthread_mutex_lock(&l->lock);
	if (!from || !l->taken) /* rewinddir(3) sees what is there now */
		r = take(l);
	n = l->names.len / sizeof(struct name);
	for (i = from; !r && i < n; i++)
		if (!put(l, reply, i))
			break;
	pthread_mutex_unlock(&l->lock);
	return r;
}

static void reply_entries(fuse_req_t req, struct listing *l, size_t size,
			  off_t off, bool plus)
{
	_cleanup_(cfs_freep) char *buf = malloc(size);
	struct reply reply = {req, buf, size, 0, plus};
	int r = -ENOMEM;

	if (buf)
		r = fill(l, &reply, (size_t)off);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, buf, reply.len);
}

void cfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	(void)ino;
	reply_entries(req, listing_of(fi), size, off, false);
}

void cfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	(void)ino;
	reply_entries(req, listing_of(fi), size, off, true);
}
