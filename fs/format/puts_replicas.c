/*
 * Replicas: one slice that several ranks put.  They must be equal, and one of
 * them is kept.  A hash of each stands for its bytes, so that nothing is read.
 */
#include "fs/format/puts_tensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/hash.h"

/* Box and flat range. */
static uint64_t slice_hash(const struct cfs_put *p)
{
	uint64_t key[2 * CFS_PUT_DIMS_MAX + 2];
	uint32_t n = 0;

	for (uint32_t k = 0; k < p->ndim; k++) {
		key[n++] = p->offset[k];
		key[n++] = p->extent[k];
	}
	key[n++] = p->flat_start;
	key[n++] = p->flat_count;
	return cfs_hash64(key, n * sizeof(*key), 0);
}

static bool is_same(const struct cfs_put *a, const struct cfs_put *b)
{
	return a->flat_start == b->flat_start &&
	       a->flat_count == b->flat_count &&
	       !memcmp(a->offset, b->offset, a->ndim * sizeof(*a->offset)) &&
	       !memcmp(a->extent, b->extent, a->ndim * sizeof(*a->extent));
}

static int differ(const struct cfs_put *a, const struct cfs_put *b,
		  struct cfs_error *err)
{
	return cfs_fail(err, -EINVAL,
			"tensor %s (%s): ranks %u and %u put the same elements "
			"with different values: replicas must be equal, or one "
			"rank puts it",
			a->name, a->role, a->rank, b->rank);
}

int cfs_put_replicas(struct cfs_put_pieces *pieces, struct cfs_error *err)
{
	_cleanup_(cfs_freep) uint32_t *table = NULL; /* places in rows, + 1 */
	size_t cap = 4, kept = 0;

	if (pieces->n < 2)
		return 0;
	while (cap < 2 * pieces->n)
		cap *= 2;
	table = calloc(cap, sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < pieces->n; i++) {
		const struct cfs_put *p = cfs_put_piece(pieces, i);
		const struct cfs_put *other = NULL;
		size_t at = slice_hash(p) & (cap - 1);

		for (; table[at]; at = (at + 1) & (cap - 1)) {
			other = cfs_put_piece(pieces, table[at] - 1);
			if (is_same(other, p))
				break;
		}
		if (!table[at]) {
			pieces->rows[kept++] = pieces->rows[i];
			table[at] = (uint32_t)kept;
		} else if (other->hash != p->hash) {
			return differ(other, p, err);
		}
	}
	pieces->n = kept;
	return 0;
}
