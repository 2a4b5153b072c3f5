/*
 * One regular file into the store.  It has the source's times only when all of
 * its bytes are there, which is how an import that goes on (merge) tells what
 * is done already.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/daemon/import.h"
#include "store/chunk/chunk.h"
#include "store/ns/ns.h"

uint64_t cfs_import_dir(const struct cfs_import *import, size_t item)
{
	size_t parent = import->items[item].parent;

	return parent == CFS_IMPORT_NONE ? import->dest
					 : import->items[parent].ino;
}

int cfs_import_give_way(const struct cfs_import *import,
			const struct cfs_import_item *item, uint64_t dir,
			const struct stat *there, struct cfs_error *err)
{
	if (!import->merge)
		return cfs_fail(err, -EEXIST, "%s is there already",
				item->name);
	if (S_ISDIR(there->st_mode) || S_ISDIR(item->st.st_mode))
		return cfs_fail(err, -EEXIST,
				"in the store it is %s directory: remove or "
				"rename that, then go on with --merge",
				S_ISDIR(there->st_mode) ? "a" : "no");
	return cfs_ns_unlink(import->context->ns, dir, item->name);
}

int cfs_import_attributes(const struct cfs_import *import,
			  const struct cfs_import_item *item)
{
	struct stat st = item->st, out;
	unsigned set =
		CFS_SET_ATIME | CFS_SET_MTIME | CFS_SET_UID | CFS_SET_GID;

	if (!import->owners) {
		st.st_uid = import->context->caller->uid;
		st.st_gid = import->context->caller->gid;
	}
	if (!S_ISLNK(st.st_mode))
		set |= CFS_SET_MODE;
	return cfs_ns_setattr(import->context->ns, item->ino, &st, set, &out);
}

static int copy_xattr(const struct cfs_import *import, const char *path,
		      uint64_t ino, const char *name)
{
	char value[65536], there[65536];
	ssize_t n;

	cfs_import_enter(import);
	n = lgetxattr(path, name, value, sizeof(value));
	cfs_import_leave(import);
	if (n < 0)
		return errno == ENODATA ? 0 : -errno;
	if (cfs_ns_getxattr(import->context->ns, ino, name, there,
			    sizeof(there)) == n &&
	    !memcmp(value, there, (size_t)n))
		return 0;
	return cfs_ns_setxattr(import->context->ns, ino, name, value, (size_t)n,
			       0);
}

int cfs_import_xattrs(const struct cfs_import *import, const char *path,
		      uint64_t ino)
{
	char names[65536];
	const char *p = names;
	ssize_t n;
	int r = 0;

	cfs_import_enter(import);
	n = llistxattr(path, names, sizeof(names));
	cfs_import_leave(import);
	if (n < 0)
		return errno == ENOTSUP ? 0 : -errno;
	while (!r && p < names + n) {
		if (!strncmp(p, "user.", 5))
			r = copy_xattr(import, path, ino, p);
		p += strlen(p) + 1;
	}
	return r;
}

/* ---- bytes ---- */

/*
 * Smaller holes become zeros: chunks that end at holes have no equal in the
 * same state saved without, and a chunk of zeros takes no room.
 */
#define HOLE_MIN CFS_CHUNK_BYTES_MAX

struct copy {
	struct cfs_import *import;
	struct cfs_import_item *item;
	const char *path;
	int fd;
	struct cfs_ns_file *file;
	char *buffer;
	size_t size;
	_Atomic uint64_t *done;
	const _Atomic bool *stop;
};

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int copy_span(struct copy *c, uint64_t off, uint64_t end)
{
	while (off < end) {
		size_t want = (size_t)CFS_MIN(end - off, c->size);
		ssize_t n = pread(c->fd, c->buffer, want, (off_t)off), w;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ESTALE; /* shorter than it was */
		if (atomic_load_explicit(c->stop, memory_order_relaxed))
			return -ECANCELED;
		w = cfs_ns_pwrite(c->file, c->buffer, (size_t)n, off);
		if (w < 0)
			return (int)w;
		off += (uint64_t)n;
		atomic_fetch_add_explicit(c->done, (uint64_t)n,
					  memory_order_relaxed);
	}
	return 0;
}

/* Where the next hole worth keeping begins from @at on, and where it ends:
 * both the file's size where there is none. */
static void find_hole(const struct copy *c, uint64_t at, uint64_t *begin,
		      uint64_t *end)
{
	const uint64_t size = (uint64_t)c->item->st.st_size;
	off_t hole, data;

	for (*begin = *end = size; at < size; at = *end) {
		hole = lseek(c->fd, (off_t)at, SEEK_HOLE);
		if (hole < 0 || (uint64_t)hole >= size)
			break; /* or it cannot tell */
		data = lseek(c->fd, hole, SEEK_DATA);
		*end = data < 0 ? size : CFS_MIN((uint64_t)data, size);
		if (*end - (uint64_t)hole >= HOLE_MIN) {
			*begin = (uint64_t)hole;
			return;
		}
	}
	*end = size;
}

/* Only what is data, where the file has large holes. */
static int copy_spans(struct copy *c)
{
	uint64_t size = (uint64_t)c->item->st.st_size, at = 0, hole, end;
	struct stat set = {.st_size = (off_t)size}, out;
	int r = 0;

	while (!r && at < size) {
		find_hole(c, at, &hole, &end);
		r = copy_span(c, at, hole);
		atomic_fetch_add_explicit(c->done, end - hole,
					  memory_order_relaxed);
		at = end;
		if (!r && end == size && hole < size)
			r = cfs_ns_setattr(c->import->context->ns, c->item->ino,
					   &set, CFS_SET_SIZE, &out);
	}
	return r;
}

