/*
 * Parameters of a template and of the step that fills it, by name: the same
 * layer's in any of the forms, or the same full name where there are no layers.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/buf.h"
#include "store/util/error.h"

#define NAME_MAX_LEN 512
#define NAMES_BYTES  140 /* of each list in a refusal */

/* Names of one kind: all are counted, the first ones are told. */
struct names {
	uint32_t n;
	struct cfs_buf text;
	bool cut;
};

static void names_add(struct names *names, const char *name)
{
	names->n++;
	names->cut |=
		names->text.len + strlen(name) > NAMES_BYTES && names->n > 1;
	if (names->cut)
		return;
	if (names->text.len)
		cfs_buf_put_str(&names->text, ", ");
	cfs_buf_put_str(&names->text, name);
}

struct matching {
	struct cfs_ds_remodel *rm;
	struct cfs_catalogue *keys; /* of the step's model: index + 1 of v[] */
	struct cfs_catalogue *seen; /* of the template's: told already */
	bool *used;		    /* by the step's parameter */
	struct names missing, left, shaped;
	struct cfs_error *err;
};

static int key_of(const struct cfs_ds_layer_name *name,
		  const struct cfs_ds_family *family, char key[NAME_MAX_LEN],
		  struct cfs_error *err)
{
	return cfs_ds_layer_key(name, family, key, NAME_MAX_LEN) < 0
		       ? cfs_fail(err, -ENOTSUP,
				  "a parameter's name has more than %u bytes",
				  NAME_MAX_LEN - 1)
		       : 0;
}

/* -ENOENT: it was there already, as *index_out. */
static int enter(struct cfs_catalogue *table, const char *key,
		 uint32_t *index_out)
{
	static const uint64_t one = 1;

	if (!cfs_catalogue_find(table, key, index_out))
		return -EEXIST;
	return cfs_catalogue_add_param(table, key, 1, &one, 0, index_out);
}

/* ---- a template's own ---- */

uint64_t cfs_ds_template_rows(const struct cfs_ds_step *like,
			      const struct cfs_ds_model *model,
			      const struct cfs_ds_whole *w)
{
	const struct cfs_ds_family *family = model->family;
	const uint32_t tp = like->base.topology.tp;
	char want[NAME_MAX_LEN], key[NAME_MAX_LEN];

	if ((w->rule->kind != CFS_RULE_VOCAB &&
	     w->rule->kind != CFS_RULE_VOCAB_COLUMNS &&
	     w->rule->kind != CFS_RULE_OUTPUT) ||
	    key_of(&w->name, family, want, NULL) < 0)
		return 0;
	for (uint32_t m = 0; m < like->base.n_ranks; m++) {
		const struct cfs_catalogue *cat = like->base.ranks[m].catalogue;

		for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
			const struct cfs_param *p = cfs_catalogue_param(cat, i);
			const struct cfs_ds_layer_name n =
				cfs_ds_layer_parse(p->name);

			int columns;

			if (!p->ndim || key_of(&n, family, key, NULL) < 0 ||
			    strcmp(key, want) != 0)
				continue;
			columns = cfs_rule_vocab_columns(w->rule, &model->facts,
							 p->ndim, p->shape, tp);
			return columns < 0 ? 0
					   : p->shape[0] * (columns ? 1 : tp);
		}
	}
	return 0;
}

/* ---- one parameter ---- */

static const struct cfs_catalogue *run_of(const struct cfs_ds_remodel *rm,
					  const struct cfs_ds_whole *w)
{
	const struct cfs_step *run = &rm->from->base;

	return run->ranks[w->stage * run->topology.tp].catalogue;
}

static void say_shape(struct cfs_buf *out, uint32_t ndim, const uint64_t *shape)
{
	for (uint32_t i = 0; i < ndim; i++)
		cfs_buf_printf(out, "%s%llu", i ? "x" : "",
			       (unsigned long long)shape[i]);
}

