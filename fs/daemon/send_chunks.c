/* Chunks on their way out: batches of extents, answers, what was asked for. */
#include "fs/daemon/send.h"

#include <errno.h>
#include <string.h>

#include "fs/daemon/verb.h"
#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

void cfs_send_fini(struct cfs_send *s)
{
	size_t i;

	for (i = 0; i < s->n_paths; i++)
		free(s->paths[i]);
	free(s->paths);
	free(s->waiting);
	cfs_chunkset_free(&s->sent);
	cfs_chunkset_free(&s->links);
	cfs_transfer_fini(&s->stream);
	cfs_encoder_free(s->encoder);
	cfs_buf_free(&s->scratch);
	cfs_buf_free(&s->raw);
}

static int send_chunk(struct cfs_send *s, const struct cfs_extent *e)
{
	uint8_t *data;
	int r;

	cfs_buf_reset(&s->raw);
	data = cfs_buf_grow(&s->raw, e->chunk_len);
	if (!data)
		return -ENOMEM;
	r = cfs_store_read_chunk(cfs_ns_store(s->ns), &e->digest, 0, data,
				 e->chunk_len);
	if (r < 0)
		return cfs_fail_prefix(s->err, r, "reading a chunk");
	cfs_buf_reset(&s->scratch);
	r = cfs_transfer_put_chunk(&s->scratch, s->encoder, &e->digest, data,
				   e->chunk_len);
	if (r < 0)
		return r;
	s->chunks_sent++;
	return cfs_transfer_put(&s->stream, CFS_TRANSFER_CHUNK, s->scratch.data,
				s->scratch.len);
}

/* A chunk is known to a reader of the stream once an extent used all of it. */
static int send_unsent(struct cfs_send *s, const struct cfs_send_batch *b)
{
	unsigned i;

	for (i = 0; i < b->n; i++) {
		const struct cfs_extent *e = &b->extents[i];
		struct cfs_chunkset_item *item;
		bool fresh = true;
		int r;

		if (cfs_chunkset_get(&s->sent, &e->digest)) {
			s->chunks_known++;
			continue;
		}
		r = send_chunk(s, e);
		if (!r && e->len == e->chunk_len)
			r = cfs_chunkset_put(&s->sent, &e->digest, &item,
					     &fresh);
		if (r < 0)
			return r;
	}
	return 0;
}

int cfs_send_put(struct cfs_send *s, enum cfs_transfer_type type,
		 const void *data, size_t len)
{
	s->ahead += s->n_waiting > 0;
	return cfs_transfer_put(&s->stream, type, data, len);
}

/* The frame at hand is a refusal: its text, as the error. */
static int refused(struct cfs_send *s)
{
	return cfs_fail(s->err, -EREMOTEIO, "the receiver: %.400s",
			cfs_buf_str(&s->stream.frame));
}

int cfs_send_expect(struct cfs_send *s, int want)
{
	int r = cfs_transfer_get(&s->stream);

	if (r == CFS_TRANSFER_REFUSED)
		return refused(s);
	if (r == -EPIPE)
		return cfs_fail(s->err, r, "the receiver ended early");
	if (r < 0)
		return r;
	return r == want ? 0
			 : cfs_fail(s->err, -EBADMSG,
				    "the receiver's answer is none");
}

int cfs_send_answer(struct cfs_send *s)
{
	const struct cfs_send_batch *b = &s->waiting[s->first];
	uint8_t bits[CFS_TRANSFER_EXTENTS_MAX / 8];
	unsigned i;
	int r;

	r = cfs_transfer_flush(&s->stream);
	if (!r || r == -EPIPE) /* why it went may be said */
		r = cfs_send_expect(s, CFS_TRANSFER_LACKS);
	if (r < 0)
		return r;
	if (s->stream.frame.len != (b->n + 7) / 8)
		return cfs_fail(s->err, -EBADMSG,
				"the receiver's answer is none");
	memcpy(bits, s->stream.frame.data, s->stream.frame.len);
	for (i = 0; i < b->n; i++) {
		if (!(bits[i / 8] >> (i % 8) & 1)) {
			s->chunks_known++;
			continue;
		}
		r = send_chunk(s, &b->extents[i]);
		if (r < 0)
			return r;
	}
	s->first = (s->first + 1) % CFS_TRANSFER_WAITING_MAX;
	s->n_waiting--;
	if (!s->n_waiting)
		s->ahead = 0;
	return 0;
}

int cfs_send_flush(struct cfs_send *s)
{
	struct cfs_send_batch *b = &s->current;
	unsigned i;
	int r;

	if (!b->n)
		return 0;
	cfs_buf_reset(&s->scratch);
	for (i = 0; i < b->n; i++)
		cfs_transfer_put_extent(&s->scratch, &b->extents[i]);
	if (s->scratch.failed)
		return -ENOMEM;
	r = cfs_transfer_put(&s->stream, CFS_TRANSFER_EXTENTS, s->scratch.data,
			     s->scratch.len);
	if (!r && !s->duplex) {
		r = send_unsent(s, b);
	} else if (!r) {
		s->waiting[(s->first + s->n_waiting) %
			   CFS_TRANSFER_WAITING_MAX] = *b;
		s->n_waiting++;
		if (s->n_waiting == CFS_TRANSFER_WAITING_MAX)
			r = cfs_send_answer(s);
	}
	b->n = 0;
	s->current_bytes = 0;
	return r;
}

int cfs_send_extent(void *arg, const struct cfs_extent *e)
{
	struct cfs_send *s = arg;
	int r = 0;

	if (s->current.n == CFS_TRANSFER_EXTENTS_MAX ||
	    (s->current.n &&
	     s->current_bytes + e->chunk_len > CFS_TRANSFER_BATCH_BYTES))
		r = cfs_send_flush(s);
	if (r < 0)
		return r;
	s->current.extents[s->current.n++] = *e;
	s->current_bytes += e->chunk_len;
	s->stream.done += e->len;
	return 0;
}
