/*
 * Each new rank gets a catalogue of the parameters its stage has, in the order
 * the framework would have them: tied ones first, then layer by layer.
 */
#include "fs/format/deepspeed/remodel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/stages.h"

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

/* Names of a model that is no pipeline and becomes none are its own: "0.weight"
 * is what torch.nn.Sequential calls it. */
static struct cfs_ds_layer_name rename_to(const struct cfs_ds_remodel *rm,
					  struct cfs_ds_layer_name n)
{
	const struct cfs_ds_model *m = &rm->model;
	const bool pipeline = rm->pp > 0;

	if (!pipeline && !rm->from->base.topology.pipeline)
		return n;
	if (pipeline && n.form == CFS_DS_FORM_SEQUENTIAL) {
		n.form = CFS_DS_FORM_PIPELINE;
		if (m->family && n.layer == m->family->embedding &&
		    cfs_ds_is_tied(m)) {
			n.form = CFS_DS_FORM_TIED;
			n.key = m->family->tied_key;
			n.key_len = strlen(n.key);
		}
	} else if (!pipeline && n.form != CFS_DS_FORM_PLAIN &&
		   n.form != CFS_DS_FORM_PREFIXED) {
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
	struct cfs_ds_layer_name n = rename_to(rm, cfs_ds_layer_parse(name));

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

		out[n] = (struct place){w, rename_to(rm, w->name), w->group};
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
	const struct cfs_catalogue *from =
		cfs_ds_remodel_catalogue(rm, p->whole, 0);
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
		r = cfs_tp_local_shape(to, cfs_ds_remodel_cuts(rm), shape);
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
		cfs_catalogue_set_maker(cat, cfs_ds_remodel_make, made);
		r = cfs_catalogue_seal(cat, NULL);
	}
	if (!r)
		*out = cfs_steal(cat);
	return r;
}

int cfs_ds_remodel_rank(struct cfs_ds_remodel *rm, uint32_t i,
			struct cfs_catalogue **out)
{
	_cleanup_(cfs_freep) struct place *v =
		calloc((size_t)rm->model.n + 1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	rm->made[i].remodel = rm;
	rm->made[i].t = i % rm->tp;
	return make_rank(rm, v, list_stage(rm, i / rm->tp, v), &rm->made[i],
			 out);
}
