/*
 * The central directory.  It is read at once, every entry is checked against
 * the file and against its neighbours; local headers are left to zip_entry.c,
 * so that an archive of 10,000 records costs two reads.
 */
#include <errno.h>
#include <string.h>

#include "fs/container/u64map.h"
#include "fs/container/zip.h"
#include "fs/container/zip_format.h"
#include "store/map/source.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/error.h"
#include "store/util/hash.h"

#define COMMENT_MAX 65535

struct tail {
	struct cfs_buf bytes; /* the last ones of the file, or all of it */
	uint64_t off;	      /* where they start */
};

struct directory {
	uint64_t off, size, count;
	uint64_t end_off; /* of the records behind it */
};

static void tail_free(struct tail *tail)
{
	cfs_buf_free(&tail->bytes);
}

/* Both are read with the rest of the tail in nearly every case. */
static int read_span(struct cfs_file *file, const struct tail *tail,
		     uint64_t off, size_t len, struct cfs_buf *spare,
		     const uint8_t **out)
{
	uint8_t *p;
	int r;

	if (off >= tail->off &&
	    cfs_range_ok(off - tail->off, len, tail->bytes.len)) {
		*out = tail->bytes.data + (off - tail->off);
		return 0;
	}
	p = cfs_buf_grow(spare, len);
	if (!p)
		return -ENOMEM;
	r = cfs_file_pread_all(file, p, len, off);
	*out = p;
	return r;
}

static int read_tail(struct cfs_file *file, uint64_t size, struct tail *tail)
{
	const size_t len = (size_t)CFS_MIN(
		size, (uint64_t)(COMMENT_MAX + ZIP_END_SIZE + ZIP_END64_SIZE +
				 ZIP_LOCATOR_SIZE));
	uint8_t *p = cfs_buf_grow(&tail->bytes, len);

	if (!p)
		return -ENOMEM;
	tail->off = size - len;
	return cfs_file_pread_all(file, p, len, tail->off);
}

/* The end record whose comment reaches exactly to the end of the file. */
static const uint8_t *find_end(const struct tail *tail)
{
	const uint8_t *data = tail->bytes.data;
	const size_t len = tail->bytes.len;

	if (len < ZIP_END_SIZE)
		return NULL;
	for (size_t at = len - ZIP_END_SIZE + 1; at-- > 0;) {
		if (cfs_get_le32(data + at) == ZIP_END_SIG &&
		    at + ZIP_END_SIZE + cfs_get_le16(data + at + 20) == len)
			return data + at;
	}
	return NULL;
}

/* Replaces what the end record says by what the zip64 one says. */
static int read_end64(struct cfs_file *file, const struct tail *tail,
		      uint64_t end_off, struct directory *dir,
		      struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf spare = CFS_BUF_INIT;
	const uint8_t *p;
	uint64_t off;
	int r;

	if (end_off < ZIP_LOCATOR_SIZE)
		return 0;
	r = read_span(file, tail, end_off - ZIP_LOCATOR_SIZE, ZIP_LOCATOR_SIZE,
		      &spare, &p);
	if (r < 0)
		return r;
	if (cfs_get_le32(p) != ZIP_LOCATOR_SIG)
		return 0;
	off = cfs_get_le64(p + 8);
	if (cfs_get_le32(p + 4) || cfs_get_le32(p + 16) > 1)
		return cfs_fail(err, -EBADMSG, "zip: spans several disks");
	if (!cfs_range_ok(off, ZIP_END64_SIZE, end_off - ZIP_LOCATOR_SIZE))
		return cfs_fail(err, -EBADMSG,
				"zip: zip64 end record outside the file");
	r = read_span(file, tail, off, ZIP_END64_SIZE, &spare, &p);
	if (r < 0)
		return r;
	if (cfs_get_le32(p) != ZIP_END64_SIG)
		return cfs_fail(err, -EBADMSG,
				"zip: no zip64 end record where the locator "
				"points (bytes before the archive?)");
	if (cfs_get_le32(p + 16) || cfs_get_le32(p + 20) ||
	    cfs_get_le64(p + 24) != cfs_get_le64(p + 32))
		return cfs_fail(err, -EBADMSG, "zip: spans several disks");
	dir->count = cfs_get_le64(p + 32);
	dir->size = cfs_get_le64(p + 40);
	dir->off = cfs_get_le64(p + 48);
	dir->end_off = off;
	return 0;
}

static int find_directory(struct cfs_file *file, const struct tail *tail,
			  struct directory *dir, struct cfs_error *err)
{
	const uint8_t *end = find_end(tail);
	int r;

