/*
 * Optimizer files of DeepSpeedZeroOptimizer (stages 1 and 2) and
 * BF16_Optimizer: each group is one flat tensor, cut evenly over the ranks.
 * Rules and their sources: fs/format/DESIGN.md, "Writer".
 */
#include "fs/format/deepspeed/write.h"

#include <errno.h>

#include "fs/reslice/partition.h"
#include "store/util/checked.h"
#include "store/util/error.h"

int cfs_ds_flat_init(struct cfs_ds_flat *flat, const struct cfs_ds_out *out,
		     uint32_t group)
{
	uint32_t elem = cfs_dtype_size(out->step->base.dtype);
	uint64_t at = 0;

	*flat = (struct cfs_ds_flat){.group = group};
	cfs_catalogue_group(out->cat, group, &flat->first, &flat->n);
	flat->order = calloc((size_t)flat->n + 1, sizeof(*flat->order));
	flat->offset = calloc((size_t)flat->n + 1, sizeof(*flat->offset));
	flat->pad = calloc((size_t)flat->n + 1, sizeof(*flat->pad));
	if (!flat->order || !flat->offset || !flat->pad)
		return -ENOMEM;
	cfs_ds_group_order(out, flat->n, flat->order);
	for (uint32_t i = 0; i < flat->n; i++) {
		uint64_t numel = cfs_catalogue_param(
					 out->cat, flat->first + flat->order[i])
					 ->numel;

		flat->offset[i] = at;
		if (out->topo->param_alignment)
			flat->pad[i] =
				cfs_param_pad(numel, elem, i + 1 == flat->n);
		if (!cfs_add_u64(at, numel, &at) ||
		    !cfs_add_u64(at, flat->pad[i], &at))
			return -EOVERFLOW;
	}
	return cfs_flat_init(&flat->flat, out->topo->dp, at, 2);
}

void cfs_ds_flat_fini(struct cfs_ds_flat *flat)
{
	free(flat->order);
	free(flat->offset);
	free(flat->pad);
}

/* The first parameter that ends behind element @lo. */
static uint32_t flat_seek(const struct cfs_ds_flat *flat, uint64_t lo)
{
	uint32_t a = 0, b = flat->n;

	while (a < b) {
		uint32_t mid = a + (b - a) / 2;

		if (mid + 1 < flat->n && flat->offset[mid + 1] <= lo)
			a = mid + 1;
		else
			b = mid;
	}
	return a;
}

int cfs_ds_flat_fill(const struct cfs_ds_flat *flat,
		     const struct cfs_ds_out *out, uint32_t role,
		     uint64_t count, struct cfs_map *map)
{
	uint64_t at = out->dp * flat->flat.part, end = at + count;
	uint64_t size = 0;
	int r;

	for (uint32_t i = flat_seek(flat, at); i < flat->n && at < end; i++) {
		uint32_t param = flat->first + flat->order[i];
		uint64_t numel = cfs_catalogue_param(out->cat, param)->numel;
		uint64_t stop = CFS_MIN(flat->offset[i] + numel, end);

		size = cfs_dtype_size(
			cfs_catalogue_dtype(out->cat, param, role));
		if (at < stop) {
			r = cfs_catalogue_append(out->cat, param, role,
						 at - flat->offset[i],
						 stop - at, map);
			if (r < 0)
				return r;
			at = stop;
		}
		stop = CFS_MIN(flat->offset[i] + numel + flat->pad[i], end);
		if (at < stop) {
			r = cfs_map_add_zero(map, (stop - at) * size);
			if (r < 0)
				return r;
			at = stop;
		}
	}
	if (!size && flat->n)
		size = cfs_dtype_size(
			cfs_catalogue_dtype(out->cat, flat->first, role));
	return cfs_map_add_zero(map, (end - at) * size);
}

/* group_paddings: what the class and version write.  Releases before 0.7 count
 * up to a multiple of dp only, though they pad to one of 2 dp. */
static uint64_t padding_of(const struct cfs_ds_flat *flat,
			   const struct cfs_ds_out *out)
{
	uint32_t dp = flat->flat.dp;

	if (out->topo->optimizer != CFS_OPT_BF16 &&
	    cfs_ds_out_since(out, "0.16.4"))
		return cfs_flat_padding(&flat->flat, out->dp);
	if (cfs_ds_out_since(out, "0.7.0"))
		return cfs_flat_padding_last(&flat->flat, out->dp);
	return out->dp + 1 == dp ? (dp - flat->flat.total % dp) % dp : 0;
}

