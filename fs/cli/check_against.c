/*
 * What loading compares: GPT-NeoX ea7aefd8 megatron/checkpointing.py
 * (check_checkpoint_args), megatron/learning_rates.py, with the defaults of
 * megatron/neox_arguments; DeepSpeed's sizes.
 */
#include "fs/cli/check_against.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/batch.h"
#include "fs/cli/json.h"
#include "fs/container/yaml.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "store/util/error.h"

#define CONFIG_MAX ((size_t)1 << 20)

struct against {
	struct cfs_check_report *report;
	const struct cfs_ds_step *step;
	const cJSON *config;
	bool neox, as_saved;
};

static void fclosep(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/* ---- the configuration ---- */

static int read_config(const char *path, cJSON **out, struct cfs_error *err)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(cfs_freep) char *text = malloc(CONFIG_MAX + 1);
	size_t n;
	int r;

	if (!file)
		return cfs_fail(err, -errno, "--against %s: %s", path,
				strerror(errno));
	if (!text)
		return -ENOMEM;
	n = fread(text, 1, CONFIG_MAX + 1, file);
	if (ferror(file) || n > CONFIG_MAX)
		return cfs_fail(err, -EINVAL, "--against %s: %s", path,
				n > CONFIG_MAX ? "too large"
					       : "cannot be read");
	r = cfs_yaml_read(text, n, out, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "--against %s", path);
	if (cJSON_IsObject(*out))
		return 0;
	return cfs_fail(err, -EINVAL, "--against %s: is no configuration",
			path);
}

/* "a.b"; '-' stands for '_' in keys of GPT-NeoX. */
static const cJSON *get(const cJSON *in, const char *path)
{
	size_t len = strcspn(path, ".");
	const cJSON *item;

	cJSON_ArrayForEach(item, in)
	{
		const char *s = item->string;
		size_t i;

		for (i = 0; s && s[i] && i < len; i++)
			if (s[i] != path[i] && !(s[i] == '-' && path[i] == '_'))
				break;
		if (s && i == len && !s[i])
			return path[len] ? get(item, path + len + 1) : item;
	}
	return NULL;
}

static bool get_number(const struct against *a, const char *path, double *out)
{
	const cJSON *item = get(a->config, path);

	if (!cJSON_IsNumber(item))
		return false;
	*out = item->valuedouble;
	return true;
}

/* ---- one value ---- */

static void differ(const struct against *a, const char *name, const char *saved,
		   const char *config)
{
	cfs_check_report_problem(a->report, name,
				 "the step has %s, the configuration %s", saved,
				 config);
}

static void differ_numbers(const struct against *a, const char *name,
			   double saved, double config)
{
	char x[40], y[40];

	snprintf(x, sizeof(x), "%.12g", saved);
	snprintf(y, sizeof(y), "%.12g", config);
	differ(a, name, x, y);
}

/* A number or a word; true where both are known. */
static bool compare(const struct against *a, const char *name,
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
	if (number < config->valuedouble || number > config->valuedouble)
		differ_numbers(a, name, number, config->valuedouble);
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

static void check_args(const struct against *a)
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
		const cJSON *item = get(a->config, names[i]);

		n += compare(a, names[i], cfs_node_get(args, names[i]),
			     item ? item : arg_default(names[i]));
	}
	cfs_check_report_end(a->report, "%u sizes and names of the model", n);
}

static double last_iteration(const struct against *a)
{
	double v = 0, fraction;

	if (get_number(a, "lr_decay_iters", &v))
		return fmax(v, 1);
	if (!get_number(a, "train_iters", &v))
		return 0;
	if (get_number(a, "lr_decay_fraction", &fraction))
		v = floor(v * fraction);
	return fmax(v, 1);
}

static void check_scheduler(const struct against *a)
{
	const struct cfs_node *saved =
		cfs_node_get(a->step->ranks[0].model_root, "lr_scheduler");
	cJSON number = {.type = cJSON_Number};
	const cJSON *style = get(a->config, "lr_decay_style");
	static char linear[] = "linear";
	static const cJSON usual = {.type = cJSON_String,
				    .valuestring = linear};
	double end = last_iteration(a), v;
	unsigned n = 0;

	if (!a->neox || !cfs_node_get(saved, "end_iter") ||
	    cJSON_IsTrue(get(a->config, "override_lr_scheduler")) ||
	    cJSON_IsTrue(get(a->config, "use_checkpoint_lr_scheduler"))) {
		cfs_check_report_skip(a->report, "scheduler",
				      "nothing compares it");
		return;
	}
	cfs_check_report_begin(a->report, "scheduler");
	if (get_number(a, "optimizer.params.lr", &number.valuedouble))
		n += compare(a, "lr", cfs_node_get(saved, "start_lr"), &number);
	v = 0;
	(void)get_number(a, "min_lr", &v);
	number.valuedouble = v;
	n += compare(a, "min_lr", cfs_node_get(saved, "min_lr"), &number);
	n += compare(a, "lr_decay_style", cfs_node_get(saved, "decay_style"),
		     style ? style : &usual);
	if (end > 0) {
		number.valuedouble = end;
		n += compare(a, "lr_decay_iters (or train_iters)",
			     cfs_node_get(saved, "end_iter"), &number);
		v = 0.01;
		(void)get_number(a, "warmup", &v);
		number.valuedouble = v * end;
		n += compare(a, "warmup x iterations",
			     cfs_node_get(saved, "warmup_iter"), &number);
	}
	cfs_check_report_end(a->report,
			     "%u values of the learning rate's "
			     "scheduler",
			     n);
}

