/*
 * The copying: directories and small things first, then files by a few
 * readers (the store's workers do the costly part, so the readers only have to
 * keep them fed), then completion markers, further links, and the times of
 * directories.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/daemon/import.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"

#define READERS	     4u
#define BUFFER_BYTES ((size_t)1 << 20)

/* ---- all but regular files ---- */

static int read_target(struct cfs_import *import, const char *path,
		       char target[4096])
{
	ssize_t n;

	cfs_import_enter(import);
	n = readlink(path, target, 4095);
	cfs_import_leave(import);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	return 0;
}

static int make_symlink(struct cfs_import *import, const char *path,
			struct cfs_import_item *item, uint64_t dir,
			const struct cfs_ns_cred *cred, struct stat *st)
{
	char target[4096];
	int r = read_target(import, path, target);

	return r < 0 ? r
		     : cfs_ns_symlink(import->context->ns, cred, dir,
				      item->name, target, st);
}

static int make_object(struct cfs_import *import, const char *path,
		       struct cfs_import_item *item, uint64_t dir,
		       struct stat *st)
{
	const struct cfs_verb_caller *caller = import->context->caller;
	struct cfs_ns_cred cred = {caller->uid, caller->gid};
	struct cfs_ns *ns = import->context->ns;

	if (S_ISDIR(item->st.st_mode))
		return cfs_ns_mkdir(ns, &cred, dir, item->name, 0700, st);
	if (S_ISLNK(item->st.st_mode))
		return make_symlink(import, path, item, dir, &cred, st);
	return cfs_ns_mknod(ns, &cred, dir, item->name,
			    (item->st.st_mode & S_IFMT) | 0600,
			    item->st.st_rdev, st);
}

/* Is what is there what would be made?  A directory is gone into. */
static int is_same(struct cfs_import *import, const char *path,
		   const struct cfs_import_item *item, const struct stat *there)
{
	_cleanup_(cfs_buf_free) struct cfs_buf is = CFS_BUF_INIT;
	char target[4096];
	int r;

	if ((there->st_mode & S_IFMT) != (item->st.st_mode & S_IFMT))
		return 0;
	if (!S_ISLNK(item->st.st_mode))
		return there->st_rdev == item->st.st_rdev ||
		       S_ISDIR(item->st.st_mode);
	r = read_target(import, path, target);
	if (!r)
		r = cfs_ns_readlink(import->context->ns, there->st_ino, &is);
	return r < 0 ? r : !strcmp(cfs_buf_str(&is), target);
}

/* What merge finds in its place: 1, it is that; 0, it is gone. */
static int take_existing(struct cfs_import *import, const char *path,
			 struct cfs_import_item *item, uint64_t dir,
			 struct stat *st, struct cfs_error *err)
{
	int r;

	r = cfs_ns_lookup(import->context->ns, dir, item->name, st);
	if (r < 0)
		return r;
	r = import->merge ? is_same(import, path, item, st) : 0;
	if (!r)
		r = cfs_import_give_way(import, item, dir, st, err);
	if (r <= 0)
		cfs_ns_forget(import->context->ns, st->st_ino, 1);
	return r;
}

static int make_one(struct cfs_import *import, size_t i, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_import_path(import, i);
	struct cfs_import_item *item = &import->items[i];
	uint64_t dir = cfs_import_dir(import, i);
	struct stat st = {0};
	int r;

	if (!path)
		return -ENOMEM;
	r = make_object(import, path, item, dir, &st);
	if (r == -EEXIST) {
		r = take_existing(import, path, item, dir, &st, err);
		if (!r)
			r = make_object(import, path, item, dir, &st);
	}
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	item->ino = st.st_ino;
	cfs_ns_forget(import->context->ns, st.st_ino, 1);
	r = cfs_import_xattrs(import, path, item->ino);
	if (!r && !S_ISDIR(item->st.st_mode))
		r = cfs_import_attributes(import, item);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", path) : 0;
}

