/*
 * Legacy files: five pickles one behind the other (magic, protocol, machine,
 * object, storage keys), then the storages in the order of the keys, each
 * behind its number of elements.
 */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/torch_internal.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/error.h"

#define FIRST_READ	((size_t)1 << 20)
#define LEGACY_PROTOCOL 1001

enum {
	MAGIC,
	PROTOCOL,
	MACHINE,
	OBJECT,
	KEYS,
	N_PICKLES
};

static int decode_all(struct cfs_pickle *doc, const struct cfs_buf *raw,
		      struct cfs_node **roots, size_t *end_out,
		      struct cfs_error *err)
{
	size_t pos = 0, used = 0;
	int r;

	for (unsigned i = 0; i < N_PICKLES; i++) {
		r = cfs_pickle_decode_more(doc, raw->data + pos, raw->len - pos,
					   &roots[i], &used, err);
		if (r < 0)
			return r;
		pos += used;
	}
	*end_out = pos;
	return 0;
}

/* How long the pickles are only their end tells: reads more until it comes */
static int read_pickles(struct cfs_torchfile *tf, struct cfs_file *file,
			struct cfs_node **roots, size_t *end_out,
			struct cfs_error *err)
{
	const struct cfs_pickle_limits limits = tf->doc->limits;
	const uint64_t most = CFS_MIN(tf->size, (uint64_t)limits.memory_bytes);
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	size_t len = (size_t)CFS_MIN(most, (uint64_t)FIRST_READ), old = 0;
	uint8_t *p;
	int r;

	for (;;) {
		p = cfs_buf_grow(&raw, len - old);
		if (!p)
			return -ENOMEM;
		r = cfs_file_pread_all(file, p, len - old, old);
		if (r < 0)
			return cfs_fail(err, r, "cannot be read: %s",
					strerror(-r));
		r = decode_all(tf->doc, &raw, roots, end_out, err);
		if (r != -ENODATA)
			return r;
		if (len == tf->size)
			return -EBADMSG;
		if (len == most)
			return cfs_fail(err, -E2BIG,
					"its pickles need more memory than "
					"allowed");
		old = len;
		len = (size_t)CFS_MIN(most, (uint64_t)len * 4);
		/* what the broken attempt made is not wanted */
		cfs_pickle_free(tf->doc);
		tf->doc = cfs_pickle_new(&limits);
		if (!tf->doc)
			return -ENOMEM;
	}
}

static int check_machine(struct cfs_node *const *roots, struct cfs_error *err)
{
	bool little = true;
	int64_t v;

	if (!cfs_node_as_int(roots[PROTOCOL], &v) || v != LEGACY_PROTOCOL)
		return cfs_fail(err, -EBADMSG,
				"a legacy file of another protocol than 1001");
	(void)cfs_node_as_bool(cfs_node_get(roots[MACHINE], "little_endian"),
			       &little);
	if (!little)
		return cfs_fail(err, -ENOTSUP, "saved on a big-endian machine");
	return 0;
}

/* Each storage follows its predecessor: key order is file order. */
static int place(struct cfs_torchfile *tf, const struct cfs_node *keys,
		 uint64_t off, struct cfs_error *err)
{
	for (uint32_t i = 0; i < cfs_seq_node_count(keys); i++) {
		const char *key = cfs_node_as_str(cfs_seq_node_item(keys, i));
		struct cfs_torch_storage *s;

		s = key ? cfs_torchfile_find(tf, key) : NULL;
		if (!s || s->legacy_root || s->legacy_off)
			return cfs_fail(err, -EBADMSG,
					"storage key %u (%.40s) is unknown or "
					"listed twice",
					i, key ? key : "no string");
		s->legacy_count = s->numel;
		s->legacy_count_off = off;
		s->legacy_off = off + 8;
		if (!cfs_range_ok(off, 8, tf->size) ||
		    !cfs_range_ok(off + 8, s->nbytes, tf->size))
			return cfs_fail(err, -EBADMSG,
					"storage %s ends beyond the file "
					"(truncated?)",
					key);
		off += 8 + s->nbytes;
	}
	return 0;
}

static int place_views(struct cfs_torchfile *tf, struct cfs_error *err)
{
	for (uint32_t i = 0; i < tf->n_storages; i++) {
		struct cfs_torch_storage *s = tf->storages[i];
		const struct cfs_torch_storage *root =
			s->legacy_root ? s->legacy_root : s;

		if (!root->legacy_count_off)
			return cfs_fail(err, -EBADMSG,
					"storage %s is missing in the list of "
					"keys",
					root->key);
		if (root == s)
			continue;
		s->legacy_count = root->legacy_count;
		s->legacy_count_off = root->legacy_count_off;
		/* the element size divides the root's bytes exactly */
		s->legacy_off = root->legacy_off +
				(root->numel ? root->nbytes / root->numel *
						       s->legacy_off
					     : 0);
	}
	return 0;
}

int cfs_torchfile_read_legacy(struct cfs_torchfile *tf, struct cfs_file *file,
			      struct cfs_error *err)
{
	struct cfs_node *roots[N_PICKLES] = {NULL};
	size_t end = 0;
	int r;

	r = read_pickles(tf, file, roots, &end, err);
	if (r < 0)
		return r;
	r = check_machine(roots, err);
	if (r < 0)
		return r;
	if (!roots[KEYS] || roots[KEYS]->kind != CFS_NODE_LIST)
		return cfs_fail(err, -EBADMSG, "no list of storage keys");
	tf->root = roots[OBJECT];
	r = cfs_torchfile_resolve(tf, err);
	if (r < 0)
		return r;
	r = place(tf, roots[KEYS], end, err);
	if (r < 0)
		return r;
	return place_views(tf, err);
}
