/* The table of inodes in memory: references, changes that wait for a cut. */
#include "store/ns/ns_internal.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#include "store/util/log.h"

static size_t bucket_of(const struct cfs_ns *ns, uint64_t ino)
{
	return (size_t)(ino * 0x9e3779b97f4a7c15ull >> 20) % ns->n_buckets;
}

/* table_lock held. */
static struct cfs_ino *find(const struct cfs_ns *ns, uint64_t ino)
{
	struct cfs_ino *i = ns->buckets[bucket_of(ns, ino)];

	while (i && i->ino != ino)
		i = i->hash_next;
	return i;
}

static void unhash(struct cfs_ns *ns, struct cfs_ino *ino)
{
	struct cfs_ino **p = &ns->buckets[bucket_of(ns, ino->ino)];

	while (*p != ino)
		p = &(*p)->hash_next;
	*p = ino->hash_next;
	ns->n_inos--;
}

/* Twice the buckets if that is worth it; goes without where memory lacks. */
static void spread(struct cfs_ns *ns)
{
	size_t n = ns->n_buckets * 2, old = ns->n_buckets;
	struct cfs_ino **v, **from = ns->buckets;

	if (ns->n_inos < ns->n_buckets)
		return;
	v = calloc(n, sizeof(struct cfs_ino *));
	if (!v)
		return;
	ns->buckets = v;
	ns->n_buckets = n;
	for (size_t b = 0; b < old; b++) {
		while (from[b]) {
			struct cfs_ino *i = from[b];
			size_t to = bucket_of(ns, i->ino);

			from[b] = i->hash_next;
			i->hash_next = v[to];
			v[to] = i;
		}
	}
	free(from);
}

static struct cfs_ino *alloc(struct cfs_ns *ns, uint64_t number)
{
	struct cfs_ino *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->ns = ns;
	i->ino = number;
	i->refs = 1;
	i->cur.lo = UINT64_MAX;
	i->epoch = ++ns->epoch;
	(void)pthread_mutex_init(&i->io, NULL);
	(void)pthread_mutex_init(&i->lock, NULL);
	return i;
}

/* table_lock held. */
static void insert(struct cfs_ns *ns, struct cfs_ino *i)
{
	size_t b;

	spread(ns);
	b = bucket_of(ns, i->ino);
	i->hash_next = ns->buckets[b];
	ns->buckets[b] = i;
	ns->n_inos++;
}

void cfs_ino_free(struct cfs_ino *ino)
{
	cfs_stream_end(ino);
	cfs_pieces_unref(ino->cur.pieces);
	if (ino->staged)
		cfs_pieces_unref(ino->staged->pieces);
	free(ino->staged);
	free(ino->name);
	(void)pthread_mutex_destroy(&ino->io);
	(void)pthread_mutex_destroy(&ino->lock);
	free(ino);
}

static int read_record(struct cfs_ino *i)
{
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record rec;
	struct cfs_key key;
	int r;

	cfs_key_inode(&key, i->ino);
	r = cfs_levels_get(i->ns->levels, cfs_key_slice(&key), &val);
	if (r < 0)
		return r;
	r = cfs_inode_decode(val.data, val.len, &rec);
	if (r < 0)
		return cfs_log_err(r, "inode %llu cannot be decoded",
				   (unsigned long long)i->ino);
	i->mode = rec.mode;
	i->type = rec.mode & S_IFMT;
	i->uid = rec.uid;
	i->gid = rec.gid;
	i->nlink = rec.nlink;
	i->rdev = rec.rdev;
	i->generation = rec.generation;
	i->parent = rec.parent;
	i->atime = rec.atime;
	i->ctime = rec.ctime;
	i->btime = rec.btime;
	i->cur.size = i->due = rec.size;
	i->cur.mtime = rec.mtime;
	i->kind = rec.content;
	i->map = rec.map;
	i->has_keys = rec.content == CFS_CONTENT_EXTENTS;
	return 0;
}

