/*
 * Shown steps: a sorted table of files whose maps are built on first use.
 *
 * `ls -l` of a step of 64 ranks builds every map, for its size.  Sizes are kept
 * for good; maps only while all of them together are small, the last ones used
 * first.  Who has a file open holds its map anyhow.
 */
#include "fs/format/format.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define KEPT_BYTES_MAX ((size_t)64 << 20)

/* One row.  lock is held while the map is built: that is the single flight,
 * and who waits for it would have to wait anyhow. */
struct cfs_tree_slot {
	pthread_mutex_t lock;
	struct cfs_map *map; /* guarded by lock; NULL until built, or dropped */
	size_t bytes;	     /* guarded by lock; of map */
	uint64_t size;	     /* guarded by lock; of the file */
	bool size_known;     /* guarded by lock */
	atomic_ulong used;   /* relaxed: a hint which to drop */
};

static atomic_size_t kept_bytes; /* of all trees; relaxed: a sum */
static atomic_ulong uses;	 /* relaxed: ever larger */

int cfs_tree_init(struct cfs_tree *tree, const struct cfs_tree_ops *ops,
		  struct cfs_step *step, const struct cfs_resolved *target)
{
	memset(tree, 0, sizeof(*tree));
	tree->ops = ops;
	tree->step = cfs_step_ref(step);
	tree->target = *target;
	tree->refs = 1;
	return 0;
}

int cfs_tree_add(struct cfs_tree *tree, const char *name, mode_t mode,
		 uint32_t index)
{
	struct cfs_tree_file *files;

	if (tree->slots)
		return -EINVAL; /* sealed */
	/* Doubles at powers of two. */
	if (!(tree->n_files & (tree->n_files - 1))) {
		size_t cap = tree->n_files ? 2 * (size_t)tree->n_files : 1;

		files = realloc(tree->files, cap * sizeof(*files));
		if (!files)
			return -ENOMEM;
		tree->files = files;
	}
	files = &tree->files[tree->n_files];
	files->name = strdup(name);
	if (!files->name)
		return -ENOMEM;
	files->mode = mode;
	files->index = index;
	tree->n_files++;
	return 0;
}

static int file_cmp(const void *a, const void *b)
{
	const struct cfs_tree_file *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int cfs_tree_seal(struct cfs_tree *tree)
{
	struct cfs_tree_slot *slots;

	if (tree->n_files)
		qsort(tree->files, tree->n_files, sizeof(*tree->files),
		      file_cmp);
	for (uint32_t i = 1; i < tree->n_files; i++)
		if (!strcmp(tree->files[i - 1].name, tree->files[i].name))
			return -EEXIST;
	slots = calloc((size_t)tree->n_files + 1, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->n_files; i++)
		pthread_mutex_init(&slots[i].lock, NULL);
	tree->slots = slots;
	return 0;
}

/* slot->lock is held, or nobody else is there. */
static void drop(struct cfs_tree_slot *slot)
{
	atomic_fetch_sub_explicit(&kept_bytes, slot->bytes,
				  memory_order_relaxed);
	cfs_map_unref(slot->map);
	slot->map = NULL;
	slot->bytes = 0;
}

void cfs_tree_fini(struct cfs_tree *tree)
{
	for (uint32_t i = 0; i < tree->n_files; i++) {
		free(tree->files[i].name);
		if (!tree->slots)
			continue;
		drop(&tree->slots[i]);
		pthread_mutex_destroy(&tree->slots[i].lock);
	}
	free(tree->files);
	free(tree->slots);
	cfs_step_unref(tree->step);
	memset(tree, 0, sizeof(*tree));
}

struct cfs_tree *cfs_tree_ref(struct cfs_tree *tree)
{
	__atomic_add_fetch(&tree->refs, 1, __ATOMIC_RELAXED);
	return tree;
}

void cfs_tree_unref(struct cfs_tree *tree)
{
	if (tree && !__atomic_sub_fetch(&tree->refs, 1, __ATOMIC_ACQ_REL))
		tree->ops->free(tree);
}

void cfs_tree_unrefp(struct cfs_tree **tree)
{
	cfs_tree_unref(*tree);
}

int cfs_tree_find(const struct cfs_tree *tree, const char *name,
		  uint32_t *row_out)
{
	uint32_t lo = 0, hi = tree->n_files;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int c = strcmp(name, tree->files[mid].name);

		if (!c) {
			*row_out = mid;
			return 0;
		}
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return -ENOENT;
}

uint32_t cfs_tree_below(const struct cfs_tree *tree, const char *name)
{
	size_t len = strlen(name);
	uint32_t lo = 0, hi = tree->n_files;

	/* names that begin so, but for a '/', may lie before */
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const char *have = tree->files[mid].name;
		int c = strncmp(have, name, len);

		if (c < 0 || (!c && (unsigned char)have[len] < '/'))
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < tree->n_files && !strncmp(tree->files[lo].name, name, len) &&
	    tree->files[lo].name[len] == '/')
		return lo;
	return tree->n_files;
}

