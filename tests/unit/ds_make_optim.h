/* The optimizer files of ds_make.h. */
#ifndef CFS_TEST_DS_MAKE_OPTIM_H
#define CFS_TEST_DS_MAKE_OPTIM_H

#include "tests/unit/ds_make_file.h"

/* ---- orders and flat vectors ---- */

/* The parameters of a group in flat order; returns how many. */
static inline uint32_t ds_order(const struct ds_made *m, uint32_t group,
				bool shuffled, uint32_t *out)
{
	uint32_t own[DS_PARAMS_MAX], n = 0, at = 0;

	for (uint32_t p = 0; p < m->n; p++)
		if (m->params[p].group == group)
			own[n++] = p;
	for (uint32_t hand = 0; hand < (shuffled ? m->dp : 1); hand++)
		for (uint32_t i = 0; i < n; i++)
			if (i % (shuffled ? m->dp : 1) == hand)
				out[at++] = own[i];
	return n;
}

/* A whole group's flat vector; caller frees.  pads[i] behind the i-th. */
static inline struct ds_elem *ds_vector(const struct ds_made *m, uint32_t group,
					bool shuffled, uint64_t *len,
					uint64_t *total, uint64_t *pads)
{
	struct ds_elem *v = malloc(4096 * sizeof(*v));
	uint32_t order[DS_PARAMS_MAX];
	uint32_t n = ds_order(m, group, shuffled, order);
	uint64_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		for (uint64_t e = 0; e < m->params[order[i]].numel; e++)
			v[at++] = (struct ds_elem){order[i], e};
		pads[i] = 0;
		while (m->align && i + 1 < n &&
		       at % 8) { /* 16 bytes of 16 bit */
			v[at++] = (struct ds_elem){DS_PAD, 0};
			pads[i]++;
		}
	}
	*total = at;
	while (at % (2 * m->dp))
		v[at++] = (struct ds_elem){DS_PAD, 0};
	*len = at;
	return v;
}

static inline bool ds_bad(const struct ds_made *m, uint32_t rank,
			  const char *what)
{
	return m->bad && m->bad_rank == (int)rank && !strcmp(m->bad, what);
}

static inline struct cfs_node *ds_step_value(struct ds_file *f, uint32_t rank)
{
	float step = ds_bad(f->made, rank, "step") ? 8.0f : 7.0f;

	return ds_tensor(f, CFS_F32, &step, 1, 0, NULL);
}

/* {step, exp_avg, exp_avg_sq} over @n elements */
static inline struct cfs_node *ds_state(struct ds_file *f, uint32_t rank,
					const struct ds_elem *e, uint64_t n)
{
	struct cfs_node *state = cfs_node_dict(f->doc);

	cfs_node_set_str(f->doc, state, "step", ds_step_value(f, rank));
	cfs_node_set_str(f->doc, state, "exp_avg", ds_flat(f, 2, e, n));
	cfs_node_set_str(
		f->doc, state, "exp_avg_sq",
		ds_flat(f, 3, e, ds_bad(f->made, rank, "length") ? n - 1 : n));
	/* The same values, or other ones, on every rank. */
	if (f->made->bad && strstr(f->made->bad, "unknown state")) {
		struct ds_elem v[1024];

		for (uint64_t i = 0; i < n; i++)
			v[i] = (struct ds_elem){f->made->bad_rank ? rank : 0,
						i};
		cfs_node_set_str(f->doc, state, "qmap", ds_flat(f, 2, v, n));
	}
	return state;
}

static inline struct cfs_node *ds_hyper(struct ds_file *f, uint32_t group,
					uint32_t rank)
{
	struct cfs_node *hyper = cfs_node_dict(f->doc);

	cfs_node_set_str(
		f->doc, hyper, "lr",
		cfs_node_float(f->doc, 0.125 * (group + 1) +
					       ds_bad(f->made, rank, "hyper")));
	return hyper;
}

/* param_slice_mappings of one group: runs of each parameter, in group order
 * by positions of the unshuffled vector (of the padded one if there is any). */
static inline struct cfs_node *ds_mapping(struct ds_file *f, uint32_t group,
					  uint32_t rank,
					  const struct ds_elem *padded,
					  uint64_t padded_len)
{
	const struct ds_made *m = f->made;
	struct cfs_node *out = cfs_node_ordereddict(f->doc);
	uint64_t len, total, pads[DS_PARAMS_MAX], part;
	struct ds_elem *plain = ds_vector(m, group, false, &len, &total, pads);
	const struct ds_elem *v = m->align ? padded : plain;

	part = (m->align ? padded_len : len) / m->dp;
	for (uint32_t p = 0; p < m->n; p++) {
		uint64_t numel = 0, start = 0;
		struct cfs_node *frag, *state;

		if (m->params[p].group != group)
			continue;
		for (uint64_t i = part * rank; i < part * (rank + 1); i++) {
			if (v[i].param != p)
				continue;
			start = numel++ ? start : i - part * rank;
		}
		if (!numel)
			continue;
		start += ds_bad(m, rank, "maps");
		state = cfs_node_dict(f->doc);
		cfs_node_set_str(f->doc, state, "numel",
				 cfs_node_int(f->doc, (int64_t)numel));
		cfs_node_set_str(f->doc, state, "start",
				 cfs_node_int(f->doc, (int64_t)start));
		frag = cfs_node_newobj(
			f->doc, "deepspeed.utils.tensor_fragment",
			"fragment_address", cfs_node_tuple(f->doc, NULL, 0));
		cfs_node_build(f->doc, frag, state);
		cfs_node_set_str(f->doc, out, m->params[p].name, frag);
	}
	free(plain);
	return out;
}

