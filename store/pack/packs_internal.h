/*
 * Inside packs.  A pack goes
 *
 *   spare ─▶ open ─▶ closed (full, not synced) ─▶ sealed with a footer
 *               └──────┴──▶ doomed ─▶ dead ─▶ removed or sealed as it is
 *
 * Doomed: a write or sync failed, so what it holds behind the last good end
 * is in doubt.  The next pack's head leaves that behind; sync writes its chunk
 * and map records again (then it is dead), and once those are durable it goes.
 *
 * Locks: sync_lock before lock.  The engine is called under lock only when a
 * pack begins.
 */
#ifndef CFS_PACK_PACKS_INTERNAL_H
#define CFS_PACK_PACKS_INTERNAL_H

#include <pthread.h>

#include "store/pack/layout.h"
#include "store/pack/packs.h"

#define CFS_PACKS_LANE 0

/* A record in a pack that is not sealed. */
struct cfs_packs_entry {
	struct cfs_digest digest;
	uint64_t number;
	uint32_t off, len, raw_len; /* of the payload */
	uint8_t type, flags;
	bool failed, moved;
};

struct cfs_packs_pack {
	struct cfs_packs_pack *next;
	uint32_t number;
	uint64_t room, end;
	uint64_t footer_number; /* the record number its footer has */
	struct cfs_packs_entry *entries;
	size_t n, cap, objects;
	unsigned in_flight;
	bool doomed;
	uint32_t good; /* doomed: what lies before is not in doubt */
	bool keep;     /* doomed: the chain holds it up to there */
};
struct cfs_packs_list {
	struct cfs_packs_pack *first, **tail;
};

/* An append being written. */
struct cfs_packs_flight {
	struct cfs_packs_flight *prev, *next; /* ascending numbers */
	uint64_t number;
};

/* A pack of the chain as it was when the store was opened. */
struct cfs_packs_link {
	uint32_t number;
	uint64_t end; /* where the next one says it ends; else UINT64_MAX */
};

struct cfs_packs {
	struct cfs_engine *engine;
	struct cfs_packs_options options;
	uint64_t seed; /* of the hashes of heads */

	/* set by open, read by scans */
	struct cfs_packs_link *chain; /* oldest first */
	size_t n_chain, cap_chain;
	uint32_t lacking; /* the chain names it, but it is not there; or 0 */
	bool lacking_bad; /* it is there, but its head does not hold */

	pthread_mutex_t sync_lock;
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t landed;
	struct cfs_position snapshot;
	uint32_t newest; /* highest pack number ever seen */
	uint64_t next_number;
	struct cfs_packs_pack *open;
	struct cfs_packs_list closed, doomed, dead, spares;
	struct cfs_position tail; /* where the chain ends without open */
	struct cfs_position good; /* as of the last sync */
	struct cfs_packs_flight *flights, *last_flight;
	uint64_t appended, synced; /* bytes since start */
	uint64_t promised;
	int broken; /* why the last pack was doomed */
	int behind; /* BATCH or GROUP records were left behind: why */
	bool started;
	cfs_moved_fn *moved_fn;
	void *moved_arg;
	cfs_appended_fn *appended_fn;
	void *appended_arg;
};

static inline struct cfs_pack_id cfs_packs_id(uint32_t number)
{
	return (struct cfs_pack_id){CFS_PACKS_LANE, number};
}

/* ---- lists (packs.c) ---- */
void cfs_packs_list_add(struct cfs_packs_list *list,
			struct cfs_packs_pack *pack);
struct cfs_packs_pack *cfs_packs_list_pop(struct cfs_packs_list *list);
void cfs_packs_list_join(struct cfs_packs_list *list,
			 struct cfs_packs_list *from);
void cfs_packs_pack_free(struct cfs_packs_pack *pack);

/* ---- packs_room.c: with lock held ---- */
/* A pack with at least @need of @room bytes; -ENOSPC, … */
int cfs_packs_room_new(struct cfs_packs *packs, uint64_t room, uint64_t need,
		       struct cfs_packs_pack **pack_out);
uint64_t cfs_packs_room_free(const struct cfs_packs_pack *pack);
/* Is there room for one more record of @len bytes, and the footer? */
bool cfs_packs_room_fits(const struct cfs_packs_pack *pack, uint64_t len);
/* Ready for a record of @len bytes: packs->open. */
int cfs_packs_room_open(struct cfs_packs *packs, uint64_t len);
void cfs_packs_room_close(struct cfs_packs *packs);
/* The open pack and the closed ones are in doubt behind packs->good. */
void cfs_packs_room_doom(struct cfs_packs *packs, int r);
/* Gives spares back. */
void cfs_packs_room_trim(struct cfs_packs *packs, uint32_t up_to);

/* ---- packs_append.c ---- */
/* @record: type, flags, digest, raw_len.  With no lock held. */
int cfs_packs_append_record(struct cfs_packs *packs, struct cfs_record *record,
			    const struct iovec *iov, int n, bool again,
			    struct cfs_place *place_out,
			    struct cfs_position *at_out);
/* ---- packs_sync.c ---- */
/* Writes again what is in doubt; with sync_lock held, not lock. */
int cfs_packs_sync_mend(struct cfs_packs *packs);
/* ---- footer.c ---- */
/* Writes the footer and seals; with no lock held, nobody writes to @pack. */
void cfs_packs_footer_write(struct cfs_packs *packs,
			    const struct cfs_packs_pack *pack);
/* ---- packs_open.c ---- */
/* The head of a pack and the number of its first record: 0, -EBADMSG: it has
 * none that holds; -ENOENT. */
int cfs_packs_head_read(struct cfs_packs *packs, uint32_t number,
			struct cfs_layout_head *head_out, uint64_t *first_out,
			struct cfs_error *err);
/* ---- packs_scan.c ---- */
/* @len bytes of a pack, or -EBADMSG when it ends before; -EIO. */
int cfs_packs_scan_read(struct cfs_packs *packs, uint32_t number, void *buf,
			size_t len, uint64_t off);

#endif
