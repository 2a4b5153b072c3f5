/* Open files: handles, what closing them does. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <fcntl.h>

#include "store/util/log.h"

/* Ends of closed files that may wait in memory for a commit, all together. */
#define WAITING_MAX (32u << 20)
/* So many closed ones do not wait for the clock: a group is in memory several
 * times over while it is written. */
#define SMALL_MAX 16384u

/* Takes over the reference to @ino. */
static int open_ino(struct cfs_ino *ino, int flags, struct cfs_ns_file **out)
{
	struct cfs_ns_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file) {
		cfs_ino_put(ino);
		return -ENOMEM;
	}
	file->ino = ino;
	file->flags = flags;
	(void)pthread_mutex_lock(&ino->lock);
	ino->opens++;
	(void)pthread_mutex_unlock(&ino->lock);
	if (flags & O_TRUNC && (flags & O_ACCMODE) != O_RDONLY) {
		r = cfs_ino_truncate(ino, 0, true);
		if (r < 0) {
			cfs_ns_close_file(file);
			return r;
		}
		atomic_store_explicit(&file->wrote, true, memory_order_release);
		atomic_store_explicit(&file->staged, true,
				      memory_order_relaxed);
	}
	*out = file;
	return 0;
}

int cfs_ns_open_file(struct cfs_ns *ns, uint64_t ino, int flags,
		     struct cfs_ns_file **file_out)
{
	struct cfs_ino *i;
	int r = cfs_ino_get(ns, ino, &i);

	if (r < 0)
		return r;
	if (!S_ISREG(i->type)) {
		r = S_ISDIR(i->type) ? -EISDIR : -EINVAL;
		cfs_ino_put(i);
		return r;
	}
	return open_ino(i, flags, file_out);
}

int cfs_ns_create(struct cfs_ns *ns, const struct cfs_ns_cred *cred,
		  uint64_t dir, const char *name, mode_t mode, int flags,
		  struct stat *st_out, struct cfs_ns_file **file_out)
{
	struct cfs_make make = {.cred = cred,
				.dir = dir,
				.name = name,
				.mode = (mode & 07777) | S_IFREG};
	struct cfs_ino *i = NULL;
	int r = cfs_ns_make(ns, &make, st_out, &i);

	if (r < 0)
		return r;
	r = open_ino(i, flags & ~O_TRUNC, file_out);
	if (r < 0) {
		cfs_ns_forget(ns, (uint64_t)st_out->st_ino, 1);
		return r;
	}
	/* an empty marker counts when it is closed, too */
	atomic_store_explicit(&(*file_out)->wrote, true, memory_order_release);
	return 0;
}

uint64_t cfs_ns_file_ino(const struct cfs_ns_file *file)
{
	return file->ino->ino;
}

/* What is staged counts from now on. */
static void unstage(struct cfs_ino *ino)
{
	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	cfs_ino_unstage(ino);
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(ino->ns->store);
}

int cfs_ns_fsync(struct cfs_ns_file *file)
{
	unstage(file->ino);
	return cfs_store_commit(file->ino->ns->store);
}

int cfs_ns_flush(struct cfs_ns_file *file)
{
	struct cfs_ino *ino = file->ino;
	bool marker;
	int r;

	/* Now: the kernel tells of the last close only after close(2), and a
	 * marker that is closed next promises what is here. */
	if (atomic_exchange_explicit(&file->staged, false,
				     memory_order_relaxed))
		unstage(ino);
	/* acquire: the writes it counts come before */
	if (!atomic_exchange_explicit(&file->wrote, false,
				      memory_order_acquire))
		return 0;
	(void)pthread_mutex_lock(&ino->lock);
	/* whoever closed it may take it for whole, so it must be soon */
	ino->due = ino->cur.size;
	marker = ino->marker && ino->nlink;
	(void)pthread_mutex_unlock(&ino->lock);
	if (!marker)
		return 0;
	r = cfs_ns_fsync(file);
	/* the next close tries again */
	if (r < 0)
		atomic_store_explicit(&file->wrote, true, memory_order_release);
	return r;
}

/* May this tail stay in memory until the next commit?  A short one may: it
 * may still grow, or become inline; but not any number of them. */
static bool may_wait(struct cfs_ino *ino, size_t len)
{
	if (len > CFS_STAGED_MAX)
		return false;
	/* relaxed: limits, not counts */
	atomic_fetch_add_explicit(&ino->ns->small, 1, memory_order_relaxed);
	return atomic_fetch_add_explicit(&ino->ns->waiting, len,
					 memory_order_relaxed) < WAITING_MAX ||
	       len <= CFS_INLINE_MAX;
}

/* io held: no more memory than the bytes that are left. */
static void settle_stream(struct cfs_ino *ino)
{
	struct cfs_blob *tail = ino->stream.tail;
	int r = 0;

	if (tail && !may_wait(ino, cfs_blob_len(tail)))
		r = cfs_stream_finish(ino);
	else if (tail)
		cfs_blob_trim(tail);
	if (r == 0 && ino->overlay_bytes > CFS_STAGED_MAX)
		r = cfs_overlay_flush(ino);
	cfs_stream_end(ino);
	if (r < 0)
		(void)cfs_log_err(r, "the end of inode %llu waits",
				  (unsigned long long)ino->ino);
}

/* The last handle goes: what there is gets sealed by the next commit. */
static void last_close(struct cfs_ino *ino)
{
	settle_stream(ino);
	cfs_store_enter(ino->ns->store);
	(void)pthread_mutex_lock(&ino->lock);
	if (!--ino->opens) {
		cfs_ino_unstage(ino);
		if (ino->kind == CFS_CONTENT_EXTENTS && ino->cur.pieces &&
		    !ino->cur.dirty) {
			ino->cur.dirty = true;
			cfs_ino_mark(ino);
		}
		cfs_ino_unload(ino);
	}
	(void)pthread_mutex_unlock(&ino->lock);
	cfs_store_leave(ino->ns->store);
}

/* Nothing held. */
static void relieve(struct cfs_ns *ns)
{
	if (atomic_load_explicit(&ns->small, memory_order_relaxed) <
		    SMALL_MAX ||
	    atomic_exchange_explicit(&ns->crowded, true, memory_order_relaxed))
		return;
	if (cfs_store_commit(ns->store) < 0) /* the clock tries again */
		cfs_log(CFS_LOG_DEBUG, "small files wait in memory");
	atomic_store_explicit(&ns->crowded, false, memory_order_relaxed);
}

void cfs_ns_close_file(struct cfs_ns_file *file)
{
	struct cfs_ino *ino = file->ino;
	struct cfs_ns *ns = ino->ns;
	bool last;

	if (atomic_load_explicit(&file->staged, memory_order_relaxed))
		unstage(ino);
	(void)pthread_mutex_lock(&ino->io);
	(void)pthread_mutex_lock(&ino->lock);
	last = ino->opens == 1;
	if (!last)
		ino->opens--;
	(void)pthread_mutex_unlock(&ino->lock);
	if (last)
		last_close(ino);
	(void)pthread_mutex_unlock(&ino->io);
	cfs_ino_put(ino);
	free(file);
	relieve(ns);
}
