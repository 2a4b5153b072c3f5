/*
 * What loading compares: GPT-NeoX ea7aefd8 megatron/checkpointing.py
 * (check_checkpoint_args), megatron/learning_rates.py, with the defaults of
 * megatron/neox_arguments; DeepSpeed's sizes.
 */
#include "fs/cli/check_against.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "fs/cli/against.h"
#include "fs/cli/json.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "store/util/error.h"

/* ---- one value ---- */

static void differ(const struct cfs_against *a, const char *name,
		   const char *saved, const char *config)
{
	cfs_check_report_problem(a->report, name,
				 "the step has %s, the configuration %s", saved,
				 config);
}

/* @item: of a view's name, which would make it so. */
static void differ_sizes(const struct cfs_against *a, const char *name,
			 double saved, double config, const char *item)
{
	cfs_check_report_problem(a->report, name,
				 "the step has %.12g, the configuration "
				 "%.12g: load its view @%s%.12g",
				 saved, config, item, config);
}

/* A number or a word; true where both are known. */
static bool compare(const struct cfs_against *a, const char *name,
		    const struct cfs_node *saved, const cJSON *config)
{
	const char *word = cfs_node_as_str(saved);
	double number;

	if (word && cJSON_IsString(config)) {
		if (strcmp(word, config->valuestring) != 0)
			differ(a, name, word, config->valuestring);
		return true;
	}
	if (!cfs_node_as_real(saved, &number) || !cJSON_IsNumber(config))
		return false;
	if (!(number < config->valuedouble || number > config->valuedouble))
		return true;
	if (!strcmp(name, "model_parallel_size"))
		differ_sizes(a, name, number, config->valuedouble, "tp");
	else
		cfs_against_differ(a, name, number, config->valuedouble);
	return true;
}

/* ---- sections ---- */

/* What has another default than "must be said". */
static const cJSON *arg_default(const char *name)
{
	static char tokenizer[] = "GPT2BPETokenizer";
	static const cJSON one = {.type = cJSON_Number, .valuedouble = 1};
	static const cJSON unit = {.type = cJSON_Number, .valuedouble = 128};
	static const cJSON word = {.type = cJSON_String,
				   .valuestring = tokenizer};

	if (!strcmp(name, "model_parallel_size"))
		return &one;
	if (!strcmp(name, "make_vocab_size_divisible_by"))
		return &unit;
	return !strcmp(name, "tokenizer_type") ? &word : NULL;
}

static void check_args(const struct cfs_against *a)
{
	static const char *const names[] = {"num_layers",
					    "hidden_size",
					    "num_attention_heads",
					    "max_position_embeddings",
					    "make_vocab_size_divisible_by",
					    "padded_vocab_size",
					    "tokenizer_type",
					    "model_parallel_size"};
	const struct cfs_node *args =
		cfs_node_get(a->step->ranks[0].model_root, "args");
	unsigned n = 0;

	if (!a->neox || !args) {
		cfs_check_report_skip(a->report, "model",
				      "not GPT-NeoX's on both sides");
		return;
	}
	cfs_check_report_begin(a->report, "model");
	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++) {
		const cJSON *item = cfs_against_get(a->config, names[i]);

		n += compare(a, names[i], cfs_node_get(args, names[i]),
			     item ? item : arg_default(names[i]));
	}
	cfs_check_report_end(a->report, "%u sizes and names of the model", n);
}

static double last_iteration(const struct cfs_against *a)
{
	double v = 0, fraction;

	if (cfs_against_number(a, "lr_decay_iters", &v))
		return fmax(v, 1);
	if (!cfs_against_number(a, "train_iters", &v))
		return 0;
	if (cfs_against_number(a, "lr_decay_fraction", &fraction))
		v = floor(v * fraction);
	return fmax(v, 1);
}

static void check_scheduler(const struct cfs_against *a)
{
	const struct cfs_node *saved =
		cfs_node_get(a->step->ranks[0].model_root, "lr_scheduler");
	cJSON number = {.type = cJSON_Number};
	const cJSON *style = cfs_against_get(a->config, "lr_decay_style");
	static char linear[] = "linear";
	static const cJSON usual = {.type = cJSON_String,
				    .valuestring = linear};
	double end = last_iteration(a), v;
	unsigned n = 0;

	if (!a->neox || !cfs_node_get(saved, "end_iter") ||
	    cJSON_IsTrue(cfs_against_get(a->config, "override_lr_scheduler")) ||
	    cJSON_IsTrue(cfs_against_get(a->config,
					 "use_checkpoint_lr_scheduler"))) {
		cfs_check_report_skip(a->report, "scheduler",
				      "nothing compares it");
		return;
	}
	cfs_check_report_begin(a->report, "scheduler");
	if (cfs_against_number(a, "optimizer.params.lr", &number.valuedouble))
		n += compare(a, "lr", cfs_node_get(saved, "start_lr"), &number);
	v = 0;
	(void)cfs_against_number(a, "min_lr", &v);
	number.valuedouble = v;
	n += compare(a, "min_lr", cfs_node_get(saved, "min_lr"), &number);
	n += compare(a, "lr_decay_style", cfs_node_get(saved, "decay_style"),
		     style ? style : &usual);
	if (end > 0) {
		number.valuedouble = end;
		n += compare(a, "lr_decay_iters (or train_iters)",
			     cfs_node_get(saved, "end_iter"), &number);
		v = 0.01;
		(void)cfs_against_number(a, "warmup", &v);
		number.valuedouble = v * end;
		n += compare(a, "warmup x iterations",
			     cfs_node_get(saved, "warmup_iter"), &number);
	}
	cfs_check_report_end(a->report,
			     "%u values of the learning rate's "
			     "scheduler",
			     n);
}

