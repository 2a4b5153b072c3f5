/*
 * Writing archives byte for byte as torch 2.1 to 2.6 does: what stands before,
 * between and behind the payloads follows from names, sizes and CRCs alone.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/container/zip.h"
#include "fs/container/zip_format.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/grow.h"

#define ALIGNMENT  64
#define BIG	   UINT32_MAX /* sizes and offsets from here on need zip64 */
#define END64_MADE 0x031e
#define END64_NEED 45

struct record {
	char *name;
	uint64_t off, size;
	uint32_t crc;
};

struct cfs_zip_writer {
	struct record *records;
	size_t n, cap;
	uint64_t cursor; /* file offset of what comes next */
	bool open;	 /* begun, not ended */
};

struct cfs_zip_writer *cfs_zip_writer_new(void)
{
	return calloc(1, sizeof(struct cfs_zip_writer));
}

void cfs_zip_writer_free(struct cfs_zip_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->n; i++)
		free(w->records[i].name);
	free(w->records);
	free(w);
}

void cfs_zip_writer_freep(struct cfs_zip_writer **w)
{
	cfs_zip_writer_free(*w);
}

static void put_le16(struct cfs_buf *out, uint32_t v)
{
	cfs_buf_put_u8(out, (uint8_t)v);
	cfs_buf_put_u8(out, (uint8_t)(v >> 8));
}

static void put_clipped(struct cfs_buf *out, uint64_t v)
{
	cfs_buf_put_le32(out, v >= BIG ? BIG : (uint32_t)v);
}

/* Bytes of the zip64 extra field; local ones hold both sizes or none. */
static uint32_t extra64_len(const struct record *r)
{
	const uint32_t n =
		(r->size >= BIG ? 16u : 0u) + (r->off >= BIG ? 8u : 0u);

	return n ? n + 4 : 0;
}

static void put_extra64(struct cfs_buf *out, const struct record *r,
			uint64_t csize)
{
	const uint32_t n = extra64_len(r);

	if (!n)
		return;
	put_le16(out, ZIP_EXTRA64);
	put_le16(out, n - 4);
	if (r->size >= BIG) {
		cfs_buf_put_le64(out, r->size);
		cfs_buf_put_le64(out, csize);
	}
	if (r->off >= BIG)
		cfs_buf_put_le64(out, r->off);
}

static void put_local(struct cfs_buf *out, const struct record *r)
{
	const size_t name_len = strlen(r->name);
	const uint64_t start =
		r->off + ZIP_LOCAL_SIZE + name_len + extra64_len(r) + 4;
	const uint32_t pad =
		(uint32_t)((ALIGNMENT - start % ALIGNMENT) % ALIGNMENT);

	cfs_buf_put_le32(out, ZIP_LOCAL_SIG);
	put_le16(out, 0); /* version needed */
	put_le16(out, ZIP_FLAG_UTF8 | (r->size ? ZIP_FLAG_DESCRIPTOR : 0));
	put_le16(out, ZIP_STORED);
	cfs_buf_put_le32(out, 0); /* time, date */
	cfs_buf_put_le32(out, 0); /* CRC and both sizes: in the descriptor */
	cfs_buf_put_le64(out, 0);
	put_le16(out, (uint32_t)name_len);
	put_le16(out, extra64_len(r) + 4 + pad);
	cfs_buf_put(out, r->name, name_len);
	/* torch leaves the local compressed size 0 */
	put_extra64(out, r, 0);
	cfs_buf_put(out, "FB", 2);
	put_le16(out, pad);
	for (uint32_t i = 0; i < pad; i++)
		cfs_buf_put_u8(out, 'Z');
}

static int add_record(struct cfs_zip_writer *w, const char *name, uint64_t size,
		      uint32_t crc)
{
	struct record *p;

	if (!CFS_GROW(w->records, w->n, w->cap))
		return -ENOMEM;
	p = &w->records[w->n];
	*p = (struct record){strdup(name), w->cursor, size, crc};
	if (!p->name)
		return -ENOMEM;
	w->n++;
	return 0;
}

