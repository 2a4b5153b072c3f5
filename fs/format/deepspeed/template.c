/*
 * A template's step with another step's tensors: its ranks, groups and order,
 * catalogues whose tensors are made of the other's.  The writer writes it at
 * the template's own topology.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/replicas.h"
#include "fs/format/deepspeed/write.h"
#include "store/util/error.h"

/* ---- tensors ---- */

static const struct cfs_catalogue *run_of(const struct cfs_ds_remodel *rm,
					  const struct cfs_ds_whole *w,
					  uint32_t t)
{
	const struct cfs_step *run = &rm->from->base;

	return run->ranks[w->stage * run->topology.tp + t].catalogue;
}

/* A weight is the step's own where it has the template's type; in another type
 * it is rounded once, from the master, and so is a share of a sum that is made
 * of other shares. */
static uint32_t role_from(const struct cfs_ds_made *made,
			  const struct cfs_ds_whole *w, uint32_t role,
			  enum cfs_dtype want)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_catalogue *run = run_of(rm, w, 0);
	bool master = cfs_catalogue_has(run, w->index, CFS_ROLE_MASTER);
	bool weight = cfs_catalogue_has(run, w->index, CFS_ROLE_WEIGHT);

	if (role == CFS_ROLE_MASTER)
		return master ? role : CFS_ROLE_WEIGHT;
	if (role != CFS_ROLE_WEIGHT)
		return cfs_ds_template_role(
			rm, w, rm->like->base.ranks[made->mp].catalogue, role);
	if (!weight ||
	    (master && (w->from.kind == CFS_TP_SUM ||
			cfs_catalogue_dtype(run, w->index, role) != want)))
		return CFS_ROLE_MASTER;
	return role;
}

/* Elements of what rank @made->t gets, in the step's own type. */
static int append_own(const struct cfs_ds_made *made,
		      const struct cfs_ds_whole *w, uint32_t role,
		      uint64_t start, uint64_t count, struct cfs_map *map)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	_cleanup_(cfs_map_unrefp) struct cfs_map *all = NULL;
	uint32_t size;
	int r;

	if (rm->tp == rm->from->base.topology.tp && w->from.kind != CFS_TP_CUT)
		return cfs_catalogue_append(run_of(rm, w, made->t), w->index,
					    role, start, count, map);
	all = cfs_map_new(cfs_map_filetab(map));
	if (!all)
		return -ENOMEM;
	size = cfs_dtype_size(
		cfs_catalogue_dtype(run_of(rm, w, 0), w->index, role));
	r = cfs_ds_remodel_append(rm, w, role, made->t, all);
	return r < 0 ? r
		     : cfs_map_add_slice(map, all, start * size, count * size);
}

static int make(void *arg, uint32_t param, uint32_t role, uint64_t start,
		uint64_t count, struct cfs_map *map)
{
	const struct cfs_ds_made *made = arg;
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_ds_whole *w = made->whole[param];
	enum cfs_dtype want = cfs_catalogue_dtype(made->cat, param, role), have;
	_cleanup_(cfs_map_unrefp) struct cfs_map *own = NULL;
	uint32_t from;
	int r;

	if (!w)
		return cfs_catalogue_append(
			rm->like->base.ranks[made->mp].catalogue, param, role,
			start, count, map);
	from = role_from(made, w, role, want);
	have = cfs_catalogue_dtype(run_of(rm, w, 0), w->index, from);
	if (have == want)
		return append_own(made, w, from, start, count, map);
	own = cfs_map_new(cfs_map_filetab(map));
	if (!own)
		return -ENOMEM;
	r = append_own(made, w, from, start, count, own);
	return r < 0 ? r : cfs_map_add_cast(map, own, have, want);
}

/* ---- catalogues ---- */

static int set_types(const struct cfs_ds_step *made, uint32_t mp,
		     const struct cfs_catalogue *like, uint32_t param,
		     struct cfs_catalogue *cat)
{
	const struct cfs_param *p = cfs_catalogue_param(like, param);
	int r = 0;

	for (uint32_t k = 0; !r && k < cfs_catalogue_roles(like); k++)
		if (cfs_catalogue_has(like, param, k))
			r = cfs_catalogue_set_dtype(
				cat, param, k,
				cfs_catalogue_dtype(like, param, k));
	/* a tied one's may not have been found in the template's files */
	if (!r && made->base.topology.zero_stage < 3 &&
	    p->group != CFS_GROUP_FROZEN &&
	    made->remodel->made[mp].whole[param] &&
	    !cfs_catalogue_has(like, param, CFS_ROLE_WEIGHT))
		r = cfs_catalogue_set_dtype(cat, param, CFS_ROLE_WEIGHT,
					    made->base.dtype);
	return r;
}

