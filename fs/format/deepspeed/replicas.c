/*
 * Norms, biases and positions are compared whole, of larger tensors windows
 * from the first element to the last: copies that went apart were given other
 * gradients, which leave hardly a row as it was.
 */
#include "fs/format/deepspeed/replicas.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/read.h"
#include "store/map/eval.h"
#include "store/util/error.h"
#include "store/util/parallel.h"

#define WHOLE_MAX (4u << 20) /* elements */
#define WINDOWS	  16u
#define WINDOW	  (4u << 10)
#define PIECE	  ((size_t)256 << 10)

/* One parameter in one rank's catalogue. */
struct place {
	uint32_t rank, index;
};

/* What is compared of a parameter of @numel elements. */
static int add_windows(const struct cfs_catalogue *cat, uint32_t index,
		       uint32_t role, struct cfs_map *map)
{
	const uint64_t numel = cfs_catalogue_param(cat, index)->numel;
	const uint64_t len = WINDOW;
	int r = 0;

	if (numel <= WHOLE_MAX)
		return cfs_catalogue_append(cat, index, role, 0, numel, map);
	for (uint32_t i = 0; !r && i < WINDOWS; i++)
		r = cfs_catalogue_append(cat, index, role,
					 (numel - len) / (WINDOWS - 1) * i, len,
					 map);
	return r ? r
		 : cfs_catalogue_append(cat, index, role, numel - len, len,
					map);
}

int cfs_ds_same_bytes(const struct cfs_ds_step *step, struct cfs_map *a,
		      struct cfs_map *b, bool *same_out, struct cfs_error *err)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *x = NULL, *y = NULL;
	_cleanup_(cfs_freep) uint8_t *both = malloc(2 * PIECE);
	int r = -ENOMEM;

	cfs_map_seal(a);
	cfs_map_seal(b);
	if (both)
		r = cfs_reader_open(a, step->base.pool, NULL, &x, err);
	if (!r)
		r = cfs_reader_open(b, step->base.pool, NULL, &y, err);
	*same_out = !r;
	for (uint64_t at = 0; !r && *same_out; at += PIECE) {
		ssize_t n = cfs_reader_pread(x, both, PIECE, at);
		ssize_t m =
			n < 0 ? n
			      : cfs_reader_pread(y, both + PIECE, PIECE, at);

		if (m < 0)
			return (int)m;
		*same_out = n == m && !memcmp(both, both + PIECE, (size_t)n);
		if (n < (ssize_t)PIECE)
			break;
	}
	return r;
}

static int same_role(const struct cfs_ds_step *step, struct place a,
		     struct place b, uint32_t role, bool *same_out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *x =
		cfs_map_new(step->base.files);
	_cleanup_(cfs_map_unrefp) struct cfs_map *y =
		cfs_map_new(step->base.files);
	int r = x && y ? add_windows(step->base.ranks[a.rank].catalogue,
				     a.index, role, x)
		       : -ENOMEM;

	if (!r)
		r = add_windows(step->base.ranks[b.rank].catalogue, b.index,
				role, y);
	return r ? r : cfs_ds_same_bytes(step, x, y, same_out, err);
}

/* Roles [@first, …) of both; the first that differs in *@role_out. */
static int compare(const struct cfs_ds_step *step, struct place a,
		   struct place b, uint32_t first, uint32_t *role_out,
		   struct cfs_error *err)
{
	const struct cfs_catalogue *cat = step->base.ranks[a.rank].catalogue;
	const struct cfs_catalogue *other = step->base.ranks[b.rank].catalogue;

	*role_out = CFS_ROLES_MAX;
	for (uint32_t k = first; k < cfs_catalogue_roles(cat); k++) {
		bool same = false;
		int r;

		if (!cfs_catalogue_has(cat, a.index, k) ||
		    !cfs_catalogue_has(other, b.index, k))
			continue;
		r = same_role(step, a, b, k, &same, err);
		if (r < 0)
			return r;
		if (!same) {
			*role_out = k;
			return 0;
		}
	}
	return 0;
}

static int check_ranks(void *arg, uint32_t i, struct cfs_error *err)
{
	const struct cfs_ds_model *m = arg;
	const struct cfs_ds_whole *w = &m->v[i];
	const uint32_t tp = m->step->base.topology.tp;
	const struct place a = {w->stage * tp, w->index};
	/* of what is added up only the moments are copies */
	uint32_t first =
		w->from.kind == CFS_TP_SUM ? CFS_ROLE_STATE0 : CFS_ROLE_WEIGHT;
	uint32_t role;

	if (w->from.kind == CFS_TP_CUT || w->from.kind == CFS_TP_MEAN)
		return 0;
	for (uint32_t t = 1; t < tp; t++) {
		const struct place b = {a.rank + t, w->index};
		const struct cfs_catalogue *cat =
			m->step->base.ranks[a.rank].catalogue;
		int r = compare(m->step, a, b, first, &role, err);

		if (r < 0)
			return r;
		if (role < CFS_ROLES_MAX)
			return cfs_fail(
				err, -ENOTSUP,
				"parameter %s: tensor-parallel ranks 0 and %u "
				"have it whole, and their %s differ: say how "
				"to make one of them (view add --rules)",
				cfs_catalogue_param(cat, w->index)->name, t,
				cfs_catalogue_role_name(cat, role));
	}
	return 0;
}

int cfs_ds_check_ranks(const struct cfs_ds_model *model, struct cfs_error *err)
{
	/* only read from */
	return cfs_parallel(model->n, check_ranks, (void *)(uintptr_t)model,
			    err);
}

/* Of a tied layer only what the family ties is kept equal; the rest of its
 * second copy computes nothing. */
static bool is_tied_name(const struct cfs_ds_model *m, const char *name)
{
	return !m->family || !strcmp(m->family->tied_name, name);
}

/* Tensor-parallel rank @t's copies of @w, in the stages behind its own. */
static int check_stages(const struct cfs_ds_model *model,
			const struct cfs_ds_whole *w, uint32_t t,
			struct cfs_error *err)
{
	const struct cfs_step *step = &model->step->base;
	const uint32_t tp = step->topology.tp;
	const struct place a = {w->stage * tp + t, w->index};
	const char *name =
		cfs_catalogue_param(step->ranks[a.rank].catalogue, a.index)
			->name;
	uint32_t role, index;

	for (uint32_t m = a.rank + tp; m < step->n_ranks; m += tp) {
		const struct cfs_catalogue *cat = step->ranks[m].catalogue;
		int r;

		if (cfs_catalogue_find(cat, name, &index) < 0)
			continue;
		r = compare(model->step, a, (struct place){m, index},
			    CFS_ROLE_MASTER, &role, err);
		if (r < 0)
			return r;
		if (role < CFS_ROLES_MAX)
			return cfs_fail(err, -ENOTSUP,
					"parameter %s: stages %u and %u have "
					"it, and their %s differ (tensor-"
					"parallel rank %u)",
					name, w->stage, m / tp,
					cfs_catalogue_role_name(cat, role), t);
	}
	return 0;
}

int cfs_ds_check_tied(const struct cfs_ds_model *model, struct cfs_error *err)
{
	const uint32_t tp = model->step->base.topology.tp;

	for (uint32_t i = 0; i < model->n; i++) {
		const struct cfs_ds_whole *w = &model->v[i];

		if (w->name.form != CFS_DS_FORM_TIED ||
		    !is_tied_name(model, w->name.name))
			continue;
		for (uint32_t t = 0; t < tp; t++) {
			int r = check_stages(model, w, t, err);

			if (r < 0)
				return r;
		}
	}
	return 0;
}
