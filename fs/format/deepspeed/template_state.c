/*
 * The optimizer's groups of a template that is filled: its count of steps, the
 * rate and what else it keeps beside tensors.
 */
#include "fs/format/deepspeed/template.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/write.h"
#include "store/util/endian.h"
#include "store/util/error.h"

/* ---- groups ---- */

/* The one number of a tensor, or a number. */
static int read_number(const struct cfs_step *step, const struct cfs_node *node,
		       double *out, struct cfs_error *err)
{
	struct cfs_torch_tensor t;
	struct cfs_file *file;
	uint8_t raw[8] = {0};
	uint64_t off, size;
	uint32_t u;
	float f;
	int r;

	if (cfs_node_as_real(node, out))
		return 0;
	r = cfs_torch_tensor_get(node, &t);
	if (r < 0 || t.numel != 1 || !t.storage || !t.storage->file ||
	    (t.dtype != CFS_F32 && t.dtype != CFS_I64))
		return cfs_fail(err, -ENOTSUP,
				"the step's count of steps (`step`) is no "
				"number");
	r = cfs_ds_open(step, cfs_torchfile_index(t.storage->file), &file, err);
	if (r < 0)
		return r;
	size = cfs_dtype_size(t.dtype);
	r = cfs_torch_storage_extent(t.storage, file, &off, err);
	if (!r)
		r = cfs_file_pread_all(file, raw, size,
				       off + t.storage_offset * size);
	cfs_filepool_put(step->pool, file);
	if (r < 0)
		return r;
	u = cfs_get_le32(raw);
	memcpy(&f, &u, sizeof(f));
	*out = t.dtype == CFS_F32 ? (double)f
				  : (double)(int64_t)cfs_get_le64(raw);
	return 0;
}

static bool is_tensor(const struct cfs_node *node)
{
	struct cfs_torch_tensor t;

	return node && !cfs_torch_tensor_get(node, &t);
}

/* Where a group keeps its count; apex does so beside the hyper-parameters, and
 * DeepSpeed leaves a 0 there for good. */
static struct cfs_node *count_of(const struct cfs_ds_group *g)
{
	struct cfs_node *step = cfs_node_get(g->scalars, "step");

	return step ? step : cfs_node_get(g->hyper, "step");
}

struct filling {
	struct cfs_ds_step *made;
	uint32_t mp, group;
	const struct cfs_ds_group *from; /* the step's; NULL: none yet */
	struct cfs_error *err;
};

static int differ(const struct filling *f, const char *what)
{
	return cfs_fail(f->err, -ENOTSUP,
			"group %u of the template joins parameters of groups "
			"that differ in %s",
			f->group, what);
}

static int check_same(const struct filling *f, const struct cfs_ds_group *other)
{
	const struct cfs_step *run = &f->made->remodel->from->base;
	const struct cfs_node *lr = cfs_node_get(f->from->hyper, "lr");
	double a = 0, b = 0;
	int r = 0;

	if (lr && !cfs_node_equal(lr, cfs_node_get(other->hyper, "lr")))
		return differ(f, "their rate (lr)");
	if (!count_of(f->from) != !count_of(other))
		return differ(f, "their count of steps");
	if (count_of(other)) {
		r = read_number(run, count_of(f->from), &a, f->err);
		if (!r)
			r = read_number(run, count_of(other), &b, f->err);
	}
	return !r && (a < b || a > b) ? differ(f, "their count of steps") : r;
}

/* The step's group that a template's takes from: all of them must agree. */
static int find_group(struct filling *f)
{
	const struct cfs_ds_remodel *rm = f->made->remodel;
	const struct cfs_ds_made *made = &rm->made[f->mp];
	uint32_t first, n, tp = rm->from->base.topology.tp;
	const struct cfs_ds_group *last = NULL;

	cfs_catalogue_group(made->cat, f->group, &first, &n);
	for (uint32_t i = first; i < first + n; i++) {
		const struct cfs_ds_whole *w = made->whole[i];
		const struct cfs_ds_rank *run;
		const struct cfs_ds_group *g;
		int r;

		if (!w || w->group == CFS_GROUP_FROZEN)
			continue;
		run = &rm->from->ranks[w->stage * tp];
		if (!run->groups || w->group >= run->n_groups)
			return cfs_fail(f->err, -ENOTSUP,
					"group %u of the template has an "
					"optimizer, the step has none",
					f->group);
		g = &run->groups[w->group];
		if (g == last)
			continue;
		last = g;
		if (!f->from)
			f->from = g;
		r = check_same(f, g);
		if (r < 0)
			return r;
	}
	return 0;
}

/* As the template keeps it: a number, or a tensor, which the writer makes. */
static int take_count(const struct filling *f, const struct cfs_node *like,
		      struct cfs_node **value_out)
{
	struct cfs_node *have = count_of(f->from);
	double v;
	int r;

	if (!have)
		return cfs_fail(f->err, -ENOTSUP,
				"the step does not say how many steps its "
				"optimizer took");
	*value_out = have;
	if (is_tensor(like) || !is_tensor(have))
		return 0;
	r = read_number(&f->made->remodel->from->base, have, &v, f->err);
	if (!r)
		*value_out = cfs_node_int(f->made->scratch, (int64_t)v);
	return r;
}

