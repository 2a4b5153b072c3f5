/*
 * Each new rank gets a catalogue of the parameters its stage has, in the order
 * the framework would have them: tied ones first, then layer by layer.
 */
#include "fs/format/deepspeed/remodel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/replicas.h"
#include "fs/format/deepspeed/stages.h"
#include "store/map/map.h"
#include "store/util/error.h"

/* ---- tensors ---- */

struct origin {
	const struct cfs_ds_remodel *remodel;
	const struct cfs_ds_whole *whole;
	uint32_t role;
};

static const struct cfs_catalogue *catalogue_of(const struct cfs_ds_remodel *rm,
						const struct cfs_ds_whole *w,
						uint32_t t)
{
	const struct cfs_step *from = &rm->from->base;

	return from->ranks[w->stage * from->topology.tp + t].catalogue;
}

static int append_origin(void *arg, uint32_t t, struct cfs_map *map)
{
	const struct origin *o = arg;
	const struct cfs_catalogue *cat = catalogue_of(o->remodel, o->whole, t);

	return cfs_catalogue_append(
		cat, o->whole->index, o->role, 0,
		cfs_catalogue_param(cat, o->whole->index)->numel, map);
}

/* Into how many pieces parameters are cut. */
static uint32_t cuts(const struct cfs_ds_remodel *rm)
{
	return rm->whole ? 1 : rm->tp;
}

int cfs_ds_remodel_append(const struct cfs_ds_remodel *rm,
			  const struct cfs_ds_whole *w, uint32_t role,
			  uint32_t t, struct cfs_map *map)
{
	struct origin o = {rm, w, role};
	const struct cfs_tp_source source = {
		.append = append_origin,
		.arg = &o,
		.tp = rm->from->base.topology.tp,
		.dtype = cfs_catalogue_dtype(catalogue_of(rm, w, 0), w->index,
					     role)};

	/* Moments of what ranks add up are those of each rank's own copy,
	 * whose gradients are the same on all. */
	if (w->from.kind == CFS_TP_SUM && role >= CFS_ROLE_STATE0)
		return append_origin(&o, t % source.tp, map);
	return cfs_tp_append(&w->from, &source, &w->to,
			     w->from.kind == CFS_TP_SUM ? rm->tp : cuts(rm), t,
			     map);
}

/* The weight of what ranks add up, or of a mean, follows its master, not its
 * own rounded share. */
static int append_rounded(const struct cfs_ds_remodel *rm,
			  const struct cfs_ds_whole *w, uint32_t t,
			  struct cfs_map *map)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *master =
		cfs_map_new(cfs_map_filetab(map));
	const struct cfs_catalogue *cat = catalogue_of(rm, w, 0);
	int r = master ? cfs_ds_remodel_append(rm, w, CFS_ROLE_MASTER, t,
					       master)
		       : -ENOMEM;

	if (r < 0)
		return r;
	return cfs_map_add_cast(
		map, master,
		cfs_catalogue_dtype(cat, w->index, CFS_ROLE_MASTER),
		cfs_catalogue_dtype(cat, w->index, CFS_ROLE_WEIGHT));
}

static int make(void *arg, uint32_t param, uint32_t role, uint64_t start,
		uint64_t count, struct cfs_map *map)
{
	const struct cfs_ds_made *made = arg;
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_ds_whole *w = made->whole[param];
	const struct cfs_catalogue *cat = catalogue_of(rm, w, 0);
	_cleanup_(cfs_map_unrefp) struct cfs_map *all = NULL;
	uint32_t size =
		cfs_dtype_size(cfs_catalogue_dtype(cat, w->index, role));
	int r;

	if (rm->tp == rm->from->base.topology.tp && !rm->whole &&
	    w->to.kind == CFS_TP_SAME)
		return cfs_catalogue_append(catalogue_of(rm, w, made->t),
					    w->index, role, start, count, map);
	all = cfs_map_new(cfs_map_filetab(map));
	if (!all)
		return -ENOMEM;
	if ((w->from.kind == CFS_TP_SUM || w->from.kind == CFS_TP_MEAN) &&
	    role == CFS_ROLE_WEIGHT &&
	    cfs_catalogue_has(cat, w->index, CFS_ROLE_MASTER))
		r = append_rounded(rm, w, made->t, all);
	else
		r = cfs_ds_remodel_append(rm, w, role, made->t, all);
	return r < 0 ? r
		     : cfs_map_add_slice(map, all, start * size, count * size);
}

/* ---- catalogues ---- */

/* A parameter's place in a new stage. */
struct place {
	const struct cfs_ds_whole *whole;
	struct cfs_ds_layer_name name;
	uint32_t group;
};

