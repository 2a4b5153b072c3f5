/* One record: its local header, its bytes. */
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "fs/container/zip.h"
#include "fs/container/zip_format.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/error.h"

#define READ_STEP	  ((size_t)1 << 20)
#define DEFLATE_RATIO_MAX 1032

static int refuse(const struct cfs_zip_entry *e, const char *what,
		  struct cfs_error *err)
{
	return cfs_fail(err, -EBADMSG, "zip: record '%.200s': %s", e->name,
			what);
}

/* The local header may leave sizes out (zip64, descriptor), but not lie. */
static bool sizes_agree(const struct cfs_zip_entry *e, const uint8_t *p)
{
	const uint32_t csize = cfs_get_le32(p + 18);
	const uint32_t usize = cfs_get_le32(p + 22);

	if (cfs_get_le16(p + 6) & ZIP_FLAG_DESCRIPTOR)
		return (!csize || csize == UINT32_MAX || csize == e->csize) &&
		       (!usize || usize == UINT32_MAX || usize == e->usize);
	return (csize == UINT32_MAX || csize == e->csize) &&
	       (usize == UINT32_MAX || usize == e->usize);
}

int cfs_zip_payload(struct cfs_file *file, uint64_t size,
		    const struct cfs_zip_entry *entry, uint64_t *off_out,
		    struct cfs_error *err)
{
	const size_t name_len = strlen(entry->name);
	_cleanup_(cfs_freep) uint8_t *p = NULL;
	uint64_t off;
	int r;

	if (!cfs_range_ok(entry->header_off, ZIP_LOCAL_SIZE + name_len, size))
		return refuse(entry, "outside the file", err);
	p = malloc(ZIP_LOCAL_SIZE + name_len);
	if (!p)
		return -ENOMEM;
	r = cfs_file_pread_all(file, p, ZIP_LOCAL_SIZE + name_len,
			       entry->header_off);
	if (r < 0)
		return cfs_fail(err, r, "zip: record '%.200s': %s", entry->name,
				strerror(-r));
	if (cfs_get_le32(p) != ZIP_LOCAL_SIG)
		return refuse(entry, "no local header where it should be", err);
	if (cfs_get_le16(p + 26) != name_len ||
	    memcmp(p + ZIP_LOCAL_SIZE, entry->name, name_len))
		return refuse(entry, "its local header has another name", err);
	if (cfs_get_le16(p + 8) != entry->method ||
	    cfs_get_le16(p + 6) & ZIP_FLAGS_REFUSED || !sizes_agree(entry, p))
		return refuse(entry, "local header and directory disagree",
			      err);
	off = entry->header_off + ZIP_LOCAL_SIZE + name_len +
	      cfs_get_le16(p + 28);
	if (!cfs_range_ok(off, entry->csize, CFS_MIN(size, entry->limit_off)))
		return refuse(entry, "overlaps what follows it", err);
	*off_out = off;
	return 0;
}

/* Feeds the compressed bytes to @z, whose output is the whole record. */
static int inflate_from(struct cfs_file *file, uint64_t off, uint64_t left,
			z_stream *z, const struct cfs_zip_entry *entry,
			struct cfs_error *err)
{
	_cleanup_(cfs_freep) uint8_t *in = malloc(READ_STEP);
	int r, state = Z_OK;

	if (!in)
		return -ENOMEM;
	while (left && state == Z_OK) {
		const size_t n = (size_t)CFS_MIN(left, (uint64_t)READ_STEP);

		r = cfs_file_pread_all(file, in, n, off);
		if (r < 0)
			return cfs_fail(err, r, "zip: record '%.200s': %s",
					entry->name, strerror(-r));
		off += n;
		left -= n;
		z->next_in = in;
		z->avail_in = (uInt)n;
		while (z->avail_in && state == Z_OK)
			state = inflate(z, Z_NO_FLUSH);
	}
	if (state != Z_STREAM_END || left || z->avail_in || z->avail_out)
		return refuse(entry, "damaged or not of the size it should be",
			      err);
	return 0;
}

/* zlib counts in 32 bits; a caller that wants more deflated data is wrong. */
static int inflate_record(struct cfs_file *file, uint64_t off,
			  const struct cfs_zip_entry *entry, uint8_t *out,
			  struct cfs_error *err)
{
	uint8_t none; /* inflate() wants an address even for no bytes */
	z_stream z = {0};
	int r;

	if (entry->usize > UINT32_MAX)
		return cfs_fail(err, -E2BIG,
				"zip: deflated record '%.200s' of %llu bytes",
				entry->name, (unsigned long long)entry->usize);
	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		return -ENOMEM;
	z.next_out = entry->usize ? out : &none;
	z.avail_out = (uInt)entry->usize;
	r = inflate_from(file, off, entry->csize, &z, entry, err);
	(void)inflateEnd(&z);
	return r;
}

int cfs_zip_extract(struct cfs_file *file, uint64_t size,
		    const struct cfs_zip_entry *entry, size_t max,
		    struct cfs_buf *out, struct cfs_error *err)
{
	const size_t before = out->len;
	uint64_t off = 0;
	uint8_t *p;
	int r;

	if (entry->method != ZIP_STORED && entry->method != ZIP_DEFLATED)
		return cfs_fail(err, -ENOTSUP,
				"zip: record '%.200s' uses compression %u",
				entry->name, entry->method);
	if (entry->method == ZIP_DEFLATED &&
	    entry->usize / DEFLATE_RATIO_MAX > entry->csize)
		return refuse(entry, "larger than deflate can make it", err);
	if (entry->usize > max)
		return cfs_fail(err, -E2BIG,
				"zip: record '%.200s' of %llu bytes",
				entry->name, (unsigned long long)entry->usize);
	r = cfs_zip_payload(file, size, entry, &off, err);
	if (r < 0)
		return r;
	p = cfs_buf_grow(out, (size_t)entry->usize);
	if (!p)
		return -ENOMEM;
	r = entry->method == ZIP_DEFLATED
		    ? inflate_record(file, off, entry, p, err)
		    : cfs_file_pread_all(file, p, (size_t)entry->usize, off);
	if (!r && entry->crc &&
	    crc32_z(0, p, (size_t)entry->usize) != entry->crc)
		r = refuse(entry, "its bytes do not match its CRC", err);
	if (r < 0)
		out->len = before;
	return r;
}
