/* From the pickle of a torch file to the table of its storages. */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/sniff_internal.h"
#include "fs/container/torch_internal.h"
#include "store/util/arena.h"

void cfs_sniff_table_fini(struct cfs_sniff_table *table)
{
	for (uint32_t i = 0; i < table->n_storages; i++)
		free(table->storages[i].key);
	free(table->storages);
	cfs_sniff_spans_fini(&table->spans);
	*table = (struct cfs_sniff_table){0};
}

static int by_key(const void *a, const void *b)
{
	const struct cfs_sniff_storage *x = a, *y = b;

	return strcmp(x->key, y->key);
}

/* @name, of @len bytes, may hold anything, NUL too. */
static int compare(const char *key, const char *name, size_t len)
{
	const size_t n = strlen(key);
	const int c = memcmp(key, name, CFS_MIN(n, len));

	return c ? c : (n > len) - (n < len);
}

const struct cfs_sniff_storage *
cfs_sniff_table_find(const struct cfs_sniff_table *table, const char *key,
		     size_t len)
{
	uint32_t lo = 0, hi = table->n_storages, mid;
	int c;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		c = compare(table->storages[mid].key, key, len);
		if (!c)
			return &table->storages[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* ---- every tensor of the tree, each node visited once ---- */

struct walk {
	struct cfs_u64map seen;
	struct cfs_node **todo;
	size_t n, cap;
	const bool *flat; /* by storage: described already */
	struct cfs_sniff_spans *spans;
};

static void walk_fini(struct walk *w)
{
	cfs_u64map_free(&w->seen);
	free(w->todo);
}

static int push(struct walk *w, struct cfs_node *node)
{
	struct cfs_node **todo;
	size_t cap;

	if (!node || !cfs_node_slots(node) ||
	    cfs_u64map_find(&w->seen, cfs_u64map_of(node)))
		return 0;
	if (!cfs_u64map_put(&w->seen, cfs_u64map_of(node), 1))
		return -ENOMEM;
	if (w->n == w->cap) {
		cap = w->cap ? w->cap * 2 : 64;
		todo = realloc(w->todo, cap * sizeof(*todo));
		if (!todo)
			return -ENOMEM;
		w->todo = todo;
		w->cap = cap;
	}
	w->todo[w->n++] = node;
	return 0;
}

static int note_tensor(struct walk *w, const struct cfs_torch_tensor *t)
{
	uint32_t size;
	struct cfs_sniff_span span;

	if (!t->storage || !t->contiguous || !t->numel || !t->storage->numel ||
	    w->flat[t->storage->number])
		return 0;
	size = cfs_dtype_size(t->dtype);
	if (!size)
		return 0;
	span = (struct cfs_sniff_span){.storage = t->storage->number,
				       .elem_size = CFS_MIN(size, 8u),
				       .off = t->storage_offset * size,
				       .len = t->numel * size,
				       .grid = true};
	/* an element of several bytes that has no name here */
	if (t->dtype == CFS_DTYPE_OTHER)
		return 0;
	return cfs_sniff_spans_add(w->spans, &span);
}

static int walk_tensors(struct walk *w, struct cfs_node *root)
{
	struct cfs_torch_tensor tensor;
	struct cfs_node *node;
	int r = push(w, root);

	while (!r && w->n) {
		node = w->todo[--w->n];
		if (!cfs_torch_tensor_get(node, &tensor)) {
			r = note_tensor(w, &tensor);
			continue;
		}
		for (size_t i = cfs_node_slots(node); !r && i-- > 0;)
			r = push(w, cfs_node_slot(node, i));
	}
	return r;
}

/* ---- the table ---- */

static uint32_t class_size(const struct cfs_torch_storage *s)
{
	const uint32_t size = s->numel ? (uint32_t)(s->nbytes / s->numel) : 0;

	return size <= 8 && size != 1 ? size : 0;
}

/* What no tensor covers, so that elements stay whole there, too. */
static int fill_gaps(struct cfs_sniff_spans *spans,
		     const struct cfs_torchfile *tf)
{
	const size_t n = spans->n;
	uint64_t off;
	size_t i = 0;
	int r = 0;

	for (uint32_t k = 0; !r && k < tf->n_storages; k++) {
		const struct cfs_torch_storage *s = tf->storages[k];
		struct cfs_sniff_span gap = {.storage = k,
					     .elem_size = class_size(s)};

		for (off = 0; !r; i++) {
			const bool mine = i < n && spans->v[i].storage == k;

			gap.off = off;
			gap.len = (mine ? spans->v[i].off : s->nbytes) - off;
			if (gap.elem_size)
				r = cfs_sniff_spans_add(spans, &gap);
			if (!mine)
				break;
			off = spans->v[i].off + spans->v[i].len;
		}
	}
	return r;
}

static int make_table(struct cfs_sniff_table *table,
		      const struct cfs_torchfile *tf)
{
	size_t at = 0;

	table->storages =
		calloc((size_t)tf->n_storages + 1, sizeof(*table->storages));
	if (!table->storages)
		return -ENOMEM;
	for (uint32_t k = 0; k < tf->n_storages; k++) {
		struct cfs_sniff_storage *s = &table->storages[k];

		s->key = strdup(tf->storages[k]->key);
		if (!s->key)
			return -ENOMEM;
		table->n_storages++;
		s->nbytes = tf->storages[k]->nbytes;
		s->first = at;
		while (at < table->spans.n && table->spans.v[at].storage == k)
			at++;
		s->n = at - s->first;
	}
	qsort(table->storages, table->n_storages, sizeof(*table->storages),
	      by_key);
	return 0;
}

static int read_tree(struct cfs_torchfile *tf, const void *pickle, size_t len)
{
	const struct cfs_pickle_limits limits = {.memory_bytes =
							 CFS_SNIFF_NODES_MAX};
	int r;

	tf->legacy = true; /* storages without a zip directory beside them */
	tf->arena = cfs_arena_new(CFS_SNIFF_NODES_MAX);
	tf->doc = cfs_pickle_new(&limits);
	if (!tf->arena || !tf->doc)
		return -ENOMEM;
	r = cfs_pickle_decode(tf->doc, pickle, len, &tf->root, NULL, NULL);
	return r < 0 ? r : cfs_torchfile_resolve(tf, NULL);
}

int cfs_sniff_table_read(struct cfs_sniff_table *table, const void *pickle,
			 size_t len, int64_t rank)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf =
		calloc(1, sizeof(*tf));
	_cleanup_(cfs_freep) bool *flat = NULL;
	_cleanup_(walk_fini) struct walk w = {.seen = CFS_U64MAP_INIT,
					      .spans = &table->spans};
	int r;

	if (!tf)
		return -ENOMEM;
	r = read_tree(tf, pickle, len);
	if (r < 0)
		return r;
	flat = calloc((size_t)tf->n_storages + 1, sizeof(*flat));
	if (!flat)
		return -ENOMEM;
	r = cfs_sniff_flat(tf->root, rank, &table->spans, flat);
	if (r < 0)
		return r;
	w.flat = flat;
	r = walk_tensors(&w, tf->root);
	if (r < 0)
		return r;
	cfs_sniff_spans_settle(&table->spans);
	r = fill_gaps(&table->spans, tf);
	if (r < 0)
		return r;
	cfs_sniff_spans_settle(&table->spans);
	return make_table(table, tf);
}
