/*
 * Files made of pieces of others: many references, and the few bytes between
 * them, under one lock.
 *
 * All literal bytes of a call share chunks: they are packed into blobs of their
 * own, and the pieces refer to parts of those.
 */
#include "store/ns/ns_internal.h"

#include <assert.h>
#include <errno.h>

#include "store/util/checked.h"

struct cfs_ns_content {
	struct cfs_ns *ns;
	struct cfs_pin pin;
	uint64_t size;
	/* Of its pieces: gc was told of one more reference.  Relaxed: told
	 * twice is told.  Once is enough while it is pinned: a later gc sees
	 * the pin. */
	atomic_bool *told;
};

int cfs_ns_content_open(struct cfs_ns *ns, uint64_t ino,
			struct cfs_ns_content **content_out,
			struct stat *st_out)
{
	_cleanup_(cfs_freep) struct cfs_ns_content *c = calloc(1, sizeof(*c));
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	struct stat st;
	int r = c ? cfs_ino_get(ns, ino, &i) : -ENOMEM;

	if (r == 0 && !S_ISREG(i->type))
		r = -EINVAL;
	if (r == 0)
		r = cfs_ino_pin(i, &c->pin, &st);
	if (r < 0)
		return r;
	assert(c->pin.pieces);
	c->told = calloc(c->pin.pieces->n + 1, sizeof(*c->told));
	if (!c->told) {
		cfs_ino_unpin(ns, &c->pin);
		return -ENOMEM;
	}
	c->ns = ns;
	c->size = (uint64_t)st.st_size;
	if (st_out)
		*st_out = st;
	*content_out = cfs_steal(c);
	return 0;
}

void cfs_ns_content_close(struct cfs_ns_content *content)
{
	if (!content)
		return;
	cfs_ino_unpin(content->ns, &content->pin);
	free(content->told);
	free(content);
}

void cfs_ns_content_closep(struct cfs_ns_content **content)
{
	cfs_ns_content_close(*content);
}

struct compose {
	struct cfs_ino *ino;
	struct cfs_pieces *pieces; /* what comes, ascending as the parts */
	struct cfs_blob *blob;	   /* literal bytes gather here */
	uint64_t room;		   /* reserved, not yet a blob's */
	uint64_t literal;	   /* bytes of that kind still to come */
	uint64_t end;
	bool collects; /* gc is under way */
};

static void compose_fini(struct compose *c)
{
	cfs_pieces_unref(c->pieces);
	cfs_blob_unref(c->blob);
	if (c->room)
		cfs_store_unreserve(c->ino->ns->store, c->room);
}

/* Behind the last, and one with it where it goes on. */
static int push(struct compose *c, const struct cfs_piece *e)
{
	struct cfs_pieces *p = c->pieces;
	struct cfs_piece *last = p->n ? &p->v[p->n - 1] : NULL;

	if (last && last->off + last->len == e->off && last->blob == e->blob &&
	    last->chunk_off + last->len == e->chunk_off &&
	    (e->blob || !cfs_digest_cmp(&last->digest, &e->digest))) {
		last->len += e->len;
		return 0;
	}
	return cfs_pieces_push(p, e);
}

/* gc under way keeps what is referred to once more. */
static int tell(const struct cfs_ns_content *content, size_t i)
{
	const struct cfs_piece *e = &content->pin.pieces->v[i];
	struct cfs_digest digest = e->digest;
	int r;

	if (atomic_load_explicit(&content->told[i], memory_order_relaxed))
		return 0;
	if (e->blob && !cfs_blob_poll(e->blob, &digest))
		return 0; /* on its way: ingest tells gc */
	r = cfs_store_touch_chunk(content->ns->store, &digest);
	if (r == 0)
		atomic_store_explicit(&content->told[i], true,
				      memory_order_relaxed);
	return r;
}

static int refer(struct compose *c, const struct cfs_ns_part *part)
{
	const struct cfs_pieces *all = part->content->pin.pieces;
	uint64_t off = part->content_off, end;
	int r = 0;

	if (!cfs_add_u64(off, part->len, &end) || end > part->content->size)
		return -EIO;
	for (size_t i = cfs_pieces_find(all, off);
	     r == 0 && i < all->n && all->v[i].off < end; i++) {
		struct cfs_piece e = all->v[i];
		uint64_t from = CFS_MAX(e.off, off);

		e.len = CFS_MIN(e.off + e.len, end) - from;
		e.chunk_off += (uint32_t)(from - e.off);
		e.off = part->off + (from - off);
		r = c->collects ? tell(part->content, i) : 0;
		if (r == 0)
			r = push(c, &e);
	}
	return r;
}

