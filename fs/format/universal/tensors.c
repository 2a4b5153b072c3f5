/*
 * The files below zero/: one tensor each, in a dictionary or bare and flat (as
 * of stage 3), and the optimizer's count of steps, which all parameters of a
 * group must agree on.
 */
#include "fs/format/universal/read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/parallel.h"

/* What was found in a file. */
struct found {
	struct cfs_torch_tensor tensor; /* storage: not to be used */
	uint64_t offset;
	bool lost_padding;
};

struct job {
	struct cfs_uc_reading *rd;
	struct found *found; /* by file */
};

static bool is_step(const struct cfs_uc_file *file)
{
	return !strcmp(file->state, "step");
}

/* ---- tensors ---- */

/* The converter drops a vocabulary's padding, and says what has one. */
static bool lost_padding(const struct cfs_torch_tensor *t,
			 const struct cfs_node *root, const struct cfs_param *p)
{
	bool is = false;

	return cfs_node_as_bool(cfs_node_get(root, "vocab_tensor"), &is) &&
	       is && p->ndim && t->ndim == p->ndim &&
	       t->shape[0] < p->shape[0] &&
	       !memcmp(t->shape + 1, p->shape + 1,
		       (p->ndim - 1) * sizeof(*p->shape));
}

static int check_shape(const struct cfs_uc_reading *rd,
		       const struct cfs_uc_file *file, struct found *f,
		       const struct cfs_node *root, bool bare,
		       struct cfs_error *err)
{
	const struct cfs_param *p = cfs_catalogue_param(rd->cat, file->param);
	const struct cfs_torch_tensor *t = &f->tensor;

	if (!t->contiguous || (t->numel && !t->storage))
		return cfs_fail(err, -ENOTSUP,
				"%s: its elements do not lie in order",
				file->name);
	if (t->dtype != CFS_F32)
		return cfs_fail(err, -ENOTSUP, "%s: is not fp32", file->name);
	if (rd->n_models > 1 && !bare)
		return 0; /* whole here, a rank's share there */
	if (t->numel == p->numel &&
	    (bare ||
	     (t->ndim == p->ndim &&
	      !memcmp(t->shape, p->shape, p->ndim * sizeof(*p->shape)))))
		return 0;
	f->lost_padding = lost_padding(t, root, p);
	if (f->lost_padding)
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"%s: has another shape than in the model states' "
			"param_shapes, and does not say that it is a "
			"vocabulary",
			file->name);
}

static int find_tensor(const struct cfs_uc_reading *rd,
		       const struct cfs_uc_file *file,
		       const struct cfs_torchfile *torch, struct found *out,
		       struct cfs_error *err)
{
	const struct cfs_node *root = cfs_torchfile_root(torch), *node = root;
	struct cfs_file *open;
	int r;

	if (cfs_node_is_map(root))
		node = cfs_node_get(root, "param");
	r = cfs_torch_tensor_get(node, &out->tensor);
	if (r < 0)
		return cfs_fail(err, -EBADMSG, "%s: holds no tensor",
				file->name);
	r = check_shape(rd, file, out, root, node == root, err);
	if (r < 0 || !out->tensor.numel)
		return r;
	r = cfs_ds_open(&rd->step->base, file->row, &open, err);
	if (r < 0)
		return r;
	r = cfs_torch_storage_extent(out->tensor.storage, open, &out->offset,
				     err);
	cfs_filepool_put(rd->step->base.pool, open);
	out->offset += out->tensor.storage_offset * 4;
	return r < 0 ? cfs_fail_prefix(err, r, "%s", file->name) : 0;
}

/* ---- counts of steps ---- */

static const struct cfs_ds_group *group_of(const struct cfs_uc_reading *rd,
					   const struct cfs_uc_file *file)
{
	return &rd->step->ranks[0].groups
			[cfs_catalogue_param(rd->cat, file->param)->group];
}

/* The file that holds what a group has taken; kept open by the caller. */
static int compare_step(const struct cfs_uc_reading *rd,
			const struct cfs_uc_file *file,
			const struct cfs_torchfile *torch,
			struct cfs_error *err)
{
	const struct cfs_ds_rank *rank = &rd->step->ranks[0];
	uint32_t g = cfs_catalogue_param(rd->cat, file->param)->group;
	const struct cfs_ds_file *first = &rank->optim[1 + g];
	struct cfs_file *a, *b;
	bool same;
	int r;

