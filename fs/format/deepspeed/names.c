/* The file names of DeepSpeed steps, both ways. */
#include "fs/format/deepspeed/deepspeed.h"

#include <stdio.h>
#include <string.h>

static bool eat(const char **s, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*s, word, len) != 0)
		return false;
	*s += len;
	return true;
}

/* A decimal number of at least @digits digits, zero-padded to no more. */
static bool eat_number(const char **s, int digits, uint32_t *out)
{
	uint64_t v = 0;
	int n = 0;

	for (; **s >= '0' && **s <= '9'; (*s)++, n++) {
		v = v * 10 + (uint64_t)(**s - '0');
		if (v > INT32_MAX)
			return false;
	}
	if (n < digits || (n > digits && (*s)[-n] == '0'))
		return false;
	*out = (uint32_t)v;
	return true;
}

/* What follows "mp_rank_" in both kinds of model states. */
static bool eat_model(const char *s, uint32_t *mp)
{
	return eat_number(&s, 2, mp) && eat(&s, "_model_states.pt") && !*s;
}

static bool eat_optim(const char *s, struct cfs_ds_name *out)
{
	if (!eat_number(&s, 2, &out->mp))
		return false;
	out->old_spelling = *s != '_';
	if (*s == '_')
		s++;
	return eat(&s, "optim_states.pt") && !*s;
}

/* zero_pp_rank_R_mp_rank_MM… */
static bool parse_zero(const char *s, struct cfs_ds_name *out)
{
	out->bf16 = eat(&s, "bf16_");
	if (!eat(&s, "zero_pp_rank_") || !eat_number(&s, 1, &out->dp) ||
	    !eat(&s, "_mp_rank_"))
		return false;
	if (!out->bf16 && eat_model(s, &out->mp)) {
		out->kind = CFS_DS_MODEL_ZERO3;
		return true;
	}
	out->kind = CFS_DS_OPTIM;
	return eat_optim(s, out);
}

/* layer_LL-model_TT-model_states.pt; without -model_TT where the pipeline's
 * topology has no axis for tensor parallelism */
static bool parse_layer(const char *s, struct cfs_ds_name *out)
{
	out->kind = CFS_DS_LAYER;
	if (!eat(&s, "layer_") || !eat_number(&s, 2, &out->dp))
		return false;
	out->plain_layer = !strcmp(s, "-model_states.pt");
	return out->plain_layer ||
	       (eat(&s, "-model_") && eat_number(&s, 2, &out->mp) &&
		eat(&s, "-model_states.pt") && !*s);
}

/* [layer_L_]expert_E_mp_rank_MM_model_states.pt, expp_rank_… */
static bool parse_expert(const char *s, struct cfs_ds_name *out)
{
	uint32_t n;

	out->kind = CFS_DS_EXPERT;
	if (eat(&s, "expp_rank_"))
		return eat_number(&s, 1, &out->dp) && eat(&s, "_mp_rank_") &&
		       eat_optim(s, out);
	if (eat(&s, "layer_") && (!eat_number(&s, 1, &n) || !eat(&s, "_")))
		return false;
	return eat(&s, "expert_") && eat_number(&s, 1, &out->dp) &&
	       eat(&s, "_mp_rank_") && eat_model(s, &out->mp);
}

static bool parse_model(const char *s, struct cfs_ds_name *out)
{
	out->kind = CFS_DS_MODEL;
	return eat(&s, "mp_rank_") && eat_model(s, &out->mp);
}

struct cfs_ds_name cfs_ds_name_parse(const char *name)
{
	static bool (*const parsers[])(const char *, struct cfs_ds_name *) = {
		parse_model, parse_zero, parse_layer, parse_expert};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(parsers); i++) {
		struct cfs_ds_name out = {.kind = CFS_DS_OTHER};

		if (parsers[i](name, &out))
			return out;
	}
	return (struct cfs_ds_name){.kind = CFS_DS_OTHER};
}

const char *cfs_ds_name_format(const struct cfs_ds_name *name, char *buf,
			       size_t size)
{
	switch (name->kind) {
	case CFS_DS_MODEL:
		snprintf(buf, size, "mp_rank_%02u_model_states.pt", name->mp);
		break;
	case CFS_DS_MODEL_ZERO3:
		snprintf(buf, size,
			 "zero_pp_rank_%u_mp_rank_%02u_model_states.pt",
			 name->dp, name->mp);
		break;
	case CFS_DS_OPTIM:
		snprintf(buf, size,
			 "%szero_pp_rank_%u_mp_rank_%02u_optim_states.pt",
			 name->bf16 ? "bf16_" : "", name->dp, name->mp);
		break;
	case CFS_DS_LAYER:
		if (name->plain_layer)
			snprintf(buf, size, "layer_%02u-model_states.pt",
				 name->dp);
		else
			snprintf(buf, size,
				 "layer_%02u-model_%02u-model_states.pt",
				 name->dp, name->mp);
		break;
	case CFS_DS_OTHER:
	case CFS_DS_EXPERT:
	case CFS_DS_UNIVERSAL:
		snprintf(buf, size, "%s", "");
		break;
	}
	return buf;
}
