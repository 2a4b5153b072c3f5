/*
 * Extended attributes: the source's own, and user.ckptfs.* that tell what a
 * made file or directory consists of, in words.
 */
#include "fs/view/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/format/format.h"
#include "store/util/buf.h"

#define VALUE_MAX 60000 /* the kernel takes 64 KiB */

static int put_view(struct cfs_vnode *node, struct cfs_buf *out)
{
	cfs_buf_printf(out, "@%s", node->view);
	return 0;
}

static int put_source(struct cfs_vnode *node, struct cfs_buf *out)
{
	cfs_buf_put_str(out, *node->path ? node->path : ".");
	return 0;
}

static void put_topology(const struct cfs_topology *t, struct cfs_buf *out)
{
	cfs_buf_printf(out, "dp=%u tp=%u pp=%u zero=%d optimizer=%s", t->dp,
		       t->tp, t->pp, t->zero_stage,
		       cfs_optimizer_class_name(t->optimizer));
	if (t->round_robin)
		cfs_buf_put_str(out, " round_robin");
	if (t->zero_stage == 3)
		cfs_buf_printf(out, " sub_group_size=%llu",
			       (unsigned long long)t->sub_group_size);
}

static int put_planned(struct cfs_vnode *node, bool saved, struct cfs_buf *out)
{
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	int r;

	r = cfs_vnode_plan(node, &tree, NULL);
	if (r < 0)
		return r;
	if (!tree)
		return -ENODATA; /* shown as saved */
	put_topology(saved ? &tree->step->topology : &tree->target.topology,
		     out);
	return 0;
}

static int put_shown(struct cfs_vnode *node, struct cfs_buf *out)
{
	return put_planned(node, false, out);
}

static int put_saved(struct cfs_vnode *node, struct cfs_buf *out)
{
	return put_planned(node, true, out);
}

static int put_segments(struct cfs_vnode *node, struct cfs_buf *out)
{
	static const char *const names[] = {
		[CFS_SEG_LITERAL] = "literal", [CFS_SEG_RANGE] = "range",
		[CFS_SEG_ZERO] = "zero",       [CFS_SEG_GATHER] = "gather",
		[CFS_SEG_CAST] = "cast",       [CFS_SEG_LINEAR] = "linear",
	};
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct {
		uint64_t n, bytes;
	} sums[CFS_ARRAY_SIZE(names)] = {0};
	struct cfs_segment seg;
	uint32_t i;
	int r;

	r = cfs_vnode_map(node, &map, NULL);
	if (r < 0)
		return r;
	for (i = 0; i < cfs_map_count(map); i++) {
		cfs_map_segment(map, i, &seg);
		sums[seg.kind].n++;
		sums[seg.kind].bytes += seg.len;
	}
	for (i = 0; i < CFS_ARRAY_SIZE(names); i++)
		if (sums[i].n)
			cfs_buf_printf(out, "%s%s: %llu (%llu bytes)",
				       out->len ? ", " : "", names[i],
				       (unsigned long long)sums[i].n,
				       (unsigned long long)sums[i].bytes);
	return 0;
}

struct files {
	struct cfs_filetab *tab;
	struct cfs_buf *out;
};

static int put_file(void *arg, uint32_t file)
{
	struct files *files = arg;

	if (files->out->len > VALUE_MAX - 8192) {
		cfs_buf_put_str(files->out, "\n...");
		return 1;
	}
	cfs_buf_printf(files->out, "%s%s", files->out->len ? "\n" : "",
		       cfs_filetab_path(files->tab, file));
	return 0;
}

static int put_files(struct cfs_vnode *node, struct cfs_buf *out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct files files = {NULL, out};
	int r;

	r = cfs_vnode_map(node, &map, NULL);
	if (r < 0)
		return r;
	files.tab = cfs_map_filetab(map);
	r = cfs_map_each_file(map, put_file, &files);
	return r < 0 ? r : 0;
}

enum {
	ON_FILE = 1 << CFS_VNODE_FILE,
	ON_STEP = 1 << CFS_VNODE_STEP_VIEW,
	ON_RUN = 1 << CFS_VNODE_RUN_VIEW,
	ON_POINTER = 1 << CFS_VNODE_POINTER,
};

static const struct attribute {
	const char *name;
	unsigned kinds;
	int (*put)(struct cfs_vnode *node, struct cfs_buf *out);
} attributes[] = {
	{"user.ckptfs.view", ON_FILE | ON_STEP | ON_RUN | ON_POINTER, put_view},
	{"user.ckptfs.source", ON_FILE | ON_STEP | ON_RUN | ON_POINTER,
	 put_source},
	{"user.ckptfs.topology", ON_FILE | ON_STEP, put_shown},
	{"user.ckptfs.saved_topology", ON_FILE | ON_STEP, put_saved},
	{"user.ckptfs.segments", ON_FILE, put_segments},
	{"user.ckptfs.files", ON_FILE, put_files},
};

/* As the system calls do: @size 0 asks for the length. */
static ssize_t give(const void *data, size_t len, void *buf, size_t size)
{
	if (!size)
		return (ssize_t)len;
	if (len > size)
		return -ERANGE;
	memcpy(buf, data, len);
	return (ssize_t)len;
}

ssize_t cfs_vnode_getxattr(struct cfs_vnode *node, const char *name, void *buf,
			   size_t size)
{
	_cleanup_(cfs_buf_free) struct cfs_buf value = CFS_BUF_INIT;
	struct cfs_source *source = node->views->source;
	struct stat st;
	size_t i;
	int r;

	if (node->kind == CFS_VNODE_SOURCE) {
		r = cfs_vnode_check(node, &st);
		return r < 0 ? r
			     : source->ops->getxattr(source, node->path, name,
						     buf, size);
	}
	for (i = 0; i < CFS_ARRAY_SIZE(attributes); i++)
		if (!strcmp(attributes[i].name, name) &&
		    attributes[i].kinds & 1u << node->kind)
			break;
	if (i == CFS_ARRAY_SIZE(attributes))
		return -ENODATA;
	r = attributes[i].put(node, &value);
	if (r < 0)
		return r;
	if (value.failed)
		return -ENOMEM;
	return give(value.data, value.len, buf, size);
}

ssize_t cfs_vnode_listxattr(struct cfs_vnode *node, char *buf, size_t size)
{
	_cleanup_(cfs_buf_free) struct cfs_buf names = CFS_BUF_INIT;
	struct cfs_source *source = node->views->source;
	struct stat st;
	size_t i;
	int r;

	if (node->kind == CFS_VNODE_SOURCE) {
		r = cfs_vnode_check(node, &st);
		return r < 0 ? r
			     : source->ops->listxattr(source, node->path, buf,
						      size);
	}
	for (i = 0; i < CFS_ARRAY_SIZE(attributes); i++)
		if (attributes[i].kinds & 1u << node->kind)
			cfs_buf_put(&names, attributes[i].name,
				    strlen(attributes[i].name) + 1);
	if (names.failed)
		return -ENOMEM;
	return give(names.data, names.len, buf, size);
}
