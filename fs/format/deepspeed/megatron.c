/*
 * Megatron-DeepSpeed: the fork BLOOM was trained with, and today's.  Layers:
 * 0 a function, 1 embedding, in the older one 2 a function, then the blocks, in
 * the older one a function, norm, head, and where weights are not fp32 a
 * function.
 *
 * Rules: bigscience-workshop/Megatron-DeepSpeed 8387ae17 and
 * deepspeedai/Megatron-DeepSpeed 4efb479d, megatron/model/{gpt_model,
 * transformer,language_model}.py,
 * megatron/{mpu,core/tensor_parallel}/layers.py,
 * megatron/optimizer/__init__.py, megatron/checkpointing.py.
 *
 * Biases of row-parallel layers are added behind the sum over the ranks, once:
 * they are whole on each.
 */
#include <stdio.h>
#include <string.h>

#include "fs/format/deepspeed/family.h"
#include "fs/format/deepspeed/stages.h"
#include "fs/format/deepspeed/write.h"

static const struct cfs_rule rules[] = {
	{"word_embeddings.weight", CFS_RULE_VOCAB, 0, NULL, false},
	{"word_embeddings.norm.*", CFS_RULE_SAME, 0, NULL, false},
	{"lm_head.weight", CFS_RULE_VOCAB, 0, NULL, false},
	{"output_layer.weight", CFS_RULE_VOCAB, 0, NULL, false},
	{"final_layernorm.*", CFS_RULE_SAME, 0, NULL, false},
	{"position_embeddings.weight", CFS_RULE_SAME, 0, NULL, false},
	{"tokentype_embeddings.weight", CFS_RULE_SAME, 0, NULL, false},
	{"self_attention.query_key_value.*", CFS_RULE_QKV, 0, NULL, false},
	{"self_attention.dense.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"self_attention.dense.bias", CFS_RULE_SAME, 0, NULL, false},
	/* gated: what a rank has is gate and up, each cut by itself */
	{"mlp.dense_h_to_4h.*", CFS_RULE_UP, 0, NULL, false},
	{"mlp.dense_4h_to_h.weight", CFS_RULE_COLUMNS, 0, NULL, false},
	{"mlp.dense_4h_to_h.bias", CFS_RULE_SAME, 0, NULL, false},
	{"input_layernorm.*", CFS_RULE_SAME, 0, NULL, false},
	{"post_attention_layernorm.*", CFS_RULE_SAME, 0, NULL, false},
	/* the final norm's have nothing before them */
	{"weight", CFS_RULE_SAME, 0, NULL, false},
	{"bias", CFS_RULE_SAME, 0, NULL, false},
	{NULL, 0, 0, NULL, false},
};

/* ---- what the checkpoint says ---- */

/* What the job was started with: argparse's Namespace. */
static const struct cfs_node *args_of(const struct cfs_ds_step *step)
{
	return cfs_node_state(cfs_node_get(step->ranks[0].model_root, "args"));
}

static uint64_t number(const struct cfs_node *map, const char *key)
{
	uint64_t v = 0;

	(void)cfs_node_as_u64(cfs_node_get(map, key), &v);
	return v;
}

/* Elements along dimension @dim of the first parameter called @name. */
static uint64_t length(const struct cfs_ds_step *step, const char *name,
		       uint32_t dim)
{
	for (uint32_t m = 0; m < step->base.n_ranks; m++) {
		const struct cfs_catalogue *cat = step->base.ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			const struct cfs_param *p = cfs_catalogue_param(cat, i);

			if (p->ndim == 2 &&
			    !strcmp(cfs_ds_layer_parse(p->name).name, name))
				return p->shape[dim];
		}
	}
	return 0;
}

static int gated(const struct cfs_ds_step *step)
{
	uint64_t up = length(step, "mlp.dense_h_to_4h.weight", 0);
	uint64_t down = length(step, "mlp.dense_4h_to_h.weight", 1);

	if (!up || !down || (up != down && up != 2 * down))
		return -1;
	return up == 2 * down;
}

/*
 * Rows of a rank: head by head, until the feature of December 2024 (commit
 * 676a482c) that has the option looked for here, and that reads what a rank has
 * in three equal parts.  The job's other options say nothing of it.
 */