static int make_rank(struct cfs_ds_step *made, uint32_t mp)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_catalogue *like = rm->like->base.ranks[mp].catalogue;
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *cat =
		cfs_catalogue_new();
	uint32_t ignored;
	int r = cat ? 0 : -ENOMEM;

	for (uint32_t k = CFS_ROLE_STATE0; !r && k < cfs_catalogue_roles(like);
	     k++)
		r = cfs_catalogue_add_role(
			cat, cfs_catalogue_role_name(like, k), &ignored);
	for (uint32_t i = 0; !r && i < cfs_catalogue_params(like); i++) {
		const struct cfs_param *p = cfs_catalogue_param(like, i);

		r = cfs_catalogue_add_param(cat, p->name, p->ndim, p->shape,
					    p->group, &ignored);
		if (!r)
			r = set_types(made, mp, like, i, cat);
	}
	if (r < 0)
		return r;
	cfs_catalogue_set_maker(cat, make, &rm->made[mp]);
	r = cfs_catalogue_seal(cat, NULL);
	if (r < 0)
		return r;
	rm->made[mp].cat = cat;
	made->base.ranks[mp].catalogue = cfs_steal(cat);
	return 0;
}

/* ---- the step ---- */

static struct cfs_ds_step *step_new(struct cfs_ds_step *run,
				    struct cfs_ds_step *like)
{
	struct cfs_ds_step *step = calloc(1, sizeof(*step));
	struct cfs_ds_remodel *rm = calloc(1, sizeof(*rm));
	uint32_t n = like->base.n_ranks;

	if (!step || !rm) {
		free(step);
		free(rm);
		return NULL;
	}
	*step = *like;
	step->remodel = rm;
	step->base.refs = 1;
	step->base.first_file = 0;
	step->base.files = cfs_filetab_ref(like->base.files);
	step->base.beside = NULL;
	step->base.also = &like->base; /* rm->like is the reference */
	step->base.note = NULL;
	step->base.path = strdup(run->base.path);
	step->base.ranks = calloc(n, sizeof(*step->base.ranks));
	step->ranks = calloc(n, sizeof(*step->ranks));
	step->scratch = cfs_pickle_new(NULL);
	rm->made = calloc(n, sizeof(*rm->made));
	rm->from = cfs_ds_step_of(cfs_step_ref(&run->base));
	rm->like = cfs_ds_step_of(cfs_step_ref(&like->base));
	rm->tp = like->base.topology.tp;
	rm->pp = like->base.topology.pipeline ? like->base.topology.pp : 0;
	rm->options.old = -1;
	if (!step->base.path || !step->base.ranks || !step->ranks ||
	    !step->scratch || !rm->made) {
		cfs_step_unref(&step->base);
		return NULL;
	}
	return step;
}

/* What it shows is of the step: identity, times; who may read both may. */
static int join(struct cfs_step *made, const struct cfs_step *run,
		const struct cfs_step *like, struct cfs_error *err)
{
	if (run->uid != like->uid)
		return cfs_fail(err, -EACCES,
				"the template belongs to user %u and the step "
				"to user %u: chown the files to one user",
				(unsigned)like->uid, (unsigned)run->uid);
	made->mode = run->mode & like->mode;
	if (run->gid != like->gid)
		made->mode &= ~(mode_t)070;
	made->gid = run->gid;
	made->mtime_ns = CFS_MAX(run->mtime_ns, like->mtime_ns);
	made->identity = run->identity;
	made->global_steps = run->global_steps;
	return 0;
}

static int fill(struct cfs_ds_step *made, const struct cfs_request *request,
		bool partial, struct cfs_error *err)
{
	struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_ds_parallel target = {
		.tp = rm->tp,
		.pp = rm->pp,
		.vocabulary = request->vocabulary,
		.qkv_in_parts = request->qkv_in_parts,
		.bias_sum = request->bias_sum,
		.like = rm->like};
	int r;

	r = join(&made->base, &rm->from->base, &rm->like->base, err);
	if (!r)
		r = cfs_ds_model_read(rm->from, &target, rm->options.rules,
				      &rm->model, err);
	if (!r && rm->tp != rm->from->base.topology.tp)
		r = cfs_ds_check_ranks(&rm->model, err);
	if (!r)
		r = cfs_ds_check_tied(&rm->model, err);
	if (!r)
		r = cfs_ds_template_match(made, partial, &made->base.note, err);
	for (uint32_t i = 0; !r && i < made->base.n_ranks; i++)
		r = make_rank(made, i);
	return r < 0 ? r : cfs_ds_template_state(made, err);
}

