/*
 * Maps as files.  A map is gone through once; parts that can be referred to
 * gather and are handed over many at a time, what cannot is read through the
 * evaluator and written, in order.
 */
#include "fs/rank/assemble.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "fs/rank/assemble_contents.h"
#include "fs/rank/assemble_dirs.h"
#include "store/chunk/chunker.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

#define PARTS	    4096u	/* handed over at a time */
#define BLOCK	    (1u << 20)	/* written at a time */
#define RUN_LEAST   4096u	/* shorter runs of a gather are copied */
#define SMALL_BYTES (64u << 10) /* literals that are one write */

struct cfs_assemble {
	struct cfs_ns *ns;
	struct cfs_assemble_dirs dirs;
	struct cfs_assemble_contents contents;
	struct cfs_source *source; /* for what is computed; or NULL */
	struct cfs_filepool *pool;

	struct cfs_ns_part *parts;
	size_t n_parts;
	uint8_t *block;
};

/* One file being made. */
struct making {
	struct cfs_assemble *a;
	const char *name;
	struct cfs_map *map;
	struct cfs_ns_file *file;
	struct cfs_reader *reader; /* of what is computed; or NULL */
	uint64_t at;		   /* written or handed over up to here */
	uint64_t end;		   /* of what is in the file */
	struct cfs_error *err;
};

static void making_fini(struct making *m)
{
	if (m->file)
		cfs_ns_close_file(m->file);
	cfs_reader_close(m->reader);
}

int cfs_assemble_new(struct cfs_ns *ns, uint64_t top,
		     const struct cfs_assemble_owner *owner,
		     struct cfs_assemble **out)
{
	_cleanup_(cfs_assemble_freep) struct cfs_assemble *a =
		calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->ns = ns;
	a->contents.ns = ns;
	a->dirs = (struct cfs_assemble_dirs){
		.ns = ns, .top = top, .owner = *owner};
	a->parts = malloc(PARTS * sizeof(*a->parts));
	if (!a->parts)
		return -ENOMEM;
	*out = cfs_steal(a);
	return 0;
}

void cfs_assemble_free(struct cfs_assemble *a)
{
	if (!a)
		return;
	cfs_assemble_contents_fini(&a->contents);
	cfs_filepool_free(a->pool);
	cfs_source_free(a->source);
	cfs_assemble_dirs_fini(&a->dirs);
	free(a->parts);
	free(a->block);
	free(a);
}

void cfs_assemble_freep(struct cfs_assemble **a)
{
	cfs_assemble_free(*a);
}

/* ---- what is referred to ---- */

static int flush(struct making *m)
{
	struct cfs_assemble *a = m->a;
	int r = 0;

	if (a->n_parts)
		r = cfs_ns_compose(m->file, a->parts, a->n_parts);
	a->n_parts = 0;
	return r;
}

static int add_part(struct making *m, const struct cfs_ns_part *part)
{
	struct cfs_assemble *a = m->a;

	a->parts[a->n_parts++] = *part;
	m->end = part->off + part->len;
	return a->n_parts == PARTS ? flush(m) : 0;
}

static int refer(struct making *m, const struct cfs_map *map, uint64_t off,
		 uint64_t len);

struct runs {
	struct making *m;
	const struct cfs_map *child;
};

static int on_run(void *arg, uint64_t child_off, uint64_t len)
{
	struct runs *runs = arg;

	return refer(runs->m, runs->child, child_off, len);
}

/* Bytes [@skip, +@len) of one segment that refers() said yes to. */
static int refer_segment(struct making *m, const struct cfs_map *map,
			 uint32_t index, const struct cfs_segment *seg,
			 uint64_t skip, uint64_t len)
{
	struct cfs_ns_part part = {.off = m->at, .len = len};
	struct runs runs = {m, seg->child};
	int r;

	switch (seg->kind) {
	case CFS_SEG_ZERO:
		m->at += len;
		return 0;
	case CFS_SEG_LITERAL:
		part.data = seg->literal + skip;
		break;
	case CFS_SEG_RANGE:
		r = cfs_assemble_contents_open(&m->a->contents, seg->file,
					       m->name, &part.content, m->err);
		if (r < 0)
			return r;
		part.content_off = seg->file_off + skip;
		break;
	default:
		return cfs_map_gather_each(map, index, on_run, &runs);
	}
	m->at += len;
	return add_part(m, &part);
}

static int refer(struct making *m, const struct cfs_map *map, uint64_t off,
		 uint64_t len)
{
	uint32_t i = len ? cfs_map_find(map, off) : 0;
	int r = 0;

	for (; r == 0 && len; i++) {
		struct cfs_segment seg;
		uint64_t skip, n;

		cfs_map_segment(map, i, &seg);
		skip = off - seg.off;
		n = CFS_MIN(seg.len - skip, len);
		r = refer_segment(m, map, i, &seg, skip, n);
		off += n;
		len -= n;
	}
	return r;
}

/* Can all of it be referred to, in pieces that are not too short?  A gather
 * is seen whole only, so not below another one. */
