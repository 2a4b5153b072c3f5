/* The table of formats, and what all their steps share. */
#include "fs/format/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/hash.h"

const struct cfs_format *const cfs_formats[] = {&cfs_format_deepspeed,
						&cfs_format_universal,
						&cfs_format_safetensors, NULL};

int cfs_format_probe(struct cfs_source *source, const char *path,
		     const struct cfs_format **format_out)
{
	for (size_t i = 0; cfs_formats[i]; i++) {
		int r = cfs_formats[i]->probe(source, path);

		if (r < 0)
			return r;
		if (r) {
			*format_out = cfs_formats[i];
			return 0;
		}
	}
	return -ENOENT;
}

struct cfs_step *cfs_step_ref(struct cfs_step *step)
{
	__atomic_add_fetch(&step->refs, 1, __ATOMIC_RELAXED);
	return step;
}

void cfs_step_unref(struct cfs_step *step)
{
	if (step && !__atomic_sub_fetch(&step->refs, 1, __ATOMIC_ACQ_REL))
		step->format->step_free(step);
}

void cfs_step_unrefp(struct cfs_step **step)
{
	cfs_step_unref(*step);
}

static int check_all(const struct cfs_step *step,
		     const struct cfs_filetab *files, bool beside,
		     struct cfs_error *err)
{
	uint32_t n = files ? cfs_filetab_count(files) : 0;

	for (uint32_t i = 0; i < n; i++) {
		const char *path = cfs_filetab_path(files, i);
		struct cfs_version now;
		struct stat st;
		int r = beside ? step->source->ops->stat(step->source, path,
							 &st)
			       : cfs_source_stat_file(step->source, path, &st);

		if (r < 0)
			return cfs_fail_prefix(err, r == -ENOENT ? -ESTALE : r,
					       "%s", path);
		cfs_version_of(&st, &now);
		if (!cfs_version_equal(&now, cfs_filetab_version(files, i)))
			return cfs_fail(err, -ESTALE,
					"%s: changed since it was read", path);
	}
	return 0;
}

int cfs_step_check(const struct cfs_step *step, struct cfs_error *err)
{
	int r = check_all(step, step->files, false, err);

	return r < 0 ? r : check_all(step, step->beside, true, err);
}

int cfs_step_fold(struct cfs_step *step, const char *name,
		  const struct stat *st, const struct cfs_version *v,
		  struct cfs_error *err)
{
	const uint64_t words[] = {v->dev, v->ino, v->size,
				  (uint64_t)v->mtime_ns, (uint64_t)v->ctime_ns};

	if (!step->identity) {
		step->mode = st->st_mode & 0777;
		step->uid = st->st_uid;
		step->gid = st->st_gid;
		step->mtime_ns = v->mtime_ns;
		step->identity = cfs_hash64(step->path, strlen(step->path), 1);
	}
	if (st->st_uid != step->uid)
		return cfs_fail(err, -EACCES,
				"%s belongs to user %u and %s to user %u: "
				"chown the step's files to one user",
				name, (unsigned)st->st_uid,
				cfs_filetab_path(step->files, step->first_file),
				(unsigned)step->uid);
	step->mode &= st->st_mode & 0777;
	/* Of another group: what the group may do counts for nobody. */
	if (st->st_gid != step->gid)
		step->mode &= ~(mode_t)070;
	step->mtime_ns = CFS_MAX(step->mtime_ns, v->mtime_ns);
	step->identity = cfs_hash64(words, sizeof(words), step->identity);
	step->identity = cfs_hash64(name, strlen(name), step->identity) | 1;
	return 0;
}

uint64_t cfs_step_fingerprint(const struct cfs_step *step)
{
	uint32_t n = cfs_filetab_count(step->files);
	uint64_t sum = 0;

	/* a sum: rows are in no order that must stay */
	for (uint32_t i = step->first_file; i < n; i++) {
		const struct cfs_version *v =
			cfs_filetab_version(step->files, i);
		const char *name = cfs_filetab_path(step->files, i);
		const uint64_t words[] = {v->size, (uint64_t)v->mtime_ns};

		if (!strncmp(name, step->path, strlen(step->path)))
			name += strlen(step->path);
		name += *name == '/';
		sum += cfs_hash64(words, sizeof(words),
				  cfs_hash64(name, strlen(name), 0));
	}
	return sum;
}