static int check_template(const struct cfs_ds_step *like,
			  const struct cfs_options *options,
			  struct cfs_error *err)
{
	const struct cfs_topology *topo = &like->base.topology;

	if (cfs_step_fingerprint(&like->base) != options->like_id)
		return cfs_fail(err, -EINVAL,
				"it is no longer as it was when the view was "
				"added; add the view again");
	if (like->elastic)
		return cfs_fail(err, -ENOTSUP,
				"its optimizer state is elastic, which no "
				"loader of today fills itself from");
	if (topo->pipeline && !topo->zero_stage &&
	    topo->optimizer != CFS_OPT_NONE && like->base.dtype == CFS_BF16)
		return cfs_fail(err, -ENOTSUP,
				"DeepSpeed cannot load again what it saves of "
				"a bf16 pipeline without ZeRO; save it with "
				"stage 1");
	return 0;
}

static struct cfs_resolved resolved(const struct cfs_ds_step *like,
				    const struct cfs_request *request)
{
	return (struct cfs_resolved){.topology = like->base.topology,
				     .vocabulary = request->vocabulary,
				     .qkv_in_parts = request->qkv_in_parts,
				     .bias_sum = request->bias_sum,
				     .options = request->options,
				     .dp = CFS_FROM_TEMPLATE,
				     .tp = CFS_FROM_TEMPLATE,
				     .pp = CFS_FROM_TEMPLATE,
				     .zero_stage = CFS_FROM_TEMPLATE,
				     .optimizer = CFS_FROM_TEMPLATE,
				     .round_robin = CFS_FROM_TEMPLATE,
				     .sub_group_size = CFS_FROM_TEMPLATE};
}

/* The same files at the same rows? */
static bool same_rows(const struct cfs_filetab *a, const struct cfs_filetab *b)
{
	uint32_t n = cfs_filetab_count(a);

	for (uint32_t i = 0; i < n; i++)
		if (i >= cfs_filetab_count(b) ||
		    strcmp(cfs_filetab_path(a, i), cfs_filetab_path(b, i)) !=
			    0 ||
		    !cfs_version_equal(cfs_filetab_version(a, i),
				       cfs_filetab_version(b, i)))
			return false;
	return true;
}

static int read_template(struct cfs_step *step, struct cfs_source *source,
			 struct cfs_filepool *pool, const char *path,
			 struct cfs_step **out, struct cfs_error *err)
{
	/* a run's view shows all its steps, the template perhaps among them */
	bool self = !strcmp(step->path, path);
	const struct cfs_format *format;
	int r = cfs_format_probe(source, path, &format);

	if (r == -ENOENT || r == -ENOTDIR)
		return cfs_fail(err, -EINVAL,
				"%s: is no step of a checkpoint "
				"(any more)",
				path);
	if (!r && format != &cfs_format_deepspeed)
		return cfs_fail(err, -ENOTSUP,
				"%s: a %s checkpoint is no template; its job "
				"loads RUN/@universal",
				path, format->name);
	if (!r)
		r = cfs_ds_read_beside(source, pool, path,
				       self ? NULL : step->files, out, err);
	if (!r && self && !same_rows(step->files, (*out)->files))
		r = cfs_fail(err, -ESTALE, "%s: changed since it was read",
			     path);
	/* for a trainer, what is not there is no checkpoint */
	return r == -ENOENT ? -EINVAL : r;
}

int cfs_ds_template_fill(struct cfs_step *step, struct cfs_source *source,
			 struct cfs_filepool *pool, const char *path,
			 const struct cfs_request *request,
			 struct cfs_tree **tree_out, struct cfs_error *err)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *base = NULL, *like = NULL;
	struct cfs_options options = {.old = -1};
	struct cfs_ds_step *made;
	struct cfs_resolved target;
	int r = read_template(step, source, pool, path, &like, err);

	if (r < 0)
		return cfs_fail_prefix(err, r, "the template");
	made = step_new(cfs_ds_step_of(step), cfs_ds_step_of(like));
	if (!made)
		return -ENOMEM;
	base = &made->base;
	r = cfs_options_parse(request->options, &options, err);
	if (r < 0)
		return r;
	made->remodel->options = options;
	r = check_template(cfs_ds_step_of(like), &options, err);
	if (r < 0)
		return cfs_fail_prefix(err, r, "the template %s", path);
	r = fill(made, request, options.partial, err);
	if (r < 0)
		return r;
	target = resolved(cfs_ds_step_of(like), request);
	return cfs_ds_write_step(base, &target, tree_out, err);
}