	if (!end)
		return cfs_fail(err, -EBADMSG,
				"zip: no end record (truncated file?)");
	dir->end_off = tail->off + (uint64_t)(end - tail->bytes.data);
	dir->count = cfs_get_le16(end + 10);
	dir->size = cfs_get_le32(end + 12);
	dir->off = cfs_get_le32(end + 16);
	r = read_end64(file, tail, dir->end_off, dir, err);
	if (r < 0)
		return r;
	if (cfs_get_le16(end + 4) || cfs_get_le16(end + 6))
		return cfs_fail(err, -EBADMSG, "zip: spans several disks");
	if (!cfs_range_ok(dir->off, dir->size, dir->end_off))
		return cfs_fail(err, -EBADMSG,
				"zip: central directory outside the file");
	if (dir->size > CFS_ZIP_DIRECTORY_MAX)
		return cfs_fail(err, -E2BIG,
				"zip: central directory of %llu bytes",
				(unsigned long long)dir->size);
	if (dir->count > dir->size / ZIP_CENTRAL_SIZE)
		return cfs_fail(err, -EBADMSG,
				"zip: %llu entries cannot fit the central "
				"directory",
				(unsigned long long)dir->count);
	return 0;
}

/* One 64-bit value out of the extra field, if the short one stands for it. */
static bool take64(const uint8_t **p, size_t *left, uint64_t *v)
{
	if (*v != UINT32_MAX)
		return true;
	if (*left < 8)
		return false;
	*v = cfs_get_le64(*p);
	*p += 8;
	*left -= 8;
	return true;
}

static bool read_extra64(const uint8_t *extra, size_t len,
			 struct cfs_zip_entry *e)
{
	if (e->usize != UINT32_MAX && e->csize != UINT32_MAX &&
	    e->header_off != UINT32_MAX)
		return true;
	while (len >= 4) {
		const uint16_t id = cfs_get_le16(extra);
		size_t n = cfs_get_le16(extra + 2);

		extra += 4;
		len -= 4;
		if (n > len)
			return false;
		if (id == ZIP_EXTRA64)
			return take64(&extra, &n, &e->usize) &&
			       take64(&extra, &n, &e->csize) &&
			       take64(&extra, &n, &e->header_off);
		extra += n;
		len -= n;
	}
	return false;
}

static int check_entry(const struct cfs_zip_entry *e, struct cfs_error *err)
{
	if (e->flags & ZIP_FLAGS_REFUSED)
		return cfs_fail(err, -EBADMSG,
				"zip: record '%.200s' is encrypted or patched",
				e->name);
	if (e->method == ZIP_STORED && e->csize != e->usize)
		return cfs_fail(err, -EBADMSG,
				"zip: stored record '%.200s' has two sizes",
				e->name);
	return 0;
}

/* Entry @i of the directory at @p; its length leaves through @used_out. */
static int read_entry(const uint8_t *p, size_t left, uint64_t i,
		      struct cfs_arena *arena, struct cfs_zip_entry *e,
		      size_t *used_out, struct cfs_error *err)
{
	size_t name_len, extra_len, total;

	if (left < ZIP_CENTRAL_SIZE || cfs_get_le32(p) != ZIP_CENTRAL_SIG)
		return cfs_fail(err, -EBADMSG,
				"zip: directory entry %llu is damaged",
				(unsigned long long)i);
	name_len = cfs_get_le16(p + 28);
	extra_len = cfs_get_le16(p + 30);
	total = ZIP_CENTRAL_SIZE + name_len + extra_len + cfs_get_le16(p + 32);
	if (total > left || !name_len ||
	    memchr(p + ZIP_CENTRAL_SIZE, '\0', name_len))
		return cfs_fail(err, -EBADMSG,
				"zip: directory entry %llu is damaged",
				(unsigned long long)i);
	e->name = cfs_arena_strndup(arena, (const char *)p + ZIP_CENTRAL_SIZE,
				    name_len);
	if (!e->name)
		return -ENOMEM;
	e->flags = cfs_get_le16(p + 8);
	e->method = cfs_get_le16(p + 10);
	e->crc = cfs_get_le32(p + 16);
	e->csize = cfs_get_le32(p + 20);
	e->usize = cfs_get_le32(p + 24);
	e->header_off = cfs_get_le32(p + 42);
	if (!read_extra64(p + ZIP_CENTRAL_SIZE + name_len, extra_len, e))
		return cfs_fail(err, -EBADMSG,
				"zip: record '%.200s' lacks its zip64 sizes",
				e->name);
	if (cfs_get_le16(p + 34))
		return cfs_fail(err, -EBADMSG, "zip: spans several disks");
	*used_out = total;
	return check_entry(e, err);
}

