/* Files of a step, and objects, which are kept in memory until commit. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/layouts.h"
#include "fs/rank/stage_stream.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/grow.h"

#define OBJECTS_BYTES_MAX ((size_t)1 << 30) /* of one save, in memory */

/* Lock held: the path is this rank's, or an error names whose it is. */
static int claim(struct cfs_stage *stage, char kind, uint32_t rank,
		 const char *path, struct cfs_error *err)
{
	char other = kind == CFS_STAGE_FILE ? CFS_STAGE_OBJECT : CFS_STAGE_FILE;
	const struct cfs_stage_name *n =
		cfs_stage_names_find(&stage->names, other, path);

	if (!n && kind == CFS_STAGE_FILE)
		n = cfs_stage_names_find(&stage->names, kind, path);
	if (n)
		return cfs_fail(err, -EEXIST,
				"%s: ranks %u and %u both write it", path,
				n->rank, rank);
	n = cfs_stage_names_add(&stage->names, kind, path, rank);
	return n ? 0 : -ENOMEM;
}

/* Beside what the step has of its own, and what views are called. */
static int check_file_name(const char *name, struct cfs_error *err)
{
	const size_t own = strlen(CFS_LAYOUT_RANKS);

	if (name[0] == '@')
		return cfs_fail(err, -EINVAL,
				"%s: names with \"@\" in front are views'",
				name);
	if (!strncmp(name, CFS_LAYOUT_RANKS, own) &&
	    (!name[own] || name[own] == '/'))
		return cfs_fail(err, -EINVAL, "%s: %s/ is for objects: put one",
				name, CFS_LAYOUT_RANKS);
	return cfs_assemble_name_check(name, err);
}

int cfs_stage_file(struct cfs_stage *stage, uint32_t rank, const char *name,
		   struct cfs_stage_stream **out, struct cfs_error *err)
{
	_cleanup_(cfs_stage_stream_freep) struct cfs_stage_stream *s = NULL;
	int r = check_file_name(name, err);

	if (r == 0)
		r = cfs_stage_stream_new(stage, CFS_STAGE_IS_FILE, rank, name,
					 &s, err);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&stage->lock);
	r = claim(stage, CFS_STAGE_FILE, rank, name, err);
	if (r == 0)
		r = cfs_assemble_create(stage->files, name, &s->file, err);
	stage->n_streams += r == 0;
	(void)pthread_mutex_unlock(&stage->lock);
	if (r == 0)
		*out = cfs_steal(s);
	return r;
}

int cfs_stage_object(struct cfs_stage *stage, uint32_t rank, const char *name,
		     struct cfs_stage_stream **out, struct cfs_error *err)
{
	_cleanup_(cfs_stage_stream_freep) struct cfs_stage_stream *s = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	int r = cfs_assemble_name_check(name, err);

	if (r == 0 && !strcmp(name, CFS_LAYOUT_RANKS_MARK))
		return cfs_fail(err, -EINVAL,
				"object %s: every step has one of its own",
				name);
	if (r == 0 && strchr(name, '/'))
		return cfs_fail(err, -EINVAL,
				"object %s: its name must be one component",
				name);
	if (r == 0)
		r = cfs_stage_stream_new(stage, CFS_STAGE_IS_OBJECT, rank, name,
					 &s, err);
	if (r < 0)
		return r;
	if (asprintf(&path, CFS_LAYOUT_RANKS "/%s", name) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	(void)pthread_mutex_lock(&stage->lock);
	r = claim(stage, CFS_STAGE_OBJECT, rank, path, err);
	stage->n_streams += r == 0;
	(void)pthread_mutex_unlock(&stage->lock);
	if (r == 0)
		*out = cfs_steal(s);
	return r;
}

int cfs_stage_object_write(struct cfs_stage_stream *s, const void *data,
			   size_t len, struct cfs_error *err)
{
	struct cfs_stage *stage = s->stage;
	bool full;

	if (len > CFS_STAGE_OBJECT_MAX - s->data.len)
		return cfs_fail(err, -EFBIG,
				"object %s: more than %zu MiB; write a file",
				s->name, (size_t)(CFS_STAGE_OBJECT_MAX >> 20));
	(void)pthread_mutex_lock(&stage->lock);
	full = len > OBJECTS_BYTES_MAX - stage->object_bytes;
	stage->object_bytes += full ? 0 : len;
	(void)pthread_mutex_unlock(&stage->lock);
	if (full)
		return cfs_fail(err, -EFBIG,
				"object %s: all objects of the step have more "
				"than %zu MiB; write files",
				s->name, OBJECTS_BYTES_MAX >> 20);
	cfs_buf_put(&s->data, data, len);
	return s->data.failed ? -ENOMEM : 0;
}

/* Lock held.  Who puts what is there puts the same. */
static int keep(struct cfs_stage_stream *s, struct cfs_error *err)
{
	struct cfs_stage *stage = s->stage;
	const struct cfs_stage_name *n;

	for (size_t i = 0; i < stage->n_objects; i++) {
		const struct cfs_stage_object *o = &stage->objects[i];

		if (strcmp(o->name, s->name) != 0)
			continue;
		stage->object_bytes -= s->data.len;
		if (o->len == s->data.len &&
		    (!o->len || !memcmp(o->data, s->data.data, o->len)))
			return 0;
		return cfs_fail(err, -EEXIST,
				"object %s: ranks %u and %u put different "
				"bytes",
				s->name, o->rank, s->rank);
	}
	n = cfs_stage_names_add(&stage->names, CFS_STAGE_TENSOR, s->name, 0);
	if (!n ||
	    !CFS_GROW(stage->objects, stage->n_objects, stage->cap_objects))
		return -ENOMEM;
	stage->objects[stage->n_objects++] = (struct cfs_stage_object){
		.name = n->name,
		.rank = s->rank,
		.len = s->data.len,
		.data = cfs_steal(s->data.data),
	};
	s->data = (struct cfs_buf)CFS_BUF_INIT;
	return 0;
}

int cfs_stage_object_end(struct cfs_stage_stream *s, struct cfs_error *err)
{
	int r;

	(void)pthread_mutex_lock(&s->stage->lock);
	r = keep(s, err);
	(void)pthread_mutex_unlock(&s->stage->lock);
	return r;
}
