/* A step in memory, of one rank: its facts, its groups, their counts of
 * steps. */
#include "fs/format/deepspeed/read.h"
#include "fs/format/universal/put.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

struct cfs_node *cfs_uc_put_tensor(struct cfs_uc_putting *p,
				   const struct cfs_put *like,
				   enum cfs_dtype dtype, struct cfs_map *map)
{
	const struct cfs_torch_storage *storage = cfs_torch_writer_storage(
		p->w, dtype, cfs_map_size(map) / cfs_dtype_size(dtype), map,
		NULL, "cpu");

	return storage ? cfs_torch_writer_tensor(p->w, storage, 0, like->ndim,
						 like->shape, false)
		       : NULL;
}

static const struct cfs_put_tensor *put_as(const struct cfs_uc_putting *p,
					   const char *name, const char *role)
{
	return cfs_put_tensors_find(p->tensors, name, role);
}

/* ---- types ---- */

/* What the model computes in: the configuration's, else the type of 16-bit
 * weights that have a master, else float32. */
static int find_dtype(struct cfs_uc_putting *p)
{
	struct cfs_step *base = &p->step->base;

	base->dtype = CFS_DTYPE_NONE;
	if (p->ds_config)
		base->dtype = cfs_ds_config_dtype(p->ds_config);
	for (size_t i = 0; !p->ds_config && i < p->tensors->n; i++) {
		const struct cfs_put *t = p->tensors->v[i].first;

		if (strcmp(t->role, CFS_PUT_WEIGHT) != 0 ||
		    (base->dtype && base->dtype != CFS_F32))
			continue;
		if (t->dtype == CFS_F32 || put_as(p, t->name, CFS_PUT_MASTER))
			base->dtype = t->dtype;
	}
	if (base->dtype != CFS_F32 && base->dtype != CFS_F16 &&
	    base->dtype != CFS_BF16)
		return cfs_fail(p->err, -EINVAL,
				"what the model computes in is not known: put "
				"its weights, or object ds_config");
	if (base->dtype == CFS_F16 &&
	    !cfs_node_get(p->optimizer_state, "loss_scaler"))
		return cfs_fail(p->err, -EINVAL,
				"fp16 is trained with a loss scale: put it as "
				"loss_scaler of object optimizer_state");
	return 0;
}

static int check_put(const struct cfs_uc_putting *p)
{
	bool optimizer = false;

	for (size_t i = 0; i < p->tensors->n; i++)
		optimizer |= strcmp(p->tensors->v[i].first->role,
				    CFS_PUT_WEIGHT) != 0 &&
			     strcmp(p->tensors->v[i].first->role,
				    CFS_PUT_BUFFER) != 0;
	if (!optimizer)
		return cfs_fail(p->err, -EINVAL,
				"no optimizer state was put, which this format "
				"is made of: save weights alone as "
				"safetensors");
	if (!p->param_groups || !cfs_seq_node_count(p->param_groups))
		return cfs_fail(p->err, -EINVAL,
				"put object param_groups, a pickle of the "
				"optimizer's list in which params are names: "
				"nothing else tells groups and order");
	return 0;
}

/* ---- counts of steps ---- */

static bool has_role(const struct cfs_catalogue *cat, uint32_t param,
		     const char *name)
{
	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(cat); k++)
		if (!strcmp(cfs_catalogue_role_name(cat, k), name))
			return cfs_catalogue_has(cat, param, k);
	return false;
}

/* Groups count once: what differs would be lost, or spoil what is made of it.
 */
static int check_count(const struct cfs_uc_putting *p,
		       const struct cfs_put_tensor *a,
		       const struct cfs_put_tensor *b)
{
	if (a->first->dtype == b->first->dtype &&
	    a->first->hash == b->first->hash)
		return 0;
	return cfs_fail(p->err, -ENOTSUP,
			"parameters %s and %s of one group: their counts of "
			"steps differ; safetensors takes that",
			a->first->name, b->first->name);
}

