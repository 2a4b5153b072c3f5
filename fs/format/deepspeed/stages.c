/* Weights of layers by the partition method, and what balancing makes of them;
 * the same for the source, whose stages are there to compare. */
#include "fs/format/deepspeed/stages.h"

#include <errno.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "fs/reslice/balance.h"
#include "store/util/error.h"

#define OPTIONS                                                                \
	"--boundaries, --partition-method or --partition-generation of view "  \
	"add"

bool cfs_ds_is_tied(const struct cfs_ds_model *m)
{
	bool head = false;

	for (uint32_t i = 0; i < m->n; i++) {
		const struct cfs_ds_layer_name *n = &m->v[i].name;

		if (n->form == CFS_DS_FORM_TIED)
			return true;
		head |= m->n_layers && n->form != CFS_DS_FORM_PLAIN &&
			n->layer == m->head;
	}
	/* a pipeline would have told so */
	return !head && !m->pipeline && m->family && m->family->tied_key;
}

/* ---- weights ---- */

/* How a pipeline's layers are weighed: of the target, or of the source. */
struct weighing {
	const struct cfs_ds_model *model;
	const char *method;
	bool source;
	uint32_t tp;
	uint64_t *weights; /* by layer */
	struct cfs_error *err;
};

static int weigh_parameters(struct weighing *w)
{
	const struct cfs_ds_model *m = w->model;
	bool tied = cfs_ds_is_tied(m);

	for (uint32_t i = 0; i < m->n; i++) {
		const struct cfs_ds_whole *p = &m->v[i];
		const struct cfs_tp_layout *l = w->source ? &p->from : &p->to;
		uint64_t shape[CFS_TP_DIMS_MAX], numel = 1;
		bool both = p->name.form == CFS_DS_FORM_TIED ||
			    (tied && p->name.layer == m->family->embedding);
		int r = cfs_tp_local_shape(l, w->tp, shape);

		if (r < 0)
			return r;
		for (uint32_t d = 0; d < l->ndim; d++)
			numel *= shape[d];
		if (p->group == CFS_GROUP_FROZEN)
			continue;
		/* what is tied is built at both ends */
		w->weights[p->name.layer] += numel;
		if (both && !cfs_ds_is_once(m, p->name.name))
			w->weights[m->head] += numel;
	}
	return 0;
}

/* Is there the parameter that tells the family, in @layer? */
static bool is_known(const struct cfs_ds_model *m, uint32_t layer)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (m->v[i].name.form != CFS_DS_FORM_TIED &&
		    m->v[i].name.layer == layer &&
		    !strcmp(m->v[i].name.name, m->family->mark))
			return true;
	return false;
}

static int weigh_types(struct weighing *w)
{
	const struct cfs_ds_model *m = w->model;
	bool tied = cfs_ds_is_tied(m);
	uint32_t found = 0;
	regex_t re;
	int r = 0;

	if (regcomp(&re, w->method + strlen(CFS_METHOD_TYPE),
		    REG_EXTENDED | REG_ICASE | REG_NOSUB))
		return cfs_fail(w->err, -EINVAL,
				"partition method '%s': no expression",
				w->method);
	for (uint32_t i = 0; !r && i < m->n_layers; i++) {
		const char *type = m->family->type(m, i, tied);

		if (!type && !is_known(m, i))
			r = cfs_fail(w->err, -ENOTSUP,
				     "layer %u is of no type that is known: "
				     "say where stages begin (--boundaries of "
				     "view add)",
				     i);
		w->weights[i] = !regexec(&re, type ? type : m->family->block, 0,
					 NULL, 0);
		found += w->weights[i] > 0;
	}
	regfree(&re);
	if (!r && !found)
		r = cfs_fail(w->err, -EINVAL,
			     "partition method '%s': no layer is of such a "
			     "type",
			     w->method);
	return r;
}

static bool is_old(const struct cfs_ds_remodel *rm, const char *since)
{
	return rm->options.old >= 0
		       ? rm->options.old
		       : cfs_ds_version_cmp(rm->from->base.writer_version,
					    since) < 0;
}

