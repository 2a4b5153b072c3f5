/* send in two halves: chunks and the talk about them, and what has names. */
#ifndef CFS_DAEMON_SEND_H
#define CFS_DAEMON_SEND_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/transfer.h"

struct cfs_ns;

struct cfs_send_batch {
	unsigned n;
	struct cfs_extent extents[CFS_TRANSFER_EXTENTS_MAX];
};

struct cfs_send {
	struct cfs_ns *ns;
	struct cfs_transfer_stream stream;
	struct cfs_encoder *encoder;
	struct cfs_buf scratch, raw;
	bool duplex;
	struct cfs_send_batch current;
	uint64_t current_bytes;
	/* a ring of what is not answered yet */
	struct cfs_send_batch *waiting;
	unsigned first, n_waiting;
	unsigned ahead; /* frames since then, which the receiver keeps */
	struct cfs_chunkset sent; /* whole chunks in a stream without answers */
	struct cfs_chunkset links; /* owner: 1 + index in paths */
	char **paths;
	size_t n_paths, cap_paths;
	uint64_t files, bytes, chunks_sent, chunks_known;
	struct cfs_error *err;
};
void cfs_send_fini(struct cfs_send *send); /* for _cleanup_ too */

/* A frame behind those that are not answered yet. */
CFS_MUST_CHECK int cfs_send_put(struct cfs_send *send,
				enum cfs_transfer_type type, const void *data,
				size_t len);
/* A cfs_ns_extents() callback: the extent is said, its chunk follows. */
int cfs_send_extent(void *arg, const struct cfs_extent *extent);
/* All extents so far are said: a node ends. */
CFS_MUST_CHECK int cfs_send_flush(struct cfs_send *send);
/* Waits for the answer to the oldest batch and sends what it asks for. */
CFS_MUST_CHECK int cfs_send_answer(struct cfs_send *send);
/* The receiver's next frame, which must be of type @want: 0, or why not
 * (-EPIPE: it is gone; its own refusal as the error). */
CFS_MUST_CHECK int cfs_send_expect(struct cfs_send *send, int want);

#endif
