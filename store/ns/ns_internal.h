/*
 * What the files of store/ns share.
 *
 *   cfs_ino      an inode in memory: attributes and, once asked for, content
 *   cfs_pieces   its content: sorted pieces, each of a chunk or of a blob
 *   cfs_blob     bytes not yet known by digest: in memory, on their way, stored
 *   cfs_stream   the tail that appending grows, and where it is to be cut
 *
 * Lock order: names > io (of one inode) > cfs_store_enter() > lock (of the same
 * inode) > table_lock > the lock of a blob.  io is held while ingest blocks, so
 * no commit ever takes it; what a commit takes (lock, table_lock, blobs) is
 * held for memory operations only.  Changes of lock's fields that a group must
 * see whole happen between enter and leave.
 */
#ifndef CFS_NS_NS_INTERNAL_H
#define CFS_NS_NS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/chunk/chunker.h"
#include "store/core/store.h"
#include "store/index/keys.h"
#include "store/ns/content.h"
#include "store/ns/ns.h"

#define CFS_FILE_BYTES_MAX (1ull << 62)
#define CFS_STAGED_MAX	   (64u << 10)
#define CFS_BLOCK_BYTES	   (1u << 20) /* st_blksize */

/* What appending keeps; guarded by io.  Active while there is a chunker. */
struct cfs_stream {
	struct cfs_chunker *chunker;
	struct cfs_blob *tail; /* NULL: nothing since the last cut */
	uint64_t start;	       /* in the file, of the tail's first byte */
	void *sniff;
	uint64_t sniff_want;
};

/* The bytes of a file at one moment. */
struct cfs_content {
	struct cfs_pieces *pieces; /* NULL: not loaded, as persisted says */
	uint64_t size;
	struct timespec mtime;
	bool dirty;  /* pieces or size differ from what is in the levels */
	uint64_t lo; /* pieces before this offset do not */
};

enum cfs_ino_state {
	CFS_INO_LOADING,
	CFS_INO_LIVE,
	CFS_INO_DEAD
};

struct cfs_ino {
	struct cfs_ns *ns;
	uint64_t ino;
	mode_t type; /* S_IFMT of mode, never changes */

	/* guarded by table_lock */
	struct cfs_ino *hash_next;
	enum cfs_ino_state state;
	unsigned refs;		   /* lookups (as one), opens, lists, callers */
	uint64_t lookups;	   /* the kernel's */
	struct cfs_ino *list_next; /* dirty or dead */
	bool listed;		   /* dirty */

	pthread_mutex_t io;
	struct cfs_stream stream; /* guarded by io */
	uint64_t overlay_bytes;	  /* in blobs that are not the tail; by io */

	pthread_mutex_t lock; /* all below */
	uint32_t mode, uid, gid, nlink, rdev;
	uint64_t generation, parent;
	struct timespec atime, ctime, btime;
	struct cfs_content cur;
	struct cfs_content *staged; /* what recovery shows until it is closed */
	enum cfs_content_kind kind; /* as persisted (or being so) */
	struct cfs_digest map;	    /* kind sealed */
	bool meta_dirty;
	bool in_cut;	/* taken down by the commit under way */
	bool has_keys;	/* there may be e keys */
	bool marker;	/* found under a completion marker's name */
	uint64_t due;	/* the next group has what lies before it */
	unsigned opens; /* handles */
	uint64_t epoch; /* blobs of an older one may be in a snapshot */
	char *name;	/* a hint for the sniffer; or NULL */
};

struct cfs_pin { /* content that somebody holds; zeros at first */
	struct cfs_pin *prev, *next;
	struct cfs_pieces *pieces;
};

#define CFS_ABSENT 64u

struct cfs_absent { /* a name that is not in @dir; 0: none */
	uint64_t dir;
	size_t len;
	char name[CFS_NAME_MAX];
};

#define CFS_NS_TOLD 64u

struct cfs_ns {
	struct cfs_store *store;
	struct cfs_levels *levels;
	const struct cfs_sniffer_ops *sniffer;
	uint64_t dev; /* of versions: from the store's uuid */

	pthread_rwlock_t names; /* exclusive: names change */

	/* Written by who has names exclusively, or shared with the lock. */
	pthread_mutex_t absent_lock;
	struct cfs_absent absent[CFS_ABSENT];

	pthread_mutex_t table_lock;
	pthread_cond_t loaded;
	struct cfs_ino **buckets;
	size_t n_buckets, n_inos;
	struct cfs_ino *dirty, *dead; /* each holds a reference */
	size_t n_dirty, n_dead;
	struct cfs_pin *pins;

	pthread_mutex_t number_lock;
	uint64_t next_ino, ino_limit; /* of a limit the levels know */
	uint64_t next_cookie, cookie_limit;

	_Atomic uint64_t epoch;
	atomic_bool has_xattrs; /* relaxed: saves look-ups only */
	/* Bytes of closed files' ends since the last cut, about; relaxed. */
	_Atomic size_t waiting;
	_Atomic size_t small; /* files whose end is among them, likewise */
	/* Since the last cut a marker changed, or a name was moved.  Relaxed:
	 * set inside, read when nobody is. */
	atomic_bool pointed;
	atomic_bool crowded; /* somebody commits because of them; relaxed */
	_Atomic uint64_t told[CFS_NS_TOLD]; /* inodes, of damage; relaxed */
};

