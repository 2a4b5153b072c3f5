/* One rank's optimizer file: where its flat tensors lie, and whether it says
 * the same as the first rank's. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"

/* Tensors larger than this are not compared but refused. */
#define SCALAR_BYTES_MAX 65536
#define VALUE_DEPTH_MAX	 8

/* ---- values ---- */

static bool same_shape(const struct cfs_torch_tensor *a,
		       const struct cfs_torch_tensor *b)
{
	return a->dtype == b->dtype && a->ndim == b->ndim &&
	       !memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0]));
}

/* Bytes of a small contiguous tensor; false when it is not, or on errors. */
static bool read_tensor(const struct cfs_torch_tensor *t, struct cfs_file *file,
			uint8_t *buf)
{
	uint32_t size = cfs_dtype_size(t->dtype);
	uint64_t off;

	if (!t->contiguous || !t->storage || t->numel > SCALAR_BYTES_MAX / size)
		return false;
	return !cfs_torch_storage_extent(t->storage, file, &off, NULL) &&
	       !cfs_file_pread_all(file, buf, t->numel * size,
				   off + t->storage_offset * size);
}

static bool same_tensor(const struct cfs_node *a, struct cfs_file *file_a,
			const struct cfs_node *b, struct cfs_file *file_b)
{
	_cleanup_(cfs_freep) uint8_t *buf = NULL;
	struct cfs_torch_tensor x, y;

	if (cfs_torch_tensor_get(a, &x) < 0 || cfs_torch_tensor_get(b, &y) < 0)
		return false;
	if (!same_shape(&x, &y) || !cfs_dtype_size(x.dtype))
		return false;
	if (!x.numel)
		return true;
	buf = malloc(2 * SCALAR_BYTES_MAX);
	return buf && read_tensor(&x, file_a, buf) &&
	       read_tensor(&y, file_b, buf + SCALAR_BYTES_MAX) &&
	       !memcmp(buf, buf + SCALAR_BYTES_MAX,
		       x.numel * cfs_dtype_size(x.dtype));
}

static bool same_value(const struct cfs_node *a, struct cfs_file *file_a,
		       const struct cfs_node *b, struct cfs_file *file_b,
		       int depth)
{
	uint32_t n;

	if (!a || !b || a->kind != b->kind || depth > VALUE_DEPTH_MAX)
		return false;
	if (cfs_torch_is_tensor(a))
		return same_tensor(a, file_a, b, file_b);
	if (a->kind == CFS_NODE_DICT) {
		n = cfs_map_node_count(a);
		if (n != cfs_map_node_count(b))
			return false;
		for (uint32_t i = 0; i < n; i++) {
			struct cfs_node *ka, *va, *kb, *vb;

			cfs_map_node_pair(a, i, &ka, &va);
			cfs_map_node_pair(b, i, &kb, &vb);
			if (!cfs_node_equal(ka, kb) ||
			    !same_value(va, file_a, vb, file_b, depth + 1))
				return false;
		}
		return true;
	}
	if (a->kind == CFS_NODE_LIST || a->kind == CFS_NODE_TUPLE) {
		n = cfs_seq_node_count(a);
		if (n != cfs_seq_node_count(b))
			return false;
		for (uint32_t i = 0; i < n; i++)
			if (!same_value(cfs_seq_node_item(a, i), file_a,
					cfs_seq_node_item(b, i), file_b,
					depth + 1))
				return false;
		return true;
	}
	return cfs_node_equal(a, b);
}

bool cfs_ds_same_value(const struct cfs_node *a, struct cfs_file *file_a,
		       const struct cfs_node *b, struct cfs_file *file_b)
{
	return same_value(a, file_a, b, file_b, 0);
}

/* ---- one file ---- */

struct reading {
	struct cfs_ds_layout *layout;
	uint32_t dp;
	struct cfs_ds_part *part;
	const struct cfs_node *inner, *inner0; /* this rank's, the first's */
	struct cfs_file *file, *file0;
	struct cfs_error *err;
};

/* How many elements of a flat tensor this rank must have, and may have. */
struct range {
	uint64_t least, most;
};

static int read_piece(const struct reading *rd, uint32_t u, uint32_t cut,
		      uint32_t role, const struct cfs_node *node,
		      struct range range)
{
	const char *name = rd->layout->roles[role];
	struct cfs_ds_piece *piece =
		cfs_ds_piece_of(rd->layout, rd->dp, u, cut, role);
	struct cfs_torch_tensor t;
	uint64_t off = 0;
	int r;

