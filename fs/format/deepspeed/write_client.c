/*
 * What loaders compare with the job they run in, of a step made of another one:
 * GPT-NeoX asserts that each of its `args` is as configured.
 */
#include "fs/format/deepspeed/write.h"

#include <string.h>

#include "fs/format/deepspeed/remodel.h"

/* The padded vocabulary at the target; 0: there is none. */
static uint64_t padded(const struct cfs_ds_model *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		if ((m->v[i].rule->kind == CFS_RULE_VOCAB &&
		     m->v[i].to.kind == CFS_TP_CUT) ||
		    m->v[i].rule->kind == CFS_RULE_VOCAB_COLUMNS)
			return m->v[i].to.shape[0];
	return 0;
}

static void set_int(struct cfs_ds_out *out, struct cfs_node *map,
		    const char *key, uint64_t value)
{
	cfs_ds_out_replace(out, map, key,
			   cfs_node_int(out->doc, (int64_t)value));
}

/* Where the job has it: of another size, or older, it may not. */
static void set_known(struct cfs_ds_out *out, struct cfs_node *map,
		      const char *key, uint64_t value)
{
	int64_t known;

	if (value && cfs_node_as_int(cfs_node_get(map, key), &known))
		set_int(out, map, key, value);
}

/* Megatron-DeepSpeed's: of all it was started with, what it compares. */
static void replace_namespace(struct cfs_ds_out *out, struct cfs_node *root,
			      const struct cfs_node *args)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *copy = cfs_node_copy(out->doc, args);
	struct cfs_node *state = cfs_node_copy(out->doc, cfs_node_state(args));

	set_known(out, state, "tensor_model_parallel_size", rm->tp);
	set_known(out, state, "model_parallel_size", rm->tp);
	set_known(out, state, "pipeline_model_parallel_size",
		  CFS_MAX(rm->pp, 1u));
	set_known(out, state, "padded_vocab_size", padded(&rm->model));
	cfs_node_replace_state(copy, state);
	cfs_node_replace(out->doc, root, "args", copy);
}

static void replace_args(struct cfs_ds_out *out, struct cfs_node *root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *args = cfs_node_get(root, "args");
	uint64_t rows = padded(&rm->model);

	if (cfs_node_state(args))
		replace_namespace(out, root, args);

	if (!cfs_node_is_map(args) ||
	    (rm->tp == rm->from->base.topology.tp && !rm->from->only_masters))
		return;
	args = cfs_node_copy(out->doc, args);
	set_int(out, args, "model_parallel_size", rm->tp);
	if (rows)
		set_int(out, args, "padded_vocab_size", rows);
	cfs_node_replace(out->doc, root, "args", args);
}

static void replace_dimensions(struct cfs_ds_out *out, struct cfs_node *root)
{
	const char *key = "checkpoint_parallel_dimensions";
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *dims = cfs_node_get(root, key);

	if (!cfs_node_is_map(dims))
		return;
	dims = cfs_node_copy(out->doc, dims);
	set_int(out, dims, "tp_degree", rm->tp);
	set_int(out, dims, "pp_degree", CFS_MAX(rm->pp, 1u));
	cfs_node_replace(out->doc, root, key, dims);
}

/* Those of the target's stage, of all stages' there were. */
static void replace_buffers(struct cfs_ds_out *out, struct cfs_node *root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	const struct cfs_step *from = &rm->from->base;
	struct cfs_node *list = cfs_node_list(out->doc);

	for (uint32_t m = 0; m < from->n_ranks; m += from->topology.tp) {
		const struct cfs_node *names = cfs_node_get(
			rm->from->ranks[m].model_root, "buffer_names");

		for (uint32_t i = 0; i < cfs_seq_node_count(names); i++) {
			const char *name =
				cfs_node_as_str(cfs_seq_node_item(names, i));
			char full[512];

			if (name &&
			    cfs_ds_remodel_name(rm, name, out->mp / rm->tp,
						full, sizeof(full)))
				cfs_node_append(out->doc, list,
						cfs_node_str(out->doc, full));
		}
	}
	cfs_ds_out_replace(out, root, "buffer_names", list);
}

/* Which rank of the source has what target rank @mp has of the model's output;
 * false where that has none: an earlier stage. */
static bool output_rank(const struct cfs_ds_remodel *rm, uint32_t mp,
			uint32_t *out)
{
	const struct cfs_topology *from = &rm->from->base.topology;

	if (rm->pp && mp / rm->tp != rm->pp - 1)
		return false;
	*out = (from->pipeline ? from->pp - 1 : 0) * from->tp + mp % rm->tp;
	return true;
}

/*
 * What the model made of a given text; GPT-NeoX compares it after loading where
 * there is one.  The last stage has it, all ranks have it of a model without
 * stages: each of its own rows of the vocabulary.  Another tensor size rounds
 * otherwise, so that there it is left out.
 */
static int replace_output(struct cfs_ds_out *out, struct cfs_node *root)
{
	const char *key = "checkpoint_validation_logits";
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *value = cfs_node_none(out->doc), *have = NULL;
	uint32_t rank;
	int r = 0;

	if (!cfs_node_get(root, key))
		return 0;
	if (rm->tp == rm->from->base.topology.tp && !rm->whole &&
	    output_rank(rm, out->mp, &rank))
		have = cfs_node_get(rm->from->ranks[rank].model_root, key);
	if (have)
		r = cfs_ds_out_fresh(out, have, &value);
	cfs_ds_out_replace(out, root, key, value);
	return r;
}

/* What Megatron-DeepSpeed tells converters: sizes, and in which way ranks
 * share parameters, where they do. */
static void replace_info(struct cfs_ds_out *out, struct cfs_node *root,
			 const char *key)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *info = cfs_node_get(root, key);

	if (!cfs_node_is_map(info))
		return;
	info = cfs_node_copy(out->doc, info);
	set_known(out, info, "padded_vocab_size", padded(&rm->model));
	if (rm->model.family && rm->model.family->tell)
		info = rm->model.family->tell(out, info);
	cfs_node_replace(out->doc, root, key, info);
}

int cfs_ds_write_client(struct cfs_ds_out *out, struct cfs_node *root)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;

	set_int(out, root, "mp_world_size",
		(uint64_t)rm->tp * CFS_MAX(rm->pp, 1u));
	replace_args(out, root);
	replace_info(out, root, "checkpoint_info");
	replace_info(out, root, "universal_checkpoint_info");
	replace_dimensions(out, root);
	replace_buffers(out, root);
	return replace_output(out, root);
}
