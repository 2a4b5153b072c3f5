/* A hash table by the first half of the digest. */
#include "fs/daemon/chunkset.h"

#include <errno.h>
#include <string.h>

#include "store/util/digest.h"

static void key_of(const struct cfs_digest *digest, uint64_t key[2])
{
	memcpy(key, digest->bytes, 2 * sizeof(*key));
	if (!key[0] && !key[1])
		key[0] = 1;
}

/* The key's slot, or the free one where it belongs. */
static size_t find(const struct cfs_chunkset *set, const uint64_t key[2])
{
	size_t i = (size_t)(key[0] ^ key[0] >> 32) & set->mask;

	while ((set->slots[i].key[0] || set->slots[i].key[1]) &&
	       (set->slots[i].key[0] != key[0] ||
		set->slots[i].key[1] != key[1]))
		i = (i + 1) & set->mask;
	return i;
}

static int grow(struct cfs_chunkset *set)
{
	struct cfs_chunkset bigger = {.mask = set->mask ? 2 * set->mask + 1
							: 1023};
	size_t i;

	bigger.slots = calloc(bigger.mask + 1, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (i = 0; set->slots && i <= set->mask; i++)
		if (set->slots[i].key[0] || set->slots[i].key[1])
			bigger.slots[find(&bigger, set->slots[i].key)] =
				set->slots[i];
	bigger.n = set->n;
	free(set->slots);
	*set = bigger;
	return 0;
}

static int put(struct cfs_chunkset *set, const uint64_t key[2],
	       struct cfs_chunkset_item **item_out, bool *fresh_out)
{
	struct cfs_chunkset_item *item;

	if (!set->slots || set->n > set->mask / 4 * 3) {
		int r = grow(set);

		if (r < 0)
			return r;
	}
	item = &set->slots[find(set, key)];
	*fresh_out = !item->key[0] && !item->key[1];
	if (*fresh_out) {
		*item = (struct cfs_chunkset_item){.key = {key[0], key[1]}};
		set->n++;
	}
	*item_out = item;
	return 0;
}

int cfs_chunkset_put(struct cfs_chunkset *set, const struct cfs_digest *digest,
		     struct cfs_chunkset_item **item_out, bool *fresh_out)
{
	uint64_t key[2];

	key_of(digest, key);
	return put(set, key, item_out, fresh_out);
}

struct cfs_chunkset_item *cfs_chunkset_get(const struct cfs_chunkset *set,
					   const struct cfs_digest *digest)
{
	struct cfs_chunkset_item *item;
	uint64_t key[2];

	if (!set->slots)
		return NULL;
	key_of(digest, key);
	item = &set->slots[find(set, key)];
	return item->key[0] || item->key[1] ? item : NULL;
}

void cfs_chunkset_free(struct cfs_chunkset *set)
{
	free(set->slots);
	*set = (struct cfs_chunkset){0};
}

int cfs_chunkset_put_ino_item(struct cfs_chunkset *set, uint64_t ino,
			      struct cfs_chunkset_item **item_out,
			      bool *fresh_out)
{
	/* spread, so that neighbours do not crowd */
	uint64_t key[2] = {ino * UINT64_C(0x9e3779b97f4a7c15), ino};

	return put(set, key, item_out, fresh_out);
}

int cfs_chunkset_put_ino(struct cfs_chunkset *set, uint64_t ino)
{
	struct cfs_chunkset_item *item;
	bool fresh;
	int r;

	r = cfs_chunkset_put_ino_item(set, ino, &item, &fresh);
	return r < 0 ? r : !fresh;
}
