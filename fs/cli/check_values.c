/*
 * Streams over every tensor once: counts NaN and Inf by role, and compares
 * the weights with the rounded masters bit for bit.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/check.h"
#include "fs/cli/elements.h"
#include "fs/cli/progress.h"
#include "fs/format/format.h"
#include "store/map/map.h"
#include "store/util/error.h"

struct counts {
	uint64_t elements, nan, inf;
};

struct values {
	struct cfs_check *check;
	struct counts roles[CFS_ROLES_MAX]; /* by the first rank's numbers */
	uint64_t n_compared, n_params;	    /* weights against masters */
	void *rounded;			    /* one block */
};

static int open_role(const struct cfs_step *step,
		     const struct cfs_catalogue *cat, uint32_t param,
		     uint32_t role, struct cfs_elements *out,
		     struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(step->files);
	int r;

	if (!map)
		return -ENOMEM;
	r = cfs_catalogue_append(cat, param, role, 0,
				 cfs_catalogue_param(cat, param)->numel, map);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	return cfs_elements_open(map, step->pool,
				 cfs_catalogue_dtype(cat, param, role), out,
				 err);
}

static int next(struct values *v, struct cfs_elements *e, const char *name,
		struct counts *c, struct cfs_error *err)
{
	int r = cfs_elements_next(e, err);

	if (r <= 0)
		return r;
	c->elements += e->n;
	cfs_elements_count(e->dtype, e->raw, e->n, &c->nan, &c->inf);
	cfs_progress_add(v->check->progress, e->n * e->size, name);
	return 1;
}

static bool is_nan(enum cfs_dtype dtype, const void *p)
{
	uint64_t nan = 0, inf = 0;

	cfs_elements_count(dtype, p, 1, &nan, &inf);
	return nan != 0;
}

/* Weights of the block that are not the rounded masters. */
static uint64_t count_unequal(const struct cfs_elements *weight,
			      const uint8_t *rounded)
{
	uint64_t n = 0;
	size_t i;

	if (memcmp(weight->raw, rounded, weight->n * weight->size) == 0)
		return 0;
	for (i = 0; i < weight->n; i++) {
		const uint8_t *w = weight->raw + i * weight->size;
		const uint8_t *m = rounded + i * weight->size;

		if (memcmp(w, m, weight->size) != 0 &&
		    !(is_nan(weight->dtype, w) && is_nan(weight->dtype, m)))
			n++;
	}
	return n;
}

static int compare(struct values *v, struct cfs_elements *weight,
		   struct cfs_elements *master, const char *name,
		   uint64_t *n_out, struct cfs_error *err)
{
	int r;

	*n_out = 0;
	while ((r = next(v, weight, name, &v->roles[CFS_ROLE_WEIGHT], err)) >
	       0) {
		r = next(v, master, name, &v->roles[CFS_ROLE_MASTER], err);
		if (r <= 0)
			return r < 0 ? r : -EIO;
		cfs_dtype_cast(master->dtype, master->raw, weight->dtype,
			       v->rounded, weight->n);
		*n_out += count_unequal(weight, v->rounded);
		v->n_compared += weight->n;
	}
	return r;
}

static bool comparable(const struct cfs_catalogue *cat, uint32_t i)
{
	return cfs_catalogue_has(cat, i, CFS_ROLE_WEIGHT) &&
	       cfs_catalogue_has(cat, i, CFS_ROLE_MASTER) &&
	       cfs_dtype_is_float(
		       cfs_catalogue_dtype(cat, i, CFS_ROLE_WEIGHT)) &&
	       cfs_dtype_is_float(cfs_catalogue_dtype(cat, i, CFS_ROLE_MASTER));
}

