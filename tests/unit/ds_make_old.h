/*
 * Makes steps as DeepSpeed 0.3.15 saved them, in a memory source: one
 * dictionary of all parameters' shapes, optimizer state without padding, in
 * stage 1 dealt out to the ranks one sub-partition after the other.  Values are
 * those of ds_make_file.h.
 */
#ifndef CFS_TEST_DS_MAKE_OLD_H
#define CFS_TEST_DS_MAKE_OLD_H

#include "tests/unit/ds_make_file.h"

#define OLD_ELEMS 512

struct old_param {
	const char *name;
	uint32_t group, ndim;
	uint64_t shape[2];
};

struct old_made {
	const struct old_param *params; /* in the module's order, by NULL */
	uint32_t dp;
	uint64_t part[2]; /* of a group's sub-partitions; 0: stage 2 */
	bool rigid;	  /* with padding, as torch's own state dict */
	bool apart;	  /* every weight has a storage of its own */
	bool backwards;	  /* groups have their parameters from the last on */
	const char *bad;  /* what goes wrong, on the last rank */
	struct ds_made base;
};

struct old_group {
	uint32_t members[DS_PARAMS_MAX], n;
	struct ds_elem v[OLD_ELEMS];
	uint64_t total, padded, part;
	uint32_t cuts;
};

static inline uint64_t old_numel(const struct old_param *p)
{
	return p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1);
}

static inline uint32_t old_count(const struct old_made *m)
{
	uint32_t n = 0;

	while (m->params[n].name)
		n++;
	return n;
}

static inline bool old_bad(const struct old_made *m, uint32_t rank,
			   const char *what)
{
	return m->bad && rank == m->dp - 1 && !strcmp(m->bad, what);
}

static inline void old_group(const struct old_made *m, uint32_t g,
			     struct old_group *out)
{
	uint32_t n = old_count(m);

	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < n; i++) {
		uint32_t p = m->backwards ? n - 1 - i : i;

		if (m->params[p].group != g)
			continue;
		out->members[out->n++] = p;
		for (uint64_t e = 0; e < old_numel(&m->params[p]); e++)
			out->v[out->total++] = (struct ds_elem){p, e};
	}
	out->part = m->part[g] ? m->part[g] : (out->total + m->dp - 1) / m->dp;
	while (out->padded < out->total) {
		out->padded += out->part * m->dp;
		out->cuts++;
	}
	for (uint64_t i = out->total; i < out->padded; i++)
		out->v[i] = (struct ds_elem){DS_PAD, 0};
}

/* ---- model states ---- */

static inline struct cfs_node *old_weights(struct ds_file *f,
					   const struct old_made *m)
{
	struct cfs_node *module = cfs_node_ordereddict(f->doc);
	struct cfs_node *made[DS_PARAMS_MAX];

	for (uint32_t g = 0; g < 2; g++) {
		const struct cfs_torch_storage *storage;
		struct old_group group;
		struct cfs_map *map = cfs_map_new(m->base.tab);
		float values[OLD_ELEMS];
		uint8_t bytes[2 * OLD_ELEMS];
		uint64_t at = 0;

		old_group(m, g, &group);
		for (uint64_t i = 0; i < group.padded; i++)
			values[i] = group.v[i].param == DS_PAD
					    ? 0
					    : ds_value(1, group.v[i].param,
						       group.v[i].elem);
		if (old_bad(m, m->dp - 1, "weight") && g)
			values[0] += 1;
		cfs_dtype_cast(CFS_F32, values, CFS_F16, bytes, group.padded);
		ck_assert_int_eq(
			cfs_map_add_literal(map, bytes, 2 * group.padded), 0);
		cfs_map_seal(map);
		storage = cfs_torch_writer_storage(f->w, CFS_F16, group.padded,
						   map, NULL, "cpu");
		f->maps[f->n_maps++] = map;
		for (uint32_t i = 0; i < group.n; i++) {
			uint32_t p = group.members[i];
			const struct old_param *q = &m->params[p];

			made[p] = m->apart ? ds_tensor(f, CFS_F16, values + at,
						       old_numel(q), q->ndim,
						       q->shape)
					   : cfs_torch_writer_tensor(
						     f->w, storage, at, q->ndim,
						     q->shape, false);
			at += old_numel(q);
		}
	}
	for (uint32_t p = 0; p < old_count(m); p++)
		cfs_node_set_str(f->doc, module, m->params[p].name, made[p]);
	return module;
}

static inline void old_make_model(struct old_made *m)
{
	struct cfs_node *root;
	struct ds_file f;

	ds_file_begin(&f, &m->base);
	root = cfs_node_dict(f.doc);
	cfs_node_set_str(f.doc, root, "module", old_weights(&f, m));
	cfs_node_set_str(f.doc, root, "optimizer", cfs_node_none(f.doc));
	cfs_node_set_str(f.doc, root, "global_steps", cfs_node_int(f.doc, 7));
	cfs_node_set_str(f.doc, root, "skipped_steps", cfs_node_int(f.doc, 0));
	cfs_node_set_str(f.doc, root, "dp_world_size",
			 cfs_node_int(f.doc, m->dp));
	cfs_node_set_str(f.doc, root, "mp_world_size", cfs_node_int(f.doc, 1));
	ds_file_end(&f, root, "mp_rank_00_model_states.pt");
}

/* ---- optimizer files ---- */

