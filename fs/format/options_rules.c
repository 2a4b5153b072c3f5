/* A user's own rules: which parameter ranks share how. */
#include "fs/format/options.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

#define RULES_MAX 4096
#define KINDS                                                                  \
	"same, rows, columns, vocab, vocab-columns, sum, mean, halves or "     \
	"parts:N"

static void json_deletep(cJSON **json)
{
	cJSON_Delete(*json);
}

static const struct {
	const char *word;
	enum cfs_rule_kind kind;
	uint32_t n;
} kinds[] = {
	{"same", CFS_RULE_SAME, 0},
	{"rows", CFS_RULE_ROWS, 0},
	{"columns", CFS_RULE_COLUMNS, 0},
	{"vocab", CFS_RULE_VOCAB, 0},
	{"sum", CFS_RULE_SUM, 0},
	{"halves", CFS_RULE_PARTS, 2},
	{"vocab-columns", CFS_RULE_VOCAB_COLUMNS, 0},
	{"mean", CFS_RULE_MEAN, 0},
};

/* "parts:3"; 0: it is not. */
static uint32_t parts_of(const char *s)
{
	static const char word[] = "parts:";
	const char *digits = s + strlen(word);

	if (strncmp(s, word, strlen(word)) != 0 || strlen(digits) != 1 ||
	    digits[0] < '1' || digits[0] > '0' + (int)CFS_TP_PARTS_MAX)
		return 0;
	return (uint32_t)(digits[0] - '0');
}

static bool take_kind(const char *s, struct cfs_rule *out)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(kinds); i++)
		if (!strcmp(s, kinds[i].word)) {
			out->kind = kinds[i].kind;
			out->n = kinds[i].n;
			return true;
		}
	out->kind = CFS_RULE_PARTS;
	out->n = parts_of(s);
	return out->n > 0;
}

static int take_rule(const cJSON *item, int i, struct cfs_rule *out,
		     struct cfs_error *err)
{
	const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
	const cJSON *is = cJSON_GetObjectItemCaseSensitive(item, "is");
	const cJSON *key;

	cJSON_ArrayForEach(key, item)
	{
		if (key == name || key == is)
			continue;
		return cfs_fail(err, -EINVAL,
				"rules[%d]: '%.80s' is neither \"name\" nor "
				"\"is\", or comes twice",
				i, key->string ? key->string : "");
	}
	if (!cJSON_IsString(name) || !name->valuestring[0])
		return cfs_fail(err, -EINVAL,
				"rules[%d]: \"name\" is no text; a "
				"parameter's in its layer, '*' for anything",
				i);
	if (!cJSON_IsString(is) || !take_kind(is->valuestring, out))
		return cfs_fail(err, -EINVAL,
				"rules[%d] (%.80s): \"is\" is not " KINDS, i,
				name->valuestring);
	out->name = name->valuestring;
	return 0;
}

int cfs_options_rules(const cJSON *array, struct cfs_rule **rules_out,
		      struct cfs_error *err)
{
	_cleanup_(cfs_freep) struct cfs_rule *rules = NULL;
	int n = cJSON_GetArraySize(array), i = 0, r;
	const cJSON *item;

	if (!cJSON_IsArray(array) || n < 1 || n > RULES_MAX)
		return cfs_fail(err, -EINVAL,
				"\"rules\" is no list of 1 to %d rules",
				RULES_MAX);
	rules = calloc((size_t)n + 1, sizeof(*rules));
	if (!rules)
		return -ENOMEM;
	cJSON_ArrayForEach(item, array)
	{
		if (!cJSON_IsObject(item))
			return cfs_fail(err, -EINVAL,
					"rules[%d]: not as {\"name\": …, "
					"\"is\": …}",
					i);
		r = take_rule(item, i, &rules[i], err);
		if (r < 0)
			return r;
		i++;
	}
	*rules_out = cfs_steal(rules);
	return 0;
}

/* ---- the file ---- */

static unsigned line_at(const char *text, const char *at)
{
	unsigned line = 1;

	for (; text < at; text++)
		line += *text == '\n';
	return line;
}

int cfs_options_read_rules(const char *text, size_t len, cJSON **rules_out,
			   struct cfs_error *err)
{
	_cleanup_(json_deletep) cJSON *doc = NULL;
	_cleanup_(cfs_freep) struct cfs_rule *rules = NULL;
	_cleanup_(cfs_freep) char *copy = strndup(text, len);
	const char *end = NULL;
	cJSON *array;
	int r;

	if (!copy)
		return -ENOMEM;
	doc = cJSON_ParseWithOpts(copy, &end, true);
	if (!doc || strlen(copy) != len)
		return cfs_fail(err, -EINVAL, "line %u: is no JSON",
				line_at(copy, end ? end : copy));
	array = cJSON_GetObjectItemCaseSensitive(doc, "rules");
	if (!array || cJSON_GetArraySize(doc) != 1)
		return cfs_fail(err, -EINVAL,
				"not as {\"rules\": [{\"name\": …, \"is\": "
				"…}, …]}");
	r = cfs_options_rules(array, &rules, err);
	if (!r)
		*rules_out = cJSON_DetachItemViaPointer(doc, array);
	return r;
}
