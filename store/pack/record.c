/* The 72 bytes before every payload (store/FORMAT.md, "Record head"). */
#include "store/pack/packs.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"
#include "store/util/hash.h"

static const uint8_t magic[4] = {'C', 'F', 'S', 'r'};

struct head {
	uint8_t magic[4], type, flags, lane[2], number[8], payload_len[4],
		raw_len[4], digest[32], payload_hash[8], head_hash[8];
};
_Static_assert(sizeof(struct head) == CFS_RECORD_HEAD_BYTES, "on-disk size");

static uint64_t hash(const struct head *h, uint64_t seed)
{
	/* whose a pack is is read from its PACK record */
	if (h->type == CFS_RECORD_PACK)
		seed = 0;
	return cfs_hash64(h, offsetof(struct head, head_hash), seed);
}

void cfs_record_encode(const struct cfs_record *record, uint64_t seed,
		       uint8_t out[CFS_RECORD_HEAD_BYTES])
{
	struct head h;

	memcpy(h.magic, magic, sizeof(magic));
	h.type = (uint8_t)record->type;
	h.flags = record->flags;
	cfs_put_le16(h.lane, record->lane);
	cfs_put_le64(h.number, record->number);
	cfs_put_le32(h.payload_len, record->payload_len);
	cfs_put_le32(h.raw_len, record->raw_len);
	memcpy(h.digest, record->digest.bytes, sizeof(h.digest));
	cfs_put_le64(h.payload_hash, record->payload_hash);
	cfs_put_le64(h.head_hash, hash(&h, seed));
	memcpy(out, &h, sizeof(h));
}

int cfs_record_decode(const void *data, size_t len, uint64_t seed,
		      struct cfs_record *out)
{
	struct cfs_record r = {0};
	struct head h;

	if (len < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	if (memcmp(h.magic, magic, sizeof(magic)) != 0 ||
	    cfs_get_le64(h.head_hash) != hash(&h, seed))
		return -EBADMSG;
	if ((h.type < CFS_RECORD_PACK || h.type > CFS_RECORD_FOOTER) &&
	    (h.flags & CFS_RECORD_MUST_KNOW))
		return -EPROTONOSUPPORT;
	r.type = (enum cfs_record_type)h.type;
	r.flags = h.flags;
	r.lane = cfs_get_le16(h.lane);
	r.number = cfs_get_le64(h.number);
	r.payload_len = cfs_get_le32(h.payload_len);
	r.raw_len = cfs_get_le32(h.raw_len);
	memcpy(r.digest.bytes, h.digest, sizeof(h.digest));
	r.payload_hash = cfs_get_le64(h.payload_hash);
	if (r.payload_len > CFS_RECORD_MAX || r.number == 0)
		return -EBADMSG;
	*out = r;
	return 0;
}
