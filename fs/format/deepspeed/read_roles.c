/* Where an optimizer's inner dictionaries keep what, and which of it is cut
 * over the ranks. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"

struct cfs_node *cfs_ds_base_state(const struct cfs_ds_layout *layout,
				   const struct cfs_node *inner)
{
	return cfs_node_get(inner, layout->cls == CFS_OPT_ZERO3
					   ? "optimizer_state_dict"
					   : "base_optimizer_state");
}

struct cfs_node *cfs_ds_masters(const struct cfs_ds_layout *layout,
				const struct cfs_node *inner)
{
	const char *name = "single_partition_of_fp32_groups";

	if (layout->cls == CFS_OPT_ZERO3)
		name = "fp32_flat_groups";
	else if (layout->interleaved)
		name = "local_sub_partitions_of_fp32_groups";
	return cfs_node_get(inner, name);
}

struct cfs_node *cfs_ds_unit_master(const struct cfs_ds_layout *layout,
				    const struct cfs_node *inner, uint32_t unit,
				    uint32_t cut)
{
	struct cfs_node *node =
		cfs_seq_node_item(cfs_ds_masters(layout, inner), unit);

	return layout->interleaved ? cfs_seq_node_item(node, cut) : node;
}

/* Elastic: a list over groups.  Rigid: {state: {id: …}, param_groups}; the ids
 * of a group's flat parameters, one unless interleaved, are in its `params`. */
struct cfs_node *cfs_ds_unit_state(const struct cfs_ds_layout *layout,
				   const struct cfs_node *inner, uint32_t unit,
				   uint32_t cut)
{
	const struct cfs_node *base = cfs_ds_base_state(layout, inner);
	const struct cfs_node *params;
	int64_t id = unit;

	if (cfs_node_is_seq(base)) {
		base = cfs_seq_node_item(base, unit);
		return layout->interleaved ? cfs_seq_node_item(base, cut)
					   : (struct cfs_node *)(uintptr_t)base;
	}
	if (layout->cls != CFS_OPT_ZERO3) {
		params = cfs_node_get(
			cfs_seq_node_item(cfs_node_get(base, "param_groups"),
					  unit),
			"params");
		if (!cfs_node_as_int(cfs_seq_node_item(params, cut), &id))
			return NULL;
	}
	return cfs_node_get_int(cfs_node_get(base, "state"), id);
}

int cfs_ds_is_sharded(const struct cfs_ds_layout *layout,
		      const struct cfs_ds_unit *unit, const char *key,
		      const struct cfs_node *value, struct cfs_error *err)
{
	uint64_t least = unit->len;
	struct cfs_torch_tensor t;

	if (!cfs_torch_is_tensor(value))
		return 0;
	if (cfs_torch_tensor_get(value, &t) < 0)
		return cfs_fail(err, -ENOTSUP,
				"optimizer state %s: a kind of tensor that is "
				"not supported",
				key);
	if (!t.ndim || (t.numel <= 1 && !strcmp(key, "step")))
		return 0;
	if (layout->step->elastic)
		least = cfs_flat_valid(&unit->flat, 0);
	if (t.ndim == 1 && t.numel >= least && t.numel <= unit->len)
		return 1;
	if (t.numel == 1)
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"optimizer state %s has %llu elements, neither one "
			"nor the %llu of the partition: how it is cut is not "
			"known",
			key, (unsigned long long)t.numel,
			(unsigned long long)unit->len);
}

uint32_t cfs_ds_layout_role(const struct cfs_ds_layout *layout,
			    const char *name)
{
	for (uint32_t k = CFS_ROLE_STATE0; k < layout->n_roles; k++)
		if (!strcmp(layout->roles[k], name))
			return k;
	return 0;
}

int cfs_ds_read_roles(struct cfs_ds_layout *layout, struct cfs_ds_unit *unit,
		      struct cfs_error *err)
{
	for (uint32_t i = 0; i < cfs_map_node_count(unit->state); i++) {
		struct cfs_node *key, *value;
		const char *name;
		int r;

		cfs_map_node_pair(unit->state, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name)
			return cfs_fail(err, -ENOTSUP,
					"an optimizer state has no name");
		r = cfs_ds_is_sharded(layout, unit, name, value, err);
		if (r < 0)
			return r;
		if (!r || cfs_ds_layout_role(layout, name))
			continue;
		if (layout->n_roles == CFS_ROLES_MAX)
			return cfs_fail(err, -ENOTSUP,
					"more than %u optimizer states",
					CFS_ROLES_MAX - CFS_ROLE_STATE0);
		layout->roles[layout->n_roles++] = name;
	}
	return 0;
}