	r = cfs_torch_tensor_get(node, &t);
	if (r < 0 || t.ndim != 1 || !t.contiguous || !t.storage)
		return cfs_fail(rd->err, r == -ENOTSUP ? r : -EBADMSG,
				"%s of group %u is no flat tensor", name, u);
	if (t.numel < range.least || t.numel > range.most)
		return cfs_fail(rd->err, -EINVAL,
				"%s of group %u has %llu elements instead of "
				"%llu",
				name, u, (unsigned long long)t.numel,
				(unsigned long long)range.most);
	if (!cfs_dtype_size(t.dtype) || t.dtype == CFS_DTYPE_OTHER)
		return cfs_fail(rd->err, -ENOTSUP,
				"%s of group %u: data type not supported", name,
				u);
	if (t.numel) {
		r = cfs_torch_storage_extent(t.storage, rd->file, &off,
					     rd->err);
		if (r < 0)
			return cfs_fail_prefix(rd->err, r, "%s of group %u",
					       name, u);
	}
	piece->off = off + t.storage_offset * cfs_dtype_size(t.dtype);
	piece->numel = t.numel;
	piece->dtype = t.dtype;
	return 0;
}

/* Interleaved ones are all stripped or all padded, which proves the total. */
static struct range elements_of(const struct reading *rd, uint32_t u,
				uint32_t cut, bool state)
{
	const struct cfs_ds_layout *layout = rd->layout;
	const struct cfs_ds_unit *unit = &layout->units[u];
	struct range range = {unit->len, unit->len};

	if (layout->interleaved && layout->step->elastic)
		range.least = range.most =
			cfs_interleaved_valid(&unit->il, rd->dp, cut);
	else if (!layout->interleaved && layout->cls == CFS_OPT_ZERO12 &&
		 (!state || layout->step->elastic))
		range.least = cfs_flat_valid(&unit->flat, rd->dp);
	return range;
}

