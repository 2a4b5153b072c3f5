/*
 * The walk: each source stands on its next key; the smallest is the answer,
 * the uppermost source that has it gives the value, and all that have it move
 * on when the next answer is asked for (a value is valid until then).
 */
#include "store/index/merge.h"

#include <errno.h>
#include <string.h>

#include "store/index/tree.h"

struct merge {
	struct cfs_index_iter base;
	struct cfs_memtree *roots[CFS_MERGE_TREES];
	const struct cfs_memtree_item *at[CFS_MERGE_TREES]; /* NULL: the end */
	bool used[CFS_MERGE_TREES];			    /* move on first */
	struct cfs_index_iter *under;
	struct cfs_slice under_key, under_val;
	int under_has; /* 1: stands on a pair, 0: at the end, or an error */
	bool under_used;
	struct cfs_slice prefix; /* in bytes[] */
	uint8_t bytes[];
};

static struct merge *merge_of(struct cfs_index_iter *iter)
{
	return container_of(iter, struct merge, base);
}

/* Where the next key of tree @i is, from @key on or behind it. */
static void tree_seek(struct merge *m, int i, struct cfs_slice key, bool after)
{
	m->at[i] = cfs_memtree_seek(m->roots[i], key, after);
	if (m->at[i] &&
	    !cfs_memtree_has_prefix(cfs_memtree_item_key(m->at[i]), m->prefix))
		m->at[i] = NULL;
	m->used[i] = false;
}

static void move_on(struct merge *m)
{
	for (int i = 0; i < CFS_MERGE_TREES; i++)
		if (m->used[i])
			tree_seek(m, i, cfs_memtree_item_key(m->at[i]), true);
	if (!m->under_used)
		return;
	m->under_used = false;
	m->under_has =
		m->under->ops->next(m->under, &m->under_key, &m->under_val);
}

/* The smallest key that a source stands on; false: all are at the end. */
static bool smallest(const struct merge *m, struct cfs_slice *key_out)
{
	bool any = m->under_has > 0;

	*key_out = m->under_key;
	for (int i = 0; i < CFS_MERGE_TREES; i++) {
		struct cfs_slice key;

		if (!m->at[i])
			continue;
		key = cfs_memtree_item_key(m->at[i]);
		if (any && cfs_memtree_cmp(key, *key_out) >= 0)
			continue;
		*key_out = key;
		any = true;
	}
	return any;
}

/* All that stand on @key are used up; the uppermost gives the value.  False:
 * the key is deleted. */
static bool use(struct merge *m, struct cfs_slice key,
		struct cfs_slice *val_out)
{
	const struct cfs_memtree_item *top = NULL;

	for (int i = 0; i < CFS_MERGE_TREES; i++) {
		if (!m->at[i] ||
		    cfs_memtree_cmp(cfs_memtree_item_key(m->at[i]), key) != 0)
			continue;
		m->used[i] = true;
		if (!top)
			top = m->at[i];
	}
	*val_out = m->under_val;
	if (m->under_has > 0 && !cfs_memtree_cmp(m->under_key, key))
		m->under_used = true;
	if (top)
		*val_out = cfs_memtree_item_val(top);
	return !top || !top->deleted;
}

static int merge_next(struct cfs_index_iter *iter, struct cfs_slice *key_out,
		      struct cfs_slice *val_out)
{
	struct merge *m = merge_of(iter);
	struct cfs_slice key, val;

	do {
		move_on(m);
		if (m->under_has < 0)
			return m->under_has;
		if (!smallest(m, &key))
			return 0;
	} while (!use(m, key, &val));
	*key_out = key;
	*val_out = val;
	return 1;
}

static void merge_free(struct cfs_index_iter *iter)
{
	struct merge *m = merge_of(iter);

	for (int i = 0; i < CFS_MERGE_TREES; i++)
		cfs_memtree_unref(m->roots[i]);
	cfs_index_iter_freep(&m->under);
	free(m);
}

int cfs_merge_new(struct cfs_memtree *const roots[CFS_MERGE_TREES],
		  struct cfs_index_iter *under, struct cfs_slice prefix,
		  struct cfs_slice from, struct cfs_index_iter **out)
{
	static const struct cfs_index_iter_ops ops = {merge_next, merge_free};
	struct merge *m = calloc(1, sizeof(*m) + prefix.len);

	if (!m) {
		cfs_index_iter_freep(&under);
		return -ENOMEM;
	}
	m->base.ops = &ops;
	if (prefix.len)
		memcpy(m->bytes, prefix.data, prefix.len);
	m->prefix = (struct cfs_slice){m->bytes, prefix.len};
	if (cfs_memtree_cmp(from, prefix) < 0)
		from = m->prefix;
	for (int i = 0; i < CFS_MERGE_TREES; i++) {
		m->roots[i] = cfs_memtree_ref(roots[i]);
		tree_seek(m, i, from, false);
	}
	m->under = under;
	m->under_used = under != NULL;
	*out = &m->base;
	return 0;
}
