/*
 * Makes DeepSpeed steps in a memory source, the slow way: every flat tensor is
 * a list of (parameter, element) dealt out one by one.  Shares no arithmetic
 * with the reader.
 */
#ifndef CFS_TEST_DS_MAKE_H
#define CFS_TEST_DS_MAKE_H

#include "tests/unit/ds_make_optim.h"

/* ---- model states ---- */

static inline struct cfs_node *ds_module(struct ds_file *f)
{
	struct ds_made *m = f->made;
	struct cfs_node *module = cfs_node_ordereddict(f->doc);
	static const uint64_t none = 0;
	struct cfs_node *first = NULL;
	float skew = (float)m->skew, odd[3] = {1 + skew, 2 + skew, 3 + skew};
	uint64_t three = 3;

	for (uint32_t p = 0; p < m->n; p++) {
		const struct ds_param *q = &m->params[p];
		struct cfs_node *t =
			m->cls == CFS_OPT_ZERO3
				? ds_tensor(f, m->bf16 ? CFS_BF16 : CFS_F16,
					    odd, 0, 1, &none)
				: ds_weight(f, p, 0, q->numel, q->ndim,
					    q->shape);

		first = first ? first : t;
		cfs_node_set_str(f->doc, module, q->name, t);
	}
	cfs_node_set_str(f->doc, module, m->buffer ? m->buffer : "a.buffer",
			 ds_tensor(f, m->buffer_bf16 ? CFS_BF16 : CFS_F32, odd,
				   3, 1, &three));
	if (m->tied)
		cfs_node_set_str(f->doc, module, "tied.alias", first);
	return module;
}

static inline struct cfs_node *ds_shapes(struct ds_file *f)
{
	const struct ds_made *m = f->made;
	struct cfs_node *list = cfs_node_list(f->doc);
	uint32_t sub[DS_PARAMS_MAX], n = m->n_groups;

	if (m->cls == CFS_OPT_ZERO3)
		n = ds_sub_groups(m, sub);
	for (uint32_t u = 0; u < n; u++) {
		struct cfs_node *map = cfs_node_ordereddict(f->doc);
		uint32_t order[DS_PARAMS_MAX], k = 0;

		if (m->cls == CFS_OPT_ZERO3) {
			for (uint32_t p = 0; p < m->n; p++)
				if (m->params[p].group < m->n_groups &&
				    sub[p] == u)
					order[k++] = p;
		} else {
			k = ds_order(m, u, m->round_robin, order);
		}
		for (uint32_t i = 0; i < k; i++)
			cfs_node_set_str(f->doc, map, m->params[order[i]].name,
					 ds_size(f, &m->params[order[i]]));
		cfs_node_append(f->doc, list, map);
	}
	return list;
}

static inline void ds_frozen(struct ds_file *f, struct cfs_node *root,
			     uint32_t rank)
{
	const struct ds_made *m = f->made;
	struct cfs_node *shapes = cfs_node_ordereddict(f->doc);
	struct cfs_node *pieces = cfs_node_ordereddict(f->doc);

	for (uint32_t p = 0; p < m->n; p++) {
		const struct ds_param *q = &m->params[p];
		uint64_t c = (q->numel + m->dp - 1) / m->dp;

		if (q->group != UINT32_MAX)
			continue;
		cfs_node_set_str(f->doc, shapes, q->name, ds_size(f, q));
		cfs_node_set_str(f->doc, pieces, q->name,
				 m->cls == CFS_OPT_ZERO3
					 ? ds_weight(f, p, c * rank, c, 1, &c)
					 : ds_weight(f, p, 0, q->numel, q->ndim,
						     q->shape));
	}
	if (m->stage < 2)
		return;
	cfs_node_set_str(f->doc, root, "frozen_param_shapes", shapes);
	cfs_node_set_str(f->doc, root, "frozen_param_fragments", pieces);
}

