/* Private to codes.c: whole blocks of 64 bytes with vectors of 32. */
#ifndef CFS_CHUNK_CODES_X86_H
#define CFS_CHUNK_CODES_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(CFS_CODES_PORTABLE)
#define CFS_CODES_X86
#endif

#define CFS_CODES_BLOCK 64u /* bytes of which a bit plane has a word */

/* Where codes go, and bytes that have none. */
struct cfs_codes_put {
	const uint8_t *values;
	uint8_t *planes, *escaped, *end;
	size_t plane; /* bytes of one */
};

/* And where they come from. */
struct cfs_codes_get {
	uint8_t values[16]; /* that of the last code: anything */
	const uint8_t *planes, *escaped, *end;
	size_t plane;
};

#ifdef CFS_CODES_X86
/* Has this machine what the other functions need? */
static inline bool cfs_codes_x86_has(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
}

/* The first @n bytes, a multiple of 64; false: no room for escaped ones. */
bool cfs_codes_x86_put(struct cfs_codes_put *p, unsigned bits,
		       const uint8_t *src, size_t n);
/* And back; false: there are not as many escaped ones. */
bool cfs_codes_x86_get(struct cfs_codes_get *g, unsigned bits, uint8_t *dst,
		       size_t n);
#endif

#endif