/* ---- proof that a tensor of the right length is cut ---- */

/* What optimizers of torch, apex and DeepSpeed keep per element. */
static const char *const element_names[] = {
	"exp_avg",	 "exp_avg_sq",	    "max_exp_avg_sq",
	"exp_inf",	 "momentum_buffer", "momentum",
	"sum",		 "square_avg",	    "grad_avg",
	"acc_delta",	 "max_exp_avg_sqs", "exp_avg_diff",
	"prev",		 "step_size",	    "ax",
	"previous_grad", "neg_pre_grad",    "z",
	"hessian",	 "master",	    "master_param",
	"variance"};

#define PROOF_BYTES 65536

static bool kept_per_element(const char *name)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(element_names); i++)
		if (!strcmp(element_names[i], name))
			return true;
	return false;
}

/* A table would have one length; this one follows the partitions'. */
static bool length_follows(const struct cfs_ds_layout *layout, uint32_t role)
{
	uint64_t len = 0;

	for (uint32_t u = 0; u < layout->n_units; u++) {
		if (!cfs_ds_piece_of(layout, 0, u, 0, role)->dtype)
			continue;
		if (len && layout->units[u].len != len)
			return true;
		len = layout->units[u].len;
	}
	return false;
}

static int read_start(const struct cfs_ds_layout *layout, uint32_t dp,
		      const struct cfs_ds_piece *piece, uint8_t *buf,
		      size_t len, struct cfs_error *err)
{
	const struct cfs_step *step = &layout->step->base;
	struct cfs_file *file;
	int r = cfs_ds_open(step, layout->rank->optim[dp].index, &file, err);

	if (r < 0)
		return r;
	r = cfs_file_pread_all(file, buf, len, piece->off);
	cfs_filepool_put(step->pool, file);
	return r;
}

/* 1: two ranks hold different ones of a unit. */
static int ranks_differ(const struct cfs_ds_layout *layout, uint32_t unit,
			uint32_t role, struct cfs_error *err)
{
	const struct cfs_ds_piece *first =
		cfs_ds_piece_of(layout, 0, unit, 0, role);
	_cleanup_(cfs_freep) uint8_t *buf = malloc(2 * PROOF_BYTES);
	size_t len;
	int r = buf ? 0 : -ENOMEM;

	len = (size_t)CFS_MIN(first->numel * cfs_dtype_size(first->dtype),
			      PROOF_BYTES);
	if (!r)
		r = read_start(layout, 0, first, buf, len, err);
	for (uint32_t dp = 1; !r && dp < layout->dp; dp++) {
		const struct cfs_ds_piece *p =
			cfs_ds_piece_of(layout, dp, unit, 0, role);

		if (p->numel != first->numel || p->dtype != first->dtype)
			return 1;
		r = read_start(layout, dp, p, buf + PROOF_BYTES, len, err);
		if (!r && memcmp(buf, buf + PROOF_BYTES, len) != 0)
			return 1;
	}
	return r;
}

int cfs_ds_prove_roles(const struct cfs_ds_layout *layout,
		       struct cfs_error *err)
{
	for (uint32_t k = CFS_ROLE_STATE0; k < layout->n_roles; k++) {
		int r = kept_per_element(layout->roles[k]) ||
			length_follows(layout, k);

		for (uint32_t u = 0; !r && u < layout->n_units; u++)
			if (cfs_ds_piece_of(layout, 0, u, 0, k)->dtype)
				r = ranks_differ(layout, u, k, err);
		if (r < 0)
			return r;
		if (!r)
			return cfs_fail(err, -ENOTSUP,
					"%s: optimizer state %s has the "
					"partition's length, but nothing "
					"tells that it is cut: it may be a "
					"table that every rank has whole",
					layout->rank->optim[0].name,
					layout->roles[k]);
	}
	return 0;
}
