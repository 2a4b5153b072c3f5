/* The engine's twin in memory: every change is remembered as an event. */
#include "store/pack/engine_mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct cfs_engine_mem *mem_of(struct cfs_engine *engine)
{
	return container_of(engine, struct cfs_engine_mem, base);
}

static void *grow(void *v, size_t n, size_t size)
{
	/* room for n + 1, doubling where n is a power of two */
	if (n && (n & (n - 1)))
		return v;
	v = reallocarray(v, n ? 2 * n : 1, size);
	if (!v)
		abort();
	return v;
}

static int cmp(struct cfs_pack_id a, struct cfs_pack_id b)
{
	if (a.lane != b.lane)
		return a.lane < b.lane ? -1 : 1;
	return (a.number > b.number) - (a.number < b.number);
}

struct cfs_engine_mem_pack *cfs_engine_mem_find(struct cfs_engine_mem *mem,
						struct cfs_pack_id id)
{
	for (size_t i = 0; i < mem->n_packs; i++)
		if (cmp(mem->packs[i].id, id) == 0)
			return &mem->packs[i];
	return NULL;
}

struct cfs_engine_mem_pack *cfs_engine_mem_add(struct cfs_engine_mem *mem,
					       struct cfs_pack_id id)
{
	size_t i = mem->n_packs;

	mem->packs = grow(mem->packs, mem->n_packs, sizeof(*mem->packs));
	for (; i && cmp(mem->packs[i - 1].id, id) > 0; i--)
		mem->packs[i] = mem->packs[i - 1];
	mem->packs[i] = (struct cfs_engine_mem_pack){.id = id};
	mem->n_packs++;
	return &mem->packs[i];
}

void cfs_engine_mem_drop(struct cfs_engine_mem *mem, struct cfs_pack_id id)
{
	struct cfs_engine_mem_pack *p = cfs_engine_mem_find(mem, id);
	size_t at;

	if (!p)
		return;
	at = (size_t)(p - mem->packs);
	cfs_buf_free(&p->bytes);
	memmove(p, p + 1, (mem->n_packs - at - 1) * sizeof(*p));
	mem->n_packs--;
}

static void put(struct cfs_buf *buf, const void *data, size_t len)
{
	cfs_buf_put(buf, data, len);
	if (buf->failed)
		abort();
}

void cfs_engine_mem_put(struct cfs_engine_mem_pack *pack, const uint8_t *data,
			size_t len, uint64_t off)
{
	if (off + len > pack->bytes.len &&
	    !cfs_buf_grow(&pack->bytes, (size_t)off + len - pack->bytes.len))
		abort();
	if (len)
		memcpy(pack->bytes.data + off, data, len);
}

void cfs_engine_mem_ref_set(struct cfs_engine_mem *mem, const char *name,
			    const struct cfs_buf *value)
{
	struct cfs_engine_mem_ref *ref = NULL;

	for (size_t i = 0; i < mem->n_refs; i++)
		if (!strcmp(mem->refs[i].name, name))
			ref = &mem->refs[i];
	if (!ref) {
		mem->refs = grow(mem->refs, mem->n_refs, sizeof(*mem->refs));
		ref = &mem->refs[mem->n_refs++];
		*ref = (struct cfs_engine_mem_ref){.value = CFS_BUF_INIT};
		(void)snprintf(ref->name, sizeof(ref->name), "%s", name);
	}
	cfs_buf_reset(&ref->value);
	put(&ref->value, value->data, value->len);
}

static struct cfs_engine_mem_event *event(struct cfs_engine_mem *mem,
					  enum cfs_engine_mem_kind kind,
					  struct cfs_pack_id id, uint64_t off)
{
	struct cfs_engine_mem_event *e;

	mem->events = grow(mem->events, mem->n_events, sizeof(*mem->events));
	e = &mem->events[mem->n_events++];
	*e = (struct cfs_engine_mem_event){.kind = kind, .id = id, .off = off};
	return e;
}

static int fails(struct cfs_engine_mem *mem, enum cfs_engine_call call)
{
	if (!mem->fail[call].nth || --mem->fail[call].nth)
		return 0;
	return mem->fail[call].r;
}

static uint64_t taken(const struct cfs_engine_mem *mem)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < mem->n_packs; i++)
		sum += CFS_MAX(mem->packs[i].room,
			       (uint64_t)mem->packs[i].bytes.len);
	return sum;
}

static int mem_create(struct cfs_engine *engine, struct cfs_pack_id id,
		      uint64_t room)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	int r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_CREATE);
	if (r == 0 && cfs_engine_mem_find(mem, id))
		r = -EEXIST;
	if (r == 0 && mem->limit && taken(mem) + room > mem->limit)
		r = -ENOSPC;
	if (r == 0) {
		cfs_engine_mem_add(mem, id)->room = room;
		(void)event(mem, CFS_ENGINE_MEM_CREATE, id, room);
	}
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static void write_locked(struct cfs_engine_mem *mem,
			 struct cfs_engine_mem_pack *p, const struct iovec *iov,
			 int n, uint64_t off, bool half)
{
	struct cfs_engine_mem_event *e =
		event(mem, CFS_ENGINE_MEM_WRITE, p->id, off);

	for (int i = 0; i < n; i++)
		put(&e->data, iov[i].iov_base, iov[i].iov_len);
	if (half)
		e->data.len /= 2;
	cfs_engine_mem_put(p, e->data.data, e->data.len, off);
}

