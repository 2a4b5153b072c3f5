#include "rank_client/error.h"

#include <errno.h>
#include <string.h>

#include "ckptfs/rank.h"
#include "store/util/error.h"

static _Thread_local struct cfs_error last;

struct cfs_error *cfs_rank_err(void)
{
	last.text[0] = '\0';
	return &last;
}

const char *cfs_rank_error(void)
{
	return last.text;
}

const char *cfs_rank_version(void)
{
	return CFS_VERSION;
}

int cfs_rank_take(void *to, size_t size, const void *from,
		  struct cfs_error *err)
{
	const uint8_t *bytes = from;
	size_t theirs, i;

	memcpy(&theirs, from, sizeof(theirs));
	if (theirs < sizeof(theirs))
		return cfs_fail(err, -EINVAL,
				"an options struct says no size of its own");
	for (i = size; i < theirs; i++)
		if (bytes[i])
			return cfs_fail(
				err, -EINVAL,
				"the program was built for a later "
				"ckptfs than this library's " CFS_VERSION);
	memset(to, 0, size);
	memcpy(to, from, CFS_MIN(size, theirs));
	return 0;
}
