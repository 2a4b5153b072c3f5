/*
 * The log: checksummed records in a chain of packs (store/FORMAT.md, "Packs").
 * It knows records, not what is in them; groups are core's.
 */
#ifndef CFS_PACK_PACKS_H
#define CFS_PACK_PACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "store/pack/engine.h"
#include "store/util/base.h"
#include "store/util/digest.h"

struct cfs_buf;
struct cfs_error;
struct cfs_packs;

enum cfs_record_type {
	CFS_RECORD_PACK = 1,   /* first of each pack */
	CFS_RECORD_CHUNK = 2,  /* a stored chunk */
	CFS_RECORD_MAP = 3,    /* a content map */
	CFS_RECORD_BATCH = 4,  /* part of a group */
	CFS_RECORD_GROUP = 5,  /* closes a group */
	CFS_RECORD_SYNCED = 6, /* groups so far are known to be durable */
	CFS_RECORD_FOOTER = 7, /* the pack's table; last of a sealed pack */
};

#define CFS_RECORD_MUST_KNOW  0x80u /* flag: refuse if you do not know it */
#define CFS_RECORD_HEAD_BYTES 72u
#define CFS_RECORD_MAX	      (8u << 20) /* payload */
#define CFS_PACK_BYTES	      (64u << 20)

struct cfs_record {
	enum cfs_record_type type;
	uint8_t flags;
	uint16_t lane;
	uint64_t number; /* in the lane, from 1 */
	uint32_t payload_len;
	uint32_t raw_len;	  /* chunk: uncompressed bytes; else 0 */
	struct cfs_digest digest; /* chunk, map; else zeros */
	uint64_t payload_hash;
};
/* Pure: the 72 bytes.  @seed: the first 8 bytes of the store's uuid as a
 * little-endian number (PACK: not used), so that what was copied from another
 * store is not taken for ours.  decode: -EBADMSG, -EPROTONOSUPPORT (unknown
 * type that is marked as one a reader must know). */
void cfs_record_encode(const struct cfs_record *record, uint64_t seed,
		       uint8_t out[CFS_RECORD_HEAD_BYTES]);
CFS_MUST_CHECK int cfs_record_decode(const void *data, size_t len,
				     uint64_t seed, struct cfs_record *out);

struct cfs_place { /* of a record's payload */
	struct cfs_pack_id pack;
	uint32_t off, len;
};
/* Before a record: where scanning can begin. */
struct cfs_position {
	uint32_t pack, off; /* pack 0: nowhere */
};

struct cfs_packs_options {
	uint8_t uuid[16];    /* of the store; a pack of another is -EBADMSG */
	uint32_t pack_bytes; /* 0: CFS_PACK_BYTES (tests: at least 64 KiB) */
	/* kept free for deletions and gc; 0: a pack and 8 MiB */
	uint32_t reserve_bytes;
	/*
	 * The log is damaged: heads that do not hold end no chain, missing
	 * packs and records that do not hold are passed over by scans, and
	 * whatever is an object counts.
	 */
	bool salvage;
};

/*
 * Looks at what is there (newest pack, chain) without reading it all.
 * @engine is borrowed.  -EBADMSG, -EPROTONOSUPPORT with @err, -EIO, -ENOMEM.
 */
CFS_MUST_CHECK int cfs_packs_open(struct cfs_engine *engine,
				  const struct cfs_packs_options *options,
				  struct cfs_packs **packs_out,
				  struct cfs_error *err);
/* Seals the open pack if there is one. */
void cfs_packs_close(struct cfs_packs *packs);
void cfs_packs_closep(struct cfs_packs **packs);
struct cfs_engine *cfs_packs_engine(const struct cfs_packs *packs);

/* ---- scanning, before appending starts ---- */

/* The newest snapshot that the newest pack's head names; pack 0: none. */
struct cfs_position cfs_packs_snapshot(const struct cfs_packs *packs);

/* @place: of the payload, @at: of the record.  Non-zero stops, is returned. */
typedef int cfs_record_fn(void *arg, const struct cfs_record *record,
			  struct cfs_place place, struct cfs_position at);
