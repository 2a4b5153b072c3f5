/*
 * Keys put into a store by hand, for tests of what reads them.  Who calls has
 * entered the store.
 */
#ifndef CFS_KEYS_BED_H
#define CFS_KEYS_BED_H

#include "tests/unit/core_bed.h"

/* Takes the value's memory over. */
static inline void bed_put(struct bed *b, const struct cfs_key *key,
			   struct cfs_buf *val)
{
	ck_assert(!val->failed);
	ck_assert_int_eq(
		cfs_levels_put(cfs_store_levels(b->store), cfs_key_slice(key),
			       (struct cfs_slice){val->data, val->len}),
		0);
	cfs_buf_free(val);
}

static inline void bed_put_inode(struct bed *b,
				 const struct cfs_inode_record *record)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_inode(&key, record->ino);
	cfs_inode_encode(record, &val);
	bed_put(b, &key, &val);
}

static inline void bed_put_extent(struct bed *b, uint64_t ino,
				  const struct cfs_extent *e)
{
	struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_key_extent(&key, ino, e->off);
	cfs_extent_encode(e, &val);
	bed_put(b, &key, &val);
}

#endif