static inline struct cfs_node *old_state(struct ds_file *f,
					 const struct ds_elem *e, uint64_t n)
{
	struct cfs_node *state = cfs_node_dict(f->doc);

	cfs_node_set_str(f->doc, state, "exp_avg", ds_flat(f, 2, e, n));
	cfs_node_set_str(f->doc, state, "exp_avg_sq", ds_flat(f, 3, e, n));
	return state;
}

/* The lists of one group: masters, states or ids; those of torch's form. */
struct old_lists {
	struct cfs_node *masters, *states, *torch, *hypers, *counts;
	int64_t id;
};

static inline void old_add_group(struct ds_file *f, const struct old_made *m,
				 uint32_t g, uint32_t rank, struct old_lists *l)
{
	struct cfs_node *masters = cfs_node_list(f->doc);
	struct cfs_node *states = cfs_node_list(f->doc);
	struct cfs_node *ids = cfs_node_list(f->doc);
	struct cfs_node *hyper = cfs_node_dict(f->doc);
	struct cfs_node *master = NULL, *state = NULL;
	struct old_group group;

	old_group(m, g, &group);
	for (uint32_t cut = 0; cut < group.cuts; cut++) {
		uint64_t at = (cut * m->dp + rank) * group.part, n = 0;

		while (n < group.part && (m->rigid || at + n < group.total))
			n++;
		if (old_bad(m, rank, "cut") && cut + 1 == group.cuts)
			break;
		n -= old_bad(m, rank, "short") && n;
		master = ds_flat(f, 1, group.v + at, n);
		state = old_state(f, group.v + at, n);
		cfs_node_append(f->doc, masters, master);
		cfs_node_append(f->doc, states, state);
		cfs_node_append(f->doc, ids, cfs_node_int(f->doc, l->id));
		cfs_node_set(f->doc, l->torch, cfs_node_int(f->doc, l->id++),
			     state);
	}
	cfs_node_set_str(f->doc, hyper, "lr", cfs_node_float(f->doc, 0.5));
	cfs_node_set_str(f->doc, hyper, "params", ids);
	cfs_node_append(f->doc, l->hypers, hyper);
	cfs_node_append(f->doc, l->masters, m->part[g] ? masters : master);
	cfs_node_append(f->doc, l->states, m->part[g] ? states : state);
	cfs_node_append(
		f->doc, l->counts,
		cfs_node_int(f->doc, group.cuts + !!old_bad(m, 0, "count")));
}

static inline struct cfs_node *
old_inner(struct ds_file *f, const struct old_made *m, uint32_t rank)
{
	struct cfs_node *inner = cfs_node_dict(f->doc);
	struct cfs_node *base = cfs_node_dict(f->doc);
	struct old_lists l = {.masters = cfs_node_list(f->doc),
			      .states = cfs_node_list(f->doc),
			      .torch = cfs_node_dict(f->doc),
			      .hypers = cfs_node_list(f->doc),
			      .counts = cfs_node_list(f->doc)};
	bool stage1 = m->part[0];

	for (uint32_t g = 0; g < 2; g++)
		old_add_group(f, m, g, rank, &l);
	cfs_node_set_str(f->doc, base, "state", l.torch);
	cfs_node_set_str(f->doc, base, "param_groups", l.hypers);
	cfs_node_set_str(f->doc, inner, "base_optimizer_state",
			 m->rigid ? base : l.states);
	if (!m->rigid) {
		cfs_node_set_str(f->doc, inner, "zero_stage",
				 cfs_node_int(f->doc, stage1 ? 1 : 2));
		cfs_node_set_str(f->doc, inner, "partition_count",
				 cfs_node_int(f->doc, m->dp));
	}
	if (!m->rigid && stage1)
		cfs_node_set_str(f->doc, inner, "num_comm_intervals_per_group",
				 l.counts);
	cfs_node_set_str(f->doc, inner,
			 stage1 ? "local_sub_partitions_of_fp32_groups"
				: "single_partition_of_fp32_groups",
			 l.masters);
	return inner;
}

static inline void old_make_optim(struct old_made *m, uint32_t rank)
{
	struct cfs_node *root, *shapes;
	struct ds_file f;
	char name[64];

	ds_file_begin(&f, &m->base);
	root = cfs_node_dict(f.doc);
	shapes = cfs_node_ordereddict(f.doc);
	cfs_node_set_str(f.doc, root, "optimizer_state_dict",
			 old_inner(&f, m, rank));
	for (const struct old_param *p = m->params; p->name; p++) {
		struct ds_param size = {.ndim = p->ndim,
					.shape = {p->shape[0], p->shape[1]}};

		cfs_node_set_str(f.doc, shapes, p->name, ds_size(&f, &size));
	}
	cfs_node_set_str(f.doc, root, "param_shapes", shapes);
	(void)snprintf(name, sizeof(name),
		       "zero_pp_rank_%u_mp_rank_00_optim_states.pt", rank);
	ds_file_end(&f, root, name);
}

static inline void old_make(struct old_made *m)
{
	m->base.source = cfs_source_mem_new();
	m->base.tab = cfs_filetab_new();
	old_make_model(m);
	for (uint32_t r = 0; r < m->dp; r++)
		old_make_optim(m, r);
}

static inline void old_unmake(struct old_made *m)
{
	cfs_filetab_unref(m->base.tab);
	cfs_source_free(m->base.source);
}

#endif
