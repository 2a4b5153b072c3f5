/* Whether the first rank's flat tensors can hold what param_shapes list, and
 * how they are cut. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>

#include "store/util/error.h"

/* Refuses with the first rank's optimizer file named. */
#define refuse(layout, r, err, ...)                                            \
	(cfs_fail(err, r, __VA_ARGS__),                                        \
	 cfs_fail_prefix(err, r, "%s", (layout)->rank->optim[0].name))

static int master_numel(const struct cfs_ds_layout *layout, uint32_t u,
			uint32_t cut, uint64_t *out, struct cfs_error *err)
{
	struct cfs_torch_tensor t;
	int r = cfs_torch_tensor_get(
		cfs_ds_unit_master(layout, layout->rank->optim_state, u, cut),
		&t);

	if (r < 0 || t.ndim != 1)
		return refuse(layout, r < 0 && r != -ENOENT ? r : -EBADMSG, err,
			      "the master weights of group %u are no flat "
			      "tensor",
			      u);
	*out = t.numel;
	return 0;
}

/* Stages 1 and 2 align to 2 * dp; stage 2 before 0.3.17 to dp alone.  The
 * first rank's length tells, stripped of padding or not. */
static int fit_flat(struct cfs_ds_layout *layout, uint32_t u, uint64_t total,
		    struct cfs_error *err)
{
	struct cfs_ds_unit *unit = &layout->units[u];
	uint64_t numel = 0;
	int r = master_numel(layout, u, 0, &numel, err);

	if (r < 0)
		return r;
	for (uint32_t factor = 2; factor; factor--) {
		r = cfs_flat_init(&unit->flat, layout->dp, total, factor);
		if (r < 0)
			return r;
		unit->len = unit->flat.part;
		if (numel == unit->flat.part ||
		    (layout->cls == CFS_OPT_ZERO12 &&
		     numel == cfs_flat_valid(&unit->flat, 0)))
			return 0;
	}
	return refuse(
		layout, -EINVAL, err,
		"group %u: param_shapes of %llu elements over %u ranks do "
		"not make the %llu master weights here",
		u, (unsigned long long)total, layout->dp,
		(unsigned long long)numel);
}

/*
 * Up to 0.3.16, stage 1.  How large sub-partitions are followed from the size
 * of a communication bucket, which the files do not have: the first of all is
 * full, unless it is the only one with anything.
 */
static int fit_interleaved(struct cfs_ds_layout *layout, uint32_t u,
			   uint64_t total, struct cfs_error *err)
{
	struct cfs_ds_unit *unit = &layout->units[u];
	bool elastic = layout->step->elastic;
	uint64_t numel = 0, want;
	int r = master_numel(layout, u, 0, &unit->len, err);

	if (!r)
		r = cfs_interleaved_init(&unit->il, layout->dp, total,
					 unit->cuts, unit->len);
	if (r == -EINVAL)
		return refuse(layout, r, err,
			      "group %u: %u sub-partitions of %llu on each of "
			      "%u ranks do not hold the %llu elements of "
			      "param_shapes",
			      u, unit->cuts, (unsigned long long)unit->len,
			      layout->dp, (unsigned long long)total);
	for (uint32_t cut = 1; !r && cut < unit->cuts; cut++) {
		r = master_numel(layout, u, cut, &numel, err);
		want = elastic ? cfs_interleaved_valid(&unit->il, 0, cut)
			       : unit->len;
		if (!r && numel != want)
			r = refuse(layout, -EINVAL, err,
				   "group %u: sub-partition %u has %llu "
				   "elements, and %llu by param_shapes",
				   u, cut, (unsigned long long)numel,
				   (unsigned long long)want);
	}
	/* the shape of roles goes by it */
	unit->flat = (struct cfs_flat){
		.dp = layout->dp, .total = total, .part = unit->len};
	return r;
}

static int fit_zero3(struct cfs_ds_layout *layout, uint32_t u, uint64_t total,
		     struct cfs_error *err)
{
	uint64_t numel = 0;
	int r = master_numel(layout, u, 0, &numel, err);

	if (r < 0)
		return r;
	layout->units[u].len = total;
	if (numel == total)
		return 0;
	return refuse(layout, -EINVAL, err,
		      "sub-group %u: param_shapes over %u ranks make %llu "
		      "elements a rank, not the %llu here",
		      u, layout->dp, (unsigned long long)total,
		      (unsigned long long)numel);
}

int cfs_ds_fit(struct cfs_ds_layout *layout, uint32_t u, uint64_t total,
	       struct cfs_error *err)
{
	if (layout->interleaved)
		return fit_interleaved(layout, u, total, err);
	return layout->cls == CFS_OPT_ZERO3 ? fit_zero3(layout, u, total, err)
					    : fit_flat(layout, u, total, err);
}