/* Loads @i, which is in the table as LOADING; table_lock held. */
static int load(struct cfs_ns *ns, struct cfs_ino *i)
{
	int r;

	(void)pthread_mutex_unlock(&ns->table_lock);
	r = read_record(i);
	(void)pthread_mutex_lock(&ns->table_lock);
	if (r < 0) {
		unhash(ns, i);
		cfs_ino_free(i);
	} else {
		i->state = CFS_INO_LIVE;
	}
	(void)pthread_cond_broadcast(&ns->loaded);
	return r;
}

int cfs_ino_get(struct cfs_ns *ns, uint64_t ino, struct cfs_ino **out)
{
	struct cfs_ino *i;
	int r = 0;

	(void)pthread_mutex_lock(&ns->table_lock);
	while ((i = find(ns, ino)) && i->state == CFS_INO_LOADING)
		(void)pthread_cond_wait(&ns->loaded, &ns->table_lock);
	if (i && i->state == CFS_INO_DEAD) {
		r = -ENOENT;
	} else if (i) {
		i->refs++;
	} else {
		i = alloc(ns, ino);
		if (i) {
			insert(ns, i);
			r = load(ns, i);
		} else {
			r = -ENOMEM;
		}
	}
	(void)pthread_mutex_unlock(&ns->table_lock);
	if (!r)
		*out = i;
	return r;
}

struct cfs_ino *cfs_ino_new(struct cfs_ns *ns, uint64_t ino)
{
	struct cfs_ino *i = alloc(ns, ino);

	if (!i)
		return NULL;
	i->state = CFS_INO_LIVE;
	(void)pthread_mutex_lock(&ns->table_lock);
	insert(ns, i);
	(void)pthread_mutex_unlock(&ns->table_lock);
	return i;
}

/* One reference less; the inode, if it is to be freed.  table_lock held. */
static struct cfs_ino *drop(struct cfs_ino *ino)
{
	struct cfs_ns *ns = ino->ns;

	assert(ino->refs);
	if (--ino->refs || ino->state == CFS_INO_DEAD)
		return NULL;
	if (ino->nlink) {
		unhash(ns, ino);
		return ino;
	}
	/* nobody can reach it any more: the next cut removes its keys */
	ino->state = CFS_INO_DEAD;
	ino->refs = 1;
	ino->list_next = ns->dead;
	ns->dead = ino;
	ns->n_dead++;
	return NULL;
}

void cfs_ino_put(struct cfs_ino *ino)
{
	struct cfs_ns *ns;
	struct cfs_ino *gone;

	if (!ino)
		return;
	ns = ino->ns;
	(void)pthread_mutex_lock(&ns->table_lock);
	gone = drop(ino);
	(void)pthread_mutex_unlock(&ns->table_lock);
	if (gone)
		cfs_ino_free(gone);
}

void cfs_ino_putp(struct cfs_ino **ino)
{
	cfs_ino_put(*ino);
}

void cfs_ino_looked_up(struct cfs_ino *ino)
{
	(void)pthread_mutex_lock(&ino->ns->table_lock);
	if (!ino->lookups++)
		ino->refs++;
	(void)pthread_mutex_unlock(&ino->ns->table_lock);
}

void cfs_ns_forget(struct cfs_ns *ns, uint64_t ino, uint64_t n)
{
	struct cfs_ino *i, *gone = NULL;

	(void)pthread_mutex_lock(&ns->table_lock);
	i = find(ns, ino);
	if (i && i->lookups) {
		i->lookups -= CFS_MIN(n, i->lookups);
		if (!i->lookups)
			gone = drop(i);
	}
	(void)pthread_mutex_unlock(&ns->table_lock);
	if (gone)
		cfs_ino_free(gone);
}

void cfs_ino_mark(struct cfs_ino *ino)
{
	struct cfs_ns *ns = ino->ns;

	(void)pthread_mutex_lock(&ns->table_lock);
	if (!ino->listed) {
		ino->listed = true;
		ino->refs++;
		ino->list_next = ns->dirty;
		ns->dirty = ino;
		ns->n_dirty++;
	}
	(void)pthread_mutex_unlock(&ns->table_lock);
}

struct timespec cfs_ino_now(const struct cfs_ino *ino)
{
	const struct timespec *c = &ino->ctime;
	struct timespec t;

