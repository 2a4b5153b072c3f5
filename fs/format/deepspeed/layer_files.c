/*
 * Layer files while the optimizer is read that says nothing of names or
 * shapes.  They name a tensor by its layer, the pipeline does so by its key
 * where the layer is tied: GPT-NeoX's embedding, if no file lies behind the
 * final norm's.
 */
#include "fs/format/deepspeed/layer_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/family.h"
#include "fs/format/deepspeed/layer.h"
#include "fs/format/deepspeed/read.h"
#include "store/util/error.h"

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int layer_cmp(const void *a, const void *b)
{
	const struct cfs_ds_layer_file *x = a, *y = b;

	return x->layer < y->layer ? -1 : x->layer > y->layer;
}

static bool has(const struct cfs_ds_layer_file *f, const char *name)
{
	return cfs_node_get(cfs_torchfile_root(f->torch), name) != NULL;
}

/* Names that begin as those of the final norm. */
static bool is_norm(const struct cfs_ds_layer_file *f)
{
	const struct cfs_node *root = cfs_torchfile_root(f->torch);
	const char *want = cfs_ds_neox.norm;

	for (uint32_t i = 0; i < cfs_map_node_count(root); i++) {
		struct cfs_node *key, *value;

		cfs_map_node_pair(root, i, &key, &value);
		if (!cfs_node_as_str(key) ||
		    strncmp(cfs_node_as_str(key), want, strlen(want)) != 0)
			return false;
	}
	return cfs_map_node_count(root) != 0;
}

static int find_tied(struct cfs_ds_layer_files *files, struct cfs_error *err)
{
	const struct cfs_ds_layer_file *last = &files->v[files->n - 1];
	bool marked = false, behind = false;

	for (uint32_t i = 0; i < files->n; i++)
		marked |= has(&files->v[i], cfs_ds_neox.mark);
	if (marked && files->n > 1)
		behind = is_norm(last - 1) && has(last, "final_linear.weight");
	files->tied = !behind;
	if (marked && !files->v[0].layer &&
	    has(&files->v[0], cfs_ds_neox.tied_name) &&
	    (behind || is_norm(last)))
		return 0;
	return cfs_fail(err, -ENOTSUP,
			"stage 0 of a pipeline that is not GPT-NeoX's: nothing "
			"says which layers are tied, and so which optimizer "
			"state is whose; save it with ZeRO stage 1");
}

static int open_one(const struct cfs_ds_step *step, uint32_t row, char *name,
		    struct cfs_ds_layer_file *out, struct cfs_error *err)
{
	const struct cfs_ds_file file = {.name = name, .index = row};
	int r = cfs_ds_parse(&step->base, &file, &out->torch, err);

	if (!r && !cfs_node_is_map(cfs_torchfile_root(out->torch)))
		r = cfs_fail(err, -EBADMSG, "%s: holds no dictionary", name);
	return r ? r : cfs_ds_open(&step->base, row, &out->file, err);
}

int cfs_ds_layer_files_open(const struct cfs_ds_step *step, uint32_t tp_rank,
			    struct cfs_ds_layer_files *out,
			    struct cfs_error *err)
{
	const struct cfs_filetab *tab = step->base.files;
	uint32_t n = cfs_filetab_count(tab);
	int r = 0;

	*out = (struct cfs_ds_layer_files){.pool = step->base.pool};
	out->v = calloc((size_t)n + 1, sizeof(*out->v));
	if (!out->v)
		return -ENOMEM;
	for (uint32_t i = step->base.first_file; !r && i < n; i++) {
		_cleanup_(cfs_freep) char *name =
			strdup(base_name(cfs_filetab_path(tab, i)));
		struct cfs_ds_name at;

		if (!name)
			return -ENOMEM;
		at = cfs_ds_name_parse(name);
		if (at.kind != CFS_DS_LAYER || at.mp != tp_rank)
			continue;
		out->v[out->n].layer = at.dp;
		r = open_one(step, i, name, &out->v[out->n++], err);
	}
	if (r < 0)
		return r;
	if (!out->n)
		return cfs_fail(err, -ENOTSUP,
				"no module, and no layer files either");
	qsort(out->v, out->n, sizeof(*out->v), layer_cmp);
	return find_tied(out, err);
}

void cfs_ds_layer_files_fini(struct cfs_ds_layer_files *files)
{
	for (uint32_t i = 0; i < files->n; i++) {
		cfs_torchfile_free(files->v[i].torch);
		if (files->v[i].file)
			cfs_filepool_put(files->pool, files->v[i].file);
	}
	free(files->v);
	*files = (struct cfs_ds_layer_files){0};
}

int cfs_ds_layer_files_name(const struct cfs_ds_layer_files *files,
			    uint32_t layer, const char *name, char *buf,
			    size_t size)
{
	struct cfs_ds_layer_name n = {
		.form = CFS_DS_FORM_PIPELINE, .layer = layer, .name = name};

	if (!layer && files->tied) {
		n.form = CFS_DS_FORM_TIED;
		n.key = cfs_ds_neox.tied_key;
		n.key_len = strlen(n.key);
	}
	return cfs_ds_layer_format(&n, buf, size);
}