enum cfs_scan_why {
	CFS_SCAN_END,  /* the last record is whole, zeros or nothing behind */
	CFS_SCAN_TORN, /* what follows @at is no record */
};
struct cfs_scan_end {
	enum cfs_scan_why why;
	struct cfs_position at; /* behind the last whole record */
	/*
	 * The highest group that any SYNCED or GROUP record calls synced, also
	 * records behind @at and in younger packs that the chain does not hold;
	 * and where.  More than what replay yielded: not a crash but damage,
	 * at @at or at the start of the next pack.
	 */
	uint64_t synced;
	uint32_t synced_pack;
	/* salvage: places that were passed over, the first of them */
	uint64_t passed;
	struct cfs_position passed_first;
};
/*
 * Records along the chain from @from (pack 0: from the first pack there is).
 * Heads are checked, payloads are not (BATCH and GROUP: checked, a bad one is
 * the end).  A chain that is broken between @from and the newest pack is
 * -EBADMSG, the pack named in @err.
 */
CFS_MUST_CHECK int cfs_packs_scan(struct cfs_packs *packs,
				  struct cfs_position from, cfs_record_fn *fn,
				  void *arg, struct cfs_scan_end *end_out,
				  struct cfs_error *err);
/*
 * Every chunk and map record of every pack there is, in or out of the chain:
 * from footers, else by reading and verifying.  Stops at @end in its pack;
 * packs younger than that which the chain does not hold are skipped.
 */
CFS_MUST_CHECK int cfs_packs_scan_objects(struct cfs_packs *packs,
					  struct cfs_position end,
					  cfs_record_fn *fn, void *arg,
					  struct cfs_error *err);
/* Payload against its hash: 0, -EBADMSG, -EIO. */
CFS_MUST_CHECK int cfs_packs_verify(struct cfs_packs *packs,
				    const struct cfs_record *record,
				    struct cfs_place place);

/*
 * Every record's head of the log from the pack of the newest snapshot on, up to
 * what the last sync made durable, and the payloads of those that are not
 * objects.  @fn is told where one does not hold and why (-EBADMSG, -ENOENT: the
 * pack is missing, -EIO); behind a head that does not, the next pack follows.
 * @end: where the log ends if nothing was appended yet.  At any time; one
 * caller at a time.  0, -ENOMEM.
 */
typedef void cfs_log_damage_fn(void *arg, struct cfs_position at, int r);
CFS_MUST_CHECK int cfs_packs_check_log(struct cfs_packs *packs,
				       struct cfs_position end,
				       cfs_log_damage_fn *fn, void *arg);

/* ---- appending ---- */

/*
 * Nothing behind @end counts any more: begins a new pack whose head says so
 * and names @snapshot.  Younger packs than @end's are removed.  An empty store:
 * @end.pack 0.
 */
CFS_MUST_CHECK int cfs_packs_start(struct cfs_packs *packs,
				   struct cfs_position end,
				   struct cfs_position snapshot,
				   struct cfs_error *err);
/*
 * Salvage, after a scan: begins a pack that is a chain of its own, and whose
 * first record begins a snapshot, as its head says already.  Nothing is
 * removed: older packs hold objects only from now on.
 */
CFS_MUST_CHECK int cfs_packs_start_anew(struct cfs_packs *packs,
					struct cfs_position *at_out,
					struct cfs_error *err);
/* Later packs' heads name this snapshot. */
void cfs_packs_set_snapshot(struct cfs_packs *packs, struct cfs_position at);
/* The next record goes to a fresh pack (gc wants the one now open). */
CFS_MUST_CHECK int cfs_packs_roll(struct cfs_packs *packs);

/*
 * Sets room aside for records whose payloads take @bytes at most, so that
 * appending them cannot fail for want of space.  @urgent may use what is kept
 * for deletions.  0, -ENOSPC, -EDQUOT, -EIO, -ENOMEM.  Any thread.
 */
