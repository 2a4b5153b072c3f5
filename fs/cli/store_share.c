/* Stores this process has open, by path. */
#include "fs/cli/store_share.h"

#include <errno.h>
#include <string.h>

#include "fs/daemon/open.h"

struct cfs_store_share {
	struct cfs_store_share *next;
	char *path;
	unsigned users;
	struct cfs_opened opened;
};

static struct cfs_store_share *shares; /* of the main thread */

int cfs_store_share_get(const char *store_path,
			struct cfs_store_share **share_out,
			struct cfs_error *err)
{
	struct cfs_store_share *share;
	int r;

	for (share = shares; share; share = share->next)
		if (!strcmp(share->path, store_path)) {
			share->users++;
			*share_out = share;
			return 0;
		}
	share = calloc(1, sizeof(*share));
	if (!share)
		return -ENOMEM;
	share->path = strdup(store_path);
	r = share->path ? cfs_opened_open(store_path, NULL, &share->opened, err)
			: -ENOMEM;
	if (r < 0) {
		free(share->path);
		free(share);
		return r;
	}
	share->users = 1;
	share->next = shares;
	shares = share;
	*share_out = share;
	return 0;
}

void cfs_store_share_put(struct cfs_store_share *share)
{
	struct cfs_store_share **p = &shares;

	if (--share->users)
		return;
	while (*p != share)
		p = &(*p)->next;
	*p = share->next;
	cfs_opened_closep(&share->opened);
	free(share->path);
	free(share);
}

const struct cfs_opened *
cfs_store_share_opened(const struct cfs_store_share *share)
{
	return &share->opened;
}
