/*
 * Flat partitions of ZeRO optimizer files.
 *
 * Stages 1 and 2: the file holds elements [r * P, (r + 1) * P) of each group's
 * flat tensor.  Where a parameter that began on an earlier rank starts, the
 * file does not say (its slice mappings tell what is here, not what is before),
 * so the grid counts from the start of the flat tensor: that is known on every
 * rank, and the order in it does not depend on how many ranks there are.
 *
 * Stage 3 lays slices of many parameters side by side and tells neither their
 * order nor their lengths here: cut by content.
 */
#include <errno.h>
#include <string.h>

#include "fs/container/sniff_internal.h"
#include "fs/container/torchfile.h"
#include "store/util/checked.h"

struct flat {
	int64_t rank; /* negative: cut by content */
	struct cfs_sniff_spans *spans;
	bool *done;
};

/* @part: elements of a rank's partition. */
static int add(struct flat *f, const struct cfs_torch_tensor *t, uint64_t part)
{
	const struct cfs_torch_storage *s = t->storage;
	struct cfs_sniff_span span = {.storage = s->number,
				      .elem_size = cfs_dtype_size(t->dtype),
				      .len = s->nbytes};

	if (f->done[s->number] || !span.elem_size ||
	    s->nbytes != s->numel * span.elem_size)
		return 0;
	span.grid = f->rank >= 0 &&
		    cfs_mul_u64((uint64_t)f->rank, part, &span.phase) &&
		    cfs_mul_u64(span.phase, span.elem_size, &span.phase);
	if (!span.grid)
		span.phase = 0;
	f->done[s->number] = true;
	return cfs_sniff_spans_add(f->spans, &span);
}

static bool is_flat(const struct cfs_node *node, struct cfs_torch_tensor *out)
{
	return !cfs_torch_tensor_get(node, out) && out->ndim == 1 &&
	       out->storage && out->storage->numel > 1 &&
	       !out->storage_offset && out->contiguous;
}

/*
 * A group: its master, and the tensors of its optimizer state that are as
 * long.  The master may be cut short of its padding, its storage is not.
 */
static int group(struct flat *f, const struct cfs_node *master,
		 const struct cfs_node *state)
{
	const uint32_t n = cfs_map_node_count(state);
	struct cfs_torch_tensor m, t;
	struct cfs_node *key, *value;
	uint64_t part;
	int r;

	if (!is_flat(master, &m))
		return 0;
	part = m.storage->numel;
	for (uint32_t i = 0; i < n; i++) {
		cfs_map_node_pair(state, i, &key, &value);
		if (is_flat(value, &t) && t.numel > part && t.numel >= m.numel)
			part = t.numel;
	}
	r = add(f, &m, part);
	for (uint32_t i = 0; !r && i < n; i++) {
		cfs_map_node_pair(state, i, &key, &value);
		if (is_flat(value, &t) &&
		    (t.numel == part || t.numel == m.numel))
			r = add(f, &t, part);
	}
	return r;
}

/* {"state": {0: {…}}}, {0: {…}}, or (elastic) [{…}] */
static const struct cfs_node *state_of(const struct cfs_node *base, uint32_t g)
{
	const struct cfs_node *state = cfs_node_get(base, "state");

	if (cfs_node_is_seq(base))
		return cfs_seq_node_item(base, g);
	return cfs_node_get_int(state ? state : base, g);
}

int cfs_sniff_flat(const struct cfs_node *root, int64_t rank,
		   struct cfs_sniff_spans *spans, bool *flat_out)
{
	const struct cfs_node *osd = cfs_node_get(root, "optimizer_state_dict");
	const struct cfs_node *masters, *base;
	struct flat f = {rank, spans, flat_out};
	uint32_t n;
	int r = 0;

	masters = cfs_node_get(osd, "single_partition_of_fp32_groups");
	base = cfs_node_get(osd, "base_optimizer_state");
	if (!masters) {
		masters = cfs_node_get(osd, "fp32_flat_groups");
		base = cfs_node_get(osd, "optimizer_state_dict");
		f.rank = -1;
	}
	n = cfs_seq_node_count(masters);
	for (uint32_t g = 0; !r && g < n; g++)
		r = group(&f, cfs_seq_node_item(masters, g), state_of(base, g));
	return r;
}
