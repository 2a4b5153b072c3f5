/* Values of one key to bytes and back (store/FORMAT.md, "Keys"). */
#include "store/index/values.h"

#include <errno.h>
#include <string.h>

#include "store/index/keys.h"
#include "store/util/checked.h"
#include "store/util/endian.h"

#define INODE_VERSION  1
#define INODE_FIXED    94u   /* bytes before the content */
#define INLINE_LIMIT   4096u /* a link's target may be that long */
#define DIRENT_BYTES   17u
#define EXTENT_BYTES   48u
#define OBJECT_BYTES   18u
#define RECORD_MAX     (8u << 20)
#define PACK_BYTES_MAX (UINT64_C(1) << 31)
#define NSEC	       1000000000u

/* ---- inode ---- */

static void put_time(struct cfs_buf *out, const struct timespec *t)
{
	cfs_buf_put_le64(out, (uint64_t)t->tv_sec);
	cfs_buf_put_le32(out, (uint32_t)t->tv_nsec);
}

void cfs_inode_encode(const struct cfs_inode_record *record,
		      struct cfs_buf *out)
{
	cfs_buf_put_u8(out, INODE_VERSION);
	cfs_buf_put_u8(out, (uint8_t)record->content);
	cfs_buf_put_le32(out, record->mode);
	cfs_buf_put_le32(out, record->uid);
	cfs_buf_put_le32(out, record->gid);
	cfs_buf_put_le32(out, record->nlink);
	cfs_buf_put_le32(out, record->rdev);
	cfs_buf_put_le64(out, record->size);
	cfs_buf_put_le64(out, record->generation);
	cfs_buf_put_le64(out, record->parent);
	put_time(out, &record->atime);
	put_time(out, &record->mtime);
	put_time(out, &record->ctime);
	put_time(out, &record->btime);
	if (record->content == CFS_CONTENT_INLINE) {
		cfs_buf_put_le32(out, record->inline_len);
		cfs_buf_put(out, record->inline_data, record->inline_len);
	} else if (record->content == CFS_CONTENT_SEALED) {
		cfs_buf_put(out, record->map.bytes, sizeof(record->map.bytes));
	}
}

static bool get_time(const uint8_t *p, struct timespec *out)
{
	out->tv_sec = (time_t)cfs_get_le64(p);
	out->tv_nsec = (long)cfs_get_le32(p + 8);
	return cfs_get_le32(p + 8) < NSEC;
}

/* What follows the fixed part: exactly @len bytes. */
static int get_content(const uint8_t *p, size_t len,
		       struct cfs_inode_record *out)
{
	switch (out->content) {
	case CFS_CONTENT_NONE:
	case CFS_CONTENT_EXTENTS:
		return len ? -EBADMSG : 0;
	case CFS_CONTENT_INLINE:
		if (len < 4 || cfs_get_le32(p) != len - 4 ||
		    len - 4 > INLINE_LIMIT)
			return -EBADMSG;
		out->inline_len = (uint32_t)(len - 4);
		out->inline_data = p + 4;
		return 0;
	case CFS_CONTENT_SEALED:
		if (len != sizeof(out->map.bytes))
			return -EBADMSG;
		memcpy(out->map.bytes, p, len);
		return 0;
	}
	return -EBADMSG;
}

int cfs_inode_decode(const void *data, size_t len, struct cfs_inode_record *out)
{
	struct cfs_inode_record rec = {0};
	const uint8_t *p = data;
	int r;

	if (len && p[0] > INODE_VERSION)
		return -EPROTONOSUPPORT;
	if (len < INODE_FIXED || p[0] != INODE_VERSION ||
	    p[1] > CFS_CONTENT_EXTENTS)
		return -EBADMSG;
	rec.content = (enum cfs_content_kind)p[1];
	rec.mode = cfs_get_le32(p + 2);
	rec.uid = cfs_get_le32(p + 6);
	rec.gid = cfs_get_le32(p + 10);
	rec.nlink = cfs_get_le32(p + 14);
	rec.rdev = cfs_get_le32(p + 18);
	rec.size = cfs_get_le64(p + 22);
	rec.generation = cfs_get_le64(p + 30);
	rec.parent = cfs_get_le64(p + 38);
	if (rec.size > FILE_BYTES_MAX || !get_time(p + 46, &rec.atime) ||
	    !get_time(p + 58, &rec.mtime) || !get_time(p + 70, &rec.ctime) ||
	    !get_time(p + 82, &rec.btime))
		return -EBADMSG;
	r = get_content(p + INODE_FIXED, len - INODE_FIXED, &rec);
	if (r < 0)
		return r;
	*out = rec;
	return 0;
}

