/*
 * Up to 0.4 param_shapes are one dictionary of all parameters, in the module's
 * order.  Which group of the optimizer has a parameter is then told by
 *
 *   storages  without a pipeline the 16-bit weights are views into one storage
 *             a group, whose offsets are the order; or
 *   a rule    GPT-NeoX's own, or that there is one group, and every weight is
 *             the rounded master found by it.
 *
 * Rules: GPT-NeoX 71df4d50 megatron/model/utils.py
 * (get_params_for_weight_decay_optimization); DeepSpeed 0.3.15
 * runtime/zero/stage1.py, stage2.py, runtime/engine.py (_get_param_shapes).
 */
#include "fs/format/deepspeed/family.h"
#include "fs/format/deepspeed/layer.h"
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/checked.h"
#include "store/util/error.h"

#define NOWHERE UINT32_MAX

struct member {
	struct cfs_node *name, *shape;
	uint64_t numel;
	uint32_t seq;		   /* in param_shapes */
	uint32_t unit;		   /* its group */
	struct cfs_torch_tensor t; /* its weight; storage NULL: not there */
};

struct members {
	struct cfs_ds_layout *layout;
	struct member *v; /* in flat order, once that is known */
	uint32_t n;
};

static int list_members(struct members *m, const struct cfs_node *shapes,
			struct cfs_error *err)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct member *e = &m->v[i];
		uint64_t dims[CFS_TENSOR_DIMS_MAX];
		uint32_t ndim;

		cfs_map_node_pair(shapes, i, &e->name, &e->shape);
		e->seq = i;
		e->numel = 1;
		if (!cfs_node_as_str(e->name) ||
		    !cfs_node_as_shape(e->shape, CFS_TENSOR_DIMS_MAX, &ndim,
				       dims))
			return cfs_fail(err, -EBADMSG,
					"param_shapes: an entry has no shape "
					"that can be read");
		for (uint32_t d = 0; d < ndim; d++)
			if (!cfs_mul_u64(e->numel, dims[d], &e->numel) ||
			    e->numel > INT64_MAX)
				return cfs_fail(err, -EBADMSG,
						"param_shapes: %s is too large",
						cfs_node_as_str(e->name));
	}
	return 0;
}

/* ---- storages ---- */

static int storage_cmp(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	uint32_t i = x->t.storage->number, j = y->t.storage->number;

	if (i != j)
		return i < j ? -1 : 1;
	if (x->t.storage_offset != y->t.storage_offset)
		return x->t.storage_offset < y->t.storage_offset ? -1 : 1;
	return x->numel < y->numel ? -1 : x->numel > y->numel;
}