static int send_blob(struct compose *c)
{
	int r = c->blob ? cfs_blob_send(c->blob, 0) : 0;

	cfs_blob_unref(cfs_steal(c->blob));
	return r;
}

static int put(struct compose *c, const struct cfs_ns_part *part)
{
	const uint8_t *data = part->data;
	uint64_t done = 0;
	int r = 0;

	while (r == 0 && done < part->len) {
		size_t had = c->blob ? cfs_blob_len(c->blob) : 0, n;
		struct cfs_piece e = {.off = part->off + done};

		if (!c->blob) {
			n = (size_t)CFS_MIN(c->literal,
					    (uint64_t)CFS_CHUNK_BYTES);
			c->blob = cfs_blob_new(c->ino->ns->store, n, 0);
			if (!c->blob)
				return -ENOMEM;
		}
		n = (size_t)CFS_MIN(part->len - done,
				    (uint64_t)(CFS_CHUNK_BYTES - had));
		cfs_blob_append(c->blob, data + done, n, &c->room);
		c->literal -= n;
		e.len = n;
		e.blob = c->blob;
		e.chunk_off = (uint32_t)had;
		r = push(c, &e);
		done += n;
		if (r == 0 && had + n == CFS_CHUNK_BYTES)
			r = send_blob(c);
	}
	return r;
}

/* Nothing of the file is touched yet. */
static int collect(struct compose *c, const struct cfs_ns_part *parts, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t end;

		if (!cfs_add_u64(parts[i].off, parts[i].len, &end) ||
		    end > CFS_FILE_BYTES_MAX)
			return -EFBIG;
		c->end = CFS_MAX(c->end, end);
		if (!parts[i].content)
			c->literal += parts[i].len;
	}
	if (c->literal)
		r = cfs_store_reserve(c->ino->ns->store, c->literal, false);
	if (r < 0)
		return r;
	c->room = c->literal;
	c->collects = cfs_store_collects(c->ino->ns->store);
	for (size_t i = 0; i < n && r == 0; i++)
		r = parts[i].content ? refer(c, &parts[i]) : put(c, &parts[i]);
	return r < 0 ? r : send_blob(c);
}

/* Inside, lock held. */
static int paste(struct compose *c, uint64_t from)
{
	struct cfs_ino *ino = c->ino;
	uint64_t lo;
	int r;

	if (from < ino->cur.size)
		return -EINVAL;
	r = cfs_pieces_own(&ino->cur.pieces, c->pieces->n + 2);
	if (r < 0)
		return r;
	lo = cfs_pieces_lo(ino->cur.pieces, ino->cur.size);
	for (size_t i = 0; i < c->pieces->n; i++)
		cfs_pieces_splice(ino->cur.pieces, &c->pieces->v[i]);
	ino->cur.size = CFS_MAX(ino->cur.size, c->end);
	cfs_ino_changed(ino, lo);
	return 0;
}

int cfs_ns_compose(struct cfs_ns_file *file, const struct cfs_ns_part *parts,
		   size_t n)
{
	struct cfs_ino *ino = file->ino;
	struct cfs_store *store = ino->ns->store;
	_cleanup_(compose_fini) struct compose c = {.ino = ino};
	uint64_t from = UINT64_MAX;
	int r = cfs_ns_room(ino->ns);

	c.pieces = cfs_pieces_new();
	if (r == 0 && !c.pieces)
		r = -ENOMEM;
	if (r == 0)
		r = collect(&c, parts, n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		from = CFS_MIN(from, parts[i].off);
	atomic_store_explicit(&file->wrote, true, memory_order_release);
	(void)pthread_mutex_lock(&ino->io);
	r = cfs_ino_load(ino);
	if (r == 0) {
		cfs_store_enter(store);
		(void)pthread_mutex_lock(&ino->lock);
		r = paste(&c, from);
		(void)pthread_mutex_unlock(&ino->lock);
		cfs_store_leave(store);
	}
	(void)pthread_mutex_unlock(&ino->io);
	return r;
}
