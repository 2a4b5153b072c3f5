/*
 * Stage by stage, parameter by parameter, in the groups' own order.  All ranks
 * of a stage must have the same ones; a tied one is taken where it comes first.
 */
#include "fs/format/deepspeed/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/patterns.h"
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "store/util/error.h"

struct collecting {
	struct cfs_ds_model *model;
	struct cfs_catalogue *names; /* what was met: only for finding */
	const struct cfs_rule *rules;
	bool *used; /* by rule */
	const struct cfs_ds_parallel *target;
	struct cfs_error *err;
};

/* All ranks of @stage: the same names, shapes and groups in the same order? */
static int check_stage(const struct cfs_ds_step *step, uint32_t stage,
		       struct cfs_error *err)
{
	const uint32_t tp = step->base.topology.tp;
	const struct cfs_step_rank *first = &step->base.ranks[stage * tp];
	uint32_t n = cfs_catalogue_params(first->catalogue);

	for (uint32_t t = 1; t < tp; t++) {
		const struct cfs_catalogue *cat = first[t].catalogue;

		for (uint32_t i = 0; i < n; i++) {
			const struct cfs_param *a = cfs_catalogue_param(
						       first->catalogue, i),
					       *b;

			b = i < cfs_catalogue_params(cat)
				    ? cfs_catalogue_param(cat, i)
				    : NULL;
			if (!b || strcmp(a->name, b->name) != 0 ||
			    a->group != b->group || a->ndim != b->ndim ||
			    memcmp(a->shape, b->shape,
				   a->ndim * sizeof(*a->shape)) != 0)
				return cfs_fail(err, -EINVAL,
						"parameter %s: rank %u of "
						"stage %u does not have it as "
						"rank 0 does",
						a->name, t, stage);
		}
		if (cfs_catalogue_params(cat) != n)
			return cfs_fail(err, -EINVAL,
					"rank %u of stage %u has other "
					"parameters than rank 0",
					t, stage);
	}
	return 0;
}

/* Does @told say of the ranks what the family's @table does not allow? */
static bool contradicts(const struct cfs_model_facts *facts,
			const struct cfs_rule *told,
			const struct cfs_rule *table)
{
	switch (table->kind) {
	case CFS_RULE_SAME:
		return told->kind != CFS_RULE_SAME &&
		       told->kind != CFS_RULE_MEAN;
	case CFS_RULE_ROW_BIAS:
		return facts->parallel_residual > 0 ||
		       (told->kind != CFS_RULE_SAME &&
			told->kind != CFS_RULE_MEAN);
	case CFS_RULE_UP:
		return told->kind != CFS_RULE_PARTS || told->n != 2 ||
		       facts->gated == 0;
	default:
		return told->kind != table->kind || told->n != table->n;
	}
}

/* The user's rule, the checkpoint's own, the family's; NULL: none. */
static int rule_of(const struct collecting *c, const struct cfs_param *p,
		   const char *name, const struct cfs_rule **out)
{
	static const struct cfs_rule rows = {"", CFS_RULE_ROWS, 0, NULL, false};
	const struct cfs_ds_model *m = c->model;
	const struct cfs_rule *told, *table;
	int r;

	*out = cfs_rules_find(c->rules, name);
	if (*out) {
		c->used[*out - c->rules] = true;
		return 0;
	}
	table = m->family ? cfs_rules_find(m->family->rules, name) : NULL;
	r = cfs_ds_patterns_find(m->patterns, p->name, &told, c->err);
	if (r < 0)
		return r;
	if (!told && !m->family && cfs_ds_patterns_complete(m->patterns))
		told = &rows;
	if (told && table && contradicts(&m->facts, told, table))
		return cfs_fail(c->err, -ENOTSUP,
				"parameter %s: the checkpoint's own %s and the "
				"rule of %s for %s contradict each other: say "
				"which (view add --rules)",
				p->name, told->name, m->family->name,
				table->name);
	*out = told && !(table && table->kind == CFS_RULE_REFUSED) ? told
								   : table;
	return 0;
}

/* Whole on the one rank there is, however many dimensions it has. */
static void keep_whole(const struct cfs_param *p, struct cfs_ds_whole *w)
{
	w->from = (struct cfs_tp_layout){
		.kind = CFS_TP_SAME, .ndim = 1, .shape = {p->numel}};
	w->to = w->from;
}

/* For one rank that has all.  Where there is one already, and the loading job
 * will have one, what is not known does no harm; the same of row biases where
 * it has as many as now. */
static int lay_out_whole(const struct collecting *c, const struct cfs_param *p,
			 struct cfs_ds_whole *w)
{
	const uint32_t tp = c->model->step->base.topology.tp;
	bool same_size = tp == c->target->tp;
	struct cfs_error why = {""};
	int r;

