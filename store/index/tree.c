/*
 * The treap: a binary search tree by key that is a heap by priority, the
 * priority being a hash of the key.  So its shape depends on the keys alone,
 * and a key is found before anything of a lower priority.  The seed is the
 * process's own: nobody can choose names that make it deep.
 */
#include "store/index/tree.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "store/util/hash.h"

struct cfs_memtree {
	_Atomic unsigned refs;
	struct cfs_memtree *left, *right;
	struct cfs_memtree_item *item;
	uint64_t prio; /* not below the children's */
};

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void seed_make(void)
{
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = (uintptr_t)&seed;
}

static uint64_t prio_of(struct cfs_slice key)
{
	(void)pthread_once(&seed_once, seed_make);
	return cfs_hash64(key.data, key.len, seed);
}

int cfs_memtree_cmp(struct cfs_slice a, struct cfs_slice b)
{
	size_t n = CFS_MIN(a.len, b.len);
	int r = n ? memcmp(a.data, b.data, n) : 0;

	if (r)
		return r;
	return (a.len > b.len) - (a.len < b.len);
}

bool cfs_memtree_has_prefix(struct cfs_slice key, struct cfs_slice prefix)
{
	return key.len >= prefix.len &&
	       (!prefix.len || !memcmp(key.data, prefix.data, prefix.len));
}

size_t cfs_memtree_entry_bytes(size_t key_len, size_t val_len)
{
	/* 16: what malloc() adds, twice 8 */
	return sizeof(struct cfs_memtree) + sizeof(struct cfs_memtree_item) +
	       key_len + val_len + 16;
}

/* ---- counting: as in any shared pointer, the last one must see all ---- */

static void item_unref(struct cfs_memtree_item *item)
{
	if (atomic_fetch_sub_explicit(&item->refs, 1, memory_order_acq_rel) ==
	    1)
		free(item);
}

static struct cfs_memtree_item *item_ref(struct cfs_memtree_item *item)
{
	atomic_fetch_add_explicit(&item->refs, 1, memory_order_relaxed);
	return item;
}

static struct cfs_memtree_item *item_new(struct cfs_slice key,
					 const struct cfs_slice *val)
{
	size_t val_len = val ? val->len : 0;
	struct cfs_memtree_item *item;

	if (key.len > UINT32_MAX || val_len > UINT32_MAX)
		return NULL;
	item = malloc(sizeof(*item) + key.len + val_len);
	if (!item)
		return NULL;
	atomic_init(&item->refs, 1);
	item->key_len = (uint32_t)key.len;
	item->val_len = (uint32_t)val_len;
	item->deleted = !val;
	if (key.len)
		memcpy(item->bytes, key.data, key.len);
	if (val_len)
		memcpy(item->bytes + key.len, val->data, val_len);
	return item;
}

struct cfs_memtree *cfs_memtree_ref(struct cfs_memtree *root)
{
	if (root)
		atomic_fetch_add_explicit(&root->refs, 1, memory_order_relaxed);
	return root;
}

void cfs_memtree_unref(struct cfs_memtree *root)
{
	while (root && atomic_fetch_sub_explicit(&root->refs, 1,
						 memory_order_acq_rel) == 1) {
		struct cfs_memtree *right = root->right;

		cfs_memtree_unref(root->left);
		item_unref(root->item);
		free(root);
		root = right;
	}
}

void cfs_memtree_unrefp(struct cfs_memtree **root)
{
	cfs_memtree_unref(*root);
}

/* ---- looking up ---- */

const struct cfs_memtree_item *cfs_memtree_get(const struct cfs_memtree *root,
					       struct cfs_slice key)
{
	while (root) {
		int r = cfs_memtree_cmp(key, cfs_memtree_item_key(root->item));

		if (!r)
			return root->item;
		root = r < 0 ? root->left : root->right;
	}
	return NULL;
}

const struct cfs_memtree_item *cfs_memtree_seek(const struct cfs_memtree *root,
						struct cfs_slice key,
						bool after)
{
	const struct cfs_memtree_item *best = NULL;

	while (root) {
		int r = cfs_memtree_cmp(cfs_memtree_item_key(root->item), key);

		if (r > 0 || (!r && !after)) {
			best = root->item;
			root = root->left;
		} else {
			root = root->right;
		}
	}
	return best;
}

/* ---- changing ---- */

/*
 * Makes the node at @link this root's own, a copy if others see it, too.
 * Nobody else can gain a reference to a node that only we hold.
 */
