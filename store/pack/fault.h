/* Calls of engine_dir that fail on purpose, for tests of the whole daemon. */
#ifndef CFS_PACK_FAULT_H
#define CFS_PACK_FAULT_H

#include "store/pack/engine.h"

/*
 * Rules, separated by commas: KIND:N:ERRNO fails the Nth call (from 1) of a
 * kind, KIND:N+:ERRNO the Nth and all after it.  KIND: create write sync seal
 * read remove ref.  ERRNO: ENOSPC EDQUOT EIO ENOMEM.  The environment variable
 * CKPTFS_FAULT is read when an engine_dir is opened; unset, each call costs one
 * load.  NULL: none.  -EINVAL: not understood.
 */
CFS_MUST_CHECK int cfs_fault_set(const char *rules);
/* Once, from the environment; a rule not understood is logged. */
void cfs_fault_from_env(void);
/* 0, or the negative errno this call fails with. */
int cfs_fault_hit(enum cfs_engine_call call);

#endif
