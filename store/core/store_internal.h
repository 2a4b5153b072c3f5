/*
 * What the files of store/core share: the open store, and what gc, scrub and
 * fsck need of it.
 *
 * Lock order and what may be held across I/O: store/DESIGN.md, "Locks".
 */
#ifndef CFS_CORE_STORE_INTERNAL_H
#define CFS_CORE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/index/index.h"
#include "store/index/keys.h"
#include "store/pack/packs.h"
#include "store/util/workers.h"

struct cfs_framecache;
struct cfs_memtree;

/* What a round is asked for; 0, by the clock: the changes there are. */
enum {
	CFS_WISH_GROUP = 1,    /* a group even if nothing changed */
	CFS_WISH_CLEAN = 2,    /* the last group says: closed */
	CFS_WISH_SNAPSHOT = 4, /* the namespace anew, then a fresh pack */
	CFS_WISH_ALL = 8,      /* no change waits for a later round */
};

/* How the log is read: as it must be; what can be had of it, from the newest
 * snapshot or from its first record on. */
enum cfs_salvage {
	CFS_SALVAGE_NO,
	CFS_SALVAGE_SOME,
	CFS_SALVAGE_ALL
};

/* The frozen level between rounds. */
enum cfs_frozen {
	CFS_FROZEN_NONE,
	CFS_FROZEN_SETTLE, /* its group is durable, the index has it not */
	CFS_FROZEN_THAW,   /* its group failed, and thawing failed, too */
};

typedef void cfs_touch_fn(void *arg, bool is_map,
			  const struct cfs_digest *digest);

struct cfs_move {
	struct cfs_object_value from, to;
};

struct cfs_store {
	char *path;	    /* "" over an engine */
	int dirfd, lock_fd; /* -1 over an engine */
	struct cfs_store_config config;
	struct cfs_store_options options; /* zeros replaced */
	struct cfs_engine *engine;
	struct cfs_index *index;
	bool index_in_memory;	  /* the disk has no room for one */
	bool untouched;		  /* its directory may only be read */
	enum cfs_salvage salvage; /* the log is read past damage */
	struct cfs_salvaged salvaged;
	uint64_t end_group; /* as cfs_loss_end() said */
	struct cfs_packs *packs;
	struct cfs_levels *levels;
	struct cfs_workers *workers;
	struct cfs_encoder **encoders; /* one a worker */
	struct cfs_buf *encoded;       /* one a worker */
	struct cfs_framecache *cache;

	/* Recovery found the log good up to here; the first append begins a
	 * pack that says so. */
	pthread_mutex_t start_lock;
	struct cfs_position recovered_end, recovered_snapshot;
	atomic_bool started;	/* release after, acquire before appending */
	atomic_bool gc_running; /* relaxed: only says that there is one */
	bool unclean;		/* the last process did not close it */

	/* Shared: names change.  Exclusive: a group is cut.  Prefers writers,
	 * so that commits are not starved. */
	pthread_rwlock_t cut;

	/* Shared: an object is looked up and what refers to it is told to gc
	 * (touch).  Exclusive: gc switches or deletes keys of objects. */
	pthread_rwlock_t object_lock;
	cfs_touch_fn *touch; /* guarded by object_lock */
	void *touch_arg;
	/* Shared: a chunk is being derived, whose parts gc has been told of or
	 * not.  Exclusive: gc begins to listen.  Before object_lock. */
	pthread_rwlock_t derive_lock;

