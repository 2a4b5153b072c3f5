/* Of a step's catalogue: which weights are which masters, by place. */
#include <errno.h>
#include <string.h>

#include "fs/daemon/derive.h"
#include "fs/format/format.h"
#include "fs/reslice/catalogue.h"
#include "fs/view/view.h"
#include "store/ns/ns.h"
#include "store/util/grow.h"

void cfs_derive_links_free(struct cfs_derive_links *links)
{
	free(links->v);
	*links = (struct cfs_derive_links){NULL, 0, 0};
}

static int add(struct cfs_derive_links *links,
	       const struct cfs_derive_link *link)
{
	struct cfs_derive_link *last =
		links->n ? &links->v[links->n - 1] : NULL;
	const uint64_t size = cfs_dtype_size((enum cfs_dtype)link->to);
	const uint64_t master = cfs_dtype_size((enum cfs_dtype)link->from);

	if (last && last->ino == link->ino &&
	    last->master_ino == link->master_ino && last->from == link->from &&
	    last->to == link->to &&
	    last->off + last->count * size == link->off &&
	    last->master_off + last->count * master == link->master_off) {
		last->count += link->count;
		return 0;
	}
	if (!CFS_GROW(links->v, links->n, links->cap))
		return -ENOMEM;
	links->v[links->n++] = *link;
	return 0;
}

/* Weights of 16 bits with masters of 32. */
static bool is_rounded(const struct cfs_catalogue *cat, uint32_t param)
{
	enum cfs_dtype to;

	if (!cfs_catalogue_has(cat, param, CFS_ROLE_WEIGHT) ||
	    !cfs_catalogue_has(cat, param, CFS_ROLE_MASTER))
		return false;
	to = cfs_catalogue_dtype(cat, param, CFS_ROLE_WEIGHT);
	return (to == CFS_BF16 || to == CFS_F16) &&
	       cfs_catalogue_dtype(cat, param, CFS_ROLE_MASTER) == CFS_F32;
}

static int add_param(const struct cfs_catalogue *cat, uint32_t param,
		     const uint64_t *inos, struct cfs_derive_links *links)
{
	const enum cfs_dtype to =
		cfs_catalogue_dtype(cat, param, CFS_ROLE_WEIGHT);
	const struct cfs_extent *w, *m;
	uint32_t nw, nm, i = 0, k = 0;
	int r = 0;

	w = cfs_catalogue_extents(cat, param, CFS_ROLE_WEIGHT, &nw);
	m = cfs_catalogue_extents(cat, param, CFS_ROLE_MASTER, &nm);
	while (!r && i < nw && k < nm) {
		const uint64_t w_end = w[i].start + w[i].count;
		const uint64_t m_end = m[k].start + m[k].count;
		const uint64_t from = CFS_MAX(w[i].start, m[k].start);
		const uint64_t end = CFS_MIN(w_end, m_end);
		struct cfs_derive_link link = {
			.ino = inos[w[i].file],
			.off = w[i].offset +
			       (from - w[i].start) * cfs_dtype_size(to),
			.count = end > from ? end - from : 0,
			.master_ino = inos[m[k].file],
			.master_off =
				m[k].offset +
				(from - m[k].start) * cfs_dtype_size(CFS_F32),
			.from = CFS_F32,
			.to = (int)to,
		};

		if (link.count && link.ino && link.master_ino)
			r = add(links, &link);
		i += w_end <= m_end;
		k += m_end <= w_end;
	}
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct cfs_derive_link *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

/* Tied weights are there twice: the first will do. */
static void settle(struct cfs_derive_links *links)
{
	const struct cfs_derive_link *last = NULL;
	size_t n = 0;

	if (!links->n)
		return;
	qsort(links->v, links->n, sizeof(*links->v), by_place);
	for (size_t i = 0; i < links->n; i++) {
		const struct cfs_derive_link *l = &links->v[i];

		if (last && last->ino == l->ino &&
		    l->off < last->off +
				     last->count *
					     cfs_dtype_size(
						     (enum cfs_dtype)last->to))
			continue;
		links->v[n] = *l;
		last = &links->v[n++];
	}
	links->n = n;
}

/* The inode of each file of the step; 0 where it is gone. */
static uint64_t *find_inos(struct cfs_ns *ns, const struct cfs_step *step)
{
	const uint32_t n = cfs_filetab_count(step->files);
	uint64_t *inos = calloc((size_t)n + 1, sizeof(*inos));
	struct stat st;

	for (uint32_t i = 0; inos && i < n; i++)
		if (!cfs_ns_walk(ns, cfs_filetab_path(step->files, i), &st))
			inos[i] = st.st_ino;
	return inos;
}

int cfs_derive_links_read(struct cfs_ns *ns, struct cfs_vnode *node,
			  struct cfs_derive_links *out, struct cfs_error *err)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	_cleanup_(cfs_freep) uint64_t *inos = NULL;
	int r = cfs_vnode_step(node, &step, err);

	if (r < 0)
		return r;
	inos = find_inos(ns, step);
	if (!inos)
		return -ENOMEM;
	for (uint32_t i = 0; i < step->n_ranks; i++) {
		const struct cfs_catalogue *cat = step->ranks[i].catalogue;
		const uint32_t n = cfs_catalogue_params(cat);

		for (uint32_t param = 0; !r && param < n; param++)
			if (is_rounded(cat, param))
				r = add_param(cat, param, inos, out);
	}
	settle(out);
	return r;
}
