/*
 * An open store: chunks and maps by digest, a key-value namespace whose changes
 * become durable in groups, and the jobs over both.
 *
 *   ns ── put/get/del of logged keys ──▶ levels ──┐ group ┌──▶ packs (the log)
 *   ns ── ingest(bytes) ─▶ workers: digest, dedup,│encode │──▶ packs
 *                                                 └───────┴──▶ index
 */
#ifndef CFS_CORE_STORE_H
#define CFS_CORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "store/index/index.h"
#include "store/index/keys.h"
#include "store/util/base.h"
#include "store/util/digest.h"

struct cfs_engine;
struct cfs_error;
struct cfs_pending;
struct cfs_store;

/* ---- making and opening ---- */

struct cfs_store_config { /* STORE/ckptfs.json; edited while not mounted */
	uint8_t uuid[16];
	uint32_t version;		   /* format; CFS_STORE_VERSION */
	uint32_t sync_seconds;		   /* 5 */
	uint32_t frame_bytes, chunk_bytes; /* as FORMAT.md fixes them today */
	char **markers; /* names whose closing syncs; n_markers */
	size_t n_markers;
};
#define CFS_STORE_VERSION 1u

struct cfs_store_init_options {
	uint32_t sync_seconds;	    /* 0: 5 */
	const char *const *markers; /* NULL: the built-in list */
	size_t n_markers;
};
/* @path: a directory that is absent or empty.  -EEXIST with @err. */
CFS_MUST_CHECK int cfs_store_init(const char *path,
				  const struct cfs_store_init_options *options,
				  struct cfs_error *err);
/* Is there a store at @path?  From its ckptfs.json: 1, also where that is
 * damaged or of a newer version, or missing where there are packs (opening says
 * so); 0; or an error: -EACCES, nobody here may know. */
CFS_MUST_CHECK int cfs_store_probe(const char *path);

struct cfs_store_options {
	size_t cache_bytes;	/* decoded frames; 0: 256 MiB */
	size_t in_flight_bytes; /* ingested, not yet appended; 0: 64 MiB */
	unsigned workers;	/* 0: one per processor */
	bool no_sync_thread;	/* tests commit by hand */
	bool read_only;		/* the log stays as it is */
	/*
	 * For a store that refuses to open because its log is damaged: goes
	 * back to the newest state that can be had, and on from there; nothing
	 * is removed.  With read_only it is only looked at.
	 */
	bool salvage;
	uint32_t pack_bytes; /* 0: default (tests) */
	/* Long replays; or NULL.  @total 0: not known. */
	void (*progress)(void *arg, uint64_t done, uint64_t total,
			 const char *what);
	void *progress_arg;
};

/**
 * cfs_store_open - open for reading and writing, recovering what a crash left
 * @path: directory of the store
 *
 * One process at a time: -EBUSY (@err names the holder's pid and mount).
 * -EPROTONOSUPPORT: a newer store.  -EBADMSG: a group that was synced is
 * damaged (@err names the pack).  Needs no repair command after a crash: the
 * index catches up, or is rebuilt when it is missing, ahead or damaged.
 *
 * Where this process may not write (a read-only filesystem, somebody else's
 * files) it is opened read-only unasked, and nothing at all is written: the
 * index is made in memory, and the lock is shared with others who read.
 */
CFS_MUST_CHECK int cfs_store_open(const char *path,
				  const struct cfs_store_options *options,
				  struct cfs_store **store_out,
				  struct cfs_error *err);
/* The same over an engine and an index (tests; both are taken over). */
CFS_MUST_CHECK int
cfs_store_open_engine(struct cfs_engine *engine, struct cfs_index *index,
		      const struct cfs_store_options *options,
		      struct cfs_store **store_out, struct cfs_error *err);
/* Commits (its error is returned; the store is closed all the same). */
int cfs_store_close(struct cfs_store *store);
const struct cfs_store_config *cfs_store_config(const struct cfs_store *store);
const char *cfs_store_path(const struct cfs_store *store);
/* Reserving and appending are -EROFS, a commit does nothing: as asked for, or
 * as it must be. */
bool cfs_store_read_only(const struct cfs_store *store);
/* Read-only, and nothing beside the log may be written either. */
bool cfs_store_is_untouched(const struct cfs_store *store);
struct cfs_salvaged {	       /* what ->salvage led to */
	uint64_t group, known; /* what it is at; the youngest it has been at */
	uint64_t time_ns;      /* of that group; 0: not known */
	bool from_index;       /* the log has less */
	uint64_t passed;       /* places in the log that do not hold */
	uint32_t pack, off;    /* the first of them */
};
void cfs_store_salvaged(const struct cfs_store *store,
			struct cfs_salvaged *out);