	r = cfs_ds_open(&rd->step->base, first->index, &a, err);
	if (r < 0)
		return r;
	r = cfs_ds_open(&rd->step->base, file->row, &b, err);
	if (r < 0) {
		cfs_filepool_put(rd->step->base.pool, a);
		return r;
	}
	same = cfs_ds_same_value(
		cfs_node_get(group_of(rd, file)->scalars, "step"), a,
		cfs_torchfile_root(torch), b);
	cfs_filepool_put(rd->step->base.pool, a);
	cfs_filepool_put(rd->step->base.pool, b);
	return same ? 0
		    : cfs_fail(err, -EINVAL,
			       "%s and %s differ: parameters of one group "
			       "count the same steps",
			       first->name, file->name);
}

static int read_file(void *arg, uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	const struct job *job = arg;
	const struct cfs_uc_file *file = &job->rd->files[i];
	struct cfs_ds_file plain = {.index = file->row};
	int r;

	plain.name = strdup(file->name);
	if (!plain.name)
		return -ENOMEM;
	r = cfs_ds_parse(&job->rd->step->base, &plain, &torch, err);
	free(plain.name);
	if (r < 0)
		return r;
	return is_step(file)
		       ? compare_step(job->rd, file, torch, err)
		       : find_tensor(job->rd, file, torch, &job->found[i], err);
}

/* ---- groups ---- */

/* The first parameter's of each group: kept, the writer carries it. */
static int read_first_step(struct cfs_uc_reading *rd,
			   const struct cfs_uc_file *file,
			   struct cfs_error *err)
{
	struct cfs_ds_rank *rank = &rd->step->ranks[0];
	uint32_t g = cfs_catalogue_param(rd->cat, file->param)->group;
	struct cfs_ds_file *kept = &rank->optim[1 + g];
	int r;

	if (kept->name)
		return 0;
	kept->name = strdup(file->name);
	kept->index = file->row;
	if (!kept->name)
		return -ENOMEM;
	r = cfs_ds_parse(&rd->step->base, kept, &kept->torch, err);
	if (!r)
		cfs_node_set_str(rd->step->scratch, rank->groups[g].scalars,
				 "step", cfs_torchfile_root(kept->torch));
	return r;
}

/* Stage 3 has one for all, in its optimizer's state. */
static void read_common_step(struct cfs_uc_reading *rd, uint32_t g)
{
	struct cfs_ds_rank *rank = &rd->step->ranks[0];
	struct cfs_node *state = cfs_node_get(
		cfs_node_get(rank->optim_state, "optimizer_state_dict"),
		"state");
	struct cfs_node *key, *value, *step;

	if (!cfs_map_node_count(state) ||
	    cfs_node_get(rank->groups[g].scalars, "step"))
		return;
	cfs_map_node_pair(state, 0, &key, &value);
	step = cfs_node_get(value, "step");
	if (rd->zero3 && step)
		cfs_node_set_str(rd->step->scratch, rank->groups[g].scalars,
				 "step", step);
}

static int make_groups(struct cfs_uc_reading *rd, uint32_t n,
		       struct cfs_error *err)
{
	struct cfs_ds_rank *rank = &rd->step->ranks[0];
	struct cfs_pickle *doc = rd->step->scratch;
	const struct cfs_node *hypers =
		cfs_node_get(rank->optim_state, "param_groups");
	struct cfs_ds_file *optim;

	rank->groups = calloc((size_t)n + 1, sizeof(*rank->groups));
	optim = realloc(rank->optim, ((size_t)n + 1) * sizeof(*optim));
	if (optim)
		rank->optim = optim;
	if (!rank->groups || !optim)
		return -ENOMEM;
	memset(optim + 1, 0, n * sizeof(*optim));
	rank->n_optim = n + 1;
	rank->n_groups = n;
	if (cfs_seq_node_count(hypers) < n)
		return cfs_fail(err, -EINVAL,
				"%s: has %u param_groups, param_shapes has %u",
				rank->optim[0].name, cfs_seq_node_count(hypers),
				n);
	for (uint32_t g = 0; g < n; g++) {
		rank->groups[g].hyper = cfs_seq_node_item(hypers, g);
		rank->groups[g].scalars = cfs_node_dict(doc);
		rank->groups[g].state_order = cfs_node_list(doc);
	}
	return cfs_pickle_failed(doc) ? -ENOMEM : 0;
}

/* As the framework's own Adam has them; others follow by name. */
static const char *const known_states[] = {"exp_avg", "exp_avg_sq"};

