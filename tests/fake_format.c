/*
 * A format simple enough to check views by eye, in the place of the real one:
 * a step is files shard_<i>_of_<n>.bin; its state is their bytes in order;
 * @dpN cuts the same bytes into N files of as equal a size as can be, the
 * earlier ones a byte longer.  "@zeroN" cannot be derived, "@subN" stalls
 * planning for N milliseconds.
 */
#include "tests/fake_format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/util/error.h"
#include "store/util/hash.h"

atomic_uint cfs_fake_reads, cfs_fake_writes, cfs_fake_builds;

struct fake_tree {
	struct cfs_tree base;
};

static bool parse_name(const char *name, unsigned *index, unsigned *n)
{
	char again[64];

	if (sscanf(name, "shard_%u_of_%u.bin", index, n) != 2)
		return false;
	snprintf(again, sizeof(again), "shard_%u_of_%u.bin", *index, *n);
	return !strcmp(name, again);
}

static bool fake_owns(const char *name)
{
	unsigned index, n;

	return parse_name(name, &index, &n);
}

struct found {
	unsigned n, seen;
};

static int look(void *arg, const char *name, const struct stat *st)
{
	struct found *found = arg;
	unsigned index, n;

	(void)st;
	if (parse_name(name, &index, &n)) {
		found->n = n;
		found->seen++;
	}
	return 0;
}

static int fake_probe(struct cfs_source *source, const char *path)
{
	struct found found = {0, 0};
	int r = source->ops->readdir(source, path, look, &found);

	if (r == -ENOTDIR)
		return 0;
	return r < 0 ? r : found.seen > 0;
}

static int fake_complete(struct cfs_source *source, const char *path,
			 struct cfs_error *err)
{
	struct found found = {0, 0};
	int r = source->ops->readdir(source, path, look, &found);

	if (r < 0)
		return r;
	if (found.seen == found.n)
		return 1;
	(void)cfs_fail(err, 0, "%u of %u shards", found.seen, found.n);
	return 0;
}

static int add_shard(struct cfs_step *step, unsigned i, unsigned n,
		     struct cfs_error *err)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_version version;
	struct stat st;
	char path[512];
	uint32_t index;
	int r;

	snprintf(path, sizeof(path), "%s%sshard_%u_of_%u.bin", step->path,
		 *step->path ? "/" : "", i, n);
	r = step->source->ops->open(step->source, path, &file);
	if (r < 0)
		return cfs_fail(err, r, "%s: is missing", path);
	r = cfs_file_settle(file, &version);
	if (!r)
		r = file->ops->stat(file, &st);
	if (!r)
		r = cfs_filetab_add(step->files, path, &version, &index);
	if (r < 0)
		return r;
	if (i && st.st_uid != step->uid)
		return cfs_fail(err, -EACCES, "%s: another owner", path);
	step->mode &= st.st_mode;
	step->uid = st.st_uid;
	step->gid = st.st_gid;
	step->mtime_ns = CFS_MAX(step->mtime_ns, version.mtime_ns);
	step->identity = cfs_hash64(&version, sizeof(version), step->identity);
	return 0;
}

static int fake_read(struct cfs_source *source, struct cfs_filepool *pool,
		     const char *path, struct cfs_step **step_out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step =
		calloc(1, sizeof(*step));
	struct found found = {0, 0};
	unsigned i;
	int r;

	atomic_fetch_add(&cfs_fake_reads, 1);
	if (!step)
		return -ENOMEM;
	step->format = &cfs_format_deepspeed;
	step->refs = 1;
	step->path = strdup(path);
	step->source = source;
	step->pool = pool;
	step->files = cfs_filetab_new();
	step->mode = 07777;
	step->global_steps = -1;
	if (!step->path || !step->files)
		return -ENOMEM;
	step->identity = cfs_hash64(path, strlen(path), 0);
	r = source->ops->readdir(source, path, look, &found);
	for (i = 0; !r && i < found.n; i++)
		r = add_shard(step, i, found.n, err);
	if (r < 0)
		return r;
	step->topology = (struct cfs_topology){.dp = found.n,
					       .tp = 1,
					       .pp = 1,
					       .zero_stage = 1,
					       .optimizer = CFS_OPT_BF16};
	*step_out = cfs_steal(step);
	return 0;
}

