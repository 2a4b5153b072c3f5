/* Frames of send and receive: what decodes, encodes to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/daemon/transfer.h"
#include "fs/daemon/transfer_pins.h"
#include "store/chunk/chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void node(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	static struct cfs_transfer_node n;

	if (cfs_transfer_get_node(data, len, &n) < 0)
		return;
	if (strlen(n.path) >= sizeof(n.path) || n.path[0] == '/' ||
	    !strncmp(n.path, "../", 3))
		abort();
	cfs_transfer_put_node(&out, &n.st, n.path, n.target);
	/* but for two reserved bytes */
	if (out.len != len || memcmp(out.data, data, 52) != 0 ||
	    memcmp(out.data + 54, data + 54, len - 54) != 0)
		abort();
}

static void extents(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_extent e[CFS_TRANSFER_EXTENTS_MAX];
	int n = cfs_transfer_get_extents(data, len, e), i;

	for (i = 0; i < n; i++) {
		if (!e[i].len || e[i].chunk_off + e[i].len > e[i].chunk_len ||
		    e[i].chunk_len > CFS_CHUNK_BYTES_MAX)
			abort();
		cfs_transfer_put_extent(&out, &e[i]);
	}
	if (n > 0 && (out.len != len || memcmp(out.data, data, len) != 0))
		abort();
}

static void chunk(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	struct cfs_digest digest, is;

	if (cfs_transfer_get_chunk(data, len, &digest, &raw) < 0)
		return;
	cfs_digest_of(raw.data, raw.len, &is);
	if (cfs_digest_cmp(&digest, &is) != 0)
		abort();
}

static void pin(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_transfer_pins_free) struct cfs_transfer_pins pins = {0};

	if (cfs_transfer_pins_take(&pins, data, len) < 0)
		return;
	if (pins.n != 1 || strlen(pins.list[0].path) != len ||
	    memcmp(pins.list[0].path, data, len) != 0 ||
	    pins.list[0].path[0] == '/')
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	switch (data[0]) {
	case CFS_TRANSFER_NODE:
		node(data + 1, len - 1);
		break;
	case CFS_TRANSFER_EXTENTS:
		extents(data + 1, len - 1);
		break;
	case CFS_TRANSFER_CHUNK:
		chunk(data + 1, len - 1);
		break;
	case CFS_TRANSFER_PIN:
		pin(data + 1, len - 1);
		break;
	default:
		break;
	}
	return 0;
}
