/* ckptfs fsck --salvage. */
#ifndef CFS_CLI_FSCK_SALVAGE_H
#define CFS_CLI_FSCK_SALVAGE_H

#include "fs/cli/store_verb.h"

/* Looks, or does it (@write); an exit status. */
int cfs_fsck_salvage(const struct cfs_store_verb *call, bool write,
		     bool as_json);

#endif
