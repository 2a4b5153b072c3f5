/* Batches to bytes and back (store/FORMAT.md, "Batch"). */
#include "store/index/index.h"

#include <assert.h>
#include <errno.h>

#include "store/util/endian.h"

enum {
	OP_PUT = 1,
	OP_DEL = 2
};

void cfs_batch_fini(struct cfs_batch *batch)
{
	cfs_buf_free(&batch->bytes);
	batch->count = 0;
}

static void put_key(struct cfs_buf *out, uint8_t op, struct cfs_slice key)
{
	uint8_t head[3];

	assert(key.len > 0 && key.len <= UINT16_MAX);
	head[0] = op;
	cfs_put_le16(head + 1, (uint16_t)key.len);
	cfs_buf_put(out, head, sizeof(head));
	cfs_buf_put(out, key.data, key.len);
}

void cfs_batch_put(struct cfs_batch *batch, struct cfs_slice key,
		   struct cfs_slice val)
{
	assert(val.len <= UINT32_MAX);
	put_key(&batch->bytes, OP_PUT, key);
	cfs_buf_put_le32(&batch->bytes, (uint32_t)val.len);
	cfs_buf_put(&batch->bytes, val.data, val.len);
	batch->count++;
}

void cfs_batch_del(struct cfs_batch *batch, struct cfs_slice key)
{
	put_key(&batch->bytes, OP_DEL, key);
	batch->count++;
}

struct cursor {
	const uint8_t *at;
	size_t left;
};

/* NULL: there are not that many. */
static const uint8_t *take(struct cursor *c, size_t n)
{
	const uint8_t *p = c->at;

	if (n > c->left)
		return NULL;
	c->at += n;
	c->left -= n;
	return p;
}

/* One entry; @has_val_out false: a delete. */
static int take_entry(struct cursor *c, struct cfs_slice *key_out,
		      struct cfs_slice *val_out, bool *has_val_out)
{
	const uint8_t *head = take(c, 3), *p;

	if (!head || (head[0] != OP_PUT && head[0] != OP_DEL))
		return -EBADMSG;
	key_out->len = cfs_get_le16(head + 1);
	key_out->data = take(c, key_out->len);
	if (!key_out->len || !key_out->data)
		return -EBADMSG;
	*has_val_out = head[0] == OP_PUT;
	if (!*has_val_out)
		return 0;
	p = take(c, 4);
	if (!p)
		return -EBADMSG;
	val_out->len = cfs_get_le32(p);
	val_out->data = take(c, val_out->len);
	return val_out->data ? 0 : -EBADMSG;
}

int cfs_batch_each(const void *data, size_t len, cfs_batch_fn *fn, void *arg)
{
	struct cursor c = {data, len};

	while (c.left) {
		struct cfs_slice key = {NULL, 0}, val = {NULL, 0};
		bool has_val;
		int r = take_entry(&c, &key, &val, &has_val);

		if (r < 0)
			return r;
		r = fn(arg, key, has_val ? &val : NULL);
		if (r)
			return r;
	}
	return 0;
}
