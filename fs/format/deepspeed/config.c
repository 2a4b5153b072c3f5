/* Look-ups in a saved ds_config, and DeepSpeed's version numbers. */
#include "fs/format/deepspeed/deepspeed.h"

#include <string.h>

struct cfs_node *cfs_ds_config_get(const struct cfs_node *ds_config,
				   const char *path)
{
	const struct cfs_node *at = ds_config;

	while (at) {
		const char *dot = strchr(path, '.');
		char key[64];

		if (!dot)
			return cfs_node_get(at, path);
		if ((size_t)(dot - path) >= sizeof(key))
			return NULL;
		memcpy(key, path, (size_t)(dot - path));
		key[dot - path] = '\0';
		at = cfs_node_get(at, key);
		path = dot + 1;
	}
	return NULL;
}

/* The next number of a dotted version; 0 when there is none. */
static uint64_t next_number(const char **s)
{
	uint64_t v = 0;

	while (**s >= '0' && **s <= '9') {
		v = v > UINT32_MAX ? v : v * 10 + (uint64_t)(**s - '0');
		(*s)++;
	}
	return v;
}

/* Moves to the next component; false where a suffix ("+abc", "rc1") starts. */
static bool next_dot(const char **s)
{
	if (**s != '.' || (*s)[1] < '0' || (*s)[1] > '9')
		return false;
	(*s)++;
	return true;
}

int cfs_ds_version_cmp(const char *a, const char *b)
{
	bool more_a = true, more_b = true;

	if (!a || !b)
		return (a != NULL) - (b != NULL);
	while (more_a || more_b) {
		uint64_t x = more_a ? next_number(&a) : 0;
		uint64_t y = more_b ? next_number(&b) : 0;

		if (x != y)
			return x < y ? -1 : 1;
		more_a = more_a && next_dot(&a);
		more_b = more_b && next_dot(&b);
	}
	return 0;
}
