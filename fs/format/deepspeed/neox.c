/*
 * GPT-NeoX.  Layers: 0 embedding, 1 a function, 2 to L + 1 blocks, L + 2 a
 * function, L + 3 norm, L + 4 head.
 *
 * Rules: GPT-NeoX ea7aefd8 megatron/model/{gpt2_model,transformer,
 * word_embeddings}.py, megatron/mpu/layers.py, megatron/checkpointing.py;
 * compared with what it writes (tests/data/neox).
 */
#include "fs/format/deepspeed/family.h"
#include "fs/format/deepspeed/model.h"
#include "fs/format/deepspeed/neox_config.h"

#include <string.h>

static const struct cfs_rule rules[] = {
	{"word_embeddings.weight", CFS_RULE_VOCAB, 0, NULL, false},
	{"final_linear.weight", CFS_RULE_OUTPUT, 0, NULL, false},
	{"position_embeddings.weight", CFS_RULE_SAME, 0, NULL, false},
	{"attention.query_key_value.*", CFS_RULE_QKV, 0, NULL, false},
	{"attention.dense.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"attention.dense.bias", CFS_RULE_ROW_BIAS, 0, NULL, false},
	{"attention.rotary_emb.inv_freq", CFS_RULE_SAME, 0, NULL, false},
	{"attention.alibi_embed.slopes", CFS_RULE_ROWS, 0, NULL, false},
	{"attention.rpe.*", CFS_RULE_REFUSED, 0,
	 "each stage has a copy of the relative positions, and they drift "
	 "apart; at another tensor size the model itself is another one",
	 true},
	{"attention.*_layernorm.*", CFS_RULE_REFUSED, 0,
	 "query and key norms go over all heads of a rank, so that the model "
	 "itself is another one at another size",
	 false},
	{"attention.qk_layernorm.*", CFS_RULE_REFUSED, 0,
	 "query and key norms go over all heads of a rank, so that the model "
	 "itself is another one at another size",
	 false},
	{"mlp.linear1.*", CFS_RULE_UP, 0, NULL, false},
	{"mlp.linear2.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"mlp.linear2.bias", CFS_RULE_ROW_BIAS, 0, NULL, false},
	/* before 2024-09 */
	{"mlp.dense_h_to_4h.*", CFS_RULE_UP, 0, NULL, false},
	{"mlp.dense_4h_to_h.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"mlp.dense_4h_to_h.bias", CFS_RULE_ROW_BIAS, 0, NULL, false},
	{"mlp.w1.weight", CFS_RULE_ROWS, 0, NULL, false},
	{"mlp.w3.weight", CFS_RULE_ROWS, 0, NULL, false},
	{"mlp.w2.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"input_layernorm.*", CFS_RULE_SAME, 0, NULL, false},
	{"post_attention_layernorm.*", CFS_RULE_SAME, 0, NULL, false},
	{"norm.*", CFS_RULE_SAME, 0, NULL, false},
	{NULL, 0, 0, NULL, false},
};

/* A parameter of that name in its layer: of the first rank, any layer. */
static const struct cfs_param *find(const struct cfs_ds_step *step,
				    const char *name)
{
	for (uint32_t m = 0; m < step->base.n_ranks; m++) {
		const struct cfs_catalogue *cat = step->base.ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			const struct cfs_param *p = cfs_catalogue_param(cat, i);

			if (!strcmp(cfs_ds_layer_parse(p->name).name, name))
				return p;
		}
	}
	return NULL;
}

/* What goes up is as wide as what comes down, or twice: then it is gated. */
static int gated(const struct cfs_param *up, const struct cfs_param *down)
{
	if (!up || !down || up->ndim != 2 || down->ndim != 2)
		return -1;
	if (up->shape[0] == down->shape[1])
		return 0;
	return up->shape[0] == 2 * down->shape[1] ? 1 : -1;
}

/*
 * output_layer_parallelism, 1: row.  Since 2023-05-02 there is only column;
 * before that row was the default, so that a release of between can only be
 * told by the configuration.
 */
static int output_columns(const struct cfs_ds_step *step)
{
	const char *version = step->base.writer_version;
	const char *how =
		cfs_ds_neox_config_str(step, "output_layer_parallelism");

	if (how)
		return !strcmp(how, "row")	? 1
		       : !strcmp(how, "column") ? 0
						: -1;
	if (version && cfs_ds_version_cmp(version, "0.9.2") >= 0)
		return 0;
	return !version && step->neox_config ? 1 : -1;
}

static void facts(const struct cfs_ds_step *step, struct cfs_model_facts *out)
{
	const struct cfs_node *args =
		cfs_node_get(step->ranks[0].model_root, "args");

	*out = (struct cfs_model_facts){
		.parallel_residual =
			cfs_ds_neox_config_flag(step, "gpt_j_residual"),
		.qkv_in_parts = -1,
		.output_columns = output_columns(step)};
	(void)cfs_node_as_u64(cfs_node_get(args, "hidden_size"), &out->hidden);
	(void)cfs_node_as_u64(cfs_node_get(args, "num_attention_heads"),
			      &out->heads);
	(void)cfs_node_as_u64(
		cfs_node_get(args, "make_vocab_size_divisible_by"),
		&out->divisible_by);
	out->gated = gated(find(step, "mlp.linear1.weight"),
			   find(step, "mlp.linear2.weight"));
	if (out->gated < 0)
		out->gated = gated(find(step, "mlp.dense_h_to_4h.weight"),
				   find(step, "mlp.dense_4h_to_h.weight"));
}

static const char *told_method(const struct cfs_ds_step *step)
{
	return cfs_ds_neox_config_str(step, "pipe_partition_method");
}

static const char *type(const struct cfs_ds_model *m, uint32_t layer, bool tied)
{
	static const char embedding[] = "EmbeddingPipe";

	switch (layer) {
	case 0:
		return embedding;
	case 1:
		return "_pre_transformer_block";
	default:
		break;
	}
	switch (m->n_layers - layer) {
	case 1:
		return tied ? embedding : "ParallelLinearPipe";
	case 2:
		return "NormPipe";
	case 3:
		return "_post_transformer_block";
	default:
		return NULL;
	}
}

const struct cfs_ds_family cfs_ds_neox = {
	.name = "GPT-NeoX",
	.rules = rules,
	.mark = "attention.query_key_value.weight",
	.norm = "norm.",
	.behind = 1,
	.sequence = true,
	.tied_key = "embed",
	.tied_name = "word_embeddings.weight",
	.method = "type:transformer|mlp",
	.block = "ParallelTransformerLayerPipe",
	.type = type,
	.told_method = told_method,
	.facts = facts,
};