	/* group.c: rounds */
	pthread_mutex_t round_lock;
	pthread_cond_t round_over;
	pthread_cond_t wake;   /* the sync thread */
	pthread_t sync_thread; /* if sync_running */
	/* to `stopping` guarded by round_lock */
	uint64_t rounds_cut;  /* rounds that have taken down changes */
	uint64_t rounds_done; /* … and ended */
	uint64_t round_good;  /* the last one that succeeded */
	unsigned wish;	      /* CFS_WISH_*: of the next cut */
	int round_result;     /* of the last one */
	bool round_running;
	bool stopping;	   /* ends the sync thread */
	bool sync_running; /* there is one */
	/* the leader of the round only, from here on */
	bool sync_failed; /* packs must recover before anything is appended */
	bool last_clean;  /* the last group says so */
	enum cfs_frozen frozen;
	int snapshot_result;
	struct cfs_participant participant; /* set once */
	struct cfs_batch settle_extra;
	struct cfs_digest group_digest;
	uint64_t batch_bytes; /* since the last snapshot */
	uint64_t snapshot_bytes;
	struct cfs_position snapshot_at;
	_Atomic uint64_t group; /* relaxed: a counter */

	/* append.c: appends whose keys are not yet put */
	pthread_mutex_t epoch_lock;
	pthread_cond_t epoch_over;
	unsigned epoch;	       /* guarded by epoch_lock */
	unsigned appenders[2]; /* by epoch & 1 */
	/* Records that packs wrote again; also held while a key is put. */
	pthread_mutex_t move_lock;
	struct cfs_move *moves;
	size_t n_moves;
	pthread_mutex_t room_lock; /* reserve.c */
	uint64_t room_data;	   /* bytes callers reserved */
	uint64_t slab;
	uint64_t room_held; /* of packs, for them */

	/* pending.c */
	pthread_mutex_t pending_lock;
	pthread_cond_t pending_over;
	size_t in_flight;	     /* bytes queued or being written */
	size_t failed_bytes;	     /* of chunks that could not be written */
	int failed_error;	     /* why, the last time */
	struct cfs_pending **flight; /* by digest: being written */

	/* doubt.c */
	pthread_mutex_t doubt_lock;
	struct cfs_memtree *doubted; /* guarded by doubt_lock */
	atomic_size_t n_doubted;     /* relaxed: saves look-ups only */
	/* Bytes that a failed sync took with it, and no commit has said so. */
	atomic_bool lost;

	_Atomic uint64_t ingested_bytes, dedup_bytes, appended_bytes;
	_Atomic uint64_t cache_hits, cache_misses;
};

/* ---- config.c, lock.c ---- */

int cfs_config_write(int dirfd, const struct cfs_store_init_options *options,
		     struct cfs_error *err);
int cfs_config_read(int dirfd, const char *path,
		    struct cfs_store_config *config, struct cfs_error *err);
/* Packs as a store has them, whatever else is there. */
bool cfs_config_has_packs(int dirfd);
/* Pure: ckptfs.json's text; @path is for messages.  -EBADMSG, and
 * -EPROTONOSUPPORT: of a newer store.  cfs_config_fini() after success. */
CFS_MUST_CHECK int cfs_config_parse(const char *text, const char *path,
				    struct cfs_store_config *c,
				    struct cfs_error *err);
void cfs_config_fini(struct cfs_store_config *config);
/* @fd_out: -1 where there is only a directory to lock.  @shared_out: it may
 * only be read, and others may read it as well. */
int cfs_lock_take(int dirfd, const char *path, int *fd_out, bool *shared_out,
		  struct cfs_error *err);

/* ---- openindex.c ---- */

struct cfs_recovered;
int cfs_openindex(struct cfs_store *store, struct cfs_error *err);
/* Made of the log alone; after a failure the one there was is still there. */
int cfs_openindex_renew(struct cfs_store *store, struct cfs_recovered *found,
			struct cfs_error *err);
int cfs_openindex_empty(struct cfs_index *index);
/* The last group that the index has; 0: none. */
uint64_t cfs_openindex_group(struct cfs_index *index);

/* ---- salvage.c, loss.c ---- */

/* Into the empty index: the newest state that the log proves, or what @before
 * (or NULL) has where that is younger; and all objects there are. */
