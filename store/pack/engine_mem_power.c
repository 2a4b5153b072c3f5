/*
 * What a disk holds after the power went.  Of each pack: the writes that a
 * successful sync covers, then a choice of the others.  Writes that a failed
 * sync has seen are never covered: the kernel may have dropped them.
 */
#include "store/pack/engine_mem.h"

#include <string.h>

static uint64_t next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static bool same(struct cfs_pack_id a, struct cfs_pack_id b)
{
	return a.number == b.number && a.lane == b.lane;
}

/* Is event @i certain once the first @n have happened? */
static bool is_durable(const struct cfs_engine_mem *mem, size_t i, size_t n)
{
	for (size_t j = i + 1; j < n; j++) {
		const struct cfs_engine_mem_event *e = &mem->events[j];

		if (!same(e->id, mem->events[i].id))
			continue;
		if (e->kind == CFS_ENGINE_MEM_SYNC)
			return true;
		if (e->kind == CFS_ENGINE_MEM_SYNC_FAILED &&
		    mem->events[i].kind == CFS_ENGINE_MEM_WRITE)
			return false;
	}
	return false;
}

static void garble(uint8_t *data, size_t len, uint64_t *state)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)next(state);
}

static void put_write(struct cfs_engine_mem_pack *pack,
		      const struct cfs_engine_mem_event *e, uint64_t *state)
{
	size_t len = e->data.len, part = len ? next(state) % len : 0;
	uint8_t *at;

	switch (next(state) % 6) {
	case 0: /* missing */
		return;
	case 1: /* torn: the front is there */
		cfs_engine_mem_put(pack, e->data.data, part, e->off);
		return;
	case 2: /* torn: the front is not */
		cfs_engine_mem_put(pack, e->data.data + part, len - part,
				   e->off + part);
		return;
	case 3:
	case 4: /* its blocks are, or some of them, the bytes are not */
		cfs_engine_mem_put(pack, e->data.data, len, e->off);
		at = pack->bytes.data + e->off;
		memset(at + part, 0, len - part);
		if (next(state) % 2)
			garble(at + part, len - part, state);
		return;
	default:
		cfs_engine_mem_put(pack, e->data.data, len, e->off);
	}
}

static void happen(struct cfs_engine_mem *to,
		   const struct cfs_engine_mem_event *e, bool certain,
		   uint64_t *state)
{
	struct cfs_engine_mem_pack *pack = cfs_engine_mem_find(to, e->id);

	switch (e->kind) {
	case CFS_ENGINE_MEM_CREATE:
		if (!pack && (certain || next(state) % 4))
			(void)cfs_engine_mem_add(to, e->id);
		break;
	case CFS_ENGINE_MEM_WRITE:
		if (pack && certain)
			cfs_engine_mem_put(pack, e->data.data, e->data.len,
					   e->off);
		else if (pack)
			put_write(pack, e, state);
		break;
	case CFS_ENGINE_MEM_REMOVE:
		if (certain || next(state) % 4)
			cfs_engine_mem_drop(to, e->id);
		break;
	case CFS_ENGINE_MEM_REF:
		cfs_engine_mem_ref_set(to, e->name, &e->data);
		break;
	case CFS_ENGINE_MEM_SYNC:
	case CFS_ENGINE_MEM_SYNC_FAILED:
	case CFS_ENGINE_MEM_SEAL:
		break;
	}
}

static void put_pack(struct cfs_engine_mem *to,
		     const struct cfs_engine_mem_pack *from)
{
	struct cfs_engine_mem_pack *pack = cfs_engine_mem_add(to, from->id);

	pack->room = from->room;
	cfs_engine_mem_put(pack, from->bytes.data, from->bytes.len, 0);
}

/* What is on the disk now is there for good: the next cut begins with it. */
static void remember(struct cfs_engine_mem *mem)
{
	mem->before = calloc(mem->n_packs + 1, sizeof(*mem->before));
	if (!mem->before)
		abort();
	for (; mem->n_before < mem->n_packs; mem->n_before++) {
		const struct cfs_engine_mem_pack *p =
			&mem->packs[mem->n_before];
		struct cfs_engine_mem_pack *b = &mem->before[mem->n_before];

		b->id = p->id;
		b->room = p->room;
		cfs_engine_mem_put(b, p->bytes.data, p->bytes.len, 0);
	}
	mem->refs_before = calloc(mem->n_refs + 1, sizeof(*mem->refs_before));
	if (!mem->refs_before)
		abort();
	for (; mem->n_refs_before < mem->n_refs; mem->n_refs_before++) {
		const struct cfs_engine_mem_ref *ref =
			&mem->refs[mem->n_refs_before];
		struct cfs_engine_mem_ref *b =
			&mem->refs_before[mem->n_refs_before];

		memcpy(b->name, ref->name, sizeof(b->name));
		cfs_buf_put(&b->value, ref->value.data, ref->value.len);
		if (b->value.failed)
			abort();
	}
}

size_t cfs_engine_mem_events(struct cfs_engine *engine)
{
	struct cfs_engine_mem *mem =
		container_of(engine, struct cfs_engine_mem, base);
	size_t n;

	pthread_mutex_lock(&mem->lock);
	n = mem->n_events;
	pthread_mutex_unlock(&mem->lock);
	return n;
}

struct cfs_engine *cfs_engine_mem_after_power_cut(struct cfs_engine *engine,
						  size_t events, uint64_t seed)
{
	struct cfs_engine_mem *from =
		container_of(engine, struct cfs_engine_mem, base);
	struct cfs_engine *out = cfs_engine_mem_new();
	struct cfs_engine_mem *to;
	uint64_t state = seed;

	if (!out)
		return NULL;
	to = container_of(out, struct cfs_engine_mem, base);
	pthread_mutex_lock(&from->lock);
	for (size_t i = 0; i < from->n_before; i++)
		put_pack(to, &from->before[i]);
	for (size_t i = 0; i < from->n_refs_before; i++)
		cfs_engine_mem_ref_set(to, from->refs_before[i].name,
				       &from->refs_before[i].value);
	for (size_t i = 0; i < CFS_MIN(events, from->n_events); i++)
		happen(to, &from->events[i],
		       !seed || is_durable(from, i, events), &state);
	pthread_mutex_unlock(&from->lock);
	remember(to);
	return out;
}
