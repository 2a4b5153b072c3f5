/*
 * A DeepSpeed step at another topology: which files there are, and each one's
 * map when it is asked for.  Planning looks at names and counts alone; a build
 * holds the trees of one file and drops them with its pickle made.
 *
 * In stage 3 every rank's model states carry a client state of their own: rank
 * r of the target takes that of rank r, or r mod n where the source has only n.
 * Stages 0 to 2 take rank 0's, which is what the framework writes.
 */
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "store/util/error.h"
#include "store/util/grow.h"

#define CRC_BLOCK (1u << 20)

static struct cfs_ds_tree *ds_tree_of(struct cfs_tree *tree)
{
	return container_of(tree, struct cfs_ds_tree, base);
}

/* ---- planning ---- */

int cfs_ds_tree_add(struct cfs_ds_tree *t, const char *name,
		    const struct cfs_ds_plan *plan)
{
	if (!CFS_GROW(t->plans, t->n_plans, t->cap_plans))
		return -ENOMEM;
	t->plans[t->n_plans] = *plan;
	return cfs_tree_add(&t->base, name, t->base.step->mode & 07777,
			    t->n_plans++);
}

static int plan_one(struct cfs_ds_tree *t, enum cfs_ds_part part,
		    enum cfs_ds_kind kind, uint32_t mp, uint32_t dp)
{
	struct cfs_ds_step *step = cfs_ds_step_of(t->base.step);
	struct cfs_ds_name name = {.kind = kind, .dp = dp, .mp = mp};
	struct cfs_ds_plan plan = {.part = part, .mp = mp, .dp = dp};
	char buf[128];

	/* the prefix says bf16, not which class; it is the model's */
	if (kind == CFS_DS_OPTIM)
		name.bf16 = step->ranks[mp].n_optim
				    ? step->bf16_names
				    : step->base.dtype == CFS_BF16;
	return cfs_ds_tree_add(t, cfs_ds_name_format(&name, buf, sizeof(buf)),
			       &plan);
}

static int plan_rank(struct cfs_ds_tree *t, uint32_t mp)
{
	const struct cfs_topology *topo = &t->base.target.topology;
	bool zero3 = topo->zero_stage == 3;
	bool optim = topo->optimizer != CFS_OPT_NONE &&
		     topo->optimizer != CFS_OPT_STAGE0;
	int r = 0;

	for (uint32_t dp = 0; r >= 0 && dp < (zero3 ? topo->dp : 1); dp++)
		r = plan_one(t, CFS_DS_PART_MODEL,
			     zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL, mp, dp);
	for (uint32_t dp = 0; r >= 0 && optim && dp < topo->dp; dp++)
		r = plan_one(t, CFS_DS_PART_OPTIM, CFS_DS_OPTIM, mp, dp);
	return r;
}

