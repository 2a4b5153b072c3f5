/* The tensors of a new rank, made of those of the source's ranks. */
#include "fs/format/deepspeed/remodel.h"

#include <errno.h>

#include "store/map/map.h"

struct origin {
	const struct cfs_ds_remodel *remodel;
	const struct cfs_ds_whole *whole;
	uint32_t role;
};

const struct cfs_catalogue *
cfs_ds_remodel_catalogue(const struct cfs_ds_remodel *rm,
			 const struct cfs_ds_whole *w, uint32_t t)
{
	const struct cfs_step *from = &rm->from->base;

	return from->ranks[w->stage * from->topology.tp + t].catalogue;
}

static int append_origin(void *arg, uint32_t t, struct cfs_map *map)
{
	const struct origin *o = arg;
	const struct cfs_catalogue *cat =
		cfs_ds_remodel_catalogue(o->remodel, o->whole, t);

	return cfs_catalogue_append(
		cat, o->whole->index, o->role, 0,
		cfs_catalogue_param(cat, o->whole->index)->numel, map);
}

uint32_t cfs_ds_remodel_cuts(const struct cfs_ds_remodel *rm)
{
	return rm->whole ? 1 : rm->tp;
}

int cfs_ds_remodel_append(const struct cfs_ds_remodel *rm,
			  const struct cfs_ds_whole *w, uint32_t role,
			  uint32_t t, struct cfs_map *map)
{
	struct origin o = {rm, w, role};
	const struct cfs_tp_source source = {
		.append = append_origin,
		.arg = &o,
		.tp = rm->from->base.topology.tp,
		.dtype = cfs_catalogue_dtype(cfs_ds_remodel_catalogue(rm, w, 0),
					     w->index, role)};

	/* Moments of what ranks add up are those of each rank's own copy,
	 * whose gradients are the same on all. */
	if (w->from.kind == CFS_TP_SUM && role >= CFS_ROLE_STATE0)
		return append_origin(&o, t % source.tp, map);
	return cfs_tp_append(
		&w->from, &source, &w->to,
		w->from.kind == CFS_TP_SUM ? rm->tp : cfs_ds_remodel_cuts(rm),
		t, map);
}

/* The weight of what ranks add up, or of a mean, follows its master, not its
 * own rounded share. */
static int append_rounded(const struct cfs_ds_remodel *rm,
			  const struct cfs_ds_whole *w, uint32_t t,
			  struct cfs_map *map)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *master =
		cfs_map_new(cfs_map_filetab(map));
	const struct cfs_catalogue *cat = cfs_ds_remodel_catalogue(rm, w, 0);
	int r = master ? cfs_ds_remodel_append(rm, w, CFS_ROLE_MASTER, t,
					       master)
		       : -ENOMEM;

	if (r < 0)
		return r;
	return cfs_map_add_cast(
		map, master,
		cfs_catalogue_dtype(cat, w->index, CFS_ROLE_MASTER),
		cfs_catalogue_dtype(cat, w->index, CFS_ROLE_WEIGHT));
}

int cfs_ds_remodel_make(void *arg, uint32_t param, uint32_t role,
			uint64_t start, uint64_t count, struct cfs_map *map)
{
	const struct cfs_ds_made *made = arg;
	const struct cfs_ds_remodel *rm = made->remodel;
	const struct cfs_ds_whole *w = made->whole[param];
	const struct cfs_catalogue *cat = cfs_ds_remodel_catalogue(rm, w, 0);
	_cleanup_(cfs_map_unrefp) struct cfs_map *all = NULL;
	uint32_t size =
		cfs_dtype_size(cfs_catalogue_dtype(cat, w->index, role));
	int r;

	if (rm->tp == rm->from->base.topology.tp && !rm->whole &&
	    w->to.kind == CFS_TP_SAME)
		return cfs_catalogue_append(
			cfs_ds_remodel_catalogue(rm, w, made->t), w->index,
			role, start, count, map);
	all = cfs_map_new(cfs_map_filetab(map));
	if (!all)
		return -ENOMEM;
	if ((w->from.kind == CFS_TP_SUM || w->from.kind == CFS_TP_MEAN) &&
	    role == CFS_ROLE_WEIGHT &&
	    cfs_catalogue_has(cat, w->index, CFS_ROLE_MASTER))
		r = append_rounded(rm, w, made->t, all);
	else
		r = cfs_ds_remodel_append(rm, w, role, made->t, all);
	return r < 0 ? r
		     : cfs_map_add_slice(map, all, start * size, count * size);
}
