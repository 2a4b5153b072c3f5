/*
 * puts_files universal|safetensors /IN OUT: the files of a format that are made
 * of what ranks put, without a daemon.  /IN has
 *
 *   puts        "step dp zero", then a line a slice:
 *               name role dtype rank file_off flat_start flat_count ndim, then
 *               shape, offset and extent
 *   part-RANK   the slices' bytes
 *   objects/    by name
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/format/puts.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"

#define BLOCK ((size_t)1 << 20)

struct job {
	const char *in, *out;
	struct cfs_source *source;
	struct cfs_filepool *pool;
	struct cfs_filetab *files;
	struct cfs_put *puts;
	const struct cfs_put **list; /* of them */
	size_t n_puts, cap_puts;
	struct cfs_put_object *objects;
	size_t n_objects, cap_objects;
	struct cfs_puts all;
	struct cfs_error err;
};

/* ---- in ---- */

static enum cfs_dtype dtype_of(const char *name)
{
	for (int i = 1; i < CFS_N_DTYPES; i++)
		if (!strcmp(cfs_dtype_name((enum cfs_dtype)i), name))
			return (enum cfs_dtype)i;
	return CFS_DTYPE_NONE;
}

static int add_part(struct job *job, uint32_t rank, uint32_t *row_out)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_version version;
	char path[4096];
	int r;

	(void)snprintf(path, sizeof(path), "%s/part-%u", job->in + 1, rank);
	r = job->source->ops->open(job->source, path, &file);
	if (!r)
		r = cfs_file_settle(file, &version);
	return r < 0 ? r : cfs_filetab_add(job->files, path, &version, row_out);
}

/* The next word as a number. */
static bool scan_number(FILE *f, uint64_t *out)
{
	char word[32], *end;

	if (fscanf(f, "%31s", word) != 1)
		return false;
	*out = strtoull(word, &end, 10);
	return !*end;
}

static bool scan_numbers(FILE *f, uint64_t *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!scan_number(f, &v[i]))
			return false;
	return true;
}

static int read_put(struct job *job, FILE *f)
{
	char name[1025], role[64], dtype[16];
	struct cfs_put put = {0};
	uint64_t v[5];
	int n = fscanf(f, "%1024s %63s %15s", name, role, dtype);
	int r;

	if (n != 3)
		return n == EOF ? -ENOENT : -EINVAL;
	if (!scan_numbers(f, v, 5) || v[4] > CFS_PUT_DIMS_MAX)
		return -EINVAL;
	put.rank = (uint32_t)v[0];
	put.file_off = v[1];
	put.flat_start = v[2];
	put.flat_count = v[3];
	put.ndim = (uint32_t)v[4];
	if (!scan_numbers(f, put.shape, put.ndim) ||
	    !scan_numbers(f, put.offset, put.ndim) ||
	    !scan_numbers(f, put.extent, put.ndim))
		return -EINVAL;
	put.name = strdup(name);
	put.role = strdup(role);
	put.dtype = dtype_of(dtype);
	if (!put.name || !put.role ||
	    !CFS_GROW(job->puts, job->n_puts, job->cap_puts))
		return -ENOMEM;
	r = cfs_put_check(&put, &job->err);
	if (!r)
		r = add_part(job, put.rank, &put.file);
	job->puts[job->n_puts++] = put;
	return r;
}

static int read_puts(struct job *job)
{
	char path[4096];
	uint64_t v[3] = {0};
	FILE *f;
	int r = 0;

	(void)snprintf(path, sizeof(path), "%s/puts", job->in);
	f = fopen(path, "r");
	if (!f)
		return -errno;
	if (!scan_numbers(f, v, 3))
		r = -EINVAL;
	job->all.step = (int64_t)v[0];
	job->all.dp = (uint32_t)v[1];
	job->all.zero_stage = (int)v[2];
	while (!r)
		r = read_put(job, f);
	(void)fclose(f);
	return r == -ENOENT ? 0 : r;
}