/* Layer files do not depend on the topology. */
static int plan_carried(struct cfs_ds_tree *t)
{
	const struct cfs_filetab *files = t->base.step->files;

	for (uint32_t i = 0; i < cfs_filetab_count(files); i++) {
		const char *path = cfs_filetab_path(files, i);
		const char *slash = strrchr(path, '/');
		const char *name = slash ? slash + 1 : path;
		struct cfs_ds_plan plan = {.part = CFS_DS_PART_CARRIED,
					   .file = i};
		int r;

		if (cfs_ds_name_parse(name).kind != CFS_DS_LAYER)
			continue;
		r = cfs_ds_tree_add(t, name, &plan);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * An elastic checkpoint has no param_groups, so only elastic files can be made
 * of it.  Of those the loader takes the ones whose step is a plain number
 * (DeepSpeed's and apex's Adam), and keeps the engine's hyper-parameters.
 */
static bool can_stay_elastic(const struct cfs_ds_step *step,
			     const struct cfs_topology *topo)
{
	if (!step->elastic || topo->optimizer != CFS_OPT_ZERO12)
		return false;
	for (uint32_t i = 0; i < step->base.n_ranks; i++)
		for (uint32_t g = 0; g < step->ranks[i].n_groups; g++) {
			const struct cfs_ds_group *group =
				&step->ranks[i].groups[g];
			const struct cfs_node *n =
				cfs_node_get(group->scalars, "step");
			int64_t v;

			if (group->hyper || (n && !cfs_node_as_int(n, &v)))
				return false;
		}
	return true;
}

/*
 * FusedAdam once kept its step in param_groups alone, which elastic files do
 * not have.  It counts the steps that were not skipped, and those are known;
 * an Adam that started at 1 again would correct its bias wrongly.
 */
static int64_t lost_step_of(const struct cfs_ds_step *step)
{
	const struct cfs_ds_rank *rank = &step->ranks[0];
	int64_t skipped = 0;
	uint32_t role;

	if (!rank->n_groups || cfs_node_get(rank->groups[0].scalars, "step") ||
	    cfs_node_get(rank->optim_state, "base_optimizer_state_step"))
		return 0;
	for (role = CFS_ROLE_STATE0;
	     role < cfs_catalogue_roles(step->base.ranks[0].catalogue); role++)
		if (!strcmp(cfs_catalogue_role_name(
				    step->base.ranks[0].catalogue, role),
			    "exp_avg_sq"))
			break;
	if (role == cfs_catalogue_roles(step->base.ranks[0].catalogue))
		return 0;
	(void)cfs_node_as_int(cfs_node_get(rank->model_root, "skipped_steps"),
			      &skipped);
	return CFS_MAX(step->base.global_steps - skipped, 0);
}

static const struct cfs_tree_ops ds_tree_ops;

/* A pipeline made of something else: layer by layer. */
static int plan_layers(struct cfs_ds_tree *t)
{
	const struct cfs_ds_remodel *rm = cfs_ds_step_of(t->base.step)->remodel;
	int r = 0;

	for (uint32_t i = 0; rm->pp && !r && i < rm->layers.n; i++) {
		uint32_t stage = cfs_ds_stage_of(rm, rm->layers.v[i]);

		for (uint32_t k = 0; !r && k < rm->tp; k++) {
			struct cfs_ds_name name = {.kind = CFS_DS_LAYER,
						   .dp = rm->layers.v[i],
						   .mp = k};
			struct cfs_ds_plan plan = {.part = CFS_DS_PART_LAYER,
						   .mp = stage * rm->tp + k,
						   .layer = rm->layers.v[i]};
			char buf[128];

			r = cfs_ds_tree_add(
				t, cfs_ds_name_format(&name, buf, sizeof(buf)),
				&plan);
		}
	}
	return r;
}

int cfs_ds_tree_new(struct cfs_step *step, const struct cfs_resolved *target,
		    struct cfs_ds_tree **out)
{
	struct cfs_ds_tree *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	r = cfs_tree_init(&t->base, &ds_tree_ops, step, target);
	if (r < 0) {
		free(t);
		return r;
	}
	t->version =
		cfs_ds_raised_version(cfs_ds_step_of(step), &target->topology);
	*out = t;
	return 0;
}

int cfs_ds_tree_seal(struct cfs_ds_tree *t, struct cfs_tree **out)
{
	int r = cfs_tree_seal(&t->base);

	if (r < 0) {
		cfs_tree_unref(&t->base);
		return r;
	}
	for (uint32_t i = 0; i < t->base.n_files; i++)
		t->plans[t->base.files[i].index].name = t->base.files[i].name;
	*out = &t->base;
	return 0;
}

int cfs_ds_write_step(struct cfs_step *step, const struct cfs_resolved *target,
		      struct cfs_tree **tree_out, struct cfs_error *err)
{
	const struct cfs_ds_remodel *rm = cfs_ds_step_of(step)->remodel;
	bool elastic =
		can_stay_elastic(cfs_ds_step_of(step), &target->topology);
	struct cfs_ds_tree *t;
	int r;

	r = cfs_ds_write_possible(cfs_ds_step_of(step), &target->topology,
				  elastic, err);
	if (!r)
		r = cfs_ds_tree_new(step, target, &t);
	if (r)
		return r;
	t->elastic = elastic;
	t->lost_step = elastic ? lost_step_of(cfs_ds_step_of(step)) : 0;
	for (uint32_t mp = 0; r >= 0 && mp < step->n_ranks; mp++)
		r = plan_rank(t, mp);
	if (r >= 0)
		r = !rm	       ? plan_carried(t)
		    : rm->like ? cfs_ds_template_plan(t)
			       : plan_layers(t);
	if (r < 0) {
		cfs_tree_unref(&t->base);
		return r;
	}
	return cfs_ds_tree_seal(t, tree_out);
}

int cfs_ds_write(struct cfs_step *step, const struct cfs_resolved *target,
		 struct cfs_tree **tree_out, struct cfs_error *err)
{
	const struct cfs_topology *from = &step->topology;
	const struct cfs_topology *to = &target->topology;
	const struct cfs_ds_parallel parallel = {
		.tp = to->tp,
		.pp = to->pipeline ? to->pp : 0,
		.vocabulary = target->vocabulary,
		.qkv_in_parts = target->qkv_in_parts,
		.bias_sum = target->bias_sum,
		.options = target->options};
	struct cfs_ds_step *made;
	int r;

	if (to->universal)
		return cfs_uc_plan(step, target, tree_out, err);
	if (from->tp == to->tp && from->pp == to->pp &&
	    from->pipeline == to->pipeline && !target->options &&
	    !cfs_ds_step_of(step)->only_masters)
		return cfs_ds_write_step(step, target, tree_out, err);
	r = cfs_ds_remodel(cfs_ds_step_of(step), &parallel, &made, err);
	if (r < 0)
		return r;
	r = cfs_ds_write_step(&made->base, target, tree_out, err);
	cfs_step_unref(&made->base); /* the tree has its own */
	return r;
}

/* ---- building one file ---- */

/* crc=full: the bytes are read once. */
static int payload_crc(void *arg, const struct cfs_map *payload,
		       uint32_t *crc_out)
{
	struct cfs_ds_out *out = arg;
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	_cleanup_(cfs_freep) uint8_t *block = malloc(CRC_BLOCK);
	uint32_t crc = 0;
	uint64_t off = 0;
	int r;

	if (!block)
		return -ENOMEM;
	/* a reader only takes a reference, but through a plain pointer */
	r = cfs_reader_open((struct cfs_map *)(uintptr_t)payload,
			    out->step->base.pool, NULL, &reader, out->err);
	if (r < 0)
		return r;
	while (off < cfs_map_size(payload)) {
		ssize_t n = cfs_reader_pread(reader, block, CRC_BLOCK, off);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		crc = (uint32_t)crc32(crc, block, (uInt)n);
		off += (uint64_t)n;
	}
	*crc_out = crc;
	return 0;
}

/* The model states that rank @dp of the target is made from. */
static int source_model(struct cfs_ds_out *out, struct cfs_torchfile **tf_out,
			struct cfs_node **root_out)
{
	const struct cfs_ds_rank *rank = out->rank;
	bool from3 = out->step->base.topology.zero_stage == 3;
	uint32_t k = from3 && out->topo->zero_stage == 3
			     ? out->dp % rank->n_model
			     : 0;
	int r;

	*root_out = rank->model_root;
	if (k == 0)
		return 0;
	r = cfs_ds_parse(&out->step->base, &rank->model[k], tf_out, out->err);
	if (r < 0)
		return r;
	*root_out = cfs_torchfile_root(*tf_out);
	if (!cfs_node_is_map(*root_out))
		return cfs_fail(out->err, -EBADMSG, "%s: is not a dict",
				rank->model[k].name);
	return out->step->remodel && out->step->remodel->like
		       ? cfs_ds_template_model(out, root_out)
		       : 0;
}

static int make_file(struct cfs_ds_out *out, const struct cfs_ds_plan *plan,
		     struct cfs_map **map_out)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	bool crc = out->tree->base.crc_full;
	struct cfs_node *root = NULL, *source;
	int r;

	if (plan->part == CFS_DS_PART_OPTIM) {
		r = cfs_ds_write_optim(out, &root);
	} else if (plan->part == CFS_DS_PART_LAYER) {
		root = cfs_node_ordereddict(out->doc);
		r = out->step->remodel->like
			    ? cfs_ds_template_layer(out, plan, root)
			    : cfs_ds_write_layer(out, plan->layer, "", root);
	} else if (plan->part == CFS_DS_PART_UNIVERSAL) {
		r = cfs_uc_write(out, plan, &root);
	} else {
		r = source_model(out, &tf, &source);
		if (r >= 0)
			r = cfs_ds_write_model(out, source, &root);
	}
	if (cfs_pickle_failed(out->doc))
		return -ENOMEM;
	if (r < 0)
		return r;
	return cfs_torch_writer_finish(out->w, root, cfs_ds_out_open, out,
				       crc ? payload_crc : NULL, out, map_out,
				       out->err);
}

static int build_torch(const struct cfs_ds_tree *t,
		       const struct cfs_ds_plan *plan, struct cfs_map **map_out,
		       struct cfs_error *err)
{
	struct cfs_ds_step *step = plan->part == CFS_DS_PART_UNIVERSAL
					   ? t->whole
					   : cfs_ds_step_of(t->base.step);
	const char *slash = strrchr(plan->name, '/');
	const char *name = slash ? slash + 1 : plan->name;
	uint32_t n_files = cfs_filetab_count(step->base.files);
	_cleanup_(cfs_freep) char *prefix =
		strndup(name, strlen(name) - strlen(".pt"));
	struct cfs_ds_out out = {.tree = t,
				 .step = step,
				 .topo = plan->zero3 ? &t->zero3
						     : &t->base.target.topology,
				 .rank = &step->ranks[plan->mp],
				 .cat = step->base.ranks[plan->mp].catalogue,
				 .mp = plan->mp,
				 .dp = plan->dp,
				 .err = err};
	int r = -ENOMEM;

	out.open = calloc((size_t)n_files + 1, sizeof(*out.open));
	out.w = prefix ? cfs_torch_writer_new(step->base.files, prefix) : NULL;
	if (out.open && out.w) {
		out.doc = cfs_torch_writer_doc(out.w);
		r = make_file(&out, plan, map_out);
	}
	cfs_torch_writer_free(out.w);
	for (uint32_t i = 0; i < out.n_parsed; i++)
		cfs_torchfile_free(out.parsed[i]);
	free(out.parsed);
	for (uint32_t i = 0; out.open && i < n_files; i++)
		if (out.open[i])
			cfs_filepool_put(step->base.pool, out.open[i]);
	free(out.open);
	return r;
}

static int build_carried(const struct cfs_ds_tree *t, uint32_t file,
			 struct cfs_map **map_out)
{
	struct cfs_filetab *files = t->base.step->files;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(files);
	int r;

	if (!map)
		return -ENOMEM;
	r = cfs_map_add_range(map, file, 0,
			      cfs_filetab_version(files, file)->size);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}

static int ds_tree_build(struct cfs_tree *tree, uint32_t index,
			 struct cfs_map **map_out, struct cfs_error *err)
{
	const struct cfs_ds_tree *t = ds_tree_of(tree);
	const struct cfs_ds_plan *plan = &t->plans[index];
	int r;

	r = plan->part == CFS_DS_PART_CARRIED
		    ? build_carried(t, plan->file, map_out)
		    : build_torch(t, plan, map_out, err);
	/* Planning saw to all that a step can lack: a file of it went away.  An
	 * absent checkpoint would make a trainer start anew. */
	return r == -ENOENT ? -ESTALE : r;
}

static void ds_tree_free(struct cfs_tree *tree)
{
	struct cfs_ds_tree *t = ds_tree_of(tree);

	cfs_tree_fini(tree);
	if (t->whole)
		cfs_step_unref(&t->whole->base);
	free(t->plans);
	free(t);
}

static const struct cfs_tree_ops ds_tree_ops = {
	.build = ds_tree_build,
	.free = ds_tree_free,
};
