/*
 * The content of a file as sorted pieces, and the blobs that pieces are made of
 * until their digest is known.
 */
#ifndef CFS_NS_CONTENT_H
#define CFS_NS_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"
#include "store/util/digest.h"

struct cfs_blob;
struct cfs_store;

/* @len bytes of the file at @off are those at @chunk_off of a chunk. */
struct cfs_piece {
	uint64_t off, len;
	struct cfs_blob *blob;	  /* NULL: @digest says which chunk */
	struct cfs_digest digest; /* and then @chunk_len its length */
	uint32_t chunk_off, chunk_len;
};

/*
 * Ascending, without overlap, nothing empty; neighbours that could be one are
 * one.  What none covers is zeros.  Counted: own() before a change makes a copy
 * of what somebody else holds, too.
 */
struct cfs_pieces {
	_Atomic unsigned refs;
	size_t n, cap;
	struct cfs_piece *v;
};
struct cfs_pieces *cfs_pieces_new(void); /* NULL: no memory */
struct cfs_pieces *cfs_pieces_ref(struct cfs_pieces *pieces);
void cfs_pieces_unref(struct cfs_pieces *pieces);
void cfs_pieces_unrefp(struct cfs_pieces **pieces);
/* *@pieces is the caller's alone and has room for @more pieces. */
CFS_MUST_CHECK int cfs_pieces_own(struct cfs_pieces **pieces, size_t more);
/* The first piece that ends behind @off; n: none. */
size_t cfs_pieces_find(const struct cfs_pieces *pieces, uint64_t off);
/* Where a change at @off begins to be seen in the pieces: a piece that holds
 * @off or ends at it may become another. */
uint64_t cfs_pieces_lo(const struct cfs_pieces *pieces, uint64_t off);
uint64_t cfs_pieces_end(const struct cfs_pieces *pieces);
uint64_t cfs_pieces_bytes(const struct cfs_pieces *pieces);
/* Nothing is in [@off, +@len) any more.  Owned, room for one. */
void cfs_pieces_punch(struct cfs_pieces *pieces, uint64_t off, uint64_t len);
/* @piece takes the place of what was there; its blob gets a reference.  Owned,
 * room for two. */
void cfs_pieces_splice(struct cfs_pieces *pieces,
		       const struct cfs_piece *piece);
/* Behind all others; not merged.  -ENOMEM. */
CFS_MUST_CHECK int cfs_pieces_push(struct cfs_pieces *pieces,
				   const struct cfs_piece *piece);
/* Splits the piece that @off lies within, so that one begins there; nothing is
 * merged.  Owned, room for one. */
void cfs_pieces_split(struct cfs_pieces *pieces, uint64_t off);
/* Invariants; for tests and asserts. */
bool cfs_pieces_check(const struct cfs_pieces *pieces);

/* ---- blobs ---- */

enum cfs_blob_state {
	CFS_BLOB_BUF,	 /* in memory only */
	CFS_BLOB_GOING,	 /* being handed to ingest */
	CFS_BLOB_SENT,	 /* pending */
	CFS_BLOB_STORED, /* known by digest */
};

/* In memory, empty, room for @cap bytes.  NULL: no memory. */
struct cfs_blob *cfs_blob_new(struct cfs_store *store, size_t cap,
			      uint64_t epoch);
struct cfs_blob *cfs_blob_ref(struct cfs_blob *blob);
void cfs_blob_unref(struct cfs_blob *blob);
void cfs_blob_unrefp(struct cfs_blob **blob);
uint64_t cfs_blob_epoch(const struct cfs_blob *blob);
enum cfs_blob_state cfs_blob_state(struct cfs_blob *blob);
size_t cfs_blob_len(struct cfs_blob *blob);
/* Still grows: send() leaves it alone. */
void cfs_blob_set_tail(struct cfs_blob *blob, bool tail);
bool cfs_blob_is_tail(struct cfs_blob *blob);
/* Room for @more bytes.  -ENOMEM.  In memory only, as the next three. */
CFS_MUST_CHECK int cfs_blob_room(struct cfs_blob *blob, size_t more);
/* Within the room; *@room is the caller's reservation, which it takes over. */
void cfs_blob_append(struct cfs_blob *blob, const void *data, size_t len,
		     uint64_t *room);
void cfs_blob_write(struct cfs_blob *blob, size_t off, const void *data,
		    size_t len);
/* Nothing is appended soon: room beyond its bytes goes. */
void cfs_blob_trim(struct cfs_blob *blob);
/* Its first byte; stays until it is sent, trimmed or gets more room. */
const uint8_t *cfs_blob_data(const struct cfs_blob *blob);
/*
 * Bytes from @at on go to a new blob of room for @cap at least (NULL: none are
 * left; -ENOMEM: nothing happened).  @keep: the blob keeps them all the same
 * (someone may still look), only their reservation goes.
 */
CFS_MUST_CHECK int cfs_blob_split(struct cfs_blob *blob, size_t at, size_t cap,
				  uint64_t epoch, bool keep,
				  struct cfs_blob **rest_out);
/* A copy of [0, @len) of a blob in memory, and its reservation. */
CFS_MUST_CHECK int cfs_blob_take(struct cfs_blob *blob, size_t len,
				 uint64_t epoch, struct cfs_blob **copy_out);
/* A copy of any part, without reservation. */
CFS_MUST_CHECK int cfs_blob_copy(struct cfs_blob *blob, size_t off, size_t len,
				 uint64_t epoch, struct cfs_blob **copy_out);
/* -ESTALE: the blob has become shorter, look the pieces up again. */
CFS_MUST_CHECK int cfs_blob_read(struct cfs_blob *blob, size_t off, void *buf,
				 size_t len);
/* Hands it to ingest, which may block.  0 also when that was done before,
 * -EAGAIN: a tail; -ENOSPC, -EDQUOT, -ENOMEM: it keeps its bytes. */
CFS_MUST_CHECK int cfs_blob_send(struct cfs_blob *blob, unsigned elem_size);
/* Waits for the digest: -EAGAIN in memory only; why it is in no pack. */
CFS_MUST_CHECK int cfs_blob_digest(struct cfs_blob *blob,
				   struct cfs_digest *out);
/* 1 and the digest if it is there by now. */
int cfs_blob_poll(struct cfs_blob *blob, struct cfs_digest *out);

#endif