static uint64_t total_bytes(const struct cfs_step *step)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < cfs_filetab_count(step->files); i++)
		sum += cfs_filetab_version(step->files, i)->size;
	return sum;
}

static int fake_resolve(const struct cfs_step *step,
			const struct cfs_request *request,
			struct cfs_resolved *out, struct cfs_error *err)
{
	struct cfs_resolved resolved = {.topology = step->topology};

	if (request->zero_stage >= 0)
		return cfs_fail(err, -ENOTSUP,
				"%s: no other stage can be derived",
				step->path);
	if (request->dp > total_bytes(step))
		return cfs_fail(err, -EINVAL, "%s: fewer bytes than ranks",
				step->path);
	if (request->dp)
		resolved.topology.dp = request->dp;
	*out = resolved;
	if (request->sub_group_size) {
		struct timespec stall = {
			.tv_nsec = (long)request->sub_group_size * 1000000};

		nanosleep(&stall, NULL);
	}
	return 0;
}

/* The bytes [from, to) of the step's state. */
static int put_bytes(struct cfs_map *map, const struct cfs_step *step,
		     uint64_t from, uint64_t to)
{
	uint64_t start = 0, size, a, b;
	uint32_t i;
	int r;

	for (i = 0; i < cfs_filetab_count(step->files); i++) {
		size = cfs_filetab_version(step->files, i)->size;
		a = CFS_MAX(from, start);
		b = CFS_MIN(to, start + size);
		if (a < b) {
			r = cfs_map_add_range(map, i, a - start, b - a);
			if (r < 0)
				return r;
		}
		start += size;
	}
	return 0;
}

static int fake_build(struct cfs_tree *tree, uint32_t index,
		      struct cfs_map **map_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(tree->step->files);
	uint64_t total = total_bytes(tree->step), n = tree->target.topology.dp;
	uint64_t each = total / n, longer = total % n;
	uint64_t from = index * each + CFS_MIN(index, longer);
	int r;

	(void)err;
	atomic_fetch_add(&cfs_fake_builds, 1);
	if (!map)
		return -ENOMEM;
	r = put_bytes(map, tree->step, from,
		      from + each + (index < longer ? 1 : 0));
	if (r < 0)
		return r;
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}

static void fake_free(struct cfs_tree *tree)
{
	cfs_tree_fini(tree);
	free(tree);
}

static int fake_write(struct cfs_step *step, const struct cfs_resolved *target,
		      struct cfs_tree **tree_out, struct cfs_error *err)
{
	static const struct cfs_tree_ops ops = {fake_build, fake_free};
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree =
		calloc(1, sizeof(*tree));
	char name[64];
	uint32_t i, n = target->topology.dp;
	int r;

	(void)err;
	atomic_fetch_add(&cfs_fake_writes, 1);
	if (!tree)
		return -ENOMEM;
	r = cfs_tree_init(tree, &ops, step, target);
	for (i = 0; !r && i < n; i++) {
		snprintf(name, sizeof(name), "shard_%u_of_%u.bin", i, n);
		r = cfs_tree_add(tree, name, 0644, i);
	}
	if (!r)
		r = cfs_tree_seal(tree);
	if (r < 0)
		return r;
	*tree_out = cfs_steal(tree);
	return 0;
}

static void fake_step_free(struct cfs_step *step)
{
	cfs_filetab_unref(step->files);
	free(step->path);
	free(step);
}

const struct cfs_format cfs_format_deepspeed = {
	.name = "fake",
	.probe = fake_probe,
	.owns = fake_owns,
	.read = fake_read,
	.resolve = fake_resolve,
	.write = fake_write,
	.complete = fake_complete,
	.step_free = fake_step_free,
};
