/* Arrays that grow: room for one more, by doubling. */
#ifndef CFS_UTIL_GROW_H
#define CFS_UTIL_GROW_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/base.h"

/* @array with at least twice *@cap items of @size bytes; NULL (and nothing
 * changed) when that is beyond @max items or there is no memory. */
void *cfs_grow(void *array, size_t *cap, size_t size, size_t max);

/*
 * True if item @n of @array exists: it has @cap, or could be made to have
 * more.  False leaves all as it was: out of memory.
 */
#define CFS_GROW(array, n, cap)                                                \
	__extension__({                                                        \
		bool cfs_room_ = (array) && (n) < (cap);                       \
		size_t cfs_cap_ = (cap);                                       \
		if (!cfs_room_) {                                              \
			__typeof__(array) cfs_grown_ =                         \
				cfs_grow((array), &cfs_cap_, sizeof(*(array)), \
					 (__typeof__(cap))-1);                 \
			if (cfs_grown_) {                                      \
				(array) = cfs_grown_;                          \
				(cap) = (__typeof__(cap))cfs_cap_;             \
				cfs_room_ = true;                              \
			}                                                      \
		}                                                              \
		cfs_room_;                                                     \
	})

#endif