static int place_cmp(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	bool tied_x = x->name.form == CFS_DS_FORM_TIED;
	bool tied_y = y->name.form == CFS_DS_FORM_TIED;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (tied_x != tied_y)
		return tied_x ? -1 : 1;
	if (!tied_x && x->name.layer != y->name.layer)
		return x->name.layer < y->name.layer ? -1 : 1;
	return x->whole->seq < y->whole->seq ? -1 : 1;
}

static struct cfs_ds_layer_name rename_to(const struct cfs_ds_model *m,
					  struct cfs_ds_layer_name n,
					  bool pipeline)
{
	if (pipeline && n.form == CFS_DS_FORM_SEQUENTIAL) {
		n.form = CFS_DS_FORM_PIPELINE;
		if (m->family && n.layer == m->family->embedding &&
		    cfs_ds_is_tied(m)) {
			n.form = CFS_DS_FORM_TIED;
			n.key = m->family->tied_key;
			n.key_len = strlen(n.key);
		}
	} else if (!pipeline && n.form != CFS_DS_FORM_PLAIN) {
		if (n.form == CFS_DS_FORM_TIED && m->family)
			n.layer = m->family->embedding;
		n.form = CFS_DS_FORM_SEQUENTIAL;
	}
	return n;
}

static bool has_layer(const struct cfs_ds_remodel *rm, uint32_t s,
		      uint32_t layer)
{
	return layer >= rm->bounds[s] && layer < rm->bounds[s + 1];
}

/* Is it in stage @s?  What is tied is used by two layers. */
static bool in_stage(const struct cfs_ds_remodel *rm,
		     const struct cfs_ds_layer_name *n, uint32_t s)
{
	const struct cfs_ds_family *family = rm->model.family;

	if (!rm->pp || rm->whole)
		return true;
	if (n->form == CFS_DS_FORM_TIED)
		return !family || has_layer(rm, s, family->embedding) ||
		       (has_layer(rm, s, rm->model.head) &&
			!cfs_ds_is_once(&rm->model, n->name));
	return has_layer(rm, s, n->layer);
}

bool cfs_ds_remodel_name(const struct cfs_ds_remodel *rm, const char *name,
			 uint32_t stage, char *buf, size_t size)
{
	struct cfs_ds_layer_name n =
		rename_to(&rm->model, cfs_ds_layer_parse(name), rm->pp > 0);

	return in_stage(rm, &n, stage) && !cfs_ds_layer_format(&n, buf, size);
}

/* The second half of group 0's is group 1. */
static void halve(struct place *v, uint32_t n)
{
	uint32_t first = 0;

	while (first < n && v[first].group == 0)
		first++;
	for (uint32_t i = first / 2; i < first; i++)
		v[i].group = 1;
}

static uint32_t list_stage(const struct cfs_ds_remodel *rm, uint32_t s,
			   struct place *out)
{
	const struct cfs_ds_model *m = &rm->model;
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->n; i++) {
		const struct cfs_ds_whole *w = &m->v[i];

		out[n] = (struct place){w, rename_to(m, w->name, rm->pp > 0),
					w->group};
		if (m->halves && w->group == 1)
			out[n].group = 0;
		if (in_stage(rm, &out[n].name, s))
			n++;
	}
	qsort(out, n, sizeof(*out), place_cmp);
	if (m->halves)
		halve(out, n);
	return n;
}

/* Roles in the order the source has them, so that numbers stay. */
static int copy_roles(const struct cfs_catalogue *from,
		      struct cfs_catalogue *to)
{
	uint32_t role;
	int r = 0;

	for (uint32_t k = CFS_ROLE_STATE0; !r && k < cfs_catalogue_roles(from);
	     k++)
		r = cfs_catalogue_add_role(to, cfs_catalogue_role_name(from, k),
					   &role);
	return r;
}

static int add_param(const struct cfs_ds_remodel *rm, const struct place *p,
		     struct cfs_catalogue *cat)
{
	const struct cfs_catalogue *from = catalogue_of(rm, p->whole, 0);
	const struct cfs_param *own =
		cfs_catalogue_param(from, p->whole->index);
	const struct cfs_tp_layout *to = &p->whole->to;
	bool same = to->kind != CFS_TP_CUT;
	uint64_t shape[CFS_TP_DIMS_MAX];
	uint32_t index;
	char name[512];
	int r;

	r = cfs_ds_layer_format(&p->name, name, sizeof(name));
	if (!r && !same)
		r = cfs_tp_local_shape(to, cuts(rm), shape);
	if (!r)
		r = cfs_catalogue_add_param(
			cat, name, same ? own->ndim : to->ndim,
			same ? own->shape : shape, p->group, &index);
	for (uint32_t k = 0; !r && k < cfs_catalogue_roles(from); k++)
		if (cfs_catalogue_has(from, p->whole->index, k))
			r = cfs_catalogue_set_dtype(
				cat, index, k,
				cfs_catalogue_dtype(from, p->whole->index, k));
	return r;
}