static int on_object(void *arg, const char *name, const struct stat *st)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct job *job = arg;
	struct cfs_put_object o = {.name = strdup(name)};
	char path[4096];
	void *data;
	int r;

	(void)st;
	(void)snprintf(path, sizeof(path), "%s/objects/%s", job->in + 1, name);
	r = cfs_source_read_small(job->source, path, (size_t)1 << 26, &buf);
	if (r < 0)
		return r;
	data = malloc(buf.len + 1);
	if (!o.name || !data ||
	    !CFS_GROW(job->objects, job->n_objects, job->cap_objects))
		return -ENOMEM;
	memcpy(data, buf.data, buf.len);
	o.data = data;
	o.len = buf.len;
	job->objects[job->n_objects++] = o;
	return 0;
}

static int read_all(struct job *job)
{
	char path[4096];
	int r = read_puts(job);

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/objects", job->in + 1);
	return job->source->ops->readdir(job->source, path, on_object, job);
}

/* ---- out ---- */

static FILE *create(const char *dir, const char *name)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	for (char *s = path + strlen(dir); (s = strchr(s + 1, '/'));) {
		*s = '\0';
		(void)mkdir(path, 0755);
		*s = '/';
	}
	return fopen(path, "wb");
}

static int write_file(void *arg, const char *name, struct cfs_map *map,
		      struct cfs_error *err)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *rd = NULL;
	_cleanup_(cfs_freep) uint8_t *buf = malloc(BLOCK);
	struct job *job = arg;
	uint64_t off = 0;
	FILE *f;
	int r = buf ? cfs_reader_open(map, job->pool, NULL, &rd, err) : -ENOMEM;

	if (r < 0)
		return r;
	f = create(job->out, name);
	if (!f)
		return -errno;
	while (!r && off < cfs_map_size(map)) {
		ssize_t n = cfs_reader_pread(rd, buf, BLOCK, off);

		if (n <= 0)
			r = n ? (int)n : -EIO;
		else if (fwrite(buf, 1, (size_t)n, f) != (size_t)n)
			r = -EIO;
		else
			off += (uint64_t)n;
	}
	return fclose(f) && !r ? -EIO : r;
}

static int make(struct job *job, const char *format)
{
	int r = cfs_source_dir_open("/", &job->source);

	if (r < 0)
		return r;
	job->pool = cfs_filepool_new(job->source);
	job->files = cfs_filetab_new();
	if (!job->pool || !job->files)
		return -ENOMEM;
	r = read_all(job);
	if (r < 0)
		return r;
	job->all.files = job->files;
	job->list = calloc(job->n_puts + 1, sizeof(*job->list));
	if (!job->list)
		return -ENOMEM;
	for (size_t i = 0; i < job->n_puts; i++)
		job->list[i] = &job->puts[i];
	job->all.puts = job->list;
	job->all.n_puts = job->n_puts;
	job->all.objects = job->objects;
	job->all.n_objects = job->n_objects;
	if (!strcmp(format, "universal"))
		return cfs_puts_universal(&job->all, write_file, job,
					  &job->err);
	return cfs_puts_safetensors(&job->all, write_file, job, &job->err);
}

static void free_const(const void *p)
{
	free((void *)(uintptr_t)p);
}

int main(int argc, char **argv)
{
	struct job job = {0};
	int r;

	if (argc != 4 || argv[2][0] != '/') {
		(void)fprintf(stderr, "usage: puts_files universal|safetensors "
				      "/IN OUT\n");
		return 2;
	}
	job.in = argv[2];
	job.out = argv[3];
	r = make(&job, argv[1]);
	if (r < 0)
		(void)fprintf(stderr, "puts_files: %s: %s\n", strerror(-r),
			      job.err.text);
	for (size_t i = 0; i < job.n_puts; i++) {
		free_const(job.puts[i].name);
		free_const(job.puts[i].role);
	}
	for (size_t i = 0; i < job.n_objects; i++) {
		free_const(job.objects[i].name);
		free_const(job.objects[i].data);
	}
	free(job.list);
	free(job.puts);
	free(job.objects);
	cfs_filetab_unref(job.files);
	cfs_filepool_free(job.pool);
	cfs_source_free(job.source);
	return r < 0;
}
