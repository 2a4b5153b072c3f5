/*
 * Stored chunks: the input as one, decoded frame by frame; then the input as
 * bytes to store, which must come back.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/util/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* -1 where it does not decode; else all bytes were compared with @want. */
static int decode(const uint8_t *data, size_t len, const uint8_t *want,
		  size_t want_len)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *h = NULL;
	static uint8_t frame[CFS_FRAME_BYTES];
	uint32_t i;

	if (cfs_chunk_head_parse(data, CFS_MIN(len, CFS_CHUNK_HEAD_MAX), len,
				 &h) < 0)
		return -1;
	if (h->raw_len > CFS_CHUNK_BYTES_MAX || h->stored_len != len)
		abort();
	for (i = 0; i < h->n_frames; i++) {
		uint32_t n = cfs_frame_raw_len(h, i);
		size_t off = (size_t)i * CFS_FRAME_BYTES;

		if (cfs_frame_decode(h, i, data + h->frames[i].off, frame) < 0)
			return -1;
		if (cfs_frame_check(h, i, frame) < 0)
			abort();
		if (want &&
		    (off + n > want_len || memcmp(frame, want + off, n) != 0))
			abort();
	}
	return 0;
}

static void store_and_load(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_encoder_freep) struct cfs_encoder *e = cfs_encoder_new();
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;

	if (!e || len < 2 || len - 1 > CFS_CHUNK_BYTES_MAX)
		return;
	if (cfs_chunk_encode(e, data + 1, len - 1, data[0] & 15, &out) < 0 ||
	    out.len > cfs_chunk_bound(len - 1) ||
	    decode(out.data, out.len, data + 1, len - 1) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	(void)decode(data, len, NULL, 0);
	store_and_load(data, len);
	return 0;
}
