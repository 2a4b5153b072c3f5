/* What building and looking at a catalogue share. */
#ifndef CFS_RESLICE_CATALOGUE_INTERNAL_H
#define CFS_RESLICE_CATALOGUE_INTERNAL_H

#include "fs/reslice/catalogue.h"

struct cfs_arena;

struct cfs_cat_slot {
	struct cfs_extent *extents;
	uint32_t n, cap;
	enum cfs_dtype dtype;
};

struct cfs_cat_role {
	const char *name;
	struct cfs_cat_slot *slots; /* n_slots; NULL until something is set */
	uint32_t n_slots;	    /* may lag behind n_params */
};

struct cfs_cat_span {
	uint32_t first, n;
};

struct cfs_catalogue {
	struct cfs_arena *arena; /* names and shapes */
	struct cfs_param *params;
	uint32_t n_params, cap_params;
	uint32_t *table;     /* open addressing: parameter + 1, 0 is free */
	uint32_t table_size; /* power of two, at least twice n_params */
	struct cfs_cat_span *groups;
	uint32_t n_groups;
	struct cfs_cat_role roles[CFS_ROLES_MAX];
	uint32_t n_roles;
	cfs_catalogue_make_fn *make; /* or NULL */
	void *make_arg;
	bool sealed;
};

/* Where @name is in the table, or the free place for it. */
uint32_t cfs_catalogue_place(const struct cfs_catalogue *cat, const char *name);

#endif
