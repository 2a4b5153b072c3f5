/* Room: packs made ahead, what is promised of them, and the next open one. */
#include "store/pack/packs_internal.h"

#include <errno.h>

#include "store/util/hash.h"
#include "store/util/log.h"

/* What is still worth trying on a disk that is nearly full. */
#define ROOM_STEP (64u << 10)

static bool is_full(int r)
{
	return r == -ENOSPC || r == -EDQUOT;
}

/* A pack with nothing in it and no record in its table. */
static uint64_t least(uint64_t len)
{
	return CFS_LAYOUT_FIRST + CFS_RECORD_HEAD_BYTES + len +
	       cfs_layout_footer_bytes(1);
}

int cfs_packs_room_new(struct cfs_packs *packs, uint64_t room, uint64_t need,
		       struct cfs_packs_pack **pack_out)
{
	struct cfs_packs_pack *pack = calloc(1, sizeof(*pack));
	int r;

	if (!pack)
		return -ENOMEM;
	if (packs->newest == UINT32_MAX) {
		free(pack);
		return -ENOSPC;
	}
	pack->number = packs->newest + 1;
	for (;;) {
		pack->room = room;
		r = packs->engine->ops->create(
			packs->engine, cfs_packs_id(pack->number), room);
		if (!is_full(r) || room == need)
			break;
		room = CFS_MAX(need, room / 2);
	}
	if (r < 0) {
		free(pack);
		return is_full(r) ? r : cfs_log_err(r, "no pack can be made");
	}
	packs->newest = pack->number;
	*pack_out = pack;
	return 0;
}

bool cfs_packs_room_fits(const struct cfs_packs_pack *pack, uint64_t len)
{
	uint64_t end = pack->end ? pack->end : CFS_LAYOUT_FIRST;

	return pack->objects < CFS_LAYOUT_ENTRIES_MAX &&
	       end + CFS_RECORD_HEAD_BYTES + len +
			       cfs_layout_footer_bytes(pack->objects + 1) <=
		       pack->room;
}

uint64_t cfs_packs_room_free(const struct cfs_packs_pack *pack)
{
	uint64_t used = (pack->end ? pack->end : CFS_LAYOUT_FIRST) +
			CFS_RECORD_HEAD_BYTES +
			cfs_layout_footer_bytes(pack->objects + 1);

	return used < pack->room ? pack->room - used : 0;
}

static void give_back(struct cfs_packs *packs, struct cfs_packs_pack *pack)
{
	/* what stays behind is empty: the next start removes it */
	(void)packs->engine->ops->remove(packs->engine,
					 cfs_packs_id(pack->number));
	cfs_packs_pack_free(pack);
}

void cfs_packs_room_trim(struct cfs_packs *packs, uint32_t up_to)
{
	while (packs->spares.first && packs->spares.first->number <= up_to)
		give_back(packs, cfs_packs_list_pop(&packs->spares));
}

/* The next pack: numbers must ascend along the chain, so spares that are too
 * small for this record cannot be used later. */
static int next_pack(struct cfs_packs *packs, uint64_t len,
		     struct cfs_packs_pack **pack_out)
{
	uint64_t need = least(len);
	struct cfs_packs_pack *spare;

	while ((spare = cfs_packs_list_pop(&packs->spares))) {
		if (cfs_packs_room_fits(spare, len)) {
			*pack_out = spare;
			return 0;
		}
		give_back(packs, spare);
	}
	return cfs_packs_room_new(packs,
				  CFS_MAX(packs->options.pack_bytes, need),
				  need, pack_out);
}

static int head_write(struct cfs_packs *packs, struct cfs_packs_pack *pack)
{
	struct cfs_layout_head head = {
		.version = CFS_LAYOUT_VERSION,
		.number = pack->number,
		.prev = packs->tail.pack,
		.prev_end = packs->tail.off,
		.snapshot = packs->snapshot,
		.room = (uint32_t)CFS_MIN(pack->room, UINT32_MAX),
	};
	struct cfs_record record = {
		.type = CFS_RECORD_PACK,
		.flags = CFS_RECORD_MUST_KNOW,
		.lane = CFS_PACKS_LANE,
		.number = packs->next_number,
		.payload_len = CFS_LAYOUT_HEAD_BYTES,
	};
	uint8_t raw[CFS_LAYOUT_FIRST];
	struct iovec iov = {raw, sizeof(raw)};

	for (size_t i = 0; i < sizeof(head.uuid); i++)
		head.uuid[i] = packs->options.uuid[i];
	cfs_layout_head_encode(&head, raw + CFS_RECORD_HEAD_BYTES);
	record.payload_hash = cfs_hash64(raw + CFS_RECORD_HEAD_BYTES,
					 CFS_LAYOUT_HEAD_BYTES, 0);
	cfs_record_encode(&record, packs->seed, raw);
	return packs->engine->ops->write(
		packs->engine, cfs_packs_id(pack->number), &iov, 1, 0);
}

