/*
 * From places to chunks: for each whole chunk of weights, the chunks that hold
 * its masters; the store compares and replaces.
 */
#include "fs/daemon/derive.h"

#include <errno.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/verb.h"
#include "fs/view/view.h"
#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/index/keys.h"
#include "store/ns/ns.h"
#include "store/util/grow.h"

#define PARTS_MAX 128u
#define SAVE_MIN  512u /* bytes; less is not worth a record */
/* A file whose weights are something else is not read to its end. */
#define UNEQUAL_MAX 8u

struct file { /* its extents, ascending */
	uint64_t ino;
	struct cfs_extent *v;
	size_t n, cap;
};

struct derive {
	struct cfs_verb_context *context;
	const struct cfs_verb_reply *reply;
	struct cfs_derive_result *result;
	struct cfs_vnode *root;
	bool (*skip)(void *arg, const char *path, const struct stat *st);
	void *skip_arg;
	/* of the step at hand: */
	const char *path;
	struct file *files;
	size_t n_files, cap_files;
	struct cfs_chunk_part parts[PARTS_MAX];
	uint32_t n_parts;
};

static void forget_files(struct derive *d)
{
	for (size_t i = 0; i < d->n_files; i++)
		free(d->files[i].v);
	free(d->files);
	d->files = NULL;
	d->n_files = d->cap_files = 0;
}

static int on_extent(void *arg, const struct cfs_extent *extent)
{
	struct file *f = arg;

	if (!CFS_GROW(f->v, f->n, f->cap))
		return -ENOMEM;
	f->v[f->n++] = *extent;
	return 0;
}

/* Borrowed until the next call; of a file that is gone: no extents. */
static int get_file(struct derive *d, uint64_t ino, struct file **out)
{
	struct file *f;
	int r;

	for (size_t i = 0; i < d->n_files; i++) {
		*out = &d->files[i];
		if (d->files[i].ino == ino)
			return 0;
	}
	if (!CFS_GROW(d->files, d->n_files, d->cap_files))
		return -ENOMEM;
	f = &d->files[d->n_files++];
	*f = (struct file){.ino = ino};
	*out = f;
	r = cfs_ns_extents(d->context->ns, ino, on_extent, f);
	return r == -ENOENT || r == -ESTALE ? 0 : r;
}

