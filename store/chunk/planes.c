/*
 * Elements to byte planes and back.  Plain loops with a constant stride: the
 * compiler turns them into unpacks and packs.
 */
#include <assert.h>
#include <string.h>

#include "store/chunk/chunk_internal.h"

static void split2(const uint8_t *restrict src, size_t n, uint8_t *restrict a,
		   uint8_t *restrict b)
{
	size_t i;

	for (i = 0; i < n; i++) {
		a[i] = src[2 * i];
		b[i] = src[2 * i + 1];
	}
}

static void split4(const uint8_t *restrict src, size_t n, uint8_t *restrict a,
		   uint8_t *restrict b, uint8_t *restrict c,
		   uint8_t *restrict d)
{
	size_t i;

	for (i = 0; i < n; i++) {
		a[i] = src[4 * i];
		b[i] = src[4 * i + 1];
		c[i] = src[4 * i + 2];
		d[i] = src[4 * i + 3];
	}
}

static void split8(const uint8_t *restrict src, size_t n, uint8_t *restrict dst)
{
	size_t i;
	unsigned k;

	for (k = 0; k < 8; k++)
		for (i = 0; i < n; i++)
			dst[k * n + i] = src[8 * i + k];
}

void cfs_planes_split(const uint8_t *src, size_t n, unsigned elem_size,
		      uint8_t *dst)
{
	switch (elem_size) {
	case 2:
		split2(src, n, dst, dst + n);
		break;
	case 4:
		split4(src, n, dst, dst + n, dst + 2 * n, dst + 3 * n);
		break;
	default:
		assert(elem_size == 8);
		split8(src, n, dst);
	}
}

static void join2(const uint8_t *restrict a, const uint8_t *restrict b,
		  size_t n, uint8_t *restrict dst)
{
	size_t i;

	for (i = 0; i < n; i++) {
		dst[2 * i] = a[i];
		dst[2 * i + 1] = b[i];
	}
}

static void join4(const uint8_t *const *p, size_t n, uint8_t *restrict dst)
{
	const uint8_t *restrict a = p[0], *restrict b = p[1];
	const uint8_t *restrict c = p[2], *restrict d = p[3];
	size_t i;

	for (i = 0; i < n; i++) {
		dst[4 * i] = a[i];
		dst[4 * i + 1] = b[i];
		dst[4 * i + 2] = c[i];
		dst[4 * i + 3] = d[i];
	}
}

static void join8(const uint8_t *const *p, size_t n, uint8_t *restrict dst)
{
	size_t i;
	unsigned k;

	for (i = 0; i < n; i++)
		for (k = 0; k < 8; k++)
			dst[8 * i + k] = p[k][i];
}

void cfs_planes_join(const uint8_t *const *planes, size_t n, unsigned elem_size,
		     uint8_t *dst)
{
	switch (elem_size) {
	case 2:
		join2(planes[0], planes[1], n, dst);
		break;
	case 4:
		join4(planes, n, dst);
		break;
	default:
		assert(elem_size == 8);
		join8(planes, n, dst);
	}
}
