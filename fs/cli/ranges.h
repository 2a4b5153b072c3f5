/* What the bytes of a map are made of, piece by piece and in sums. */
#ifndef CFS_CLI_RANGES_H
#define CFS_CLI_RANGES_H

#include <stdbool.h>
#include <stdint.h>

#include "store/map/map.h"

/* One piece of source bytes, or bytes that come from no file. */
struct cfs_ranges_piece {
	enum cfs_segment_kind how; /* the outermost: range, cast, gather, … */
	bool from_file;		   /* false: literal or zero */
	uint32_t file;
	uint64_t file_off; /* of source bytes */
	uint64_t len;	   /* of source bytes; of own bytes when no file */
};

typedef int cfs_ranges_fn(void *arg, const struct cfs_ranges_piece *piece);

/*
 * Pieces behind bytes [@off, @off + @len), in order; what is computed is
 * reported as the source bytes it reads (of a gather or a linear sum, all that
 * its first child holds).  Anything but 0 from @fn stops and is returned.
 */
CFS_MUST_CHECK int cfs_ranges_each(const struct cfs_map *map, uint64_t off,
				   uint64_t len, cfs_ranges_fn *fn, void *arg);

/* Bytes of a map by how they are made. */
struct cfs_ranges_tally {
	uint64_t total, range, zero, literal, gather, cast, linear;
	uint32_t n_files; /* source files it reads */
};

void cfs_ranges_add(const struct cfs_map *map, struct cfs_ranges_tally *tally);
/* "range", "cast", … */
const char *cfs_ranges_kind(enum cfs_segment_kind kind);

#endif
