/* Decode, look, copy, encode; what was encoded must decode to the same. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/container/pickle.h"
#include "store/util/buf.h"
#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct cfs_pickle_limits limits = {.memory_bytes = 32u << 20,
						.depth = 200};

static void look(struct cfs_pickle *doc, const struct cfs_node *node)
{
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *index = NULL;
	uint64_t shape[4];
	uint32_t ndim;

	(void)cfs_node_get(node, "a");
	(void)cfs_node_as_shape(node, 4, &ndim, shape);
	for (uint32_t i = 0; i < cfs_seq_node_count(node); i++)
		assert(cfs_seq_node_item(node, i));
	if (!cfs_node_index_new(node, &index))
		assert(cfs_node_index_get(index, "a") ==
		       cfs_node_get(node, "a"));
	(void)cfs_node_copy(doc, node);
}

/* One generation: decodes @in, encodes what came out.  The docs are kept for
 * comparing. */
static int generation(const struct cfs_buf *in, struct cfs_pickle **doc,
		      struct cfs_node **root, struct cfs_buf *out)
{
	const struct cfs_pickle_limits wide = {.memory_bytes = 1u << 30,
					       .depth = 10000};
	size_t used = 0;
	int r;

	*doc = cfs_pickle_new(&wide);
	if (!*doc)
		return -ENOMEM;
	r = cfs_pickle_decode(*doc, in->data, in->len, root, &used, NULL);
	assert(!r && used == in->len);
	return cfs_pickle_encode(*root, NULL, out, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(&limits);
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *second = NULL;
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *third = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf a = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf c = CFS_BUF_INIT;
	struct cfs_node *root, *root2, *root3;
	struct cfs_error err = {""};
	size_t used;
	int r;

	if (!doc)
		return 0;
	r = cfs_pickle_decode(doc, data, len, &root, &used, &err);
	if (r < 0) {
		assert(r == -EBADMSG || r == -E2BIG || r == -ENOTSUP);
		assert(err.text[0]);
		return 0;
	}
	assert(used <= len);
	look(doc, root);
	assert(cfs_node_equal(root, root));
	if (cfs_pickle_encode(root, NULL, &a, &err))
		return 0; /* a name or a cycle that cannot be written */
	assert(!generation(&a, &second, &root2, &b));
	assert(!generation(&b, &third, &root3, &c));
	assert(cfs_node_equal(root2, root3));
	return 0;
}
