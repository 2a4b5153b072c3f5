/*
 * A catalogue in memory: an array of parameters, a hash of their names, and
 * for each role one slot a parameter with its extents.
 *
 *   roles[k].slots[i] --> extents of role k of parameter i, by start
 */
#include "fs/reslice/catalogue_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/arena.h"
#include "store/util/checked.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

struct cfs_catalogue *cfs_catalogue_new(void)
{
	_cleanup_(cfs_catalogue_freep) struct cfs_catalogue *cat = NULL;

	cat = calloc(1, sizeof(*cat));
	if (!cat)
		return NULL;
	cat->arena = cfs_arena_new(0);
	if (!cat->arena)
		return NULL;
	cat->roles[CFS_ROLE_WEIGHT].name = "weight";
	cat->roles[CFS_ROLE_MASTER].name = "master";
	cat->n_roles = CFS_ROLE_STATE0;
	return cfs_steal(cat);
}

void cfs_catalogue_free(struct cfs_catalogue *cat)
{
	if (!cat)
		return;
	for (uint32_t k = 0; k < cat->n_roles; k++) {
		for (uint32_t i = 0; i < cat->roles[k].n_slots; i++)
			free(cat->roles[k].slots[i].extents);
		free(cat->roles[k].slots);
	}
	free(cat->params);
	free(cat->table);
	free(cat->groups);
	cfs_arena_free(cat->arena);
	free(cat);
}

void cfs_catalogue_freep(struct cfs_catalogue **cat)
{
	cfs_catalogue_free(*cat);
}

uint32_t cfs_catalogue_place(const struct cfs_catalogue *cat, const char *name)
{
	uint32_t mask = cat->table_size - 1;
	uint32_t at = (uint32_t)cfs_hash64(name, strlen(name), 0) & mask;

	while (cat->table[at] &&
	       strcmp(cat->params[cat->table[at] - 1].name, name) != 0)
		at = (at + 1) & mask;
	return at;
}

