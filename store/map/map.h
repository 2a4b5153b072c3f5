/*
 * A map: the content of a file as an ordered list of segments.
 *
 *   literal  bytes held inline                 zero    zeros
 *   range    bytes of a source's file          gather  strided box of a child
 *   cast     a child in another float type     linear  weighted sum of children
 *
 * Children are maps over the same file table.  A map is built by appending,
 * then sealed and never changes; sealed maps may be read by any thread.
 */
#ifndef CFS_MAP_MAP_H
#define CFS_MAP_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/map/dtype.h"
#include "store/map/source.h"
#include "store/util/base.h"

struct cfs_buf;
struct cfs_map;

/*
 * The files that maps of one plan point into: path and expected version.
 * Reference-counted; adding is for one thread, the rest for any.
 */
struct cfs_filetab;

struct cfs_filetab *cfs_filetab_new(void);
struct cfs_filetab *cfs_filetab_ref(struct cfs_filetab *tab);
void cfs_filetab_unref(struct cfs_filetab *tab);
void cfs_filetab_unrefp(struct cfs_filetab **tab);
/* The index of @path (added once; -EEXIST if there with another version). */
CFS_MUST_CHECK int cfs_filetab_add(struct cfs_filetab *tab, const char *path,
				   const struct cfs_version *version,
				   uint32_t *index_out);
uint32_t cfs_filetab_count(const struct cfs_filetab *tab);
const char *cfs_filetab_path(const struct cfs_filetab *tab, uint32_t index);
const struct cfs_version *cfs_filetab_version(const struct cfs_filetab *tab,
					      uint32_t index);

enum cfs_segment_kind {
	CFS_SEG_LITERAL = 1,
	CFS_SEG_RANGE,
	CFS_SEG_ZERO,
	CFS_SEG_GATHER,
	CFS_SEG_CAST,
	CFS_SEG_LINEAR,
};

#define CFS_GATHER_DIMS_MAX 8
#define CFS_MAP_DEPTH_MAX   4 /* children within children */

/*
 * Building.  Each append returns 0, -ENOMEM, or -EOVERFLOW beyond 2^63 bytes;
 * zero lengths append nothing.  Neighbours that continue each other are merged
 * (ranges of one file, zeros, literals).
 */
struct cfs_map *cfs_map_new(struct cfs_filetab *tab); /* takes a reference */
struct cfs_map *cfs_map_ref(struct cfs_map *map);
void cfs_map_unref(struct cfs_map *map);
void cfs_map_unrefp(struct cfs_map **map);

CFS_MUST_CHECK int cfs_map_add_literal(struct cfs_map *map, const void *data,
				       size_t len);
CFS_MUST_CHECK int cfs_map_add_zero(struct cfs_map *map, uint64_t len);
/* @file: index in the map's file table. */
CFS_MUST_CHECK int cfs_map_add_range(struct cfs_map *map, uint32_t file,
				     uint64_t off, uint64_t len);
/* All segments of @src (same file table), copied. */
CFS_MUST_CHECK int cfs_map_add_map(struct cfs_map *map,
				   const struct cfs_map *src);
/* Bytes [@off, @off + @len) of @src (same file table); -EINVAL outside it. */
CFS_MUST_CHECK int cfs_map_add_slice(struct cfs_map *map,
				     const struct cfs_map *src, uint64_t off,
				     uint64_t len);
/*
 * Computed segments.  A child is sealed by being added; the map takes its own
 * reference.  -EINVAL when types, lengths (whole elements), file tables or
 * depth do not fit.  What needs no computing is added as plain segments.
 */
/* @child read as @from elements, shown as @to. */
CFS_MUST_CHECK int cfs_map_add_cast(struct cfs_map *map, struct cfs_map *child,
				    enum cfs_dtype from, enum cfs_dtype to);
/*
 * Row-major elements of an @ndim box of @shape: element (i0, i1, …) lies at
 * byte @base + sum(i_k * @stride_bytes[k]) of @child.  Every element must lie
 * inside the child (-EINVAL).  @elem_size 1 to 16; a 0 in @shape: nothing.
 */
CFS_MUST_CHECK int cfs_map_add_gather(struct cfs_map *map,
				      struct cfs_map *child, uint32_t elem_size,
				      uint32_t ndim, const uint64_t *shape,
				      const uint64_t *stride_bytes,
				      uint64_t base);
/*
 * sum(weight_k * child_k) element by element, in double, then rounded once to
 * @to.  All children have the type @from and the same length.
 */
CFS_MUST_CHECK int cfs_map_add_linear(struct cfs_map *map,
				      struct cfs_map *const *children,
				      const double *weights, uint32_t n,
				      enum cfs_dtype from, enum cfs_dtype to);

/* No more appends; releases slack memory. */
void cfs_map_seal(struct cfs_map *map);

uint64_t cfs_map_size(const struct cfs_map *map);
struct cfs_filetab *cfs_map_filetab(const struct cfs_map *map); /* borrowed */
size_t cfs_map_memory_bytes(const struct cfs_map *map);

/* One segment, described; pointers are borrowed from the map. */
struct cfs_segment {
	enum cfs_segment_kind kind;
	uint64_t off, len; /* in the map */
	const uint8_t *literal;
	uint32_t file; /* range */
	uint64_t file_off;
	const struct cfs_map *child; /* gather, cast; the first of linear */
	uint32_t n_children;
	enum cfs_dtype from, to; /* cast, linear */
	uint64_t skip;		 /* computed: bytes of it that come before */
};

uint32_t cfs_map_count(const struct cfs_map *map);
void cfs_map_segment(const struct cfs_map *map, uint32_t index,
		     struct cfs_segment *out);
/* The segment that holds byte @off; @off < size. */
uint32_t cfs_map_find(const struct cfs_map *map, uint64_t off);

/* A gather: the bytes of its runs, 0 for any other segment.  And the runs (or
 * parts of the first and last one) that show it, in order: @len bytes at
 * @child_off of its child.  Non-zero from @fn stops and is returned. */
uint64_t cfs_map_gather_run(const struct cfs_map *map, uint32_t index);
CFS_MUST_CHECK int
cfs_map_gather_each(const struct cfs_map *map, uint32_t index,
		    int (*fn)(void *arg, uint64_t child_off, uint64_t len),
		    void *arg);

/* Every file index the map and its children read, ascending, through @fn;
 * anything but 0 from it stops and is returned. */
int cfs_map_each_file(const struct cfs_map *map,
		      int (*fn)(void *arg, uint32_t file), void *arg);

/*
 * A compact encoding (magic, version, file table of the files in use with
 * their versions, segments as varints, XXH3 at the end).  The same map always
 * gives the same bytes.  decode trusts nothing: -EBADMSG on anything odd,
 * -EPROTONOSUPPORT for a newer version.
 */
CFS_MUST_CHECK int cfs_map_encode(const struct cfs_map *map,
				  struct cfs_buf *out);
CFS_MUST_CHECK int cfs_map_decode(const void *data, size_t len,
				  struct cfs_map **map_out);

#endif