static int make_rank(const struct cfs_ds_remodel *rm, const struct place *v,
		     uint32_t n, struct cfs_ds_made *made,
		     struct cfs_catalogue **out)
{
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *cat =
		cfs_catalogue_new();
	int r;

	made->whole = calloc((size_t)n + 1, sizeof(*made->whole));
	if (!cat || !made->whole)
		return -ENOMEM;
	r = copy_roles(rm->from->base.ranks[0].catalogue, cat);
	for (uint32_t i = 0; !r && i < n; i++) {
		made->whole[i] = v[i].whole;
		r = add_param(rm, &v[i], cat);
	}
	if (!r) {
		cfs_catalogue_set_maker(cat, make, made);
		r = cfs_catalogue_seal(cat, NULL);
	}
	if (!r)
		*out = cfs_steal(cat);
	return r;
}

/* ---- layers and stages ---- */

/* Only what is by layer can be put in other stages. */
static int check_forms(const struct cfs_ds_remodel *rm, struct cfs_error *err)
{
	const struct cfs_topology *from = &rm->from->base.topology;
	bool same = rm->pp ? from->pipeline && (rm->whole || rm->pp == 1 ||
						from->pp == rm->pp)
			   : !from->pipeline;

	for (uint32_t i = 0; i < rm->model.n; i++) {
		const struct cfs_ds_whole *w = &rm->model.v[i];

		if (!same && w->name.form == CFS_DS_FORM_PLAIN)
			return cfs_fail(err, -ENOTSUP,
					"parameter %s: its name does not say "
					"of which layer it is",
					w->name.name);
		if (!(same && from->pp == CFS_MAX(rm->pp, 1u)) &&
		    w->rule->by_stage)
			return cfs_fail(err, -ENOTSUP, "%s: %s", w->name.name,
					w->rule->because);
	}
	if (!rm->pp != !from->pipeline && rm->model.family &&
	    !rm->model.family->sequence)
		return cfs_fail(err, -ENOTSUP,
				"%s names a model without pipeline otherwise: "
				"no view of it can be made (pp0), or of it as "
				"a pipeline",
				rm->model.family->name);
	if (!same && !rm->model.n_layers)
		return cfs_fail(err, -ENOTSUP,
				"the model is of no family whose layers are "
				"known");
	return 0;
}

static int number_cmp(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Tied ones lie in the first. */
static int list_layers(struct cfs_ds_remodel *rm)
{
	struct cfs_ds_layers *l = &rm->layers;
	uint32_t kept = 0;

	l->v = calloc((size_t)rm->model.n + 1, sizeof(*l->v));
	if (!l->v)
		return -ENOMEM;
	for (uint32_t i = 0; i < rm->model.n; i++)
		l->v[l->n++] = rm->model.v[i].name.layer;
	qsort(l->v, l->n, sizeof(*l->v), number_cmp);
	for (uint32_t i = 0; i < l->n; i++)
		if (!i || l->v[i] != l->v[i - 1])
			l->v[kept++] = l->v[i];
	l->n = kept;
	return 0;
}

const struct cfs_ds_whole *cfs_ds_remodel_whole(const struct cfs_ds_remodel *rm,
						uint32_t rank, uint32_t param)
{
	return rm->made[rank].whole[param];
}

uint32_t cfs_ds_stage_of(const struct cfs_ds_remodel *rm, uint32_t layer)
{
	uint32_t s = 0;

	while (s + 1 < rm->pp && layer >= rm->bounds[s + 1])
		s++;
	return s;
}

bool cfs_ds_find_layer(const struct cfs_ds_step *step, uint32_t layer,
		       uint32_t t, uint32_t *row_out)
{
	const struct cfs_filetab *files = step->base.files;

	for (uint32_t i = step->base.first_file; i < cfs_filetab_count(files);
	     i++) {
		const char *path = cfs_filetab_path(files, i);
		const char *slash = strrchr(path, '/');
		struct cfs_ds_name n =
			cfs_ds_name_parse(slash ? slash + 1 : path);

		if (n.kind == CFS_DS_LAYER && n.dp == layer && n.mp == t) {
			*row_out = i;
			return true;
		}
	}
	return false;
}

/* ---- the step ---- */

/* Whose model states new rank @i has, for what no tensor is (its generators):
 * those of the rank in its place, if there was one. */
static void set_states(struct cfs_ds_step *step, uint32_t i)
{
	const struct cfs_ds_remodel *rm = step->remodel;
	const struct cfs_topology *from = &rm->from->base.topology;
	uint32_t rank = 0;

	if (rm->tp == from->tp && !rm->whole)
		rank = (i / rm->tp < from->pp ? i / rm->tp : 0) * rm->tp +
		       i % rm->tp;
	/* optimizers agree, but a stage may lack some parameter group */
	step->ranks[i] = rm->from->ranks[0];
	step->ranks[i].model = rm->from->ranks[rank].model;
	step->ranks[i].n_model = rm->from->ranks[rank].n_model;
	step->ranks[i].model_root = rm->from->ranks[rank].model_root;
}

static int make_ranks(struct cfs_ds_step *step)
{
	struct cfs_ds_remodel *rm = step->remodel;
	_cleanup_(cfs_freep) struct place *v =
		calloc((size_t)rm->model.n + 1, sizeof(*v));
	int r = v ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < step->base.n_ranks; i++) {
		uint32_t n = list_stage(rm, i / rm->tp, v);

		rm->made[i].remodel = rm;
		rm->made[i].t = i % rm->tp;
		set_states(step, i);
		r = make_rank(rm, v, n, &rm->made[i],
			      &step->base.ranks[i].catalogue);
	}
	return r;
}

