/* Which files a step's directory holds, and which it should. */
#include "fs/format/deepspeed/read.h"

#include <errno.h>
#include <string.h>

#include "fs/format/deepspeed/layer.h"
#include "store/util/error.h"
#include "store/util/grow.h"

static int entry_cmp(const void *a, const void *b)
{
	const struct cfs_ds_name *x = &((const struct cfs_ds_entry *)a)->parsed;
	const struct cfs_ds_name *y = &((const struct cfs_ds_entry *)b)->parsed;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->mp != y->mp)
		return x->mp < y->mp ? -1 : 1;
	if (x->dp != y->dp)
		return x->dp < y->dp ? -1 : 1;
	/* The loader prefers the new spelling. */
	return (int)x->old_spelling - (int)y->old_spelling;
}

/* Is @name "<checkpoint file>-w.W"? */
static bool is_piece(const char *name)
{
	const char *dash = strrchr(name, '-');
	char base[256];

	if (!dash || (size_t)(dash - name) >= sizeof(base) ||
	    dash[1 + strspn(dash + 1, "0123456789.")] || !strchr(dash, '.'))
		return false;
	memcpy(base, name, (size_t)(dash - name));
	base[dash - name] = '\0';
	return cfs_ds_name_parse(base).kind != CFS_DS_OTHER;
}

static int add_entry(void *arg, const char *name, const struct stat *st)
{
	struct cfs_ds_list *list = arg;
	struct cfs_ds_name parsed = cfs_ds_name_parse(name);
	struct cfs_ds_entry *e;

	if (S_ISDIR(st->st_mode)) {
		list->zero_dir |= !strcmp(name, "zero");
		return 0;
	}
	if (parsed.kind == CFS_DS_OTHER) {
		list->pieces |= is_piece(name);
		return 0;
	}
	if (!CFS_GROW(list->entries, list->n, list->cap))
		return -ENOMEM;
	e = &list->entries[list->n];
	e->parsed = parsed;
	e->name = strdup(name);
	if (!e->name)
		return -ENOMEM;
	list->n++;
	return 0;
}

int cfs_ds_list_read(struct cfs_source *source, const char *path,
		     struct cfs_ds_list *out)
{
	struct cfs_ds_list list = {0};
	int r = source->ops->readdir(source, path, add_entry, &list);

	if (r < 0) {
		cfs_ds_list_fini(&list);
		return r;
	}
	if (list.n)
		qsort(list.entries, list.n, sizeof(*list.entries), entry_cmp);
	*out = list;
	return 0;
}

void cfs_ds_list_fini(struct cfs_ds_list *list)
{
	for (uint32_t i = 0; i < list->n; i++)
		free(list->entries[i].name);
	free(list->entries);
	memset(list, 0, sizeof(*list));
}

