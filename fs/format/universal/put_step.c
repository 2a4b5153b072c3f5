/*
 * Tensors and groups as a step in memory.  Which parameters the optimizer has,
 * in which groups and order, only its param_groups say.
 */
#include "fs/format/deepspeed/read.h"
#include "fs/format/universal/put.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/grow.h"

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

static bool is_state(const struct cfs_put_tensor *t)
{
	const char *role = t->first->role;

	return strcmp(role, CFS_PUT_WEIGHT) != 0 &&
	       strcmp(role, CFS_PUT_MASTER) != 0 &&
	       strcmp(role, CFS_PUT_BUFFER) != 0 &&
	       strcmp(role, CFS_PUT_STEP) != 0;
}

/* What the model computes in: the configuration's, else that of its weights. */
static int find_dtype(struct cfs_uc_putting *p)
{
	struct cfs_step *base = &p->step->base;

	base->dtype = CFS_DTYPE_NONE;
	if (p->ds_config)
		base->dtype = cfs_ds_config_dtype(p->ds_config);
	for (size_t i = 0; !base->dtype && i < p->tensors->n; i++) {
		const struct cfs_put *t = p->tensors->v[i].first;

		/* of what is trained: layers may be kept in another type */
		if (!strcmp(t->role, CFS_PUT_WEIGHT) &&
		    (put_as(p, t->name, CFS_PUT_MASTER) || t->dtype == CFS_F32))
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

/* ---- parameters ---- */

/* A state has an element for each of the parameter's. */
static int check_like(const struct cfs_uc_putting *p, const struct cfs_put *a,
		      const struct cfs_put *b)
{
	if (a->ndim == b->ndim &&
	    !memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape)))
		return 0;
	return cfs_fail(p->err, -ENOTSUP,
			"tensor %s (%s): has another shape than its %s; only "
			"safetensors can hold that",
			a->name, a->role, b->role);
}

static int check_fp32(const struct cfs_uc_putting *p,
		      const struct cfs_put_tensor *t, const char *what)
{
	if (t->first->dtype == CFS_F32)
		return 0;
	return cfs_fail(p->err, -ENOTSUP,
			"tensor %s (%s): %s is kept as float32 in this format, "
			"and it is %s; safetensors takes it",
			t->first->name, t->first->role, what,
			cfs_dtype_name(t->first->dtype));
}

static int rounded(struct cfs_uc_putting *p, struct cfs_uc_param *m)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(p->puts->files);
	int r;

	if (!map)
		return -ENOMEM;
	r = cfs_map_add_cast(map, m->master->map, CFS_F32, m->weight_dtype);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	m->weight_map = cfs_steal(map);
	return 0;
}

/* The catalogue's next one. */
static int add_param(struct cfs_uc_putting *p, const struct cfs_uc_param *m)
{
	const struct cfs_put *like = (m->master ? m->master : m->weight)->first;
	struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	uint32_t i;
	int r;

	if (!CFS_GROW(p->params, p->n_params, p->cap_params))
		return -ENOMEM;
	r = cfs_catalogue_add_param(cat, m->name, like->ndim, like->shape,
				    m->group, &i);
	if (r == -EEXIST)
		return cfs_fail(p->err, -EINVAL,
				"object param_groups: lists %s twice", m->name);
	if (r < 0)
		return r;
	p->params[p->n_params++] = *m;
	r = cfs_catalogue_set_dtype(cat, i, CFS_ROLE_WEIGHT, m->weight_dtype);
	if (!r && m->master)
		r = cfs_catalogue_set_dtype(cat, i, CFS_ROLE_MASTER, CFS_F32);
	return r;
}

static int add_trained(struct cfs_uc_putting *p, const char *name,
		       uint32_t group)
{
	struct cfs_uc_param m = {.name = name,
				 .weight = put_as(p, name, CFS_PUT_WEIGHT),
				 .master = put_as(p, name, CFS_PUT_MASTER),
				 .weight_dtype = p->step->base.dtype,
				 .group = group};
	int r = 0;

	if (!m.weight && !m.master)
		return cfs_fail(p->err, -EINVAL,
				"object param_groups: lists %s, of which "
				"neither weight nor master was put",
				name);
	/* without a copy of its own the optimizer works on the weight */
	if (!m.master)
		r = check_fp32(p, m.weight, "what the optimizer works on");
	if (!m.master && !r)
		m.master = m.weight;
	if (!r)
		r = check_fp32(p, m.master, "the master copy");
	if (!r && m.weight)
		r = check_like(p, m.weight->first, m.master->first);
	if (r < 0)
		return r;
	if (m.weight) {
		m.weight_dtype = m.weight->first->dtype;
		m.weight_map = cfs_map_ref(m.weight->map);
	} else {
		r = rounded(p, &m);
	}
	if (!r)
		r = add_param(p, &m);
	if (r < 0)
		cfs_map_unref(m.weight_map);
	return r;
}

