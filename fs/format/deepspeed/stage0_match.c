/*
 * Optimizers that are not partitioned: their state is in the model states, and
 * nothing there says which parameter is where.  An order is taken only where
 * it is proven:
 *   fused    fp32_groups_flat, see stage0_fused.c
 *   unfused  fp32_groups, one tensor a parameter
 *   torch    the bare optimizer of an fp32 run, one state a parameter
 * the latter by param_names, or where shape and content leave one choice.  The
 * module's order proves nothing: a user may list parameters as he likes.
 */
#include "fs/format/deepspeed/stage0.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/util/error.h"

/* ---- candidates ---- */

static bool seen(const struct cfs_ds_stage0 *z,
		 const struct cfs_torch_tensor *t)
{
	for (uint32_t i = 0; i < z->n_candidates; i++) {
		const struct cfs_torch_tensor *c = &z->candidates[i].t;

		if (c->storage == t->storage &&
		    c->storage_offset == t->storage_offset &&
		    c->numel == t->numel && t->numel)
			return true;
	}
	return false;
}

int cfs_ds_stage0_candidates(struct cfs_ds_stage0 *z, size_t n)
{
	z->candidates = calloc(n + 1, sizeof(*z->candidates));
	return z->candidates ? 0 : -ENOMEM;
}

/* Floating tensors, each once. */
void cfs_ds_stage0_candidate(struct cfs_ds_stage0 *z, const char *name,
			     const struct cfs_node *value,
			     struct cfs_file *file)
{
	struct cfs_ds_candidate *c = &z->candidates[z->n_candidates];

	if (cfs_torch_tensor_get(value, &c->t) < 0 ||
	    !cfs_dtype_is_float(c->t.dtype) || !c->t.contiguous ||
	    !c->t.storage || seen(z, &c->t))
		return;
	c->name = name;
	c->file = file;
	z->n_candidates++;
}

/* What `module` has and is no buffer. */
static int find_candidates(struct cfs_ds_stage0 *z)
{
	const struct cfs_node *root = z->rank->model_root;
	const struct cfs_node *module = cfs_node_get(root, "module");
	uint32_t n = cfs_map_node_count(module);
	int r;

	if (!cfs_node_is_map(module))
		return cfs_ds_stage0_layers(z);
	r = cfs_ds_stage0_candidates(z, n);
	for (uint32_t i = 0; !r && i < n; i++) {
		struct cfs_node *key, *value;
		const char *name;

		cfs_map_node_pair(module, i, &key, &value);
		name = cfs_node_as_str(key);
		if (name && !cfs_ds_is_buffer(root, name))
			cfs_ds_stage0_candidate(z, name, value, z->file);
	}
	return r;
}

/* ---- one state a parameter ---- */

/* The shape of a parameter from its state: that of its tensors. */
static bool state_shape(const struct cfs_node *state,
			struct cfs_torch_tensor *out)
{
	bool found = false;

	for (uint32_t i = 0; i < cfs_map_node_count(state); i++) {
		struct cfs_node *key, *value;
		struct cfs_torch_tensor t;

		cfs_map_node_pair(state, i, &key, &value);
		if (cfs_torch_tensor_get(value, &t) < 0 || !t.ndim)
			continue;
		if (found && (t.ndim != out->ndim ||
			      memcmp(t.shape, out->shape,
				     t.ndim * sizeof(t.shape[0])) != 0))
			return false;
		*out = t;
		found = true;
	}
	return found;
}

static bool fits(struct cfs_ds_stage0 *z, const struct cfs_ds_owned *o,
		 struct cfs_ds_candidate *c, bool whole)
{
	const struct cfs_torch_tensor *want = &o->master;
	struct cfs_torch_tensor shape;

	if (!o->has_master) {
		if (!state_shape(o->state, &shape))
			return false;
		want = &shape;
	}
	if (want->ndim != c->t.ndim ||
	    memcmp(want->shape, c->t.shape,
		   want->ndim * sizeof(want->shape[0])) != 0)
		return false;
	return !o->has_master || cfs_ds_stage0_fits(z, c, &o->master, 0, whole);
}

static int add_owned(struct cfs_ds_stage0 *z, uint32_t g, uint32_t i,
		     const struct cfs_node *id, const struct cfs_node *masters)
{
	struct cfs_ds_owned *o = &z->owned[z->n_owned];
	int64_t key;

	o->group = g;
	if (!cfs_node_as_int(id, &key))
		return cfs_fail(z->err, -EBADMSG, "param_groups[%u].params", g);
	o->state = cfs_node_get_int(cfs_node_get(z->torch, "state"), key);
	if (masters) {
		if (cfs_torch_tensor_get(
			    cfs_seq_node_item(cfs_seq_node_item(masters, g), i),
			    &o->master) < 0)
			return cfs_fail(z->err, -EBADMSG,
					"fp32_groups[%u][%u] is no tensor", g,
					i);
		o->has_master = true;
	}
	z->n_owned++;
	return 0;
}

