/*
 * One file of a step at another topology, made when it is asked for: its trees
 * are held while it is built and dropped with its pickle made.
 *
 * In stage 3 every rank's model states carry a client state of their own: rank
 * r of the target takes that of rank r, or r mod n where the source has only n.
 * Stages 0 to 2 take rank 0's, which is what the framework writes.
 */
#include "fs/format/deepspeed/remodel.h"
#include "fs/format/deepspeed/template.h"
#include "fs/format/deepspeed/write.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "store/util/error.h"

#define CRC_BLOCK (1u << 20)

static struct cfs_ds_tree *ds_tree_of(struct cfs_tree *tree)
{
	return container_of(tree, struct cfs_ds_tree, base);
}

/* crc=full: the bytes are read once. */
static int payload_crc(void *arg, const struct cfs_map *payload,
		       uint32_t *crc_out)
{
	struct cfs_ds_out *out = arg;
	_cleanup_(cfs_reader_closep) struct cfs_reader *reader = NULL;
	_cleanup_(cfs_freep) uint8_t *block = malloc(CRC_BLOCK);
	uint32_t crc = 0;
	uint64_t off = 0;
	int r;

	if (!block)
		return -ENOMEM;
	/* a reader only takes a reference, but through a plain pointer */
	r = cfs_reader_open((struct cfs_map *)(uintptr_t)payload,
			    out->step->base.pool, NULL, &reader, out->err);
	if (r < 0)
		return r;
	while (off < cfs_map_size(payload)) {
		ssize_t n = cfs_reader_pread(reader, block, CRC_BLOCK, off);

		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		crc = (uint32_t)crc32(crc, block, (uInt)n);
		off += (uint64_t)n;
	}
	*crc_out = crc;
	return 0;
}

/* The model states that rank @dp of the target is made from. */
static int source_model(struct cfs_ds_out *out, struct cfs_torchfile **tf_out,
			struct cfs_node **root_out)
{
	const struct cfs_ds_rank *rank = out->rank;
	bool from3 = out->step->base.topology.zero_stage == 3;
	uint32_t k = from3 && out->topo->zero_stage == 3
			     ? out->dp % rank->n_model
			     : 0;
	int r;

	*root_out = rank->model_root;
	if (k == 0)
		return 0;
	r = cfs_ds_parse(&out->step->base, &rank->model[k], tf_out, out->err);
	if (r < 0)
		return r;
	*root_out = cfs_torchfile_root(*tf_out);
	if (!cfs_node_is_map(*root_out))
		return cfs_fail(out->err, -EBADMSG, "%s: is not a dict",
				rank->model[k].name);
	return out->step->remodel && out->step->remodel->like
		       ? cfs_ds_template_model(out, root_out)
		       : 0;
}

static int make_file(struct cfs_ds_out *out, const struct cfs_ds_plan *plan,
		     struct cfs_map **map_out)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	bool crc = out->tree->base.crc_full;
	struct cfs_node *root = NULL, *source;
	int r;

	if (plan->part == CFS_DS_PART_OPTIM) {
		r = cfs_ds_write_optim(out, &root);
	} else if (plan->part == CFS_DS_PART_LAYER) {
		root = cfs_node_ordereddict(out->doc);
		r = out->step->remodel->like
			    ? cfs_ds_template_layer(out, plan, root)
			    : cfs_ds_write_layer(out, plan->layer, "", root);
	} else if (plan->part == CFS_DS_PART_UNIVERSAL) {
		r = cfs_uc_write(out, plan, &root);
	} else {
		r = source_model(out, &tf, &source);
		if (r >= 0)
			r = cfs_ds_write_model(out, source, &root);
	}
	if (cfs_pickle_failed(out->doc))
		return -ENOMEM;
	if (r < 0)
		return r;
	return cfs_torch_writer_finish(out->w, root, cfs_ds_out_open, out,
				       crc ? payload_crc : NULL, out, map_out,
				       out->err);
}

static int build_torch(const struct cfs_ds_tree *t,
		       const struct cfs_ds_plan *plan, struct cfs_map **map_out,
		       struct cfs_error *err)
{
	struct cfs_ds_step *step = plan->part == CFS_DS_PART_UNIVERSAL
					   ? t->whole
					   : cfs_ds_step_of(t->base.step);
	const char *slash = strrchr(plan->name, '/');
	const char *name = slash ? slash + 1 : plan->name;
	uint32_t n_files = cfs_filetab_count(step->base.files);
	_cleanup_(cfs_freep) char *prefix =
		strndup(name, strlen(name) - strlen(".pt"));
	struct cfs_ds_out out = {.tree = t,
				 .step = step,
				 .topo = plan->zero3 ? &t->zero3
						     : &t->base.target.topology,
				 .rank = &step->ranks[plan->mp],
				 .cat = step->base.ranks[plan->mp].catalogue,
				 .mp = plan->mp,
				 .dp = plan->dp,
				 .err = err};
	int r = -ENOMEM;

	out.open = calloc((size_t)n_files + 1, sizeof(*out.open));
	out.w = prefix ? cfs_torch_writer_new(step->base.files, prefix) : NULL;
	if (out.open && out.w) {
		out.doc = cfs_torch_writer_doc(out.w);
		r = make_file(&out, plan, map_out);
	}
	cfs_torch_writer_free(out.w);
	for (uint32_t i = 0; i < out.n_parsed; i++)
		cfs_torchfile_free(out.parsed[i]);
	free(out.parsed);
	for (uint32_t i = 0; out.open && i < n_files; i++)
		if (out.open[i])
			cfs_filepool_put(step->base.pool, out.open[i]);
	free(out.open);
	return r;
}

static int build_carried(const struct cfs_ds_tree *t, uint32_t file,
			 struct cfs_map **map_out)
{
	struct cfs_filetab *files = t->base.step->files;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(files);
	int r;

	if (!map)
		return -ENOMEM;
	r = cfs_map_add_range(map, file, 0,
			      cfs_filetab_version(files, file)->size);
	if (r < 0)
		return r;
	cfs_map_seal(map);
	*map_out = cfs_steal(map);
	return 0;
}

static int ds_tree_build(struct cfs_tree *tree, uint32_t index,
			 struct cfs_map **map_out, struct cfs_error *err)
{
	const struct cfs_ds_tree *t = ds_tree_of(tree);
	const struct cfs_ds_plan *plan = &t->plans[index];
	int r;

	r = plan->part == CFS_DS_PART_CARRIED
		    ? build_carried(t, plan->file, map_out)
		    : build_torch(t, plan, map_out, err);
	/* Planning saw to all that a step can lack: a file of it went away.  An
	 * absent checkpoint would make a trainer start anew. */
	return r == -ENOENT ? -ESTALE : r;
}

static void ds_tree_free(struct cfs_tree *tree)
{
	struct cfs_ds_tree *t = ds_tree_of(tree);

	cfs_tree_fini(tree);
	if (t->whole)
		cfs_step_unref(&t->whole->base);
	free(t->plans);
	free(t);
}

const struct cfs_tree_ops cfs_ds_tree_ops = {
	.build = ds_tree_build,
	.free = ds_tree_free,
};
