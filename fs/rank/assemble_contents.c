/* What the files of a file table hold, each opened once. */
#include "fs/rank/assemble_contents.h"

#include <errno.h>
#include <string.h>

#include "store/map/map.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

void cfs_assemble_contents_fini(struct cfs_assemble_contents *c)
{
	for (uint32_t i = 0; i < c->n; i++)
		cfs_ns_content_close(c->v[i]);
	free(cfs_steal(c->v));
	c->n = 0;
	cfs_filetab_unref(cfs_steal(c->tab));
}

int cfs_assemble_contents_use(struct cfs_assemble_contents *c,
			      struct cfs_filetab *tab)
{
	uint32_t n = cfs_filetab_count(tab);
	struct cfs_ns_content **v;

	if (c->tab != tab) {
		cfs_assemble_contents_fini(c);
		c->tab = cfs_filetab_ref(tab);
	}
	if (n <= c->n)
		return 0;
	v = reallocarray(c->v, n, sizeof(*v));
	if (!v)
		return -ENOMEM;
	memset(v + c->n, 0, (n - c->n) * sizeof(*v));
	c->v = v;
	c->n = n;
	return 0;
}

int cfs_assemble_contents_open(struct cfs_assemble_contents *c, uint32_t row,
			       const char *name,
			       const struct cfs_ns_content **out,
			       struct cfs_error *err)
{
	_cleanup_(cfs_ns_content_closep) struct cfs_ns_content *fresh = NULL;
	const char *path = cfs_filetab_path(c->tab, row);
	struct cfs_version is;
	struct stat st;
	int r;

	*out = c->v[row];
	if (*out)
		return 0;
	r = cfs_ns_walk(c->ns, path, &st);
	if (!r)
		r = cfs_ns_content_open(c->ns, st.st_ino, &fresh, &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	cfs_version_of(&st, &is);
	if (!cfs_version_equal(&is, cfs_filetab_version(c->tab, row)))
		return cfs_fail(err, -ESTALE,
				"%s was changed while %s was made of it", path,
				name);
	*out = c->v[row] = cfs_steal(fresh);
	return 0;
}