struct cfs_ns_file {
	struct cfs_ino *ino;
	int flags;

	atomic_bool wrote;  /* since the last flush */
	atomic_bool staged; /* it truncated; closing it ends the staging */
	_Atomic uint64_t next, advised; /* relaxed: read-ahead is a guess */
};

/* ---- node.c: inodes in memory ---- */

/* A reference; -ENOENT also for one that is going away. */
CFS_MUST_CHECK int cfs_ino_get(struct cfs_ns *ns, uint64_t ino,
			       struct cfs_ino **out);
/* A new inode, in the table with one reference; attributes are the caller's
 * to set before its number is known to anyone. */
struct cfs_ino *cfs_ino_new(struct cfs_ns *ns, uint64_t ino);
void cfs_ino_put(struct cfs_ino *ino);
void cfs_ino_putp(struct cfs_ino **ino);
void cfs_ino_looked_up(struct cfs_ino *ino);
/* Inside, lock held: the next cut takes it down. */
void cfs_ino_mark(struct cfs_ino *ino);
/* Content from @lo on differs; times move.  Inside, lock held. */
void cfs_ino_changed(struct cfs_ino *ino, uint64_t lo);
/* Attributes changed, inside, lock held: to the levels at once, or with the
 * next cut. */
void cfs_ino_save(struct cfs_ino *ino);
/* A time that is later than every ctime it had; lock held. */
struct timespec cfs_ino_now(const struct cfs_ino *ino);
void cfs_ino_stat(const struct cfs_ino *ino, struct stat *st); /* lock held */
/* Its attributes and the content @c as a record (inline bytes missing). */
void cfs_ino_record(const struct cfs_ino *ino, const struct cfs_content *c,
		    struct cfs_inode_record *out);
/* Destroys what is left of all; nothing is open. */
void cfs_ino_drop_all(struct cfs_ns *ns);
void cfs_ino_free(struct cfs_ino *ino); /* out of the table */
/* A dead one whose keys are gone: out of the table, freed. */
void cfs_ino_forget_dead(struct cfs_ino *ino);

/* ---- load.c ---- */

/* io held; afterwards cur.pieces is there. */
CFS_MUST_CHECK int cfs_ino_load(struct cfs_ino *ino);
/* io and lock held: forgets clean content that nobody has open. */
void cfs_ino_unload(struct cfs_ino *ino);
/* The inline bytes of @ino as the levels have them. */
CFS_MUST_CHECK int cfs_ino_inline(struct cfs_ino *ino, struct cfs_buf *out);
/* Holds the content as it is now (loads it), also against gc. */
CFS_MUST_CHECK int cfs_ino_pin(struct cfs_ino *ino, struct cfs_pin *pin,
			       struct stat *st);
void cfs_ino_unpin(struct cfs_ns *ns, struct cfs_pin *pin);
/* io held or not; lock held: later changes in place are copies. */
void cfs_ino_share(struct cfs_ino *ino);

/* ---- dirent.c ---- */

/* -ENOENT, -EINVAL, -ENAMETOOLONG. */
CFS_MUST_CHECK int cfs_name_check(const char *name, size_t *len_out);
CFS_MUST_CHECK int cfs_dirent_get(struct cfs_ns *ns, uint64_t dir,
				  const char *name,
				  struct cfs_dirent_value *out);
/* Names come and go by batches, which cfs_levels_apply() takes as a whole:
 * without memory midway all is as it was.  Inside; a new cookie. */
CFS_MUST_CHECK int cfs_dirent_add(struct cfs_ns *ns, struct cfs_batch *batch,
				  uint64_t dir, const char *name, uint64_t ino,
				  mode_t mode);
CFS_MUST_CHECK int cfs_dirent_del(struct cfs_batch *batch, uint64_t dir,
				  const char *name, uint64_t cookie);
CFS_MUST_CHECK int cfs_dir_empty(struct cfs_ns *ns, uint64_t dir);
/* A directory that exists: 0, -ENOTDIR, -ENOENT. */
CFS_MUST_CHECK int cfs_dir_get(struct cfs_ns *ns, uint64_t dir,
			       struct cfs_ino **out);
/* lock held: @ino was given out under @name. */
void cfs_ino_found(struct cfs_ino *ino, const char *name);
/* Inside: a name came or went; @links: subdirectories. */
void cfs_dir_changed(struct cfs_ino *dir, int links);
/* Inside: what one name less changes besides names; a directory loses all. */
void cfs_ino_unlink(const struct cfs_ino *ino, struct cfs_batch *batch);
/* Inside: the batch was applied. */
void cfs_ino_unlinked(struct cfs_ino *ino);

/* ---- absent.c ---- */

/* names shared: it was looked for. */
void cfs_absent_put(struct cfs_ns *ns, uint64_t dir, const char *name);
/* names exclusive: true if it is surely not there; it will be. */
bool cfs_absent_has(struct cfs_ns *ns, uint64_t dir, const char *name);
void cfs_absent_drop(struct cfs_ns *ns, uint64_t dir, const char *name);

