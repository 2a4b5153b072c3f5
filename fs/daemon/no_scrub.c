/* Until store/core/scrub.c is there. */
#include <errno.h>

#include "store/core/store.h"
#include "store/util/error.h"

int cfs_store_scrub(struct cfs_store *store,
		    const struct cfs_job_control *control,
		    struct cfs_scrub_result *result_out, struct cfs_error *err)
{
	(void)store;
	(void)control;
	(void)result_out;
	return cfs_fail(err, -ENOSYS, "not there yet");
}