static int table_grow(struct cfs_catalogue *cat)
{
	uint32_t size = cat->table_size ? cat->table_size * 2 : 64;
	uint32_t *table;

	if (cat->table_size && cat->n_params * 2 + 2 <= cat->table_size)
		return 0;
	if (cat->n_params >= UINT32_MAX / 8)
		return -EOVERFLOW;
	table = calloc(size, sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(cat->table);
	cat->table = table;
	cat->table_size = size;
	for (uint32_t i = 0; i < cat->n_params; i++)
		table[cfs_catalogue_place(cat, cat->params[i].name)] = i + 1;
	return 0;
}

/* Groups up to @group exist; parameter @index is the next of it. */
static int group_extend(struct cfs_catalogue *cat, uint32_t group,
			uint32_t index)
{
	if (cat->n_params && cat->params[cat->n_params - 1].group > group)
		return -EINVAL; /* out of order, or behind frozen ones */
	if (group == CFS_GROUP_FROZEN)
		return 0;
	if (group >= cat->n_groups) {
		struct cfs_cat_span *s;

		if (group > UINT16_MAX)
			return -EINVAL;
		s = realloc(cat->groups, (group + 1) * sizeof(*s));
		if (!s)
			return -ENOMEM;
		cat->groups = s;
		for (; cat->n_groups <= group; cat->n_groups++)
			s[cat->n_groups] = (struct cfs_cat_span){index, 0};
	}
	cat->groups[group].n++;
	return 0;
}

static int param_fill(struct cfs_catalogue *cat, struct cfs_param *p,
		      const char *name, uint32_t ndim, const uint64_t *shape)
{
	uint64_t *dims;

	p->numel = 1;
	for (uint32_t d = 0; d < ndim; d++)
		if (!cfs_mul_u64(p->numel, shape[d], &p->numel))
			return -EOVERFLOW;
	p->name = cfs_arena_strndup(cat->arena, name, strlen(name));
	dims = cfs_arena_alloc(cat->arena, ndim * sizeof(*dims) + 1);
	if (!p->name || !dims)
		return -ENOMEM;
	if (ndim)
		memcpy(dims, shape, ndim * sizeof(*dims));
	p->shape = dims;
	p->ndim = ndim;
	return 0;
}

int cfs_catalogue_add_param(struct cfs_catalogue *cat, const char *name,
			    uint32_t ndim, const uint64_t *shape,
			    uint32_t group, uint32_t *index_out)
{
	struct cfs_param p = {.group = group};
	uint32_t at;
	int r;

	if (cat->sealed)
		return -EINVAL;
	r = table_grow(cat);
	if (r < 0)
		return r;
	if (!CFS_GROW(cat->params, cat->n_params, cat->cap_params))
		return -ENOMEM;
	at = cfs_catalogue_place(cat, name);
	if (cat->table[at])
		return -EEXIST;
	r = param_fill(cat, &p, name, ndim, shape);
	if (r < 0)
		return r;
	r = group_extend(cat, group, cat->n_params);
	if (r < 0)
		return r;
	if (index_out)
		*index_out = cat->n_params;
	cat->params[cat->n_params++] = p;
	cat->table[at] = cat->n_params;
	return 0;
}

int cfs_catalogue_add_role(struct cfs_catalogue *cat, const char *name,
			   uint32_t *role_out)
{
	char *copy;

	for (uint32_t k = CFS_ROLE_STATE0; k < cat->n_roles; k++) {
		if (strcmp(cat->roles[k].name, name) == 0) {
			*role_out = k;
			return 0;
		}
	}
	if (cat->sealed)
		return -EINVAL;
	if (cat->n_roles == CFS_ROLES_MAX)
		return -E2BIG;
	copy = cfs_arena_strndup(cat->arena, name, strlen(name));
	if (!copy)
		return -ENOMEM;
	cat->roles[cat->n_roles].name = copy;
	*role_out = cat->n_roles++;
	return 0;
}

/* The slot of (param, role), made if need be; NULL when out of memory. */
static struct cfs_cat_slot *slot_make(struct cfs_catalogue *cat, uint32_t param,
				      uint32_t role)
{
	struct cfs_cat_role *k = &cat->roles[role];

	if (param >= k->n_slots) {
		struct cfs_cat_slot *s =
			realloc(k->slots, cat->n_params * sizeof(*s));

		if (!s)
			return NULL;
		memset(s + k->n_slots, 0,
		       (cat->n_params - k->n_slots) * sizeof(*s));
		k->slots = s;
		k->n_slots = cat->n_params;
	}
	return &k->slots[param];
}

int cfs_catalogue_set_dtype(struct cfs_catalogue *cat, uint32_t param,
			    uint32_t role, enum cfs_dtype dtype)
{
	struct cfs_cat_slot *s;

	if (cat->sealed || param >= cat->n_params || role >= cat->n_roles ||
	    !cfs_dtype_size(dtype))
		return -EINVAL;
	s = slot_make(cat, param, role);
	if (!s)
		return -ENOMEM;
	if (s->dtype && s->dtype != dtype)
		return -EINVAL;
	s->dtype = dtype;
	return 0;
}

int cfs_catalogue_add_extent(struct cfs_catalogue *cat, uint32_t param,
			     uint32_t role, const struct cfs_extent *extent)
{
	struct cfs_cat_slot *s;

	if (cat->sealed || param >= cat->n_params || role >= cat->n_roles ||
	    !cfs_range_ok(extent->start, extent->count,
			  cat->params[param].numel))
		return -EINVAL;
	if (!extent->count)
		return 0;
	s = slot_make(cat, param, role);
	if (!s)
		return -ENOMEM;
	if (!CFS_GROW(s->extents, s->n, s->cap))
		return -ENOMEM;
	s->extents[s->n++] = *extent;
	return 0;
}

void cfs_catalogue_set_maker(struct cfs_catalogue *cat,
			     cfs_catalogue_make_fn *make, void *arg)
{
	cat->make = make;
	cat->make_arg = arg;
}

static int extent_cmp(const void *a, const void *b)
{
	const struct cfs_extent *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorts only what is out of order: extents mostly come by rank. */
static void slot_sort(struct cfs_cat_slot *s)
{
	for (uint32_t i = 1; i < s->n; i++) {
		if (s->extents[i].start < s->extents[i - 1].start) {
			qsort(s->extents, s->n, sizeof(*s->extents),
			      extent_cmp);
			return;
		}
	}
}

/* Is @b the continuation of @a, in the tensor and in the file? */
static bool continues(const struct cfs_extent *a, const struct cfs_extent *b,
		      uint32_t elem_size)
{
	return a->file == b->file && a->start + a->count == b->start &&
	       a->offset + a->count * elem_size == b->offset;
}

static void slot_merge(struct cfs_cat_slot *s)
{
	uint32_t size = cfs_dtype_size(s->dtype), kept = 0;
	struct cfs_extent *shrunk;

	for (uint32_t i = 1; i < s->n; i++) {
		if (continues(&s->extents[kept], &s->extents[i], size))
			s->extents[kept].count += s->extents[i].count;
		else
			s->extents[++kept] = s->extents[i];
	}
	s->n = kept + 1;
	if (s->n == s->cap)
		return;
	shrunk = realloc(s->extents, (size_t)s->n * sizeof(*s->extents));
	if (shrunk) {
		s->extents = shrunk;
		s->cap = s->n;
	}
}

static int slot_seal(struct cfs_cat_slot *s, const struct cfs_param *p,
		     const char *role, struct cfs_error *err)
{
	uint64_t at = 0;

	if (!s->n)
		return 0;
	if (!s->dtype)
		return cfs_fail(err, -EINVAL, "%s of %s has no data type", role,
				p->name);
	slot_sort(s);
	for (uint32_t i = 0; i < s->n; i++) {
		const struct cfs_extent *e = &s->extents[i];

		if (e->start != at)
			return cfs_fail(
				err, -EINVAL,
				"%s of %s: elements %llu to %llu are %s", role,
				p->name,
				(unsigned long long)CFS_MIN(at, e->start),
				(unsigned long long)CFS_MAX(at, e->start),
				e->start > at ? "missing" : "there twice");
		at += e->count;
	}
	if (at != p->numel)
		return cfs_fail(err, -EINVAL,
				"%s of %s: elements %llu to %llu are missing",
				role, p->name, (unsigned long long)at,
				(unsigned long long)p->numel);
	slot_merge(s);
	return 0;
}

int cfs_catalogue_seal(struct cfs_catalogue *cat, struct cfs_error *err)
{
	int r;

	for (uint32_t k = 0; k < cat->n_roles; k++) {
		for (uint32_t i = 0; i < cat->roles[k].n_slots; i++) {
			r = slot_seal(&cat->roles[k].slots[i], &cat->params[i],
				      cat->roles[k].name, err);
			if (r < 0)
				return r;
		}
	}
	cat->sealed = true;
	return 0;
}
