/* CRC-32 of what is known about bytes, without reading them. */
#ifndef CFS_CONTAINER_TORCH_CRC_H
#define CFS_CONTAINER_TORCH_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/container/u64map.h"

struct cfs_map;

/* Ranges of source files whose CRC is known. */
struct cfs_crc_table {
	struct cfs_u64map first; /* hash of (file, off) -> place + 1 */
	struct cfs_crc_range {
		uint64_t off, len;
		uint32_t file, crc;
		size_t next; /* place + 1 of another one of the same hash */
	} * ranges;
	size_t n, cap;
};

void cfs_crc_table_free(struct cfs_crc_table *table);
CFS_MUST_CHECK bool cfs_crc_table_add(struct cfs_crc_table *table,
				      uint32_t file, uint64_t off, uint64_t len,
				      uint32_t crc);

/* Of two spans of bytes, one behind the other. */
uint32_t cfs_crc_concat(uint32_t first, uint32_t second, uint64_t second_len);
/* Of @len zero bytes; a few dozen steps. */
uint32_t cfs_crc_zeros(uint64_t len);
/* Of a whole map; false when some part of it is not known. */
bool cfs_crc_of_map(const struct cfs_map *map,
		    const struct cfs_crc_table *table, uint32_t *crc_out);

#endif
