/*
 * Which packs there are, and how long: a key in the index may lead to one that
 * somebody deleted or cut.  Nothing is read for it, that is scrub.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>

#include "store/util/grow.h"

static int add(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct cfs_fsck_packs *packs = arg;

	if (!CFS_GROW(packs->v, packs->n, packs->cap))
		return -ENOMEM;
	packs->v[packs->n++] = (struct cfs_fsck_pack){id, size};
	return 0;
}

static int cmp(const void *a, const void *b)
{
	const struct cfs_fsck_pack *x = a, *y = b;

	if (x->id.lane != y->id.lane)
		return x->id.lane < y->id.lane ? -1 : 1;
	return (x->id.number > y->id.number) - (x->id.number < y->id.number);
}

int cfs_fsck_packs_load(struct cfs_fsck *f, struct cfs_fsck_packs *packs)
{
	int r = cfs_packs_list(f->store->packs, add, packs);

	if (packs->n)
		qsort(packs->v, packs->n, sizeof(*packs->v), cmp);
	return r;
}

void cfs_fsck_packs_fini(struct cfs_fsck_packs *packs)
{
	free(packs->v);
}

/* Packs are begun and taken away meanwhile. */
static bool is_there_now(struct cfs_fsck *f, const struct cfs_digest *digest)
{
	struct cfs_engine *engine = cfs_packs_engine(f->store->packs);
	struct cfs_object_value v, again;
	uint64_t size;
	int r;

	for (;;) {
		r = cfs_object_locate(f->store, false, digest, &v);
		if (r < 0) /* gc took it, so nobody refers to it any more */
			return r == -ENOENT;
		r = engine->ops->size(engine, cfs_object_place(&v).pack, &size);
		if (r == 0 && size >= (uint64_t)v.off + v.stored_len)
			return true;
		if (r < 0 && r != -ENOENT)
			return true; /* not known; scrub reads it */
		/* is it elsewhere since? */
		if (cfs_object_locate(f->store, false, digest, &again) == 0 &&
		    cfs_object_value_eq(&v, &again))
			return false;
	}
}

bool cfs_fsck_packs_have(struct cfs_fsck *f, const struct cfs_fsck_packs *packs,
			 const struct cfs_digest *digest,
			 const struct cfs_object_value *v)
{
	const struct cfs_fsck_pack key = {.id = cfs_object_place(v).pack};
	const struct cfs_fsck_pack *p =
		packs->n ? bsearch(&key, packs->v, packs->n, sizeof(*packs->v),
				   cmp)
			 : NULL;

	return (p && p->size >= (uint64_t)v->off + v->stored_len) ||
	       is_there_now(f, digest);
}
