/* Payloads of PACK and FOOTER records (store/FORMAT.md, "Packs"). */
#include "store/pack/layout.h"

#include <errno.h>
#include <string.h>

#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

static const uint8_t trailer_magic[4] = {'C', 'F', 'S', 'F'};

struct head {
	uint8_t version[4], uuid[16], number[4], prev[4], prev_end[4],
		snapshot_pack[4], snapshot_off[4], room[4];
};
_Static_assert(sizeof(struct head) == CFS_LAYOUT_HEAD_BYTES, "on-disk size");

struct entry {
	uint8_t type, digest[32], off[4], len[4], raw_len[4];
};
_Static_assert(sizeof(struct entry) == CFS_LAYOUT_ENTRY_BYTES, "on-disk size");

void cfs_layout_head_encode(const struct cfs_layout_head *head,
			    uint8_t out[CFS_LAYOUT_HEAD_BYTES])
{
	struct head h;

	cfs_put_le32(h.version, head->version);
	memcpy(h.uuid, head->uuid, sizeof(h.uuid));
	cfs_put_le32(h.number, head->number);
	cfs_put_le32(h.prev, head->prev);
	cfs_put_le32(h.prev_end, head->prev_end);
	cfs_put_le32(h.snapshot_pack, head->snapshot.pack);
	cfs_put_le32(h.snapshot_off, head->snapshot.off);
	cfs_put_le32(h.room, head->room);
	memcpy(out, &h, sizeof(h));
}

int cfs_layout_head_parse(const void *data, size_t len,
			  struct cfs_record *record_out,
			  struct cfs_layout_head *head_out)
{
	struct cfs_layout_head out = {0};
	struct cfs_record record;
	struct head h;
	int r;

	r = cfs_record_decode(data, len, 0, &record);
	if (r < 0)
		return r;
	if (record.type != CFS_RECORD_PACK ||
	    record.payload_len < sizeof(h.version) ||
	    record.payload_len > len - CFS_RECORD_HEAD_BYTES)
		return -EBADMSG;
	data = (const uint8_t *)data + CFS_RECORD_HEAD_BYTES;
	if (cfs_hash64(data, record.payload_len, 0) != record.payload_hash)
		return -EBADMSG;
	out.version = cfs_get_le32(data);
	if (out.version > CFS_LAYOUT_VERSION)
		return -EPROTONOSUPPORT;
	if (record.payload_len != sizeof(h) || out.version == 0)
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	memcpy(out.uuid, h.uuid, sizeof(h.uuid));
	out.number = cfs_get_le32(h.number);
	out.prev = cfs_get_le32(h.prev);
	out.prev_end = cfs_get_le32(h.prev_end);
	out.snapshot.pack = cfs_get_le32(h.snapshot_pack);
	out.snapshot.off = cfs_get_le32(h.snapshot_off);
	out.room = cfs_get_le32(h.room);
	/* the chain must lead backwards, or following it would not end */
	if (out.number == 0 || out.prev >= out.number)
		return -EBADMSG;
	*record_out = record;
	*head_out = out;
	return 0;
}

uint64_t cfs_layout_footer_bytes(size_t n)
{
	return CFS_RECORD_HEAD_BYTES + 4 +
	       (uint64_t)n * CFS_LAYOUT_ENTRY_BYTES + CFS_LAYOUT_TRAILER;
}

void cfs_layout_footer_begin(struct cfs_buf *out, size_t n)
{
	cfs_buf_put_le32(out, (uint32_t)n);
}

void cfs_layout_footer_add(struct cfs_buf *out,
			   const struct cfs_layout_entry *entry)
{
	struct entry e;

	e.type = (uint8_t)entry->type;
	memcpy(e.digest, entry->digest.bytes, sizeof(e.digest));
	cfs_put_le32(e.off, entry->off);
	cfs_put_le32(e.len, entry->len);
	cfs_put_le32(e.raw_len, entry->raw_len);
	cfs_buf_put(out, &e, sizeof(e));
}

void cfs_layout_footer_end(struct cfs_buf *out, uint32_t at)
{
	cfs_buf_put_le32(out, at);
	cfs_buf_put(out, trailer_magic, sizeof(trailer_magic));
}

int cfs_layout_trailer(const uint8_t tail[CFS_LAYOUT_TRAILER], uint32_t *at_out)
{
	if (memcmp(tail + 4, trailer_magic, sizeof(trailer_magic)) != 0)
		return -ENOENT;
	*at_out = cfs_get_le32(tail);
	return 0;
}

static void entry_get(const uint8_t *data, struct cfs_layout_entry *out)
{
	struct entry e;

	memcpy(&e, data, sizeof(e));
	out->type = (enum cfs_record_type)e.type;
	memcpy(out->digest.bytes, e.digest, sizeof(e.digest));
	out->off = cfs_get_le32(e.off);
	out->len = cfs_get_le32(e.len);
	out->raw_len = cfs_get_le32(e.raw_len);
}

/* Records lie one behind the other, each with its head before it. */
static bool entry_ok(const struct cfs_layout_entry *e, uint64_t before,
		     uint32_t at)
{
	return (e->type == CFS_RECORD_CHUNK || e->type == CFS_RECORD_MAP) &&
	       e->len <= CFS_RECORD_MAX &&
	       e->off >= before + CFS_RECORD_HEAD_BYTES &&
	       cfs_range_ok(e->off, e->len, at);
}

int cfs_layout_footer_parse(const void *data, size_t len, uint32_t at,
			    cfs_layout_entry_fn *fn, void *arg)
{
	uint64_t before = CFS_LAYOUT_FIRST;
	const uint8_t *p = data;
	struct cfs_layout_entry e;
	uint32_t n, trailer_at;
	int r;

	if (len < 4 + CFS_LAYOUT_TRAILER)
		return -EBADMSG;
	n = cfs_get_le32(p);
	if (n > CFS_LAYOUT_ENTRIES_MAX ||
	    len != 4 + (size_t)n * CFS_LAYOUT_ENTRY_BYTES + CFS_LAYOUT_TRAILER)
		return -EBADMSG;
	if (cfs_layout_trailer(p + len - CFS_LAYOUT_TRAILER, &trailer_at) < 0 ||
	    trailer_at != at)
		return -EBADMSG;
	p += 4;
	for (uint32_t i = 0; i < n; i++) {
		entry_get(p + (size_t)i * CFS_LAYOUT_ENTRY_BYTES, &e);
		if (!entry_ok(&e, before, at))
			return -EBADMSG;
		before = (uint64_t)e.off + e.len;
	}
	for (uint32_t i = 0; i < n; i++) {
		entry_get(p + (size_t)i * CFS_LAYOUT_ENTRY_BYTES, &e);
		r = fn(arg, &e);
		if (r)
			return r;
	}
	return 0;
}