static unsigned long used(struct cfs_tree_slot *slot)
{
	return atomic_load_explicit(&slot->used, memory_order_relaxed);
}

/* The least recently used map of the tree; rows in use are passed over. */
static struct cfs_tree_slot *oldest(struct cfs_tree *tree, uint32_t keep)
{
	struct cfs_tree_slot *found = NULL;

	for (uint32_t i = 0; i < tree->n_files; i++) {
		struct cfs_tree_slot *slot = &tree->slots[i];

		if (i == keep || (found && used(slot) >= used(found)) ||
		    pthread_mutex_trylock(&slot->lock))
			continue;
		if (slot->map)
			found = slot;
		pthread_mutex_unlock(&slot->lock);
	}
	return found;
}

/* No lock is held. */
static void drop_some(struct cfs_tree *tree, uint32_t keep)
{
	struct cfs_tree_slot *slot;

	while (atomic_load_explicit(&kept_bytes, memory_order_relaxed) >
		       KEPT_BYTES_MAX &&
	       (slot = oldest(tree, keep))) {
		pthread_mutex_lock(&slot->lock);
		drop(slot);
		pthread_mutex_unlock(&slot->lock);
	}
}

/* slot->lock is held. */
static int build(struct cfs_tree *tree, uint32_t row, struct cfs_error *err)
{
	struct cfs_tree_slot *slot = &tree->slots[row];
	int r;

	r = tree->ops->build(tree, tree->files[row].index, &slot->map, err);
	if (r < 0)
		return r;
	slot->bytes = cfs_map_memory_bytes(slot->map);
	slot->size = cfs_map_size(slot->map);
	slot->size_known = true;
	atomic_fetch_add_explicit(&kept_bytes, slot->bytes,
				  memory_order_relaxed);
	return 0;
}

static void touch(struct cfs_tree_slot *slot)
{
	unsigned long now =
		atomic_fetch_add_explicit(&uses, 1, memory_order_relaxed);

	atomic_store_explicit(&slot->used, now, memory_order_relaxed);
}

int cfs_tree_map(struct cfs_tree *tree, uint32_t row, struct cfs_map **map_out,
		 struct cfs_error *err)
{
	struct cfs_tree_slot *slot;
	bool built;
	int r = 0;

	if (row >= tree->n_files || !tree->slots)
		return -EINVAL;
	slot = &tree->slots[row];
	pthread_mutex_lock(&slot->lock);
	built = !slot->map;
	if (built)
		r = build(tree, row, err);
	if (!r)
		*map_out = cfs_map_ref(slot->map);
	touch(slot);
	pthread_mutex_unlock(&slot->lock);
	if (built && !r)
		drop_some(tree, row);
	return r;
}

int cfs_tree_size(struct cfs_tree *tree, uint32_t row, uint64_t *size_out,
		  struct cfs_error *err)
{
	struct cfs_tree_slot *slot;
	bool built = false;
	int r = 0;

	if (row >= tree->n_files || !tree->slots)
		return -EINVAL;
	slot = &tree->slots[row];
	pthread_mutex_lock(&slot->lock);
	if (!slot->size_known) {
		r = build(tree, row, err);
		built = !r;
		touch(slot);
	}
	if (!r)
		*size_out = slot->size;
	pthread_mutex_unlock(&slot->lock);
	if (built)
		drop_some(tree, row);
	return r;
}
