/* The table at the end of a pack: written when all before it is durable. */
#include "store/pack/packs_internal.h"

#include "store/util/buf.h"
#include "store/util/hash.h"

static int footer_put(struct cfs_packs *packs,
		      const struct cfs_packs_pack *pack, uint64_t *size_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf payload = CFS_BUF_INIT;
	uint8_t head[CFS_RECORD_HEAD_BYTES];
	struct cfs_record record = {.type = CFS_RECORD_FOOTER,
				    .lane = CFS_PACKS_LANE,
				    .number = pack->footer_number};
	struct iovec iov[2];

	cfs_layout_footer_begin(&payload, pack->objects);
	for (size_t i = 0; i < pack->n; i++) {
		const struct cfs_packs_entry *e = &pack->entries[i];

		if (e->type == CFS_RECORD_CHUNK || e->type == CFS_RECORD_MAP)
			cfs_layout_footer_add(
				&payload, &(struct cfs_layout_entry){
						  e->type, e->digest, e->off,
						  e->len, e->raw_len});
	}
	cfs_layout_footer_end(&payload, (uint32_t)pack->end);
	if (payload.failed)
		return -1;
	record.payload_len = (uint32_t)payload.len;
	record.payload_hash = cfs_hash64(payload.data, payload.len, 0);
	cfs_record_encode(&record, packs->seed, head);
	iov[0] = (struct iovec){head, sizeof(head)};
	iov[1] = (struct iovec){payload.data, payload.len};
	*size_out = pack->end + sizeof(head) + payload.len;
	return packs->engine->ops->write(
		packs->engine, cfs_packs_id(pack->number), iov, 2, pack->end);
}

void cfs_packs_footer_write(struct cfs_packs *packs,
			    const struct cfs_packs_pack *pack)
{
	uint64_t size = pack->end;

	/* advice only: a pack without one is read through */
	if (footer_put(packs, pack, &size) < 0)
		size = pack->end;
	(void)packs->engine->ops->seal(packs->engine,
				       cfs_packs_id(pack->number), size);
}
