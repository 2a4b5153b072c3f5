/* What callers of an index need beside its ops. */
#include "store/index/index.h"

void cfs_index_iter_freep(struct cfs_index_iter **iter)
{
	if (*iter)
		(*iter)->ops->free(*iter);
}

void cfs_index_close(struct cfs_index *index)
{
	if (index)
		index->ops->close(index);
}
