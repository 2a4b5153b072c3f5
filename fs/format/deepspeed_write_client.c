/*
 * What loaders compare with the job they run in, of a step made of another one:
 * GPT-NeoX asserts that each of its `args` is as configured.
 */
#include "fs/format/deepspeed_write.h"

#include <string.h>

#include "fs/format/deepspeed_remodel.h"

/* The padded vocabulary at the target; 0: there is none. */
static uint64_t padded(const struct cfs_ds_model *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->v[i].rule->kind == CFS_RULE_VOCAB)
			return m->v[i].to.shape[0];
	return 0;
}

static void set_int(struct cfs_ds_out *out, struct cfs_node *map,
		    const char *key, uint64_t value)
{
	cfs_ds_out_replace(out, map, key,
			   cfs_node_int(out->doc, (int64_t)value));
}

static void replace_args(struct cfs_ds_out *out, struct cfs_node *root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *args = cfs_node_get(root, "args");
	uint64_t rows = padded(&rm->model);

	if (!cfs_node_is_map(args) || rm->tp == rm->from->base.topology.tp)
		return;
	args = cfs_node_copy(out->doc, args);
	set_int(out, args, "model_parallel_size", rm->tp);
	if (rows)
		set_int(out, args, "padded_vocab_size", rows);
	cfs_node_replace(out->doc, root, "args", args);
}

void cfs_ds_write_client(struct cfs_ds_out *out, struct cfs_node *root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;

	set_int(out, root, "mp_world_size",
		(uint64_t)rm->tp * CFS_MAX(rm->pp, 1u));
	replace_args(out, root);
	/* of one rank's vocabulary, and of its rounding */
	if (rm->tp != rm->from->base.topology.tp)
		cfs_ds_out_replace(out, root, "checkpoint_validation_logits",
				   cfs_node_none(out->doc));
}