static const char *qkv_order(const struct cfs_ds_step *step,
			     const struct cfs_node *args,
			     struct cfs_model_facts *out)
{
	uint64_t keys = number(args, "num_key_value_heads");
	double version;

	out->qkv_always = true;
	out->qkv_in_parts =
		cfs_node_get(args, "ds_sequence_parallel_fpdt") ? 1 : 0;
	if (!args)
		return "the checkpoint has no args, which would tell in which "
		       "order queries, keys and values lie: @qkvheads, or "
		       "@qkvparts since December 2024";
	if (!cfs_node_as_real(cfs_node_get(step->ranks[0].model_root,
					   "checkpoint_version"),
			      &version) ||
	    version < 2.0)
		return "queries, keys and values lie in another order before "
		       "checkpoint_version 2.0";
	if (!out->qkv_in_parts && number(args, "ds_sequence_parallel_size") > 1)
		return "with DeepSpeed's sequence parallelism all queries lay "
		       "before all keys, and without it head by head: say "
		       "which the job reads (@qkvparts, @qkvheads)";
	if (out->qkv_in_parts && keys && keys != out->heads)
		return "the version that wrote it reads queries, keys and "
		       "values as equal parts, which they are not: say how "
		       "they lie (@qkvheads, @qkvparts)";
	return NULL;
}

static void facts(const struct cfs_ds_step *step, struct cfs_model_facts *out)
{
	const struct cfs_node *root = step->ranks[0].model_root;
	const struct cfs_node *args = args_of(step);

	*out = (struct cfs_model_facts){
		.gated = gated(step),
		.heads = number(args, "num_attention_heads"),
		.divisible_by = number(args, "make_vocab_size_divisible_by"),
		.padded_to = number(args, "pad_vocab_size_to")};
	out->hidden = number(args, "kv_channels") * out->heads;
	if (!out->hidden)
		out->hidden = number(args, "hidden_size");
	out->vocabulary = number(cfs_node_get(root, "checkpoint_info"),
				 "original_vocab_size");
	if (!out->vocabulary)
		out->vocabulary =
			number(cfs_node_get(root, "universal_checkpoint_info"),
			       "original_vocab_size");
	out->qkv_unknown = qkv_order(step, args, out);
}

static const char *told_method(const struct cfs_ds_step *step)
{
	return cfs_node_as_str(
		cfs_node_get(args_of(step), "pp_partition_method"));
}

/* ---- layers ---- */

static const char *type(const struct cfs_ds_model *m, uint32_t layer, bool tied)
{
	static const char embedding[] = "EmbeddingPipe";

	if (layer == 0)
		return "_to_float16";
	if (layer == m->family->embedding)
		return embedding;
	if (layer > m->head)
		return "float16_to_fp32";
	if (layer == m->head)
		return tied ? embedding : "LMHeadPipe";
	if (layer + 1 == m->head)
		return "LayerNorm";
	if (cfs_ds_model_has_layer(m, layer))
		return NULL;
	if (layer == m->family->embedding + 1)
		return "<lambda>";
	return layer + 2 == m->head ? "undo" : NULL;
}

/*
 * The older one gives Adam what decays in two groups, because one would be too
 * large for a kernel: by how many parameters a stage has.
 */
static bool halves(const struct cfs_ds_model *m)
{
	const struct cfs_step *step = &m->step->base;

	if (!m->head || cfs_ds_model_has_layer(m, m->head - 2) ||
	    step->ranks[0].catalogue == NULL)
		return false;
	for (uint32_t r = 0; r < step->n_ranks; r++) {
		const struct cfs_catalogue *cat = step->ranks[r].catalogue;
		uint32_t n[2] = {0, 0};

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			uint32_t g = cfs_catalogue_param(cat, i)->group;

			if (g < 2)
				n[g]++;
		}
		if (cfs_catalogue_groups(cat) != 3 || n[0] != (n[0] + n[1]) / 2)
			return false;
	}
	return true;
}

/* ---- what converters are told ---- */

#define REPLICATED "tp_replicated_parameter_patterns"
#define ROWS	   "parameter_with_row_parallelism_patterns"
#define VOCABULARY "vocabulary_parameter_patterns"
#define PIPELINE   "pipeline_replicated_parameter_patterns"

