/* What ranks stream into a stage: puts, files, objects. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/stage_internal.h"
#include "store/chunk/chunker.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"

#define OBJECT_BYTES_MAX  ((size_t)64 << 20)
#define OBJECTS_BYTES_MAX ((size_t)1 << 30) /* of one save, in memory */

enum kind {
	PUT,
	FILE_OF_STEP,
	OBJECT
};

struct cfs_stage_stream {
	struct cfs_stage *stage;
	enum kind kind;
	uint32_t rank;
	char *name;		  /* for words */
	struct cfs_put put;	  /* PUT */
	uint64_t left;		  /* PUT: bytes to come */
	struct cfs_ns_file *file; /* FILE_OF_STEP */
	uint64_t at;
	struct cfs_buf data; /* OBJECT */
};

static void stream_free(struct cfs_stage_stream *s)
{
	if (s->file)
		cfs_ns_close_file(s->file);
	cfs_buf_free(&s->data);
	free(s->name);
	free(s);
}

static void stream_freep(struct cfs_stage_stream **s)
{
	if (*s)
		stream_free(*s);
}

static int stream_new(struct cfs_stage *stage, enum kind kind, uint32_t rank,
		      const char *name, struct cfs_stage_stream **out,
		      struct cfs_error *err)
{
	_cleanup_(stream_freep) struct cfs_stage_stream *s =
		calloc(1, sizeof(*s));

	if (rank >= stage->options.n_ranks)
		return cfs_fail(err, -EINVAL, "rank %u of %u", rank,
				stage->options.n_ranks);
	if (!s)
		return -ENOMEM;
	s->stage = stage;
	s->kind = kind;
	s->rank = rank;
	s->name = strdup(name);
	if (!s->name)
		return -ENOMEM;
	*out = cfs_steal(s);
	return 0;
}

/* ---- puts ---- */

/* Where the slice begins in the whole tensor, in elements, if it lies there in
 * one piece; else in its box, which other jobs cut alike. */
static uint64_t flat_position(const struct cfs_put *p)
{
	uint64_t at = 0, step = 1;
	bool whole = true; /* so far, from the innermost dimension */

	for (uint32_t i = p->ndim; i-- > 0;) {
		if (!whole && p->extent[i] != 1)
			return p->flat_start;
		at += p->offset[i] * step;
		step *= p->shape[i];
		whole = whole && p->extent[i] == p->shape[i];
	}
	return at + p->flat_start;
}

static int open_part(struct cfs_stage *stage, uint32_t rank)
{
	struct cfs_stage_part *part = &stage->parts[rank];
	struct cfs_ns_cred cred = {geteuid(), getegid()};
	struct cfs_ns *ns = stage->context->ns;
	char name[32];
	struct stat st;
	int r;

	if (part->file)
		return 0;
	(void)snprintf(name, sizeof(name), "part-%u", rank);
	r = cfs_ns_create(ns, &cred, stage->dir, name, 0600, O_RDWR, &st,
			  &part->file);
	if (r < 0)
		return r;
	cfs_ns_forget(ns, st.st_ino, 1);
	part->ino = st.st_ino;
	return 0;
}

/* The same part of a tensor is the same chunks whoever puts it. */
static int hint(const struct cfs_stage_part *part, const struct cfs_put *put,
		uint64_t bytes)
{
	uint32_t size = cfs_dtype_size(put->dtype);
	struct cfs_region region = {
		.off = part->end,
		.len = bytes,
		.phase = flat_position(put) * size,
		.elem_size = size,
		.grid = true,
	};

	return bytes ? cfs_ns_hint(part->file, &region) : 0;
}

/* Lock held: names are kept once, and the rank's part is its alone. */
static int begin_put(struct cfs_stage *stage, struct cfs_put *put,
		     struct cfs_error *err)
{
	struct cfs_stage_part *part = &stage->parts[put->rank];
	const struct cfs_stage_name *n;

	if (part->busy)
		return cfs_fail(err, -EBUSY,
				"%s: another put of rank %u has not ended",
				put->name, put->rank);
	n = cfs_stage_names_add(&stage->names, CFS_STAGE_TENSOR, put->name, 0);
	if (!n)
		return -ENOMEM;
	put->name = n->name;
	n = cfs_stage_names_add(&stage->names, CFS_STAGE_TENSOR, put->role, 0);
	if (!n)
		return -ENOMEM;
	put->role = n->name;
	part->busy = true;
	stage->n_streams++;
	return 0;
}

static void leave(struct cfs_stage_stream *s, bool dropped)
{
	struct cfs_stage *stage = s->stage;

	(void)pthread_mutex_lock(&stage->lock);
	if (s->kind == PUT)
		stage->parts[s->rank].busy = false;
	stage->n_streams--;
	stage->dropped |= dropped;
	(void)pthread_mutex_unlock(&stage->lock);
	stream_free(s);
}

int cfs_stage_put(struct cfs_stage *stage, const struct cfs_put *put,
		  struct cfs_stage_stream **out, struct cfs_error *err)
{
	struct cfs_stage_stream *s = NULL;
	int r;

