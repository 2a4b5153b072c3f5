/*
 * libyaml's parser builds the document; here its nodes become cJSON's, with an
 * alias becoming a copy.
 */
#include "fs/container/yaml.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <regex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "store/util/error.h"

#define KEYS_MAX 2048 /* looked for one by one */

struct converting {
	yaml_document_t *doc;
	uint32_t nodes;
	struct cfs_error *err;
};

static void json_deletep(cJSON **json)
{
	cJSON_Delete(*json);
}

static unsigned long line_of(const yaml_node_t *node)
{
	return (unsigned long)node->start_mark.line + 1;
}

/* ---- scalars ---- */

static bool is_one_of(const char *s, const char *const *words)
{
	for (; *words; words++)
		if (!strcasecmp(s, *words))
			return true;
	return false;
}

/* Decimal, hexadecimal, or with a point: "1e5" alone is text in PyYAML. */
static bool as_number(const char *s, double *out)
{
	static const char pattern[] = "^[-+]?(0x[0-9a-fA-F_]+|[1-9][0-9_]*|0|"
				      "[0-9][0-9_]*\\.[0-9_]*([eE][-+][0-9]+)?|"
				      "\\.[0-9][0-9_]*([eE][-+][0-9]+)?)$";
	char plain[64], *end;
	size_t n = 0;
	regex_t re;
	int no;

	if (strlen(s) >= sizeof(plain) ||
	    regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return false;
	no = regexec(&re, s, 0, NULL, 0);
	regfree(&re);
	if (no)
		return false;
	for (; *s; s++)
		if (*s != '_')
			plain[n++] = *s;
	plain[n] = '\0';
	*out = strtod(plain, &end);
	return !*end;
}

static cJSON *scalar(const yaml_node_t *node)
{
	static const char *const yes[] = {"true", "yes", "on", NULL};
	static const char *const no[] = {"false", "no", "off", NULL};
	static const char *const nothing[] = {"", "~", "null", NULL};
	const char *s = (const char *)node->data.scalar.value;
	double number;

	if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return cJSON_CreateString(s);
	if (is_one_of(s, yes))
		return cJSON_CreateTrue();
	if (is_one_of(s, no))
		return cJSON_CreateFalse();
	if (is_one_of(s, nothing))
		return cJSON_CreateNull();
	if (as_number(s, &number))
		return cJSON_CreateNumber(number);
	return cJSON_CreateString(s);
}

/* ---- nodes ---- */

static int convert(struct converting *c, int index, uint32_t depth,
		   cJSON **out);

static int add_pair(struct converting *c, const yaml_node_pair_t *pair,
		    uint32_t depth, cJSON *to)
{
	const yaml_node_t *key = yaml_document_get_node(c->doc, pair->key);
	_cleanup_(json_deletep) cJSON *value = NULL;
	const char *name;
	int r;

	if (!key || key->type != YAML_SCALAR_NODE)
		return cfs_fail(c->err, -EINVAL,
				"line %lu: a key that is no word",
				key ? line_of(key) : 1);
	name = (const char *)key->data.scalar.value;
	if (!strcmp(name, "<<"))
		return cfs_fail(c->err, -ENOTSUP,
				"line %lu: merge keys (<<) are not supported",
				line_of(key));
	r = convert(c, pair->value, depth + 1, &value);
	if (r < 0)
		return r;
	cJSON_DeleteItemFromObjectCaseSensitive(to, name);
	if (!cJSON_AddItemToObject(to, name, value))
		return -ENOMEM;
	value = NULL;
	return 0;
}

static int add_item(struct converting *c, int index, uint32_t depth, cJSON *to)
{
	_cleanup_(json_deletep) cJSON *value = NULL;
	int r = convert(c, index, depth + 1, &value);

	if (r < 0)
		return r;
	if (!cJSON_AddItemToArray(to, value))
		return -ENOMEM;
	value = NULL;
	return 0;
}

static int fill(struct converting *c, const yaml_node_t *node, uint32_t depth,
		cJSON *to)
{
	int r = 0;

	if (node->type == YAML_MAPPING_NODE &&
	    node->data.mapping.pairs.top - node->data.mapping.pairs.start >
		    KEYS_MAX)
		return cfs_fail(c->err, -E2BIG,
				"line %lu: a mapping of more than %d keys",
				line_of(node), KEYS_MAX);
	if (node->type == YAML_MAPPING_NODE)
		for (const yaml_node_pair_t *p = node->data.mapping.pairs.start;
		     !r && p < node->data.mapping.pairs.top; p++)
			r = add_pair(c, p, depth, to);
	else
		for (const yaml_node_item_t *i =
			     node->data.sequence.items.start;
		     !r && i < node->data.sequence.items.top; i++)
			r = add_item(c, *i, depth, to);
	return r;
}

/* libyaml gives what has no tag of its own one of these. */
static bool is_plain_tag(const yaml_node_t *node)
{
	const char *tag = (const char *)node->tag;

	return !tag || !strcmp(tag, YAML_STR_TAG) ||
	       !strcmp(tag, YAML_MAP_TAG) || !strcmp(tag, YAML_SEQ_TAG);
}

static int convert(struct converting *c, int index, uint32_t depth, cJSON **out)
{
	const yaml_node_t *node = yaml_document_get_node(c->doc, index);
	_cleanup_(json_deletep) cJSON *made = NULL;
	int r = 0;

	if (!node)
		return -EINVAL;
	if (++c->nodes > CFS_YAML_NODES_MAX || depth > CFS_YAML_DEPTH_MAX)
		return cfs_fail(c->err, -E2BIG,
				"line %lu: too much or too "
				"deep",
				line_of(node));
	if (!is_plain_tag(node))
		return cfs_fail(c->err, -ENOTSUP,
				"line %lu: tags (%.40s) are not supported",
				line_of(node), (const char *)node->tag);
	if (node->type == YAML_SCALAR_NODE)
		made = scalar(node);
	else if (node->type == YAML_MAPPING_NODE)
		made = cJSON_CreateObject();
	else
		made = cJSON_CreateArray();
	if (!made)
		return -ENOMEM;
	if (node->type != YAML_SCALAR_NODE)
		r = fill(c, node, depth, made);
	if (r < 0)
		return r;
	*out = made;
	made = NULL;
	return 0;
}

static int fail_parser(const yaml_parser_t *p, struct cfs_error *err)
{
	if (p->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	return cfs_fail(err, -EINVAL, "line %lu: %s",
			(unsigned long)p->problem_mark.line + 1,
			p->problem ? p->problem : "is no YAML");
}

/* libyaml takes a time that grows with the square of open brackets. */
static bool is_too_deep(const char *text, size_t len)
{
	unsigned depth = 0;

	for (size_t i = 0; i < len && depth <= CFS_YAML_DEPTH_MAX; i++)
		if (text[i] == '[' || text[i] == '{')
			depth++;
		else if ((text[i] == ']' || text[i] == '}') && depth)
			depth--;
	return depth > CFS_YAML_DEPTH_MAX;
}

int cfs_yaml_read(const void *text, size_t len, cJSON **out,
		  struct cfs_error *err)
{
	struct converting c = {.err = err};
	yaml_document_t doc;
	yaml_parser_t parser;
	int r = 0;

	if (is_too_deep(text, len))
		return cfs_fail(err, -E2BIG, "too many open brackets");
	if (!yaml_parser_initialize(&parser))
		return -ENOMEM;
	yaml_parser_set_input_string(&parser, text, len);
	if (!yaml_parser_load(&parser, &doc)) {
		r = fail_parser(&parser, err);
		yaml_parser_delete(&parser);
		return r;
	}
	c.doc = &doc;
	if (yaml_document_get_root_node(&doc))
		r = convert(&c, 1, 0, out); /* the root is the first */
	else if (!(*out = cJSON_CreateNull()))
		r = -ENOMEM;
	yaml_document_delete(&doc);
	yaml_parser_delete(&parser);
	return r;
}
