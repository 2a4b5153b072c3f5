/*
 * The evaluator: bytes of a map, at any offset and length, from many threads.
 *
 * Ranges are read straight into the caller's buffer.  What has to be computed
 * (gather, cast, linear) goes through the block cache: computed once however
 * many readers want it at the same time (single flight).
 */
#ifndef CFS_MAP_EVAL_H
#define CFS_MAP_EVAL_H

#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_error;
struct cfs_map;
struct cfs_source;

/* Shared by all readers of a mount; bounded; any thread. */
struct cfs_blockcache;
struct cfs_blockcache *cfs_blockcache_new(size_t limit_bytes);
void cfs_blockcache_free(struct cfs_blockcache *cache);
void cfs_blockcache_freep(struct cfs_blockcache **cache);

/* Open source files by (path, version), shared by readers; any thread. */
struct cfs_filepool;
struct cfs_filepool *cfs_filepool_new(struct cfs_source *source); /* borrows */
void cfs_filepool_free(struct cfs_filepool *pool); /* no reader is left */
void cfs_filepool_freep(struct cfs_filepool **pool);

/*
 * The open file at @path in exactly this @version: 0, -ESTALE (another one is
 * there now; @err names it), -ENOENT, …  Shared: give it back with put, never
 * close it.
 */
struct cfs_version;
struct cfs_file;
CFS_MUST_CHECK int cfs_filepool_get(struct cfs_filepool *pool, const char *path,
				    const struct cfs_version *version,
				    struct cfs_file **file_out,
				    struct cfs_error *err);
void cfs_filepool_put(struct cfs_filepool *pool, struct cfs_file *file);

/* An open map. */
struct cfs_reader;

/**
 * cfs_reader_open - open a map for reading
 * @map:    sealed; the reader takes a reference
 * @pool:   borrowed for the reader's life
 * @cache:  borrowed; NULL computes without caching
 *
 * Opens every file the map reads and compares its version, so that the handle
 * keeps what it opened whatever happens to the names.
 * Returns 0, -ESTALE (a file is not the one planned; @err names it), -ENOENT,
 * -EACCES, -EMFILE, -ENOMEM or -EIO.
 */
CFS_MUST_CHECK int cfs_reader_open(struct cfs_map *map,
				   struct cfs_filepool *pool,
				   struct cfs_blockcache *cache,
				   struct cfs_reader **reader_out,
				   struct cfs_error *err);
void cfs_reader_close(struct cfs_reader *reader);
void cfs_reader_closep(struct cfs_reader **reader);

/**
 * cfs_reader_pread - read bytes of the map
 *
 * Any thread.  Returns the number of bytes (short only at the end of the map),
 * -ESTALE when a file was changed in place since it was planned (checked after
 * the bytes were read, so they are never mixed), -EIO when a file is shorter
 * than the map says, or the file's own error; logged with the file named.
 */
CFS_MUST_CHECK ssize_t cfs_reader_pread(struct cfs_reader *reader, void *buf,
					size_t len, uint64_t off);

#endif