	if (tp == 1 && same_size && w->rule->kind == CFS_RULE_SAME) {
		w->uncut = w->unruled;
		keep_whole(p, w);
		return 0;
	}
	r = cfs_rule_whole(w->rule, &c->model->facts, p->ndim, p->shape, tp,
			   c->target->tp, &w->from, &w->to, &why);
	if (r == -ENOTSUP && same_size &&
	    (w->rule->kind == CFS_RULE_ROW_BIAS ||
	     (tp == 1 && p->ndim < CFS_TP_DIMS_MAX))) {
		w->uncut = w->rule->kind != CFS_RULE_ROW_BIAS;
		keep_whole(p, w);
		return 0;
	}
	return r < 0 ? cfs_fail(c->err, r, "parameter %s: %s", p->name,
				why.text)
		     : 0;
}

static bool may_be_share(const struct collecting *c,
			 const struct cfs_rule *rule)
{
	return rule->kind == CFS_RULE_SUM ||
	       (rule->kind == CFS_RULE_ROW_BIAS &&
		c->model->facts.parallel_residual != 0);
}

static int lay_out(const struct collecting *c, const struct cfs_param *p,
		   struct cfs_ds_whole *w)
{
	static const struct cfs_rule same = {"*", CFS_RULE_SAME, 0, NULL,
					     false};
	const uint32_t tp = c->model->step->base.topology.tp;
	int r;

	r = rule_of(c, p, w->name.name, &w->rule);
	if (r < 0)
		return r;
	if (!w->rule && (tp != c->target->tp || (c->target->whole && tp != 1)))
		return cfs_fail(c->err, -ENOTSUP,
				"parameter %s: no rule says how %u ranks share "
				"it (view add --rules)",
				p->name, tp);
	w->unruled = !w->rule;
	if (!w->rule)
		w->rule = &same;
	if (c->model->step->shares && may_be_share(c, w->rule))
		return cfs_fail(c->err, -ENOTSUP,
				"parameter %s: the universal checkpoint has "
				"what one tensor-parallel rank adds, if ranks "
				"add it up; say that they do not (@biassame), "
				"or make the view of the step itself",
				p->name);
	if (c->target->whole)
		return lay_out_whole(c, p, w);
	if (c->target->like)
		c->model->facts.rows =
			cfs_ds_template_rows(c->target->like, c->model, w);
	r = cfs_rule_layout(w->rule, &c->model->facts, p->ndim, p->shape, tp,
			    c->target->tp, &w->from, &w->to, c->err);
	c->model->facts.rows = 0; /* this one's alone */
	return r < 0 ? cfs_fail_prefix(c->err, r, "parameter %s", p->name) : 0;
}

static int collect(struct collecting *c, uint32_t stage, uint32_t index)
{
	struct cfs_ds_model *m = c->model;
	const struct cfs_param *p = cfs_catalogue_param(
		m->step->base.ranks[stage * m->step->base.topology.tp]
			.catalogue,
		index);
	struct cfs_ds_whole *w = &m->v[m->n];
	uint32_t seen;
	int r;

	*w = (struct cfs_ds_whole){.name = cfs_ds_layer_parse(p->name),
				   .group = p->group,
				   .seq = m->n,
				   .stage = stage,
				   .index = index};
	if (w->name.form == CFS_DS_FORM_TIED && m->family)
		w->name.layer = m->family->embedding;
	if (!cfs_catalogue_find(c->names, p->name, &seen)) {
		if (w->name.form == CFS_DS_FORM_TIED)
			return 0;
		return cfs_fail(c->err, -EINVAL,
				"parameter %s: stage %u has it, and one "
				"before",
				p->name, stage);
	}
	r = cfs_catalogue_add_param(c->names, p->name, p->ndim, p->shape, 0,
				    &seen);
	if (!r)
		r = lay_out(c, p, w);
	if (r < 0)
		return r;
	m->pipeline |= w->name.form == CFS_DS_FORM_PIPELINE ||
		       w->name.form == CFS_DS_FORM_TIED;
	m->prefixed |= w->name.form == CFS_DS_FORM_PREFIXED;
	m->n++;
	return 0;
}

bool cfs_ds_model_has_layer(const struct cfs_ds_model *model, uint32_t layer)
{
	for (uint32_t i = 0; i < model->n; i++)
		if (model->v[i].name.form != CFS_DS_FORM_PLAIN &&
		    model->v[i].name.form != CFS_DS_FORM_TIED &&
		    model->v[i].name.layer == layer)
			return true;
	return false;
}

bool cfs_ds_is_once(const struct cfs_ds_model *model, const char *name)
{
	const char *once = model->family ? model->family->tied_once : NULL;

	return once && !strncmp(name, once, strlen(once));
}

/* The family's norm tells where the layers end. */
static void count_layers(struct cfs_ds_model *m)
{
	if (!m->family)
		return;
	for (uint32_t i = 0; i < m->n; i++)
		if (!strncmp(m->v[i].name.name, m->family->norm,
			     strlen(m->family->norm)) &&
		    m->v[i].name.form != CFS_DS_FORM_PLAIN)
			m->head = CFS_MAX(m->head, m->v[i].name.layer +
							   m->family->behind);
	if (m->head)
		m->n_layers =
			m->head + 1 +
			(m->family->cast && m->step->base.dtype != CFS_F32);
}

