/* Attributes, cleanup and the few macros every file may use. */
#ifndef CFS_UTIL_BASE_H
#define CFS_UTIL_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define CFS_MUST_CHECK	 __attribute__((warn_unused_result))
#define CFS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define _cleanup_(f)	 __attribute__((cleanup(f)))

#define CFS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CFS_MIN(a, b)	  ((a) < (b) ? (a) : (b))
#define CFS_MAX(a, b)	  ((a) > (b) ? (a) : (b))

/* The struct that embeds @member, of which @ptr is the address. */
#define container_of(ptr, type, member)                                        \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Hands an owner over: yields the pointer and leaves NULL behind. */
#define cfs_steal(p)                                                           \
	__extension__({                                                        \
		__typeof__(p) cfs_stolen_ = (p);                               \
		(p) = NULL;                                                    \
		cfs_stolen_;                                                   \
	})

/* For _cleanup_ on a malloc()ed pointer of any type. */
static inline void cfs_freep(void *p)
{
	free(*(void **)p);
}

/* For _cleanup_ on a file descriptor; -1 is none. */
static inline void cfs_closep(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

/* Hands a descriptor over, as cfs_steal() does a pointer. */
static inline int cfs_steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#endif
