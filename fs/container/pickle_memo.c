/* What a pickle put aside, by index. */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_reader.h"

#define FIRST_CAP ((size_t)256)

struct cfs_node *cfs_pickle_memo_get(const struct cfs_pickle_reader *rd,
				     uint64_t index)
{
	const uint64_t *at;

	if (index < rd->cap_memo && rd->memo[index])
		return rd->memo[index];
	at = cfs_u64map_find(&rd->sparse, index + 1);
	return at ? (struct cfs_node *)(uintptr_t)*at : NULL;
}

/* Makes room for @index; false: not worth it, or out of memory. */
static bool grow(struct cfs_pickle_reader *rd, uint64_t index)
{
	const size_t cap = rd->cap_memo ? rd->cap_memo * 2 : FIRST_CAP;
	struct cfs_node **p;

	/* entries take a byte of input each: the array stays within reach */
	if (index >= cap || cap / 4 > rd->len + FIRST_CAP ||
	    cap > rd->doc->limits.memory_bytes / sizeof(*p))
		return false;
	p = realloc(rd->memo, cap * sizeof(*p));
	if (!p)
		return false;
	memset(p + rd->cap_memo, 0, (cap - rd->cap_memo) * sizeof(*p));
	rd->memo = p;
	rd->cap_memo = cap;
	return true;
}

int cfs_pickle_memo_put(struct cfs_pickle_reader *rd, uint64_t index,
			struct cfs_node *node)
{
	rd->n_memo += !cfs_pickle_memo_get(rd, index);
	if (index < rd->cap_memo || grow(rd, index)) {
		rd->memo[index] = node;
		return 0;
	}
	if (cfs_u64map_bytes(&rd->sparse) > rd->doc->limits.memory_bytes)
		return cfs_pickle_bad(rd, -E2BIG, "memo too large");
	if (!cfs_u64map_put(&rd->sparse, index + 1, (uintptr_t)node))
		return -ENOMEM;
	return 0;
}