static int list_owned(struct cfs_ds_stage0 *z)
{
	const struct cfs_node *masters =
		cfs_node_get(z->optimizer, "fp32_groups");
	size_t total = 1;

	for (uint32_t g = 0; g < z->n_groups; g++)
		total += cfs_seq_node_count(cfs_node_get(
			cfs_seq_node_item(z->groups, g), "params"));
	z->owned = calloc(total, sizeof(*z->owned));
	if (!z->owned)
		return -ENOMEM;
	for (uint32_t g = 0; g < z->n_groups; g++) {
		const struct cfs_node *ids =
			cfs_node_get(cfs_seq_node_item(z->groups, g), "params");

		for (uint32_t i = 0; i < cfs_seq_node_count(ids); i++) {
			int r = add_owned(z, g, i, cfs_seq_node_item(ids, i),
					  masters);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

struct cfs_ds_candidate *cfs_ds_stage0_by_name(struct cfs_ds_stage0 *z,
					       const struct cfs_node *names,
					       uint32_t i)
{
	const char *name = cfs_node_as_str(cfs_seq_node_item(names, i));

	for (uint32_t k = 0; name && k < z->n_candidates; k++)
		if (z->candidates[k].name &&
		    !strcmp(z->candidates[k].name, name))
			return &z->candidates[k];
	return NULL;
}

static bool all_named(const struct cfs_ds_stage0 *z)
{
	for (uint32_t i = 0; i < z->n_owned; i++)
		if (!z->owned[i].is)
			return false;
	return true;
}

/* param_groups[g]['param_names'] (torch >= 2.6, where names were given): 1 if
 * they tell, 0 if there are none or they are of another model. */
static int match_names(struct cfs_ds_stage0 *z)
{
	uint32_t at = 0;

	for (uint32_t g = 0; g < z->n_groups; g++) {
		const struct cfs_node *group = cfs_seq_node_item(z->groups, g);
		const struct cfs_node *names =
			cfs_node_get(group, "param_names");
		uint32_t n = cfs_seq_node_count(cfs_node_get(group, "params"));

		if (cfs_seq_node_count(names) != n)
			return 0;
		for (uint32_t i = 0; i < n && at < z->n_owned; i++, at++)
			z->owned[at].is = cfs_ds_stage0_by_name(z, names, i);
	}
	if (!all_named(z)) {
		for (uint32_t i = 0; i < z->n_owned; i++)
			z->owned[i].is = NULL;
		return 0;
	}
	for (uint32_t i = 0; i < z->n_owned; i++) {
		struct cfs_ds_candidate *is = z->owned[i].is;

		assert(is);
		if (!fits(z, &z->owned[i], is, false))
			return cfs_fail(z->err, -ENOTSUP,
					"stage 0: param_names has %s where the "
					"optimizer's tensors are not of its "
					"shape and content",
					is->name);
	}
	return 1;
}

int cfs_ds_stage0_unproven(struct cfs_ds_stage0 *z, const char *a,
			   const char *b, bool has_master)
{
	return cfs_fail(z->err, -ENOTSUP,
			"stage 0: which optimizer state belongs to %s and "
			"which to %s is not certain: %s, and there are no "
			"param_names that tell (give the optimizer "
			"model.named_parameters(), torch >= 2.6)",
			a, b,
			has_master ? "the same master fits both"
				   : "both have one shape, and fp32 keeps no "
				     "masters to compare");
}

/* The one parameter that @o fits, a second one in @other. */
static struct cfs_ds_candidate *find(struct cfs_ds_stage0 *z,
				     const struct cfs_ds_owned *o, bool whole,
				     struct cfs_ds_candidate **other)
{
	struct cfs_ds_candidate *found = NULL;

	*other = NULL;
	for (uint32_t k = 0; k < z->n_candidates && !*other; k++) {
		struct cfs_ds_candidate *c = &z->candidates[k];

		if (!fits(z, o, c, whole))
			continue;
		if (found)
			*other = c;
		else
			found = c;
	}
	return found;
}

/* Everything fits one parameter only. */
static int match_unique(struct cfs_ds_stage0 *z)
{
	for (uint32_t i = 0; i < z->n_owned; i++) {
		struct cfs_ds_owned *o = &z->owned[i];
		struct cfs_ds_candidate *other;

		o->is = find(z, o, false, &other);
		if (other && o->has_master)
			o->is = find(z, o, true, &other);
		if (!o->is)
			return cfs_fail(z->err, -ENOTSUP,
					"stage 0: parameter %u of group %u "
					"fits no tensor of module",
					i, o->group);
		if (other)
			return cfs_ds_stage0_unproven(
				z, o->is->name, other->name, o->has_master);
		if (o->is->taken)
			return cfs_fail(z->err, -ENOTSUP,
					"stage 0: which optimizer state "
					"belongs to %s is not certain: more "
					"than one fits",
					o->is->name);
		o->is->taken = true;
	}
	return 0;
}

static int read_single(struct cfs_ds_stage0 *z)
{
	int r = list_owned(z);

	if (!r)
		r = match_names(z);
	if (r)
		return r < 0 ? r : 0;
	return match_unique(z);
}

int cfs_ds_stage0_match(struct cfs_ds_stage0 *z)
{
	int r = find_candidates(z);

	if (r < 0)
		return r;
	return z->fused ? cfs_ds_stage0_fused(z) : read_single(z);
}