/* ---- optimizer files ---- */

static inline void ds_flat_group(struct ds_file *f, uint32_t g, uint32_t rank,
				 struct cfs_node *states,
				 struct cfs_node *masters,
				 struct cfs_node *maps, struct cfs_node *aligns)
{
	const struct ds_made *m = f->made;
	uint64_t len, total, pads[DS_PARAMS_MAX], part, real = 0;
	struct ds_elem *v = ds_vector(m, g, m->round_robin, &len, &total, pads);
	struct cfs_node *list = cfs_node_list(f->doc), *state;
	uint32_t order[DS_PARAMS_MAX];
	uint32_t n = ds_order(m, g, m->round_robin, order);

	part = len / m->dp;
	for (uint64_t i = part * rank; i < part * (rank + 1); i++)
		real += i < total;
	state = ds_state(f, rank, v + part * rank, m->elastic ? real : part);
	if (m->elastic)
		cfs_node_append(f->doc, states, state);
	else
		cfs_node_set(f->doc, states, cfs_node_int(f->doc, g), state);
	cfs_node_append(f->doc, masters,
			ds_flat(f, 1, v + part * rank,
				m->cls == CFS_OPT_BF16 ? part : real));
	cfs_node_append(f->doc, maps, ds_mapping(f, g, rank, v, len));
	for (uint32_t i = 0; i < n; i++)
		cfs_node_append(f->doc, list,
				cfs_node_int(f->doc, (int64_t)pads[i]));
	cfs_node_append(f->doc, aligns, list);
	free(v);
}

static inline struct cfs_node *ds_flat_inner(struct ds_file *f, uint32_t rank)
{
	const struct ds_made *m = f->made;
	struct cfs_node *inner = cfs_node_dict(f->doc);
	struct cfs_node *base = cfs_node_dict(f->doc);
	struct cfs_node *states =
		m->elastic ? cfs_node_list(f->doc) : cfs_node_dict(f->doc);
	struct cfs_node *masters = cfs_node_list(f->doc);
	struct cfs_node *maps = cfs_node_list(f->doc);
	struct cfs_node *aligns = cfs_node_list(f->doc);
	struct cfs_node *groups = cfs_node_list(f->doc);
	struct cfs_node *counts = cfs_node_list(f->doc);

	for (uint32_t g = 0; g < m->n_groups; g++) {
		struct cfs_node *hyper = ds_hyper(f, g, rank);
		struct cfs_node *ids = cfs_node_list(f->doc);

		ds_flat_group(f, g, rank, states, masters, maps, aligns);
		cfs_node_append(f->doc, ids, cfs_node_int(f->doc, g));
		cfs_node_set_str(f->doc, hyper, "params", ids);
		cfs_node_append(f->doc, groups, hyper);
		cfs_node_append(
			f->doc, counts,
			cfs_node_int(f->doc, m->dp + ds_bad(m, rank, "count")));
	}
	cfs_node_set_str(f->doc, base, "state", states);
	cfs_node_set_str(f->doc, base, "param_groups", groups);
	cfs_node_set_str(f->doc, inner, "base_optimizer_state",
			 m->elastic ? states : base);
	cfs_node_set_str(f->doc, inner, "single_partition_of_fp32_groups",
			 masters);
	cfs_node_set_str(f->doc, inner, "partition_count", counts);
	if (m->cls == CFS_OPT_ZERO12) {
		cfs_node_set_str(f->doc, inner, "zero_stage",
				 cfs_node_int(f->doc, m->stage));
		cfs_node_set_str(f->doc, inner, "param_alignment_paddings",
				 aligns);
	}
	if (!m->no_maps)
		cfs_node_set_str(f->doc, inner, "param_slice_mappings", maps);
	return inner;
}

/* Stage 3: walks a group's parameters and closes sub-groups; calls back with
 * the members of each.  Returns how many there are. */