/* NULL: it is not told ("auto"). */
static const char *precision_of(const struct cfs_against *a)
{
	const cJSON *fp16 = cfs_against_get(a->config, "fp16.enabled");
	const cJSON *bf16 = cfs_against_get(a->config, "bf16.enabled");
	const cJSON *word = cfs_against_get(a->config, "fp16.type");

	if (a->neox && !cJSON_IsString(word)) /* so said once */
		word = cfs_against_get(a->config, "precision");
	if ((a->neox && cJSON_IsString(word) &&
	     !strcmp(word->valuestring, "bfloat16")) ||
	    cJSON_IsTrue(bf16))
		return cfs_dtype_name(CFS_BF16);
	if ((a->neox && cJSON_IsString(word) &&
	     !strcmp(word->valuestring, "fp16")) ||
	    cJSON_IsTrue(fp16))
		return cfs_dtype_name(CFS_F16);
	return cJSON_IsString(fp16) || cJSON_IsString(bf16)
		       ? NULL
		       : cfs_dtype_name(CFS_F32);
}

static void check_precision(const struct cfs_against *a)
{
	const char *saved = cfs_dtype_name(a->step->base.dtype);
	const char *config = precision_of(a);

	if (config && strcmp(saved, config) != 0)
		differ(a, "precision", saved, config);
}

/* Stages 1 and 2 load each other; what is not told is 0. */
static void check_stage(const struct cfs_against *a)
{
	const char *name = "zero_optimization.stage";
	const cJSON *item = cfs_against_get(a->config, name);
	const int saved = a->step->base.topology.zero_stage;
	const int config = cJSON_IsNumber(item) ? item->valueint : 0;

	if ((item && !cJSON_IsNumber(item)) || saved == config ||
	    (saved >= 1 && saved <= 2 && config >= 1 && config <= 2))
		return;
	if (!item)
		cfs_check_report_problem(a->report, name,
					 "the step has %d, the configuration "
					 "does not say, which is 0",
					 saved);
	else
		differ_sizes(a, name, saved, config, "zero");
}

/* A single stage lies in sequence up to GPT-NeoX 2.0, of DeepSpeed 0.8: a step
 * of such a release may have been configured so. */
static bool is_single_stage(const struct cfs_against *a, uint32_t stages,
			    double configured)
{
	const char *version = a->step->base.writer_version;

	return stages == 0 && configured >= 1 && configured <= 1 && version &&
	       cfs_ds_version_cmp(version, "0.9") < 0;
}

static void check_layout(const struct cfs_against *a)
{
	const struct cfs_topology *t = &a->step->base.topology;
	uint32_t stages = t->pipeline ? t->pp : 0;
	double v = 0;

	if (t->universal) {
		cfs_check_report_skip(a->report, "layout",
				      "a universal checkpoint has none");
		return;
	}
	cfs_check_report_begin(a->report, "layout");
	check_stage(a);
	if ((cfs_against_number(a, "pipe_parallel_size", &v) || a->neox) &&
	    (v < stages || v > stages) && !is_single_stage(a, stages, v))
		differ_sizes(a, "pipe_parallel_size", stages, v, "pp");
	check_precision(a);
	cfs_check_report_end(
		a->report, "ZeRO stage %d, %" PRIu32 " pipeline stages, %s",
		t->zero_stage, stages, cfs_dtype_name(a->step->base.dtype));
}

int cfs_check_against(struct cfs_check_report *report, struct cfs_step *step,
		      bool as_saved, const struct cfs_check_configs *configs,
		      struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *config = NULL;
	struct cfs_against a = {.report = report, .as_saved = as_saved};
	int r;

	if (step->format != &cfs_format_deepspeed &&
	    step->format != &cfs_format_universal)
		return cfs_fail(err, -ENOTSUP,
				"--against: not a step of DeepSpeed");
	r = cfs_against_read(configs, &config, err);
	if (r < 0)
		return r;
	a.step = cfs_ds_step_of(step);
	a.config = config;
	a.neox = cfs_against_get(config, "num_layers") &&
		 cfs_against_get(config, "hidden_size");
	check_args(&a);
	check_scheduler(&a);
	check_layout(&a);
	cfs_against_batch(&a);
	return 0;
}
