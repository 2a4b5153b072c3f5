/* Private to digest.c: two SHA-256 at once with the processor's instructions.
 */
#ifndef CFS_UTIL_DIGEST_X86_H
#define CFS_UTIL_DIGEST_X86_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/digest.h"

/* Has this machine what the other function needs? */
bool cfs_digest_x86_has(void);
void cfs_digest_x86_pair(const void *const data[2], const size_t len[2],
			 struct cfs_digest *const out[2]);

#endif
