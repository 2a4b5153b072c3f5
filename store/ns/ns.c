/* Opening and closing the namespace of a store; numbers. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <time.h>

#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"

#define NUMBERS_AHEAD 4096u /* made known at a time */
#define BUCKETS	      1024u

static int setting_get(struct cfs_ns *ns, const char *name, uint64_t least,
		       uint64_t *out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_key key;
	int r;

	cfs_key_setting(&key, name);
	r = cfs_levels_get(ns->levels, cfs_key_slice(&key), &val);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && val.len != 8)
		return -EBADMSG;
	*out = r == 0 ? CFS_MAX(cfs_get_le64(val.data), least) : least;
	return 0;
}

static int setting_put(struct cfs_ns *ns, const char *name, uint64_t v)
{
	struct cfs_key key;
	uint8_t val[8];

	cfs_key_setting(&key, name);
	cfs_put_le64(val, v);
	return cfs_levels_put(ns->levels, cfs_key_slice(&key),
			      (struct cfs_slice){val, sizeof(val)});
}

static int next_number(struct cfs_ns *ns, const char *name, uint64_t *next,
		       uint64_t *limit, uint64_t *out)
{
	int r = 0;

	(void)pthread_mutex_lock(&ns->number_lock);
	if (*next == *limit) {
		r = setting_put(ns, name, *limit + NUMBERS_AHEAD);
		if (r == 0)
			*limit += NUMBERS_AHEAD;
	}
	if (r == 0)
		*out = (*next)++;
	(void)pthread_mutex_unlock(&ns->number_lock);
	return r;
}

int cfs_ns_new_ino(struct cfs_ns *ns, uint64_t *out)
{
	return next_number(ns, "next_ino", &ns->next_ino, &ns->ino_limit, out);
}

int cfs_ns_new_cookie(struct cfs_ns *ns, uint64_t *out)
{
	return next_number(ns, "next_cookie", &ns->next_cookie,
			   &ns->cookie_limit, out);
}

void cfs_ns_points(struct cfs_ns *ns)
{
	atomic_store_explicit(&ns->pointed, true, memory_order_relaxed);
}

int cfs_ns_room(struct cfs_ns *ns)
{
	int r = cfs_store_reserve(ns->store, 4096, false);

	if (r == 0)
		cfs_store_unreserve(ns->store, 4096);
	return r;
}

int cfs_ns_wipe(struct cfs_ns *ns, char class, uint64_t ino, bool frozen)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key prefix;
	int r;

	cfs_key_prefix(&prefix, class, ino);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&prefix),
			    (struct cfs_slice){NULL, 0}, &iter);
	while (r == 0) {
		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r;
		r = frozen ? cfs_levels_del_frozen(ns->levels, k)
			   : cfs_levels_del(ns->levels, k);
	}
	return r;
}

static int make_root(struct cfs_ns *ns)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record rec = {
		.ino = CFS_ROOT_INO,
		.mode = S_IFDIR | 0755,
		.uid = getuid(),
		.gid = getgid(),
		.nlink = 2,
		.generation = 1,
		.parent = CFS_ROOT_INO,
	};
	struct cfs_key key;
	int r;

	cfs_key_inode(&key, CFS_ROOT_INO);
	r = cfs_levels_get(ns->levels, cfs_key_slice(&key), &val);
	if (r != -ENOENT)
		return r;
	(void)clock_gettime(CLOCK_REALTIME, &rec.btime);
	rec.atime = rec.mtime = rec.ctime = rec.btime;
	cfs_buf_reset(&val);
	cfs_inode_encode(&rec, &val);
	if (val.failed)
		return -ENOMEM;
	cfs_store_enter(ns->store);
	r = cfs_levels_put(ns->levels, cfs_key_slice(&key),
			   (struct cfs_slice){val.data, val.len});
	cfs_store_leave(ns->store);
	return r;
}

/* What was unlinked but open when the store was last in use. */
static int remove_orphans(struct cfs_ns *ns)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key key;
	uint64_t ino;
	int r;

	cfs_key_prefix(&key, 'o', 0);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&key),
			    (struct cfs_slice){NULL, 0}, &iter);
	while (r == 0) {
		r = iter->ops->next(iter, &k, &v);
		if (r <= 0)
			return r;
		r = cfs_key_parse_ino(k, &ino);
		if (r < 0)
			return r;
		cfs_store_enter(ns->store);
		r = cfs_ns_wipe(ns, 'e', ino, false);
		if (r == 0)
			r = cfs_ns_wipe(ns, 'x', ino, false);
		cfs_key_inode(&key, ino);
		if (r == 0)
			r = cfs_levels_del(ns->levels, cfs_key_slice(&key));
		if (r == 0)
			r = cfs_levels_del(ns->levels, k);
		cfs_store_leave(ns->store);
	}
	return r;
}

