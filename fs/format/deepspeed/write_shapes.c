/* In which order and grouping the target lists its parameters. */
#include "fs/format/deepspeed/write.h"

#include <errno.h>

#include "fs/reslice/partition.h"

void cfs_ds_group_order(const struct cfs_ds_out *out, uint32_t n,
			uint32_t *order)
{
	if (out->topo->round_robin && out->topo->optimizer == CFS_OPT_ZERO12) {
		cfs_round_robin(n, out->topo->dp, order);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
}

int cfs_ds_subgroups(const struct cfs_ds_out *out, uint32_t **sub_out)
{
	const struct cfs_catalogue *cat = out->cat;
	uint32_t total = cfs_catalogue_params(cat);
	_cleanup_(cfs_freep) uint64_t *numel =
		malloc(((size_t)total + 1) * sizeof(*numel));
	_cleanup_(cfs_freep) uint32_t *sub =
		calloc((size_t)total + 1, sizeof(*sub));

	if (!numel || !sub)
		return -ENOMEM;
	for (uint32_t i = 0; i < total; i++)
		numel[i] = cfs_catalogue_param(cat, i)->numel;
	for (uint32_t g = 0; g < cfs_catalogue_groups(cat); g++) {
		uint32_t first, n;

		cfs_catalogue_group(cat, g, &first, &n);
		(void)cfs_zero3_subgroups(n, numel + first, out->topo->dp,
					  out->topo->sub_group_size,
					  sub + first);
	}
	*sub_out = cfs_steal(sub);
	return 0;
}

static void add_shape(struct cfs_ds_out *out, struct cfs_node *map,
		      uint32_t param)
{
	const struct cfs_param *p = cfs_catalogue_param(out->cat, param);

	cfs_node_set_str(out->doc, map, p->name, cfs_ds_out_size(out, p));
}

/* Stages 1, 2: one OrderedDict a group, in flat order. */
static int flat_shapes(struct cfs_ds_out *out, struct cfs_node *list)
{
	for (uint32_t g = 0; g < cfs_catalogue_groups(out->cat); g++) {
		_cleanup_(cfs_freep) uint32_t *order = NULL;
		struct cfs_node *map = cfs_node_ordereddict(out->doc);
		uint32_t first, n;

		cfs_catalogue_group(out->cat, g, &first, &n);
		order = malloc(((size_t)n + 1) * sizeof(*order));
		if (!order)
			return -ENOMEM;
		cfs_ds_group_order(out, n, order);
		for (uint32_t i = 0; i < n; i++)
			add_shape(out, map, first + order[i]);
		cfs_node_append(out->doc, list, map);
	}
	return 0;
}

/* Stage 3: one OrderedDict a sub-group. */
static int zero3_shapes(struct cfs_ds_out *out, struct cfs_node *list)
{
	_cleanup_(cfs_freep) uint32_t *sub = NULL;
	int r = cfs_ds_subgroups(out, &sub);

	if (r < 0)
		return r;
	for (uint32_t g = 0; g < cfs_catalogue_groups(out->cat); g++) {
		struct cfs_node *map = NULL;
		uint32_t first, n;

		cfs_catalogue_group(out->cat, g, &first, &n);
		for (uint32_t i = first; i < first + n; i++) {
			if (i == first || sub[i] != sub[i - 1]) {
				map = cfs_node_ordereddict(out->doc);
				cfs_node_append(out->doc, list, map);
			}
			add_shape(out, map, i);
		}
	}
	return 0;
}

int cfs_ds_write_shapes(struct cfs_ds_out *out, struct cfs_node **shapes_out)
{
	struct cfs_node *list = cfs_node_list(out->doc);
	int r = out->topo->zero_stage == 3 ? zero3_shapes(out, list)
					   : flat_shapes(out, list);

	if (r < 0)
		return r;
	*shapes_out = list;
	return list ? 0 : -ENOMEM;
}