int cfs_salvage_fill(struct cfs_store *store, struct cfs_index *before,
		     struct cfs_recovered *found, struct cfs_error *err);
/* The log goes on from there in packs of its own. */
int cfs_salvage_begin(struct cfs_store *store,
		      const struct cfs_recovered *found, struct cfs_error *err);
/* The store was opened at @found though it had been at @known: kept until
 * somebody says that he knows. */
void cfs_loss_note(struct cfs_store *store, const struct cfs_recovered *found,
		   uint64_t known);
/* A finding for each that is kept; how many. */
uint64_t cfs_loss_tell(struct cfs_store *store,
		       const struct cfs_job_control *control);
/* The last group as of a clean end; what is known of it when it is opened. */
void cfs_loss_end_set(struct cfs_store *store);
uint64_t cfs_loss_end(struct cfs_store *store);

/* ---- replay.c, rebuild.c ---- */

struct cfs_recovered {
	struct cfs_position end, snapshot;
	struct cfs_position from; /* for `t`: the group is met behind it */
	uint64_t group;
	struct cfs_digest digest; /* of its GROUP payload */
	bool clean;
	uint64_t time_ns; /* of that group */
	/* salvage: the youngest group there are signs of; and places that do
	 * not hold */
	uint64_t known, passed;
	bool from_index;
	struct cfs_position passed_first;
};
/* Makes the index what the log says.  -ESTALE: the index cannot catch up and
 * must be emptied, then @rebuild. */
int cfs_replay(struct cfs_store *store, bool rebuild, struct cfs_recovered *out,
	       struct cfs_error *err);
int cfs_rebuild_objects(struct cfs_store *store, struct cfs_position end,
			struct cfs_error *err);
/* A `c` or `m` key for @record at @place. */
void cfs_rebuild_key(const struct cfs_record *record, struct cfs_place place,
		     struct cfs_key *key, struct cfs_object_value *value);
void cfs_rebuild_put(struct cfs_batch *batch, const struct cfs_record *record,
		     struct cfs_place place);

/* ---- group.c, batcher.c: writing ---- */

#define CFS_GROUP_BYTES	   93u
#define CFS_GROUP_SNAPSHOT 1u
#define CFS_GROUP_CLEAN	   2u

struct cfs_group_record { /* store/FORMAT.md, "Groups" */
	uint64_t number;
	struct cfs_digest prev;
	uint64_t synced;
	uint32_t n_batches;
	uint8_t flags;
	uint64_t time_ns;
	struct cfs_digest batches;
};
void cfs_group_encode(const struct cfs_group_record *g,
		      uint8_t out[CFS_GROUP_BYTES]);
CFS_MUST_CHECK int cfs_group_decode(const void *data, size_t len,
				    struct cfs_group_record *out);
#define CFS_APPLIED_BYTES 48u
struct cfs_applied { /* the value of `t` */
	uint64_t group;
	struct cfs_position from; /* everything before it is in the index */
	struct cfs_digest digest;
};
void cfs_applied_encode(const struct cfs_applied *a,
			uint8_t out[CFS_APPLIED_BYTES]);
CFS_MUST_CHECK int cfs_applied_decode(const void *data, size_t len,
				      struct cfs_applied *out);
void cfs_applied_put(struct cfs_batch *batch, const struct cfs_applied *a);

/* BATCH records of one group, then its GROUP record. */
struct cfs_batcher {
	struct cfs_store *store;
	struct cfs_group_record group; /* number, prev, flags set by the user */
	struct cfs_digester *digester;
	struct cfs_batch batch;
	struct cfs_position first; /* its first record; pack 0: none yet */
	uint64_t bytes;
};
CFS_MUST_CHECK int cfs_batcher_init(struct cfs_batcher *b,
				    struct cfs_store *store, unsigned flags);
void cfs_batcher_fini(struct cfs_batcher *b);
/* A cfs_batch_fn: skips keys that are never logged. */
int cfs_batcher_add(void *arg, struct cfs_slice key,
		    const struct cfs_slice *val);
