/* Where data and holes are; what a file is made of. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <unistd.h>

/* Loaded, lock held. */
static int64_t seek(const struct cfs_ino *ino, uint64_t off, int whence)
{
	const struct cfs_pieces *p = ino->cur.pieces;
	size_t i = cfs_pieces_find(p, off);

	if (off >= ino->cur.size)
		return -ENXIO;
	if (whence == SEEK_DATA) {
		if (i == p->n)
			return -ENXIO;
		return (int64_t)CFS_MAX(off, p->v[i].off);
	}
	for (; i < p->n && p->v[i].off <= off; i++)
		off = p->v[i].off + p->v[i].len;
	return (int64_t)CFS_MIN(off, ino->cur.size);
}

int64_t cfs_ns_lseek(struct cfs_ns_file *file, uint64_t off, int whence)
{
	struct cfs_ino *ino = file->ino;
	int64_t r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0) {
		(void)pthread_mutex_lock(&ino->lock);
		r = seek(ino, off, whence);
		(void)pthread_mutex_unlock(&ino->lock);
	}
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}

int cfs_ns_extents(struct cfs_ns *ns, uint64_t ino,
		   int (*fn)(void *arg, const struct cfs_extent *extent),
		   void *arg)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	struct cfs_pin pin = {0};
	_cleanup_(cfs_freep) struct cfs_extent *extents = NULL;
	struct stat st;
	int r = cfs_ino_get(ns, ino, &i);

	if (r < 0)
		return r;
	if (!S_ISREG(i->type))
		return -EINVAL;
	r = cfs_ino_pin(i, &pin, &st);
	/* what is inline is in no chunk */
	if (r == 0 && (uint64_t)st.st_size > CFS_INLINE_MAX) {
		r = cfs_resolve_pieces(ns, pin.pieces, pin.pieces->n, &extents);
		for (size_t k = 0; k < pin.pieces->n && r == 0; k++)
			r = fn(arg, &extents[k]);
	}
	cfs_ino_unpin(ns, &pin);
	return r;
}