/*
 * Elements of the fp32 partition as written.  BF16_Optimizer keeps padding;
 * the others take tensor[:part - padding], where versions before 0.16.4 could
 * reach a negative stop: the slice then counts from the end.
 */
static uint64_t master_count(const struct cfs_ds_flat *flat,
			     const struct cfs_ds_out *out)
{
	uint64_t part = flat->flat.part, pad = padding_of(flat, out);

	if (out->topo->optimizer == CFS_OPT_BF16)
		return part;
	if (pad <= part)
		return part - pad;
	return pad - part < part ? 2 * part - pad : 0;
}

/* The optimizer's state keeps its padding; not so in the elastic form. */
static int fill_state(void *arg, uint32_t role, struct cfs_map *map)
{
	const void *const *both = arg;
	const struct cfs_ds_flat *flat = both[0];
	const struct cfs_ds_out *out = both[1];

	return cfs_ds_flat_fill(flat, out, role,
				out->tree->elastic ? master_count(flat, out)
						   : flat->flat.part,
				map);
}

static int fill_master(void *arg, uint32_t role, struct cfs_map *map)
{
	const void *const *both = arg;
	const struct cfs_ds_flat *flat = both[0];

	return cfs_ds_flat_fill(flat, both[1], role,
				master_count(flat, both[1]), map);
}

/*
 * param_slice_mappings.  The framework walks the group's own order here even
 * under round robin, where the flat tensor has another one (only with
 * alignment pads does it know the true offsets); readers expect what it says.
 */
static struct cfs_node *mapping(const struct cfs_ds_flat *flat,
				struct cfs_ds_out *out)
{
	const char *module = cfs_ds_out_since(out, "0.7.3")
				     ? "deepspeed.utils.tensor_fragment"
				     : "deepspeed.runtime.bf16_optimizer";
	_cleanup_(cfs_freep) uint64_t *start =
		calloc((size_t)flat->n + 1, sizeof(*start));
	struct cfs_node *map = cfs_node_ordereddict(out->doc);
	uint64_t lo = out->dp * flat->flat.part, hi = lo + flat->flat.part;
	uint64_t at = 0;
	bool padded = false;

	if (!start)
		return NULL;
	for (uint32_t i = 0; i < flat->n; i++) {
		start[flat->order[i]] = flat->offset[i];
		padded |= flat->pad[i] != 0;
	}
	for (uint32_t i = 0; i < flat->n; i++) {
		const struct cfs_param *p =
			cfs_catalogue_param(out->cat, flat->first + i);
		uint64_t from = padded ? start[i] : at;
		uint64_t a = CFS_MAX(from, lo);
		uint64_t b = CFS_MIN(from + p->numel, hi);
		struct cfs_node *state;

		at += p->numel;
		if (a >= b)
			continue;
		state = cfs_node_dict(out->doc);
		cfs_node_set_str(out->doc, state, "numel",
				 cfs_node_int(out->doc, (int64_t)(b - a)));
		cfs_node_set_str(out->doc, state, "start",
				 cfs_node_int(out->doc, (int64_t)(a - lo)));
		cfs_node_set_str(out->doc, map, p->name,
				 cfs_ds_out_object(out, module,
						   "fragment_address", state));
	}
	return map;
}

static struct cfs_node *alignment_pads(const struct cfs_ds_flat *flat,
				       struct cfs_ds_out *out)
{
	struct cfs_node *list = cfs_node_list(out->doc);

	for (uint32_t i = 0; i < flat->n; i++)
		cfs_node_append(out->doc, list,
				cfs_node_int(out->doc, (int64_t)flat->pad[i]));
	return list;
}

/* The values that are lists over groups, while they are collected. */
struct flat_lists {
	struct cfs_node *state, *elastic, *hypers, *masters, *paddings, *aligns,
		*counts, *mappings;
};

static int add_group(struct cfs_ds_out *out, uint32_t group,
		     struct flat_lists *l)
{
	_cleanup_(cfs_ds_flat_fini) struct cfs_ds_flat flat = {.n = 0};
	struct cfs_node *state = cfs_node_dict(out->doc), *hyper, *master;
	bool elastic = out->tree->elastic;
	const void *both[] = {&flat, out};
	struct cfs_pickle *doc = out->doc;
	int r;