static int add_group(struct cfs_uc_putting *p, uint32_t g)
{
	struct cfs_node *hyper = cfs_seq_node_item(p->param_groups, g);
	struct cfs_node *names = cfs_node_get(hyper, "params");
	int r = 0;

	if (!cfs_node_is_map(hyper) || !cfs_node_is_seq(names))
		return cfs_fail(p->err, -EINVAL,
				"object param_groups: group %u is no "
				"dictionary with a list of params",
				g);
	for (uint32_t i = 0; !r && i < cfs_seq_node_count(names); i++) {
		const char *name = cfs_node_as_str(cfs_seq_node_item(names, i));

		r = name ? add_trained(p, name, g)
			 : cfs_fail(p->err, -EINVAL,
				    "object param_groups: params of group %u "
				    "are not names of parameters",
				    g);
	}
	return r;
}

/* Weights of no group are frozen; anything else of none was forgotten there. */
static int add_frozen(struct cfs_uc_putting *p)
{
	struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	int r = 0;

	for (size_t i = 0; !r && i < p->tensors->n; i++) {
		const struct cfs_put_tensor *t = &p->tensors->v[i];
		struct cfs_uc_param m = {.name = t->first->name,
					 .weight = t,
					 .weight_dtype = t->first->dtype,
					 .group = CFS_GROUP_FROZEN};
		uint32_t known;

		if (!cfs_catalogue_find(cat, m.name, &known) ||
		    !strcmp(t->first->role, CFS_PUT_BUFFER))
			continue;
		if (strcmp(t->first->role, CFS_PUT_WEIGHT) != 0 ||
		    put_as(p, m.name, CFS_PUT_MASTER))
			return cfs_fail(p->err, -EINVAL,
					"tensor %s (%s): object param_groups "
					"does not list its parameter",
					m.name, t->first->role);
		m.weight_map = cfs_map_ref(t->map);
		r = add_param(p, &m);
		if (r < 0)
			cfs_map_unref(m.weight_map);
	}
	return r;
}

/* ---- states ---- */

/* As the framework's own Adam has them; others follow as they were put. */
static const char *const known_states[] = {"exp_avg", "exp_avg_sq"};

static int add_roles(struct cfs_uc_putting *p)
{
	struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	uint32_t role, known;
	int r = 0;

	for (size_t k = 0; !r && k < CFS_ARRAY_SIZE(known_states); k++)
		for (size_t i = 0; i < p->tensors->n; i++)
			if (!strcmp(p->tensors->v[i].first->role,
				    known_states[k])) {
				r = cfs_catalogue_add_role(cat, known_states[k],
							   &role);
				break;
			}
	for (size_t i = 0; !r && i < p->tensors->n; i++) {
		const struct cfs_put_tensor *t = &p->tensors->v[i];
		const struct cfs_uc_param *m;

		if (!is_state(t) ||
		    cfs_catalogue_find(cat, t->first->name, &known))
			continue;
		m = &p->params[known];
		r = check_fp32(p, t, "optimizer state");
		if (!r)
			r = check_like(
				p, t->first,
				(m->master ? m->master : m->weight)->first);
		if (!r)
			r = cfs_catalogue_add_role(cat, t->first->role, &role);
		if (r == -E2BIG || r == -ENOSPC)
			return cfs_fail(
				p->err, r, "tensor %s (%s): more than %u roles",
				t->first->name, t->first->role, CFS_ROLES_MAX);
		if (!r)
			r = cfs_catalogue_set_dtype(cat, known, role, CFS_F32);
	}
	return r;
}

static int append(void *arg, uint32_t param, uint32_t role, uint64_t start,
		  uint64_t count, struct cfs_map *map)
{
	const struct cfs_uc_putting *p = arg;
	const struct cfs_catalogue *cat = p->step->base.ranks[0].catalogue;
	const struct cfs_uc_param *m = &p->params[param];
	const struct cfs_put_tensor *t = NULL;
	uint32_t size = cfs_dtype_size(cfs_catalogue_dtype(cat, param, role));

	if (role == CFS_ROLE_WEIGHT)
		return cfs_map_add_slice(map, m->weight_map, start * size,
					 count * size);
	t = role == CFS_ROLE_MASTER
		    ? m->master
		    : put_as(p, m->name, cfs_catalogue_role_name(cat, role));
	return t ? cfs_map_add_slice(map, t->map, start * size, count * size)
		 : -EINVAL;
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

/* All parameters of a group have one, or none has. */
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

static int add_params(struct cfs_uc_putting *p)
{
	int r = 0;

	for (uint32_t g = 0; !r && g < cfs_seq_node_count(p->param_groups); g++)
		r = add_group(p, g);
	if (!r)
		r = add_frozen(p);
	return r < 0 ? r : add_roles(p);
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
	r = add_params(p);
	if (r < 0)
		return r;
	cfs_catalogue_set_maker(step->base.ranks[0].catalogue, append, p);
	r = cfs_catalogue_seal(step->base.ranks[0].catalogue, p->err);
	for (uint32_t g = 0; !r && g < step->ranks[0].n_groups; g++) {
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
