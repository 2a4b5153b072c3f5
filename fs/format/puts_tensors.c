/*
 * Puts to tensors: millions of puts and few names, so names are hashed, rows
 * are counted and dealt out, and nothing is compared twice.
 */
#include "fs/format/puts_tensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

/* ---- names ---- */

/* Open addressing; a slot holds a tensor's row + 1. */
struct cfs_put_names {
	size_t cap;
	uint32_t slots[];
};

static uint64_t hash_of(const char *name, const char *role)
{
	return cfs_hash64(role, strlen(role),
			  cfs_hash64(name, strlen(name), 0));
}

static bool is_named(const struct cfs_put *put, const char *name,
		     const char *role)
{
	return !strcmp(put->name, name) && !strcmp(put->role, role);
}

/* The slot that holds it, or is free for it. */
static uint32_t *slot_of(const struct cfs_put_tensors *t,
			 struct cfs_put_names *names, uint64_t hash,
			 const char *name, const char *role)
{
	size_t i = hash & (names->cap - 1);

	for (;; i = (i + 1) & (names->cap - 1)) {
		uint32_t row = names->slots[i];

		if (!row || (t->v[row - 1].hash == hash &&
			     is_named(t->v[row - 1].first, name, role)))
			return &names->slots[i];
	}
}

/* Anew, with room for as many again. */
static int index_all(struct cfs_put_tensors *t)
{
	struct cfs_put_names *names;
	size_t cap = 1024;

	while (cap < 4 * t->n)
		cap *= 2;
	names = calloc(1, sizeof(*names) + cap * sizeof(*names->slots));
	if (!names)
		return -ENOMEM;
	names->cap = cap;
	for (size_t i = 0; i < t->n; i++)
		*slot_of(t, names, t->v[i].hash, t->v[i].first->name,
			 t->v[i].first->role) = (uint32_t)i + 1;
	free(t->names);
	t->names = names;
	return 0;
}

const struct cfs_put_tensor *
cfs_put_tensors_find(const struct cfs_put_tensors *t, const char *name,
		     const char *role)
{
	uint32_t row = t->names ? *slot_of(t, t->names, hash_of(name, role),
					   name, role)
				: 0;

	return row ? &t->v[row - 1] : NULL;
}

/* ---- agreement ---- */

static void print_shape(const struct cfs_put *put, char *buf, size_t size)
{
	size_t len =
		(size_t)snprintf(buf, size, "%s [", cfs_dtype_name(put->dtype));

	for (uint32_t i = 0; i < put->ndim && len < size; i++)
		len += (size_t)snprintf(buf + len, size - len, "%s%llu",
					i ? ", " : "",
					(unsigned long long)put->shape[i]);
	if (len < size)
		(void)snprintf(buf + len, size - len, "]");
}

static int check_alike(const struct cfs_put *a, const struct cfs_put *b,
		       struct cfs_error *err)
{
	char x[256], y[256];

	if (a->dtype == b->dtype && a->ndim == b->ndim &&
	    !memcmp(a->shape, b->shape, a->ndim * sizeof(*a->shape)))
		return 0;
	print_shape(a, x, sizeof(x));
	print_shape(b, y, sizeof(y));
	return cfs_fail(err, -EINVAL,
			"tensor %s (%s): rank %u says it is %s, rank %u %s",
			a->name, a->role, a->rank, x, b->rank, y);
}

/* ---- grouping ---- */

static int find_or_add(struct cfs_put_tensors *t, size_t *cap,
		       const struct cfs_put *put, uint32_t *row_out)
{
	uint64_t hash = hash_of(put->name, put->role);
	uint32_t *slot;

	if ((!t->names || 2 * (t->n + 1) > t->names->cap) && index_all(t) < 0)
		return -ENOMEM;
	slot = slot_of(t, t->names, hash, put->name, put->role);
	if (!*slot) {
		if (!CFS_GROW(t->v, t->n, *cap))
			return -ENOMEM;
		t->v[t->n++] =
			(struct cfs_put_tensor){.first = put, .hash = hash};
		*slot = (uint32_t)t->n;
	}
	*row_out = *slot - 1;
	return 0;
}

