/*
 * Frames over descriptors.  Waiting for the other side is cut into short
 * waits, so that a verb whose caller has gone, or whose daemon is to stop,
 * does.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#include "fs/daemon/transfer.h"
#include "fs/daemon/verb.h"
#include "store/util/digest.h"
#include "store/util/endian.h"

#define FLUSH_BYTES ((size_t)1 << 20)
#define READ_BYTES  ((size_t)256 << 10)
#define WAIT_MS	    200
#define HEAD_BYTES  16u
#define FRAME_HEAD  5u

void cfs_transfer_fini(struct cfs_transfer_stream *stream)
{
	cfs_buf_free(&stream->pending);
	cfs_buf_free(&stream->frame);
	cfs_digester_free(stream->sum);
	stream->sum = NULL;
	free(stream->read_data);
	stream->read_data = NULL;
}

static int wait_for(struct cfs_transfer_stream *s, int fd, short events)
{
	for (;;) {
		struct pollfd p = {.fd = fd, .events = events};
		int n = poll(&p, 1, WAIT_MS);

		if (!cfs_verb_progress(s->reply, s->done, s->total, s->what))
			return -ECANCELED;
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

int cfs_transfer_flush(struct cfs_transfer_stream *s)
{
	size_t off = 0;

	if (s->pending.failed)
		return -ENOMEM;
	while (off < s->pending.len) {
		ssize_t n;
		int r = wait_for(s, s->out, POLLOUT);

		if (r < 0)
			return r;
		/* so much a pipe that polls writable takes without blocking */
		n = write(s->out, s->pending.data + off,
			  CFS_MIN(s->pending.len - off, (size_t)PIPE_BUF));
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		off += n > 0 ? (size_t)n : 0;
	}
	s->sent += s->pending.len;
	cfs_buf_reset(&s->pending);
	return 0;
}

/* Chunks have digests of their own. */
static void sum_frame(struct cfs_transfer_stream *s, bool out, const void *head,
		      const void *data, size_t len)
{
	int type = *(const uint8_t *)head;

	if (!s->sum || s->sum_out != out || type == CFS_TRANSFER_CHUNK ||
	    type == CFS_TRANSFER_END)
		return;
	cfs_digester_add(s->sum, head, FRAME_HEAD);
	cfs_digester_add(s->sum, data, len);
}

int cfs_transfer_put(struct cfs_transfer_stream *s, enum cfs_transfer_type type,
		     const void *data, size_t len)
{
	uint8_t head[FRAME_HEAD] = {(uint8_t)type};

	if (s->out < 0)
		return 0; /* nobody listens */
	cfs_put_le32(head + 1, (uint32_t)len);
	sum_frame(s, true, head, data, len);
	cfs_buf_put(&s->pending, head, sizeof(head));
	cfs_buf_put(&s->pending, data, len);
	if (s->pending.failed)
		return -ENOMEM;
	return s->pending.len < FLUSH_BYTES ? 0 : cfs_transfer_flush(s);
}

static int refill(struct cfs_transfer_stream *s)
{
	ssize_t n;
	int r;

	if (!s->read_data)
		s->read_data = malloc(READ_BYTES);
	if (!s->read_data)
		return -ENOMEM;
	do {
		r = wait_for(s, s->in, POLLIN);
		if (r < 0)
			return r;
		n = read(s->in, s->read_data, READ_BYTES);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n <= 0)
		return n ? -errno : -EPIPE;
	s->received += (uint64_t)n;
	s->read_at = 0;
	s->read_end = (size_t)n;
	return 0;
}

static int get_bytes(struct cfs_transfer_stream *s, void *out, size_t len)
{
	uint8_t *to = out;

	while (len) {
		size_t n = CFS_MIN(len, s->read_end - s->read_at);
		int r = n ? 0 : refill(s);

		if (r < 0)
			return r;
		if (!n)
			continue;
		memcpy(to, s->read_data + s->read_at, n);
		s->read_at += n;
		to += n;
		len -= n;
	}
	return 0;
}

int cfs_transfer_get(struct cfs_transfer_stream *s)
{
	uint8_t head[FRAME_HEAD], *to;
	uint32_t len;
	int r;

	r = get_bytes(s, head, sizeof(head));
	if (r < 0)
		return r;
	len = cfs_get_le32(head + 1);
	if (len > CFS_TRANSFER_FRAME_MAX)
		return -EBADMSG;
	cfs_buf_reset(&s->frame);
	if (len) {
		to = cfs_buf_grow(&s->frame, len);
		if (!to)
			return -ENOMEM;
		r = get_bytes(s, to, len);
	}
	if (r < 0)
		return r;
	sum_frame(s, false, head, s->frame.data, len);
	return head[0];
}

int cfs_transfer_put_head(struct cfs_transfer_stream *s, uint32_t flags)
{
	cfs_buf_put(&s->pending, CFS_TRANSFER_MAGIC, 8);
	cfs_buf_put_le32(&s->pending, CFS_TRANSFER_VERSION);
	cfs_buf_put_le32(&s->pending, flags);
	return cfs_transfer_flush(s);
}

int cfs_transfer_get_head(struct cfs_transfer_stream *s, uint32_t *flags_out)
{
	uint8_t head[HEAD_BYTES];
	int r;

	r = get_bytes(s, head, sizeof(head));
	if (r < 0)
		return r == -EPIPE ? -EBADMSG : r;
	if (memcmp(head, CFS_TRANSFER_MAGIC, 8) != 0)
		return -EBADMSG;
	*flags_out = cfs_get_le32(head + 12);
	if (cfs_get_le32(head + 8) != CFS_TRANSFER_VERSION ||
	    *flags_out & ~CFS_TRANSFER_DUPLEX)
		return -EPROTONOSUPPORT;
	return 0;
}