static int take_scalars(const struct filling *f, struct cfs_ds_group *g)
{
	struct cfs_pickle *doc = f->made->scratch;
	struct cfs_node *copy = cfs_node_copy(doc, g->scalars);

	for (uint32_t i = 0; i < cfs_map_node_count(g->scalars); i++) {
		struct cfs_node *key, *value;
		const char *name;
		int r = 0;

		cfs_map_node_pair(g->scalars, i, &key, &value);
		name = cfs_node_as_str(key);
		if (!name)
			continue;
		if (!strcmp(name, "step"))
			r = take_count(f, value, &value);
		else
			value = cfs_node_get(f->from->scalars, name);
		if (r < 0)
			return r;
		if (!value)
			return cfs_fail(f->err, -ENOTSUP,
					"optimizer state %s of group %u: the "
					"template keeps it, the step has none",
					name, f->group);
		cfs_node_replace(doc, copy, name, value);
	}
	g->scalars = copy;
	return 0;
}

/* The rate is where a schedule has led to; all else is configured. */
static int take_hyper(const struct filling *f, struct cfs_ds_group *g)
{
	struct cfs_pickle *doc = f->made->scratch;
	struct cfs_node *hyper = cfs_node_copy(doc, g->hyper);
	struct cfs_node *lr = cfs_node_get(f->from->hyper, "lr"), *count;
	int r;

	if (lr && cfs_node_get(hyper, "lr"))
		cfs_node_replace(doc, hyper, "lr", lr);
	count = cfs_node_get(hyper, "step");
	if (count && !cfs_node_get(g->scalars, "step")) {
		r = take_count(f, count, &count);
		if (r < 0)
			return r;
		cfs_node_replace(doc, hyper, "step", count);
	}
	g->hyper = hyper;
	return 0;
}

static int take_groups(struct cfs_ds_step *made, uint32_t mp,
		       struct cfs_error *err)
{
	const struct cfs_ds_rank *like = &made->remodel->like->ranks[mp];
	struct cfs_ds_group *groups =
		calloc((size_t)like->n_groups + 1, sizeof(*groups));
	int r = 0;

	made->ranks[mp].groups = groups;
	if (!groups)
		return -ENOMEM;
	for (uint32_t g = 0; !r && g < like->n_groups; g++) {
		struct filling f = {made, mp, g, NULL, err};

		groups[g] = like->groups[g];
		r = find_group(&f);
		if (r < 0 || !f.from)
			continue;
		r = take_hyper(&f, &groups[g]);
		if (!r)
			r = take_scalars(&f, &groups[g]);
	}
	return r;
}

/* A job that saved before its first step has not shown what it keeps. */
static int check_taken(const struct cfs_ds_step *made, uint32_t mp,
		       struct cfs_error *err)
{
	const struct cfs_ds_rank *like = &made->remodel->like->ranks[mp];
	const struct cfs_ds_rank *run = &made->remodel->from->ranks[0];
	bool took = false;

	for (uint32_t g = 0; g < run->n_groups; g++)
		took |= cfs_seq_node_count(run->groups[g].state_order) != 0;
	for (uint32_t g = 0; took && g < like->n_groups; g++) {
		uint32_t first, n;

		cfs_catalogue_group(made->base.ranks[mp].catalogue, g, &first,
				    &n);
		if (n && !cfs_seq_node_count(like->groups[g].state_order))
			return cfs_fail(err, -ENOTSUP,
					"the template was saved before its "
					"optimizer took a step: save it after "
					"one");
	}
	return 0;
}

int cfs_ds_template_state(struct cfs_ds_step *made, struct cfs_error *err)
{
	const struct cfs_ds_remodel *rm = made->remodel;
	int r = 0;

	for (uint32_t m = 0; !r && m < made->base.n_ranks; m++) {
		struct cfs_ds_rank *rank = &made->ranks[m];

		*rank = rm->like->ranks[m];
		rank->groups = NULL;
		r = take_groups(made, m, err);
		if (!r)
			r = check_taken(made, m, err);
		if (r < 0)
			return r;
		cfs_ds_template_model_state(made, m);
	}
	return cfs_pickle_failed(made->scratch) ? -ENOMEM : r;
}

/* ---- as a file is made ---- */

int cfs_ds_template_scalar(struct cfs_ds_out *out, uint32_t group,
			   const char *name, struct cfs_node **value)
{
	const struct cfs_ds_remodel *rm = out->step->remodel;
	struct cfs_node *like = cfs_node_get(
		rm->like->ranks[out->mp].groups[group].scalars, name);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_torch_tensor t;
	uint8_t raw[4];
	double v;
	uint32_t u;
	float f;
	int r;

	if (is_tensor(*value) || !is_tensor(like) ||
	    !cfs_node_as_real(*value, &v))
		return 0;
	r = cfs_torch_tensor_get(like, &t);
	if (!r && (t.dtype != CFS_F32 || t.numel != 1))
		r = -ENOTSUP;
	if (r < 0)
		return r;
	f = (float)v;
	memcpy(&u, &f, sizeof(u));
	cfs_put_le32(raw, u);
	map = cfs_ds_out_map(out);
	r = map ? cfs_map_add_literal(map, raw, sizeof(raw)) : -ENOMEM;
	if (r < 0)
		return r;
	*value = cfs_ds_out_tensor(out, cfs_steal(map), CFS_F32, t.ndim,
				   t.shape, t.requires_grad);
	return *value ? 0 : -ENOMEM;
}