static int own(struct cfs_memtree **link)
{
	struct cfs_memtree *old = *link, *copy;

	if (atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
		return 0;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	atomic_init(&copy->refs, 1);
	copy->left = cfs_memtree_ref(old->left);
	copy->right = cfs_memtree_ref(old->right);
	copy->item = item_ref(old->item);
	copy->prio = old->prio;
	*link = copy;
	cfs_memtree_unref(old);
	return 0;
}

/* Owns all nodes down to @key or to where it would be; the tree says the same
 * before and after, also when it fails.  The link to the key, or to NULL. */
static int own_path(struct cfs_memtree **link, struct cfs_slice key,
		    struct cfs_memtree ***link_out)
{
	while (*link) {
		int r = own(link);

		if (r < 0)
			return r;
		r = cfs_memtree_cmp(key, cfs_memtree_item_key((*link)->item));
		if (!r)
			break;
		link = r < 0 ? &(*link)->left : &(*link)->right;
	}
	*link_out = link;
	return 0;
}

/* Puts @node where the heap wants it and splits what was there below it; the
 * path is owned, the key is not in the tree. */
static void insert(struct cfs_memtree **link, struct cfs_memtree *node)
{
	struct cfs_slice key = cfs_memtree_item_key(node->item);
	struct cfs_memtree **l = &node->left, **r = &node->right, *cur;

	while (*link && (*link)->prio >= node->prio)
		link = cfs_memtree_cmp(key,
				       cfs_memtree_item_key((*link)->item)) < 0
			       ? &(*link)->left
			       : &(*link)->right;
	cur = *link;
	*link = node;
	while (cur) {
		if (cfs_memtree_cmp(key, cfs_memtree_item_key(cur->item)) < 0) {
			*r = cur;
			r = &cur->left;
			cur = *r;
		} else {
			*l = cur;
			l = &cur->right;
			cur = *l;
		}
	}
	*l = NULL;
	*r = NULL;
}

static struct cfs_memtree *node_new(struct cfs_slice key,
				    const struct cfs_slice *val)
{
	struct cfs_memtree *node = malloc(sizeof(*node));

	if (!node)
		return NULL;
	node->item = item_new(key, val);
	if (!node->item) {
		free(node);
		return NULL;
	}
	atomic_init(&node->refs, 1);
	node->left = NULL;
	node->right = NULL;
	node->prio = prio_of(key);
	return node;
}

/* Takes @node over; its path is owned, and this link its end.  1: a new key. */
static int place(struct cfs_memtree **root, struct cfs_memtree **link,
		 struct cfs_memtree *node)
{
	if (!*link) {
		insert(root, node);
		return 1;
	}
	item_unref((*link)->item);
	(*link)->item = node->item;
	free(node);
	return 0;
}

int cfs_memtree_put(struct cfs_memtree **root, struct cfs_slice key,
		    const struct cfs_slice *val)
{
	struct cfs_memtree *node = node_new(key, val), **link;
	int r;

	if (!node)
		return -ENOMEM;
	r = own_path(root, key, &link);
	if (r < 0) {
		cfs_memtree_unref(node);
		return r;
	}
	return place(root, link, node);
}

struct fresh { /* nodes to place, in order, linked by right */
	struct cfs_memtree **root, *first, **end;
};

static int prepare(void *arg, struct cfs_slice key, const struct cfs_slice *val)
{
	struct fresh *fresh = arg;
	struct cfs_memtree **link;

	*fresh->end = node_new(key, val);
	if (!*fresh->end)
		return -ENOMEM;
	fresh->end = &(*fresh->end)->right;
	return own_path(fresh->root, key, &link);
}

/* As own_path() found, of a path that is owned. */
static struct cfs_memtree **link_of(struct cfs_memtree **link,
				    struct cfs_slice key)
{
	while (*link) {
		int r = cfs_memtree_cmp(key,
					cfs_memtree_item_key((*link)->item));

		assert((*link)->refs == 1);
		if (!r)
			break;
		link = r < 0 ? &(*link)->left : &(*link)->right;
	}
	return link;
}

int cfs_memtree_apply(struct cfs_memtree **root, const struct cfs_batch *batch)
{
	struct fresh fresh = {.root = root, .end = &fresh.first};
	struct cfs_memtree *node;
	int n = 0, r;

	/* Everything that can fail comes first and changes nothing. */
	r = cfs_batch_each(batch->bytes.data, batch->bytes.len, prepare,
			   &fresh);
	if (r < 0) {
		cfs_memtree_unref(fresh.first);
		return r;
	}
	while ((node = fresh.first)) {
		fresh.first = cfs_steal(node->right);
		/* placing one moves only owned nodes into the next's path */
		n += place(root,
			   link_of(root, cfs_memtree_item_key(node->item)),
			   node);
	}
	return n;
}

/* Joins two trees, all of @a before all of @b, at @link.  Takes both over. */
static int join(struct cfs_memtree **link, struct cfs_memtree *a,
		struct cfs_memtree *b)
{
	int r = 0;

	while (a && b && !r) {
		if (a->prio >= b->prio) {
			r = own(&a);
			*link = a;
			link = &a->right;
			a = r < 0 ? NULL : *link;
		} else {
			r = own(&b);
			*link = b;
			link = &b->left;
			b = r < 0 ? NULL : *link;
		}
	}
	if (r < 0) { /* @link is that of a node not owned: leave it be */
		cfs_memtree_unref(a);
		cfs_memtree_unref(b);
		return r;
	}
	*link = a ? a : b;
	return 0;
}

int cfs_memtree_remove(struct cfs_memtree **root, struct cfs_slice key)
{
	struct cfs_memtree **link, *node;
	int r;

	if (!cfs_memtree_get(*root, key))
		return 0;
	r = own_path(root, key, &link);
	if (r < 0)
		return r;
	node = *link;
	assert(node);
	*link = NULL;
	r = join(link, node->left, node->right);
	item_unref(node->item);
	free(node);
	return r;
}