/* Is what a rank of the template would get of @w of the shape of @p? */
static bool fits(struct matching *m, const struct cfs_ds_whole *w,
		 const struct cfs_param *p, bool tell)
{
	const struct cfs_param *own =
		cfs_catalogue_param(run_of(m->rm, w), w->index);
	uint64_t shape[CFS_TP_DIMS_MAX];
	const uint64_t *have = own->shape;
	uint32_t ndim = own->ndim;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	if (w->to.kind == CFS_TP_CUT) {
		if (cfs_tp_local_shape(&w->to, m->rm->tp, shape) < 0)
			return false;
		have = shape;
		ndim = w->to.ndim;
	}
	if (ndim == p->ndim && !memcmp(have, p->shape, ndim * sizeof(*have)))
		return true;
	if (!tell)
		return false;
	cfs_buf_printf(&text, "%s: ", p->name);
	say_shape(&text, p->ndim, p->shape);
	cfs_buf_put_str(&text, ", not ");
	say_shape(&text, ndim, have);
	if (!text.failed)
		names_add(&m->shaped, cfs_buf_str(&text));
	return false;
}

static int no_state(const struct matching *m, const struct cfs_param *p,
		    const char *what)
{
	return cfs_fail(m->err, -ENOTSUP,
			"parameter %s: the template keeps %s of it, the step "
			"has none",
			p->name, what);
}

static bool can_be(enum cfs_dtype from, enum cfs_dtype to)
{
	return from == to ||
	       (cfs_dtype_is_float(from) && cfs_dtype_is_float(to));
}

uint32_t cfs_ds_template_role(const struct cfs_ds_remodel *rm,
			      const struct cfs_ds_whole *w,
			      const struct cfs_catalogue *like, uint32_t role)
{
	const struct cfs_catalogue *run = run_of(rm, w);

	if (role < CFS_ROLE_STATE0)
		return role;
	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(run); k++)
		if (!strcmp(cfs_catalogue_role_name(run, k),
			    cfs_catalogue_role_name(like, role)))
			return k;
	return UINT32_MAX;
}

/* All that the template keeps of @p must be there; what it is made of must
 * have a type that can be made another. */
static int check_roles(struct matching *m, const struct cfs_catalogue *like,
		       uint32_t param, const struct cfs_ds_whole *w)
{
	const struct cfs_param *p = cfs_catalogue_param(like, param);
	const struct cfs_catalogue *run = run_of(m->rm, w);
	bool master = cfs_catalogue_has(run, w->index, CFS_ROLE_MASTER);
	bool weight = cfs_catalogue_has(run, w->index, CFS_ROLE_WEIGHT);

	if (!master && !weight)
		return cfs_fail(m->err, -ENOTSUP,
				"parameter %s: its weight in the step cannot "
				"be read in order",
				p->name);
	if (cfs_catalogue_has(like, param, CFS_ROLE_MASTER) && !master &&
	    cfs_catalogue_dtype(run, w->index, CFS_ROLE_WEIGHT) != CFS_F32)
		return no_state(m, p, "an fp32 copy");
	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(like); k++) {
		uint32_t from = cfs_ds_template_role(m->rm, w, like, k);

		if (!cfs_catalogue_has(like, param, k))
			continue;
		if (from == UINT32_MAX ||
		    !cfs_catalogue_has(run, w->index, from))
			return no_state(m, p, cfs_catalogue_role_name(like, k));
		if (!can_be(cfs_catalogue_dtype(run, w->index, from),
			    cfs_catalogue_dtype(like, param, k)))
			return cfs_fail(m->err, -ENOTSUP,
					"parameter %s: %s is of a type that "
					"cannot become the template's",
					p->name,
					cfs_catalogue_role_name(like, k));
	}
	return 0;
}