int cfs_packs_room_open(struct cfs_packs *packs, uint64_t len)
{
	struct cfs_packs_pack *pack;
	int r;

	if (packs->open && cfs_packs_room_fits(packs->open, len))
		return 0;
	r = next_pack(packs, len, &pack);
	if (r < 0)
		return r;
	cfs_packs_room_close(packs);
	r = head_write(packs, pack);
	if (r < 0) {
		give_back(packs, pack);
		return r;
	}
	packs->next_number++;
	packs->appended += CFS_LAYOUT_FIRST;
	pack->end = CFS_LAYOUT_FIRST;
	packs->open = pack;
	return 0;
}

void cfs_packs_room_close(struct cfs_packs *packs)
{
	struct cfs_packs_pack *pack = cfs_steal(packs->open);

	if (!pack)
		return;
	pack->footer_number = packs->next_number++;
	packs->tail = (struct cfs_position){pack->number, (uint32_t)pack->end};
	cfs_packs_list_add(&packs->closed, pack);
}

/* Does it lie behind the last good end, in a pack not sealed by then? */
static bool in_doubt(const struct cfs_packs_pack *pack,
		     const struct cfs_packs_entry *e)
{
	return e->off > pack->good;
}

void cfs_packs_room_doom(struct cfs_packs *packs, int r)
{
	struct cfs_packs_pack *pack;

	if (packs->open)
		cfs_packs_room_close(packs);
	while ((pack = cfs_packs_list_pop(&packs->closed))) {
		pack->doomed = true;
		pack->keep = pack->number == packs->good.pack;
		pack->good = pack->keep ? packs->good.off : 0;
		for (size_t i = 0; i < pack->n; i++) {
			uint8_t type = pack->entries[i].type;

			if ((type == CFS_RECORD_BATCH ||
			     type == CFS_RECORD_GROUP) &&
			    in_doubt(pack, &pack->entries[i]))
				packs->behind = r;
		}
		cfs_packs_list_add(&packs->doomed, pack);
	}
	packs->tail = packs->good;
	packs->broken = r;
}

/* ---- promises ---- */

/* Records do not fill a pack to its end, and have heads. */
static uint64_t with_waste(uint64_t bytes)
{
	return bytes + bytes / 8;
}

static uint64_t rooms(const struct cfs_packs *packs)
{
	const struct cfs_packs_pack *p;
	uint64_t sum = packs->open ? cfs_packs_room_free(packs->open) : 0;

	for (p = packs->spares.first; p; p = p->next)
		sum += cfs_packs_room_free(p);
	return sum;
}

static int add_spare(struct cfs_packs *packs, uint64_t missing)
{
	struct cfs_packs_pack *pack = NULL;
	uint64_t need = (least(missing) / ROOM_STEP + 1) * ROOM_STEP;
	int r;

	need = CFS_MIN(need, (uint64_t)packs->options.pack_bytes);
	r = cfs_packs_room_new(packs, packs->options.pack_bytes, need, &pack);
	if (r < 0)
		return r;
	cfs_packs_list_add(&packs->spares, pack);
	return 0;
}

int cfs_packs_reserve(struct cfs_packs *packs, uint64_t bytes, bool urgent)
{
	uint64_t want, have;
	int r = 0;

	if (bytes > UINT64_MAX / 4)
		return -ENOSPC;
	pthread_mutex_lock(&packs->lock);
	want = with_waste(packs->promised + bytes) +
	       (urgent ? 0 : packs->options.reserve_bytes);
	while (r == 0 && (have = rooms(packs)) < want)
		r = add_spare(packs, want - have);
	if (r == 0)
		packs->promised += bytes;
	pthread_mutex_unlock(&packs->lock);
	return r;
}

void cfs_packs_unreserve(struct cfs_packs *packs, uint64_t bytes)
{
	pthread_mutex_lock(&packs->lock);
	packs->promised -= CFS_MIN(bytes, packs->promised);
	pthread_mutex_unlock(&packs->lock);
}

int cfs_packs_statfs(struct cfs_packs *packs, struct statvfs *out)
{
	uint64_t kept, have, blocks;
	int r;

	r = packs->engine->ops->statfs(packs->engine, out);
	if (r < 0)
		return r;
	pthread_mutex_lock(&packs->lock);
	have = rooms(packs);
	kept = with_waste(packs->promised) + packs->options.reserve_bytes;
	pthread_mutex_unlock(&packs->lock);
	blocks = have > kept && out->f_frsize ? (have - kept) / out->f_frsize
					      : 0;
	out->f_bfree += blocks;
	out->f_bavail += blocks;
	return 0;
}
