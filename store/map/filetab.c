/* The files that the maps of one plan point into: path and version, once. */
#include "store/map/map.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/util/hash.h"

struct entry {
	struct cfs_version version;
	char path[];
};

struct cfs_filetab {
	atomic_uint refs;
	pthread_mutex_t lock;	/* guards all below */
	struct entry **entries; /* each stays where it is */
	uint32_t n, cap;
	uint32_t *slots;  /* open addressing over paths: index + 1, or 0 */
	uint32_t n_slots; /* a power of two, at least twice n */
};

struct cfs_filetab *cfs_filetab_new(void)
{
	struct cfs_filetab *tab = calloc(1, sizeof(*tab));

	if (!tab)
		return NULL;
	atomic_init(&tab->refs, 1);
	(void)pthread_mutex_init(&tab->lock, NULL);
	return tab;
}

struct cfs_filetab *cfs_filetab_ref(struct cfs_filetab *tab)
{
	/* relaxed: whoever takes a reference holds one already */
	(void)atomic_fetch_add_explicit(&tab->refs, 1, memory_order_relaxed);
	return tab;
}

void cfs_filetab_unref(struct cfs_filetab *tab)
{
	/* acq_rel: the last one must see what the others did */
	if (!tab ||
	    atomic_fetch_sub_explicit(&tab->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < tab->n; i++)
		free(tab->entries[i]);
	free(tab->entries);
	free(tab->slots);
	(void)pthread_mutex_destroy(&tab->lock);
	free(tab);
}

void cfs_filetab_unrefp(struct cfs_filetab **tab)
{
	cfs_filetab_unref(*tab);
}

/* The slot that holds @path or is free for it. */
static uint32_t *slot_of(const struct cfs_filetab *tab, const char *path)
{
	uint32_t mask = tab->n_slots - 1;
	uint32_t i = (uint32_t)cfs_hash64(path, strlen(path), 0) & mask;

	while (tab->slots[i] &&
	       strcmp(tab->entries[tab->slots[i] - 1]->path, path) != 0)
		i = (i + 1) & mask;
	return &tab->slots[i];
}

static int make_room(struct cfs_filetab *tab)
{
	uint32_t cap = tab->cap ? tab->cap * 2 : 16;
	struct entry **entries;
	uint32_t *slots;

	if (tab->n < tab->cap)
		return 0;
	if (cap > UINT32_MAX / 4)
		return -EOVERFLOW;
	entries = realloc(tab->entries, cap * sizeof(struct entry *));
	if (!entries)
		return -ENOMEM;
	tab->entries = entries;
	slots = calloc((size_t)cap * 2, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(tab->slots);
	tab->slots = slots;
	tab->cap = cap;
	tab->n_slots = cap * 2;
	for (uint32_t i = 0; i < tab->n; i++)
		*slot_of(tab, entries[i]->path) = i + 1;
	return 0;
}

static int add(struct cfs_filetab *tab, const char *path,
	       const struct cfs_version *version, uint32_t *index_out)
{
	size_t len = strlen(path) + 1;
	struct entry *e;
	uint32_t *slot;
	int r;

	r = make_room(tab);
	if (r < 0)
		return r;
	slot = slot_of(tab, path);
	if (*slot) {
		if (!cfs_version_equal(&tab->entries[*slot - 1]->version,
				       version))
			return -EEXIST;
		*index_out = *slot - 1;
		return 0;
	}
	e = malloc(sizeof(*e) + len);
	if (!e)
		return -ENOMEM;
	e->version = *version;
	memcpy(e->path, path, len);
	tab->entries[tab->n++] = e;
	*slot = tab->n;
	*index_out = tab->n - 1;
	return 0;
}

int cfs_filetab_add(struct cfs_filetab *tab, const char *path,
		    const struct cfs_version *version, uint32_t *index_out)
{
	int r;

	(void)pthread_mutex_lock(&tab->lock);
	r = add(tab, path, version, index_out);
	(void)pthread_mutex_unlock(&tab->lock);
	return r;
}

uint32_t cfs_filetab_count(const struct cfs_filetab *tab)
{
	struct cfs_filetab *t = (struct cfs_filetab *)(uintptr_t)tab;
	uint32_t n;

	(void)pthread_mutex_lock(&t->lock);
	n = t->n;
	(void)pthread_mutex_unlock(&t->lock);
	return n;
}

static const struct entry *entry_at(const struct cfs_filetab *tab,
				    uint32_t index)
{
	struct cfs_filetab *t = (struct cfs_filetab *)(uintptr_t)tab;
	const struct entry *e;

	(void)pthread_mutex_lock(&t->lock);
	e = t->entries[index];
	(void)pthread_mutex_unlock(&t->lock);
	return e;
}

const char *cfs_filetab_path(const struct cfs_filetab *tab, uint32_t index)
{
	return entry_at(tab, index)->path;
}

const struct cfs_version *cfs_filetab_version(const struct cfs_filetab *tab,
					      uint32_t index)
{
	return &entry_at(tab, index)->version;
}
