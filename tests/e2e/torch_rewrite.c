/*
 * torch_rewrite [--crc] IN OUT: reads a file of torch.save into a tree and
 * writes the tree to OUT through a map, as a view would.  --crc computes the
 * CRCs that are not known.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "fs/container/torchfile.h"
#include "store/map/eval.h"
#include "store/util/error.h"

#define STEP ((size_t)1 << 20)

struct job {
	struct cfs_source *source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	struct cfs_file *file;
	struct cfs_torchfile *tf;
	struct cfs_torch_writer *w;
	struct cfs_map *map;
	struct cfs_error err;
};

static int open_file(void *arg, uint32_t index, struct cfs_file **out)
{
	struct job *job = arg;

	(void)index;
	*out = job->file;
	return 0;
}

/* Every byte of @map, in order. */
static int each_piece(struct job *job, struct cfs_map *map,
		      int (*fn)(void *arg, const void *data, size_t len),
		      void *arg)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *rd = NULL;
	_cleanup_(cfs_freep) uint8_t *buf = malloc(STEP);
	ssize_t n;
	int r;

	if (!buf)
		return -ENOMEM;
	r = cfs_reader_open(map, job->pool, NULL, &rd, &job->err);
	if (r < 0)
		return r;
	for (uint64_t off = 0; off < cfs_map_size(map); off += (uint64_t)n) {
		n = cfs_reader_pread(rd, buf, STEP, off);
		if (n <= 0)
			return n ? (int)n : -EIO;
		r = fn(arg, buf, (size_t)n);
		if (r < 0)
			return r;
	}
	return 0;
}

static int crc_piece(void *arg, const void *data, size_t len)
{
	uint32_t *crc = arg;

	*crc = (uint32_t)crc32_z(*crc, data, len);
	return 0;
}

static int crc_of(void *arg, const struct cfs_map *payload, uint32_t *crc_out)
{
	struct job *job = arg;
	_cleanup_(cfs_map_unrefp) struct cfs_map *copy = cfs_map_new(job->tab);
	uint32_t crc = 0;
	int r;

	if (!copy)
		return -ENOMEM;
	r = cfs_map_add_map(copy, payload);
	if (r < 0)
		return r;
	cfs_map_seal(copy);
	r = each_piece(job, copy, crc_piece, &crc);
	*crc_out = crc;
	return r;
}

static int write_piece(void *arg, const void *data, size_t len)
{
	return fwrite(data, 1, len, arg) == len ? 0 : -EIO;
}

static int rewrite(struct job *job, const char *in, const char *out, bool crc)
{
	struct cfs_version version;
	struct stat st;
	uint32_t index;
	FILE *f;
	int r;

	r = cfs_source_dir_open("/", &job->source);
	if (r < 0)
		return r;
	job->tab = cfs_filetab_new();
	job->pool = cfs_filepool_new(job->source);
	r = job->source->ops->open(job->source, in + 1, &job->file);
	if (r < 0)
		return r;
	r = job->file->ops->stat(job->file, &st);
	if (r < 0)
		return r;
	cfs_version_of(&st, &version);
	r = cfs_filetab_add(job->tab, in + 1, &version, &index);
	if (r < 0)
		return r;
	r = cfs_torchfile_read(job->file, (uint64_t)st.st_size, job->tab, index,
			       NULL, &job->tf, &job->err);
	if (r < 0)
		return r;
	job->w = cfs_torch_writer_new(job->tab, "rewritten");
	if (!job->w)
		return -ENOMEM;
	r = cfs_torch_writer_finish(job->w, cfs_torchfile_root(job->tf),
				    open_file, job, crc ? crc_of : NULL, job,
				    &job->map, &job->err);
	if (r < 0)
		return r;
	f = fopen(out, "wb");
	if (!f)
		return -errno;
	r = each_piece(job, job->map, write_piece, f);
	return fclose(f) && !r ? -EIO : r;
}

int main(int argc, char **argv)
{
	const bool crc = argc == 4 && !strcmp(argv[1], "--crc");
	struct job job = {0};
	int r;

	if (argc != (crc ? 4 : 3) || argv[argc - 2][0] != '/') {
		(void)fprintf(stderr, "usage: torch_rewrite [--crc] /IN OUT\n");
		return 2;
	}
	r = rewrite(&job, argv[argc - 2], argv[argc - 1], crc);
	if (r < 0)
		(void)fprintf(stderr, "torch_rewrite: %s: %s\n", strerror(-r),
			      job.err.text);
	cfs_map_unref(job.map);
	cfs_torch_writer_free(job.w);
	cfs_torchfile_free(job.tf);
	cfs_file_close(job.file);
	cfs_filepool_free(job.pool);
	cfs_filetab_unref(job.tab);
	cfs_source_free(job.source);
	return r < 0;
}
