/*
 * The keys and values of the namespace (store/FORMAT.md, "Keys").  Pure; the
 * decoders trust nothing: -EBADMSG.
 */
#ifndef CFS_INDEX_KEYS_H
#define CFS_INDEX_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "store/index/index.h"
#include "store/util/base.h"
#include "store/util/digest.h"

#define CFS_NAME_MAX 255
#define CFS_KEY_MAX  (1 + 8 + CFS_NAME_MAX)
#define CFS_ROOT_INO 1u

struct cfs_key {
	uint8_t data[CFS_KEY_MAX];
	size_t len;
};
static inline struct cfs_slice cfs_key_slice(const struct cfs_key *key)
{
	return (struct cfs_slice){key->data, key->len};
}

/* In groups: */
void cfs_key_inode(struct cfs_key *key, uint64_t ino); /* i */
void cfs_key_dirent(struct cfs_key *key, uint64_t dir, const char *name,
		    size_t len);					 /* d */
void cfs_key_cookie(struct cfs_key *key, uint64_t dir, uint64_t cookie); /* D */
void cfs_key_xattr(struct cfs_key *key, uint64_t ino, const char *name,
		   size_t len);					      /* x */
void cfs_key_extent(struct cfs_key *key, uint64_t ino, uint64_t off); /* e */
void cfs_key_orphan(struct cfs_key *key, uint64_t ino);		      /* o */
void cfs_key_setting(struct cfs_key *key, const char *name);	      /* s */
/* Derived from records, never in groups: */
void cfs_key_chunk(struct cfs_key *key,
		   const struct cfs_digest *digest);			/* c */
void cfs_key_map(struct cfs_key *key, const struct cfs_digest *digest); /* m */
void cfs_key_applied(struct cfs_key *key);				/* t */
bool cfs_key_is_logged(struct cfs_slice key);
/* The prefix of a class, or of all keys of one inode in it (ino 0: class). */
void cfs_key_prefix(struct cfs_key *key, char class, uint64_t ino);
/* Parts back; -EBADMSG. */
CFS_MUST_CHECK int cfs_key_parse_ino(struct cfs_slice key, uint64_t *ino_out);
CFS_MUST_CHECK int cfs_key_parse_u64(struct cfs_slice key, uint64_t *ino_out,
				     uint64_t *second_out); /* D, e */
/* @name_out points into the key: d, x. */
CFS_MUST_CHECK int cfs_key_parse_name(struct cfs_slice key, uint64_t *ino_out,
				      const char **name_out, size_t *len_out);
CFS_MUST_CHECK int cfs_key_parse_digest(struct cfs_slice key,
					struct cfs_digest *out); /* c, m */

/* ---- values ---- */

enum cfs_content_kind {
	CFS_CONTENT_NONE = 0,	 /* no bytes: not a file, or all of it a hole */
	CFS_CONTENT_INLINE = 1,	 /* in the inode: small files, link targets */
	CFS_CONTENT_SEALED = 2,	 /* a content map named by digest */
	CFS_CONTENT_EXTENTS = 3, /* e keys: a file still being changed */
};
#define CFS_INLINE_MAX 2048u

struct cfs_inode_record {
	uint64_t ino;
	uint32_t mode, uid, gid, nlink, rdev;
	uint64_t size, generation;
	uint64_t parent; /* directories: their parent; else 0 */
	struct timespec atime, mtime, ctime, btime;
	enum cfs_content_kind content;
	struct cfs_digest map;	    /* sealed */
	const uint8_t *inline_data; /* inline; borrowed from the bytes */
	uint32_t inline_len;
};
void cfs_inode_encode(const struct cfs_inode_record *record,
		      struct cfs_buf *out);
CFS_MUST_CHECK int cfs_inode_decode(const void *data, size_t len,
				    struct cfs_inode_record *out);

struct cfs_dirent_value {
	uint64_t ino, cookie;
	uint8_t type; /* DT_* */
};
void cfs_dirent_encode(const struct cfs_dirent_value *v, struct cfs_buf *out);
CFS_MUST_CHECK int cfs_dirent_decode(const void *data, size_t len,
				     struct cfs_dirent_value *out);

/*
 * @len bytes of a file are bytes [@chunk_off, +@len) of a chunk.  Extents of a
 * file do not overlap; what none covers is zeros.
 */
struct cfs_extent {
	uint64_t off, len;
	struct cfs_digest digest;
	uint32_t chunk_off;
	uint32_t chunk_len; /* of the whole chunk, uncompressed */
};
void cfs_extent_encode(const struct cfs_extent *e, struct cfs_buf *out);
CFS_MUST_CHECK int cfs_extent_decode(uint64_t off, const void *data, size_t len,
				     struct cfs_extent *out);

struct cfs_object_value { /* c, m: where the record is */
	uint16_t lane;
	uint32_t pack, off, stored_len, raw_len;
};
void cfs_object_encode(const struct cfs_object_value *v, struct cfs_buf *out);
CFS_MUST_CHECK int cfs_object_decode(const void *data, size_t len,
				     struct cfs_object_value *out);

/*
 * A content map: what a sealed file holds.  Level 0 lists extents, level 1
 * lists maps of level 0, CFS_MAP_FANOUT at most each.  The same content gives
 * the same bytes.
 */
#define CFS_MAP_FANOUT 4096u
struct cfs_map_child {
	uint64_t off, len; /* in the file */
	struct cfs_digest digest;
};
struct cfs_content_map { /* free with cfs_content_map_fini() */
	unsigned level;
	uint64_t size; /* of the bytes it describes */
	size_t count;
	struct cfs_extent *extents; /* level 0, offsets from the map's start */
	struct cfs_map_child *children; /* level 1 */
};
void cfs_content_map_fini(struct cfs_content_map *map);
void cfs_content_map_encode(const struct cfs_content_map *map,
			    struct cfs_buf *out);
CFS_MUST_CHECK int cfs_content_map_decode(const void *data, size_t len,
					  struct cfs_content_map *out);

#endif
