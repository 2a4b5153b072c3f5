/*
 * ds_config and ds_version inside a shown step: what no reader looks at stays
 * as it was saved (batch sizes above all), what says how the files are laid out
 * agrees with them.
 */
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <string.h>

/* The version whose layout of stages 1 and 2 is still today's. */
#define RAISED_VERSION "0.5.9"

const char *cfs_ds_raised_version(const struct cfs_ds_step *step,
				  const struct cfs_topology *topo)
{
	const char *have = step->base.writer_version;

	if (topo->optimizer != CFS_OPT_ZERO12 &&
	    topo->optimizer != CFS_OPT_BF16)
		return NULL;
	if (!have)
		return RAISED_VERSION;
	return topo->zero_stage == 1 && cfs_ds_version_cmp(have, "0.3.17") < 0
		       ? RAISED_VERSION
		       : NULL;
}

/* Sets @key of a fresh copy to @on; where it would say the default, only if
 * the user's file has the key at all. */
static void set_flag(struct cfs_ds_out *out, struct cfs_node *map,
		     const char *key, bool on)
{
	bool have = false;

	if (cfs_node_as_bool(cfs_node_get(map, key), &have) ? have == on : !on)
		return;
	cfs_node_replace(out->doc, map, key, cfs_node_bool(out->doc, on));
}

static void adapt_zero(struct cfs_ds_out *out, struct cfs_node *config)
{
	struct cfs_node *old = cfs_node_get(config, "zero_optimization");
	struct cfs_node *zero = cfs_node_is_map(old)
					? cfs_node_copy(out->doc, old)
					: cfs_node_dict(out->doc);
	const struct cfs_topology *t = out->topo;
	int64_t stage = -1;
	uint64_t sub;

	if (!cfs_node_as_int(cfs_node_get(zero, "stage"), &stage) ||
	    stage != t->zero_stage)
		cfs_node_replace(out->doc, zero, "stage",
				 cfs_node_int(out->doc, t->zero_stage));
	if (t->optimizer == CFS_OPT_ZERO12) {
		set_flag(out, zero, "round_robin_gradients", t->round_robin);
		if (!out->tree->elastic)
			set_flag(out, zero, "elastic_checkpoint", false);
		set_flag(out, zero, "parameter_alignment", t->param_alignment);
	}
	if (t->zero_stage == 3 &&
	    out->tree->base.target.sub_group_size == CFS_FROM_REQUEST &&
	    (!cfs_node_as_u64(cfs_node_get(zero, "sub_group_size"), &sub) ||
	     sub != t->sub_group_size))
		cfs_node_replace(
			out->doc, zero, "sub_group_size",
			cfs_node_int(out->doc, (int64_t)t->sub_group_size));
	cfs_node_replace(out->doc, config, "zero_optimization", zero);
}

/* grad_accum_dtype is what makes bf16 stage 1 one class or the other. */
static void adapt_class(struct cfs_ds_out *out, struct cfs_node *config)
{
	struct cfs_node *old = cfs_node_get(config, "data_types"), *types;
	const char *have =
		cfs_node_as_str(cfs_node_get(old, "grad_accum_dtype"));
	bool fp32 = have && (!strcmp(have, "fp32") || !strcmp(have, "float32"));
	bool bf16opt = out->topo->optimizer == CFS_OPT_BF16;

	if (out->topo->zero_stage != 1 || out->step->base.dtype != CFS_BF16 ||
	    fp32 == bf16opt)
		return;
	types = cfs_node_is_map(old) ? cfs_node_copy(out->doc, old)
				     : cfs_node_dict(out->doc);
	if (bf16opt)
		cfs_node_replace(out->doc, types, "grad_accum_dtype",
				 cfs_node_str(out->doc, "fp32"));
	else
		cfs_node_remove(types, "grad_accum_dtype");
	if (cfs_map_node_count(types))
		cfs_node_replace(out->doc, config, "data_types", types);
	else
		cfs_node_remove(config, "data_types");
}

int cfs_ds_write_config(struct cfs_ds_out *out, struct cfs_node *config,
			struct cfs_node **config_out)
{
	*config_out = config;
	if (!cfs_node_is_map(config))
		return 0;
	config = cfs_node_copy(out->doc, config);
	adapt_zero(out, config);
	adapt_class(out, config);
	*config_out = config;
	return config ? 0 : -ENOMEM;
}
