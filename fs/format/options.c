/* The keys of a view's options; rules are in options_rules.c. */
#include "fs/format/options.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

#define STAGES_MAX 65536
#define METHOD_MAX 256u /* bytes of an expression */

/* ---- stages ---- */

static int take_bounds(const cJSON *array, struct cfs_options *out,
		       struct cfs_error *err)
{
	int n = cJSON_GetArraySize(array);
	const cJSON *item;

	if (!cJSON_IsArray(array) || n < 2 || n > STAGES_MAX + 1)
		return cfs_fail(err, -EINVAL,
				"boundaries: a list of layers, one more than "
				"there are stages, as in 0,4,9");
	out->bounds = calloc((size_t)n, sizeof(*out->bounds));
	if (!out->bounds)
		return -ENOMEM;
	cJSON_ArrayForEach(item, array)
	{
		uint32_t k = out->n_bounds;
		double v = cJSON_IsNumber(item) ? item->valuedouble : -1;

		if (!(v >= 0 && v <= STAGES_MAX) || floor(v) < v ||
		    (k ? v < out->bounds[k - 1] : v > 0))
			return cfs_fail(err, -EINVAL,
					"boundaries[%u]: layers, from 0, none "
					"below the one before",
					k);
		out->bounds[out->n_bounds++] = (uint32_t)v;
	}
	return 0;
}

int cfs_options_check_method(const char *method, struct cfs_error *err)
{
	static const char known[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
				    "|.^$()*+?";
	const char *re = method + strlen(CFS_METHOD_TYPE);
	regex_t compiled;

	if (!strcmp(method, CFS_METHOD_PARAMETERS) ||
	    !strcmp(method, CFS_METHOD_UNIFORM))
		return 0;
	if (strncmp(method, CFS_METHOD_TYPE, strlen(CFS_METHOD_TYPE)) != 0)
		return cfs_fail(err, -EINVAL,
				"partition method '%.80s': parameters, uniform "
				"or type:REGEX",
				method);
	/* what Python and POSIX read alike; compiling recurses */
	if (!*re || strlen(re) > METHOD_MAX || re[strspn(re, known)] ||
	    regcomp(&compiled, re, REG_EXTENDED | REG_ICASE | REG_NOSUB))
		return cfs_fail(err, -EINVAL,
				"partition method '%.80s': of a regular "
				"expression, at most %u letters, digits and "
				"_|.^$()*+? are understood",
				method, METHOD_MAX);
	regfree(&compiled);
	return 0;
}

static int take_method(const cJSON *item, struct cfs_options *out,
		       struct cfs_error *err)
{
	if (!cJSON_IsString(item))
		return cfs_fail(err, -EINVAL, "partition_method: no text");
	out->method = item->valuestring;
	return cfs_options_check_method(out->method, err);
}

static int take_generation(const cJSON *item, struct cfs_options *out,
			   struct cfs_error *err)
{
	const char *s = cJSON_GetStringValue(item);

	if (!s || (strcmp(s, "old") != 0 && strcmp(s, "new") != 0))
		return cfs_fail(err, -EINVAL,
				"partition_generation: old or new");
	out->old = !strcmp(s, "old");
	return 0;
}

/* ---- templates ---- */

static int take_like(const cJSON *item, struct cfs_options *out,
		     struct cfs_error *err)
{
	out->like = cJSON_GetStringValue(item);
	if (!out->like || out->like[0] != '/')
		return cfs_fail(err, -EINVAL, "like: no absolute path");
	return 0;
}

static int take_like_id(const cJSON *item, struct cfs_options *out,
			struct cfs_error *err)
{
	const char *s = cJSON_GetStringValue(item);

	if (!s || strlen(s) != 16 || strspn(s, "0123456789abcdef") != 16)
		return cfs_fail(err, -EINVAL, "like_id: no fingerprint");
	out->like_id = strtoull(s, NULL, 16);
	return 0;
}

static int take_partial(const cJSON *item, struct cfs_options *out,
			struct cfs_error *err)
{
	if (!cJSON_IsBool(item))
		return cfs_fail(err, -EINVAL, "partial: true or false");
	out->partial = cJSON_IsTrue(item);
	return 0;
}

static int check_like(const struct cfs_options *o, struct cfs_error *err)
{
	if (!o->like && (o->partial || o->like_id))
		return cfs_fail(err, -EINVAL, "partial is for templates: like");
	if (o->like && cfs_options_of_stages(o))
		return cfs_fail(err, -EINVAL,
				"a template says itself where the stages of "
				"its pipeline begin");
	return 0;
}

/* ---- all of it ---- */

static int take(const cJSON *item, struct cfs_options *out,
		struct cfs_error *err)
{
	const char *key = item->string;

	if (!strcmp(key, "rules") && !out->rules)
		return cfs_options_rules(item, &out->rules, err);
	if (!strcmp(key, "boundaries") && !out->bounds)
		return take_bounds(item, out, err);
	if (!strcmp(key, "partition_method") && !out->method)
		return take_method(item, out, err);
	if (!strcmp(key, "partition_generation") && out->old < 0)
		return take_generation(item, out, err);
	if (!strcmp(key, "like") && !out->like)
		return take_like(item, out, err);
	if (!strcmp(key, "like_id") && !out->like_id)
		return take_like_id(item, out, err);
	if (!strcmp(key, "partial") && !out->partial)
		return take_partial(item, out, err);
	return cfs_fail(err, -EINVAL,
			"'%.80s' is no option of a view, or comes twice", key);
}

int cfs_options_parse(const char *text, struct cfs_options *out,
		      struct cfs_error *err)
{
	struct cfs_options made = {.old = -1};
	const cJSON *item;
	int r = 0;

	if (strlen(text) > CFS_OPTIONS_TEXT_MAX)
		return cfs_fail(err, -E2BIG,
				"a view's options: more than %u bytes",
				CFS_OPTIONS_TEXT_MAX);
	made.doc = cJSON_Parse(text);
	if (!cJSON_IsObject(made.doc))
		r = cfs_fail(err, -EINVAL, "a view's options: no JSON object");
	for (item = made.doc ? made.doc->child : NULL; !r && item;
	     item = item->next)
		r = take(item, &made, err);
	if (!r && made.bounds && (made.method || made.old >= 0))
		r = cfs_fail(err, -EINVAL,
			     "boundaries leave nothing for a partition method "
			     "or generation to say");
	if (!r)
		r = check_like(&made, err);
	if (r < 0) {
		cfs_options_fini(&made);
		return r;
	}
	*out = made;
	return 0;
}

void cfs_options_fini(struct cfs_options *options)
{
	cJSON_Delete(options->doc);
	free(options->rules);
	free(options->bounds);
	*options = (struct cfs_options){.old = -1};
}

bool cfs_options_of_stages(const struct cfs_options *options)
{
	return options->bounds || options->method || options->old >= 0;
}

/* ---- texts that stay ---- */

struct kept {
	struct kept *next;
	char text[];
};

const char *cfs_options_intern(const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct kept *all; /* guarded by lock */
	size_t size = strlen(text) + 1;
	struct kept *k;

	pthread_mutex_lock(&lock);
	for (k = all; k; k = k->next)
		if (!strcmp(k->text, text))
			break;
	if (!k && (k = malloc(sizeof(*k) + size))) {
		memcpy(k->text, text, size);
		k->next = all;
		all = k;
	}
	pthread_mutex_unlock(&lock);
	return k ? k->text : NULL;
}
