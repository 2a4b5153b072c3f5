/* Until store/core/gc.c is there. */
#include <errno.h>

#include "store/core/store.h"
#include "store/util/error.h"

int cfs_store_gc(struct cfs_store *store, const struct cfs_gc_options *options,
		 const struct cfs_job_control *control,
		 struct cfs_gc_result *result_out, struct cfs_error *err)
{
	(void)store;
	(void)options;
	(void)control;
	(void)result_out;
	return cfs_fail(err, -ENOSYS, "not there yet");
}