	r = cfs_ds_flat_init(&flat, out, group);
	if (r < 0)
		return r;
	if (!elastic) {
		r = cfs_ds_write_hyper(out, group, group, 1, &hyper);
		if (r < 0)
			return r;
		cfs_node_append(doc, l->hypers, hyper);
	}
	r = cfs_ds_write_master(out, NULL, fill_master, both, &master);
	if (r < 0)
		return r;
	if (cfs_ds_has_state(out, group)) {
		r = cfs_ds_write_state(out, group, NULL, fill_state, both,
				       &state);
		if (r < 0)
			return r;
		if (!elastic)
			cfs_node_set(doc, l->state, cfs_node_int(doc, group),
				     state);
	}
	if (elastic)
		cfs_node_append(doc, l->elastic, state);
	cfs_node_append(doc, l->masters, master);
	cfs_node_append(doc, l->paddings,
			cfs_node_int(doc, (int64_t)padding_of(&flat, out)));
	cfs_node_append(doc, l->aligns, alignment_pads(&flat, out));
	cfs_node_append(doc, l->counts, cfs_node_int(doc, out->topo->dp));
	cfs_node_append(doc, l->mappings, mapping(&flat, out));
	return 0;
}

/* The torch state dict, or what the elastic form has instead. */
static void set_base(struct cfs_ds_out *out, const struct flat_lists *l,
		     struct cfs_node *inner)
{
	struct cfs_node *base = cfs_node_dict(out->doc), *step;

	cfs_node_set_str(out->doc, base, "state", l->state);
	cfs_node_set_str(out->doc, base, "param_groups", l->hypers);
	cfs_node_set_str(out->doc, inner, "base_optimizer_state",
			 out->tree->elastic ? l->elastic : base);
	if (!out->tree->elastic)
		return;
	/* today's loader asks for it; older writers had it in the state only */
	step = cfs_node_get(out->rank->optim_state,
			    "base_optimizer_state_step");
	if (!step)
		step = cfs_node_get(out->rank->groups[0].scalars, "step");
	if (!step)
		step = cfs_node_int(out->doc, out->tree->lost_step);
	cfs_node_set_str(out->doc, inner, "base_optimizer_state_step", step);
}

static struct cfs_node *inner_of(struct cfs_ds_out *out,
				 const struct flat_lists *l)
{
	bool bf16 = out->topo->optimizer == CFS_OPT_BF16;
	struct cfs_pickle *doc = out->doc;
	struct cfs_node *inner = cfs_node_dict(doc);
	struct cfs_node *clip = cfs_ds_write_clip(out);

	if (!bf16)
		cfs_ds_write_scaler(out, inner);
	if (clip)
		cfs_node_set_str(doc, inner, "clip_grad", clip);
	set_base(out, l, inner);
	cfs_node_set_str(doc, inner, "single_partition_of_fp32_groups",
			 l->masters);
	if (!bf16)
		cfs_node_set_str(doc, inner, "zero_stage",
				 cfs_ds_write_stage(out));
	if (out->tree->elastic || cfs_ds_out_since(out, "0.7.0"))
		cfs_node_set_str(doc, inner, "group_paddings", l->paddings);
	if (!bf16 && cfs_ds_out_since(out, "0.19.7"))
		cfs_node_set_str(doc, inner, "param_alignment_paddings",
				 l->aligns);
	cfs_node_set_str(doc, inner, "partition_count", l->counts);
	cfs_node_set_str(doc, inner, "ds_version",
			 cfs_node_str(doc, cfs_ds_out_version(out)));
	if (cfs_ds_out_since(out, bf16 ? "0.7.0" : "0.7.4"))
		cfs_node_set_str(doc, inner, "param_slice_mappings",
				 l->mappings);
	return inner;
}

int cfs_ds_write_flat(struct cfs_ds_out *out, struct cfs_node **inner_out)
{
	struct cfs_pickle *doc = out->doc;
	struct flat_lists l = {.state = cfs_node_dict(doc),
			       .elastic = cfs_node_list(doc),
			       .hypers = cfs_node_list(doc),
			       .masters = cfs_node_list(doc),
			       .paddings = cfs_node_list(doc),
			       .aligns = cfs_node_list(doc),
			       .counts = cfs_node_list(doc),
			       .mappings = cfs_node_list(doc)};

	for (uint32_t g = 0; g < cfs_catalogue_groups(out->cat); g++) {
		int r = add_group(out, g, &l);

		if (r < 0)
			return r;
	}
	*inner_out = inner_of(out, &l);
	return *inner_out ? 0 : -ENOMEM;
}
