/* Collects leaves that are no tensors. */
#include "fs/cli/leaves.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/nodes.h"
#include "fs/container/torchfile.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "fs/format/format.h"
#include "store/util/grow.h"

struct collect {
	struct cfs_leaves *leaves;
	const char *prefix;
};

static int add(void *arg, const char *path, const struct cfs_node *node)
{
	struct collect *c = arg;
	struct cfs_leaves *l = c->leaves;
	struct cfs_leaves_item *item;

	if (cfs_torch_is_tensor(node))
		return 0;
	if (!CFS_GROW(l->items, l->n, l->cap))
		return -ENOMEM;
	item = &l->items[l->n];
	item->node = node;
	if (asprintf(&item->path, "%s%s", c->prefix, path) < 0)
		return -ENOMEM;
	l->n++;
	return 0;
}

static int by_path(const void *a, const void *b)
{
	const struct cfs_leaves_item *x = a, *y = b;

	return strverscmp(x->path, y->path);
}

static int finish(int r, struct cfs_leaves *leaves, struct cfs_leaves *out)
{
	if (r < 0) {
		cfs_leaves_free(leaves);
		return r;
	}
	if (leaves->n)
		qsort(leaves->items, leaves->n, sizeof(*leaves->items),
		      by_path);
	*out = *leaves;
	return 0;
}

int cfs_leaves_of_tree(const struct cfs_node *root, struct cfs_leaves *out)
{
	struct cfs_leaves leaves = {0};
	struct collect c = {.leaves = &leaves, .prefix = ""};

	return finish(cfs_nodes_walk(root, cfs_torch_is_tensor, add, &c),
		      &leaves, out);
}

/* All pairs of a group's dict but `params`, which numbers what the files
 * hold and so depends on the topology. */
static int add_pairs(const struct cfs_node *map, const char *prefix,
		     struct cfs_leaves *leaves)
{
	uint32_t i, n = cfs_map_node_count(map);
	struct cfs_node *key, *value;
	char path[256];
	struct collect c = {.leaves = leaves, .prefix = path};
	int r = 0;

	for (i = 0; r == 0 && i < n; i++) {
		const char *name;

		cfs_map_node_pair(map, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || strcmp(name, "params") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", prefix, name);
		r = add(&c, "", value);
	}
	return r;
}

int cfs_leaves_of_step(struct cfs_step *step, struct cfs_leaves *out)
{
	const struct cfs_ds_step *ds = cfs_ds_step_of(step);
	struct cfs_leaves leaves = {0};
	uint32_t rank, g;
	int r = 0;

	if (step->format != &cfs_format_deepspeed) {
		*out = leaves;
		return 0;
	}
	for (rank = 0; r == 0 && rank < step->n_ranks; rank++) {
		const struct cfs_ds_rank *dr = &ds->ranks[rank];

		for (g = 0; r == 0 && g < dr->n_groups; g++) {
			char mp[32] = "", prefix[64];

			if (step->n_ranks > 1)
				snprintf(mp, sizeof(mp),
					 "mp_rank_%02" PRIu32 "/", rank);
			snprintf(prefix, sizeof(prefix), "%sgroup %" PRIu32, mp,
				 g);
			r = add_pairs(dr->groups[g].hyper, prefix, &leaves);
			if (r == 0)
				r = add_pairs(dr->groups[g].scalars, prefix,
					      &leaves);
		}
	}
	return finish(r, &leaves, out);
}

static int count_other(void *arg, const char *path, const struct cfs_node *node)
{
	static const char *const compared[] = {
		"module/",
		"optimizer/",
		"optimizer_state_dict/",
		"base_optimizer_state/",
		"fp32_flat_groups/",
		"single_partition_of_fp32_groups/"};
	uint64_t *n = arg;
	size_t i;

	(void)node;
	for (i = 0; i < CFS_ARRAY_SIZE(compared); i++)
		if (strncmp(path, compared[i], strlen(compared[i])) == 0)
			return 0;
	(*n)++;
	return 0;
}

int cfs_leaves_others_of_step(struct cfs_step *step, uint64_t *n_out)
{
	const struct cfs_ds_step *ds = cfs_ds_step_of(step);
	uint32_t rank;
	int r = 0;

	*n_out = 0;
	if (step->format != &cfs_format_deepspeed)
		return 0;
	for (rank = 0; r == 0 && rank < step->n_ranks; rank++) {
		const struct cfs_ds_rank *dr = &ds->ranks[rank];

		if (dr->model_root)
			r = cfs_nodes_walk(dr->model_root, cfs_torch_is_tensor,
					   count_other, n_out);
		if (r == 0 && dr->optim_state)
			r = cfs_nodes_walk(dr->optim_state, cfs_torch_is_tensor,
					   count_other, n_out);
	}
	return r;
}

void cfs_leaves_free(struct cfs_leaves *leaves)
{
	size_t i;

	for (i = 0; i < leaves->n; i++)
		free(leaves->items[i].path);
	free(leaves->items);
	*leaves = (struct cfs_leaves){0};
}
