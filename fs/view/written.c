/*
 * Directories of a run that are saved through a view of it.  A step is not
 * whole until its last file is there, so planning it would fail, and with that
 * every path of the trainer that is saving it.
 */
#include "fs/view/internal.h"

#include <pthread.h>

enum {
	WRITTEN_MAX = 256 /* the latest; steps under way are few */
};
#define NOW_NS INT64_C(2000000000)

struct entry {
	uint64_t ino, salt; /* 0: free */
	int64_t until_ns;   /* written "now" until then */
	uint64_t used;
};

struct cfs_written {
	pthread_mutex_t lock; /* guards all below */
	struct entry entries[WRITTEN_MAX];
	uint64_t clock;
};

struct cfs_written *cfs_written_new(void)
{
	struct cfs_written *written = calloc(1, sizeof(*written));

	if (written)
		pthread_mutex_init(&written->lock, NULL);
	return written;
}

void cfs_written_free(struct cfs_written *written)
{
	if (!written)
		return;
	pthread_mutex_destroy(&written->lock);
	free(written);
}

/* The entry, or NULL with the one to replace in @oldest_out. */
static struct entry *find(struct cfs_written *written, uint64_t ino,
			  uint64_t salt, struct entry **oldest_out)
{
	struct entry *oldest = written->entries;
	unsigned i;

	for (i = 0; i < WRITTEN_MAX; i++) {
		struct entry *e = &written->entries[i];

		if (e->ino == ino && e->salt == salt)
			return e;
		if (e->used < oldest->used)
			oldest = e;
	}
	if (oldest_out)
		*oldest_out = oldest;
	return NULL;
}

void cfs_written_note(struct cfs_written *written, uint64_t ino, uint64_t salt,
		      enum cfs_written_state state)
{
	struct entry *e, *oldest = NULL;

	pthread_mutex_lock(&written->lock);
	e = find(written, ino, salt, &oldest);
	if (!e) {
		e = oldest;
		*e = (struct entry){.ino = ino, .salt = salt};
	}
	e->used = ++written->clock;
	if (state == CFS_WRITTEN_NOW)
		e->until_ns = cfs_now_ns() + NOW_NS;
	pthread_mutex_unlock(&written->lock);
}

enum cfs_written_state cfs_written_get(struct cfs_written *written,
				       uint64_t ino, uint64_t salt)
{
	enum cfs_written_state state = CFS_WRITTEN_NOT;
	struct entry *e;

	pthread_mutex_lock(&written->lock);
	e = find(written, ino, salt, NULL);
	if (e)
		state = e->until_ns > cfs_now_ns() ? CFS_WRITTEN_NOW
						   : CFS_WRITTEN_ONCE;
	pthread_mutex_unlock(&written->lock);
	return state;
}
