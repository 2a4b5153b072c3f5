/*
 * What cannot be made is refused when a view is planned: a file that a listing
 * promises must not turn out to be missing when it is opened.
 */
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <string.h>

#include "fs/container/zip.h"
#include "store/util/error.h"

struct check {
	const struct cfs_ds_step *step;
	const struct cfs_ds_rank *rank;
	const struct cfs_catalogue *cat;
	const struct cfs_topology *topo;
	struct cfs_error *err;
};

static int check_hyper(const struct check *c)
{
	for (uint32_t g = 0; g < c->rank->n_groups; g++)
		if (!c->rank->groups[g].hyper)
			return cfs_fail(
				c->err, -ENOTSUP,
				"%s: an elastic checkpoint keeps no hyper-"
				"parameters (param_groups), which the shown "
				"files need",
				c->step->base.path);
	return 0;
}

/* Stage 3 cuts frozen weights up, and a stage 3 source has them cut. */
static int check_frozen(const struct check *c, uint32_t param)
{
	const char *file = c->rank->model[0].name;

	if (cfs_catalogue_has(c->cat, param, CFS_ROLE_WEIGHT))
		return 0;
	if (c->topo->zero_stage < 3 && c->step->base.topology.zero_stage < 3)
		return 0; /* passed through */
	return cfs_fail(c->err, -ENOTSUP,
			"parameter %s: its weight in %s is not contiguous; "
			"stage 3 needs it in order",
			cfs_catalogue_param(c->cat, param)->name,
			file ? file : "the model states");
}

static int check_masters(const struct check *c)
{
	uint32_t n = cfs_catalogue_params(c->cat);

	for (uint32_t i = 0; i < n; i++) {
		const struct cfs_param *p = cfs_catalogue_param(c->cat, i);
		int r = 0;

		if (p->group == CFS_GROUP_FROZEN)
			r = check_frozen(c, i);
		else if (!cfs_catalogue_has(c->cat, i, CFS_ROLE_MASTER))
			r = cfs_fail(c->err, -ENOTSUP,
				     "parameter %s: the step has no fp32 copy "
				     "of it",
				     p->name);
		else if (cfs_catalogue_dtype(c->cat, i, CFS_ROLE_MASTER) !=
			 CFS_F32)
			r = cfs_fail(c->err, -ENOTSUP,
				     "parameter %s: its master copy is not "
				     "fp32",
				     p->name);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The entries of a group's state that are kept per element: all or none. */
static int check_role(const struct check *c, uint32_t role, uint32_t first,
		      uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++)
		if (!cfs_catalogue_has(c->cat, i, role) ||
		    cfs_catalogue_dtype(c->cat, i, role) !=
			    cfs_catalogue_dtype(c->cat, first, role))
			return cfs_fail(
				c->err, -ENOTSUP,
				"parameter %s: its optimizer state %s "
				"is not kept as that of %s is",
				cfs_catalogue_param(c->cat, i)->name,
				cfs_catalogue_role_name(c->cat, role),
				cfs_catalogue_param(c->cat, first)->name);
	return 0;
}

static int check_state(const struct check *c, uint32_t group, const char *name)
{
	uint32_t first, n;

	cfs_catalogue_group(c->cat, group, &first, &n);
	for (uint32_t k = CFS_ROLE_STATE0; n && k < cfs_catalogue_roles(c->cat);
	     k++)
		if (!strcmp(cfs_catalogue_role_name(c->cat, k), name) &&
		    cfs_catalogue_has(c->cat, first, k))
			return check_role(c, k, first, n);
	if (cfs_node_get(c->rank->groups[group].scalars, name))
		return 0;
	return cfs_fail(c->err, -ENOTSUP,
			"optimizer state %s of group %u: not found for its "
			"first parameter",
			name, group);
}

static int check_states(const struct check *c)
{
	for (uint32_t g = 0; g < cfs_catalogue_groups(c->cat); g++) {
		const struct cfs_node *order = c->rank->groups[g].state_order;

		for (uint32_t i = 0; i < cfs_seq_node_count(order); i++) {
			const char *name =
				cfs_node_as_str(cfs_seq_node_item(order, i));
			int r;

			if (!name)
				return cfs_fail(c->err, -ENOTSUP,
						"optimizer state of group %u: "
						"a key is not a string",
						g);
			r = check_state(c, g, name);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* Nothing is inflated: what is carried along must be stored. */
static int check_stored(const struct check *c, const struct cfs_ds_file *file)
{
	const struct cfs_zip *zip =
		file && file->torch ? cfs_torchfile_zip(file->torch) : NULL;

	for (uint32_t i = 0; zip && i < cfs_torchfile_count(file->torch); i++) {
		const struct cfs_torch_storage *s =
			cfs_torchfile_storage(file->torch, i);

		if (s->nbytes && zip->entries[s->zip_entry].method)
			return cfs_fail(c->err, -ENOTSUP,
					"%s: its tensors are compressed",
					file->name);
	}
	return 0;
}

static int check_rank(const struct check *c, uint32_t mp, bool elastic)
{
	bool optim = c->topo->optimizer != CFS_OPT_NONE;
	int r = 0;

	if (optim && !elastic)
		r = check_hyper(c);
	if (r >= 0 && c->topo->zero_stage == 3 && !c->step->remodel &&
	    !cfs_node_is_map(cfs_node_get(c->rank->model_root, "module")))
		r = cfs_fail(
			c->err, -ENOTSUP,
			"%s: the weights lie in layer files, which stage 3 "
			"does not have",
			c->step->base.path);
	if (r >= 0 && optim)
		r = check_masters(c);
	if (r >= 0 && optim)
		r = check_states(c);
	if (r >= 0 && c->rank->n_model)
		r = check_stored(c, &c->rank->model[0]);
	if (r >= 0 && optim && c->rank->n_optim)
		r = check_stored(c, &c->rank->optim[0]);
	return r >= 0 ? cfs_ds_model_possible(c->step, mp, c->topo, c->err) : r;
}

int cfs_ds_write_possible(const struct cfs_ds_step *step,
			  const struct cfs_topology *topo, bool elastic,
			  struct cfs_error *err)
{
	int r = 0;

	if (topo->optimizer == CFS_OPT_STAGE0)
		r = cfs_ds_stage0_possible(step, err);
	for (uint32_t i = 0; r >= 0 && i < step->base.n_ranks; i++) {
		struct check c = {.step = step,
				  .rank = &step->ranks[i],
				  .cat = step->base.ranks[i].catalogue,
				  .topo = topo,
				  .err = err};

		r = check_rank(&c, i, elastic);
	}
	return r;
}