static int make_objects(struct cfs_import *import, struct cfs_error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < import->n; i++)
		if (!S_ISREG(import->items[i].st.st_mode))
			r = make_one(import, i, err);
	return r;
}

/* From the leaves up: what is made in a directory changes its times. */
static int finish_dirs(struct cfs_import *import, struct cfs_error *err)
{
	size_t i = import->n;
	int r;

	while (i--) {
		struct cfs_import_item *item = &import->items[i];

		if (!S_ISDIR(item->st.st_mode))
			continue;
		r = cfs_import_attributes(import, item);
		if (r < 0)
			return cfs_fail_prefix(err, r, "%s", item->name);
	}
	return 0;
}

/* ---- further names of one file ---- */

static int make_link(struct cfs_import *import, size_t i, struct cfs_error *err)
{
	struct cfs_ns *ns = import->context->ns;
	struct cfs_import_item *item = &import->items[i];
	uint64_t ino = import->items[item->link].ino;
	uint64_t dir = cfs_import_dir(import, i);
	struct stat st;
	int r;

	r = cfs_ns_link(ns, ino, dir, item->name, &st);
	if (r == -EEXIST && import->merge) {
		r = cfs_ns_lookup(ns, dir, item->name, &st);
		if (r < 0)
			return r;
		cfs_ns_forget(ns, st.st_ino, 1);
		if (st.st_ino == ino)
			return 0;
		if (S_ISDIR(st.st_mode))
			return cfs_fail(err, -EEXIST, "%s is a directory",
					item->name);
		r = cfs_ns_unlink(ns, dir, item->name);
		if (!r)
			r = cfs_ns_link(ns, ino, dir, item->name, &st);
	}
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", item->name);
	cfs_ns_forget(ns, st.st_ino, 1);
	return 0;
}

static int make_links(struct cfs_import *import, struct cfs_error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < import->n; i++)
		if (import->items[i].link != CFS_IMPORT_NONE)
			r = make_link(import, i, err);
	return r;
}

/* ---- files ---- */

struct crew {
	struct cfs_import *import;
	bool markers; /* this round copies them, or all others */
	_Atomic size_t next;
	_Atomic uint64_t done;
	_Atomic bool stop;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned running; /* guarded by lock, and so are those below */
	const struct cfs_import_item *at; /* the largest under way, about */
	struct cfs_error err;		  /* of the first that failed */
	int r;
};

/* CFS_IMPORT_NONE: no more. */
static size_t take_next(struct crew *crew)
{
	for (;;) {
		size_t i = atomic_fetch_add(&crew->next, 1);
		const struct cfs_import_item *item;

		if (i >= crew->import->n)
			return CFS_IMPORT_NONE;
		item = &crew->import->items[i];
		if (S_ISREG(item->st.st_mode) &&
		    item->link == CFS_IMPORT_NONE &&
		    item->marker == crew->markers)
			return i;
	}
}

static void note_failure(struct crew *crew, int r, const struct cfs_error *err)
{
	pthread_mutex_lock(&crew->lock);
	if (!crew->r) {
		crew->r = r;
		crew->err = *err;
	}
	pthread_mutex_unlock(&crew->lock);
	atomic_store(&crew->stop, true);
}

/* For who watches: that a small file was begun tells nothing. */
static void note_file(struct crew *crew, const struct cfs_import_item *item,
		      bool begins)
{
	pthread_mutex_lock(&crew->lock);
	if (!crew->at || (begins && item->st.st_size > crew->at->st.st_size))
		crew->at = item;
	else if (!begins && crew->at == item)
		crew->at = NULL;
	pthread_mutex_unlock(&crew->lock);
}

