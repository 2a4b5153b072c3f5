/*
 * Each expression becomes a rule.  They are Python's, matched from the start of
 * a name; what is used of them is the same in POSIX but for \d and \w.
 */
#include "fs/format/deepspeed/patterns.h"

#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

struct pattern {
	const char *text; /* the checkpoint's */
	regex_t re;
	struct cfs_rule rule;
};

struct cfs_ds_patterns {
	struct pattern *v;
	uint32_t n, cap;
	bool complete;
};

static const struct {
	const char *key;
	enum cfs_rule_kind kind;
	uint32_t n;
} lists[] = {
	/* in the order in which the converter asks */
	{"tp_replicated_parameter_patterns", CFS_RULE_SAME, 0},
	{"parameter_to_average_patterns", CFS_RULE_MEAN, 0},
	{"parameter_with_2_sub_params_cat_dim_0", CFS_RULE_PARTS, 2},
	{"vocabulary_parameter_patterns", CFS_RULE_VOCAB, 0},
	{"parameter_with_row_parallelism_patterns", CFS_RULE_COLUMNS, 0},
};

/* Geometry of another kind, which would have to be understood first. */
static const char *const others[] = {
	"affine_map",
	"parameter_with_sub_params",
	"autotp_unsupported_parameter_patterns",
};

/* ---- expressions ---- */

/* "[...]" from @s on, into @buf; its end, or NULL: POSIX reads it otherwise. */
static const char *bracket(const char *s, char *buf, size_t size, size_t *n)
{
	const char *at = s + 1;

	at += *at == '^';
	at += *at == ']';
	at += strcspn(at, "]\\[");
	if (*at != ']' || *n + (size_t)(at - s) + 2 > size)
		return NULL;
	memcpy(buf + *n, s, (size_t)(at - s) + 1);
	*n += (size_t)(at - s) + 1;
	return at;
}

/* What stands for an escaped character, or NULL: it is not known. */
static const char *escaped(char c, char one[3])
{
	if (c == 'd')
		return "[0-9]";
	if (c == 'w')
		return "[A-Za-z0-9_]";
	if (!c || !strchr(".\\|^$()*+?[]{}-", c))
		return NULL;
	snprintf(one, 3, c == '-' ? "-" : "\\%c", c);
	return one;
}

/* Into @buf; -ENOTSUP: POSIX lacks it, or reads it otherwise.  Counts ("{2}")
 * are not used by anyone and can take all memory there is. */
static int translate(const char *s, char *buf, size_t size)
{
	size_t n = 0;

	buf[n++] = '^';
	buf[n++] = '(';
	for (; *s; s++) {
		char one[3] = {*s};
		const char *put = one;

		if (n + 16 > size)
			return -ENAMETOOLONG;
		if (*s == '{' || (s[0] == '(' && s[1] == '?'))
			return -ENOTSUP;
		if (*s == '[') {
			s = bracket(s, buf, size - 16, &n);
			if (!s)
				return -ENOTSUP;
			continue;
		}
		if (*s == '\\')
			put = escaped(*++s, one);
		if (!put)
			return -ENOTSUP;
		while (*put)
			buf[n++] = *put++;
	}
	buf[n++] = ')';
	buf[n] = '\0';
	return 0;
}

static int add(struct cfs_ds_patterns *p, const char *text, size_t k,
	       struct cfs_error *err)
{
	struct pattern *e = &p->v[p->n];
	char buf[512];

	if (!text || translate(text, buf, sizeof(buf)) < 0 ||
	    regcomp(&e->re, buf, REG_EXTENDED | REG_NOSUB))
		return cfs_fail(err, -ENOTSUP,
				"universal_checkpoint_info: '%.80s' of %s is "
				"not understood",
				text ? text : "", lists[k].key);
	e->text = text;
	e->rule = (struct cfs_rule){
		.name = lists[k].key, .kind = lists[k].kind, .n = lists[k].n};
	p->n++;
	return 0;
}

/* ---- reading ---- */

static bool is_empty(const struct cfs_node *node)
{
	return !node || cfs_node_is_none(node) ||
	       (cfs_node_is_seq(node) && !cfs_seq_node_count(node)) ||
	       (node->kind == CFS_NODE_LIST && !node->n) ||
	       (cfs_node_is_map(node) && !cfs_map_node_count(node));
}

static int read_lists(struct cfs_ds_patterns *p, const struct cfs_node *info,
		      struct cfs_error *err)
{
	int r = 0;

	for (size_t k = 0; !r && k < CFS_ARRAY_SIZE(lists); k++) {
		const struct cfs_node *list = cfs_node_get(info, lists[k].key);

		for (uint32_t i = 0; !r && i < cfs_seq_node_count(list); i++)
			r = add(p, cfs_node_as_str(cfs_seq_node_item(list, i)),
				k, err);
		p->complete |= k == 0 && list;
	}
	return r;
}

int cfs_ds_patterns_new(const struct cfs_node *root,
			struct cfs_ds_patterns **out, struct cfs_error *err)
{
	const struct cfs_node *info =
		cfs_node_get(root, "universal_checkpoint_info");
	_cleanup_(cfs_ds_patterns_freep) struct cfs_ds_patterns *p = NULL;
	size_t most = 1;
	int r;

	*out = NULL;
	if (!cfs_node_is_map(info))
		return 0;
	for (size_t k = 0; k < CFS_ARRAY_SIZE(others); k++)
		if (!is_empty(cfs_node_get(info, others[k])))
			return cfs_fail(err, -ENOTSUP,
					"universal_checkpoint_info: %s is not "
					"understood; say what ranks share "
					"(view add --rules)",
					others[k]);
	for (size_t k = 0; k < CFS_ARRAY_SIZE(lists); k++)
		most += cfs_seq_node_count(cfs_node_get(info, lists[k].key));
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->v = calloc(most, sizeof(*p->v));
	if (!p->v)
		return -ENOMEM;
	r = read_lists(p, info, err);
	if (!r)
		*out = cfs_steal(p);
	return r;
}

void cfs_ds_patterns_free(struct cfs_ds_patterns *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->n; i++)
		regfree(&p->v[i].re);
	free(p->v);
	free(p);
}

void cfs_ds_patterns_freep(struct cfs_ds_patterns **p)
{
	cfs_ds_patterns_free(*p);
}

/* ---- asking ---- */

bool cfs_ds_patterns_complete(const struct cfs_ds_patterns *p)
{
	return p && p->complete;
}

int cfs_ds_patterns_find(const struct cfs_ds_patterns *p, const char *name,
			 const struct cfs_rule **rule_out,
			 struct cfs_error *err)
{
	const struct pattern *found = NULL;

	*rule_out = NULL;
	for (uint32_t i = 0; p && i < p->n; i++) {
		const struct pattern *e = &p->v[i];

		if (regexec(&e->re, name, 0, NULL, 0))
			continue;
		if (found && (found->rule.kind != e->rule.kind ||
			      found->rule.n != e->rule.n))
			return cfs_fail(
				err, -ENOTSUP,
				"universal_checkpoint_info: %s is named "
				"by '%.80s' of %s and by '%.80s' of %s",
				name, found->text, found->rule.name, e->text,
				e->rule.name);
		found = e;
	}
	if (found)
		*rule_out = &found->rule;
	return 0;
}
