/*
 * Bytes to maps, trusting nothing: encode_internal.h says what is valid.
 *
 * Everything is built through the functions that check maps anyway; here it is
 * made sure that each segment read is one segment made (one that would have
 * been merged, simplified or left out is odd), that every number is in its
 * range, and that memory stays within a constant times the input: each object
 * made has cost some bytes of it.
 */
#include "store/map/encode_internal.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "store/map/map_internal.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

struct decoder {
	const uint8_t *p, *end;
	struct cfs_filetab *tab;
	uint32_t n_files;
};

static size_t left(const struct decoder *d)
{
	return (size_t)(d->end - d->p);
}

static int get_varint(struct decoder *d, uint64_t *out)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64 && d->p < d->end; shift += 7) {
		uint8_t b = *d->p++;

		if (shift == 63 && b > 1)
			return -EBADMSG;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (b & 0x80)
			continue;
		if (!b && shift)
			return -EBADMSG; /* a needless byte */
		*out = v;
		return 0;
	}
	return -EBADMSG;
}

static int get_varints(struct decoder *d, uint64_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = get_varint(d, &out[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int get_path(struct decoder *d, char *out, size_t size)
{
	uint64_t len;

	if (get_varint(d, &len) < 0 || !len || len >= size || len > left(d) ||
	    memchr(d->p, '\0', (size_t)len))
		return -EBADMSG;
	memcpy(out, d->p, (size_t)len);
	out[len] = '\0';
	d->p += len;
	return cfs_source_path_ok(out) ? 0 : -EBADMSG;
}

static int get_file(struct decoder *d, uint32_t number)
{
	char path[PATH_MAX];
	struct cfs_version v;
	uint64_t raw[5];
	uint32_t index;
	int r;

	if (get_path(d, path, sizeof(path)) < 0 || get_varints(d, raw, 5) < 0)
		return -EBADMSG;
	v = (struct cfs_version){
		.dev = raw[0],
		.ino = raw[1],
		.size = raw[2],
		.mtime_ns = cfs_unzigzag(raw[3]),
		.ctime_ns = cfs_unzigzag(raw[4]),
	};
	r = cfs_filetab_add(d->tab, path, &v, &index);
	if (r == -EEXIST)
		return -EBADMSG;
	return r < 0 ? r : index == number ? 0 : -EBADMSG;
}

static int get_files(struct decoder *d)
{
	uint64_t n;

	if (get_varint(d, &n) < 0 || n > left(d))
		return -EBADMSG;
	for (uint32_t i = 0; i < n; i++) {
		int r = get_file(d, i);

		if (r < 0)
			return r;
	}
	d->n_files = (uint32_t)n;
	return 0;
}

static int get_body(struct decoder *d, unsigned depth,
		    struct cfs_map **map_out);

static int get_types(struct decoder *d, enum cfs_dtype *from,
		     enum cfs_dtype *to)
{
	uint64_t raw[2];

	if (get_varints(d, raw, 2) < 0 || raw[0] >= CFS_N_DTYPES ||
	    raw[1] >= CFS_N_DTYPES)
		return -EBADMSG;
	*from = (enum cfs_dtype)raw[0];
	*to = (enum cfs_dtype)raw[1];
	return 0;
}

static int get_gather(struct decoder *d, unsigned depth,
		      struct cfs_expr **expr_out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = NULL;
	struct cfs_gather box, simple;
	uint64_t raw[3], len;
	int r;

	if (get_varints(d, raw, 3) < 0 || !raw[0] || !raw[2] ||
	    raw[2] > CFS_GATHER_DIMS_MAX)
		return -EBADMSG;
	box = (struct cfs_gather){
		.run = raw[0], .base = raw[1], .ndim = (uint32_t)raw[2]};
	for (uint32_t i = 0; i < box.ndim; i++) {
		if (get_varint(d, &box.shape[i]) < 0 ||
		    get_varint(d, &box.stride[i]) < 0)
			return -EBADMSG;
	}
	r = get_body(d, depth, &child);
	if (r < 0)
		return r;
	simple = box;
	if (cfs_expr_box(&simple, cfs_map_size(child), &len) < 0 || !len ||
	    simple.ndim != box.ndim || simple.run != box.run)
		return -EBADMSG;
	return cfs_expr_gather(child, &box, len, expr_out);
}

static int get_cast(struct decoder *d, unsigned depth,
		    struct cfs_expr **expr_out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = NULL;
	enum cfs_dtype from, to;
	int r;

	if (get_types(d, &from, &to) < 0 || from == to)
		return -EBADMSG;
	r = get_body(d, depth, &child);
	return r < 0 ? r : cfs_expr_cast(child, from, to, expr_out);
}

struct terms {
	struct cfs_map **maps;
	double *weights;
	uint32_t n, cap_maps, cap_weights;
};

static void terms_fini(struct terms *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		cfs_map_unref(t->maps[i]);
	free(t->maps);
	free(t->weights);
}

static int get_term(struct decoder *d, unsigned depth, struct terms *t)
{
	uint64_t bits;
	int r;

	r = cfs_map_reserve(&t->maps, &t->cap_maps, (uint64_t)t->n + 1,
			    sizeof(struct cfs_map *));
	if (r < 0)
		return r;
	r = cfs_map_reserve(&t->weights, &t->cap_weights, (uint64_t)t->n + 1,
			    sizeof(*t->weights));
	if (r < 0)
		return r;
	if (left(d) < sizeof(bits))
		return -EBADMSG;
	bits = cfs_get_le64(d->p);
	d->p += sizeof(bits);
	memcpy(&t->weights[t->n], &bits, sizeof(bits));
	r = get_body(d, depth, &t->maps[t->n]);
	if (r < 0)
		return r;
	t->n++;
	return 0;
}

static int get_linear(struct decoder *d, unsigned depth,
		      struct cfs_expr **expr_out)
{
	_cleanup_(terms_fini) struct terms t = {0};
	enum cfs_dtype from, to;
	uint64_t n;

	if (get_types(d, &from, &to) < 0 || get_varint(d, &n) < 0 || !n)
		return -EBADMSG;
	for (uint64_t i = 0; i < n; i++) {
		int r = get_term(d, depth, &t);

		if (r < 0)
			return r;
	}
	if (n == 1 && !(t.weights[0] < 1) && !(t.weights[0] > 1))
		return -EBADMSG; /* is a cast */
	return cfs_expr_linear(t.maps, t.weights, t.n, from, to, expr_out);
}

static int get_computed(struct decoder *d, unsigned depth, int kind,
			struct cfs_map *map)
{
	_cleanup_(cfs_expr_unrefp) struct cfs_expr *expr = NULL;
	uint64_t span[2]; /* skip, length */
	int r;

	if (!depth || get_varints(d, span, 2) < 0)
		return -EBADMSG;
	if (kind == CFS_SEG_GATHER)
		r = get_gather(d, depth - 1, &expr);
	else if (kind == CFS_SEG_CAST)
		r = get_cast(d, depth - 1, &expr);
	else
		r = get_linear(d, depth - 1, &expr);
	if (r < 0)
		return r;
	if (!cfs_range_ok(span[0], span[1], expr->len))
		return -EBADMSG;
	return cfs_map_add_expr(map, expr, span[0], span[1]);
}

static int get_range(struct decoder *d, uint64_t *range_end,
		     struct cfs_map *map)
{
	uint64_t raw[3], off; /* file, distance, length */

	if (get_varints(d, raw, 3) < 0 || raw[0] >= d->n_files)
		return -EBADMSG;
	/* wraps around where the distance is negative */
	off = *range_end + (uint64_t)cfs_unzigzag(raw[1]);
	if (!cfs_range_ok(off, raw[2], CFS_MAP_SIZE_MAX))
		return -EBADMSG;
	*range_end = off + raw[2];
	return cfs_map_add_range(map, (uint32_t)raw[0], off, raw[2]);
}

static int get_literal(struct decoder *d, struct cfs_map *map)
{
	uint64_t len;
	int r;

	if (get_varint(d, &len) < 0 || len > left(d))
		return -EBADMSG;
	r = cfs_map_add_literal(map, d->p, (size_t)len);
	d->p += len;
	return r;
}

static int get_segment(struct decoder *d, unsigned depth, uint64_t *range_end,
		       struct cfs_map *map)
{
	uint64_t len;
	int kind;

	if (!left(d))
		return -EBADMSG;
	kind = *d->p++;
	switch (kind) {
	case CFS_SEG_LITERAL:
		return get_literal(d, map);
	case CFS_SEG_RANGE:
		return get_range(d, range_end, map);
	case CFS_SEG_ZERO:
		return get_varint(d, &len) < 0 ? -EBADMSG
					       : cfs_map_add_zero(map, len);
	case CFS_SEG_GATHER:
	case CFS_SEG_CAST:
	case CFS_SEG_LINEAR:
		return get_computed(d, depth, kind, map);
	default:
		return -EBADMSG;
	}
}

/* @depth: how many levels of children may still follow. */
static int get_body(struct decoder *d, unsigned depth, struct cfs_map **map_out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	uint64_t n, range_end = 0;

	if (get_varint(d, &n) < 0 || n > left(d))
		return -EBADMSG;
	map = cfs_map_new(d->tab);
	if (!map)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++) {
		int r = get_segment(d, depth, &range_end, map);

		if (r < 0)
			return r;
		if (map->n_segs != i + 1)
			return -EBADMSG;
	}
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}

/* Magic, version and trailer; then the reading is left with what is between. */
static int open_frame(struct decoder *d)
{
	const size_t magic_len = strlen(CFS_MAP_MAGIC);
	const uint8_t *start = d->p;

	if (left(d) < magic_len + 1 + CFS_MAP_TRAILER_LEN ||
	    memcmp(d->p, CFS_MAP_MAGIC, magic_len) != 0)
		return -EBADMSG;
	d->end -= CFS_MAP_TRAILER_LEN;
	if (d->p[magic_len] > CFS_MAP_VERSION)
		return -EPROTONOSUPPORT;
	if (d->p[magic_len] != CFS_MAP_VERSION ||
	    cfs_hash64(start, left(d), 0) != cfs_get_le64(d->end))
		return -EBADMSG;
	d->p += magic_len + 1;
	return 0;
}

int cfs_map_decode(const void *data, size_t len, struct cfs_map **map_out)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct decoder d = {.p = data, .end = (const uint8_t *)data + len};
	int r;

	r = open_frame(&d);
	if (r < 0)
		return r;
	d.tab = tab = cfs_filetab_new();
	if (!tab)
		return -ENOMEM;
	r = get_files(&d);
	if (r == 0)
		r = get_body(&d, CFS_MAP_DEPTH_MAX, &map);
	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	if (!map || left(&d) || map->n_files != d.n_files)
		return -EBADMSG;
	*map_out = cfs_steal(map);
	return 0;
}