static int add_roles(struct cfs_uc_reading *rd)
{
	uint32_t role;
	int r = 0;

	for (size_t k = 0; k < CFS_ARRAY_SIZE(known_states); k++)
		for (uint32_t i = 0; !r && i < rd->n_files; i++)
			if (!strcmp(rd->files[i].state, known_states[k])) {
				r = cfs_catalogue_add_role(
					rd->cat, known_states[k], &role);
				break;
			}
	for (uint32_t i = 0; !r && i < rd->n_files; i++)
		if (strcmp(rd->files[i].state, "fp32") != 0 &&
		    !is_step(&rd->files[i]))
			r = cfs_catalogue_add_role(rd->cat, rd->files[i].state,
						   &role);
	return r;
}

static void order_states(struct cfs_uc_reading *rd, uint32_t g)
{
	struct cfs_ds_group *group = &rd->step->ranks[0].groups[g];
	struct cfs_pickle *doc = rd->step->scratch;

	if (cfs_node_get(group->scalars, "step"))
		cfs_node_append(doc, group->state_order,
				cfs_node_str(doc, "step"));
	for (uint32_t k = CFS_ROLE_STATE0; k < cfs_catalogue_roles(rd->cat);
	     k++)
		cfs_node_append(
			doc, group->state_order,
			cfs_node_str(doc, cfs_catalogue_role_name(rd->cat, k)));
}

/* With the shapes of the files, where the model states have a rank's. */
static int reshape(struct cfs_uc_reading *rd, const struct found *found)
{
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *cat =
		cfs_catalogue_new();
	uint32_t n = cfs_catalogue_params(rd->cat);
	_cleanup_(cfs_freep) const struct cfs_torch_tensor **whole =
		calloc((size_t)n + 1, sizeof(*whole));
	int r = cat && whole ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < rd->n_files; i++)
		if (!strcmp(rd->files[i].state, "fp32"))
			whole[rd->files[i].param] = &found[i].tensor;
	for (uint32_t i = 0; !r && i < n; i++) {
		const struct cfs_param *p = cfs_catalogue_param(rd->cat, i);
		const struct cfs_torch_tensor *t = whole[i];

		r = cfs_catalogue_add_param(cat, p->name, t ? t->ndim : p->ndim,
					    t ? t->shape : p->shape, p->group,
					    NULL);
	}
	if (r < 0)
		return r;
	cfs_catalogue_free(rd->cat);
	rd->cat = cfs_steal(cat);
	rd->step->base.ranks[0].catalogue = rd->cat;
	return 0;
}

static int add_extent(struct cfs_uc_reading *rd, const struct cfs_uc_file *file,
		      const struct found *f)
{
	struct cfs_extent e = {.count = f->tensor.numel,
			       .offset = f->offset,
			       .file = file->row};
	uint32_t role = CFS_ROLE_MASTER;
	int r = 0;

	if (strcmp(file->state, "fp32") != 0)
		r = cfs_catalogue_add_role(rd->cat, file->state, &role);
	if (!r)
		r = cfs_catalogue_set_dtype(rd->cat, file->param, role,
					    CFS_F32);
	if (!r && e.count)
		r = cfs_catalogue_add_extent(rd->cat, file->param, role, &e);
	return r;
}

int cfs_uc_tensors_read(struct cfs_uc_reading *rd, struct cfs_error *err)
{
	_cleanup_(cfs_freep) struct found *found =
		calloc((size_t)rd->n_files + 1, sizeof(*found));
	struct job job = {rd, found};
	uint32_t n_groups = cfs_catalogue_groups(rd->cat);
	int r;

	if (!found)
		return -ENOMEM;
	r = make_groups(rd, n_groups, err);
	for (uint32_t i = 0; !r && i < rd->n_files; i++)
		if (is_step(&rd->files[i]))
			r = read_first_step(rd, &rd->files[i], err);
	for (uint32_t g = 0; !r && g < n_groups; g++)
		read_common_step(rd, g);
	if (!r)
		r = cfs_parallel(rd->n_files, read_file, &job, err);
	for (uint32_t i = 0; !r && i < rd->n_files; i++)
		rd->lost_padding |= found[i].lost_padding;
	if (!r && (rd->n_models > 1 || rd->lost_padding))
		r = reshape(rd, found);
	if (!r)
		r = add_roles(rd);
	for (uint32_t i = 0; !r && i < rd->n_files; i++)
		if (!is_step(&rd->files[i]))
			r = add_extent(rd, &rd->files[i], &found[i]);
	for (uint32_t g = 0; !r && g < n_groups; g++)
		order_states(rd, g);
	return r < 0 || !cfs_pickle_failed(rd->step->scratch) ? r : -ENOMEM;
}
