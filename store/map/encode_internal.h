/*
 * The encoding of maps, shared by encode.c and decode.c.
 *
 *   "CFSM", version (1 byte)
 *   number of files; for each: path length, path, dev, ino, size,
 *       mtime_ns (zigzag), ctime_ns (zigzag)
 *   body of the map
 *   XXH3 of all before, 8 bytes little-endian
 *
 * A body: number of segments; for each its kind (1 byte), then
 *   literal  length, bytes
 *   range    file, offset minus end of the range before in this body (zigzag),
 *            length
 *   zero     length
 *   gather   skip, length, run, base, dimensions, (size, stride) of each, body
 *   cast     skip, length, from, to, body
 *   linear   skip, length, from, to, children, (weight: 8 bytes, body) of each
 *
 * Numbers are LEB128 varints of at most 10 bytes without needless ones; files
 * are numbered in the order of the file table.
 */
#ifndef CFS_MAP_ENCODE_INTERNAL_H
#define CFS_MAP_ENCODE_INTERNAL_H

#include <stdint.h>

#define CFS_MAP_MAGIC	    "CFSM"
#define CFS_MAP_VERSION	    1
#define CFS_MAP_TRAILER_LEN 8

static inline uint64_t cfs_zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t cfs_unzigzag(uint64_t v)
{
	uint64_t u = v >> 1 ^ (v & 1 ? UINT64_MAX : 0);

	return (int64_t)u;
}

#endif
