/*
 * The commit: parts closed, the format's files made, everything durable, and
 * then one change of the namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "fs/daemon/layouts.h"
#include "fs/rank/stage_internal.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

static int check_ended(const struct cfs_stage *stage, struct cfs_error *err)
{
	if (stage->n_streams)
		return cfs_fail(err, -EINVAL,
				"%u puts, files or objects of %s are not "
				"finished",
				stage->n_streams, stage->options.step);
	if (stage->dropped)
		return cfs_fail(err, -EINVAL,
				"a put, file or object of %s was given up",
				stage->options.step);
	return 0;
}

static void close_parts(struct cfs_stage *stage)
{
	for (uint32_t i = 0; i < stage->options.n_ranks; i++)
		if (stage->parts[i].file)
			cfs_ns_close_file(cfs_steal(stage->parts[i].file));
}

static int write_objects(struct cfs_stage *stage, struct cfs_error *err)
{
	int r = 0;

	for (size_t i = 0; i < stage->n_objects && r == 0; i++) {
		const struct cfs_stage_object *o = &stage->objects[i];
		_cleanup_(cfs_freep) char *path = NULL;

		if (asprintf(&path, CFS_LAYOUT_RANKS "/%s", o->name) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		r = cfs_assemble_bytes(stage->files, path, o->data, o->len,
				       err);
	}
	return r;
}

/* Says that all of the step is there: it gets its name with it. */
static int write_mark(struct cfs_stage *stage, struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *text = NULL;
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	if (asprintf(&text,
		     "{\"ckptfs\": \"%s\", \"format\": \"%s\", "
		     "\"ranks\": %u, \"save\": \"%016llx\", "
		     "\"files\": %llu}\n",
		     CFS_VERSION, stage->options.format, stage->options.n_ranks,
		     (unsigned long long)id,
		     (unsigned long long)cfs_assemble_files(stage->files)) <
	    0) {
		text = NULL;
		return -ENOMEM;
	}
	return cfs_assemble_bytes(stage->files,
				  CFS_LAYOUT_RANKS "/" CFS_LAYOUT_RANKS_MARK,
				  text, strlen(text), err);
}

static int write_pointer(struct cfs_stage *stage)
{
	const struct cfs_stage_options *o = &stage->options;
	struct cfs_ns_cred cred = {o->uid, o->gid};
	struct cfs_ns *ns = stage->context->ns;
	struct cfs_ns_file *file;
	struct stat st;
	ssize_t n;
	int r;

	if (!cfs_stage_pointer(stage)[0])
		return 0;
	r = cfs_ns_create(ns, &cred, stage->dir, "pointer", 0666 & ~o->umask,
			  O_RDWR, &st, &file);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	n = cfs_ns_pwrite(file, o->step, strlen(o->step), 0);
	cfs_ns_close_file(file);
	return n < 0 ? (int)n : 0;
}

int cfs_stage_commit(struct cfs_stage *stage, struct cfs_error *err)
{
	int r = check_ended(stage, err);

	if (r < 0)
		return r;
	close_parts(stage);
	/* versions of the parts do not move any more, and what does not fit is
	 * known before anything is made of it */
	r = cfs_ns_sync(stage->context->ns);
	if (r == 0)
		r = cfs_stage_format(stage, err);
	if (r == 0)
		r = write_objects(stage, err);
	if (r == 0)
		r = write_mark(stage, err);
	if (r == 0)
		r = write_pointer(stage);
	if (r == 0)
		r = cfs_ns_sync(stage->context->ns);
	if (r == 0)
		r = cfs_stage_publish(stage, err);
	if (r < 0 && err && !err->text[0])
		return cfs_fail_prefix(err, r, "%s", stage->options.step);
	return r;
}
