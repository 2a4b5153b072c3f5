/* What the sniff_*.c files share. */
#ifndef CFS_CONTAINER_SNIFF_INTERNAL_H
#define CFS_CONTAINER_SNIFF_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/container/sniff.h"
#include "store/util/base.h"
#include "store/util/buf.h"

#define CFS_SNIFF_HEADER_MAX (32u << 20) /* pickle or JSON kept in memory */
#define CFS_SNIFF_NODES_MAX                                                    \
	(160u << 20) /* of a pickle's tree, for a moment                       \
		      */
#define CFS_SNIFF_SPANS_MAX (1u << 20)

/* Part of a storage or file that is one region. */
struct cfs_sniff_span {
	uint32_t storage; /* of a table; else 0 */
	uint32_t elem_size;
	uint64_t off, len, phase;
	bool grid;
};
struct cfs_sniff_spans { /* free with cfs_sniff_spans_fini() */
	struct cfs_sniff_span *v;
	size_t n, cap;
};
void cfs_sniff_spans_fini(struct cfs_sniff_spans *spans);
CFS_MUST_CHECK int cfs_sniff_spans_add(struct cfs_sniff_spans *spans,
				       const struct cfs_sniff_span *span);
/* Ascending by storage and offset; what overlaps an earlier one goes. */
void cfs_sniff_spans_settle(struct cfs_sniff_spans *spans);

/* What the pickle of a torch file says: storages and spans in them. */
struct cfs_sniff_storage {
	char *key;
	uint64_t nbytes;
	uint32_t elem_size;
	size_t first, n; /* its spans */
};
struct cfs_sniff_table { /* free with cfs_sniff_table_fini() */
	struct cfs_sniff_storage *storages; /* ascending by key */
	uint32_t n_storages;
	struct cfs_sniff_spans spans;
};
void cfs_sniff_table_fini(struct cfs_sniff_table *table);
/*
 * @rank: of the data-parallel group, from the file's name; negative: unknown.
 * Any error: no hints.
 */
CFS_MUST_CHECK int cfs_sniff_table_read(struct cfs_sniff_table *table,
					const void *pickle, size_t len,
					int64_t rank);
const struct cfs_sniff_storage *
cfs_sniff_table_find(const struct cfs_sniff_table *table, const char *key,
		     size_t len);

/* The rank in "[bf16_]zero_pp_rank_<r>_mp_rank_…"; -1 if it is not there. */
int64_t cfs_sniff_rank(const char *name, size_t len);

struct cfs_node;
struct cfs_torchfile;
/*
 * The flat tensors of a ZeRO optimizer file: one span for all of each such
 * storage, which is @flat_out[storage number] from then on.
 */
CFS_MUST_CHECK int cfs_sniff_flat(const struct cfs_node *root, int64_t rank,
				  struct cfs_sniff_spans *spans,
				  bool *flat_out);

/* Spans of a safetensors header, offsets from its data's start. */
CFS_MUST_CHECK int cfs_sniff_json(const void *json, size_t len,
				  struct cfs_sniff_spans *spans);
/* Span of a .npy header (its text), offset 0; -EINVAL. */
CFS_MUST_CHECK int cfs_sniff_npy(const char *text, size_t len,
				 struct cfs_sniff_span *span);

/* ---- one file ---- */

struct cfs_sniff;
/* What to do with s->buf once it holds s->need bytes: 0 or an error. */
typedef int cfs_sniff_step_fn(struct cfs_sniff *s);

struct cfs_sniff {
	cfs_sniff_step_fn *step; /* NULL: nothing more to tell */
	struct cfs_buf buf;	 /* bytes from @at on */
	uint64_t at;
	size_t need; /* call step when there are so many … */
	bool greedy; /* … or whenever there are more, at most need */
	cfs_region_fn *emit;
	void *arg;
	int64_t rank;
	/* zip: */
	struct cfs_sniff_table table;
	bool have_table, in_pickle;
	size_t scanned;	 /* of buf, for a descriptor */
	uint64_t record; /* bytes of the record at hand */
};

/* Goes on at file offset @target, ahead of s->at; @need bytes wanted there. */
void cfs_sniff_seek(struct cfs_sniff *s, uint64_t target, size_t need,
		    cfs_sniff_step_fn *step);
/* Emits @spans, @n of them, whose offsets count from @base. */
void cfs_sniff_emit(struct cfs_sniff *s, const struct cfs_sniff_span *spans,
		    size_t n, uint64_t base);
int cfs_sniff_zip_head(struct cfs_sniff *s);
#define CFS_SNIFF_ZIP_HEAD 30

#endif