CFS_MUST_CHECK int cfs_batcher_end(struct cfs_batcher *b,
				   struct cfs_digest *group_digest_out);
/* A group that says the whole namespace anew (the leader of a round). */
int cfs_snapshot_write(struct cfs_store *store, struct cfs_position from);

int cfs_group_init(struct cfs_store *store);
void cfs_group_fini(struct cfs_store *store);
int cfs_group_start_thread(struct cfs_store *store);
void cfs_group_stop_thread(struct cfs_store *store);
/* cfs_store_commit() with more wishes. */
int cfs_group_commit(struct cfs_store *store, unsigned wish);

/* ---- append.c ---- */

/* Around an append and the put of its key: a group's position in the log never
 * passes a record whose key is not put. */
unsigned cfs_append_begin(struct cfs_store *store);
void cfs_append_end(struct cfs_store *store, unsigned epoch);
/* Every record before this position has its key by the time it returns. */
struct cfs_position cfs_append_drain(struct cfs_store *store);
/* One record; makes (urgent) room for it unless @reserved. */
int cfs_append_record(struct cfs_store *store, enum cfs_record_type type,
		      uint8_t flags, const struct cfs_digest *digest,
		      uint32_t raw_len, const void *data, size_t len,
		      bool reserved, struct cfs_place *place_out,
		      struct cfs_position *at_out);
/* The first append of this process begins a pack. */
int cfs_append_start(struct cfs_store *store);
/* Puts the key of a record that was appended at @value (or moved since);
 * object_lock held. */
int cfs_append_key(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest,
		   struct cfs_object_value value);
/* packs' on_moved. */
void cfs_append_moved(void *arg, const struct cfs_record *record,
		      struct cfs_place from, struct cfs_place to);
/* An object's record and its key, which counts from now on (and is touched). */
int cfs_append_object(struct cfs_store *store, bool is_map,
		      const struct cfs_digest *digest, uint32_t raw_len,
		      const void *data, size_t len, bool reserved);

/* ---- object.c: finding and reading; for gc, scrub and fsck as well ---- */

/* Where the record is, as the levels say: 0, -ENOENT, -EBADMSG, -EIO. */
int cfs_object_locate(struct cfs_store *store, bool is_map,
		      const struct cfs_digest *digest,
		      struct cfs_object_value *out);
struct cfs_place cfs_object_place(const struct cfs_object_value *v);
/* By its length it may be derived: its head must be looked at. */
bool cfs_object_may_be_derived(const struct cfs_object_value *v);
struct cfs_object_value cfs_object_value_of(struct cfs_place place,
					    uint32_t raw_len);
bool cfs_object_value_eq(const struct cfs_object_value *a,
			 const struct cfs_object_value *b);
/* It is there, checked at its record's head: 0, -ENOENT, -EIO.  gc under way
 * keeps it from now on.  One that was found damaged is not there. */
int cfs_object_claim(struct cfs_store *store, bool is_map,
		     const struct cfs_digest *digest);
/* The stored bytes as they are in the pack, hash and digest of the record's
 * head checked; follows gc.  -ENOENT, -EBADMSG (not logged), -EIO. */
int cfs_object_load(struct cfs_store *store, bool is_map,
		    const struct cfs_digest *digest, struct cfs_buf *out,
		    struct cfs_object_value *where_out);
/* A chunk's uncompressed bytes, frames checked; not through the cache. */
int cfs_object_chunk_bytes(struct cfs_store *store,
			   const struct cfs_digest *digest,
			   struct cfs_buf *out);
/* The head of a stored chunk; free() it. */
int cfs_object_chunk_head(struct cfs_store *store,
			  const struct cfs_digest *digest,
			  struct cfs_object_value *where_out,
			  struct cfs_chunk_head **head_out);

