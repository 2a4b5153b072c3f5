/* What all streams into a stage share. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/stage_stream.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

static void stream_free(struct cfs_stage_stream *s)
{
	if (s->file)
		cfs_ns_close_file(s->file);
	cfs_buf_free(&s->data);
	free(s->block);
	free(s->name);
	free(s);
}

void cfs_stage_stream_freep(struct cfs_stage_stream **s)
{
	if (*s)
		stream_free(*s);
}

int cfs_stage_stream_new(struct cfs_stage *stage, enum cfs_stage_kind kind,
			 uint32_t rank, const char *name,
			 struct cfs_stage_stream **out, struct cfs_error *err)
{
	_cleanup_(cfs_stage_stream_freep) struct cfs_stage_stream *s =
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

void cfs_stage_leave(struct cfs_stage_stream *s, bool dropped)
{
	struct cfs_stage *stage = s->stage;

	(void)pthread_mutex_lock(&stage->lock);
	if (s->kind == CFS_STAGE_IS_PUT)
		stage->parts[s->rank].busy = false;
	stage->n_streams--;
	stage->dropped |= dropped;
	(void)pthread_mutex_unlock(&stage->lock);
	stream_free(s);
}

int cfs_stage_write(struct cfs_stage_stream *s, const void *data, size_t len,
		    struct cfs_error *err)
{
	ssize_t n;

	if (!len)
		return 0;
	if (s->kind == CFS_STAGE_IS_PUT)
		return cfs_stage_put_write(s, data, len, err);
	if (s->kind == CFS_STAGE_IS_OBJECT)
		return cfs_stage_object_write(s, data, len, err);
	n = cfs_ns_pwrite(s->file, data, len, s->at);
	if (n < 0)
		return cfs_fail_prefix(err, (int)n, "%s", s->name);
	s->at += len;
	return 0;
}

int cfs_stage_end(struct cfs_stage_stream *s, struct cfs_error *err)
{
	int r = 0;

	if (s->kind == CFS_STAGE_IS_PUT) {
		r = cfs_stage_put_end(s, err);
	} else if (s->kind == CFS_STAGE_IS_OBJECT) {
		r = cfs_stage_object_end(s, err);
	}
	cfs_stage_leave(s, r < 0);
	return r;
}

void cfs_stage_drop(struct cfs_stage_stream *s)
{
	if (s)
		cfs_stage_leave(s, true);
}