/* Where @w's method puts @stages stages. */
static int balance(const struct cfs_ds_remodel *rm, struct weighing *w,
		   uint32_t stages, uint32_t *bounds)
{
	uint32_t n = rm->model.n_layers;
	int r;

	if (!strcmp(w->method, CFS_METHOD_UNIFORM)) {
		cfs_balance_uniform(n, stages,
				    is_old(rm, CFS_BALANCE_UNIFORM_SINCE),
				    bounds);
		return 0;
	}
	memset(w->weights, 0, n * sizeof(*w->weights));
	r = !strcmp(w->method, CFS_METHOD_PARAMETERS) ? weigh_parameters(w)
						      : weigh_types(w);
	if (r < 0)
		return r;
	r = cfs_balance_weights(w->weights, n, stages,
				is_old(rm, CFS_BALANCE_WEIGHTS_SINCE), bounds);
	return r < 0 ? cfs_fail(w->err, r,
				"%u layers cannot be cut into %u stages", n,
				stages)
		     : 0;
}

/* ---- the source's own ---- */

static bool fits(const struct cfs_ds_model *m, const uint32_t *bounds)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct cfs_ds_whole *w = &m->v[i];

		if (w->name.form == CFS_DS_FORM_PIPELINE &&
		    (w->name.layer < bounds[w->stage] ||
		     w->name.layer >= bounds[w->stage + 1]))
			return false;
	}
	return true;
}

/* A method that does not explain the source's stages is not the one the job
 * has. */
static int check_source(const struct cfs_ds_remodel *rm, const char *method,
			uint64_t *weights, struct cfs_error *err)
{
	const struct cfs_topology *from = &rm->from->base.topology;
	const char *version = rm->from->base.writer_version;
	struct weighing w = {.model = &rm->model,
			     .method = method,
			     .source = true,
			     .tp = from->tp,
			     .weights = weights,
			     .err = err};
	_cleanup_(cfs_freep) uint32_t *bounds =
		calloc((size_t)from->pp + 1, sizeof(*bounds));
	int r;

	if (!bounds)
		return -ENOMEM;
	r = balance(rm, &w, from->pp, bounds);
	if (r == -ENOMEM || (!r && fits(&rm->model, bounds)))
		return r;
	return cfs_fail(err, -ENOTSUP,
			"the step's own %u stages do not begin where the "
			"partition method %s of DeepSpeed %s puts them, so the "
			"job's is another: say which (" OPTIONS ")",
			from->pp, method, version ? version : "(unknown)");
}

/* ---- the target's ---- */

static int take_bounds(struct cfs_ds_remodel *rm, struct cfs_error *err)
{
	const struct cfs_options *o = &rm->options;

	if (o->n_bounds != rm->pp + 1 ||
	    o->bounds[rm->pp] != rm->model.n_layers)
		return cfs_fail(err, -EINVAL,
				"--boundaries: %u numbers, the last %u: %u "
				"stages of %u layers need %u, the last %u",
				o->n_bounds, o->bounds[o->n_bounds - 1], rm->pp,
				rm->model.n_layers, rm->pp + 1,
				rm->model.n_layers);
	memcpy(rm->bounds, o->bounds, o->n_bounds * sizeof(*o->bounds));
	return 0;
}

int cfs_ds_stages_find(struct cfs_ds_remodel *rm, struct cfs_error *err)
{
	const struct cfs_topology *from = &rm->from->base.topology;
	const char *method = rm->options.method;
	_cleanup_(cfs_freep) uint64_t *weights =
		calloc((size_t)rm->model.n_layers + 1, sizeof(*weights));
	struct weighing w = {.model = &rm->model,
			     .tp = rm->tp,
			     .weights = weights,
			     .err = err};
	int r = 0;

	rm->bounds = calloc((size_t)rm->pp + 1, sizeof(*rm->bounds));
	if (!rm->bounds || !weights)
		return -ENOMEM;
	if (rm->pp == 1 && !rm->options.bounds) { /* all there is */
		rm->bounds[1] = UINT32_MAX;
		return 0;
	}
	if (!rm->model.family)
		return cfs_fail(err, -ENOTSUP,
				"the model is of no family whose layers are "
				"known");
	if (rm->options.bounds)
		return take_bounds(rm, err);
	if (!method) {
		method = rm->model.family->told_method(rm->from);
		if (method)
			r = cfs_options_check_method(method, err);
		else
			method = rm->model.family->method;
	}
	if (!r && from->pipeline && from->pp > 1 && !rm->options.method &&
	    rm->options.old < 0)
		r = check_source(rm, method, weights, err);
	w.method = method;
	return r < 0 ? r : balance(rm, &w, rm->pp, rm->bounds);
}
