/* Open maps: eval.h. */
#include "store/map/eval_internal.h"

#include <errno.h>
#include <limits.h>

#include "store/util/error.h"

#define AHEAD_BYTES ((uint64_t)8 << 20)
/* How far the readers of one stream may be apart: the kernel splits reads. */
#define JITTER_BYTES ((uint64_t)4 << 20)

struct cfs_reader {
	struct cfs_map *map;
	struct cfs_blockcache *cache;
	struct cfs_eval_files files;
	/* Only hints, so relaxed: where a sequential reader would go on, and
	 * up to where the sources have been told. */
	atomic_uint_fast64_t expected, advised;
};

struct opening {
	struct cfs_reader *reader;
	struct cfs_filepool *pool;
	struct cfs_error *err;
};

static int open_file(void *arg, uint32_t file)
{
	struct opening *o = arg;
	struct cfs_filetab *tab = cfs_map_filetab(o->reader->map);
	struct cfs_eval_files *files = &o->reader->files;

	return cfs_filepool_get(o->pool, cfs_filetab_path(tab, file),
				cfs_filetab_version(tab, file),
				&files->files[file - files->first], o->err);
}

static int open_files(struct cfs_reader *reader, struct cfs_filepool *pool,
		      struct cfs_error *err)
{
	const struct cfs_map *map = reader->map;
	struct opening o = {reader, pool, err};

	reader->files.pool = pool;
	if (!map->n_files)
		return 0;
	reader->files.first = map->files[0];
	reader->files.n = map->files[map->n_files - 1] - map->files[0] + 1;
	reader->files.files =
		calloc(reader->files.n, sizeof(struct cfs_file *));
	if (!reader->files.files) {
		reader->files.n = 0;
		return cfs_fail(err, -ENOMEM, "no memory for a reader");
	}
	return cfs_map_each_file(map, open_file, &o);
}

int cfs_reader_open(struct cfs_map *map, struct cfs_filepool *pool,
		    struct cfs_blockcache *cache,
		    struct cfs_reader **reader_out, struct cfs_error *err)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	int r;

	assert(map->sealed);
	reader = calloc(1, sizeof(*reader));
	if (!reader)
		return cfs_fail(err, -ENOMEM, "no memory for a reader");
	reader->map = cfs_map_ref(map);
	reader->cache = cache;
	r = open_files(reader, pool, err);
	if (r < 0)
		return r;
	*reader_out = cfs_steal(reader);
	return 0;
}

void cfs_reader_close(struct cfs_reader *reader)
{
	if (!reader)
		return;
	for (uint32_t i = 0; i < reader->files.n; i++)
		cfs_filepool_put(reader->files.pool, reader->files.files[i]);
	free(reader->files.files);
	cfs_map_unref(reader->map);
	free(reader);
}

void cfs_reader_closep(struct cfs_reader **reader)
{
	cfs_reader_close(*reader);
}

/*
 * The kernel reads ahead within a file; we know where the map goes next, also
 * into another file.  Starts with the second read that goes on.
 */
static void read_ahead(struct cfs_reader *reader, uint64_t off, uint64_t end)
{
	uint64_t size = cfs_map_size(reader->map), to, from;
	uint64_t expected =
		atomic_load_explicit(&reader->expected, memory_order_relaxed);
	bool sequential = expected && off <= expected + JITTER_BYTES &&
			  off + JITTER_BYTES >= expected;

	atomic_store_explicit(&reader->expected, end, memory_order_relaxed);
	from = atomic_load_explicit(&reader->advised, memory_order_relaxed);
	if (!sequential) {
		atomic_store_explicit(&reader->advised, 0,
				      memory_order_relaxed);
		return;
	}
	if (from > end + AHEAD_BYTES / 2)
		return;
	to = CFS_MIN(size, end + AHEAD_BYTES);
	from = CFS_MAX(from, end);
	if (from >= to)
		return;
	atomic_store_explicit(&reader->advised, to, memory_order_relaxed);
	cfs_eval_advise(&reader->files, reader->map, from, to - from);
}

ssize_t cfs_reader_pread(struct cfs_reader *reader, void *buf, size_t len,
			 uint64_t off)
{
	struct cfs_eval ev = {.files = &reader->files, .cache = reader->cache};
	uint64_t size = cfs_map_size(reader->map);
	uint64_t n;
	int r;

	if (off >= size || !len)
		return 0;
	n = CFS_MIN(CFS_MIN((uint64_t)len, size - off), (uint64_t)SSIZE_MAX);
	r = cfs_eval_read(&ev, reader->map, off, buf, n, true);
	if (r == 0)
		r = cfs_eval_check(&ev);
	if (r < 0)
		return r;
	read_ahead(reader, off, off + n);
	return (ssize_t)n;
}