/* The extent that has @off, or NULL. */
static const struct cfs_extent *extent_at(const struct file *f, uint64_t off)
{
	size_t lo = 0, hi = f->n, mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if (f->v[mid].off + f->v[mid].len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < f->n && f->v[lo].off <= off ? &f->v[lo] : NULL;
}

/* @len bytes at @off of @f as parts: 1, or 0 when they cannot be. */
static int add_parts(struct derive *d, const struct file *f, uint64_t off,
		     uint64_t len)
{
	while (len) {
		const struct cfs_extent *e = extent_at(f, off);
		struct cfs_chunk_part *last =
			d->n_parts ? &d->parts[d->n_parts - 1] : NULL;
		uint64_t n, at;

		if (!e)
			return 0;
		at = e->chunk_off + (off - e->off);
		n = CFS_MIN(len, e->off + e->len - off);
		if (last && last->off + last->len == at &&
		    !cfs_digest_cmp(&last->digest, &e->digest)) {
			last->len += (uint32_t)n;
		} else {
			if (d->n_parts == PARTS_MAX)
				return 0;
			d->parts[d->n_parts++] = (struct cfs_chunk_part){
				e->digest, (uint32_t)at, (uint32_t)n};
		}
		off += n;
		len -= n;
	}
	return 1;
}

/* The masters of all of chunk @e: 1, or 0 when other bytes are in it, too.
 * @at: the first link that ends behind its start; moved on. */
static int find_parts(struct derive *d, const struct cfs_derive_links *links,
		      size_t *at, const struct cfs_extent *e)
{
	const uint64_t end = e->off + e->len;
	uint64_t off = e->off;
	int r = 1;

	d->n_parts = 0;
	for (size_t i = *at; r > 0 && off < end; i++) {
		const struct cfs_derive_link *l = &links->v[i];
		uint64_t to, from, n;
		struct file *master;

		if (i == links->n || l->ino != links->v[*at].ino ||
		    l->off > off || l->from != links->v[*at].from ||
		    l->to != links->v[*at].to)
			return 0;
		to = cfs_dtype_size((enum cfs_dtype)l->to);
		from = cfs_dtype_size((enum cfs_dtype)l->from);
		n = CFS_MIN(l->off + l->count * to, end) - off;
		if ((off - l->off) % to || n % to)
			return 0;
		r = get_file(d, l->master_ino, &master);
		if (!r)
			r = add_parts(d, master,
				      l->master_off +
					      (off - l->off) / to * from,
				      n / to * from);
		off += n;
	}
	return r;
}

static int derive_chunk(struct derive *d, const struct cfs_derive_link *link,
			const struct cfs_extent *e,
			const struct cfs_chunk_facts *facts)
{
	struct cfs_store *store = cfs_ns_store(d->context->ns);
	struct cfs_derive_result *res = d->result;
	struct cfs_chunk_facts now;
	int r;

	r = cfs_store_derive(store, &e->digest, link->from, link->to, d->parts,
			     d->n_parts);
	if (!r)
		r = cfs_store_chunk_facts(store, &e->digest, &now);
	switch (r) {
	case 0:
		if (now.codec != CFS_CODEC_DERIVED) {
			res->unfit++;
			return 0;
		}
		res->derived++;
		res->bytes_saved += facts->stored_len - now.stored_len;
		return 0;
	case -EILSEQ:
		res->unequal++;
		return 0;
	case -EINVAL: /* of elements it does not know */
		res->unfit++;
		return 0;
	case -ENOENT: /* removed meanwhile */
		return 0;
	default:
		return r;
	}
}

/* What a derived chunk of so many parts takes, about. */
static bool is_worth_it(const struct derive *d,
			const struct cfs_chunk_facts *facts)
{
	return facts->stored_len > facts->raw_len / CFS_FRAME_BYTES * 12 +
					   (uint64_t)d->n_parts * 40 + SAVE_MIN;
}

static int try_chunk(struct derive *d, const struct cfs_derive_links *links,
		     size_t *at, const struct cfs_extent *e)
{
	struct cfs_derive_result *res = d->result;
	struct cfs_chunk_facts facts;
	int r;

	res->chunks++;
	res->bytes_weights += e->len;
	r = cfs_store_chunk_facts(cfs_ns_store(d->context->ns), &e->digest,
				  &facts);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (facts.codec == CFS_CODEC_DERIVED) {
		res->already++;
		return 0;
	}
	r = 0;
	if (!e->chunk_off && e->len == e->chunk_len)
		r = find_parts(d, links, at, e);
	if (r > 0 && is_worth_it(d, &facts))
		return derive_chunk(d, &links->v[*at], e, &facts);
	if (r >= 0)
		res->unfit++;
	return r < 0 ? r : 0;
}

static uint64_t end_of(const struct cfs_derive_link *l)
{
	return l->off + l->count * cfs_dtype_size((enum cfs_dtype)l->to);
}

/* Links [@first, @end) are one file's. */
static int derive_file(struct derive *d, const struct cfs_derive_links *links,
		       size_t first, size_t end)
{
	const uint64_t unequal = d->result->unequal;
	const uint64_t derived = d->result->derived;
	const uint64_t last = end_of(&links->v[end - 1]);
	struct file f = {.ino = links->v[first].ino};
	size_t at = first;
	int r;

	r = cfs_ns_extents(d->context->ns, f.ino, on_extent, &f);
	if (r == -ENOENT || r == -ESTALE)
		r = 0;
	for (size_t i = 0; !r && i < f.n; i++) {
		const struct cfs_extent *e = &f.v[i];

		while (at < end && end_of(&links->v[at]) <= e->off)
			at++;
		if (at == end || (d->result->derived == derived &&
				  d->result->unequal - unequal >= UNEQUAL_MAX))
			break;
		if (links->v[at].off >= e->off + e->len)
			continue;
		if (!cfs_verb_progress(d->reply, e->off, last, d->path))
			r = -ECANCELED;
		else
			r = try_chunk(d, links, &at, e);
	}
	free(f.v);
	return r;
}

static int derive_step(struct derive *d, struct cfs_vnode *node)
{
	_cleanup_(cfs_derive_links_free) struct cfs_derive_links links = {0};
	struct cfs_error why = {""};
	size_t end;
	int r;

	r = cfs_derive_links_read(d->context->ns, node, &links, &why);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		d->result->unreadable++;
		cfs_verb_line(d->reply, "%s: %s", d->path,
			      why.text[0] ? why.text : strerror(-r));
		return 0;
	}
	d->result->steps++;
	for (size_t i = 0; !r && i < links.n; i = end) {
		for (end = i + 1; end < links.n; end++)
			if (links.v[end].ino != links.v[i].ino)
				break;
		r = derive_file(d, &links, i, end);
	}
	forget_files(d);
	return r;
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct derive *d = arg;
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	int r;

	if (!S_ISDIR(st->st_mode) || !path[0])
		return 0;
	if (!cfs_verb_progress(d->reply, 0, 0, path))
		return -ECANCELED;
	r = cfs_vnode_walk(d->root, path, &node, NULL);
	if (!r)
		r = cfs_vnode_is_step(node);
	if (r <= 0)
		return r == -ENOMEM ? r : 0;
	if (d->skip && d->skip(d->skip_arg, path, st))
		return CFS_NSTREE_SKIP;
	d->path = path;
	r = derive_step(d, node);
	return r < 0 ? r : CFS_NSTREE_SKIP;
}

int cfs_derive_tree(struct cfs_verb_context *context, const char *path,
		    bool (*skip)(void *arg, const char *path,
				 const struct stat *st),
		    void *skip_arg, const struct cfs_verb_reply *reply,
		    struct cfs_derive_result *result, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root =
		cfs_views_root(context->views);
	struct derive *d;
	struct stat st;
	int r, committed;

	*result = (struct cfs_derive_result){0};
	/* a mount of one view alone has no way to the steps below it */
	if (cfs_vnode_kind(root) != CFS_VNODE_SOURCE)
		return 0;
	r = cfs_ns_walk(context->ns, path, &st);
	if (r < 0)
		return cfs_fail(err, r, "%s: %s", path, strerror(-r));
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->context = context;
	d->reply = reply;
	d->result = result;
	d->root = root;
	d->skip = skip;
	d->skip_arg = skip_arg;
	r = cfs_nstree_walk(context->ns, st.st_ino, path, on_object, d);
	forget_files(d);
	free(d);
	committed = cfs_store_commit(cfs_ns_store(context->ns));
	return r < 0 ? r : committed;
}
