/* Looking at nodes: every answer to a wrong question is "no". */
#include "fs/container/pickle.h"

#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "store/util/hash.h"

bool cfs_node_is_map(const struct cfs_node *node)
{
	if (!node)
		return false;
	if (node->kind == CFS_NODE_DICT)
		return true;
	return node->kind == CFS_NODE_OBJECT && !node->u.object->scattered &&
	       (node->u.object->n_setitem ||
		cfs_node_is_global(node->u.object->fn, "collections",
				   "OrderedDict") ||
		cfs_node_is_global(node->u.object->fn, "collections",
				   "defaultdict"));
}

uint32_t cfs_map_node_count(const struct cfs_node *map)
{
	if (!cfs_node_is_map(map))
		return 0;
	return map->kind == CFS_NODE_DICT ? map->n : map->u.object->n_setitem;
}

void cfs_map_node_pair(const struct cfs_node *map, uint32_t i,
		       struct cfs_node **key_out, struct cfs_node **value_out)
{
	const struct cfs_node_op *op;

	if (i >= cfs_map_node_count(map)) {
		*key_out = *value_out = NULL;
		return;
	}
	if (map->kind == CFS_NODE_DICT) {
		*key_out = map->u.items[(size_t)i * 2];
		*value_out = map->u.items[(size_t)i * 2 + 1];
		return;
	}
	op = &map->u.object->ops[map->u.object->setitem_at + i];
	*key_out = op->a;
	*value_out = op->b;
}

struct cfs_node *cfs_node_get(const struct cfs_node *map, const char *key)
{
	const size_t len = strlen(key);
	struct cfs_node *k, *v;

	for (uint32_t i = cfs_map_node_count(map); i-- > 0;) {
		cfs_map_node_pair(map, i, &k, &v);
		if (k && k->kind == CFS_NODE_STR && k->u.str.len == len &&
		    !memcmp(k->u.str.data, key, len))
			return v;
	}
	return NULL;
}

struct cfs_node *cfs_node_get_int(const struct cfs_node *map, int64_t key)
{
	struct cfs_node *k, *v;

	for (uint32_t i = cfs_map_node_count(map); i-- > 0;) {
		cfs_map_node_pair(map, i, &k, &v);
		if (k && k->kind == CFS_NODE_INT && k->u.integer == key)
			return v;
	}
	return NULL;
}

/* Chained; newer pairs come first, so the last one stored is found. */
struct cfs_node_index {
	const struct cfs_node *map;
	size_t mask;
	uint32_t *heads, *next; /* pair + 1; 0 ends a chain */
};

static size_t bucket(const struct cfs_node_index *index, const char *s,
		     size_t len)
{
	return (size_t)cfs_hash64(s, len, cfs_u64map_seed()) & index->mask;
}

int cfs_node_index_new(const struct cfs_node *map, struct cfs_node_index **out)
{
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *index = NULL;
	const uint32_t n = cfs_map_node_count(map);
	struct cfs_node *k, *v;
	size_t at;

	index = calloc(1, sizeof(*index));
	if (!index)
		return -ENOMEM;
	index->map = map;
	index->mask = 15;
	while (index->mask < n)
		index->mask = index->mask * 2 + 1;
	index->heads = calloc(index->mask + 1, sizeof(*index->heads));
	index->next = calloc((size_t)n + 1, sizeof(*index->next));
	if (!index->heads || !index->next)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		cfs_map_node_pair(map, i, &k, &v);
		if (!k || k->kind != CFS_NODE_STR)
			continue;
		at = bucket(index, k->u.str.data, k->u.str.len);
		index->next[i] = index->heads[at];
		index->heads[at] = i + 1;
	}
	*out = cfs_steal(index);
	return 0;
}

void cfs_node_index_free(struct cfs_node_index *index)
{
	if (!index)
		return;
	free(index->heads);
	free(index->next);
	free(index);
}

void cfs_node_index_freep(struct cfs_node_index **index)
{
	cfs_node_index_free(*index);
}

struct cfs_node *cfs_node_index_get(const struct cfs_node_index *index,
				    const char *key)
{
	const size_t len = strlen(key);
	struct cfs_node *k, *v;
	uint32_t i;

	for (i = index->heads[bucket(index, key, len)]; i;
	     i = index->next[i - 1]) {
		cfs_map_node_pair(index->map, i - 1, &k, &v);
		if (k && k->u.str.len == len &&
		    !memcmp(k->u.str.data, key, len))
			return v;
	}
	return NULL;
}