static int mem_write(struct cfs_engine *engine, struct cfs_pack_id id,
		     const struct iovec *iov, int n, uint64_t off)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	struct cfs_engine_mem_pack *p;
	int r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_WRITE);
	p = cfs_engine_mem_find(mem, id);
	if (p) /* a write that fails may have got half way */
		write_locked(mem, p, iov, n, off, r < 0);
	else
		r = -ENOENT;
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static int mem_sync(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	int r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_SYNC);
	if (!cfs_engine_mem_find(mem, id))
		r = -ENOENT;
	else
		(void)event(mem,
			    r < 0 ? CFS_ENGINE_MEM_SYNC_FAILED
				  : CFS_ENGINE_MEM_SYNC,
			    id, 0);
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static int mem_seal(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t size)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	struct cfs_engine_mem_pack *p;
	int r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_SEAL);
	p = cfs_engine_mem_find(mem, id);
	if (!p)
		r = -ENOENT;
	if (r == 0) {
		p->room = 0;
		p->bytes.len = CFS_MIN(p->bytes.len, (size_t)size);
		(void)event(mem, CFS_ENGINE_MEM_SEAL, id, size);
	}
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static bool is_bad(const struct cfs_engine_mem *mem, struct cfs_pack_id id,
		   uint64_t off, size_t len)
{
	for (size_t i = 0; i < mem->n_bad; i++) {
		const struct cfs_place *b = &mem->bad[i];

		if (cmp(b->pack, id) == 0 && off < (uint64_t)b->off + b->len &&
		    b->off < off + len)
			return true;
	}
	return false;
}

static ssize_t mem_read(struct cfs_engine *engine, struct cfs_pack_id id,
			void *buf, size_t len, uint64_t off)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	const struct cfs_engine_mem_pack *p;
	ssize_t r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_READ);
	p = cfs_engine_mem_find(mem, id);
	if (!p)
		r = -ENOENT;
	if (r == 0 && is_bad(mem, id, off, len))
		r = -EIO;
	if (r == 0 && off < p->bytes.len) {
		len = CFS_MIN(len, p->bytes.len - (size_t)off);
		if (len)
			memcpy(buf, p->bytes.data + off, len);
		r = (ssize_t)len;
	}
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static int mem_size(struct cfs_engine *engine, struct cfs_pack_id id,
		    uint64_t *size_out)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	const struct cfs_engine_mem_pack *p;

	pthread_mutex_lock(&mem->lock);
	p = cfs_engine_mem_find(mem, id);
	if (p)
		*size_out = p->bytes.len;
	pthread_mutex_unlock(&mem->lock);
	return p ? 0 : -ENOENT;
}

static int mem_list(struct cfs_engine *engine, cfs_pack_fn *fn, void *arg)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	_cleanup_(cfs_freep) struct cfs_engine_mem_pack *copy = NULL;
	size_t n;
	int r = 0;

	pthread_mutex_lock(&mem->lock);
	n = mem->n_packs;
	copy = calloc(n + 1, sizeof(*copy));
	if (copy && n)
		memcpy(copy, mem->packs, n * sizeof(*copy));
	pthread_mutex_unlock(&mem->lock);
	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = fn(arg, copy[i].id, copy[i].bytes.len);
	return r;
}

static int mem_remove(struct cfs_engine *engine, struct cfs_pack_id id)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	int r;

	pthread_mutex_lock(&mem->lock);
	r = fails(mem, CFS_ENGINE_REMOVE);
	if (r == 0 && !cfs_engine_mem_find(mem, id))
		r = -ENOENT;
	if (r == 0) {
		cfs_engine_mem_drop(mem, id);
		(void)event(mem, CFS_ENGINE_MEM_REMOVE, id, 0);
	}
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static const struct cfs_buf *ref_find(const struct cfs_engine_mem *mem,
				      const char *name)
{
	for (size_t i = 0; i < mem->n_refs; i++)
		if (!strcmp(mem->refs[i].name, name))
			return &mem->refs[i].value;
	return NULL;
}

static int mem_ref_get(struct cfs_engine *engine, const char *name,
		       struct cfs_buf *out)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	const struct cfs_buf *value;

	pthread_mutex_lock(&mem->lock);
	value = ref_find(mem, name);
	if (value)
		cfs_buf_put(out, value->data, value->len);
	pthread_mutex_unlock(&mem->lock);
	if (!value)
		return -ENOENT;
	return out->failed ? -ENOMEM : 0;
}

