/* Element types of tensors: sizes and names, shared by maps and formats. */
#ifndef CFS_MAP_DTYPE_H
#define CFS_MAP_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

enum cfs_dtype {
	CFS_DTYPE_NONE,
	CFS_F64,
	CFS_F32,
	CFS_F16,
	CFS_BF16,
	CFS_I64,
	CFS_I32,
	CFS_I16,
	CFS_I8,
	CFS_U8,
	CFS_U16,
	CFS_U32,
	CFS_U64,
	CFS_BOOL,
	CFS_C64,  /* two f32 */
	CFS_C128, /* two f64 */
	CFS_F8_E4M3,
	CFS_F8_E5M2,
	CFS_DTYPE_OTHER, /* known to the container, opaque to us: itemsize 1 */
	CFS_N_DTYPES
};

/* Bytes of one element; 0 for CFS_DTYPE_NONE. */
uint32_t cfs_dtype_size(enum cfs_dtype dtype);
/* "f32", "bf16", …: what tables print. */
const char *cfs_dtype_name(enum cfs_dtype dtype);
/* f64, f32, f16 or bf16: what cast and linear segments accept. */
bool cfs_dtype_is_float(enum cfs_dtype dtype);

/*
 * @n elements, rounded once to nearest even, overflow to infinity.  @src and
 * @dst need no alignment and do not overlap.  Both types must satisfy
 * cfs_dtype_is_float().
 *
 * NaN stays NaN.  Its bits are fixed here because torch has no one answer for
 * f32 -> bf16 (0x7fc0 scalar and strided, 0xffff in its AVX2 loop): bf16 gets
 * 0x7fc0; f16 gets sign and upper payload bits, quiet, as the F16C
 * instructions and torch on x86 do.  Compare NaN as NaN, never by bits.
 */
void cfs_dtype_cast(enum cfs_dtype from, const void *src, enum cfs_dtype to,
		    void *dst, uint64_t n);

#endif