/* Optimizer state of the step that the template has no place for. */
static void tell_left_states(struct matching *m,
			     const struct cfs_catalogue *like, uint32_t param,
			     const struct cfs_ds_whole *w)
{
	const struct cfs_catalogue *run = run_of(m->rm, w);
	char text[NAME_MAX_LEN + 64];

	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(run); k++) {
		const char *name = cfs_catalogue_role_name(run, k);
		bool there = false;

		for (uint32_t i = CFS_ROLE_STATE0;
		     i < cfs_catalogue_roles(like); i++)
			there |=
				cfs_catalogue_has(like, param, i) &&
				!strcmp(name, cfs_catalogue_role_name(like, i));
		if (there || !cfs_catalogue_has(run, w->index, k))
			continue;
		(void)snprintf(text, sizeof(text), "%s of %s", name,
			       cfs_catalogue_param(like, param)->name);
		names_add(&m->left, text);
	}
}

static int match_param(struct matching *m, struct cfs_ds_made *made,
		       const struct cfs_catalogue *like, uint32_t param)
{
	const struct cfs_param *p = cfs_catalogue_param(like, param);
	const struct cfs_ds_layer_name name = cfs_ds_layer_parse(p->name);
	const struct cfs_ds_whole *w = NULL;
	char key[NAME_MAX_LEN];
	uint32_t index, at;
	bool first;
	int r = key_of(&name, m->rm->model.family, key, m->err);

	if (r < 0)
		return r;
	r = enter(m->seen, key, &at);
	if (r < 0 && r != -EEXIST)
		return r;
	first = !r;
	if (!cfs_catalogue_find(m->keys, key, &index)) {
		w = &m->rm->model.v[index];
		m->used[index] = true;
		if (!fits(m, w, p, first))
			return 0;
	} else if (first) {
		names_add(&m->missing, p->name);
	}
	if (!w)
		return 0;
	r = check_roles(m, like, param, w);
	if (!r && first)
		tell_left_states(m, like, param, w);
	made->whole[param] = w;
	return r;
}

/* ---- all of them ---- */

static int enter_model(struct matching *m)
{
	const struct cfs_ds_model *model = &m->rm->model;
	char key[NAME_MAX_LEN];
	uint32_t index;

	for (uint32_t i = 0; i < model->n; i++) {
		int r = key_of(&model->v[i].name, model->family, key, m->err);

		if (!r)
			r = enter(m->keys, key, &index);
		if (r < 0)
			return r == -EEXIST
				       ? cfs_fail(m->err, -EINVAL,
						  "the step has two parameters "
						  "called %s",
						  key)
				       : r;
	}
	return 0;
}

static int match_rank(struct matching *m, uint32_t mp)
{
	const struct cfs_catalogue *like =
		m->rm->like->base.ranks[mp].catalogue;
	struct cfs_ds_made *made = &m->rm->made[mp];
	uint32_t n = cfs_catalogue_params(like);
	int r = 0;

	made->remodel = m->rm;
	made->mp = mp;
	made->t = mp % m->rm->tp;
	made->whole = calloc((size_t)n + 1, sizeof(*made->whole));
	if (!made->whole)
		return -ENOMEM;
	for (uint32_t i = 0; !r && i < n; i++)
		r = match_param(m, made, like, i);
	return r;
}

/* ---- what is no parameter ---- */

/* A tensor of the template: told where the step does not fill it. */
static int match_buffer(void *arg, const struct cfs_ds_layer_name *name,
			const char *full, enum cfs_ds_verdict verdict)
{
	struct matching *m = arg;
	char key[NAME_MAX_LEN];
	uint32_t at;
	int r = key_of(name, m->rm->model.family, key, m->err);

	if (!r)
		r = enter(m->seen, key, &at);
	if (r < 0 && r != -EEXIST)
		return r;
	if (verdict == CFS_DS_MISSING)
		names_add(&m->missing, full);
	else if (verdict == CFS_DS_SHAPED)
		names_add(&m->shaped, full);
	return 0;
}

static bool is_tied(const struct matching *m, const char *name)
{
	for (uint32_t i = 0; i < m->rm->model.n; i++)
		if (m->rm->model.v[i].name.form == CFS_DS_FORM_TIED &&
		    !strcmp(m->rm->model.v[i].name.name, name))
			return true;
	return false;
}

