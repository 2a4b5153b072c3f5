/* The options of `mount`: -o NAME[=VALUE],… as mount(8) and fstab give them. */
#ifndef CFS_CLI_MOUNT_OPTIONS_H
#define CFS_CLI_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/base.h"

struct cfs_error;

struct cfs_mount_options {
	char *view, *log; /* owned */
	bool allow_other, crc_full, direct_io, noexec;
	bool rw, ro;	    /* asked for; of a directory all are read-only */
	size_t cache_bytes; /* 0: the default */
	unsigned derive_seconds; /* 0: the default, but for */
	bool no_derive;
};

void cfs_mount_options_fini(struct cfs_mount_options *o);

/* Adds what @text asks for.  -EINVAL with the option named. */
CFS_MUST_CHECK int cfs_mount_options_parse(struct cfs_mount_options *o,
					   const char *text,
					   struct cfs_error *err);

#endif