/* What went lost and is told by scrub and fsck is known: told no more. */
CFS_MUST_CHECK int cfs_store_acknowledge(struct cfs_store *store);
/* The last process that had it open did not close it. */
bool cfs_store_was_unclean(const struct cfs_store *store);
/* For the one who finds the store in use: it is mounted at @dir (NULL:
 * nowhere); again after fork(), as this process's number is kept, too. */
CFS_MUST_CHECK int cfs_store_set_mount(struct cfs_store *store,
				       const char *dir);
/* Who had the store at @path open last, and where it was mounted ("": nowhere;
 * the caller frees it), dead or alive.  -ENOENT: nobody is known. */
CFS_MUST_CHECK int cfs_store_holder(const char *path, pid_t *pid_out,
				    char **mount_out);
/* Names of logged keys and values: change them only between enter and leave
 * (shared: any number of threads; a group is cut when nobody is inside). */
void cfs_store_enter(struct cfs_store *store);
void cfs_store_leave(struct cfs_store *store);
struct cfs_levels *cfs_store_levels(struct cfs_store *store);

/* ---- objects ---- */

/**
 * cfs_store_ingest - hand one chunk to the workers
 * @data: malloc()ed, 1 to CFS_CHUNK_BYTES_MAX bytes; taken over on success
 * @elem_size: for the codec; 0 unknown
 *
 * The room for it must have been reserved (cfs_store_reserve(@len)); it is
 * given back as the chunk turns out to be there already or smaller.  Blocks
 * while too much is in flight: call it without locks that a commit needs.
 * NULL: no memory.  A chunk that cannot be written keeps its bytes and is
 * tried again by the next commit.
 */
struct cfs_pending *cfs_store_ingest(struct cfs_store *store, void *data,
				     size_t len, unsigned elem_size);
struct cfs_pending *cfs_pending_ref(struct cfs_pending *pending);
void cfs_pending_unref(struct cfs_pending *pending);
void cfs_pending_unrefp(struct cfs_pending **pending);
/* Waits until it is in a pack; 0 and the digest, or why it is not. */
CFS_MUST_CHECK int cfs_pending_wait(struct cfs_pending *pending,
				    struct cfs_digest *digest_out);
/* 1 and the digest if it is in a pack by now, else 0.  Never blocks. */
int cfs_pending_poll(struct cfs_pending *pending,
		     struct cfs_digest *digest_out);
/* Bytes of it, from memory or from the pack. */
CFS_MUST_CHECK int cfs_pending_read(struct cfs_store *store,
				    struct cfs_pending *pending, uint32_t off,
				    void *buf, size_t len);

/* Room for @bytes of data and what comes with them: 0, -ENOSPC, -EDQUOT.
 * @urgent: for deletions, may use what is kept free for them. */
CFS_MUST_CHECK int cfs_store_reserve(struct cfs_store *store, uint64_t bytes,
				     bool urgent);
void cfs_store_unreserve(struct cfs_store *store, uint64_t bytes);

/* Exactly @len bytes at @off of a chunk, frames checked: 0, -ENOENT, -EBADMSG
 * (logged, the chunk and the pack named), -EIO, -ENOMEM.  Any thread. */
CFS_MUST_CHECK int cfs_store_read_chunk(struct cfs_store *store,
					const struct cfs_digest *digest,
					uint32_t off, void *buf, size_t len);
/* It will be read soon; returns at once. */
void cfs_store_advise_chunk(struct cfs_store *store,
			    const struct cfs_digest *digest);
/* Content maps, deduplicated. */
CFS_MUST_CHECK int cfs_store_put_map(struct cfs_store *store,
				     const struct cfs_content_map *map,
				     struct cfs_digest *digest_out);
CFS_MUST_CHECK int cfs_store_get_map(struct cfs_store *store,
				     const struct cfs_digest *digest,
				     struct cfs_content_map *map_out);
/* A new reference to an object known by digest only (a copy by reference): gc
 * under way keeps it.  -ENOENT: it is not there. */
CFS_MUST_CHECK int cfs_store_touch_map(struct cfs_store *store,
				       const struct cfs_digest *digest);
CFS_MUST_CHECK int cfs_store_touch_chunk(struct cfs_store *store,
					 const struct cfs_digest *digest);
/* Is a collection under way?  Where not, what is held by a pin need not be
 * touched: one that begins later sees the pin. */
bool cfs_store_collects(struct cfs_store *store);
/* Where and how a chunk is kept: for du, stats. */
struct cfs_chunk_facts {
	uint32_t raw_len, stored_len, codec;
	struct cfs_object_value place;
};
CFS_MUST_CHECK int cfs_store_chunk_facts(struct cfs_store *store,
					 const struct cfs_digest *digest,
					 struct cfs_chunk_facts *out);
/* Replaces how @digest is kept by a derived chunk, if casting @parts gives its
 * very bytes: 0, -EILSEQ (it does not), -EINVAL (a part is derived). */