/* The first entry not before (kind, mp, dp). */
static uint32_t lower_bound(const struct cfs_ds_list *list,
			    enum cfs_ds_kind kind, uint32_t mp, uint32_t dp)
{
	const struct cfs_ds_entry want = {
		.parsed = {.kind = kind, .mp = mp, .dp = dp}};
	uint32_t lo = 0, hi = list->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (entry_cmp(&list->entries[mid], &want) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

const struct cfs_ds_entry *cfs_ds_list_find(const struct cfs_ds_list *list,
					    enum cfs_ds_kind kind, uint32_t mp,
					    uint32_t dp)
{
	uint32_t i = lower_bound(list, kind, mp, dp);
	const struct cfs_ds_name *p;

	if (i == list->n)
		return NULL;
	p = &list->entries[i].parsed;
	return p->kind == kind && p->mp == mp && p->dp == dp ? &list->entries[i]
							     : NULL;
}

const struct cfs_ds_entry *cfs_ds_list_kind(const struct cfs_ds_list *list,
					    enum cfs_ds_kind kind,
					    uint32_t *n_out)
{
	uint32_t i = lower_bound(list, kind, 0, 0);
	uint32_t n = 0;

	while (i + n < list->n && list->entries[i + n].parsed.kind == kind)
		n++;
	*n_out = n;
	return n ? &list->entries[i] : NULL;
}

static int missing(const struct cfs_ds_name *name, struct cfs_error *err)
{
	char buf[96];

	return cfs_fail(err, -ENOENT, "%s is missing",
			cfs_ds_name_format(name, buf, sizeof(buf)));
}

/* Every (mp, dp) below the bounds is there, and nothing beyond. */
static int check_grid(const struct cfs_ds_list *list, enum cfs_ds_kind kind,
		      uint32_t n_mp, uint32_t n_dp, bool bf16,
		      struct cfs_error *err)
{
	for (uint32_t m = 0; m < n_mp; m++) {
		for (uint32_t d = 0; d < n_dp; d++) {
			struct cfs_ds_name want = {
				.kind = kind, .dp = d, .mp = m, .bf16 = bf16};

			if (!cfs_ds_list_find(list, kind, m, d))
				return missing(&want, err);
		}
	}
	return 0;
}

/* The counts a kind's names span. */
static void span(const struct cfs_ds_list *list, enum cfs_ds_kind kind,
		 uint32_t *n_mp, uint32_t *n_dp)
{
	uint32_t n;
	const struct cfs_ds_entry *e = cfs_ds_list_kind(list, kind, &n);

	for (uint32_t i = 0; i < n; i++) {
		*n_mp = CFS_MAX(*n_mp, e[i].parsed.mp + 1);
		*n_dp = CFS_MAX(*n_dp, e[i].parsed.dp + 1);
	}
}

static int check_kinds(const struct cfs_ds_list *list, struct cfs_error *err)
{
	const struct cfs_ds_entry *e, *f;
	uint32_t n, n_optim;

	e = cfs_ds_list_kind(list, CFS_DS_EXPERT, &n);
	if (e)
		return cfs_fail(err, -ENOTSUP,
				"%s: mixture-of-experts checkpoints are not "
				"supported yet",
				e->name);
	if (list->pieces)
		return cfs_fail(err, -ENOTSUP,
				"files cut into pieces by parallel writers "
				"(NAME-0.2, …) are not supported");
	e = cfs_ds_list_kind(list, CFS_DS_MODEL, &n);
	f = cfs_ds_list_kind(list, CFS_DS_MODEL_ZERO3, &n);
	if (e && f)
		return cfs_fail(err, -EINVAL,
				"both %s and %s: two checkpoints in one "
				"directory",
				e->name, f->name);
	if (!e && !f)
		return cfs_fail(err, -ENOENT,
				"mp_rank_00_model_states.pt is missing");
	e = cfs_ds_list_kind(list, CFS_DS_OPTIM, &n_optim);
	for (uint32_t i = 1; i < n_optim; i++)
		if (e[i].parsed.bf16 != e[0].parsed.bf16)
			return cfs_fail(err, -EINVAL,
					"both %s and %s: two checkpoints in "
					"one directory",
					e[0].name, e[i].name);
	return 0;
}

/* ---- a pipeline's layers ---- */

/* Does every tensor-parallel rank have layer @layer? */
static int check_layer(const struct cfs_ds_list *list, uint32_t layer,
		       uint32_t tp, struct cfs_error *err)
{
	uint32_t n;
	const struct cfs_ds_entry *e = cfs_ds_list_kind(list, CFS_DS_LAYER, &n);

	for (uint32_t t = 0; t < tp; t++) {
		struct cfs_ds_name want = {.kind = CFS_DS_LAYER,
					   .dp = layer,
					   .mp = t,
					   .plain_layer =
						   e && e->parsed.plain_layer};

		if (!cfs_ds_list_find(list, CFS_DS_LAYER, t, layer))
			return missing(&want, err);
	}
	return 0;
}

uint32_t cfs_ds_list_tp(const struct cfs_ds_list *list, uint32_t n_mp)
{
	uint32_t n, tp;
	const struct cfs_ds_entry *e = cfs_ds_list_kind(list, CFS_DS_LAYER, &n);

	if (!e)
		return n_mp;
	/* Sorted by rank.  Stages have equally many: if those that are seen do
	 * not divide the whole, there are more. */
	for (tp = e[n - 1].parsed.mp + 1; tp && tp < n_mp; tp++)
		if (!(n_mp % tp))
			return tp;
	return n_mp;
}

/* What one tensor-parallel rank has all have.  Functions between layers have
 * no files, so gaps in the numbers say nothing. */
static int check_layers(const struct cfs_ds_list *list, uint32_t n_mp,
			struct cfs_error *err)
{
	uint32_t n, tp = cfs_ds_list_tp(list, n_mp);
	const struct cfs_ds_entry *e = cfs_ds_list_kind(list, CFS_DS_LAYER, &n);
	int r = 0;

	for (uint32_t i = 0; !r && i < n; i++)
		r = check_layer(list, e[i].parsed.dp, tp, err);
	return r;
}

static int check_names(const struct cfs_ds_list *list,
		       const struct cfs_node *shapes, uint32_t tp,
		       struct cfs_error *err)
{
	uint32_t last = UINT32_MAX;
	int r = 0;

	for (uint32_t i = 0; !r && i < cfs_map_node_count(shapes); i++) {
		struct cfs_ds_layer_name name;
		struct cfs_node *key, *value;

		cfs_map_node_pair(shapes, i, &key, &value);
		if (!cfs_node_as_str(key))
			continue;
		name = cfs_ds_layer_parse(cfs_node_as_str(key));
		if (name.form != CFS_DS_FORM_PIPELINE || name.layer == last)
			continue;
		last = name.layer;
		r = check_layer(list, last, tp, err);
	}
	return r;
}

int cfs_ds_list_layers(const struct cfs_ds_list *list,
		       const struct cfs_node *model_root, uint32_t tp,
		       struct cfs_error *err)
{
	const struct cfs_node *module = cfs_node_get(model_root, "module");
	const struct cfs_node *shapes =
		cfs_node_get(model_root, "param_shapes");
	int r = 0;

	if (!module || !cfs_node_is_none(module))
		return 0;
	if (!cfs_node_is_seq(shapes))
		return check_names(list, shapes, tp, err);
	for (uint32_t g = 0; !r && g < cfs_seq_node_count(shapes); g++)
		r = check_names(list, cfs_seq_node_item(shapes, g), tp, err);
	return r;
}

/* ---- all of it ---- */

int cfs_ds_list_check(const struct cfs_ds_list *list, struct cfs_ds_names *out,
		      struct cfs_error *err)
{
	struct cfs_ds_names names = {0};
	const struct cfs_ds_entry *optim;
	uint32_t n_optim, n_zero3, n_model_dp = 0;
	uint64_t cells;
	int r;

	r = check_kinds(list, err);
	if (r < 0)
		return r;
	names.zero3 = cfs_ds_list_kind(list, CFS_DS_MODEL_ZERO3, &n_zero3);
	optim = cfs_ds_list_kind(list, CFS_DS_OPTIM, &n_optim);
	names.bf16 = optim && optim->parsed.bf16;
	span(list, names.zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL, &names.n_mp,
	     &n_model_dp);
	span(list, CFS_DS_OPTIM, &names.n_mp, &names.n_dp);
	if (names.zero3)
		names.n_dp = CFS_MAX(names.n_dp, n_model_dp);
	/* A stray name with a huge number is found at the first gap, but the
	 * grid itself must stay countable. */
	cells = (uint64_t)names.n_mp * CFS_MAX(names.n_dp, 1);
	if (names.n_mp > 1 << 16 || cells > 1 << 22)
		return cfs_fail(err, -EINVAL, "%u x %u ranks by the names",
				names.n_mp, names.n_dp);
	r = names.zero3
		    ? check_grid(list, CFS_DS_MODEL_ZERO3, names.n_mp,
				 names.n_dp, false, err)
		    : check_grid(list, CFS_DS_MODEL, names.n_mp, 1, false, err);
	if (!r)
		r = check_grid(list, CFS_DS_OPTIM, names.n_mp, names.n_dp,
			       names.bf16, err);
	if (!r)
		r = check_layers(list, names.n_mp, err);
	if (!r)
		*out = names;
	return r;
}
