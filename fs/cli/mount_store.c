#include "fs/cli/mount_store.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/cli/mount_options.h"
#include "fs/container/sniff.h"
#include "fs/daemon/control.h"
#include "fs/daemon/derive.h"
#include "fs/fuse/fuse.h"
#include "fs/rank/server.h"
#include "fs/view/view.h"
#include "store/core/store.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/log.h"

#define CACHE_BYTES ((size_t)256 << 20) /* decoded frames and made blocks */
#define BUSY_TRIES  50			/* a tenth of a second each */
#define DERIVE_IDLE 30u			/* seconds without a change */

struct service {
	const char *path; /* of the store */
	struct cfs_store *store;
	struct cfs_ns *ns;
	struct cfs_source *source;
	struct cfs_views *views;
	struct cfs_verb_context context;
	struct cfs_rank_server *ranks;
	struct cfs_control *control;
	struct cfs_derive_job *derive;
	unsigned derive_seconds; /* 0: never */
	struct timespec told;	 /* the last line of progress */
};

/* ---- opening ---- */

static void on_progress(void *arg, uint64_t done, uint64_t total,
			const char *what)
{
	struct service *s = arg;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	/* nothing of what is over at once */
	if (!s->told.tv_sec)
		s->told = now;
	if (now.tv_sec - s->told.tv_sec < 5)
		return;
	s->told = now;
	if (total)
		cfs_log(CFS_LOG_INFO, "%s: %s: %llu of %llu", s->path, what,
			(unsigned long long)done, (unsigned long long)total);
	else
		cfs_log(CFS_LOG_INFO, "%s: %s %llu", s->path, what,
			(unsigned long long)done);
}

/* A daemon that was just unmounted holds the store until all is written. */
static int open_store(struct service *s, const struct cfs_mount_options *o,
		      struct cfs_error *err)
{
	static const struct timespec pause = {.tv_nsec = 100000000};
	struct cfs_store_options options = {
		.cache_bytes =
			(o->cache_bytes ? o->cache_bytes : CACHE_BYTES) / 2,
		.read_only = o->ro,
		.progress = on_progress,
		.progress_arg = s,
	};
	int r, tries;

	for (tries = 0;; tries++) {
		r = cfs_store_open(s->path, &options, &s->store, err);
		if (r != -EBUSY || tries == BUSY_TRIES ||
		    strstr(err->text, "mounted at"))
			return r;
		nanosleep(&pause, NULL);
	}
}

/* Who saves into it must not learn that from the save. */
static int check_writable(const struct service *s,
			  const struct cfs_mount_options *o,
			  struct cfs_error *err)
{
	if (o->ro || !cfs_store_read_only(s->store))
		return 0;
	return cfs_fail(err, -EROFS,
			"%s may only be read here: mount it with -o ro",
			s->path);
}

static int open_rest(struct service *s, const struct cfs_mount_options *o,
		     struct cfs_error *err)
{
	struct cfs_ns_options ns_options = {.sniffer = &cfs_sniffer};
	struct cfs_views_options views_options = {
		.block_cache_bytes =
			(o->cache_bytes ? o->cache_bytes : CACHE_BYTES) / 2,
		.view = o->view,
		.crc_full = o->crc_full,
		.forget_trees = true,
		.source_path = s->path,
		.writable = true,
	};
	int r;

	r = cfs_ns_open(s->store, &ns_options, &s->ns, err);
	if (!r)
		r = cfs_source_ns_open(s->ns, &s->source);
	if (!r)
		r = cfs_views_open(s->source, &views_options, &s->views, err);
	return r;
}

static int recover(struct service *s)
{
#ifdef CFS_HAVE_DAEMON
	return cfs_daemon_recover(&s->context);
#else
	(void)s;
	return 0;
#endif
}

/* Commits; the first error. */
static int close_all(struct service *s)
{
	int r = 0, store_r = 0;

	cfs_views_closep(&s->views);
	cfs_source_freep(&s->source);
	if (s->ns)
		r = cfs_ns_close(s->ns);
	if (s->store)
		store_r = cfs_store_close(s->store);
	return r < 0 ? r : store_r;
}

/* ---- while it is mounted ---- */

static int on_start(void *arg, cfs_fuse_invalidate_fn *invalidate, void *handle,
		    struct cfs_error *err)
{
	struct service *s = arg;
	int r = cfs_store_set_mount(s->store, s->context.mount);

	s->context.invalidate = invalidate;
	s->context.invalidate_arg = handle;
#ifdef CFS_HAVE_DAEMON
	s->ranks = cfs_rank_server_new();
	if (!r && !s->ranks)
		r = -ENOMEM;
	s->context.session = cfs_rank_server_session;
	s->context.session_arg = s->ranks;
	/* elsewhere whoever asks can open it beside this mount */
	if (!r && !cfs_store_is_untouched(s->store))
		r = cfs_control_start(s->path, &s->context, &s->control, err);
	if (!r && s->derive_seconds)
		r = cfs_derive_job_start(&s->context, s->derive_seconds,
					 &s->derive);
#else
	(void)err;
#endif
	return r;
}

static void on_stop(void *arg)
{
	struct service *s = arg;

#ifdef CFS_HAVE_DAEMON
	cfs_derive_job_stop(s->derive);
	cfs_rank_server_stop(s->ranks);
	cfs_control_stop(s->control);
	cfs_rank_server_free(s->ranks);
#endif
	s->context.invalidate = NULL;
	/* Who wants to mount it next waits for what is written now. */
	if (cfs_store_set_mount(s->store, NULL) < 0)
		cfs_log(CFS_LOG_INFO, "%s: the lock's text is old", s->path);
}

int cfs_mount_store(const char *path, const struct cfs_mount_options *options,
		    struct cfs_fuse_options *fuse, struct cfs_error *err)
{
	struct service s = {.path = path};
	const bool derives = !options->ro && !options->no_derive;
	int r, close_r;

	r = open_store(&s, options, err);
	if (!r)
		r = check_writable(&s, options, err);
	if (!r)
		r = open_rest(&s, options, err);
	if (!r) {
		s.context = (struct cfs_verb_context){
			.ns = s.ns,
			.views = s.views,
			.mount = fuse->dir,
			.private = !fuse->allow_other,
		};
		r = recover(&s);
	}
	if (!r) {
		s.derive_seconds = !derives ? 0
				   : options->derive_seconds
					   ? options->derive_seconds
					   : DERIVE_IDLE;
		fuse->ns = s.ns;
		fuse->view_root = options->view != NULL;
		fuse->read_only = options->ro;
		fuse->start = on_start;
		fuse->stop = on_stop;
		fuse->service_arg = &s;
		r = cfs_fuse_run(s.views, fuse, err);
	}
	close_r = close_all(&s);
	if (close_r < 0)
		cfs_log_err(close_r, "%s: closing the store", path);
	return r < 0 ? r : close_r;
}
