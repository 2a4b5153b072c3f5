/*
 * What send and receive say to each other.
 *
 * The sender begins with CFS_TRANSFER_MAGIC, version and flags (16 bytes), then
 * both sides talk in frames: type (1 byte), length (4, little endian), payload.
 *
 *   sender                          receiver
 *   node a/b, its xattrs
 *   extents of it (digests)   ──▶   which of these chunks do you lack?
 *                             ◀──   bits
 *   chunks                    ──▶   digest checked, written
 *   end of node               ──▶   size, owner, mode, times
 *   pins                      ──▶
 *   end                       ──▶   all of it appears at once
 *                             ◀──   done
 *
 * The sender does not wait for an answer before it goes on; a stream into a
 * file (no CFS_TRANSFER_DUPLEX) has no answers, and holds every chunk once.
 */
#ifndef CFS_DAEMON_TRANSFER_H
#define CFS_DAEMON_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "store/index/keys.h"
#include "store/util/base.h"
#include "store/util/buf.h"

struct cfs_digester;
struct cfs_encoder;
struct cfs_error;
struct cfs_verb_reply;

#define CFS_TRANSFER_MAGIC	 "CKPTFSnd"
#define CFS_TRANSFER_VERSION	 1u
#define CFS_TRANSFER_DUPLEX	 1u
#define CFS_TRANSFER_FRAME_MAX	 (5u << 20)
#define CFS_TRANSFER_EXTENTS_MAX 64u
#define CFS_TRANSFER_BATCH_BYTES (32u << 20) /* of chunks, or one extent */
#define CFS_TRANSFER_WAITING_MAX 32u	     /* batches not yet answered */

enum cfs_transfer_type {
	CFS_TRANSFER_NODE = 'N',
	CFS_TRANSFER_LINK = 'L',    /* another name of a file sent before */
	CFS_TRANSFER_XATTR = 'A',   /* of the node */
	CFS_TRANSFER_DATA = 'D',    /* bytes of a small file */
	CFS_TRANSFER_EXTENTS = 'E', /* of the node */
	CFS_TRANSFER_CHUNK = 'C',
	CFS_TRANSFER_NODE_END = 'F',
	CFS_TRANSFER_PIN = 'P', /* a path below the top that is pinned */
	CFS_TRANSFER_END = 'X', /* SHA-256 of all frames but chunks before it */
	/* from the receiver */
	CFS_TRANSFER_LACKS = 'B', /* a bit an extent, the first the lowest */
	CFS_TRANSFER_DONE = 'K',
	CFS_TRANSFER_REFUSED = 'R', /* why, as text */
};

/* ---- frames: pure; decoders trust nothing: -EBADMSG ---- */

struct cfs_transfer_node {
	struct stat st;	   /* mode, uid, gid, rdev, size, times */
	char path[4096];   /* below the top, "" the top itself */
	char target[4096]; /* of a symbolic link, or of LINK */
};
void cfs_transfer_put_node(struct cfs_buf *out, const struct stat *st,
			   const char *path, const char *target);
CFS_MUST_CHECK int cfs_transfer_get_node(const void *data, size_t len,
					 struct cfs_transfer_node *out);
void cfs_transfer_put_extent(struct cfs_buf *out,
			     const struct cfs_extent *extent);
/* How many it holds; @out has room for CFS_TRANSFER_EXTENTS_MAX. */
CFS_MUST_CHECK int cfs_transfer_get_extents(const void *data, size_t len,
					    struct cfs_extent *out);
/* The chunk as it is stored, or raw. */
CFS_MUST_CHECK int cfs_transfer_put_chunk(struct cfs_buf *out,
					  struct cfs_encoder *encoder,
					  const struct cfs_digest *digest,
					  const void *data, size_t len);
/* Decodes and compares the digest. */
CFS_MUST_CHECK int cfs_transfer_get_chunk(const void *data, size_t len,
					  struct cfs_digest *digest_out,
					  struct cfs_buf *out);

/* ---- the stream ---- */

struct cfs_transfer_stream {
	int in, out; /* -1: none */
	const struct cfs_verb_reply *reply;
	struct cfs_buf pending; /* to be written */
	struct cfs_buf frame;	/* the last one read */
	uint8_t *read_data;
	size_t read_at, read_end;
	uint64_t sent, received; /* bytes */
	uint64_t done, total;	 /* told as progress */
	const char *what;
	struct cfs_digester *sum; /* of what the sender sent, or NULL */
	bool sum_out;		  /* the sender is this side */
};
void cfs_transfer_fini(struct cfs_transfer_stream *stream);
CFS_MUST_CHECK int cfs_transfer_flush(struct cfs_transfer_stream *stream);
/* Kept back until there is much, or a flush.  -EPIPE: nobody reads. */
CFS_MUST_CHECK int cfs_transfer_put(struct cfs_transfer_stream *stream,
				    enum cfs_transfer_type type,
				    const void *data, size_t len);
/* The type of the next frame, its payload in ->frame; -EPIPE at the end,
 * -EBADMSG, -ECANCELED. */
CFS_MUST_CHECK int cfs_transfer_get(struct cfs_transfer_stream *stream);
CFS_MUST_CHECK int cfs_transfer_put_head(struct cfs_transfer_stream *stream,
					 uint32_t flags);
/* -EBADMSG: no such stream; -EPROTONOSUPPORT: a newer one. */
CFS_MUST_CHECK int cfs_transfer_get_head(struct cfs_transfer_stream *stream,
					 uint32_t *flags_out);

#endif
