/*
 * GROUP records' payloads and the value of `t`.  Byte 0 picks the decoder; what
 * it accepts must encode to the very same bytes, and be what FORMAT.md allows.
 */
#include <stdlib.h>
#include <string.h>

#include "store/core/store_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void try_group(const uint8_t *data, size_t len)
{
	uint8_t again[CFS_GROUP_BYTES];
	struct cfs_group_record g;

	if (cfs_group_decode(data, len, &g) < 0)
		return;
	cfs_group_encode(&g, again);
	if (len != sizeof(again) || memcmp(again, data, len) != 0 ||
	    !g.number || g.synced >= g.number)
		abort();
}

static void try_applied(const uint8_t *data, size_t len)
{
	uint8_t again[CFS_APPLIED_BYTES];
	struct cfs_applied a;

	if (cfs_applied_decode(data, len, &a) < 0)
		return;
	cfs_applied_encode(&a, again);
	if (len != sizeof(again) || memcmp(again, data, len) != 0 || !a.group)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len && data[0] == 0)
		try_group(data + 1, len - 1);
	else if (len && data[0] == 1)
		try_applied(data + 1, len - 1);
	return 0;
}
