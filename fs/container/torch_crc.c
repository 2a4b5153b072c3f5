#include "fs/container/torch_crc.h"

#include <zlib.h>

#include "store/map/map.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

static uint64_t range_hash(uint32_t file, uint64_t off)
{
	const uint64_t key[2] = {file, off};

	return cfs_hash64(key, sizeof(key), cfs_u64map_seed()) | 1;
}

void cfs_crc_table_free(struct cfs_crc_table *table)
{
	cfs_u64map_free(&table->first);
	free(table->ranges);
}

bool cfs_crc_table_add(struct cfs_crc_table *table, uint32_t file, uint64_t off,
		       uint64_t len, uint32_t crc)
{
	const uint64_t hash = range_hash(file, off);
	const uint64_t *at = cfs_u64map_find(&table->first, hash);

	if (!CFS_GROW(table->ranges, table->n, table->cap))
		return false;
	table->ranges[table->n++] = (struct cfs_crc_range){
		off, len, file, crc, at ? (size_t)*at : 0};
	return cfs_u64map_put(&table->first, hash, table->n);
}

static bool find(const struct cfs_crc_table *table,
		 const struct cfs_segment *seg, uint32_t *crc_out)
{
	const uint64_t *at = cfs_u64map_find(
		&table->first, range_hash(seg->file, seg->file_off));
	size_t i = at ? (size_t)*at : 0;

	for (; i; i = table->ranges[i - 1].next) {
		const struct cfs_crc_range *r = &table->ranges[i - 1];

		if (r->file == seg->file && r->off == seg->file_off &&
		    r->len == seg->len) {
			*crc_out = r->crc;
			return true;
		}
	}
	return false;
}

uint32_t cfs_crc_concat(uint32_t first, uint32_t second, uint64_t second_len)
{
	return (uint32_t)crc32_combine64(first, second, (off64_t)second_len);
}

uint32_t cfs_crc_zeros(uint64_t len)
{
	static const uint8_t zero;
	uint32_t done = 0; /* of the bits of @len looked at */
	uint32_t power = (uint32_t)crc32_z(0, &zero, 1);

	for (uint64_t n = 1; len; n *= 2, len /= 2) {
		if (len % 2)
			done = cfs_crc_concat(done, power, n);
		if (len > 1)
			power = cfs_crc_concat(power, power, n);
	}
	return done;
}

bool cfs_crc_of_map(const struct cfs_map *map,
		    const struct cfs_crc_table *table, uint32_t *crc_out)
{
	struct cfs_segment seg;
	uint32_t crc = 0, part;

	for (uint32_t i = 0; i < cfs_map_count(map); i++) {
		cfs_map_segment(map, i, &seg);
		if (seg.kind == CFS_SEG_LITERAL)
			part = (uint32_t)crc32_z(0, seg.literal,
						 (size_t)seg.len);
		else if (seg.kind == CFS_SEG_ZERO)
			part = cfs_crc_zeros(seg.len);
		else if (seg.kind != CFS_SEG_RANGE || !find(table, &seg, &part))
			return false;
		crc = cfs_crc_concat(crc, part, seg.len);
	}
	*crc_out = crc;
	return true;
}
