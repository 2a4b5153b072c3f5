/*
 * The parameters: which the optimizer has, in which groups and order, its
 * param_groups say, and the rest is frozen; then their states.
 */
#include "fs/format/universal/put.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/grow.h"

static const struct cfs_put_tensor *put_as(const struct cfs_uc_putting *p,
					   const char *name, const char *role)
{
	return cfs_put_tensors_find(p->tensors, name, role);
}

static bool is_state(const struct cfs_put_tensor *t)
{
	const char *role = t->first->role;

	return strcmp(role, CFS_PUT_WEIGHT) != 0 &&
	       strcmp(role, CFS_PUT_MASTER) != 0 &&
	       strcmp(role, CFS_PUT_BUFFER) != 0 &&
	       strcmp(role, CFS_PUT_STEP) != 0;
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

	if (cfs_node_get(p->shared, name))
		return cfs_fail(p->err, -EINVAL,
				"object param_groups: lists %s, which "
				"shared_params says is another's second name",
				name);
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

/* Weights of no group are frozen, but for second names; anything else of none
 * was forgotten there. */
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
		    cfs_node_get(p->shared, m.name) ||
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

/* ---- all ---- */

int cfs_uc_put_params(struct cfs_uc_putting *p)
{
	int r = 0;

	for (uint32_t g = 0; !r && g < cfs_seq_node_count(p->param_groups); g++)
		r = add_group(p, g);
	if (!r)
		r = add_frozen(p);
	if (!r)
		r = add_roles(p);
	if (r < 0)
		return r;
	cfs_catalogue_set_maker(p->step->base.ranks[0].catalogue, append, p);
	return cfs_catalogue_seal(p->step->base.ranks[0].catalogue, p->err);
}