static struct cfs_ds_step *step_new(struct cfs_ds_step *from, uint32_t n)
{
	struct cfs_ds_step *step = calloc(1, sizeof(*step));
	struct cfs_ds_remodel *rm = calloc(1, sizeof(*rm));

	if (!step || !rm) {
		free(step);
		free(rm);
		return NULL;
	}
	*step = *from;
	step->remodel = rm;
	step->scratch = NULL;
	step->base.refs = 1;
	step->base.files = cfs_filetab_ref(from->base.files);
	step->base.beside = NULL; /* the one it is made of has it */
	step->base.n_ranks = n;
	step->base.path = strdup(from->base.path);
	step->base.ranks = calloc(n, sizeof(*step->base.ranks));
	step->ranks = calloc(n, sizeof(*step->ranks));
	rm->made = calloc(n, sizeof(*rm->made));
	rm->from = cfs_ds_step_of(cfs_step_ref(&from->base));
	rm->options.old = -1;
	if (!step->base.path || !step->base.ranks || !step->ranks ||
	    !rm->made) {
		cfs_step_unref(&step->base);
		return NULL;
	}
	return step;
}

int cfs_ds_remodel(struct cfs_ds_step *step,
		   const struct cfs_ds_parallel *target,
		   struct cfs_ds_step **out, struct cfs_error *err)
{
	uint32_t n = target->whole ? 1 : CFS_MAX(target->pp, 1u) * target->tp;
	struct cfs_ds_step *made = step_new(step, n);
	int r;

	if (!made)
		return -ENOMEM;
	made->remodel->tp = target->tp;
	made->remodel->whole = target->whole;
	made->base.topology.tp = cuts(made->remodel);
	made->base.topology.pp = CFS_MAX(target->pp, 1u);
	made->base.topology.pipeline = target->pp > 0;
	made->remodel->pp = target->pp;
	r = target->options ? cfs_options_parse(target->options,
						&made->remodel->options, err)
			    : 0;
	if (!r)
		r = cfs_ds_model_read(step, target,
				      made->remodel->options.rules,
				      &made->remodel->model, err);
	if (!r)
		r = check_forms(made->remodel, err);
	if (!r && (target->tp != step->base.topology.tp || target->whole))
		r = cfs_ds_check_ranks(&made->remodel->model, err);
	if (!r)
		r = cfs_ds_check_tied(&made->remodel->model, err);
	if (!r)
		r = list_layers(made->remodel);
	if (!r && target->pp && !target->whole)
		r = cfs_ds_stages_find(made->remodel, err);
	if (!r)
		r = make_ranks(made);
	if (r < 0) {
		cfs_step_unref(&made->base);
		return r;
	}
	*out = made;
	return 0;
}

void cfs_ds_remodel_free(struct cfs_ds_step *step)
{
	struct cfs_ds_remodel *rm = step->remodel;

	for (uint32_t i = 0; i < step->base.n_ranks; i++) {
		if (step->base.ranks)
			cfs_catalogue_free(step->base.ranks[i].catalogue);
		if (rm->made)
			free(rm->made[i].whole);
	}
	for (uint32_t i = 0; rm->like && i < step->base.n_ranks; i++)
		if (step->ranks)
			free(step->ranks[i].groups);
	cfs_pickle_free(step->scratch);
	cfs_ds_model_fini(&rm->model);
	cfs_options_fini(&rm->options);
	if (rm->like)
		cfs_step_unref(&rm->like->base);
	cfs_step_unref(&rm->from->base);
	free(step->base.note);
	free(rm->made);
	free(rm->bounds);
	free(rm->layers.v);
	free(rm);
	free(step->ranks);
	free(step->base.ranks);
	cfs_filetab_unref(step->base.files);
	free(step->base.path);
	free(step);
}