static int copy_bytes(struct copy *c)
{
	const struct stat *st = &c->item->st;

	return (uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size
		       ? copy_span(c, 0, (uint64_t)st->st_size)
		       : copy_spans(c);
}

/* ---- the name ---- */

/* Are the bytes of the file there not these?  1, 0, or an error of this side:
 * what the store cannot read is to be replaced. */
static int differs(struct copy *c, struct cfs_ns_file *there)
{
	const size_t half = c->size / 2;
	uint64_t off = 0;

	for (;;) {
		ssize_t n = pread(c->fd, c->buffer, half, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		if (atomic_load_explicit(c->stop, memory_order_relaxed))
			return -ECANCELED;
		if (cfs_ns_pread(there, c->buffer + half, (size_t)n, off) !=
			    n ||
		    memcmp(c->buffer, c->buffer + half, (size_t)n) != 0)
			return 1;
		off += (uint64_t)n;
	}
}

/* 1: it is there, whole, as its size and times say. */
static int is_same(struct copy *c, const struct stat *there)
{
	const struct stat *st = &c->item->st;
	struct cfs_ns_file *file;
	int r;

	if (there->st_size != st->st_size ||
	    there->st_mtim.tv_sec != st->st_mtim.tv_sec ||
	    there->st_mtim.tv_nsec != st->st_mtim.tv_nsec)
		return 0;
	if (!c->import->compare)
		return 1;
	r = cfs_ns_open_file(c->import->context->ns, there->st_ino, O_RDONLY,
			     &file);
	if (r < 0)
		return r;
	r = differs(c, file);
	cfs_ns_close_file(file);
	return r < 0 ? r : !r;
}

/* What an earlier import may have left as it was made: modes, owners. */
static int mend(struct copy *c, const struct stat *there)
{
	const struct cfs_verb_caller *caller = c->import->context->caller;
	const struct stat *st = &c->item->st;
	uid_t uid = c->import->owners ? st->st_uid : caller->uid;
	gid_t gid = c->import->owners ? st->st_gid : caller->gid;
	int r;

	r = cfs_import_xattrs(c->import, c->path, there->st_ino);
	if (r < 0 || (there->st_mode == st->st_mode && there->st_uid == uid &&
		      there->st_gid == gid))
		return r;
	return cfs_import_attributes(c->import, c->item);
}

/* 1: it is there; 0: what was there is gone. */
static int take_existing(struct copy *c, uint64_t dir, struct cfs_error *err)
{
	struct cfs_ns *ns = c->import->context->ns;
	struct stat st;
	int r;

	r = cfs_ns_lookup(ns, dir, c->item->name, &st);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	c->item->ino = st.st_ino;
	if (c->import->merge && S_ISREG(st.st_mode)) {
		r = is_same(c, &st);
		if (r < 0)
			return r;
		if (r)
			return (r = mend(c, &st)) < 0 ? r : 1;
	}
	return cfs_import_give_way(c->import, c->item, dir, &st, err);
}

static int create(struct copy *c, uint64_t dir, struct cfs_error *err)
{
	const struct cfs_verb_caller *caller = c->import->context->caller;
	struct cfs_ns_cred cred = {caller->uid, caller->gid};
	struct cfs_ns *ns = c->import->context->ns;
	struct stat st;
	int r;

	r = cfs_ns_create(ns, &cred, dir, c->item->name, 0600, O_WRONLY, &st,
			  &c->file);
	if (r == -EEXIST) {
		r = take_existing(c, dir, err);
		if (r)
			return r;
		r = cfs_ns_create(ns, &cred, dir, c->item->name, 0600, O_WRONLY,
				  &st, &c->file);
	}
	if (r < 0)
		return r;
	c->item->ino = st.st_ino;
	cfs_ns_forget(ns, st.st_ino, 1); /* open is enough */
	return 0;
}

static int open_source(struct copy *c)
{
	struct stat st;

	cfs_import_enter(c->import);
	c->fd = open(c->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	cfs_import_leave(c->import);
	if (c->fd < 0)
		return -errno;
	if (fstat(c->fd, &st) < 0)
		return -errno;
	if (!same(&st, &c->item->st))
		return -ESTALE;
	(void)posix_fadvise(c->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return 0;
}

static int fill(struct copy *c)
{
	struct stat st;
	int r;

	r = copy_bytes(c);
	if (r < 0)
		return r;
	if (fstat(c->fd, &st) < 0)
		return -errno;
	if (!same(&st, &c->item->st))
		return -ESTALE;
	r = cfs_import_xattrs(c->import, c->path, c->item->ino);
	return r < 0 ? r : cfs_import_attributes(c->import, c->item);
}

int cfs_import_file(struct cfs_import *import, size_t item, void *buffer,
		    size_t size, _Atomic uint64_t *done,
		    const _Atomic bool *stop, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_import_path(import, item);
	struct copy c = {import, &import->items[item],
			 path,	 -1,
			 NULL,	 buffer,
			 size,	 done,
			 stop};
	int r;

	if (!path)
		return -ENOMEM;
	r = open_source(&c);
	if (!r)
		r = create(&c, cfs_import_dir(import, item), err);
	if (!r) {
		r = fill(&c);
		cfs_ns_close_file(c.file);
	} else if (r > 0) {
		c.item->kept = true;
		atomic_fetch_add_explicit(done, (uint64_t)c.item->st.st_size,
					  memory_order_relaxed);
		r = 0;
	}
	cfs_closep(&c.fd);
	if (r == -ESTALE)
		return cfs_fail(err, r, "%s changed while it was read", path);
	return r < 0 && r != -ECANCELED ? cfs_fail_prefix(err, r, "%s", path)
					: r;
}