static int seq_cmp(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Every parameter's weight; false where one is not to be had. */
static bool find_weights(struct members *m, const struct cfs_node_index *module)
{
	for (uint32_t i = 0; i < m->n; i++) {
		struct member *e = &m->v[i];
		const struct cfs_node *node =
			cfs_node_index_get(module, cfs_node_as_str(e->name));

		if (!node || cfs_torch_tensor_get(node, &e->t) < 0 ||
		    !e->t.storage || !e->t.contiguous ||
		    e->t.numel != e->numel || !cfs_dtype_size(e->t.dtype))
			return false;
	}
	return true;
}

/* How many elements the flat weights of a unit have, padding included. */
static uint64_t padded_numel(const struct cfs_ds_layout *layout, uint32_t u)
{
	const struct cfs_ds_unit *unit = &layout->units[u];

	return unit->len * unit->cuts * layout->dp;
}

/* The one unit that @total elements of a storage of @padded fit. */
static uint32_t unit_of(struct cfs_ds_layout *layout, uint64_t total,
			uint64_t padded)
{
	uint32_t found = NOWHERE;

	for (uint32_t u = 0; u < layout->n_units; u++) {
		struct cfs_error unused = {""};

		if (cfs_ds_fit(layout, u, total, &unused) < 0 ||
		    padded_numel(layout, u) != padded)
			continue;
		if (found != NOWHERE)
			return NOWHERE;
		found = u;
	}
	return found;
}

/* From the @at-th on, of one storage, end to end: how many; 0 if not so. */
static uint32_t tile(const struct members *m, uint32_t at, uint64_t *total)
{
	const struct cfs_torch_storage *storage = m->v[at].t.storage;
	uint32_t n = 0;

	*total = 0;
	while (at + n < m->n && m->v[at + n].t.storage == storage) {
		if (m->v[at + n].t.storage_offset != *total)
			return 0;
		*total += m->v[at + n++].numel;
	}
	return n;
}

/* Sorts by groups if the storages say which they are. */
static bool by_storage(struct members *m)
{
	struct cfs_ds_layout *layout = m->layout;
	uint32_t n_storages = 0;

	qsort(m->v, m->n, sizeof(*m->v), storage_cmp);
	for (uint32_t at = 0; at < m->n; n_storages++) {
		const struct cfs_torch_tensor *t = &m->v[at].t;
		uint64_t total;
		uint32_t n = tile(m, at, &total);
		uint32_t u = n ? unit_of(layout, total,
					 t->storage->nbytes /
						 cfs_dtype_size(t->dtype))
			       : NOWHERE;

		for (uint32_t i = 0; i < at; i++)
			if (m->v[i].unit == u)
				return false;
		if (u == NOWHERE)
			return false;
		for (uint32_t i = 0; i < n; i++)
			m->v[at + i].unit = u;
		at += n;
	}
	return n_storages == layout->n_units;
}

/* ---- rules ---- */

static bool is_neox(const struct members *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct cfs_ds_layer_name n =
			cfs_ds_layer_parse(cfs_node_as_str(m->v[i].name));

		if (n.form != CFS_DS_FORM_PLAIN &&
		    !strcmp(n.name, cfs_ds_neox.mark))
			return true;
	}
	return false;
}

/* Biases, and all that norms have, are not decayed: the second group. */
static bool decays(const char *name)
{
	const char *last = strrchr(name, '.'), *module;

	if (!last)
		return true;
	for (module = last; module > name && module[-1] != '.';)
		module--;
	if (!strcmp(last, ".bias"))
		return false;
	return last - module < 4 || strncmp(last - 4, "norm", 4) != 0;
}

static bool by_rule(struct members *m)
{
	if (m->layout->n_units > 2 || (m->layout->n_units == 2 && !is_neox(m)))
		return false;
	qsort(m->v, m->n, sizeof(*m->v), seq_cmp);
	for (uint32_t i = 0; i < m->n; i++)
		m->v[i].unit = m->layout->n_units == 2 &&
			       !decays(cfs_node_as_str(m->v[i].name));
	m->layout->rank->by_rule = true;
	return true;
}

/* ---- all of it ---- */

static int make_list(const struct members *m, struct cfs_node **list_out)
{
	struct cfs_pickle *doc = m->layout->step->scratch;
	struct cfs_node *list = cfs_node_list(doc);

	for (uint32_t u = 0; u < m->layout->n_units; u++) {
		struct cfs_node *map = cfs_node_ordereddict(doc);

		for (uint32_t i = 0; i < m->n; i++)
			if (m->v[i].unit == u)
				cfs_node_set(doc, map, m->v[i].name,
					     m->v[i].shape);
		cfs_node_append(doc, list, map);
	}
	*list_out = list;
	return cfs_pickle_failed(doc) ? -ENOMEM : 0;
}

int cfs_ds_members(struct cfs_ds_layout *layout, const struct cfs_node *shapes,
		   struct cfs_node **list_out, struct cfs_error *err)
{
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *module = NULL;
	struct members m = {.layout = layout, .n = cfs_map_node_count(shapes)};
	_cleanup_(cfs_freep) struct member *v =
		calloc((size_t)m.n + 1, sizeof(*v));
	int r = v ? 0 : -ENOMEM;

	m.v = v;
	if (!r)
		r = list_members(&m, shapes, err);
	if (!r)
		r = cfs_node_index_new(
			cfs_node_get(layout->rank->model_root, "module"),
			&module);
	if (r < 0)
		return r;
	if ((!find_weights(&m, module) || !by_storage(&m)) && !by_rule(&m))
		return cfs_fail(err, -ENOTSUP,
				"%s: param_shapes of an old release does not "
				"tell which of %u groups a parameter is in, "
				"and its weight is no part of one that does",
				layout->rank->model[0].name, layout->n_units);
	return make_list(&m, list_out);
}