static int mem_ref_cas(struct cfs_engine *engine, const char *name,
		       const struct cfs_buf *old, const struct cfs_buf *value)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	struct cfs_engine_mem_event *e;
	const struct cfs_buf *now;
	int r = 0;

	if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 60 ||
	    value->len > 4096)
		return -EINVAL;
	pthread_mutex_lock(&mem->lock);
	now = ref_find(mem, name);
	if (!now != !old ||
	    (now && (now->len != old->len ||
		     (now->len && memcmp(now->data, old->data, now->len)))))
		r = -EAGAIN;
	if (r == 0)
		r = fails(mem, CFS_ENGINE_REF);
	if (r == 0) {
		cfs_engine_mem_ref_set(mem, name, value);
		e = event(mem, CFS_ENGINE_MEM_REF, (struct cfs_pack_id){0, 0},
			  0);
		(void)snprintf(e->name, sizeof(e->name), "%s", name);
		put(&e->data, value->data, value->len);
	}
	pthread_mutex_unlock(&mem->lock);
	return r;
}

static int mem_statfs(struct cfs_engine *engine, struct statvfs *out)
{
	struct cfs_engine_mem *mem = mem_of(engine);
	uint64_t total, used;

	pthread_mutex_lock(&mem->lock);
	total = mem->limit ? mem->limit : (uint64_t)1 << 40;
	used = taken(mem);
	pthread_mutex_unlock(&mem->lock);
	*out = (struct statvfs){.f_bsize = 4096,
				.f_frsize = 4096,
				.f_namemax = 255,
				.f_blocks = total / 4096};
	out->f_bfree = used < total ? (total - used) / 4096 : 0;
	out->f_bavail = out->f_bfree;
	return 0;
}

static void mem_advise(struct cfs_engine *engine, struct cfs_pack_id id,
		       uint64_t off, uint64_t len)
{
	(void)engine;
	(void)id;
	(void)off;
	(void)len;
}

static void mem_close(struct cfs_engine *engine)
{
	struct cfs_engine_mem *mem = mem_of(engine);

	for (size_t i = 0; i < mem->n_packs; i++)
		cfs_buf_free(&mem->packs[i].bytes);
	for (size_t i = 0; i < mem->n_refs; i++)
		cfs_buf_free(&mem->refs[i].value);
	for (size_t i = 0; i < mem->n_events; i++)
		cfs_buf_free(&mem->events[i].data);
	for (size_t i = 0; i < mem->n_before; i++)
		cfs_buf_free(&mem->before[i].bytes);
	for (size_t i = 0; i < mem->n_refs_before; i++)
		cfs_buf_free(&mem->refs_before[i].value);
	free(mem->refs_before);
	free(mem->before);
	free(mem->packs);
	free(mem->refs);
	free(mem->events);
	pthread_mutex_destroy(&mem->lock);
	free(mem);
}

static const struct cfs_engine_ops mem_ops = {
	.create = mem_create,
	.write = mem_write,
	.sync = mem_sync,
	.seal = mem_seal,
	.read = mem_read,
	.size = mem_size,
	.list = mem_list,
	.remove = mem_remove,
	.ref_get = mem_ref_get,
	.ref_cas = mem_ref_cas,
	.statfs = mem_statfs,
	.advise = mem_advise,
	.close = mem_close,
};

struct cfs_engine *cfs_engine_mem_new(void)
{
	struct cfs_engine_mem *mem = calloc(1, sizeof(*mem));

	if (!mem)
		return NULL;
	mem->base.ops = &mem_ops;
	pthread_mutex_init(&mem->lock, NULL);
	return &mem->base;
}

void cfs_engine_mem_fail(struct cfs_engine *engine, enum cfs_engine_call call,
			 unsigned nth, int r)
{
	struct cfs_engine_mem *mem = mem_of(engine);

	pthread_mutex_lock(&mem->lock);
	mem->fail[call].nth = nth;
	mem->fail[call].r = r;
	pthread_mutex_unlock(&mem->lock);
}

void cfs_engine_mem_bad(struct cfs_engine *engine, struct cfs_pack_id id,
			uint32_t off, uint32_t len)
{
	struct cfs_engine_mem *mem = mem_of(engine);

	pthread_mutex_lock(&mem->lock);
	if (mem->n_bad < CFS_ARRAY_SIZE(mem->bad))
		mem->bad[mem->n_bad++] = (struct cfs_place){id, off, len};
	pthread_mutex_unlock(&mem->lock);
}

void cfs_engine_mem_limit(struct cfs_engine *engine, uint64_t bytes)
{
	struct cfs_engine_mem *mem = mem_of(engine);

	pthread_mutex_lock(&mem->lock);
	mem->limit = bytes;
	pthread_mutex_unlock(&mem->lock);
}

uint8_t *cfs_engine_mem_bytes(struct cfs_engine *engine, struct cfs_pack_id id,
			      size_t *len_out)
{
	struct cfs_engine_mem_pack *p = cfs_engine_mem_find(mem_of(engine), id);

	if (!p)
		return NULL;
	*len_out = p->bytes.len;
	return p->bytes.data;
}

void cfs_engine_mem_cut(struct cfs_engine *engine, struct cfs_pack_id id,
			size_t len)
{
	struct cfs_engine_mem_pack *p = cfs_engine_mem_find(mem_of(engine), id);

	if (p)
		p->bytes.len = CFS_MIN(p->bytes.len, len);
}