/* "@layer@name", as the one of the two forms of a model has it. */
static void add(struct cfs_ds_out *out, struct cfs_node *list,
		const char *layer, const char *name)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "%s%s", layer, name);
	cfs_node_append(out->doc, list, cfs_node_str(out->doc, text));
}

static bool has(const struct cfs_ds_model *m, const char *name)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (!strcmp(m->v[i].name.name, name))
			return true;
	return false;
}

/* What patterns of blocks, of the final norm and of embeddings begin with. */
struct spelling {
	const char *block, *norm, *embedding;
};

static struct spelling spelling(const struct cfs_ds_model *m)
{
	if (m->prefixed)
		return (struct spelling){
			"language_model.encoder.layers.\\d+.",
			"language_model.encoder.final_layernorm.",
			"language_model.embedding."};
	return (struct spelling){"\\d+.", "\\d+.",
				 cfs_ds_is_tied(m) ? "tied_modules.embed."
						   : "1."};
}

/* In the order of UniversalCheckpointInfo in gpt_model.py. */
static struct cfs_node *replicated(struct cfs_ds_out *out)
{
	const struct cfs_ds_model *m = &out->step->remodel->model;
	const struct spelling s = spelling(m);
	struct cfs_node *list = cfs_node_list(out->doc);
	bool biased = has(m, "input_layernorm.bias");

	add(out, list, s.block, "input_layernorm.weight");
	add(out, list, s.block, "post_attention_layernorm.weight");
	add(out, list, s.norm, "weight");
	if (biased)
		add(out, list, s.norm, "bias");
	if (has(m, "position_embeddings.weight"))
		add(out, list, s.embedding, "position_embeddings.weight");
	if (has(m, "mlp.dense_4h_to_h.bias")) {
		add(out, list, s.block, "self_attention.dense.bias");
		add(out, list, s.block, "mlp.dense_4h_to_h.bias");
	}
	if (biased) {
		add(out, list, s.block, "input_layernorm.bias");
		add(out, list, s.block, "post_attention_layernorm.bias");
	}
	return list;
}

static struct cfs_node *rows(struct cfs_ds_out *out)
{
	const struct spelling s = spelling(&out->step->remodel->model);
	struct cfs_node *list = cfs_node_list(out->doc);

	add(out, list, s.block, "mlp.dense_4h_to_h.weight");
	add(out, list, s.block, "self_attention.dense.weight");
	return list;
}

/*
 * One rank alone has no lists of what ranks share, and the converter would
 * put together by rows whatever they leave out.
 */
static struct cfs_node *tell(struct cfs_ds_out *out, struct cfs_node *info)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *told = cfs_node_dict(out->doc);
	const char *before =
		cfs_node_get(info, PIPELINE) ? PIPELINE : VOCABULARY;
	bool had = cfs_node_get(info, REPLICATED) || cfs_node_get(info, ROWS);

	if (had == (rm->tp > 1) || !cfs_node_get(info, VOCABULARY))
		return info;
	for (uint32_t i = 0; i < cfs_map_node_count(info); i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(info, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && (!strcmp(name, REPLICATED) || !strcmp(name, ROWS)))
			continue;
		cfs_node_set(out->doc, told, key, value);
		if (had || !name || strcmp(name, before) != 0)
			continue;
		cfs_node_set_str(out->doc, told, REPLICATED, replicated(out));
		cfs_node_set_str(out->doc, told, ROWS, rows(out));
	}
	return told;
}

const struct cfs_ds_family cfs_ds_megatron = {
	.name = "Megatron-DeepSpeed",
	.rules = rules,
	.mark = "self_attention.query_key_value.weight",
	.norm = "weight",
	.behind = 1,
	.embedding = 1,
	.cast = true,
	.tied_key = "embed",
	.tied_name = "word_embeddings.weight",
	.tied_once = "word_embeddings.norm.",
	.method = "type:transformer",
	.block = "ParallelTransformerLayerPipe",
	.type = type,
	.told_method = told_method,
	.halves = halves,
	.tell = tell,
	.facts = facts,
};