	if (!strcmp(stage->options.format, "files"))
		return cfs_fail(err, -EINVAL,
				"%s: a step of the format \"files\" holds no "
				"tensors",
				put->name);
	r = stream_new(stage, PUT, put->rank, put->name, &s, err);
	if (r < 0)
		return r;
	s->put = *put;
	r = cfs_put_check(&s->put, err);
	if (r == 0) {
		(void)pthread_mutex_lock(&stage->lock);
		r = begin_put(stage, &s->put, err);
		(void)pthread_mutex_unlock(&stage->lock);
	}
	if (r < 0) {
		stream_free(s);
		return r;
	}
	s->left = cfs_put_bytes(&s->put);
	r = open_part(stage, put->rank);
	if (r == 0)
		r = hint(&stage->parts[put->rank], &s->put, s->left);
	if (r < 0) {
		r = cfs_fail_prefix(err, r, "%s", s->name);
		leave(s, true);
		return r;
	}
	s->put.file_off = stage->parts[put->rank].end;
	*out = s;
	return 0;
}

static int write_put(struct cfs_stage_stream *s, const void *data, size_t len,
		     struct cfs_error *err)
{
	struct cfs_stage_part *part = &s->stage->parts[s->rank];
	ssize_t n;

	if (len > s->left)
		return cfs_fail(err, -EINVAL,
				"%s: rank %u sends more bytes than the slice "
				"has",
				s->name, s->rank);
	n = cfs_ns_pwrite(part->file, data, len, part->end);
	if (n < 0)
		return cfs_fail_prefix(err, (int)n, "%s of rank %u", s->name,
				       s->rank);
	part->end += len;
	s->left -= len;
	return 0;
}

static int end_put(struct cfs_stage_stream *s, struct cfs_error *err)
{
	struct cfs_stage *stage = s->stage;
	bool room;

	if (s->left)
		return cfs_fail(err, -EINVAL,
				"%s: of rank %u's slice %llu bytes are missing",
				s->name, s->rank, (unsigned long long)s->left);
	(void)pthread_mutex_lock(&stage->lock);
	room = CFS_GROW(stage->puts, stage->n_puts, stage->cap_puts);
	if (room)
		stage->puts[stage->n_puts++] = s->put;
	(void)pthread_mutex_unlock(&stage->lock);
	return room ? 0 : -ENOMEM;
}

/* ---- files and objects ---- */

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

int cfs_stage_file(struct cfs_stage *stage, uint32_t rank, const char *name,
		   struct cfs_stage_stream **out, struct cfs_error *err)
{
	_cleanup_(stream_freep) struct cfs_stage_stream *s = NULL;
	int r = cfs_assemble_name_check(name, err);

	if (r == 0)
		r = stream_new(stage, FILE_OF_STEP, rank, name, &s, err);
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
	_cleanup_(stream_freep) struct cfs_stage_stream *s = NULL;
	_cleanup_(cfs_freep) char *path = NULL;
	int r = cfs_assemble_name_check(name, err);

	if (r == 0 && strchr(name, '/'))
		return cfs_fail(err, -EINVAL,
				"object %s: its name must be one component",
				name);
	if (r == 0)
		r = stream_new(stage, OBJECT, rank, name, &s, err);
	if (r < 0)
		return r;
	if (asprintf(&path, "ckptfs/%s", name) < 0) {
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

static int write_object(struct cfs_stage_stream *s, const void *data,
			size_t len, struct cfs_error *err)
{
	struct cfs_stage *stage = s->stage;
	bool full;

	if (len > OBJECT_BYTES_MAX - s->data.len)
		return cfs_fail(err, -EFBIG,
				"object %s: more than %zu MiB; write a file",
				s->name, OBJECT_BYTES_MAX >> 20);
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
static int keep_object(struct cfs_stage_stream *s, struct cfs_error *err)
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

/* ---- all ---- */

int cfs_stage_write(struct cfs_stage_stream *s, const void *data, size_t len,
		    struct cfs_error *err)
{
	ssize_t n;

	if (!len)
		return 0;
	if (s->kind == PUT)
		return write_put(s, data, len, err);
	if (s->kind == OBJECT)
		return write_object(s, data, len, err);
	n = cfs_ns_pwrite(s->file, data, len, s->at);
	if (n < 0)
		return cfs_fail_prefix(err, (int)n, "%s", s->name);
	s->at += len;
	return 0;
}

int cfs_stage_end(struct cfs_stage_stream *s, struct cfs_error *err)
{
	int r = 0;

	if (s->kind == PUT) {
		r = end_put(s, err);
	} else if (s->kind == OBJECT) {
		(void)pthread_mutex_lock(&s->stage->lock);
		r = keep_object(s, err);
		(void)pthread_mutex_unlock(&s->stage->lock);
	}
	leave(s, r < 0);
	return r;
}

void cfs_stage_drop(struct cfs_stage_stream *s)
{
	if (s)
		leave(s, true);
}