	(void)clock_gettime(CLOCK_REALTIME, &t);
	if (t.tv_sec > c->tv_sec ||
	    (t.tv_sec == c->tv_sec && t.tv_nsec > c->tv_nsec))
		return t;
	t = *c;
	if (++t.tv_nsec == 1000000000) {
		t.tv_nsec = 0;
		t.tv_sec++;
	}
	return t;
}

void cfs_ino_changed(struct cfs_ino *ino, uint64_t lo)
{
	if (ino->marker)
		cfs_ns_points(ino->ns);
	ino->cur.dirty = true;
	ino->cur.lo = CFS_MIN(ino->cur.lo, lo);
	ino->ctime = cfs_ino_now(ino);
	ino->cur.mtime = ino->ctime;
	cfs_ino_mark(ino);
}

void cfs_ino_record(const struct cfs_ino *ino, const struct cfs_content *c,
		    struct cfs_inode_record *out)
{
	*out = (struct cfs_inode_record){
		.ino = ino->ino,
		.mode = ino->mode,
		.uid = ino->uid,
		.gid = ino->gid,
		.nlink = ino->nlink,
		.rdev = ino->rdev,
		.size = c->size,
		.generation = ino->generation,
		.parent = ino->parent,
		.atime = ino->atime,
		.mtime = c->mtime,
		.ctime = ino->ctime,
		.btime = ino->btime,
		.content = ino->kind,
		.map = ino->map,
	};
}

static int save_now(struct cfs_ino *ino)
{
	_cleanup_(cfs_buf_free) struct cfs_buf data = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf val = CFS_BUF_INIT;
	struct cfs_inode_record rec;
	struct cfs_key key;
	int r;

	cfs_ino_record(ino, &ino->cur, &rec);
	if (rec.content == CFS_CONTENT_INLINE) {
		r = cfs_ino_inline(ino, &data);
		if (r < 0)
			return r;
		rec.inline_data = data.data;
		rec.inline_len = (uint32_t)data.len;
	}
	cfs_inode_encode(&rec, &val);
	if (val.failed)
		return -ENOMEM;
	cfs_key_inode(&key, ino->ino);
	return cfs_levels_put(ino->ns->levels, cfs_key_slice(&key),
			      (struct cfs_slice){val.data, val.len});
}

void cfs_ino_save(struct cfs_ino *ino)
{
	/* What a cut has taken down or will is its to write: it knows which
	 * content goes with the attributes. */
	if (!ino->listed && !ino->in_cut && !ino->cur.dirty && !ino->staged &&
	    save_now(ino) == 0)
		return;
	ino->meta_dirty = true;
	cfs_ino_mark(ino);
}

void cfs_ino_stat(const struct cfs_ino *ino, struct stat *st)
{
	uint64_t bytes = ino->cur.size;

	if (ino->cur.pieces)
		bytes = cfs_pieces_bytes(ino->cur.pieces);
	else if (ino->kind == CFS_CONTENT_NONE)
		bytes = 0;
	memset(st, 0, sizeof(*st));
	st->st_dev = ino->ns->dev;
	st->st_ino = ino->ino;
	st->st_mode = ino->mode;
	st->st_nlink = ino->nlink;
	st->st_uid = ino->uid;
	st->st_gid = ino->gid;
	st->st_rdev = ino->rdev;
	st->st_size = (off_t)ino->cur.size;
	st->st_blksize = CFS_BLOCK_BYTES;
	st->st_blocks = (blkcnt_t)(bytes / 512 + (bytes % 512 != 0));
	st->st_atim = ino->atime;
	st->st_mtim = ino->cur.mtime;
	st->st_ctim = ino->ctime;
}

void cfs_ino_forget_dead(struct cfs_ino *ino)
{
	(void)pthread_mutex_lock(&ino->ns->table_lock);
	unhash(ino->ns, ino);
	(void)pthread_mutex_unlock(&ino->ns->table_lock);
	cfs_ino_free(ino);
}

void cfs_ino_drop_all(struct cfs_ns *ns)
{
	for (size_t b = 0; b < ns->n_buckets; b++) {
		while (ns->buckets[b]) {
			struct cfs_ino *i = ns->buckets[b];

			ns->buckets[b] = i->hash_next;
			cfs_ino_free(i);
		}
	}
	free(ns->buckets);
	ns->buckets = NULL;
}
