/* Looking at a catalogue, and maps of what it names. */
#include "fs/reslice/catalogue_internal.h"

#include <errno.h>

#include "store/map/map.h"
#include "store/util/arena.h"
#include "store/util/checked.h"

static const struct cfs_cat_slot *slot_get(const struct cfs_catalogue *cat,
					   uint32_t param, uint32_t role)
{
	if (role >= cat->n_roles || param >= cat->roles[role].n_slots)
		return NULL;
	return &cat->roles[role].slots[param];
}

uint32_t cfs_catalogue_params(const struct cfs_catalogue *cat)
{
	return cat->n_params;
}

const struct cfs_param *cfs_catalogue_param(const struct cfs_catalogue *cat,
					    uint32_t i)
{
	return &cat->params[i];
}

int cfs_catalogue_find(const struct cfs_catalogue *cat, const char *name,
		       uint32_t *index_out)
{
	uint32_t at;

	if (!cat->table)
		return -ENOENT;
	at = cfs_catalogue_place(cat, name);
	if (!cat->table[at])
		return -ENOENT;
	*index_out = cat->table[at] - 1;
	return 0;
}

uint32_t cfs_catalogue_roles(const struct cfs_catalogue *cat)
{
	return cat->n_roles;
}

const char *cfs_catalogue_role_name(const struct cfs_catalogue *cat,
				    uint32_t role)
{
	return role < cat->n_roles ? cat->roles[role].name : NULL;
}

uint32_t cfs_catalogue_groups(const struct cfs_catalogue *cat)
{
	return cat->n_groups;
}

void cfs_catalogue_group(const struct cfs_catalogue *cat, uint32_t group,
			 uint32_t *first_out, uint32_t *n_out)
{
	bool there = group < cat->n_groups;

	*first_out = there ? cat->groups[group].first : 0;
	*n_out = there ? cat->groups[group].n : 0;
}

bool cfs_catalogue_has(const struct cfs_catalogue *cat, uint32_t param,
		       uint32_t role)
{
	const struct cfs_cat_slot *s = slot_get(cat, param, role);

	return s && s->dtype &&
	       (s->n || cat->make || !cat->params[param].numel);
}

enum cfs_dtype cfs_catalogue_dtype(const struct cfs_catalogue *cat,
				   uint32_t param, uint32_t role)
{
	const struct cfs_cat_slot *s = slot_get(cat, param, role);

	return s ? s->dtype : CFS_DTYPE_NONE;
}

const struct cfs_extent *cfs_catalogue_extents(const struct cfs_catalogue *cat,
					       uint32_t param, uint32_t role,
					       uint32_t *n_out)
{
	const struct cfs_cat_slot *s = slot_get(cat, param, role);

	*n_out = s ? s->n : 0;
	return s ? s->extents : NULL;
}

/* The extent that holds element @at. */
static uint32_t slot_find(const struct cfs_cat_slot *s, uint64_t at)
{
	const uint64_t guess = at / s->extents[0].count;
	uint32_t lo = 0, hi = s->n;

	/* Stage 3 cuts evenly: look where it would be, before searching
	 * through memory that is not in the processor's caches. */
	if (guess < s->n && s->extents[guess].start <= at &&
	    at - s->extents[guess].start < s->extents[guess].count)
		return (uint32_t)guess;
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (s->extents[mid].start <= at)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

int cfs_catalogue_append(const struct cfs_catalogue *cat, uint32_t param,
			 uint32_t role, uint64_t start, uint64_t count,
			 struct cfs_map *map)
{
	const struct cfs_cat_slot *s = slot_get(cat, param, role);
	uint32_t size;

	if (param >= cat->n_params ||
	    !cfs_range_ok(start, count, cat->params[param].numel))
		return -EINVAL;
	if (!count)
		return 0;
	if (s && s->dtype && !s->n && cat->make)
		return cat->make(cat->make_arg, param, role, start, count, map);
	if (!s || !s->n)
		return -ENOENT;
	size = cfs_dtype_size(s->dtype);
	for (uint32_t i = slot_find(s, start); count; i++) {
		const struct cfs_extent *e = &s->extents[i];
		uint64_t skip = start - e->start;
		uint64_t n = CFS_MIN(count, e->count - skip);
		int r = cfs_map_add_range(map, e->file, e->offset + skip * size,
					  n * size);

		if (r < 0)
			return r;
		start += n;
		count -= n;
	}
	return 0;
}