/* All parameters of a group have one, and the same; or none has. */
static int find_step(struct cfs_uc_putting *p, uint32_t first, uint32_t n,
		     const struct cfs_put_tensor **out)
{
	*out = put_as(p, p->params[first].name, CFS_PUT_STEP);
	for (uint32_t i = first; i < first + n; i++) {
		const struct cfs_put_tensor *t =
			put_as(p, p->params[i].name, CFS_PUT_STEP);

		if (!t != !*out)
			return cfs_fail(p->err, -EINVAL,
					"parameter %s: no %s was put for it, "
					"but for %s of its group",
					p->params[t ? first : i].name,
					CFS_PUT_STEP,
					p->params[t ? i : first].name);
		if (t && t->numel != 1)
			return cfs_fail(p->err, -EINVAL,
					"tensor %s (%s): is one number",
					t->first->name, t->first->role);
		if (t && check_count(p, *out, t) < 0)
			return -ENOTSUP;
	}
	return 0;
}

/* An optimizer's state is whole: none of a parameter's was forgotten. */
static int check_states(const struct cfs_uc_putting *p, uint32_t g)
{
	const struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	uint32_t first, n, roles = cfs_catalogue_roles(cat);

	cfs_catalogue_group(cat, g, &first, &n);
	for (uint32_t i = first; i < first + n; i++) {
		bool any = roles == CFS_ROLE_STATE0;

		for (uint32_t k = CFS_ROLE_STATE0; k < roles; k++) {
			bool has = cfs_catalogue_has(cat, i, k);

			any |= has;
			if (has != cfs_catalogue_has(cat, first, k))
				return cfs_fail(
					p->err, -EINVAL,
					"parameter %s: no %s was put for it, "
					"but for %s of its group",
					p->params[has ? first : i].name,
					cfs_catalogue_role_name(cat, k),
					p->params[has ? i : first].name);
		}
		if (!any)
			return cfs_fail(p->err, -EINVAL,
					"parameter %s: no state of the "
					"optimizer was put for it, but for "
					"others that param_groups lists",
					p->params[i].name);
	}
	return 0;
}

static int add_step(struct cfs_uc_putting *p, uint32_t g)
{
	const struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	struct cfs_ds_group *group = &p->step->ranks[0].groups[g];
	const struct cfs_put_tensor *t = NULL;
	struct cfs_node *step = cfs_node_get(group->hyper, "step");
	uint32_t first, n;
	int64_t count;
	int r;

	cfs_catalogue_group(cat, g, &first, &n);
	if (!n)
		return 0;
	r = find_step(p, first, n, &t);
	if (r < 0)
		return r;
	if (t) {
		step = cfs_uc_put_tensor(p, t->first, t->first->dtype, t->map);
	} else if (step && !cfs_node_as_int(step, &count)) {
		return cfs_fail(p->err, -EINVAL,
				"object param_groups: step of group %u is no "
				"integer",
				g);
	} else if (!step && has_role(cat, first, "exp_avg_sq")) {
		return cfs_fail(p->err, -EINVAL,
				"parameter %s: how many steps its optimizer "
				"took is not known: put a tensor of role step "
				"for each parameter, or a step in each group "
				"of param_groups",
				p->params[first].name);
	}
	if (step)
		cfs_node_set_str(p->doc, group->scalars, "step", step);
	return 0;
}

static void order_states(struct cfs_uc_putting *p, uint32_t g)
{
	const struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	struct cfs_ds_group *group = &p->step->ranks[0].groups[g];
	uint32_t first, n;

	cfs_catalogue_group(cat, g, &first, &n);
	if (cfs_node_get(group->scalars, CFS_PUT_STEP))
		cfs_node_append(p->doc, group->state_order,
				cfs_node_str(p->doc, CFS_PUT_STEP));
	for (uint32_t k = CFS_ROLE_STATE0; n && k < cfs_catalogue_roles(cat);
	     k++)
		if (cfs_catalogue_has(cat, first, k))
			cfs_node_append(
				p->doc, group->state_order,
				cfs_node_str(p->doc,
					     cfs_catalogue_role_name(cat, k)));
}