/* ---- proof ---- */

#define LARGE (1ull << 20) /* elements; of more only PART is compared */
#define PART  (1ull << 16)
#define CHUNK 65536

static struct cfs_map *tensor_map(const struct cfs_ds_step *step, uint32_t mp,
				  uint32_t param, uint32_t role, uint64_t n)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(step->base.files);

	if (!map || cfs_catalogue_append(step->base.ranks[mp].catalogue, param,
					 role, 0, n, map) < 0)
		return NULL;
	return cfs_steal(map);
}

/* 1: the same bytes. */
static int same_bytes(const struct cfs_ds_step *step, struct cfs_map *a,
		      struct cfs_map *b, struct cfs_error *err)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *x = NULL;
	_cleanup_(cfs_reader_closep) struct cfs_reader *y = NULL;
	_cleanup_(cfs_freep) uint8_t *buf = malloc(2 * CHUNK);
	uint64_t size = cfs_map_size(a);
	int r = buf ? 0 : -ENOMEM;

	cfs_map_seal(a);
	cfs_map_seal(b);
	if (!r)
		r = cfs_reader_open(a, step->base.pool, NULL, &x, err);
	if (!r)
		r = cfs_reader_open(b, step->base.pool, NULL, &y, err);
	for (uint64_t at = 0; !r && at < size; at += CHUNK) {
		ssize_t n = cfs_reader_pread(x, buf, CHUNK, at);
		ssize_t k =
			n < 0 ? n : cfs_reader_pread(y, buf + CHUNK, CHUNK, at);

		if (n < 0 || k < 0)
			return n < 0 ? (int)n : (int)k;
		if (!n || n != k || memcmp(buf, buf + CHUNK, (size_t)n) != 0)
			return 0;
	}
	return r < 0 ? r : 1;
}

/* 1: the weight is the rounded master. */
static int fits(const struct cfs_ds_step *step, uint32_t mp, uint32_t i,
		struct cfs_error *err)
{
	const struct cfs_catalogue *cat = step->base.ranks[mp].catalogue;
	uint64_t n = cfs_catalogue_param(cat, i)->numel;
	_cleanup_(cfs_map_unrefp) struct cfs_map *weight = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *master = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *rounded = NULL;
	int r;

	if (!cfs_catalogue_has(cat, i, CFS_ROLE_WEIGHT))
		return 0;
	n = n > LARGE ? PART : n;
	weight = tensor_map(step, mp, i, CFS_ROLE_WEIGHT, n);
	master = tensor_map(step, mp, i, CFS_ROLE_MASTER, n);
	rounded = cfs_map_new(step->base.files);
	if (!weight || !master || !rounded)
		return -ENOMEM;
	r = cfs_map_add_cast(rounded, master,
			     cfs_catalogue_dtype(cat, i, CFS_ROLE_MASTER),
			     cfs_catalogue_dtype(cat, i, CFS_ROLE_WEIGHT));
	return r < 0 ? r : same_bytes(step, weight, rounded, err);
}

int cfs_ds_members_prove(const struct cfs_ds_step *step, uint32_t mp,
			 struct cfs_error *err)
{
	const struct cfs_catalogue *cat = step->base.ranks[mp].catalogue;

	for (uint32_t i = 0;
	     step->ranks[mp].by_rule && i < cfs_catalogue_params(cat); i++) {
		const struct cfs_param *p = cfs_catalogue_param(cat, i);
		int r = p->group == CFS_GROUP_FROZEN || !p->numel
				? 1
				: fits(step, mp, i, err);

		if (r < 0)
			return r;
		if (!r)
			return cfs_fail(
				err, -ENOTSUP,
				"%s: param_shapes of an old release does not "
				"tell which group a parameter is in, and %s is "
				"not the master weight that is where GPT-NeoX "
				"would have put it",
				step->ranks[mp].optim[0].name, p->name);
	}
	return 0;
}
