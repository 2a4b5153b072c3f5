/* Pins, as keys among those that groups hold. */
#include "fs/daemon/pins.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/core/store.h"
#include "store/index/keys.h"

#define PREFIX "pin/"

static int key_of(const char *path, struct cfs_key *key)
{
	char name[CFS_NAME_MAX + 1];
	int n = snprintf(name, sizeof(name), PREFIX "%s", path);

	if (n >= (int)sizeof(name))
		return -ENAMETOOLONG;
	cfs_key_setting(key, name);
	return 0;
}

int cfs_pins_has(struct cfs_store *store, const char *path)
{
	_cleanup_(cfs_buf_free) struct cfs_buf value = CFS_BUF_INIT;
	struct cfs_key key;
	int r;

	r = key_of(path, &key);
	if (r < 0)
		return 0; /* too long to have been pinned */
	r = cfs_levels_get(cfs_store_levels(store), cfs_key_slice(&key),
			   &value);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int cfs_pins_set(struct cfs_store *store, const char *path, bool pinned)
{
	struct cfs_levels *levels = cfs_store_levels(store);
	struct cfs_slice yes = {"1", 1};
	struct cfs_key key;
	int r;

	r = key_of(path, &key);
	if (r < 0)
		return r;
	cfs_store_enter(store);
	r = pinned ? cfs_levels_put(levels, cfs_key_slice(&key), yes)
		   : cfs_levels_del(levels, cfs_key_slice(&key));
	cfs_store_leave(store);
	return r;
}

int cfs_pins_each(struct cfs_store *store,
		  int (*fn)(void *arg, const char *path), void *arg)
{
	_cleanup_(cfs_index_iter_freep) struct cfs_index_iter *iter = NULL;
	struct cfs_slice found, value, none = {NULL, 0};
	struct cfs_key prefix;
	int r;

	cfs_key_setting(&prefix, PREFIX);
	r = cfs_levels_iter(cfs_store_levels(store), cfs_key_slice(&prefix),
			    none, &iter);
	while (!r && (r = iter->ops->next(iter, &found, &value)) > 0) {
		char path[CFS_NAME_MAX + 1];
		size_t len = found.len - prefix.len;

		r = 0;
		if (found.len < prefix.len || len > CFS_NAME_MAX)
			continue;
		memcpy(path, (const char *)found.data + prefix.len, len);
		path[len] = '\0';
		r = fn(arg, path);
	}
	return r;
}
