/* Opening: lock, log, recovery, threads; and closing in reverse. */
#include "store/core/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/log.h"

#define CACHE_BYTES	(256u << 20)
#define IN_FLIGHT_BYTES (64u << 20)
#define SLAB_BYTES	(4u << 20) /* room is asked for in such steps */

static void take_options(struct cfs_store *s, const struct cfs_store_options *o)
{
	if (o)
		s->options = *o;
	if (!s->options.cache_bytes)
		s->options.cache_bytes = CACHE_BYTES;
	if (!s->options.in_flight_bytes)
		s->options.in_flight_bytes = IN_FLIGHT_BYTES;
	if (!s->config.sync_seconds)
		s->config.sync_seconds = 5;
	s->config.version = CFS_STORE_VERSION;
	s->config.frame_bytes = CFS_FRAME_BYTES;
	s->config.chunk_bytes = CFS_CHUNK_BYTES;
}

static struct cfs_store *store_new(const struct cfs_store_options *options)
{
	struct cfs_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->dirfd = s->lock_fd = -1;
	take_options(s, options);
	if (cfs_group_init(s) < 0 || cfs_pending_init(s) < 0) {
		cfs_pending_fini(s);
		cfs_group_fini(s);
		free(s);
		return NULL;
	}
	return s;
}

/* Threads first: they use what comes after. */
static void store_free(struct cfs_store *s)
{
	cfs_group_stop_thread(s);
	cfs_pending_fini(s);
	/* its last sync may tell of records that have moved */
	cfs_packs_close(s->packs);
	cfs_levels_free(s->levels);
	if (s->index)
		cfs_index_close(s->index);
	if (s->engine)
		cfs_engine_close(s->engine);
	cfs_framecache_free(s->cache);
	cfs_doubt_fini(s);
	cfs_config_fini(&s->config);
	cfs_closep(&s->lock_fd);
	cfs_closep(&s->dirfd);
	cfs_group_fini(s);
	free(s->path);
	free(s);
}

static void store_freep(struct cfs_store **s)
{
	if (*s)
		store_free(*s);
}

/* ---- recovery ---- */

/* The index gets what is synced only: a log that has less was damaged, or is
 * an older copy.  What is left is a state that it had, but not the last. */
static void tell_older(struct cfs_store *s, uint64_t had,
		       const struct cfs_recovered *found)
{
	if (had <= found->group || s->salvage)
		return;
	cfs_log(CFS_LOG_ERR,
		"store %s: it was at group %llu, but the log ends with group "
		"%llu, in pack %08x at %u: what was saved in between is not "
		"there",
		s->path, (unsigned long long)had,
		(unsigned long long)found->group, found->end.pack,
		found->end.off);
	cfs_loss_note(s, found, had);
}

static int refuse(const struct cfs_store *s, int r, const char *why,
		  struct cfs_error *err)
{
	if ((r == -EBADMSG || r == -EIO) && !s->salvage)
		return cfs_fail(
			err, r,
			"store %s: %s (`ckptfs fsck --salvage %s` tells "
			"what can be had)",
			s->path, why, s->path);
	return cfs_fail(err, r, "store %s: %s", s->path, why);
}

static int recover(struct cfs_store *s, struct cfs_recovered *out,
		   struct cfs_error *err)
{
	struct cfs_recovered found = {.clean = true};
	struct cfs_error own = {""};
	uint64_t had = CFS_MAX(cfs_openindex_group(s->index), cfs_loss_end(s));
	int r = -ESTALE;

	if (!s->salvage)
		r = cfs_replay(s, false, &found, &own);
	if (r == -ESTALE) {
		memset(own.text, 0, sizeof(own.text));
		r = cfs_openindex_renew(s, &found, &own);
	}
	if (r < 0)
		return refuse(s, r, own.text[0] ? own.text : strerror(-r), err);
	tell_older(s, had, &found);
	found.known = CFS_MAX(found.known, had);
	*out = found;
	s->recovered_end = found.end;
	s->recovered_snapshot = found.snapshot;
	s->group_digest = found.digest;
	s->last_clean = found.clean;
	s->unclean = !found.clean;
	atomic_store_explicit(&s->group, found.group, memory_order_relaxed);
	return 0;
}