static int read_state(const struct reading *rd, uint32_t u, uint32_t cut)
{
	const struct cfs_ds_unit *unit = &rd->layout->units[u];
	const struct cfs_node *state =
		cfs_ds_unit_state(rd->layout, rd->inner, u, cut);
	uint32_t n = cfs_map_node_count(unit->state);

	if (cfs_map_node_count(state) != n)
		return cfs_fail(rd->err, -EINVAL,
				"the optimizer state of group %u has other "
				"entries than on the first rank",
				u);
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_node *key, *first, *value;
		const char *name;
		uint32_t role;
		int r;

		cfs_map_node_pair(unit->state, i, &key, &first);
		name = cfs_node_as_str(key);
		value = cfs_node_get(state, name);
		/* The first rank's file was judged when roles were found. */
		r = cfs_ds_is_sharded(rd->layout, unit, name, first, rd->err);
		if (r < 0)
			return r;
		role = r ? cfs_ds_layout_role(rd->layout, name) : 0;
		if (role)
			r = read_piece(rd, u, cut, role, value,
				       elements_of(rd, u, cut, true));
		else if ((rd->dp || cut) &&
			 !cfs_ds_same_value(first, rd->file0, value, rd->file))
			r = cfs_fail(rd->err, -EINVAL,
				     "optimizer state %s of group %u differs "
				     "from the first rank's",
				     name, u);
		else
			r = 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- param_slice_mappings ---- */

bool cfs_ds_fragment(const struct cfs_node *node, uint64_t *numel,
		     uint64_t *start)
{
	if (!node || node->kind != CFS_NODE_OBJECT)
		return false;
	for (uint32_t i = 0; i < node->u.object->n_ops; i++) {
		const struct cfs_node_op *op = &node->u.object->ops[i];

		if (op->kind == CFS_OP_BUILD)
			return cfs_node_as_u64(cfs_node_get(op->a, "numel"),
					       numel) &&
			       cfs_node_as_u64(cfs_node_get(op->a, "start"),
					       start);
	}
	return false;
}

/* Does @map list just what this rank holds, were the parameters in the order
 * @shuffled says? */
static bool map_agrees(const struct reading *rd, uint32_t u,
		       const struct cfs_node *map, bool shuffled)
{
	const struct cfs_ds_unit *unit = &rd->layout->units[u];
	uint64_t begin = unit->len * rd->dp, end = begin + unit->len;
	uint32_t at = 0, n = cfs_map_node_count(map);

	for (uint32_t i = 0; i < unit->n; i++) {
		const struct cfs_ds_shape *s =
			&unit->shapes[shuffled ? unit->own[i] : i];
		uint64_t pos = shuffled ? s->own_pos : s->pos;
		uint64_t a = CFS_MAX(pos, begin);
		uint64_t b = CFS_MIN(pos + s->numel, end);
		struct cfs_node *key, *value;
		uint64_t numel, start;
		const char *name;

		if (a >= b)
			continue;
		if (at == n)
			return false;
		cfs_map_node_pair(map, at++, &key, &value);
		name = cfs_node_as_str(key);
		if (!name || strcmp(name, s->name) != 0 ||
		    !cfs_ds_fragment(value, &numel, &start) ||
		    start != a - begin || numel != b - a)
			return false;
	}
	return at == n;
}

/* The same number of pieces as on the first rank, and each of them. */
static int read_unit(const struct reading *rd, uint32_t u)
{
	const struct cfs_ds_layout *layout = rd->layout;
	const struct cfs_node *list =
		cfs_seq_node_item(cfs_ds_masters(layout, rd->inner), u);
	uint32_t cuts = layout->units[u].cuts;
	int r = 0;

	if (layout->interleaved && cfs_seq_node_count(list) != cuts)
		return cfs_fail(rd->err, -EINVAL,
				"group %u has %u sub-partitions, %u on the "
				"first rank",
				u, cfs_seq_node_count(list), cuts);
	for (uint32_t cut = 0; !r && cut < cuts; cut++) {
		r = read_piece(rd, u, cut, CFS_ROLE_MASTER,
			       cfs_ds_unit_master(layout, rd->inner, u, cut),
			       elements_of(rd, u, cut, false));
		if (!r)
			r = read_state(rd, u, cut);
	}
	return r;
}

static void read_mappings(const struct reading *rd)
{
	const struct cfs_node *maps =
		cfs_node_get(rd->inner, "param_slice_mappings");
	struct cfs_ds_part *part = rd->part;

	if (rd->layout->cls == CFS_OPT_ZERO3 ||
	    cfs_seq_node_count(maps) != rd->layout->n_units)
		return;
	part->mapped = part->maps_plain = part->maps_shuffled = true;
	for (uint32_t u = 0; u < rd->layout->n_units; u++) {
		const struct cfs_node *map = cfs_seq_node_item(maps, u);

		part->maps_plain &= map_agrees(rd, u, map, false);
		part->maps_shuffled &= map_agrees(rd, u, map, true);
	}
}

/* ---- all of it ---- */

/* Hyper-parameters are the group's, so all ranks have the same. */
static int check_hyper(const struct reading *rd)
{
	const struct cfs_node *a = cfs_node_get(
		cfs_ds_base_state(rd->layout, rd->inner0), "param_groups");
	const struct cfs_node *b = cfs_node_get(
		cfs_ds_base_state(rd->layout, rd->inner), "param_groups");

	if (!rd->dp || (!a && !b) ||
	    cfs_ds_same_value(a, rd->file0, b, rd->file))
		return 0;
	return cfs_fail(rd->err, -EINVAL,
			"param_groups differ from the first rank's");
}

static int read_all(const struct reading *rd)
{
	int r = check_hyper(rd);

	if (r < 0)
		return r;
	for (uint32_t u = 0; u < rd->layout->n_units; u++) {
		r = read_unit(rd, u);
		if (r < 0)
			return r;
	}
	read_mappings(rd);
	return 0;
}

int cfs_ds_part_read(struct cfs_ds_layout *layout, uint32_t dp,
		     struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *torch = NULL;
	const struct cfs_step *step = &layout->step->base;
	const struct cfs_ds_file *file = &layout->rank->optim[dp];
	const struct cfs_node *root = layout->rank->optim_root;
	struct reading rd = {.layout = layout,
			     .dp = dp,
			     .part = &layout->parts[dp],
			     .inner0 = layout->rank->optim_state,
			     .err = err};
	int r;

	rd.inner = rd.inner0;
	if (dp) {
		r = cfs_ds_parse(step, file, &torch, err);
		if (r < 0)
			return r;
		root = cfs_torchfile_root(torch);
		rd.inner = cfs_node_get(root, "optimizer_state_dict");
	}
	r = cfs_ds_open(step, layout->rank->optim[0].index, &rd.file0, err);
	if (r < 0)
		return r;
	r = cfs_ds_open(step, file->index, &rd.file, err);
	if (!r) {
		r = cfs_ds_agree_part(layout, dp, rd.file0, root, rd.file, err);
		if (!r) {
			r = read_all(&rd);
			if (r < 0)
				r = cfs_fail_prefix(err, r, "%s", file->name);
		}
		cfs_filepool_put(step->pool, rd.file);
	}
	cfs_filepool_put(step->pool, rd.file0);
	return r;
}