struct cfs_chunk_part;
CFS_MUST_CHECK int cfs_store_derive(struct cfs_store *store,
				    const struct cfs_digest *digest,
				    int from_dtype, int to_dtype,
				    const struct cfs_chunk_part *parts,
				    uint32_t n_parts);

/* ---- groups ---- */

/*
 * Who has changes in memory that belong into a group.  A commit calls cut()
 * while nobody is inside enter/leave: it must not block or do I/O, only take
 * down what is to be written (unless @all, some of it may wait for the next
 * commit: only the clock asked); then, with others going on, resolve(), which
 * waits for pending chunks and puts keys with cfs_levels_put_frozen(); then
 * done() with the outcome.  After a failure the next commit cuts again and must
 * hand over everything anew that did not get through.
 */
struct cfs_participant {
	int (*cut)(void *arg, bool all, void **state_out);
	int (*resolve)(void *arg, void *state, struct cfs_levels *levels);
	void (*done)(void *arg, void *state, int r);
	/* gc: every object that only memory refers to, through @fn. */
	int (*mark)(void *arg,
		    int (*fn)(void *fn_arg, bool is_map,
			      const struct cfs_digest *digest),
		    void *fn_arg);
	void *arg;
};
void cfs_store_set_participant(struct cfs_store *store,
			       const struct cfs_participant *participant);
/* Everything done before the call is durable: 0 or the first error, after
 * which nothing that was durable before is lost and the rest is still in
 * memory.  Concurrent calls share one group.  Any thread, not inside. */
CFS_MUST_CHECK int cfs_store_commit(struct cfs_store *store);
/* What the clock does every sync_seconds: as cfs_store_commit(), but what would
 * only be stored twice (a part of a chunk that is being written) may wait for
 * the next one. */
CFS_MUST_CHECK int cfs_store_tick(struct cfs_store *store);
uint64_t cfs_store_group(struct cfs_store *store); /* the last durable one */

/* ---- jobs (gc.c, scrub.c, fsck.c): one at a time each; any thread ---- */

struct cfs_job_control {
	/* Returns false to stop (-ECANCELED).  May be NULL. */
	bool (*progress)(void *arg, uint64_t done, uint64_t total,
			 const char *what);
	/* A finding in words, for scrub and fsck. */
	void (*finding)(void *arg, const char *text);
	void *arg;
};
struct cfs_gc_options {
	bool dry_run;
	unsigned min_dead_percent; /* packs with less stay; 0: 25 */
};
struct cfs_gc_result {
	uint64_t packs_before, packs_removed, packs_rewritten;
	uint64_t chunks_live, chunks_dead;
	uint64_t bytes_before, bytes_freed, bytes_copied;
};
CFS_MUST_CHECK int cfs_store_gc(struct cfs_store *store,
				const struct cfs_gc_options *options,
				const struct cfs_job_control *control,
				struct cfs_gc_result *result_out,
				struct cfs_error *err);
struct cfs_scrub_result {
	uint64_t chunks, maps, bytes, damaged, missing;
	uint64_t log_damaged; /* of damaged: records that are no objects */
	uint64_t files;	      /* names whose content is affected */
	uint64_t lost;	      /* times that it went back to an older state */
};
/* Every record of the log that a rebuild needs (damage there makes a fresh
 * snapshot, so that it is not needed any more), then every digest of every
 * object, then whether all that files refer to is there; findings name chunk
 * and pack, and in the end the files ("file run/x is affected"), the first 100
 * of them.  0 also with findings. */
CFS_MUST_CHECK int cfs_store_scrub(struct cfs_store *store,
				   const struct cfs_job_control *control,
				   struct cfs_scrub_result *result_out,
				   struct cfs_error *err);
struct cfs_fsck_result {
	uint64_t inodes, dirents, extents, maps, chunks, problems;
	uint64_t files; /* names whose content is affected */
};
/* The namespace in itself: names lead to inodes and back, counts agree, every
 * chunk and map referred to is there (not read: that is scrub; only that its
 * pack is there, as long as it must be).  Files are named as scrub does. */
CFS_MUST_CHECK int cfs_store_fsck(struct cfs_store *store,
				  const struct cfs_job_control *control,
				  struct cfs_fsck_result *result_out,
				  struct cfs_error *err);

struct cfs_store_facts {
	uint64_t groups, packs, pack_bytes, chunks, raw_bytes, stored_bytes;
	/* since it was opened */
	uint64_t ingested_bytes, dedup_bytes, appended_bytes, cache_hits,
		cache_misses;
};
CFS_MUST_CHECK int cfs_store_facts(struct cfs_store *store,
				   struct cfs_store_facts *out);
CFS_MUST_CHECK int cfs_store_statfs(struct cfs_store *store,
				    struct statvfs *out);

#endif