CFS_MUST_CHECK int cfs_packs_reserve(struct cfs_packs *packs, uint64_t bytes,
				     bool urgent);
void cfs_packs_unreserve(struct cfs_packs *packs, uint64_t bytes);
/*
 * Appends one record; lane, number and hash are filled in.  The room must have
 * been reserved (and stays the caller's to give back).  Any thread; concurrent
 * appends are written at the same time.  An error leaves a gap that scanning
 * never sees: the record's bytes are written again elsewhere by the packs
 * themselves or the pack is left behind.
 */
CFS_MUST_CHECK int cfs_packs_append(struct cfs_packs *packs,
				    enum cfs_record_type type, uint8_t flags,
				    const struct cfs_digest *digest,
				    uint32_t raw_len, const struct iovec *iov,
				    int n, struct cfs_place *place_out,
				    struct cfs_position *at_out);
/*
 * Told of each chunk and map record as it lies at @place, in the thread that
 * appends it and before append returns: whoever keeps places does it here, or
 * on_moved could come first.
 */
typedef void cfs_appended_fn(void *arg, const struct cfs_record *record,
			     struct cfs_place place);
void cfs_packs_on_appended(struct cfs_packs *packs, cfs_appended_fn *fn,
			   void *arg);
/*
 * Told of each record that had to be written again: it lies at @to now, which
 * is another copy where its bytes could not be read back, of pack number 0
 * when they are lost.  Called
 * from sync and from append of a BATCH or GROUP, in that thread.
 */
typedef void cfs_moved_fn(void *arg, const struct cfs_record *record,
			  struct cfs_place from, struct cfs_place to);
void cfs_packs_on_moved(struct cfs_packs *packs, cfs_moved_fn *fn, void *arg);
/*
 * Everything appended before the call is durable.  After a failure (-EIO,
 * -ENOSPC, -EDQUOT) what was appended since the last success is in doubt; the
 * next call first writes those chunk and map records again into a new pack,
 * whose head leaves BATCH and GROUP records of that time behind (the caller
 * appends them again), and tells on_moved.  One caller at a time.  An append of
 * BATCH or GROUP that fails does the same, and so does a chunk's while a group
 * is being appended: then the GROUP's append or the sync fails.
 */
CFS_MUST_CHECK int cfs_packs_sync(struct cfs_packs *packs);
/* Bytes appended and not yet synced; 0: sync would do nothing. */
uint64_t cfs_packs_unsynced(struct cfs_packs *packs);
/* The end of the log as of the last append. */
struct cfs_position cfs_packs_end(struct cfs_packs *packs);

/* ---- reading and removing ---- */

/* Exactly @len bytes at @off of the payload: 0, -ENOENT (the pack is gone: look
 * the place up again), -EIO.  Any thread; what was appended is readable at
 * once. */
CFS_MUST_CHECK int cfs_packs_read(struct cfs_packs *packs,
				  struct cfs_place place, uint32_t off,
				  void *buf, size_t len);
/* The record that has this payload. */
CFS_MUST_CHECK int cfs_packs_record(struct cfs_packs *packs,
				    struct cfs_place place,
				    struct cfs_record *record_out);
/* Chunk and map records of one pack, footer first, else by reading. */
CFS_MUST_CHECK int cfs_packs_objects(struct cfs_packs *packs,
				     struct cfs_pack_id id, cfs_record_fn *fn,
				     void *arg, struct cfs_error *err);
/* Packs there are, the open one included. */
CFS_MUST_CHECK int cfs_packs_list(struct cfs_packs *packs, cfs_pack_fn *fn,
				  void *arg);
/* Never the open pack.  The caller knows that nothing in it is needed: the
 * chain from the newest durable snapshot does not begin before it ends. */
CFS_MUST_CHECK int cfs_packs_remove(struct cfs_packs *packs,
				    struct cfs_pack_id id);
/* Of the filesystem, with unused room counted as free. */
CFS_MUST_CHECK int cfs_packs_statfs(struct cfs_packs *packs,
				    struct statvfs *out);

#endif
