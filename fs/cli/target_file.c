/* Opens a file through the view layer and parses it where it lies. */
#include "fs/cli/target_file.h"

#include <errno.h>
#include <sys/stat.h>

#include "fs/cli/vsource.h"
#include "fs/container/torchfile.h"
#include "fs/view/view.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/map/source.h"
#include "store/util/error.h"

static int open_source(struct cfs_target_file *tf)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *root = NULL;

	root = cfs_views_root(tf->target.views);
	tf->vsource = cfs_vsource_new(root, tf->target.source);
	if (!tf->vsource)
		return -ENOMEM;
	tf->pool = cfs_filepool_new(tf->vsource);
	tf->tab = cfs_filetab_new();
	return tf->pool && tf->tab ? 0 : -ENOMEM;
}

static int parse(struct cfs_target_file *tf, struct cfs_error *err)
{
	struct cfs_version version;
	uint32_t index;
	int r;

	r = tf->vsource->ops->open(tf->vsource, tf->target.rel, &tf->file);
	if (r < 0)
		return r;
	r = cfs_file_settle(tf->file, &version);
	if (r < 0)
		return r;
	tf->size = version.size;
	r = cfs_filetab_add(tf->tab, tf->target.rel, &version, &index);
	if (r < 0)
		return r;
	return cfs_torchfile_read(tf->file, tf->size, tf->tab, index, NULL,
				  &tf->torch, err);
}

static int is_regular(struct cfs_vnode *node, struct cfs_error *err)
{
	struct stat st;
	int r;

	r = cfs_vnode_stat(node, &st, err);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode))
		return cfs_fail(err, -EISDIR, "is a directory");
	return 0;
}

int cfs_target_file_take(struct cfs_target *target, struct cfs_target_file *out,
			 struct cfs_error *err)
{
	struct cfs_target_file tf = {.target = *target};
	int r;

	*target = (struct cfs_target){0};
	r = is_regular(tf.target.node, err);
	if (r == 0)
		r = open_source(&tf);
	if (r == 0)
		r = parse(&tf, err);
	if (r < 0) {
		cfs_target_file_close(&tf);
		return r;
	}
	*out = tf;
	return 0;
}

void cfs_target_file_close(struct cfs_target_file *tf)
{
	cfs_torchfile_freep(&tf->torch);
	cfs_file_closep(&tf->file);
	cfs_filetab_unrefp(&tf->tab);
	cfs_filepool_freep(&tf->pool);
	cfs_source_freep(&tf->vsource);
	cfs_target_close(&tf->target);
	*tf = (struct cfs_target_file){0};
}