/* rows[i]: the tensor of put i. */
static int name_all(struct cfs_put_tensors *t, const struct cfs_puts *puts,
		    uint32_t *rows)
{
	size_t cap = 0;
	int r = 0;

	for (size_t i = 0; !r && i < puts->n_puts; i++) {
		const struct cfs_put *put = &puts->puts[i];

		r = find_or_add(t, &cap, put, &rows[i]);
		if (r < 0)
			break;
		t->v[rows[i]].n++;
		if (put->rank < t->v[rows[i]].first->rank)
			t->v[rows[i]].first = put;
	}
	return r;
}

static void deal_out(struct cfs_put_tensors *t, const uint32_t *rows, size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < t->n; i++) {
		t->v[i].at = at;
		at += t->v[i].n;
		t->v[i].n = 0;
	}
	for (size_t i = 0; i < n; i++) {
		struct cfs_put_tensor *v = &t->v[rows[i]];

		t->order[v->at + v->n++] = (uint32_t)i;
	}
}

static int row_cmp(const void *a, const void *b, void *arg)
{
	const uint32_t *x = a, *y = b;
	const struct cfs_put *puts = arg;

	if (puts[*x].rank != puts[*y].rank)
		return puts[*x].rank < puts[*y].rank ? -1 : 1;
	return *x < *y ? -1 : *x > *y;
}

/* Ranks put in their own order, and arrive in any. */
static void sort_rows(const struct cfs_put_tensor *v, uint32_t *order,
		      const struct cfs_put *puts)
{
	for (size_t i = 1; i < v->n; i++)
		if (puts[order[v->at + i - 1]].rank >
		    puts[order[v->at + i]].rank) {
			qsort_r(order + v->at, v->n, sizeof(*order), row_cmp,
				(void *)(uintptr_t)puts);
			return;
		}
}

/* The lowest rank's order, which does not depend on who came first. */
static int tensor_cmp(const void *a, const void *b)
{
	const struct cfs_put *x = ((const struct cfs_put_tensor *)a)->first;
	const struct cfs_put *y = ((const struct cfs_put_tensor *)b)->first;

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int make_whole(const struct cfs_put_tensors *t,
		      const struct cfs_puts *puts, struct cfs_put_tensor *v,
		      struct cfs_error *err)
{
	struct cfs_put_pieces pieces = {.puts = puts->puts,
					.rows = t->order + v->at,
					.n = v->n,
					.numel = 1,
					.files = puts->files};
	int r = 0;

	sort_rows(v, t->order, puts->puts);
	for (size_t i = 0; !r && i < v->n; i++)
		r = check_alike(v->first, cfs_put_piece(&pieces, i), err);
	if (r < 0)
		return r;
	r = cfs_put_replicas(&pieces, err);
	if (r < 0)
		return r;
	v->n = pieces.n;
	for (uint32_t i = 0; i < v->first->ndim; i++)
		pieces.numel *= v->first->shape[i];
	v->numel = pieces.numel;
	v->map = cfs_map_new(puts->files);
	if (!v->map)
		return -ENOMEM;
	r = cfs_put_cover(&pieces, v->map, err);
	if (!r)
		cfs_map_seal(v->map);
	return r;
}

static int group(struct cfs_put_tensors *t, const struct cfs_puts *puts,
		 struct cfs_error *err)
{
	_cleanup_(cfs_freep) uint32_t *rows =
		calloc(puts->n_puts + 1, sizeof(*rows));
	int r;

	t->order = calloc(puts->n_puts + 1, sizeof(*t->order));
	if (!rows || !t->order)
		return -ENOMEM;
	r = name_all(t, puts, rows);
	if (r < 0)
		return r;
	deal_out(t, rows, puts->n_puts);
	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), tensor_cmp);
	r = index_all(t); /* they have other rows now */
	for (size_t i = 0; !r && i < t->n; i++)
		r = make_whole(t, puts, &t->v[i], err);
	return r;
}

int cfs_put_tensors_init(struct cfs_put_tensors *t, const struct cfs_puts *puts,
			 struct cfs_error *err)
{
	int r;

	memset(t, 0, sizeof(*t));
	if (puts->n_puts > UINT32_MAX - 1)
		return cfs_fail(err, -E2BIG, "more than %u slices were put",
				UINT32_MAX - 1);
	r = group(t, puts, err);
	if (r < 0)
		cfs_put_tensors_fini(t);
	return r;
}

void cfs_put_tensors_fini(struct cfs_put_tensors *t)
{
	for (size_t i = 0; i < t->n; i++)
		cfs_map_unref(t->v[i].map);
	free(t->v);
	free(t->order);
	free(t->names);
	memset(t, 0, sizeof(*t));
}