static int any_xattr(struct cfs_ns *ns)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice k, v;
	struct cfs_key key;
	int r;

	cfs_key_prefix(&key, 'x', 0);
	r = cfs_levels_iter(ns->levels, cfs_key_slice(&key),
			    (struct cfs_slice){NULL, 0}, &iter);
	if (r == 0)
		r = iter->ops->next(iter, &k, &v);
	if (r < 0)
		return r;
	atomic_store_explicit(&ns->has_xattrs, r > 0, memory_order_relaxed);
	return 0;
}

static int start(struct cfs_ns *ns)
{
	int r = setting_get(ns, "next_ino", CFS_ROOT_INO + 1, &ns->ino_limit);

	/* 1 and 2 are "." and ".." in a listing */
	if (r == 0)
		r = setting_get(ns, "next_cookie", 3, &ns->cookie_limit);
	ns->next_ino = ns->ino_limit;
	ns->next_cookie = ns->cookie_limit;
	if (r == 0)
		r = make_root(ns);
	if (r == 0 && !cfs_store_read_only(ns->store))
		r = remove_orphans(ns);
	if (r == 0)
		r = any_xattr(ns);
	return r;
}

static void ns_free(struct cfs_ns *ns)
{
	cfs_ino_drop_all(ns);
	(void)pthread_rwlock_destroy(&ns->names);
	(void)pthread_mutex_destroy(&ns->absent_lock);
	(void)pthread_mutex_destroy(&ns->table_lock);
	(void)pthread_mutex_destroy(&ns->number_lock);
	(void)pthread_cond_destroy(&ns->loaded);
	free(ns);
}

static struct cfs_ns *ns_alloc(struct cfs_store *store,
			       const struct cfs_ns_options *options)
{
	struct cfs_ns *ns = calloc(1, sizeof(*ns));
	pthread_rwlockattr_t attr;

	if (!ns)
		return NULL;
	ns->buckets = calloc(BUCKETS, sizeof(struct cfs_ino *));
	if (!ns->buckets) {
		free(ns);
		return NULL;
	}
	ns->n_buckets = BUCKETS;
	ns->store = store;
	ns->levels = cfs_store_levels(store);
	ns->sniffer = options ? options->sniffer : NULL;
	ns->dev = cfs_hash64(cfs_store_config(store)->uuid, 16, 0);
	(void)pthread_rwlockattr_init(&attr);
	(void)pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	(void)pthread_rwlock_init(&ns->names, &attr);
	(void)pthread_rwlockattr_destroy(&attr);
	(void)pthread_mutex_init(&ns->absent_lock, NULL);
	(void)pthread_mutex_init(&ns->table_lock, NULL);
	(void)pthread_mutex_init(&ns->number_lock, NULL);
	(void)pthread_cond_init(&ns->loaded, NULL);
	return ns;
}

int cfs_ns_open(struct cfs_store *store, const struct cfs_ns_options *options,
		struct cfs_ns **ns_out, struct cfs_error *err)
{
	struct cfs_ns *ns = ns_alloc(store, options);
	struct cfs_participant participant = cfs_ns_participant;
	int r;

	if (!ns)
		return cfs_fail(err, -ENOMEM, "no memory for the namespace");
	r = start(ns);
	if (r < 0) {
		ns_free(ns);
		return cfs_fail(err, r, "the namespace of %s cannot be opened",
				cfs_store_path(store));
	}
	participant.arg = ns;
	cfs_store_set_participant(store, &participant);
	*ns_out = ns;
	return 0;
}

int cfs_ns_close(struct cfs_ns *ns)
{
	int r = 0;

	if (!ns)
		return 0;
	/* What one commit seals may leave inodes that died to the next. */
	for (int i = 0; i < 3 && r == 0; i++) {
		bool more;

		if (i) {
			(void)pthread_mutex_lock(&ns->table_lock);
			more = ns->dirty || ns->dead;
			(void)pthread_mutex_unlock(&ns->table_lock);
			if (!more)
				break;
		}
		r = cfs_store_commit(ns->store);
	}
	cfs_store_set_participant(ns->store, NULL);
	ns_free(ns);
	return r;
}

struct cfs_store *cfs_ns_store(struct cfs_ns *ns)
{
	return ns->store;
}

int cfs_ns_sync(struct cfs_ns *ns)
{
	return cfs_store_commit(ns->store);
}

int cfs_ns_statfs(struct cfs_ns *ns, struct statvfs *out)
{
	return cfs_store_statfs(ns->store, out);
}