/* ---- doubt.c: objects found damaged ---- */

void cfs_doubt_add(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest);
bool cfs_doubt_has(struct cfs_store *store, bool is_map,
		   const struct cfs_digest *digest);
/* It was stored anew. */
void cfs_doubt_drop(struct cfs_store *store, bool is_map,
		    const struct cfs_digest *digest);
void cfs_doubt_fini(struct cfs_store *store);

/* ---- for gc ---- */

/*
 * From now on @fn is told of every object that gets a new reference: dedup
 * hits, new objects, touches (any thread, object_lock held shared: no calls
 * into the store).  NULL ends it.
 */
void cfs_gc_barrier(struct cfs_store *store, cfs_touch_fn *fn, void *arg);
/*
 * Copies a record as it is to the end of the log and makes its key say so,
 * unless the key no longer says @from: 1 moved, 0 not, or an error (-EBADMSG:
 * the record is damaged).
 */
int cfs_gc_move(struct cfs_store *store, const struct cfs_record *record,
		const struct cfs_object_value *from);
/*
 * Deletes keys of objects found dead, in one critical section: @dead is asked
 * again for each, now that nobody can claim it (the touches are in by then),
 * and a key that no longer says @places[i] stays.
 */
int cfs_gc_forget(struct cfs_store *store, bool is_map,
		  const struct cfs_digest *digests,
		  const struct cfs_object_value *places, size_t n,
		  bool (*dead)(void *arg, const struct cfs_digest *digest),
		  void *arg);
/*
 * Durable after this: everything, a snapshot of the namespace, and a pack
 * behind it whose head names it: packs before the snapshot hold objects only.
 * @at_out: the snapshot's first record.
 */
int cfs_gc_snapshot(struct cfs_store *store, struct cfs_position *at_out);

/* ---- framecache.c ---- */

/* Something read: bytes of a frame, or (index CFS_CACHE_HEAD) how a chunk is
 * stored and where. */
#define CFS_CACHE_HEAD UINT32_MAX
struct cfs_cached;
struct cfs_framecache *cfs_framecache_new(size_t bytes); /* NULL: no memory */
void cfs_framecache_free(struct cfs_framecache *cache);
/* NULL: not there.  Held until put. */
struct cfs_cached *cfs_framecache_get(struct cfs_framecache *cache,
				      const struct cfs_digest *digest,
				      uint32_t index);
/*
 * As get, but waits for a frame that another thread loads, and NULL means no
 * memory.  @load_out: it is not there; the caller loads it and must say so
 * (loaded).  One that is loaded must not wait for another: no cycles.
 */
struct cfs_cached *cfs_framecache_claim(struct cfs_framecache *cache,
					const struct cfs_digest *digest,
					uint32_t index, bool *load_out);
/* @data (malloc()ed, taken over); NULL: it could not be had. */
void cfs_framecache_loaded(struct cfs_framecache *cache,
			   struct cfs_cached *cached, void *data, size_t len);
/* Puts it there anew, and holds it; takes @data and @extra over. */
struct cfs_cached *cfs_framecache_replace(struct cfs_framecache *cache,
					  const struct cfs_digest *digest,
					  uint32_t index, void *data,
					  size_t len, void *extra);
void cfs_framecache_drop(struct cfs_framecache *cache,
			 const struct cfs_digest *digest, uint32_t index);
void cfs_framecache_put(struct cfs_cached *cached);
void cfs_framecache_putp(struct cfs_cached **cached);
void *cfs_cached_data(const struct cfs_cached *cached);
void *cfs_cached_extra(const struct cfs_cached *cached);

/* ---- pending.c ---- */

int cfs_pending_init(struct cfs_store *store);
void cfs_pending_fini(struct cfs_store *store);

/* ---- reserve.c ---- */

/* Bytes of packs that @bytes of data may need at worst. */
uint64_t cfs_reserve_worst(uint64_t bytes);

#endif