int cfs_zip_writer_begin(struct cfs_zip_writer *w, const char *name,
			 uint64_t size, uint32_t crc, struct cfs_buf *out)
{
	const size_t before = out->len;
	uint64_t next;
	int r;

	assert(!w->open);
	if (!*name || strlen(name) > UINT16_MAX)
		return -EINVAL;
	/* far enough from the end that headers cannot overflow */
	if (!cfs_add_u64(w->cursor, size, &next) || next > INT64_MAX / 2)
		return -EOVERFLOW;
	r = add_record(w, name, size, crc);
	if (r < 0)
		return r;
	put_local(out, &w->records[w->n - 1]);
	if (out->failed)
		return -ENOMEM;
	w->cursor = next + (out->len - before);
	w->open = true;
	return 0;
}

int cfs_zip_writer_end(struct cfs_zip_writer *w, struct cfs_buf *out)
{
	const size_t before = out->len;
	const struct record *r;

	assert(w->open);
	r = &w->records[w->n - 1];
	w->open = false;
	if (!r->size)
		return 0;
	cfs_buf_put_le32(out, ZIP_DESCRIPTOR_SIG);
	cfs_buf_put_le32(out, r->crc);
	if (extra64_len(r)) {
		cfs_buf_put_le64(out, r->size);
		cfs_buf_put_le64(out, r->size);
	} else {
		cfs_buf_put_le32(out, (uint32_t)r->size);
		cfs_buf_put_le32(out, (uint32_t)r->size);
	}
	w->cursor += out->len - before;
	return out->failed ? -ENOMEM : 0;
}

static void put_central(struct cfs_buf *out, const struct record *r)
{
	const size_t name_len = strlen(r->name);

	cfs_buf_put_le32(out, ZIP_CENTRAL_SIG);
	cfs_buf_put_le32(out, 0); /* versions made by, needed */
	put_le16(out, ZIP_FLAG_UTF8 | (r->size ? ZIP_FLAG_DESCRIPTOR : 0));
	put_le16(out, ZIP_STORED);
	cfs_buf_put_le32(out, 0); /* time, date */
	cfs_buf_put_le32(out, r->crc);
	put_clipped(out, r->size);
	put_clipped(out, r->size);
	put_le16(out, (uint32_t)name_len);
	put_le16(out, extra64_len(r));
	put_le16(out, 0);	  /* comment */
	cfs_buf_put_le64(out, 0); /* disk, attributes */
	put_clipped(out, r->off);
	cfs_buf_put(out, r->name, name_len);
	put_extra64(out, r, r->size);
}

int cfs_zip_writer_finish(struct cfs_zip_writer *w, struct cfs_buf *out)
{
	const size_t before = out->len;
	const uint64_t off = w->cursor;
	uint64_t size;

	assert(!w->open);
	for (size_t i = 0; i < w->n; i++)
		put_central(out, &w->records[i]);
	size = out->len - before;
	if (size >= BIG)
		return -EOVERFLOW;
	cfs_buf_put_le32(out, ZIP_END64_SIG);
	cfs_buf_put_le64(out, ZIP_END64_SIZE - 12);
	put_le16(out, END64_MADE);
	put_le16(out, END64_NEED);
	cfs_buf_put_le64(out, 0); /* disks */
	cfs_buf_put_le64(out, w->n);
	cfs_buf_put_le64(out, w->n);
	cfs_buf_put_le64(out, size);
	cfs_buf_put_le64(out, off);
	cfs_buf_put_le32(out, ZIP_LOCATOR_SIG);
	cfs_buf_put_le32(out, 0);
	cfs_buf_put_le64(out, off + size);
	cfs_buf_put_le32(out, 1);
	cfs_buf_put_le32(out, ZIP_END_SIG);
	cfs_buf_put_le32(out, 0); /* disks */
	put_le16(out, (uint32_t)CFS_MIN(w->n, (size_t)UINT16_MAX));
	put_le16(out, (uint32_t)CFS_MIN(w->n, (size_t)UINT16_MAX));
	cfs_buf_put_le32(out, (uint32_t)size);
	put_clipped(out, off);
	put_le16(out, 0); /* comment */
	w->cursor += out->len - before;
	return out->failed ? -ENOMEM : 0;
}
