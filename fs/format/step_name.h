/* Names of steps, and what a pointer file says: the same for every reader. */
#ifndef CFS_FORMAT_STEP_NAME_H
#define CFS_FORMAT_STEP_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The number a step's name ends in; -1 for none. */
int64_t cfs_step_number(const char *name);
/* Do both names have the same words before their numbers?  Numbers behind other
 * words tell nothing of which is newer. */
bool cfs_step_is_like(const char *name, const char *other);
/* The step's name in a pointer's text, blanks around it left out; false: it is
 * none, or leads elsewhere. */
bool cfs_step_pointed(const void *text, size_t len, char name_out[256]);

#endif