/* ---- the step ---- */

static int make_rank(struct cfs_uc_putting *p)
{
	uint32_t n = cfs_seq_node_count(p->param_groups);
	struct cfs_ds_step *step = p->step;
	struct cfs_ds_rank *rank;

	step->base.n_ranks = 1;
	step->base.ranks = calloc(1, sizeof(*step->base.ranks));
	step->ranks = calloc(1, sizeof(*step->ranks));
	if (!step->base.ranks || !step->ranks)
		return -ENOMEM;
	rank = &step->ranks[0];
	step->base.ranks[0].catalogue = cfs_catalogue_new();
	rank->groups = calloc((size_t)n + 1, sizeof(*rank->groups));
	rank->model = calloc(1, sizeof(*rank->model));
	if (!step->base.ranks[0].catalogue || !rank->groups || !rank->model)
		return -ENOMEM;
	rank->n_model = 1;
	rank->model[0].name = strdup("model states");
	rank->n_groups = n;
	for (uint32_t g = 0; g < n; g++) {
		rank->groups[g].hyper = cfs_seq_node_item(p->param_groups, g);
		rank->groups[g].scalars = cfs_node_dict(p->doc);
		rank->groups[g].state_order = cfs_node_list(p->doc);
	}
	return rank->model[0].name ? 0 : -ENOMEM;
}

/* What the job's own files would be: stage 3 has no weights of its own, and
 * here they are. */
static void set_topology(struct cfs_uc_putting *p)
{
	struct cfs_topology *t = &p->step->base.topology;
	const char *acc = cfs_node_as_str(
		cfs_ds_config_get(p->ds_config, "data_types.grad_accum_dtype"));

	*t = (struct cfs_topology){.dp = CFS_MAX(p->puts->dp, 1u),
				   .tp = 1,
				   .pp = 1,
				   .zero_stage =
					   p->puts->zero_stage > 1 ? 2 : 1,
				   .optimizer = CFS_OPT_ZERO12,
				   .universal = true};
	if (t->zero_stage == 1 && p->step->base.dtype == CFS_BF16 && acc &&
	    (!strcmp(acc, "fp32") || !strcmp(acc, "float32")))
		t->optimizer = CFS_OPT_BF16;
}

int cfs_uc_put_step(struct cfs_uc_putting *p)
{
	struct cfs_ds_step *step = cfs_ds_step_new(NULL, NULL, "");
	int r;

	p->step = step;
	if (!step)
		return -ENOMEM;
	step->base.format = &cfs_format_universal;
	r = check_put(p);
	if (!r)
		r = find_dtype(p);
	if (!r)
		r = make_rank(p);
	if (r < 0)
		return r;
	set_topology(p);
	step->base.files = cfs_filetab_ref(p->puts->files);
	step->base.writer_version = CFS_UC_PUT_VERSION;
	step->base.mode = 0644;
	step->bf16_names = step->base.dtype == CFS_BF16;
	r = cfs_uc_put_params(p);
	for (uint32_t g = 0; !r && g < step->ranks[0].n_groups; g++) {
		r = check_states(p, g);
		if (!r)
			r = add_step(p, g);
		if (!r)
			order_states(p, g);
	}
	if (!r)
		r = cfs_uc_put_model(p, &step->ranks[0].model_root);
	if (r < 0)
		return r;
	step->ds_config = p->ds_config;
	step->ranks[0].optim_state =
		p->optimizer_state ? p->optimizer_state : cfs_node_dict(p->doc);
	step->base.global_steps = CFS_MAX(p->puts->step, 0);
	(void)cfs_node_as_int(
		cfs_node_get(step->ranks[0].model_root, "global_steps"),
		&step->base.global_steps);
	return cfs_pickle_failed(p->doc) ? -ENOMEM : 0;
}