/* ---- directory entry ---- */

void cfs_dirent_encode(const struct cfs_dirent_value *v, struct cfs_buf *out)
{
	cfs_buf_put_le64(out, v->ino);
	cfs_buf_put_le64(out, v->cookie);
	cfs_buf_put_u8(out, v->type);
}

int cfs_dirent_decode(const void *data, size_t len,
		      struct cfs_dirent_value *out)
{
	/* FIFO, character device, directory, block device, file, link, socket
	 */
	static const uint8_t types[] = {1, 2, 4, 6, 8, 10, 12};
	const uint8_t *p = data;

	if (len != DIRENT_BYTES || !cfs_get_le64(p) ||
	    !memchr(types, p[16], sizeof(types)))
		return -EBADMSG;
	out->ino = cfs_get_le64(p);
	out->cookie = cfs_get_le64(p + 8);
	out->type = p[16];
	return 0;
}

/* ---- extent ---- */

bool cfs_values_extent_ok(const struct cfs_extent *e, uint64_t size)
{
	return e->len && cfs_range_ok(e->off, e->len, size) &&
	       e->chunk_len <= CHUNK_BYTES_MAX &&
	       cfs_range_ok(e->chunk_off, e->len, e->chunk_len);
}

void cfs_extent_encode(const struct cfs_extent *e, struct cfs_buf *out)
{
	cfs_buf_put_le64(out, e->len);
	cfs_buf_put(out, e->digest.bytes, sizeof(e->digest.bytes));
	cfs_buf_put_le32(out, e->chunk_off);
	cfs_buf_put_le32(out, e->chunk_len);
}

int cfs_extent_decode(uint64_t off, const void *data, size_t len,
		      struct cfs_extent *out)
{
	struct cfs_extent e = {.off = off};
	const uint8_t *p = data;

	if (len != EXTENT_BYTES)
		return -EBADMSG;
	e.len = cfs_get_le64(p);
	memcpy(e.digest.bytes, p + 8, sizeof(e.digest.bytes));
	e.chunk_off = cfs_get_le32(p + 40);
	e.chunk_len = cfs_get_le32(p + 44);
	if (!cfs_values_extent_ok(&e, FILE_BYTES_MAX))
		return -EBADMSG;
	*out = e;
	return 0;
}

/* ---- where an object's record is ---- */

void cfs_object_encode(const struct cfs_object_value *v, struct cfs_buf *out)
{
	uint8_t lane[2];

	cfs_put_le16(lane, v->lane);
	cfs_buf_put(out, lane, sizeof(lane));
	cfs_buf_put_le32(out, v->pack);
	cfs_buf_put_le32(out, v->off);
	cfs_buf_put_le32(out, v->stored_len);
	cfs_buf_put_le32(out, v->raw_len);
}

int cfs_object_decode(const void *data, size_t len,
		      struct cfs_object_value *out)
{
	struct cfs_object_value v;
	const uint8_t *p = data;

	if (len != OBJECT_BYTES)
		return -EBADMSG;
	v.lane = cfs_get_le16(p);
	v.pack = cfs_get_le32(p + 2);
	v.off = cfs_get_le32(p + 6);
	v.stored_len = cfs_get_le32(p + 10);
	v.raw_len = cfs_get_le32(p + 14);
	if (!v.pack || v.stored_len > RECORD_MAX ||
	    v.raw_len > CHUNK_BYTES_MAX ||
	    !cfs_range_ok(v.off, v.stored_len, PACK_BYTES_MAX))
		return -EBADMSG;
	*out = v;
	return 0;
}
