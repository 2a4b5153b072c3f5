/*
 * Bytes as a pack: the record head, the PACK record, and the FOOTER, whatever
 * they claim.  What is understood is written again as the same bytes.
 */
#include "store/pack/layout.h"

#include <stdlib.h>
#include <string.h>

#include "store/util/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct again {
	struct cfs_buf entries;
	size_t n;
	uint64_t before;
};

static int entry(void *arg, const struct cfs_layout_entry *e)
{
	struct again *again = arg;

	if (e->off < again->before + CFS_RECORD_HEAD_BYTES)
		abort();
	again->before = (uint64_t)e->off + e->len;
	again->n++;
	cfs_layout_footer_add(&again->entries, e);
	return 0;
}

/* A FOOTER payload, with the offset it says of itself. */
static void footer(const uint8_t *data, size_t size)
{
	struct again again = {.entries = CFS_BUF_INIT};
	struct cfs_buf out = CFS_BUF_INIT;
	uint32_t at;

	if (size < CFS_LAYOUT_TRAILER ||
	    cfs_layout_trailer(data + size - CFS_LAYOUT_TRAILER, &at) < 0)
		return;
	if (cfs_layout_footer_parse(data, size, at, entry, &again) == 0) {
		cfs_layout_footer_begin(&out, again.n);
		cfs_buf_put(&out, again.entries.data, again.entries.len);
		cfs_layout_footer_end(&out, at);
		if (out.failed || out.len != size ||
		    memcmp(out.data, data, size) != 0 || again.before > at)
			abort();
	}
	cfs_buf_free(&again.entries);
	cfs_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cfs_layout_head head;
	struct cfs_record record;
	uint8_t raw[CFS_LAYOUT_HEAD_BYTES], again[CFS_RECORD_HEAD_BYTES];

	if (cfs_record_decode(data, size, 1, &record) == 0) {
		cfs_record_encode(&record, 1, again);
		if (memcmp(again, data, sizeof(again)) != 0)
			abort();
	}
	if (cfs_layout_head_parse(data, size, &record, &head) == 0) {
		cfs_layout_head_encode(&head, raw);
		if (memcmp(raw, data + CFS_RECORD_HEAD_BYTES, sizeof(raw)) != 0)
			abort();
	}
	footer(data, size);
	if (size > CFS_RECORD_HEAD_BYTES)
		footer(data + CFS_RECORD_HEAD_BYTES,
		       size - CFS_RECORD_HEAD_BYTES);
	return 0;
}
