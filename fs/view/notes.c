/*
 * What the views said already, so that a loop of look-ups does not fill the
 * log; which steps were whole a moment ago; which directories are runs and
 * steps.
 */
#include "fs/view/internal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

enum {
	SAID_MAX = 1024,
	WHOLE_MAX = 64,
	KINDS_MAX = 64,
};
#define WHOLE_NS       INT64_C(1000000000)
#define TICK_NS	       INT64_C(20000000)
#define COARSE_TICK_NS INT64_C(2000000000) /* times in whole seconds */

/* Only "whole" is kept: what is not may become so at any moment. */
struct whole {
	uint64_t path; /* hash; 0: free */
	int64_t until_ns;
};

/* Only runs and steps are kept: any directory may become one without a change
 * of its own. */
struct kind {
	uint64_t path; /* hash; 0: free */
	struct cfs_version dir;
	int kind;
};

struct cfs_notes {
	pthread_mutex_t lock; /* guards all below */
	uint64_t said[SAID_MAX];
	unsigned n_said; /* of all time; the slot is modulo SAID_MAX */
	struct whole whole[WHOLE_MAX];
	unsigned next_whole;
	struct kind kinds[KINDS_MAX];
	unsigned next_kind;
};

int64_t cfs_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool cfs_is_young(const struct stat *dir)
{
	struct cfs_version version;
	struct timespec now;
	int64_t tick, age;

	cfs_version_of(dir, &version);
	tick = version.ctime_ns % 1000000000 ? TICK_NS : COARSE_TICK_NS;
	clock_gettime(CLOCK_REALTIME, &now);
	age = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - version.ctime_ns;
	/* Far in the future: a clock was wrong once, which says nothing. */
	return age < tick && age > -COARSE_TICK_NS;
}

struct cfs_notes *cfs_notes_new(void)
{
	struct cfs_notes *notes = calloc(1, sizeof(*notes));

	if (notes)
		pthread_mutex_init(&notes->lock, NULL);
	return notes;
}

void cfs_notes_free(struct cfs_notes *notes)
{
	if (!notes)
		return;
	pthread_mutex_destroy(&notes->lock);
	free(notes);
}

void cfs_notes_say(struct cfs_notes *notes, const char *path, const char *text)
{
	uint64_t hash = cfs_hash64(text, strlen(text),
				   cfs_hash64(path, strlen(path), 0));
	bool said = false;
	unsigned i;

	pthread_mutex_lock(&notes->lock);
	for (i = 0; i < CFS_MIN(notes->n_said, SAID_MAX); i++)
		said = said || notes->said[i] == hash;
	if (!said)
		notes->said[notes->n_said++ % SAID_MAX] = hash;
	pthread_mutex_unlock(&notes->lock);
	if (!said)
		cfs_log(CFS_LOG_WARN, "%s: %s", path, text);
}

static uint64_t hash_path(const char *path)
{
	return cfs_hash64(path, strlen(path), 0) | 1;
}

static bool find_whole(const struct cfs_notes *notes, uint64_t path)
{
	int64_t now = cfs_now_ns();
	unsigned i;

	for (i = 0; i < WHOLE_MAX; i++)
		if (notes->whole[i].path == path &&
		    notes->whole[i].until_ns >= now)
			return true;
	return false;
}

int cfs_notes_complete(struct cfs_views *views, const char *path,
		       struct cfs_error *err)
{
	struct cfs_notes *notes = views->notes;
	uint64_t hash = hash_path(path);
	const struct cfs_format *format;
	int64_t seen = cfs_now_ns();
	bool known;
	int r;

	pthread_mutex_lock(&notes->lock);
	known = find_whole(notes, hash);
	pthread_mutex_unlock(&notes->lock);
	if (known)
		return 1;
	r = cfs_format_probe(views->source, path, &format);
	if (!r)
		r = format->complete(views->source, path, err);
	if (r > 0) {
		pthread_mutex_lock(&notes->lock);
		notes->whole[notes->next_whole++ % WHOLE_MAX] =
			(struct whole){hash, seen + WHOLE_NS};
		pthread_mutex_unlock(&notes->lock);
	}
	return r;
}

int cfs_notes_kind(struct cfs_notes *notes, const char *path,
		   const struct stat *st)
{
	uint64_t hash = hash_path(path);
	struct cfs_version now;
	int kind = CFS_DIR_PLAIN;
	unsigned i;

	cfs_version_of(st, &now);
	pthread_mutex_lock(&notes->lock);
	for (i = 0; i < KINDS_MAX; i++)
		if (notes->kinds[i].path == hash &&
		    cfs_version_equal(&notes->kinds[i].dir, &now))
			kind = notes->kinds[i].kind;
	pthread_mutex_unlock(&notes->lock);
	return kind;
}

void cfs_notes_set_kind(struct cfs_notes *notes, const char *path,
			const struct stat *st, int kind)
{
	struct kind made = {.path = hash_path(path), .kind = kind};

	if (cfs_is_young(st))
		return;
	cfs_version_of(st, &made.dir);
	pthread_mutex_lock(&notes->lock);
	notes->kinds[notes->next_kind++ % KINDS_MAX] = made;
	pthread_mutex_unlock(&notes->lock);
}
