/* Numbers about a store, and about one chunk. */
#include "store/core/store_internal.h"

#include <errno.h>

static int add_pack(void *arg, struct cfs_pack_id id, uint64_t size)
{
	struct cfs_store_facts *f = arg;

	(void)id;
	f->packs++;
	f->pack_bytes += size;
	return 0;
}

static int add_chunks(struct cfs_store *store, struct cfs_store_facts *f)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *it = NULL;
	struct cfs_slice prefix, key, val;
	struct cfs_object_value v;
	struct cfs_key c;
	int r;

	cfs_key_prefix(&c, 'c', 0);
	prefix = cfs_key_slice(&c);
	r = cfs_levels_iter(store->levels, prefix, prefix, &it);
	if (r < 0)
		return r;
	while ((r = it->ops->next(it, &key, &val)) > 0) {
		r = cfs_object_decode(val.data, val.len, &v);
		if (r < 0)
			return r;
		f->chunks++;
		f->raw_bytes += v.raw_len;
		f->stored_bytes += v.stored_len;
	}
	return r;
}

int cfs_store_facts(struct cfs_store *store, struct cfs_store_facts *out)
{
	struct cfs_store_facts f = {.groups = cfs_store_group(store)};
	int r = cfs_packs_list(store->packs, add_pack, &f);

	if (r == 0)
		r = add_chunks(store, &f);
	if (r < 0)
		return r;
	f.ingested_bytes = store->ingested_bytes;
	f.dedup_bytes = store->dedup_bytes;
	f.appended_bytes = store->appended_bytes;
	f.cache_hits = store->cache_hits;
	f.cache_misses = store->cache_misses;
	*out = f;
	return 0;
}

int cfs_store_statfs(struct cfs_store *store, struct statvfs *out)
{
	return cfs_packs_statfs(store->packs, out);
}

int cfs_store_chunk_facts(struct cfs_store *store,
			  const struct cfs_digest *digest,
			  struct cfs_chunk_facts *out)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	struct cfs_object_value v;
	int r = cfs_object_chunk_head(store, digest, &v, &head);

	if (r < 0)
		return r;
	*out = (struct cfs_chunk_facts){
		.raw_len = head->raw_len,
		.stored_len = v.stored_len,
		.codec = head->codec,
		.place = v,
	};
	return 0;
}
