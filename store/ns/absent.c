/*
 * Names that were looked for and are not there: a program that makes a file has
 * the kernel look for it first, and both would search all levels and the index.
 */
#include "store/ns/ns_internal.h"

#include "store/util/hash.h"

static struct cfs_absent *slot_of(struct cfs_ns *ns, uint64_t dir,
				  const char *name, size_t len)
{
	return &ns->absent[cfs_hash64(name, len, dir) % CFS_ABSENT];
}

static bool is(const struct cfs_absent *a, uint64_t dir, const char *name,
	       size_t len)
{
	return a->dir == dir && a->len == len && !memcmp(a->name, name, len);
}

void cfs_absent_put(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	size_t len = strlen(name);
	struct cfs_absent *a = slot_of(ns, dir, name, len);

	if (!len || len > CFS_NAME_MAX)
		return;
	(void)pthread_mutex_lock(&ns->absent_lock);
	a->dir = dir;
	a->len = len;
	memcpy(a->name, name, len);
	(void)pthread_mutex_unlock(&ns->absent_lock);
}

bool cfs_absent_has(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	size_t len = strlen(name);

	return is(slot_of(ns, dir, name, len), dir, name, len);
}

void cfs_absent_drop(struct cfs_ns *ns, uint64_t dir, const char *name)
{
	size_t len = strlen(name);
	struct cfs_absent *a = slot_of(ns, dir, name, len);

	if (is(a, dir, name, len))
		a->dir = 0;
}
