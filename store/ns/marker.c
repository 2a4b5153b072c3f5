/* Names whose closing makes everything durable. */
#include "store/ns/ns_internal.h"

#include <fnmatch.h>

bool cfs_ns_is_marker(struct cfs_ns *ns, const char *name)
{
	const struct cfs_store_config *config = cfs_store_config(ns->store);

	for (size_t i = 0; i < config->n_markers; i++) {
		const char *m = config->markers[i];

		/* only '*' is special */
		if (!strchr(m, '*') ? !strcmp(m, name)
				    : !fnmatch(m, name, FNM_NOESCAPE))
			return true;
	}
	return false;
}
