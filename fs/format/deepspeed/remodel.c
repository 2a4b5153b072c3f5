/* A step of other ranks: whether there can be one, its stages, whose model
 * states they have. */
#include "fs/format/deepspeed/remodel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/replicas.h"
#include "fs/format/deepspeed/stages.h"
#include "store/util/error.h"

#define LAYERS_MAX 4096u

/* ---- layers and stages ---- */

/* Only what is by layer can be put in other stages. */
static int check_forms(const struct cfs_ds_remodel *rm, struct cfs_error *err)
{
	const struct cfs_topology *from = &rm->from->base.topology;
	bool same = rm->pp ? from->pipeline && (rm->whole || rm->pp == 1 ||
						from->pp == rm->pp)
			   : !from->pipeline;

	if (rm->model.n_layers > LAYERS_MAX)
		return cfs_fail(err, -ENOTSUP,
				"the model has %u layers, more than %u",
				rm->model.n_layers, LAYERS_MAX);
	for (uint32_t i = 0; i < rm->model.n; i++) {
		const struct cfs_ds_whole *w = &rm->model.v[i];

		if (!same && w->name.form == CFS_DS_FORM_PLAIN)
			return cfs_fail(err, -ENOTSUP,
					"parameter %s: its name does not say "
					"of which layer it is",
					w->name.name);
		if ((!same || rm->pp > 1) && rm->model.n_layers &&
		    w->name.form != CFS_DS_FORM_PREFIXED &&
		    w->name.layer >= rm->model.n_layers)
			return cfs_fail(err, -ENOTSUP,
					"parameter %s of layer %u: the model "
					"has %u layers that are known",
					w->name.name, w->name.layer,
					rm->model.n_layers);
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
	if ((!same || rm->pp > 1) && !rm->model.n_layers)
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
	if (rank >= rm->from->base.n_ranks)
		rank = 0;
	/* optimizers agree, but a stage may lack some parameter group */
	step->ranks[i] = rm->from->ranks[0];
	step->ranks[i].model = rm->from->ranks[rank].model;
	step->ranks[i].n_model = rm->from->ranks[rank].n_model;
	step->ranks[i].model_root = rm->from->ranks[rank].model_root;
}

static int make_ranks(struct cfs_ds_step *step, struct cfs_error *err)
{
	struct cfs_ds_remodel *rm = step->remodel;
	int r = 0;

	for (uint32_t i = 0; !r && i < step->base.n_ranks; i++) {
		set_states(step, i);
		r = cfs_ds_remodel_rank(rm, i, &step->base.ranks[i].catalogue);
		if (!r && rm->pp &&
		    !cfs_catalogue_params(step->base.ranks[i].catalogue))
			return cfs_fail(err, -EINVAL,
					"stage %u of %u would have no "
					"parameter: of %u layers %u have some",
					i / rm->tp, rm->pp, rm->model.n_layers,
					rm->layers.n);
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
	made->base.topology.tp = cfs_ds_remodel_cuts(made->remodel);
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
		r = make_ranks(made, err);
	if (r < 0) {
		cfs_step_unref(&made->base);
		return r;
	}
	*out = made;
	return 0;
}

int cfs_ds_whole(struct cfs_step *step, struct cfs_step **out,
		 struct cfs_error *err)
{
	const struct cfs_ds_parallel all = {.tp = 1,
					    .pp = step->topology.pipeline,
					    .qkv_in_parts = -1,
					    .bias_sum = -1,
					    .whole = true};
	struct cfs_ds_step *whole;
	int r;

	if (step->n_ranks == 1) {
		*out = cfs_step_ref(step);
		return 0;
	}
	r = cfs_ds_remodel(cfs_ds_step_of(step), &all, &whole, err);
	if (!r)
		*out = &whole->base;
	return r;
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
