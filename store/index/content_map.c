/* Content maps to bytes and back (store/FORMAT.md, "Content map"). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/index/keys.h"
#include "store/index/values.h"
#include "store/util/checked.h"
#include "store/util/endian.h"

#define HEAD_BYTES   13u
#define EXTENT_BYTES 56u
#define CHILD_BYTES  48u

void cfs_content_map_fini(struct cfs_content_map *map)
{
	free(map->extents);
	free(map->children);
	*map = (struct cfs_content_map){0};
}

void cfs_content_map_encode(const struct cfs_content_map *map,
			    struct cfs_buf *out)
{
	assert(map->level <= 1 && map->count <= CFS_MAP_FANOUT);
	cfs_buf_put_u8(out, (uint8_t)map->level);
	cfs_buf_put_le64(out, map->size);
	cfs_buf_put_le32(out, (uint32_t)map->count);
	for (size_t i = 0; i < map->count && map->level == 0; i++) {
		cfs_buf_put_le64(out, map->extents[i].off);
		cfs_extent_encode(&map->extents[i], out);
	}
	for (size_t i = 0; i < map->count && map->level == 1; i++) {
		const struct cfs_map_child *c = &map->children[i];

		cfs_buf_put_le64(out, c->off);
		cfs_buf_put_le64(out, c->len);
		cfs_buf_put(out, c->digest.bytes, sizeof(c->digest.bytes));
	}
}

static int get_extents(const uint8_t *p, struct cfs_content_map *map)
{
	uint64_t end = 0;

	map->extents =
		calloc(CFS_MAX(map->count, (size_t)1), sizeof(*map->extents));
	if (!map->extents)
		return -ENOMEM;
	for (size_t i = 0; i < map->count; i++, p += EXTENT_BYTES) {
		struct cfs_extent *e = &map->extents[i];
		int r = cfs_extent_decode(cfs_get_le64(p), p + 8,
					  EXTENT_BYTES - 8, e);

		if (r < 0)
			return r;
		if (e->off < end || !cfs_values_extent_ok(e, map->size))
			return -EBADMSG;
		end = e->off + e->len;
	}
	return 0;
}

static int get_children(const uint8_t *p, struct cfs_content_map *map)
{
	uint64_t end = 0;

	map->children =
		calloc(CFS_MAX(map->count, (size_t)1), sizeof(*map->children));
	if (!map->children)
		return -ENOMEM;
	for (size_t i = 0; i < map->count; i++, p += CHILD_BYTES) {
		struct cfs_map_child *c = &map->children[i];

		c->off = cfs_get_le64(p);
		c->len = cfs_get_le64(p + 8);
		memcpy(c->digest.bytes, p + 16, sizeof(c->digest.bytes));
		if (!c->len || c->off < end ||
		    !cfs_range_ok(c->off, c->len, map->size))
			return -EBADMSG;
		end = c->off + c->len;
	}
	return 0;
}

int cfs_content_map_decode(const void *data, size_t len,
			   struct cfs_content_map *out)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};
	const uint8_t *p = data;
	size_t each;
	int r;

	if (len < HEAD_BYTES || p[0] > 1)
		return -EBADMSG;
	map.level = p[0];
	map.size = cfs_get_le64(p + 1);
	map.count = cfs_get_le32(p + 9);
	each = map.level ? CHILD_BYTES : EXTENT_BYTES;
	if (map.size > FILE_BYTES_MAX || map.count > CFS_MAP_FANOUT ||
	    len - HEAD_BYTES != map.count * each)
		return -EBADMSG;
	p += HEAD_BYTES;
	r = map.level ? get_children(p, &map) : get_extents(p, &map);
	if (r < 0)
		return r;
	*out = map;
	map = (struct cfs_content_map){0};
	return 0;
}
