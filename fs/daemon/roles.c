/* Walks the store for steps and flattens their catalogues into spans. */
#include "fs/daemon/roles.h"

#include <errno.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/verb.h"
#include "fs/format/format.h"
#include "fs/reslice/catalogue.h"
#include "fs/view/view.h"
#include "store/map/map.h"
#include "store/ns/ns.h"
#include "store/util/log.h"

const char *const cfs_roles_names[CFS_ROLES_N] = {"other", "weights", "master",
						  "moments"};

void cfs_roles_free(struct cfs_roles *roles)
{
	free(roles->spans);
	*roles = (struct cfs_roles){0};
}

struct collect {
	struct cfs_verb_context *context;
	const struct cfs_verb_reply *reply;
	struct cfs_vnode *root;
	struct cfs_roles *roles;
};

static int add_span(struct cfs_roles *roles, const struct cfs_roles_span *span)
{
	if (roles->n == roles->cap) {
		size_t cap = roles->cap ? 2 * roles->cap : 256;
		struct cfs_roles_span *spans =
			reallocarray(roles->spans, cap, sizeof(*spans));

		if (!spans)
			return -ENOMEM;
		roles->spans = spans;
		roles->cap = cap;
	}
	roles->spans[roles->n++] = *span;
	return 0;
}

static enum cfs_roles_kind kind_of(uint32_t role)
{
	return role == CFS_ROLE_WEIGHT	 ? CFS_ROLES_WEIGHTS
	       : role == CFS_ROLE_MASTER ? CFS_ROLES_MASTER
					 : CFS_ROLES_MOMENTS;
}

static int add_tensor(const struct cfs_catalogue *cat, uint32_t param,
		      uint32_t role, const uint64_t *inos,
		      struct cfs_roles *roles)
{
	const struct cfs_extent *extents;
	size_t size;
	uint32_t n, i;
	int r = 0;

	if (!cfs_catalogue_has(cat, param, role))
		return 0;
	size = cfs_dtype_size(cfs_catalogue_dtype(cat, param, role));
	extents = cfs_catalogue_extents(cat, param, role, &n);
	for (i = 0; !r && i < n; i++) {
		struct cfs_roles_span span = {
			inos[extents[i].file], extents[i].offset,
			extents[i].count * size, kind_of(role)};

		if (span.ino && span.len)
			r = add_span(roles, &span);
	}
	return r;
}

static int add_rank(const struct cfs_catalogue *cat, const uint64_t *inos,
		    struct cfs_roles *roles)
{
	uint32_t n = cfs_catalogue_params(cat), param, role;
	int r = 0;

	for (param = 0; !r && param < n; param++)
		for (role = 0; !r && role < cfs_catalogue_roles(cat); role++)
			r = add_tensor(cat, param, role, inos, roles);
	return r;
}

/* The inode of each file of the step; 0 where it is gone. */
static uint64_t *find_inos(struct cfs_ns *ns, const struct cfs_step *step)
{
	uint32_t n = cfs_filetab_count(step->files), i;
	uint64_t *inos = calloc(n + 1u, sizeof(*inos));
	struct stat st;

	for (i = 0; inos && i < n; i++)
		if (cfs_ns_walk(ns, cfs_filetab_path(step->files, i), &st) == 0)
			inos[i] = st.st_ino;
	return inos;
}

static int by_place(const void *a, const void *b)
{
	const struct cfs_roles_span *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return 0;
}

/* Sorts [from, n), cuts overlaps (tied weights) and joins neighbours. */
static void compact(struct cfs_roles *roles, size_t from)
{
	size_t i, o = from;

	if (roles->n > from)
		qsort(roles->spans + from, roles->n - from,
		      sizeof(*roles->spans), by_place);
	for (i = from; i < roles->n; i++) {
		struct cfs_roles_span s = roles->spans[i];
		struct cfs_roles_span *last =
			o > from ? &roles->spans[o - 1] : NULL;

		if (last && last->ino == s.ino &&
		    last->off + last->len > s.off) {
			uint64_t cut = last->off + last->len - s.off;

			if (cut >= s.len)
				continue;
			s.off += cut;
			s.len -= cut;
		}
		if (last && last->ino == s.ino && last->kind == s.kind &&
		    last->off + last->len == s.off)
			last->len += s.len;
		else
			roles->spans[o++] = s;
	}
	roles->n = o;
}

static int add_step(struct collect *c, struct cfs_vnode *node)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	_cleanup_(cfs_freep) uint64_t *inos = NULL;
	size_t from = c->roles->n;
	uint32_t i;
	int r;

	c->roles->steps++;
	r = cfs_vnode_step(node, &step, NULL);
	if (r < 0) {
		c->roles->unreadable++;
		return r == -ENOMEM ? r : 0;
	}
	inos = find_inos(c->context->ns, step);
	if (!inos)
		return -ENOMEM;
	for (i = 0; !r && i < step->n_ranks; i++)
		r = add_rank(step->ranks[i].catalogue, inos, c->roles);
	if (!r)
		compact(c->roles, from);
	return r;
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct collect *c = arg;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	if (!S_ISDIR(st->st_mode) || !path[0])
		return 0;
	if (!cfs_verb_progress(c->reply, 0, 0, path))
		return -ECANCELED;
	r = cfs_vnode_walk(c->root, path, &node, NULL);
	if (r < 0)
		return r == -ENOMEM ? r : 0;
	r = cfs_vnode_is_step(node);
	if (r <= 0)
		return r == -ENOMEM ? r : 0;
	return add_step(c, node);
}

int cfs_roles_collect(struct cfs_verb_context *context,
		      const struct cfs_verb_reply *reply, struct cfs_roles *out)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root =
		cfs_views_root(context->views);
	struct collect c = {context, reply, root, out};
	int r;

	/* a mount of one view alone has no way to the steps below it */
	if (cfs_vnode_kind(root) != CFS_VNODE_SOURCE)
		return 0;
	r = cfs_nstree_walk(context->ns, 1, "", on_object, &c);
	if (r < 0) {
		cfs_roles_free(out);
		return r;
	}
	compact(out, 0);
	return 0;
}

/* The first span of @ino that ends behind @off. */
static size_t seek(const struct cfs_roles *roles, uint64_t ino, uint64_t off)
{
	size_t lo = 0, hi = roles->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct cfs_roles_span *s = &roles->spans[mid];

		if (s->ino < ino || (s->ino == ino && s->off + s->len <= off))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void cfs_roles_count(const struct cfs_roles *roles, uint64_t ino, uint64_t off,
		     uint64_t len, uint64_t bytes[CFS_ROLES_N])
{
	uint64_t end = off + len, counted = 0;
	size_t i;

	for (i = seek(roles, ino, off); i < roles->n; i++) {
		const struct cfs_roles_span *s = &roles->spans[i];
		uint64_t from = CFS_MAX(s->off, off);
		uint64_t to = CFS_MIN(s->off + s->len, end);

		if (s->ino != ino || s->off >= end)
			break;
		bytes[s->kind] += to - from;
		counted += to - from;
	}
	bytes[CFS_ROLES_OTHER] += len - counted;
}
