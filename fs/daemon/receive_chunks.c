/*
 * Bytes of a tree that comes in: from the stream, from a file of the tree that
 * used the same chunk before, or from the store.
 *
 * What is written is cut into chunks anew, by the store's own rules, so a
 * chunk that came may not be one of this store's; that is why the place where
 * it was written is remembered.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/daemon/receive.h"
#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

void cfs_receive_batch_free(struct cfs_receive_batch *batch)
{
	unsigned i;

	if (!batch)
		return;
	for (i = 0; i < batch->n; i++)
		cfs_buf_free(&batch->chunks[i]);
	free(batch);
}

static bool is_whole(const struct cfs_extent *e)
{
	return !e->chunk_off && e->len == e->chunk_len;
}

/* 1: it is here, or will be when it is needed. */
static int is_here(struct cfs_receive_tree *t, const struct cfs_extent *e,
		   bool ask)
{
	struct cfs_store *store = cfs_ns_store(t->context->ns);
	int r;

	if (cfs_chunkset_get(&t->known, &e->digest))
		return 1;
	if (!ask)
		return 0;
	r = cfs_store_touch_chunk(store, &e->digest);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int cfs_receive_want(struct cfs_receive_tree *t,
		     struct cfs_receive_batch *batch, bool ask)
{
	struct cfs_chunkset_item *item;
	bool fresh;
	unsigned i;
	int r;

	batch->lacks = 0;
	for (i = 0; i < batch->n; i++) {
		const struct cfs_extent *e = &batch->extents[i];

		r = is_here(t, e, ask);
		if (r < 0)
			return r;
		batch->lacked[i] = !r;
		batch->lacks += !r;
		if (r || !is_whole(e))
			continue;
		/* later extents find it where this one was written */
		r = cfs_chunkset_put(&t->known, &e->digest, &item, &fresh);
		if (r < 0)
			return r;
	}
	return 0;
}

static int remember(struct cfs_receive_tree *t, const struct cfs_extent *e)
{
	struct cfs_chunkset_item *item =
		cfs_chunkset_get(&t->known, &e->digest);

	if (!item || item->owner || !is_whole(e))
		return 0;
	if (t->n_places == t->cap_places) {
		size_t cap = t->cap_places ? 2 * t->cap_places : 256;
		struct cfs_receive_place *places =
			reallocarray(t->places, cap, sizeof(*places));

		if (!places)
			return -ENOMEM;
		t->places = places;
		t->cap_places = cap;
	}
	t->places[t->n_places++] = (struct cfs_receive_place){t->ino, e->off};
	item->owner = (uint32_t)t->n_places;
	return 0;
}

static int read_place(struct cfs_receive_tree *t,
		      const struct cfs_receive_place *place,
		      const struct cfs_extent *e)
{
	struct cfs_ns_file *file;
	ssize_t n;
	int r;

	r = cfs_ns_open_file(t->context->ns, place->ino, O_RDONLY, &file);
	if (r < 0)
		return r;
	n = cfs_ns_pread(file, t->buffer, e->len, place->off + e->chunk_off);
	cfs_ns_close_file(file);
	return n < 0 ? (int)n : (uint64_t)n == e->len ? 0 : -EIO;
}

/* Bytes of a chunk that did not come with the batch, in ->buffer. */
static int read_here(struct cfs_receive_tree *t, const struct cfs_extent *e)
{
	const struct cfs_chunkset_item *item =
		cfs_chunkset_get(&t->known, &e->digest);

	if (item && item->owner)
		return read_place(t, &t->places[item->owner - 1], e);
	return cfs_store_read_chunk(cfs_ns_store(t->context->ns), &e->digest,
				    e->chunk_off, t->buffer, e->len);
}

static int write_extent(struct cfs_receive_tree *t, const struct cfs_extent *e,
			const struct cfs_buf *chunk)
{
	const void *data = t->buffer;
	ssize_t n;
	int r = 0;

	if (chunk)
		data = chunk->data + e->chunk_off;
	else
		r = read_here(t, e);
	if (r < 0)
		return cfs_fail_prefix(t->err, r, "%s: a chunk of this store",
				       t->node.path);
	n = cfs_ns_pwrite(t->file, data, e->len, e->off);
	if (n < 0)
		return cfs_fail_prefix(t->err, (int)n, "%s", t->node.path);
	t->bytes += e->len;
	t->end = e->off + e->len;
	return remember(t, e);
}

int cfs_receive_write(struct cfs_receive_tree *t,
		      struct cfs_receive_batch *batch)
{
	unsigned i;
	int r = 0;

	if (!t->buffer)
		t->buffer = malloc(CFS_CHUNK_BYTES_MAX);
	if (!t->buffer)
		return -ENOMEM;
	for (i = 0; !r && i < batch->n; i++) {
		const struct cfs_extent *e = &batch->extents[i];

		if (!t->file || e->off < t->end ||
		    e->off + e->len > (uint64_t)t->node.st.st_size)
			return cfs_fail(t->err, -EBADMSG,
					"the stream is damaged: bytes outside "
					"a file");
		r = write_extent(t, e,
				 batch->lacked[i] ? &batch->chunks[i] : NULL);
	}
	return r;
}
