/*
 * An engine keeps packs: numbered files per lane that are appended to, synced,
 * sealed, read, listed and removed, and a few small refs that are replaced
 * atomically.  engine_dir is a directory; engine_mem its twin, which fails and
 * loses power on request.
 */
#ifndef CFS_PACK_ENGINE_H
#define CFS_PACK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_engine;
struct cfs_error;

/* A lane is one writer's log; today there is lane 0. */
struct cfs_pack_id {
	uint16_t lane;
	uint32_t number; /* from 1 */
};

/* @size: bytes written so far.  Non-zero stops and is returned. */
typedef int cfs_pack_fn(void *arg, struct cfs_pack_id id, uint64_t size);

struct cfs_engine_ops {
	/* A new pack with @room bytes set aside for it, so that writes within
	 * them do not fail for want of space or quota.  Its name is durable
	 * with the next sync of it.  -EEXIST, -ENOSPC, -EDQUOT, -EIO. */
	int (*create)(struct cfs_engine *engine, struct cfs_pack_id id,
		      uint64_t room);
	/* All of it at @off or an error.  Any thread, disjoint ranges. */
	int (*write)(struct cfs_engine *engine, struct cfs_pack_id id,
		     const struct iovec *iov, int n, uint64_t off);
	/* Everything written to the pack before is durable, its name, too.
	 * After an error what was written since the last sync is in doubt. */
	int (*sync)(struct cfs_engine *engine, struct cfs_pack_id id);
	/* No more writes; room beyond @size goes back, durable lazily. */
	int (*seal)(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t size);
	/* As pread(2): short at the end only; -ENOENT.  Any thread. */
	ssize_t (*read)(struct cfs_engine *engine, struct cfs_pack_id id,
			void *buf, size_t len, uint64_t off);
	/* Bytes written so far; -ENOENT. */
	int (*size)(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t *size_out);
	/* In ascending order.  */
	int (*list)(struct cfs_engine *engine, cfs_pack_fn *fn, void *arg);
	/* 0 or -ENOENT; reads under way still end well. */
	int (*remove)(struct cfs_engine *engine, struct cfs_pack_id id);
	/* Refs are for few and small things that are no part of the log. */
	/* A ref's value, at most 4096 bytes; -ENOENT. */
	int (*ref_get)(struct cfs_engine *engine, const char *name,
		       struct cfs_buf *out);
	/* Replaces @old (NULL: absent) by @value, durably; -EAGAIN when the
	 * ref is not @old. */
	int (*ref_cas)(struct cfs_engine *engine, const char *name,
		       const struct cfs_buf *old, const struct cfs_buf *value);
	int (*statfs)(struct cfs_engine *engine, struct statvfs *out);
	/* These bytes will be read soon; returns at once. */
	void (*advise)(struct cfs_engine *engine, struct cfs_pack_id id,
		       uint64_t off, uint64_t len);
	void (*close)(struct cfs_engine *engine);
};

struct cfs_engine {
	const struct cfs_engine_ops *ops;
};

/* Packs and refs below the directory open as @dirfd (borrowed while open). */
CFS_MUST_CHECK int cfs_engine_dir_open(int dirfd,
				       struct cfs_engine **engine_out,
				       struct cfs_error *err);

/* ---- the twin in memory ---- */

struct cfs_engine *cfs_engine_mem_new(void); /* NULL: no memory */
enum cfs_engine_call {
	CFS_ENGINE_CREATE,
	CFS_ENGINE_WRITE,
	CFS_ENGINE_SYNC,
	CFS_ENGINE_SEAL,
	CFS_ENGINE_READ,
	CFS_ENGINE_REMOVE,
	CFS_ENGINE_REF,
	CFS_ENGINE_CALLS
};
/* The @nth (from 1) such call from now on fails with @r; 0: none. */
void cfs_engine_mem_fail(struct cfs_engine *engine, enum cfs_engine_call call,
			 unsigned nth, int r);
/* A sector that cannot be read from now on: -EIO.  Up to 4. */
void cfs_engine_mem_bad(struct cfs_engine *engine, struct cfs_pack_id id,
			uint32_t off, uint32_t len);
/* Rooms beyond this many bytes in all are -ENOSPC; 0: no limit. */
void cfs_engine_mem_limit(struct cfs_engine *engine, uint64_t bytes);
/*
 * Every call that changes something is remembered as an event.  after_power_cut
 * makes a new engine as a disk may look when power went after @events of them:
 * what was synced is there; of the rest every event counts (@seed 0), or an
 * arbitrary choice by @seed: some are missing, some torn, some replaced by
 * zeros or garbage, whatever their order.
 */
size_t cfs_engine_mem_events(struct cfs_engine *engine);
struct cfs_engine *cfs_engine_mem_after_power_cut(struct cfs_engine *engine,
						  size_t events, uint64_t seed);
/* The bytes of a pack, for tests that damage them; NULL: none. */
uint8_t *cfs_engine_mem_bytes(struct cfs_engine *engine, struct cfs_pack_id id,
			      size_t *len_out);
/* Cuts a pack to @len bytes. */
void cfs_engine_mem_cut(struct cfs_engine *engine, struct cfs_pack_id id,
			size_t len);

void cfs_engine_close(struct cfs_engine *engine);

#endif
