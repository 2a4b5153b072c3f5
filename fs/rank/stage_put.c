/*
 * What ranks put: one part of a stage for each rank, cut on tensors' grids.
 * Bytes go through a block of the stage's own, so that what is hashed is what
 * is written, whatever becomes of the memory that they came from.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/rank/stage_stream.h"
#include "store/chunk/chunker.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

#define BLOCK_BYTES ((size_t)128 << 10)

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

int cfs_stage_put(struct cfs_stage *stage, const struct cfs_put *put,
		  struct cfs_stage_stream **out, struct cfs_error *err)
{
	_cleanup_(cfs_stage_stream_freep) struct cfs_stage_stream *s = NULL;
	int r;

	if (!strcmp(stage->options.format, "files"))
		return cfs_fail(err, -EINVAL,
				"%s: a step of the format \"files\" holds no "
				"tensors",
				put->name);
	r = cfs_stage_stream_new(stage, CFS_STAGE_IS_PUT, put->rank, put->name,
				 &s, err);
	if (r < 0 || !s)
		return r;
	s->put = *put;
	r = cfs_put_check(&s->put, err);
	if (r == 0) {
		(void)pthread_mutex_lock(&stage->lock);
		r = begin_put(stage, &s->put, err);
		(void)pthread_mutex_unlock(&stage->lock);
	}
	if (r < 0)
		return r;
	s->left = cfs_put_bytes(&s->put);
	s->put.hash = 0;
	if (!stage->parts[put->rank].file)
		r = open_part(stage, put->rank);
	if (r == 0)
		r = hint(&stage->parts[put->rank], &s->put, s->left);
	if (r < 0) {
		r = cfs_fail_prefix(err, r, "%s", s->name);
		cfs_stage_leave(cfs_steal(s), true);
		return r;
	}
	s->put.file_off = stage->parts[put->rank].end;
	*out = cfs_steal(s);
	return 0;
}

/* Blocks begin at the same places of every put: the hash does not depend on how
 * its bytes came. */
static int write_block(struct cfs_stage_stream *s, struct cfs_error *err)
{
	struct cfs_stage_part *part = &s->stage->parts[s->rank];
	ssize_t n;

	s->put.hash = cfs_hash64(s->block, s->block_len, s->put.hash);
	n = cfs_ns_pwrite(part->file, s->block, s->block_len, part->end);
	if (n < 0)
		return cfs_fail_prefix(err, (int)n, "%s of rank %u", s->name,
				       s->rank);
	part->end += s->block_len;
	s->block_len = 0;
	return 0;
}

int cfs_stage_put_write(struct cfs_stage_stream *s, const void *data,
			size_t len, struct cfs_error *err)
{
	const uint8_t *from = data;
	int r = 0;

	if (len > s->left)
		return cfs_fail(err, -EINVAL,
				"%s: rank %u sends more bytes than the slice "
				"has",
				s->name, s->rank);
	if (!s->block)
		s->block = malloc(CFS_MIN(s->left, (uint64_t)BLOCK_BYTES));
	if (!s->block)
		return -ENOMEM;
	while (len && r == 0) {
		size_t n = CFS_MIN(len, BLOCK_BYTES - s->block_len);

		memcpy(s->block + s->block_len, from, n);
		s->block_len += n;
		s->left -= n;
		from += n;
		len -= n;
		if (s->block_len == BLOCK_BYTES || !s->left)
			r = write_block(s, err);
	}
	return r;
}

int cfs_stage_put_end(struct cfs_stage_stream *s, struct cfs_error *err)
{
	struct cfs_stage_part *part = &s->stage->parts[s->rank];

	if (s->left)
		return cfs_fail(err, -EINVAL,
				"%s: of rank %u's slice %llu bytes are missing",
				s->name, s->rank, (unsigned long long)s->left);
	if (!CFS_GROW(part->puts, part->n_puts, part->cap_puts))
		return -ENOMEM;
	part->puts[part->n_puts++] = s->put;
	return 0;
}
