/*
 * An ordered map from byte strings to values or "deleted", with snapshots: a
 * root can be referenced, and changing one root never changes what another
 * one holds.  A treap whose nodes are copied when they are shared and changed
 * in place when they are not.
 *
 *   root A ──▶ (m) ──▶ (f) …          put(B, "x"): (m) and the path to x are
 *   root B ──▶ (m)' ─┬▶ (f)           copied, the rest is shared
 *                    └▶ (x)
 */
#ifndef CFS_INDEX_TREE_H
#define CFS_INDEX_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/index/index.h"
#include "store/util/base.h"

struct cfs_memtree; /* a node, and the tree below it; NULL: empty */

struct cfs_memtree_item { /* never changes */
	_Atomic unsigned refs;
	uint32_t key_len, val_len;
	bool deleted;
	uint8_t bytes[]; /* key, value */
};
static inline struct cfs_slice
cfs_memtree_item_key(const struct cfs_memtree_item *item)
{
	return (struct cfs_slice){item->bytes, item->key_len};
}
static inline struct cfs_slice
cfs_memtree_item_val(const struct cfs_memtree_item *item)
{
	return (struct cfs_slice){item->bytes + item->key_len, item->val_len};
}

int cfs_memtree_cmp(struct cfs_slice a, struct cfs_slice b);
bool cfs_memtree_has_prefix(struct cfs_slice key, struct cfs_slice prefix);

/* Any thread, if the root itself is held still. */
struct cfs_memtree *cfs_memtree_ref(struct cfs_memtree *root);
void cfs_memtree_unref(struct cfs_memtree *root);
void cfs_memtree_unrefp(struct cfs_memtree **root);

/* Borrowed from the root; NULL: no such key. */
const struct cfs_memtree_item *cfs_memtree_get(const struct cfs_memtree *root,
					       struct cfs_slice key);
/* The first key not before @key (@after: behind it), or NULL. */
const struct cfs_memtree_item *cfs_memtree_seek(const struct cfs_memtree *root,
						struct cfs_slice key,
						bool after);

/* @val NULL: the key is "deleted".  1: a new key, 0: one that was there,
 * -ENOMEM: nothing changed.  One thread at a time for one root. */
CFS_MUST_CHECK int cfs_memtree_put(struct cfs_memtree **root,
				   struct cfs_slice key,
				   const struct cfs_slice *val);
/* All of @batch or nothing: the number of new keys, -ENOMEM, -EBADMSG. */
CFS_MUST_CHECK int cfs_memtree_apply(struct cfs_memtree **root,
				     const struct cfs_batch *batch);
/* Without a trace.  After -ENOMEM the root is only good for unref. */
CFS_MUST_CHECK int cfs_memtree_remove(struct cfs_memtree **root,
				      struct cfs_slice key);
/* About what one entry takes, all told. */
size_t cfs_memtree_entry_bytes(size_t key_len, size_t val_len);

#endif