/* Engine and index are there. */
static int open_rest(struct cfs_store *s, struct cfs_error *err)
{
	struct cfs_packs_options po = {.pack_bytes = s->options.pack_bytes,
				       .salvage = s->options.salvage};
	struct cfs_error own = {""};
	struct cfs_recovered found;
	int r;

	s->slab = SLAB_BYTES;
	if (po.pack_bytes) {
		s->slab = CFS_MIN(s->slab, po.pack_bytes);
		po.reserve_bytes = 2 * po.pack_bytes;
	}
	memcpy(po.uuid, s->config.uuid, sizeof(po.uuid));
	r = cfs_packs_open(s->engine, &po, &s->packs, &own);
	if (r < 0)
		return r == -EIO ? refuse(s, r, own.text, err)
				 : cfs_fail(err, r, "%s", own.text);
	cfs_packs_on_moved(s->packs, cfs_append_moved, s);
	s->cache = cfs_framecache_new(s->options.cache_bytes);
	if (!s->cache)
		return cfs_fail(err, -ENOMEM, "no memory to open the store");
	s->salvage = po.salvage ? CFS_SALVAGE_SOME : CFS_SALVAGE_NO;
	r = recover(s, &found, err);
	if (r < 0)
		return r;
	/* not before: recovery may put another index in the place of this */
	s->levels = cfs_levels_new(s->index);
	if (!s->levels)
		return cfs_fail(err, -ENOMEM, "no memory to open the store");
	if (s->salvage) {
		r = cfs_salvage_begin(s, &found, err);
		if (r < 0)
			return r;
	}
	if (s->options.no_sync_thread || s->options.read_only)
		return 0;
	r = cfs_group_start_thread(s);
	return r < 0 ? cfs_fail(err, r, "no thread: %s", strerror(-r)) : 0;
}

int cfs_store_open(const char *path, const struct cfs_store_options *options,
		   struct cfs_store **store_out, struct cfs_error *err)
{
	_cleanup_(store_freep) struct cfs_store *s = store_new(options);
	int r;

	if (s)
		s->path = realpath(path, NULL);
	if (!s || (!s->path && errno == ENOMEM))
		return cfs_fail(err, -ENOMEM, "no memory to open the store");
	if (s->path)
		s->dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd < 0) {
		r = -errno;
		return cfs_fail(err, r, "%s: %s", path, strerror(-r));
	}
	r = cfs_config_read(s->dirfd, path, &s->config, err);
	if (r == 0)
		r = cfs_lock_take(s->dirfd, path, &s->lock_fd, &s->untouched,
				  err);
	s->options.read_only |= s->untouched;
	if (r == 0)
		r = cfs_engine_dir_open(s->dirfd, &s->engine, err);
	if (r == 0)
		r = cfs_openindex(s, err);
	if (r == 0)
		r = open_rest(s, err);
	if (r < 0)
		return r;
	*store_out = cfs_steal(s);
	return 0;
}

int cfs_store_open_engine(struct cfs_engine *engine, struct cfs_index *index,
			  const struct cfs_store_options *options,
			  struct cfs_store **store_out, struct cfs_error *err)
{
	_cleanup_(store_freep) struct cfs_store *s = store_new(options);
	int r;

	if (!s) {
		cfs_engine_close(engine);
		cfs_index_close(index);
		return cfs_fail(err, -ENOMEM, "no memory to open the store");
	}
	s->engine = engine;
	s->index = index;
	s->path = strdup("");
	if (!s->path)
		return cfs_fail(err, -ENOMEM, "no memory to open the store");
	r = open_rest(s, err);
	if (r < 0)
		return r;
	*store_out = cfs_steal(s);
	return 0;
}

int cfs_store_close(struct cfs_store *store)
{
	int r;

	if (!store)
		return 0;
	cfs_group_stop_thread(store);
	r = cfs_group_commit(store, CFS_WISH_CLEAN);
	if (r == 0 && !store->options.read_only)
		cfs_loss_end_set(store);
	if (r == 0 && atomic_load_explicit(&store->lost, memory_order_relaxed))
		r = -EIO;
	if (r < 0)
		(void)cfs_log_err(r, "store %s: the last commit failed",
				  store->path);
	store_free(store);
	return r;
}

const struct cfs_store_config *cfs_store_config(const struct cfs_store *store)
{
	return &store->config;
}

const char *cfs_store_path(const struct cfs_store *store)
{
	return store->path;
}

bool cfs_store_read_only(const struct cfs_store *store)
{
	return store->options.read_only;
}

bool cfs_store_is_untouched(const struct cfs_store *store)
{
	return store->untouched;
}

bool cfs_store_was_unclean(const struct cfs_store *store)
{
	return store->unclean;
}

struct cfs_levels *cfs_store_levels(struct cfs_store *store)
{
	return store->levels;
}
