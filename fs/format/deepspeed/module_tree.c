#include "fs/format/deepspeed/module_tree.h"

#include <stdio.h>

#include "store/util/base.h"

#define DEPTH_MAX 8u
/* A hostile file has one dictionary in many places. */
#define VISITS_MAX (1u << 20)
#define NAME_MAX_  512u

bool cfs_ds_module_is_tree(const struct cfs_node *module)
{
	uint32_t n = cfs_map_node_count(module);

	for (uint32_t i = 0; i < n; i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(module, i, &key, &value);
		if (!cfs_node_as_str(key) || !cfs_node_is_map(value))
			return false;
	}
	return n > 0;
}

/* "@prefix@name" into @buf. */
static bool join(const char *prefix, const struct cfs_node *key, char *buf)
{
	const char *name = cfs_node_as_str(key);

	return name && (size_t)snprintf(buf, NAME_MAX_, "%s%s%s", prefix,
					*prefix ? "." : "", name) < NAME_MAX_;
}

/* ---- to names ---- */

static bool flatten(struct cfs_pickle *doc, const struct cfs_node *tree,
		    const char *prefix, uint32_t depth, uint32_t *visits,
		    struct cfs_node *out)
{
	char name[NAME_MAX_];

	if (depth > DEPTH_MAX)
		return false;
	for (uint32_t i = 0; i < cfs_map_node_count(tree); i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(tree, i, &key, &value);
		if (!join(prefix, key, name) || ++*visits > VISITS_MAX)
			return false;
		if (!cfs_node_is_map(value))
			cfs_node_set_str(doc, out, name, value);
		else if (!flatten(doc, value, name, depth + 1, visits, out))
			return false;
	}
	return true;
}

struct cfs_node *cfs_ds_module_flat(struct cfs_pickle *doc,
				    const struct cfs_node *tree)
{
	struct cfs_node *out = cfs_node_ordereddict(doc);
	uint32_t visits = 0;

	return out && flatten(doc, tree, "", 0, &visits, out) ? out : NULL;
}

struct cfs_node *cfs_ds_module_flat_root(struct cfs_pickle *doc,
					 struct cfs_node *root)
{
	const struct cfs_node *module = cfs_node_get(root, "module");
	struct cfs_node *flat, *copy;

	if (!cfs_ds_module_is_tree(module))
		return root;
	flat = cfs_ds_module_flat(doc, module);
	if (!flat)
		return cfs_pickle_failed(doc) ? NULL : root;
	copy = cfs_node_copy(doc, root);
	if (copy)
		cfs_node_replace(doc, copy, "module", flat);
	return copy;
}

/* ---- and back ---- */

/* In a fresh copy, values are changed in place. */
static struct cfs_node **slot(struct cfs_node *copy, uint32_t i)
{
	if (copy->kind == CFS_NODE_DICT)
		return &copy->u.items[2 * (size_t)i + 1];
	return &copy->u.object->ops[copy->u.object->setitem_at + i].b;
}

static struct cfs_node *nest(struct cfs_pickle *doc,
			     const struct cfs_node *tree, const char *prefix,
			     const struct cfs_node_index *flat)
{
	struct cfs_node *copy = cfs_node_copy(doc, tree);
	char name[NAME_MAX_];

	for (uint32_t i = 0; copy && i < cfs_map_node_count(copy); i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(copy, i, &key, &value);
		if (!join(prefix, key, name))
			return NULL;
		value = cfs_node_is_map(value) ? nest(doc, value, name, flat)
					       : cfs_node_index_get(flat, name);
		if (!value)
			return NULL;
		*slot(copy, i) = value;
	}
	return copy;
}

struct cfs_node *cfs_ds_module_nest(struct cfs_pickle *doc,
				    const struct cfs_node *tree,
				    const struct cfs_node *flat)
{
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *index = NULL;

	return cfs_node_index_new(flat, &index) < 0
		       ? NULL
		       : nest(doc, tree, "", index);
}