static inline uint32_t ds_sub_groups(const struct ds_made *m, uint32_t *sub)
{
	uint64_t limit = m->sub_group_size ? m->sub_group_size : 1000000000;
	uint32_t count = 0;

	for (uint32_t g = 0; g < m->n_groups; g++) {
		uint64_t sum = 0;
		bool open = false;

		for (uint32_t p = 0; p < m->n; p++) {
			if (m->params[p].group != g)
				continue;
			sub[p] = count;
			open = true;
			sum += (m->params[p].numel + m->dp - 1) / m->dp;
			if (sum >= limit) {
				count++;
				sum = 0;
				open = false;
			}
		}
		count += open;
	}
	return count;
}

static inline struct cfs_node *ds_zero3_inner(struct ds_file *f, uint32_t rank)
{
	const struct ds_made *m = f->made;
	struct cfs_node *inner = cfs_node_dict(f->doc);
	struct cfs_node *base = cfs_node_dict(f->doc);
	struct cfs_node *states = cfs_node_dict(f->doc);
	struct cfs_node *masters = cfs_node_list(f->doc);
	struct cfs_node *groups = cfs_node_list(f->doc);
	struct cfs_node *ids[DS_PARAMS_MAX];
	uint32_t sub[DS_PARAMS_MAX], n = ds_sub_groups(m, sub);

	for (uint32_t g = 0; g < m->n_groups; g++) {
		struct cfs_node *hyper = ds_hyper(f, g, rank);

		ids[g] = cfs_node_list(f->doc);
		cfs_node_set_str(f->doc, hyper, "params", ids[g]);
		cfs_node_append(f->doc, groups, hyper);
	}
	for (uint32_t s = 0; s < n; s++) {
		struct ds_elem v[1024];
		uint64_t len = 0;
		uint32_t g = 0;

		for (uint32_t p = 0; p < m->n; p++) {
			uint64_t c = (m->params[p].numel + m->dp - 1) / m->dp;

			if (m->params[p].group >= m->n_groups || sub[p] != s)
				continue;
			g = m->params[p].group;
			for (uint64_t e = rank * c; e < (rank + 1) * c; e++)
				v[len++] = (struct ds_elem){
					e < m->params[p].numel ? p : DS_PAD, e};
		}
		cfs_node_append(f->doc, ids[g], cfs_node_int(f->doc, s));
		cfs_node_set(f->doc, states, cfs_node_int(f->doc, s),
			     ds_state(f, rank, v, len));
		cfs_node_append(f->doc, masters, ds_flat(f, 1, v, len));
	}
	cfs_node_set_str(f->doc, base, "state", states);
	cfs_node_set_str(f->doc, base, "param_groups", groups);
	cfs_node_set_str(f->doc, inner, "zero_stage", cfs_node_int(f->doc, 3));
	cfs_node_set_str(
		f->doc, inner, "partition_count",
		cfs_node_int(f->doc, m->dp + ds_bad(m, rank, "count")));
	cfs_node_set_str(f->doc, inner, "optimizer_state_dict", base);
	cfs_node_set_str(f->doc, inner, "fp32_flat_groups", masters);
	return inner;
}

/* Keys beside the flat tensors, right but on the bad rank. */
static inline void ds_others(struct ds_file *f, uint32_t rank,
			     struct cfs_node *inner)
{
	const struct ds_made *m = f->made;
	struct ds_elem v[1024];
	uint64_t len = 0, total, pads[DS_PARAMS_MAX];

	cfs_node_set_str(
		f->doc, inner, "clip_grad",
		cfs_node_float(f->doc, ds_bad(m, rank, "clip") ? 2 : 1));
	if (ds_bad(m, rank, "alien"))
		cfs_node_set_str(f->doc, inner, "alien",
				 cfs_node_int(f->doc, 1));
	if (ds_bad(m, rank, "stage"))
		cfs_node_set_str(f->doc, inner, "zero_stage",
				 cfs_node_int(f->doc, 2));
	if (!ds_bad(m, rank, "shard"))
		return;
	free(ds_vector(m, 0, false, &len, &total, pads));
	memset(v, 0, sizeof(v));
	cfs_node_set_str(f->doc, inner, "ema_shard",
			 ds_flat(f, 1, v, len / m->dp));
}

static inline void ds_make_optim(struct ds_made *m, uint32_t mp, uint32_t rank)
{
	struct cfs_node *root, *inner;
	struct ds_file f;
	char name[96];

	ds_file_begin(&f, m);
	root = cfs_node_dict(f.doc);
	inner = m->cls == CFS_OPT_ZERO3 ? ds_zero3_inner(&f, rank)
					: ds_flat_inner(&f, rank);
	ds_others(&f, rank, inner);
	cfs_node_set_str(f.doc, root, "optimizer_state_dict", inner);
	cfs_node_set_str(f.doc, root, "ds_config", ds_config(&f));
	snprintf(name, sizeof(name),
		 "%szero_pp_rank_%u_mp_rank_%02u_optim_states.pt",
		 m->bf16 ? "bf16_" : "", rank, mp);
	ds_file_end(&f, root, name);
}

#endif