static int check_names(const struct cfs_zip *zip, struct cfs_error *err)
{
	_cleanup_(cfs_u64map_free) struct cfs_u64map seen = CFS_U64MAP_INIT;

	for (uint32_t i = 0; i < zip->n_entries; i++) {
		const char *name = zip->entries[i].name;
		const uint64_t key =
			cfs_hash64(name, strlen(name), cfs_u64map_seed()) | 1;

		/* 63 secret bits: two names do not meet by chance or intent */
		if (cfs_u64map_find(&seen, key))
			return cfs_fail(err, -EBADMSG,
					"zip: two records are named '%.200s'",
					name);
		if (!cfs_u64map_put(&seen, key, i))
			return -ENOMEM;
	}
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct cfs_zip_entry *const *x = a, *const *y = b;

	return ((*x)->header_off > (*y)->header_off) -
	       ((*x)->header_off < (*y)->header_off);
}

/* Records lie one behind the other from offset 0 up to the directory. */
static int check_places(struct cfs_zip *zip, const struct directory *dir,
			struct cfs_error *err)
{
	_cleanup_(cfs_freep) struct cfs_zip_entry **order = NULL;
	const uint32_t n = zip->n_entries;

	order = calloc((size_t)n + 1, sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		order[i] = &zip->entries[i];
	qsort(order, n, sizeof(struct cfs_zip_entry *), by_offset);
	if (n && order[0]->header_off)
		return cfs_fail(err, -EBADMSG,
				"zip: %llu bytes before the first record",
				(unsigned long long)order[0]->header_off);
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_zip_entry *e = order[i];
		const uint64_t fixed = ZIP_LOCAL_SIZE + strlen(e->name);

		e->limit_off = i + 1 < n ? order[i + 1]->header_off : dir->off;
		if (e->limit_off < e->header_off ||
		    e->limit_off - e->header_off < fixed ||
		    e->limit_off - e->header_off - fixed < e->csize)
			return cfs_fail(err, -EBADMSG,
					"zip: record '%.200s' overlaps what "
					"follows it",
					e->name);
	}
	return 0;
}

static int read_entries(const uint8_t *p, const struct directory *dir,
			struct cfs_arena *arena, struct cfs_zip *zip,
			struct cfs_error *err)
{
	size_t left = (size_t)dir->size, used = 0;
	int r;

	for (uint64_t i = 0; i < dir->count; i++) {
		r = read_entry(p, left, i, arena, &zip->entries[i], &used, err);
		if (r < 0)
			return r;
		p += used;
		left -= used;
	}
	if (left)
		return cfs_fail(err, -EBADMSG,
				"zip: %zu stray bytes in the central directory",
				left);
	r = check_names(zip, err);
	if (r < 0)
		return r;
	return check_places(zip, dir, err);
}

int cfs_zip_read(struct cfs_file *file, uint64_t size, struct cfs_arena *arena,
		 struct cfs_zip *zip_out, struct cfs_error *err)
{
	_cleanup_(tail_free) struct tail tail = {CFS_BUF_INIT, 0};
	_cleanup_(cfs_buf_free) struct cfs_buf spare = CFS_BUF_INIT;
	struct directory dir = {0};
	struct cfs_zip zip;
	const uint8_t *p;
	int r;

	r = read_tail(file, size, &tail);
	if (r < 0)
		return cfs_fail(err, r, "zip: the tail cannot be read: %s",
				strerror(-r));
	r = find_directory(file, &tail, &dir, err);
	if (r < 0)
		return r;
	r = read_span(file, &tail, dir.off, (size_t)dir.size, &spare, &p);
	if (r < 0)
		return cfs_fail(err, r, "zip: directory cannot be read: %s",
				strerror(-r));
	zip.n_entries = (uint32_t)dir.count;
	zip.entries = cfs_arena_alloc(arena, (zip.n_entries + (size_t)1) *
						     sizeof(*zip.entries));
	if (!zip.entries)
		return cfs_fail(err, -ENOMEM, "zip: out of memory");
	r = read_entries(p, &dir, arena, &zip, err);
	if (r == -ENOMEM)
		return cfs_fail(err, r, "zip: out of memory");
	if (!r)
		*zip_out = zip;
	return r;
}