static void read_files(struct crew *crew, void *buffer)
{
	size_t i;

	while (!atomic_load(&crew->stop) &&
	       (i = take_next(crew)) != CFS_IMPORT_NONE) {
		struct cfs_error err = {""};
		int r;

		note_file(crew, &crew->import->items[i], true);
		r = cfs_import_file(crew->import, i, buffer, BUFFER_BYTES,
				    &crew->done, &crew->stop, &err);
		note_file(crew, &crew->import->items[i], false);
		if (r < 0)
			note_failure(crew, r, &err);
	}
}

static void *reader(void *arg)
{
	struct crew *crew = arg;
	struct cfs_error err = {""};
	void *buffer = NULL;

	if (posix_memalign(&buffer, 4096, BUFFER_BYTES) == 0)
		read_files(crew, buffer);
	else
		note_failure(crew, -ENOMEM, &err);
	free(buffer);
	pthread_mutex_lock(&crew->lock);
	crew->running--;
	pthread_cond_broadcast(&crew->changed);
	pthread_mutex_unlock(&crew->lock);
	return NULL;
}

/* Tells how far it is until all have ended. */
static void watch(struct crew *crew)
{
	pthread_mutex_lock(&crew->lock);
	while (crew->running) {
		struct timespec until;
		const char *at;
		bool go_on;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 100000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		(void)pthread_cond_timedwait(&crew->changed, &crew->lock,
					     &until);
		at = crew->at ? crew->at->name : "";
		pthread_mutex_unlock(&crew->lock);
		go_on = cfs_verb_progress(crew->import->reply,
					  atomic_load(&crew->done),
					  crew->import->bytes, at);
		pthread_mutex_lock(&crew->lock);
		if (!go_on && !crew->r)
			crew->r = -ECANCELED;
		if (!go_on)
			atomic_store(&crew->stop, true);
	}
	pthread_mutex_unlock(&crew->lock);
}

static int copy_round(struct crew *crew, bool markers, struct cfs_error *err)
{
	pthread_t threads[READERS];
	unsigned i, n = 0;

	crew->markers = markers;
	atomic_store(&crew->next, 0);
	for (i = 0; i < READERS; i++) {
		pthread_mutex_lock(&crew->lock);
		crew->running++;
		pthread_mutex_unlock(&crew->lock);
		if (pthread_create(&threads[n], NULL, reader, crew) == 0) {
			n++;
			continue;
		}
		pthread_mutex_lock(&crew->lock);
		crew->running--;
		pthread_mutex_unlock(&crew->lock);
	}
	if (!n)
		return -EAGAIN;
	watch(crew);
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	if (crew->r < 0 && err)
		*err = crew->err;
	return crew->r;
}

static int copy_files(struct cfs_import *import, struct cfs_error *err)
{
	struct crew crew = {.import = import,
			    .lock = PTHREAD_MUTEX_INITIALIZER,
			    .changed = PTHREAD_COND_INITIALIZER,
			    .err = {""}};
	int r;

	r = copy_round(&crew, false, err);
	return r < 0 ? r : copy_round(&crew, true, err);
}

/* The kernel may know that a name is not there, or what was there before. */
static void forget_names(const struct cfs_import *import)
{
	const struct cfs_verb_context *context = import->context;
	size_t i;

	if (!context->invalidate)
		return;
	for (i = 0; i < import->n; i++)
		if (import->merge || import->items[i].path)
			context->invalidate(context->invalidate_arg,
					    cfs_import_dir(import, i),
					    import->items[i].name);
	context->invalidate(context->invalidate_arg, import->dest, NULL);
}

int cfs_import_copy(struct cfs_import *import, struct cfs_error *err)
{
	size_t i;
	int r;

	r = make_objects(import, err);
	if (!r)
		r = copy_files(import, err);
	if (!r)
		r = make_links(import, err);
	if (!r)
		r = finish_dirs(import, err);
	forget_names(import);
	if (r < 0)
		return r;
	for (i = 0; i < import->n; i++)
		if (import->items[i].kept) {
			import->files_kept++;
			import->bytes_kept +=
				(uint64_t)import->items[i].st.st_size;
		}
	return cfs_ns_sync(import->context->ns);
}