bool cfs_node_is_seq(const struct cfs_node *node)
{
	if (!node)
		return false;
	if (node->kind == CFS_NODE_LIST || node->kind == CFS_NODE_TUPLE)
		return true;
	return node->kind == CFS_NODE_OBJECT && !node->u.object->scattered &&
	       node->u.object->n_append;
}

uint32_t cfs_seq_node_count(const struct cfs_node *seq)
{
	if (!cfs_node_is_seq(seq))
		return 0;
	return seq->kind == CFS_NODE_OBJECT ? seq->u.object->n_append : seq->n;
}

struct cfs_node *cfs_seq_node_item(const struct cfs_node *seq, uint32_t i)
{
	if (i >= cfs_seq_node_count(seq))
		return NULL;
	if (seq->kind != CFS_NODE_OBJECT)
		return seq->u.items[i];
	return seq->u.object->ops[seq->u.object->append_at + i].a;
}

struct cfs_node *cfs_node_state(const struct cfs_node *node)
{
	if (!node || node->kind != CFS_NODE_OBJECT)
		return NULL;
	for (uint32_t i = node->u.object->n_ops; i-- > 0;)
		if (node->u.object->ops[i].kind == CFS_OP_BUILD)
			return node->u.object->ops[i].a;
	return NULL;
}

bool cfs_node_as_int(const struct cfs_node *node, int64_t *out)
{
	if (node && node->kind == CFS_NODE_INT)
		*out = node->u.integer;
	else if (node && node->kind == CFS_NODE_BOOL)
		*out = node->u.boolean;
	else
		return false;
	return true;
}

bool cfs_node_as_u64(const struct cfs_node *node, uint64_t *out)
{
	int64_t v;

	if (!cfs_node_as_int(node, &v) || v < 0)
		return false;
	*out = (uint64_t)v;
	return true;
}

bool cfs_node_as_real(const struct cfs_node *node, double *out)
{
	int64_t v;

	if (node && node->kind == CFS_NODE_FLOAT) {
		*out = node->u.real;
		return true;
	}
	if (!cfs_node_as_int(node, &v))
		return false;
	*out = (double)v;
	return true;
}

const char *cfs_node_as_str(const struct cfs_node *node)
{
	return node && node->kind == CFS_NODE_STR ? node->u.str.data : NULL;
}

bool cfs_node_as_bool(const struct cfs_node *node, bool *out)
{
	if (!node || node->kind != CFS_NODE_BOOL)
		return false;
	*out = node->u.boolean;
	return true;
}

bool cfs_node_is_none(const struct cfs_node *node)
{
	return node && node->kind == CFS_NODE_NONE;
}

static const char *module_alias(const char *module)
{
	if (!strcmp(module, "__builtin__"))
		return "builtins";
	if (!strcmp(module, "copy_reg"))
		return "copyreg";
	return module;
}

bool cfs_node_is_global(const struct cfs_node *node, const char *module,
			const char *name)
{
	return node && node->kind == CFS_NODE_GLOBAL &&
	       !strcmp(node->u.global.name, name) &&
	       !strcmp(module_alias(node->u.global.module),
		       module_alias(module));
}

struct cfs_node *cfs_node_call_args(const struct cfs_node *node,
				    const char *module, const char *name)
{
	if (!node || node->kind != CFS_NODE_OBJECT ||
	    !cfs_node_is_global(node->u.object->fn, module, name))
		return NULL;
	return node->u.object->args;
}

bool cfs_node_as_shape(const struct cfs_node *node, uint32_t max_ndim,
		       uint32_t *ndim_out, uint64_t *shape_out)
{
	const struct cfs_node *args = cfs_node_call_args(node, "torch", "Size");
	uint32_t n;

	if (args)
		node = cfs_seq_node_item(args, 0);
	if (!cfs_node_is_seq(node))
		return false;
	n = cfs_seq_node_count(node);
	if (n > max_ndim)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (!cfs_node_as_u64(cfs_seq_node_item(node, i), &shape_out[i]))
			return false;
	}
	*ndim_out = n;
	return true;
}
