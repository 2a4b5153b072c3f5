/*
 * Optimizer files of DeepSpeedZeroOptimizer_Stage3: every parameter is cut on
 * its own, the parts lie behind each other in sub-groups.
 * Rules and their sources: fs/format/DESIGN.md, "Writer".
 */
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/reslice/partition.h"
#include "store/util/error.h"

/* Parameters first … first + n - 1 make one sub-group. */
struct sub_group {
	const struct cfs_ds_out *out;
	uint32_t first, n;
};

static int fill_sub_group(void *arg, uint32_t role, struct cfs_map *map)
{
	const struct sub_group *sg = arg;
	const struct cfs_catalogue *cat = sg->out->cat;

	for (uint32_t i = sg->first; i < sg->first + sg->n; i++) {
		uint64_t numel = cfs_catalogue_param(cat, i)->numel;
		uint64_t part = cfs_zero3_part(numel, sg->out->topo->dp);
		uint64_t start = CFS_MIN(part * sg->out->dp, numel);
		uint64_t count = CFS_MIN(part, numel - start);
		uint32_t size =
			cfs_dtype_size(cfs_catalogue_dtype(cat, i, role));
		int r = cfs_catalogue_append(cat, i, role, start, count, map);

		if (r >= 0)
			r = cfs_map_add_zero(map, (part - count) * size);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * The framework numbers parameters (ds_id) in the module's order, tied ones
 * once, and marks a sub-group's tensor with its first and last.
 */
static int param_ids(struct cfs_ds_out *out, uint32_t **ids_out)
{
	const struct cfs_node *module =
		cfs_node_get(out->rank->model_root, "module");
	uint32_t n = cfs_catalogue_params(out->cat), next = 0;
	uint32_t *ids = malloc(((size_t)n + 1) * sizeof(*ids));

	if (!ids)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		ids[i] = i;
	for (uint32_t i = 0; i < cfs_map_node_count(module); i++) {
		struct cfs_node *key, *value;
		const char *name;
		uint32_t param;

		cfs_map_node_pair(module, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && cfs_catalogue_find(out->cat, name, &param) == 0)
			ids[param] = next++;
	}
	*ids_out = ids;
	return 0;
}

/* torch._tensor._rebuild_from_type_v2: a tensor with attributes. */
static struct cfs_node *with_ds_id(struct cfs_ds_out *out,
				   struct cfs_node *tensor, const char *id)
{
	struct cfs_node *state = cfs_node_dict(out->doc), *args[4];

	if (!tensor)
		return NULL;
	cfs_node_set_str(out->doc, state, "ds_id", cfs_node_str(out->doc, id));
	args[0] = tensor->u.object->fn;
	args[1] = cfs_node_global(out->doc, "torch", "Tensor");
	args[2] = tensor->u.object->args;
	args[3] = state;
	return cfs_node_call(out->doc, "torch._tensor", "_rebuild_from_type_v2",
			     cfs_node_tuple(out->doc, args, 4));
}

/* What a template that is filled has in the place of sub-group @k, or NULL: its
 * numbers are those that its framework counted to. */
static const char *template_id(const struct cfs_ds_out *out, uint32_t k)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	const struct cfs_node *args;

	if (!rm || !rm->like)
		return NULL;
	args = cfs_node_call_args(
		cfs_seq_node_item(cfs_node_get(out->rank->optim_state,
					       "fp32_flat_groups"),
				  k),
		"torch._tensor", "_rebuild_from_type_v2");
	return cfs_node_as_str(
		cfs_node_get(cfs_seq_node_item(args, 3), "ds_id"));
}

static int master_tensor(struct cfs_ds_out *out, struct sub_group *sg,
			 uint32_t number, const uint32_t *ids,
			 struct cfs_node **node_out)
{
	const char *had = template_id(out, number);
	char id[32];
	int r;

	r = cfs_ds_write_master(out, NULL, fill_sub_group, sg, node_out);
	if (r < 0)
		return r;
	/* of another step's parameters the order is not the module's */
	if (out->step->remodel)
		return 0;
	(void)snprintf(id, sizeof(id), "%u_%u", ids[sg->first],
		       ids[sg->first + sg->n - 1]);
	*node_out = with_ds_id(out, *node_out, had ? had : id);
	return *node_out ? 0 : -ENOMEM;
}

/* The values that are lists over sub-groups or groups. */
struct zero3_lists {
	struct cfs_node *state, *hypers, *masters;
	uint32_t n; /* sub-groups so far */
};

static int add_sub_group(struct cfs_ds_out *out, uint32_t group,
			 struct sub_group *sg, const uint32_t *ids,
			 struct zero3_lists *l)
{
	struct cfs_node *master, *state;
	int r;

	r = master_tensor(out, sg, l->n, ids, &master);
	if (r < 0)
		return r;
	cfs_node_append(out->doc, l->masters, master);
	if (cfs_ds_has_state(out, group)) {
		r = cfs_ds_write_state(out, group, NULL, fill_sub_group, sg,
				       &state);
		if (r < 0)
			return r;
		cfs_node_set(out->doc, l->state, cfs_node_int(out->doc, l->n),
			     state);
	}
	l->n++;
	return 0;
}

static int add_group(struct cfs_ds_out *out, uint32_t group,
		     const uint32_t *sub, const uint32_t *ids,
		     struct zero3_lists *l)
{
	uint32_t first, n, before = l->n;
	struct cfs_node *hyper;
	int r;

	cfs_catalogue_group(out->cat, group, &first, &n);
	for (uint32_t i = first; i < first + n;) {
		struct sub_group sg = {.out = out, .first = i, .n = 0};

		while (i < first + n && sub[i] == sub[sg.first])
			i++;
		sg.n = i - sg.first;
		r = add_sub_group(out, group, &sg, ids, l);
		if (r < 0)
			return r;
	}
	r = cfs_ds_write_hyper(out, group, before, l->n - before, &hyper);
	if (r < 0)
		return r;
	cfs_node_append(out->doc, l->hypers, hyper);
	return 0;
}

static struct cfs_node *inner_of(struct cfs_ds_out *out,
				 const struct zero3_lists *l)
{
	struct cfs_pickle *doc = out->doc;
	struct cfs_node *inner = cfs_node_dict(doc), *base = cfs_node_dict(doc);

	cfs_node_set_str(doc, base, "state", l->state);
	cfs_node_set_str(doc, base, "param_groups", l->hypers);
	cfs_node_set_str(doc, inner, "zero_stage", cfs_ds_write_stage(out));
	cfs_ds_write_scaler(out, inner);
	cfs_node_set_str(doc, inner, "partition_count",
			 cfs_node_int(doc, out->topo->dp));
	cfs_node_set_str(doc, inner, "optimizer_state_dict", base);
	cfs_node_set_str(doc, inner, "fp32_flat_groups", l->masters);
	return inner;
}

int cfs_ds_write_zero3(struct cfs_ds_out *out, struct cfs_node **inner_out)
{
	_cleanup_(cfs_freep) uint32_t *sub = NULL, *ids = NULL;
	struct zero3_lists l = {
		.state = cfs_node_dict(out->doc),
		.hypers = cfs_node_list(out->doc),
		.masters = cfs_node_list(out->doc),
	};
	int r;

	r = cfs_ds_subgroups(out, &sub);
	if (r >= 0)
		r = param_ids(out, &ids);
	for (uint32_t g = 0; r >= 0 && g < cfs_catalogue_groups(out->cat); g++)
		r = add_group(out, g, sub, ids, &l);
	if (r < 0)
		return r;
	*inner_out = inner_of(out, &l);
	return *inner_out ? 0 : -ENOMEM;
}