static bool refers(const struct cfs_map *map, uint32_t index, bool top)
{
	struct cfs_segment seg;

	cfs_map_segment(map, index, &seg);
	if (seg.kind == CFS_SEG_GATHER) {
		if (!top || cfs_map_gather_run(map, index) < RUN_LEAST)
			return false;
		for (uint32_t i = 0; i < cfs_map_count(seg.child); i++)
			if (!refers(seg.child, i, false))
				return false;
		return true;
	}
	return seg.kind != CFS_SEG_CAST && seg.kind != CFS_SEG_LINEAR;
}

/* ---- what is computed ---- */

static int open_reader(struct making *m)
{
	struct cfs_assemble *a = m->a;
	int r = 0;

	if (!a->source)
		r = cfs_source_ns_open(a->ns, &a->source);
	if (!r && !a->pool)
		a->pool = cfs_filepool_new(a->source);
	if (!r && !a->block)
		a->block = malloc(BLOCK);
	if (!r && (!a->pool || !a->block))
		r = -ENOMEM;
	return r ? r
		 : cfs_reader_open(m->map, a->pool, NULL, &m->reader, m->err);
}

static int write_computed(struct making *m, const struct cfs_segment *seg)
{
	struct cfs_region region = {
		.off = m->at,
		.len = seg->len,
		.elem_size = cfs_dtype_size(seg->to),
		.grid = true,
	};
	uint64_t end = m->at + seg->len;
	int r = flush(m);

	if (!r && !m->reader)
		r = open_reader(m);
	if (!r)
		r = cfs_ns_hint(m->file, &region);
	while (!r && m->at < end) {
		size_t n = (size_t)CFS_MIN(end - m->at, (uint64_t)BLOCK);
		ssize_t got =
			cfs_reader_pread(m->reader, m->a->block, n, m->at);

		if (got >= 0 && (size_t)got != n)
			got = -EIO;
		if (got > 0)
			got = cfs_ns_pwrite(m->file, m->a->block, n, m->at);
		if (got < 0)
			return (int)got;
		m->at += n;
	}
	m->end = m->at;
	return r;
}

/* ---- files ---- */

int cfs_assemble_name_check(const char *name, struct cfs_error *err)
{
	return cfs_assemble_dirs_check(name, err);
}

uint64_t cfs_assemble_files(const struct cfs_assemble *a)
{
	return a->dirs.n_files;
}

int cfs_assemble_create(struct cfs_assemble *a, const char *name,
			struct cfs_ns_file **file_out, struct cfs_error *err)
{
	return cfs_assemble_dirs_create(&a->dirs, name, file_out, err);
}

int cfs_assemble_bytes(struct cfs_assemble *a, const char *name,
		       const void *data, size_t len, struct cfs_error *err)
{
	struct cfs_ns_file *file;
	ssize_t n;
	int r = cfs_assemble_create(a, name, &file, err);

	if (r < 0)
		return r;
	n = cfs_ns_pwrite(file, data, len, 0);
	cfs_ns_close_file(file);
	return n < 0 ? cfs_fail_prefix(err, (int)n, "%s", name) : 0;
}

/* Zeros at the end are a size only. */
static int set_size(struct making *m)
{
	struct stat st = {.st_size = (off_t)cfs_map_size(m->map)};

	if (m->end == cfs_map_size(m->map))
		return 0;
	return cfs_ns_setattr(m->a->ns, cfs_ns_file_ino(m->file), &st,
			      CFS_SET_SIZE, &st);
}

static int make_content(struct making *m)
{
	int r = cfs_assemble_contents_use(&m->a->contents,
					  cfs_map_filetab(m->map));

	m->a->n_parts = 0; /* of one that failed */
	for (uint32_t i = 0; !r && i < cfs_map_count(m->map); i++) {
		struct cfs_segment seg;

		cfs_map_segment(m->map, i, &seg);
		if (refers(m->map, i, true))
			r = refer_segment(m, m->map, i, &seg, 0, seg.len);
		else
			r = write_computed(m, &seg);
	}
	if (!r)
		r = flush(m);
	return r ? r : set_size(m);
}

int cfs_assemble_map(struct cfs_assemble *a, const char *name,
		     struct cfs_map *map, struct cfs_error *err)
{
	_cleanup_(making_fini) struct making m = {
		.a = a, .name = name, .map = map, .err = err};
	struct cfs_segment seg;
	int r;

	if (cfs_map_count(map) == 1 && cfs_map_size(map) <= SMALL_BYTES) {
		cfs_map_segment(map, 0, &seg);
		if (seg.kind == CFS_SEG_LITERAL)
			return cfs_assemble_bytes(a, name, seg.literal,
						  (size_t)seg.len, err);
	}
	r = cfs_assemble_create(a, name, &m.file, err);
	if (r < 0)
		return r;
	r = make_content(&m);
	return r == -ESTALE ? r
	       : r < 0	    ? cfs_fail_prefix(err, r, "%s", name)
			    : 0;
}