static void check_precision(const struct against *a)
{
	const char *saved = cfs_dtype_name(a->step->base.dtype);
	const cJSON *word = get(a->config, "precision");
	const char *config = NULL;

	if (cJSON_IsTrue(get(a->config, "fp16.enabled")))
		config = cfs_dtype_name(CFS_F16);
	else if (cJSON_IsTrue(get(a->config, "bf16.enabled")))
		config = cfs_dtype_name(CFS_BF16);
	else if (!cJSON_IsString(word))
		return;
	else if (!strcmp(word->valuestring, "fp16"))
		config = cfs_dtype_name(CFS_F16);
	else if (!strcmp(word->valuestring, "bfloat16"))
		config = cfs_dtype_name(CFS_BF16);
	else
		config = cfs_dtype_name(CFS_F32);
	if (strcmp(saved, config) != 0)
		differ(a, "precision", saved, config);
}

/* Stages 1 and 2 load each other. */
static void check_layout(const struct against *a)
{
	const struct cfs_topology *t = &a->step->base.topology;
	uint32_t stages = t->pipeline ? t->pp : 0;
	double v = 0;

	cfs_check_report_begin(a->report, "layout");
	if (get_number(a, "zero_optimization.stage", &v) &&
	    (v < t->zero_stage || v > t->zero_stage) &&
	    !(t->zero_stage >= 1 && t->zero_stage <= 2 && v >= 1 && v <= 2))
		differ_numbers(a, "zero_optimization.stage", t->zero_stage, v);
	v = 0;
	if ((get_number(a, "pipe_parallel_size", &v) || a->neox) &&
	    (v < stages || v > stages))
		differ_numbers(a, "pipe_parallel_size", stages, v);
	check_precision(a);
	cfs_check_report_end(
		a->report, "ZeRO stage %d, %" PRIu32 " pipeline stages, %s",
		t->zero_stage, stages, cfs_dtype_name(a->step->base.dtype));
}

/* ---- the batch ---- */

static uint64_t get_count(const struct against *a, const char *name)
{
	double v;

	return get_number(a, name, &v) && v >= 1 && v < 1e15 ? (uint64_t)v : 0;
}

/* What accumulation keeps @train with @micro on @dp ranks. */
static void check_product(const struct against *a, uint64_t train,
			  uint64_t micro, uint64_t accumulation, uint32_t dp)
{
	uint64_t keeps = train / (micro * dp);

	if (accumulation * micro * dp == train)
		return;
	if (!keeps || keeps * micro * dp != train)
		cfs_check_report_problem(
			a->report, "train_micro_batch_size_per_gpu",
			"%" PRIu64 " on %" PRIu32 " ranks cannot make the "
			"step's global batch of %" PRIu64,
			micro, dp, train);
	else
		cfs_check_report_problem(
			a->report, "gradient_accumulation_steps",
			"%" PRIu64 " x %" PRIu64 " x %" PRIu32 " ranks is a "
			"global batch of %" PRIu64 ", the step's is %" PRIu64
			": %" PRIu64 " keeps it",
			micro, accumulation, dp, micro * accumulation * dp,
			train, keeps);
}

static void check_batch(const struct against *a)
{
	const uint32_t dp = a->step->base.topology.dp;
	struct cfs_batch b =
		cfs_batch_of(a->step->ds_config, a->as_saved ? dp : 0);
	uint64_t train = get_count(a, "train_batch_size");
	uint64_t micro = get_count(a, "train_micro_batch_size_per_gpu");
	uint64_t steps = get_count(a, "gradient_accumulation_steps");

	if (!b.train) {
		cfs_check_report_skip(a->report, "batch",
				      "the step does not say its global batch");
		return;
	}
	cfs_check_report_begin(a->report, "batch");
	cfs_check_report_number(a->report, "global_batch", b.train);
	if (train && train != b.train)
		differ_numbers(a, "train_batch_size", (double)b.train,
			       (double)train);
	else if (train && micro && steps && micro * steps * dp != train)
		differ_numbers(a, "data-parallel ranks", dp,
			       (double)train / (double)(micro * steps));
	else if (micro && (steps || !train))
		check_product(a, b.train, micro, steps ? steps : 1, dp);
	if (!micro)
		micro = b.micro;
	if (micro && b.train % (micro * dp) == 0)
		cfs_check_report_end(a->report,
				     "global batch %" PRIu64 " = micro %" PRIu64
				     " x accumulation %" PRIu64 " x %" PRIu32
				     " data-parallel ranks",
				     b.train, micro, b.train / (micro * dp),
				     dp);
	else
		cfs_check_report_end(a->report,
				     "global batch %" PRIu64 " on %" PRIu32
				     " data-parallel ranks",
				     b.train, dp);
}

int cfs_check_against(struct cfs_check_report *report, struct cfs_step *step,
		      bool as_saved, const char *path, struct cfs_error *err)
{
	_cleanup_(cfs_json_freep) cJSON *config = NULL;
	struct against a = {.report = report, .as_saved = as_saved};
	int r;

	if (step->format != &cfs_format_deepspeed)
		return cfs_fail(err, -ENOTSUP,
				"--against: not a step of DeepSpeed");
	r = read_config(path, &config, err);
	if (r < 0)
		return r;
	a.step = cfs_ds_step_of(step);
	a.config = config;
	a.neox = get(config, "num_layers") && get(config, "hidden_size");
	check_args(&a);
	check_scheduler(&a);
	check_layout(&a);
	check_batch(&a);
	return 0;
}
