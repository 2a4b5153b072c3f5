/*
 * fp32_groups_flat: which parameter is where in a group's flat tensors.  The
 * framework makes the 16-bit weights views into one storage a group, whose
 * offsets are then the order.  Where the weights were saved with storages of
 * their own, param_names tell, or contents that leave one choice everywhere.
 */
#include "fs/format/deepspeed/stage0.h"

#include <errno.h>

#include "store/util/error.h"

static struct cfs_ds_candidate *
at_offset(struct cfs_ds_stage0 *z, const struct cfs_torch_storage *storage,
	  uint64_t offset)
{
	for (uint32_t i = 0; i < z->n_candidates; i++) {
		struct cfs_ds_candidate *c = &z->candidates[i];

		if (c->t.storage == storage && c->t.numel && !c->taken &&
		    c->t.storage_offset == offset)
			return c;
	}
	return NULL;
}

/* Walks @storage from its start: are its weights, end to end, the rounded
 * @master?  Returns how many there are, 0 if not; fills @out if given. */
static uint32_t tile(struct cfs_ds_stage0 *z,
		     const struct cfs_torch_storage *storage,
		     const struct cfs_torch_tensor *master,
		     struct cfs_ds_owned *out)
{
	uint64_t at = 0;
	uint32_t n = 0;

	while (at < master->numel) {
		struct cfs_ds_candidate *c = at_offset(z, storage, at);

		if (!c || !cfs_ds_stage0_fits(z, c, master, at, false))
			return 0;
		if (out)
			out[n] = (struct cfs_ds_owned){.is = c, .pos = at};
		n++;
		at += c->t.numel;
	}
	return at == master->numel ? n : 0;
}

/* The storage whose weights are the group's, NULL if none is. */
static int find_flat(struct cfs_ds_stage0 *z, uint32_t g,
		     const struct cfs_torch_tensor *master,
		     const struct cfs_torch_storage **found)
{
	const char *first = NULL;

	*found = NULL;
	for (uint32_t i = 0; i < z->n_candidates; i++) {
		struct cfs_ds_candidate *c = &z->candidates[i];

		if (c->taken || c->t.storage_offset || !c->t.numel ||
		    c->t.storage == *found ||
		    !tile(z, c->t.storage, master, NULL))
			continue;
		if (*found)
			return cfs_fail(z->err, -ENOTSUP,
					"stage 0: which parameters group %u "
					"has is not certain: the flat weights "
					"that start with %s and with %s both "
					"fit, and there are no param_names "
					"that tell",
					g, first, c->name);
		*found = c->t.storage;
		first = c->name;
	}
	return 0;
}

/* By the group's param_names, which outlive the flattening. */
static uint32_t tile_names(struct cfs_ds_stage0 *z, uint32_t g,
			   const struct cfs_torch_tensor *master,
			   struct cfs_ds_owned *out)
{
	const struct cfs_node *names =
		cfs_node_get(cfs_seq_node_item(z->groups, g), "param_names");
	uint32_t n = cfs_seq_node_count(names), k = 0;
	uint64_t at = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct cfs_ds_candidate *c = cfs_ds_stage0_by_name(z, names, i);

		if (!c || c->taken || k >= z->n_candidates - z->n_owned ||
		    !cfs_ds_stage0_fits(z, c, master, at, false))
			return 0;
		if (!c->t.numel)
			continue;
		out[k++] = (struct cfs_ds_owned){.is = c, .pos = at};
		at += c->t.numel;
	}
	return at == master->numel ? k : 0;
}

static bool is_alone(const struct cfs_ds_candidate *c)
{
	return !c->t.storage_offset && c->t.numel == c->t.storage->numel;
}

/* The one parameter that may be at @at, a second one in @other. */
static struct cfs_ds_candidate *find_at(struct cfs_ds_stage0 *z,
					const struct cfs_torch_tensor *master,
					uint64_t at, bool alone, bool whole,
					struct cfs_ds_candidate **other)
{
	struct cfs_ds_candidate *found = NULL;

	*other = NULL;
	for (uint32_t i = 0; i < z->n_candidates && !*other; i++) {
		struct cfs_ds_candidate *c = &z->candidates[i];

		if (!c->t.numel || c->taken || (alone && !is_alone(c)) ||
		    !cfs_ds_stage0_fits(z, c, master, at, whole))
			continue;
		if (found)
			*other = c;
		else
			found = c;
	}
	return found;
}

/*
 * Position by position, by content: at each exactly one parameter fits that
 * has no place yet.  Returns how many there are, or the refusal.
 */
static int tile_content(struct cfs_ds_stage0 *z,
			const struct cfs_torch_tensor *master, bool alone,
			struct cfs_ds_owned *out)
{
	struct cfs_ds_candidate *c, *other;
	uint64_t at = 0;
	int n = 0;

	while (at < master->numel) {
		c = find_at(z, master, at, alone, false, &other);
		if (other)
			c = find_at(z, master, at, alone, true, &other);
		if (!c)
			return 0;
		if (other)
			return cfs_ds_stage0_unproven(z, c->name, other->name,
						      true);
		c->taken = true;
		out[n++] = (struct cfs_ds_owned){.is = c, .pos = at};
		at += c->t.numel;
	}
	return n;
}

static int fused_group(struct cfs_ds_stage0 *z, uint32_t g,
		       const struct cfs_torch_tensor *master)
{
	struct cfs_ds_owned *out = &z->owned[z->n_owned];
	const struct cfs_torch_storage *found;
	int n = (int)tile_names(z, g, master, out);

	if (!n) {
		n = find_flat(z, g, master, &found);
		if (n < 0)
			return n;
		/* A view of everything is no view: others may fit as well. */
		n = found ? (int)tile(z, found, master, out) : 0;
		if (n < 2)
			n = tile_content(z, master, n == 1, out);
	}
	if (n < 0)
		return n;
	if (!n && master->numel)
		return cfs_fail(z->err, -ENOTSUP,
				"stage 0: the order of the parameters in group "
				"%u cannot be derived with certainty (no flat "
				"tensor of weights is its rounded master)",
				g);
	for (int i = 0; i < n; i++) {
		out[i].group = g;
		out[i].is->taken = true;
	}
	z->n_owned += (uint32_t)n;
	return 0;
}

int cfs_ds_stage0_fused(struct cfs_ds_stage0 *z)
{
	const struct cfs_node *flats =
		cfs_node_get(z->optimizer, "fp32_groups_flat");

	if (cfs_seq_node_count(flats) != z->n_groups)
		return cfs_fail(z->err, -EINVAL,
				"fp32_groups_flat and param_groups differ in "
				"length");
	z->owned = calloc((size_t)z->n_candidates + 1, sizeof(*z->owned));
	if (!z->owned)
		return -ENOMEM;
	for (uint32_t g = 0; g < z->n_groups; g++) {
		struct cfs_torch_tensor t;
		int r = cfs_torch_tensor_get(cfs_seq_node_item(flats, g), &t);

		if (r < 0 || t.ndim != 1)
			return cfs_fail(z->err, -EBADMSG,
					"fp32_groups_flat[%u] is no flat "
					"tensor",
					g);
		r = fused_group(z, g, &t);
		if (r < 0)
			return r;
	}
	return 0;
}