/* ---- damage.c ---- */

/* A read failed with @r: where that is damage, the file is named in the log.
 * No lock is held. */
void cfs_ns_tell_damage(struct cfs_ns *ns, uint64_t ino, int r);

/* ---- ns.c ---- */

CFS_MUST_CHECK int cfs_ns_new_ino(struct cfs_ns *ns, uint64_t *out);
CFS_MUST_CHECK int cfs_ns_new_cookie(struct cfs_ns *ns, uint64_t *out);
/* Inside: what may tell that other files are whole changes. */
void cfs_ns_points(struct cfs_ns *ns);
/* Is there room for a change of the namespace? */
CFS_MUST_CHECK int cfs_ns_room(struct cfs_ns *ns);
bool cfs_ns_is_marker(struct cfs_ns *ns, const char *name); /* marker.c */
/* Deletes keys of @ino with class @class, in the levels or the frozen one. */
CFS_MUST_CHECK int cfs_ns_wipe(struct cfs_ns *ns, char class, uint64_t ino,
			       bool frozen);

/* ---- create.c ---- */

struct cfs_make {
	const struct cfs_ns_cred *cred;
	uint64_t dir;
	const char *name;
	mode_t mode;
	dev_t rdev;
	const char *target; /* of a link */
};
/* Looked up; the reference is the caller's too. */
CFS_MUST_CHECK int cfs_ns_make(struct cfs_ns *ns, const struct cfs_make *make,
			       struct stat *st_out, struct cfs_ino **ino_out);

/* ---- stream.c: io held ---- */

bool cfs_stream_at(const struct cfs_ino *ino, uint64_t off);
CFS_MUST_CHECK int cfs_stream_begin(struct cfs_ino *ino, uint64_t off);
/* Where to cut what is appended next; begins a stream at the end. */
CFS_MUST_CHECK int cfs_stream_hint(struct cfs_ino *ino,
				   const struct cfs_region *region);
/* Bytes behind what the stream has; *@room is reserved, what is used of it is
 * taken from it. */
CFS_MUST_CHECK int cfs_stream_append(struct cfs_ino *ino, const void *data,
				     size_t len, uint64_t *room);
/* Nothing follows: cuts what is left and hands it over. */
CFS_MUST_CHECK int cfs_stream_finish(struct cfs_ino *ino);
/* The tail stays, as any other blob. */
void cfs_stream_end(struct cfs_ino *ino);

/* ---- file_write.c, overlay.c, truncate.c: io held ---- */

CFS_MUST_CHECK int cfs_overlay_write(struct cfs_ino *ino, const void *data,
				     size_t len, uint64_t off, uint64_t *room);
/* Hands blobs other than the tail to ingest. */
CFS_MUST_CHECK int cfs_overlay_flush(struct cfs_ino *ino);
/* io not held. */
CFS_MUST_CHECK int cfs_ino_truncate(struct cfs_ino *ino, uint64_t size,
				    bool stage);
void cfs_ino_unstage(struct cfs_ino *ino); /* inside, lock held */

/* ---- resolve.c ---- */

/* Digests for the first @n of @pieces, waiting for what is on its way: an
 * array; blobs still growing are ingested as they are now. */
CFS_MUST_CHECK int cfs_resolve_pieces(struct cfs_ns *ns,
				      const struct cfs_pieces *pieces, size_t n,
				      struct cfs_extent **extents_out);
CFS_MUST_CHECK int cfs_resolve_map(struct cfs_ns *ns,
				   const struct cfs_extent *extents, size_t n,
				   uint64_t size, struct cfs_digest *out);

/* ---- cut.c ---- */

struct cfs_snap { /* of one inode */
	struct cfs_ino *ino;
	struct cfs_inode_record record;
	bool content, seal;
	struct cfs_pieces *pieces;
	size_t n; /* of them count; the rest waits for the next cut */
	uint64_t lo;
	bool had_keys;
};
struct cfs_cut {
	struct cfs_ns *ns;
	struct cfs_snap *snaps;
	size_t n;
	struct cfs_ino *dead;
};
extern const struct cfs_participant cfs_ns_participant; /* arg missing */
int cfs_resolve_cut(struct cfs_cut *cut);		/* resolve.c */

/* ---- file_read.c ---- */

/* [@off, +@len) of @pieces into @buf, zeros where there is nothing. */
CFS_MUST_CHECK int cfs_pieces_read(struct cfs_store *store,
				   const struct cfs_pieces *pieces, void *buf,
				   size_t len, uint64_t off);
CFS_MUST_CHECK int cfs_piece_read(struct cfs_store *store,
				  const struct cfs_piece *piece, uint64_t off,
				  void *buf, size_t len);
void cfs_pieces_advise(struct cfs_store *store, const struct cfs_pieces *pieces,
		       uint64_t off, uint64_t len);
ssize_t cfs_ino_pread(struct cfs_ino *ino, void *buf, size_t len, uint64_t off);

#endif