static inline void ds_make_model(struct ds_made *m, uint32_t mp, uint32_t rank)
{
	struct cfs_node *root, *names, *shared;
	struct ds_file f;
	char name[96];

	ds_file_begin(&f, m);
	root = cfs_node_dict(f.doc);
	names = cfs_node_list(f.doc);
	shared = cfs_node_dict(f.doc);
	cfs_node_append(
		f.doc, names,
		cfs_node_str(f.doc, m->buffer ? m->buffer : "a.buffer"));
	if (m->tied)
		cfs_node_set_str(f.doc, shared, "tied.alias",
				 cfs_node_str(f.doc, m->params[0].name));
	cfs_node_set_str(f.doc, root, "module",
			 m->pipeline ? cfs_node_none(f.doc) : ds_module(&f));
	cfs_node_set_str(f.doc, root, "buffer_names", names);
	if (ds_bad(m, rank, "whole"))
		cfs_node_set_str(f.doc, root, "optimizer",
				 cfs_node_dict(f.doc));
	else
		cfs_node_set_str(f.doc, root, "optimizer",
				 cfs_node_none(f.doc));
	if (ds_bad(m, rank, "shapes"))
		cfs_node_set_str(f.doc, root, "param_shapes",
				 cfs_node_list(f.doc));
	else if (!ds_bad(m, rank, "whole"))
		cfs_node_set_str(f.doc, root, "param_shapes", ds_shapes(&f));
	cfs_node_set_str(f.doc, root, "shared_params", shared);
	ds_frozen(&f, root, rank);
	cfs_node_set_str(f.doc, root, "global_steps",
			 cfs_node_int(f.doc, 7 + ds_bad(m, rank, "counter") +
						     ds_bad(m, mp, "stale")));
	cfs_node_set_str(f.doc, root, "dp_world_size",
			 cfs_node_int(f.doc, m->dp));
	cfs_node_set_str(f.doc, root, "mp_world_size",
			 cfs_node_int(f.doc, m->n_mp));
	cfs_node_set_str(f.doc, root, "ds_config", ds_config(&f));
	if (m->version)
		cfs_node_set_str(f.doc, root, "ds_version",
				 cfs_node_str(f.doc, m->version));
	if (m->cls == CFS_OPT_ZERO3)
		snprintf(name, sizeof(name),
			 "zero_pp_rank_%u_mp_rank_%02u_model_states.pt", rank,
			 mp);
	else
		snprintf(name, sizeof(name), "mp_rank_%02u_model_states.pt",
			 mp);
	ds_file_end(&f, root, name);
}

/* Layer @p of a pipeline: one parameter. */
static inline void ds_make_layer(struct ds_made *m, uint32_t p)
{
	const struct ds_param *q = &m->params[p];
	struct cfs_node *root;
	struct ds_file f;
	char name[64];

	ds_file_begin(&f, m);
	root = cfs_node_ordereddict(f.doc);
	cfs_node_set_str(f.doc, root, "weight",
			 ds_weight(&f, p, 0, q->numel, q->ndim, q->shape));
	snprintf(name, sizeof(name), "layer_%02u-model_00-model_states.pt", p);
	ds_file_end(&f, root, name);
}

/* All files of the step, at the source's root. */
static inline void ds_make(struct ds_made *m)
{
	m->source = cfs_source_mem_new();
	m->tab = cfs_filetab_new();
	for (uint32_t mp = 0; mp < m->n_mp; mp++) {
		for (uint32_t r = 0; r < m->dp; r++) {
			if (!r || m->cls == CFS_OPT_ZERO3)
				ds_make_model(m, mp, r);
			ds_make_optim(m, mp, r);
		}
	}
	for (uint32_t p = 0; m->pipeline && p < m->n; p++)
		ds_make_layer(m, p);
}

static inline void ds_unmake(struct ds_made *m)
{
	cfs_filetab_unref(m->tab);
	cfs_source_free(m->source);
}

/* A model of random shapes: @n trainable in @groups, @frozen more. */
static inline void ds_params(struct ds_made *m, uint32_t n, uint32_t groups,
			     uint32_t frozen)
{
	m->n = n + frozen;
	m->n_groups = groups;
	for (uint32_t p = 0; p < m->n; p++) {
		struct ds_param *q = &m->params[p];

		snprintf(q->name, sizeof(q->name), "layer.%u.weight", p);
		q->group = p < n ? p * groups / n : UINT32_MAX;
		q->ndim = 1 + (uint32_t)rand() % 2;
		q->shape[0] = 1 + (uint64_t)rand() % 7;
		q->shape[1] = 1 + (uint64_t)rand() % 7;
		q->numel = q->shape[0] * (q->ndim == 2 ? q->shape[1] : 1);
	}
}

#endif
