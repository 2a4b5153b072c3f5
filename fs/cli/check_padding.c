/*
 * Elements of the partitions that belong to no parameter: behind the last one
 * of a group, or between aligned ones.  The framework writes zeros and its
 * optimizers keep them; anything else is a wrong offset somewhere.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/check.h"
#include "fs/cli/elements.h"
#include "fs/cli/tensors.h"
#include "fs/format/deepspeed/deepspeed.h"
#include "store/map/map.h"
#include "store/util/error.h"
#include "store/util/grow.h"

struct span {
	uint64_t begin, end; /* bytes of the file */
};

struct padding {
	struct cfs_check *check;
	const struct cfs_catalogue *cat;
	const struct cfs_ds_file *file;
	struct span *spans; /* of the file, what parameters cover; sorted */
	size_t n_spans, cap;
	uint64_t n_elements; /* looked at */
};

static int add_span(struct padding *p, const struct cfs_extent *e,
		    enum cfs_dtype dtype)
{
	if (!CFS_GROW(p->spans, p->n_spans, p->cap))
		return -ENOMEM;
	p->spans[p->n_spans++] = (struct span){
		e->offset, e->offset + e->count * cfs_dtype_size(dtype)};
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

static int collect_spans(struct padding *p)
{
	uint32_t i, role, k, n;
	int r = 0;

	p->n_spans = 0;
	for (i = 0; i < cfs_catalogue_params(p->cat); i++) {
		for (role = CFS_ROLE_MASTER; role < cfs_catalogue_roles(p->cat);
		     role++) {
			const struct cfs_extent *e =
				cfs_catalogue_extents(p->cat, i, role, &n);

			for (k = 0; r == 0 && k < n; k++)
				if (e[k].file == p->file->index)
					r = add_span(p, &e[k],
						     cfs_catalogue_dtype(
							     p->cat, i, role));
		}
	}
	if (r == 0 && p->n_spans)
		qsort(p->spans, p->n_spans, sizeof(*p->spans), by_begin);
	return r;
}

/* Is this one of the tensors that hold one partition of a group? */
static bool is_partition(const struct padding *p,
			 const struct cfs_tensors_item *item)
{
	const char *slash = strrchr(item->name, '/');
	uint32_t role;

	if (!slash || item->ndim != 1)
		return false;
	if (strstr(item->name, "/single_partition_of_fp32_groups/"))
		return true;
	if (!strstr(item->name, "/base_optimizer_state/"))
		return false;
	for (role = CFS_ROLE_STATE0; role < cfs_catalogue_roles(p->cat); role++)
		if (strcmp(slash + 1, cfs_catalogue_role_name(p->cat, role)) ==
		    0)
			return true;
	return false;
}

/* Elements of [@begin, @end) of the file that are not zero. */
static int count_gap(struct padding *p, enum cfs_dtype dtype, uint64_t begin,
		     uint64_t end, uint64_t *n_out, struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(p->check->step->files);
	_cleanup_(cfs_elements_close) struct cfs_elements e = {0};
	_cleanup_(cfs_freep) double *values = NULL;
	size_t i;
	int r;

	values = malloc(CFS_ELEMENTS_BLOCK * sizeof(*values));
	if (!map || !values)
		return -ENOMEM;
	r = cfs_map_add_range(map, p->file->index, begin, end - begin);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	r = cfs_elements_open(map, p->check->step->pool, dtype, &e, err);
	while (r >= 0 && (r = cfs_elements_next(&e, err)) > 0) {
		cfs_elements_decode(dtype, e.raw, e.n, values);
		for (i = 0; i < e.n; i++)
			*n_out += values[i] != 0;
		p->n_elements += e.n;
	}
	return r;
}

/* What of [@begin, @end) no span covers. */
static int count_gaps(struct padding *p, enum cfs_dtype dtype, uint64_t begin,
		      uint64_t end, uint64_t *n_out, struct cfs_error *err)
{
	size_t lo = 0, hi = p->n_spans;
	int r = 0;

	while (lo < hi) { /* the first span that ends behind @begin */
		size_t mid = lo + (hi - lo) / 2;

		if (p->spans[mid].end <= begin)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (r == 0 && begin < end) {
		uint64_t stop = end;

		if (lo < p->n_spans && p->spans[lo].begin < end)
			stop = p->spans[lo].begin;
		if (begin < stop)
			r = count_gap(p, dtype, begin, stop, n_out, err);
		if (stop == end)
			break;
		begin = CFS_MAX(begin, p->spans[lo].end);
		lo++;
	}
	return r;
}

static int check_tensor(struct padding *p, const struct cfs_tensors *set,
			const struct cfs_tensors_item *item,
			struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_segment seg;
	uint64_t bad = 0;
	int r;

	if (!item->numel || !cfs_elements_is_number(item->dtype))
		return 0;
	r = cfs_tensors_map(set, item, &map, err);
	if (r < 0)
		return r;
	cfs_map_segment(map, 0, &seg);
	if (seg.kind != CFS_SEG_RANGE || cfs_map_count(map) != 1)
		return 0;
	r = count_gaps(p, item->dtype, seg.file_off, seg.file_off + seg.len,
		       &bad, err);
	if (r == 0 && bad)
		cfs_check_report_problem(p->check->report, p->file->name,
					 "%s: %" PRIu64
					 " elements of padding are not zero",
					 item->name, bad);
	return r;
}

static int check_file(struct padding *p, struct cfs_error *err)
{
	struct cfs_step *step = p->check->step;
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_tensors_free) struct cfs_tensors set = {0};
	size_t i;
	int r;

	r = cfs_ds_parse(step, p->file, &tf, err);
	if (r == 0)
		r = cfs_tensors_of_tree(cfs_torchfile_root(tf), step->files,
					step->pool, &set, err);
	if (r == 0)
		r = collect_spans(p);
	for (i = 0; r == 0 && i < set.n; i++)
		if (is_partition(p, &set.items[i]))
			r = check_tensor(p, &set, &set.items[i], err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", p->file->name) : 0;
}

int cfs_check_padding(struct cfs_check *check, struct cfs_error *err)
{
	struct cfs_step *step = check->step;
	const struct cfs_ds_step *ds;
	struct padding p = {.check = check};
	uint32_t rank, i;
	int r = 0;

	if (step->format != &cfs_format_deepspeed ||
	    (step->topology.optimizer != CFS_OPT_ZERO12 &&
	     step->topology.optimizer != CFS_OPT_BF16)) {
		cfs_check_report_skip(
			check->report, "padding", "%s promises no zeros",
			cfs_optimizer_class_name(step->topology.optimizer));
		return 0;
	}
	ds = cfs_ds_step_of(step);
	cfs_check_report_begin(check->report, "padding");
	for (rank = 0; r == 0 && rank < step->n_ranks; rank++) {
		p.cat = step->ranks[rank].catalogue;
		for (i = 0; r == 0 && i < ds->ranks[rank].n_optim; i++) {
			p.file = &ds->ranks[rank].optim[i];
			r = check_file(&p, err);
		}
	}
	free(p.spans);
	if (r < 0)
		return r;
	cfs_check_report_number(check->report, "elements", p.n_elements);
	cfs_check_report_end(check->report, "%" PRIu64 " elements of padding",
			     p.n_elements);
	return 0;
}