static int read_all(struct collecting *c)
{
	const struct cfs_ds_step *step = c->model->step;
	const struct cfs_topology *topo = &step->base.topology;
	int r = 0;

	for (uint32_t s = 0; !r && s < step->base.n_ranks / topo->tp; s++) {
		uint32_t n = cfs_catalogue_params(
			step->base.ranks[s * topo->tp].catalogue);

		r = check_stage(step, s, c->err);
		for (uint32_t i = 0; !r && i < n; i++)
			r = collect(c, s, i);
	}
	return r;
}

/* Buffers are cut by rules, too. */
static bool names_buffer(const struct cfs_ds_step *step,
			 const struct cfs_rule *rule)
{
	const struct cfs_rule one[] = {*rule, {NULL, 0, 0, NULL, false}};

	for (uint32_t m = 0; m < step->base.n_ranks; m++) {
		const struct cfs_node *names =
			cfs_node_get(step->ranks[m].model_root, "buffer_names");

		for (uint32_t i = 0; i < cfs_seq_node_count(names); i++) {
			const char *name =
				cfs_node_as_str(cfs_seq_node_item(names, i));

			if (name &&
			    cfs_rules_find(one, cfs_ds_layer_parse(name).name))
				return true;
		}
	}
	return false;
}

/* A rule of the user's that decides nothing is mistyped. */
static int check_used(const struct collecting *c)
{
	for (uint32_t i = 0; c->rules && c->rules[i].name; i++)
		if (!c->used[i] && !names_buffer(c->model->step, &c->rules[i]))
			return cfs_fail(c->err, -EINVAL,
					"rules[%u]: no parameter is called %s "
					"in its layer, or a rule before it "
					"decides",
					i, c->rules[i].name);
	return 0;
}

static uint32_t count_rules(const struct cfs_rule *rules)
{
	uint32_t n = 0;

	while (rules && rules[n].name)
		n++;
	return n;
}

/* What a view's name says where the step does not; another word of it than the
 * step's own would show weights that are wrong. */
static int take_said(struct cfs_model_facts *facts,
		     const struct cfs_ds_parallel *target,
		     struct cfs_error *err)
{
	if (target->qkv_in_parts >= 0 && facts->qkv_in_parts >= 0 &&
	    !facts->qkv_unknown &&
	    !target->qkv_in_parts != !facts->qkv_in_parts)
		return cfs_fail(err, -EINVAL,
				"%s: the step itself says otherwise; leave it "
				"out, or overrule the step with --rules of "
				"view add",
				target->qkv_in_parts ? "qkvparts" : "qkvheads");
	if (target->bias_sum >= 0 && facts->parallel_residual >= 0 &&
	    !target->bias_sum != !facts->parallel_residual)
		return cfs_fail(err, -EINVAL,
				"%s: the step's own configuration says "
				"otherwise (gpt_j_residual); leave it out, or "
				"overrule it with --rules of view add",
				target->bias_sum ? "biassum" : "biassame");
	if (target->qkv_in_parts >= 0) {
		facts->qkv_in_parts = target->qkv_in_parts;
		facts->qkv_unknown = NULL;
	}
	if (target->bias_sum >= 0)
		facts->parallel_residual = target->bias_sum;
	return 0;
}

int cfs_ds_model_read(const struct cfs_ds_step *step,
		      const struct cfs_ds_parallel *target,
		      const struct cfs_rule *rules, struct cfs_ds_model *out,
		      struct cfs_error *err)
{
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *names =
		cfs_catalogue_new();
	_cleanup_(cfs_freep) bool *used =
		calloc((size_t)count_rules(rules) + 1, sizeof(*used));
	struct collecting c = {.model = out,
			       .names = names,
			       .rules = rules,
			       .used = used,
			       .target = target,
			       .err = err};
	size_t most = 1;
	int r;

	*out = (struct cfs_ds_model){.step = step,
				     .family = cfs_ds_family_of(step)};
	for (uint32_t m = 0; m < step->base.n_ranks; m++)
		most += cfs_catalogue_params(step->base.ranks[m].catalogue);
	out->v = calloc(most, sizeof(*out->v));
	if (!names || !used || !out->v) {
		cfs_ds_model_fini(out);
		return -ENOMEM;
	}
	if (out->family)
		out->family->facts(step, &out->facts);
	out->facts.padding_cut = step->only_masters;
	if (target->vocabulary)
		out->facts.vocabulary = target->vocabulary;
	r = take_said(&out->facts, target, err);
	if (!r)
		r = target->tp != step->base.topology.tp || target->whole
			    ? cfs_ds_patterns_new(step->ranks[0].model_root,
						  &out->patterns, err)
			    : 0;
	if (!r)
		r = read_all(&c);
	if (!r)
		r = check_used(&c);
	if (r < 0) {
		cfs_ds_model_fini(out);
		return r;
	}
	count_layers(out);
	out->halves =
		out->family && out->family->halves && out->family->halves(out);
	return 0;
}

void cfs_ds_model_fini(struct cfs_ds_model *model)
{
	cfs_ds_patterns_free(cfs_steal(model->patterns));
	free(cfs_steal(model->v));
	model->n = 0;
}