/* A tensor of the step: told where the template has nothing of that name. */
static int match_left(void *arg, const struct cfs_ds_layer_name *name,
		      const char *full, enum cfs_ds_verdict verdict)
{
	struct matching *m = arg;
	char key[NAME_MAX_LEN];
	uint32_t at;
	int r = key_of(name, m->rm->model.family, key, m->err);

	(void)verdict;
	if (r < 0 || cfs_ds_template_is_constant(full) ||
	    !cfs_catalogue_find(m->keys, key, &at) || is_tied(m, name->name))
		return r;
	r = enter(m->seen, key, &at);
	if (!r)
		names_add(&m->left, full);
	return r == -EEXIST ? 0 : r;
}

/* A framework's scheduler with nothing to go on from, or the other way. */
static void match_scheduler(struct matching *m)
{
	static const char key[] = "lr_scheduler";
	const struct cfs_node *like =
		cfs_node_get(m->rm->like->ranks[0].model_root, key);
	const struct cfs_node *run =
		cfs_node_get(m->rm->from->ranks[0].model_root, key);
	bool there = like && !cfs_node_is_none(like);
	bool here = run && !cfs_node_is_none(run);

	if (there && !here)
		names_add(&m->missing, key);
	else if (here && !there)
		names_add(&m->left, key);
}

static void say(struct cfs_buf *out, struct names *names, const char *what)
{
	if (!names->n)
		return;
	cfs_buf_printf(out, "%s%u %s (%s%s)", out->len ? "; " : "", names->n,
		       what, cfs_buf_str(&names->text),
		       names->cut ? ", …" : "");
}

static int report(struct matching *m, bool partial, char **note_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	for (uint32_t i = 0; i < m->rm->model.n; i++) {
		const struct cfs_ds_whole *w = &m->rm->model.v[i];

		if (!m->used[i])
			names_add(&m->left, cfs_catalogue_param(
						    run_of(m->rm, w), w->index)
						    ->name);
	}
	match_scheduler(m);
	say(&text, &m->missing, "only in the template");
	say(&text, &m->left, "only in the step");
	say(&text, &m->shaped, "of another shape");
	if (text.failed || m->missing.text.failed || m->left.text.failed ||
	    m->shaped.text.failed)
		return -ENOMEM;
	if (!text.len)
		return 0;
	if (!partial)
		return cfs_fail(m->err, -EINVAL,
				"the template does not fit (--partial keeps "
				"what only it has): %s",
				cfs_buf_str(&text));
	*note_out = strdup(cfs_buf_str(&text));
	return *note_out ? 0 : -ENOMEM;
}

int cfs_ds_template_match(struct cfs_ds_step *made, bool partial,
			  char **note_out, struct cfs_error *err)
{
	struct cfs_ds_remodel *rm = made->remodel;
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *keys =
		cfs_catalogue_new();
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *seen =
		cfs_catalogue_new();
	_cleanup_(cfs_freep) bool *used =
		calloc((size_t)rm->model.n + 1, sizeof(*used));
	struct matching m = {.rm = rm,
			     .keys = keys,
			     .seen = seen,
			     .used = used,
			     .missing = {.text = CFS_BUF_INIT},
			     .left = {.text = CFS_BUF_INIT},
			     .shaped = {.text = CFS_BUF_INIT},
			     .err = err};
	int r = keys && seen && used ? enter_model(&m) : -ENOMEM;

	*note_out = NULL;
	for (uint32_t i = 0; !r && i < made->base.n_ranks; i++)
		r = match_rank(&m, i);
	if (!r)
		r = cfs_ds_template_each(made, match_buffer, &m, err);
	if (!r)
		r = cfs_ds_template_each_run(made, match_left, &m, err);
	if (!r)
		r = report(&m, partial, note_out);
	cfs_buf_free(&m.missing.text);
	cfs_buf_free(&m.left.text);
	cfs_buf_free(&m.shaped.text);
	return r;
}
