/* Names that ranks said. */
#include <string.h>

#include "fs/rank/stage_internal.h"
#include "store/util/hash.h"

void cfs_stage_names_fini(struct cfs_stage_names *names)
{
	for (size_t i = 0; i < names->cap; i++)
		free(names->table[i].name);
	free(cfs_steal(names->table));
	names->n = names->cap = 0;
}

/* Its place, or a free one; there is one. */
static struct cfs_stage_name *place(struct cfs_stage_name *table, size_t cap,
				    char kind, const char *name)
{
	size_t i = (size_t)cfs_hash64(name, strlen(name), (uint8_t)kind);

	for (;; i++) {
		struct cfs_stage_name *e = &table[i & (cap - 1)];

		if (!e->name || (e->kind == kind && !strcmp(e->name, name)))
			return e;
	}
}

const struct cfs_stage_name *
cfs_stage_names_find(const struct cfs_stage_names *names, char kind,
		     const char *name)
{
	const struct cfs_stage_name *e;

	if (!names->cap)
		return NULL;
	e = place(names->table, names->cap, kind, name);
	return e->name ? e : NULL;
}

static bool grow(struct cfs_stage_names *names)
{
	size_t cap = names->cap ? 2 * names->cap : 64;
	struct cfs_stage_name *table = calloc(cap, sizeof(*table));

	if (!table)
		return false;
	for (size_t i = 0; i < names->cap; i++) {
		const struct cfs_stage_name *e = &names->table[i];

		if (e->name)
			*place(table, cap, e->kind, e->name) = *e;
	}
	free(names->table);
	names->table = table;
	names->cap = cap;
	return true;
}

const struct cfs_stage_name *cfs_stage_names_add(struct cfs_stage_names *names,
						 char kind, const char *name,
						 uint32_t rank)
{
	const struct cfs_stage_name *old =
		cfs_stage_names_find(names, kind, name);
	struct cfs_stage_name *e;

	if (old)
		return old;
	if (2 * (names->n + 1) > names->cap && !grow(names))
		return NULL;
	e = place(names->table, names->cap, kind, name);
	e->name = strdup(name);
	if (!e->name)
		return NULL;
	e->kind = kind;
	e->rank = rank;
	names->n++;
	return e;
}