static int check_weight(struct values *v, const struct cfs_catalogue *cat,
			uint32_t i, struct cfs_error *err)
{
	_cleanup_(cfs_elements_close) struct cfs_elements weight = {0};
	_cleanup_(cfs_elements_close) struct cfs_elements master = {0};
	const struct cfs_param *p = cfs_catalogue_param(cat, i);
	uint64_t n = 0;
	int r;

	r = open_role(v->check->step, cat, i, CFS_ROLE_WEIGHT, &weight, err);
	if (r == 0)
		r = open_role(v->check->step, cat, i, CFS_ROLE_MASTER, &master,
			      err);
	if (r == 0)
		r = compare(v, &weight, &master, p->name, &n, err);
	if (r < 0)
		return r;
	v->n_params++;
	if (n)
		cfs_check_report_problem(v->check->report, p->name,
					 "%" PRIu64 " of %" PRIu64
					 " elements are not the master "
					 "rounded to %s",
					 n, p->numel,
					 cfs_dtype_name(weight.dtype));
	return 0;
}

static int count_role(struct values *v, const struct cfs_catalogue *cat,
		      uint32_t i, uint32_t role, struct cfs_error *err)
{
	_cleanup_(cfs_elements_close) struct cfs_elements e = {0};
	const char *name = cfs_catalogue_param(cat, i)->name;
	int r;

	r = open_role(v->check->step, cat, i, role, &e, err);
	if (r < 0)
		return r;
	do
		r = next(v, &e, name, &v->roles[role], err);
	while (r > 0);
	return r;
}

static int check_param(struct values *v, const struct cfs_catalogue *cat,
		       uint32_t i, struct cfs_error *err)
{
	uint32_t role = CFS_ROLE_WEIGHT;
	int r = 0;

	if (comparable(cat, i)) {
		r = check_weight(v, cat, i, err);
		role = CFS_ROLE_STATE0;
	}
	for (; r == 0 && role < cfs_catalogue_roles(cat); role++)
		if (cfs_catalogue_has(cat, i, role))
			r = count_role(v, cat, i, role, err);
	return r < 0 ? cfs_fail_prefix(err, r, "%s",
				       cfs_catalogue_param(cat, i)->name)
		     : 0;
}

static void report_counts(const struct values *v)
{
	const struct cfs_step *step = v->check->step;
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	struct cfs_check_report *report = v->check->report;
	uint64_t elements = 0;
	uint32_t role;

	cfs_check_report_begin(report, "values");
	for (role = 0; role < cfs_catalogue_roles(cat); role++) {
		const struct counts *c = &v->roles[role];
		const char *name = cfs_catalogue_role_name(cat, role);
		char key[64];

		elements += c->elements;
		snprintf(key, sizeof(key), "%.40s_nan", name);
		cfs_check_report_number(report, key, c->nan);
		snprintf(key, sizeof(key), "%.40s_inf", name);
		cfs_check_report_number(report, key, c->inf);
		if (c->nan || c->inf)
			cfs_check_report_problem(report, name,
						 "%" PRIu64 " NaN and %" PRIu64
						 " infinite of %" PRIu64
						 " elements",
						 c->nan, c->inf, c->elements);
	}
	cfs_check_report_number(report, "elements", elements);
	cfs_check_report_end(report,
			     "%" PRIu64 " elements looked at for NaN and Inf",
			     elements);
}

int cfs_check_values(struct cfs_check *check, struct cfs_error *err)
{
	struct values v = {.check = check};
	_cleanup_(cfs_freep) void *rounded =
		malloc(CFS_ELEMENTS_BLOCK * sizeof(double));
	uint32_t rank, i;
	int r = 0;

	if (!rounded)
		return -ENOMEM;
	v.rounded = rounded;
	cfs_check_report_begin(check->report, "weights");
	for (rank = 0; r == 0 && rank < check->step->n_ranks; rank++) {
		const struct cfs_catalogue *cat =
			check->step->ranks[rank].catalogue;

		for (i = 0; r == 0 && i < cfs_catalogue_params(cat); i++)
			r = check_param(&v, cat, i, err);
	}
	if (r < 0)
		return r;
	cfs_check_report_number(check->report, "parameters", v.n_params);
	cfs_check_report_number(check->report, "elements", v.n_compared);
	if (v.n_params)
		cfs_check_report_end(check->report,
				     "%" PRIu64 " parameters, %" PRIu64
				     " elements compared with the rounded "
				     "masters",
				     v.n_params, v.n_compared);
	else
		cfs_check_report_end(check->report,
				     "nothing to compare: weights and masters "
				     "are not both stored");
	report_counts(&v);
	return 0;
}
