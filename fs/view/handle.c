/* Open files: a source's file, a map's reader, or a pointer's text. */
#include "fs/view/internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/format/format.h"
#include "store/util/error.h"

/* Exactly one of the three is set. */
struct cfs_vhandle {
	struct cfs_file *file; /* of the pool: refuses once it has changed */
	struct cfs_reader *reader;
	char *text;
};

#define YOUNG_NS INT64_C(3000000000)

/*
 * A file that changed just now could change again within one tick of the
 * clock and keep its times: waits until that is over, then looks again.
 */
static int settle(struct cfs_vnode *node)
{
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	struct cfs_source *source = node->views->source;
	struct cfs_version now;
	struct timespec ts;
	int r;

	clock_gettime(CLOCK_REALTIME, &ts);
	if ((int64_t)ts.tv_sec * 1000000000 - node->version.ctime_ns > YOUNG_NS)
		return 0;
	r = source->ops->open(source, node->path, &file);
	if (!r)
		r = cfs_file_settle(file, &now);
	if (r < 0)
		return r;
	return cfs_version_equal(&now, &node->version) ? 0 : -ESTALE;
}

static int open_source(struct cfs_vnode *node, struct cfs_vhandle *handle,
		       struct cfs_error *err)
{
	int r;

	if (S_ISDIR(node->st.st_mode))
		return -EISDIR;
	if (!S_ISREG(node->st.st_mode))
		return -EINVAL;
	r = settle(node);
	if (r < 0)
		return r;
	return cfs_filepool_get(node->views->pool, node->path, &node->version,
				&handle->file, err);
}

static int open_made(struct cfs_vnode *node, struct cfs_vhandle *handle,
		     struct cfs_error *err)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_views *views = node->views;
	int r;

	r = cfs_vnode_map(node, &map, err);
	if (!r)
		r = cfs_reader_open(map, views->pool, views->cache,
				    &handle->reader, err);
	/* The next look-up is to see what is there now. */
	if (r == -ESTALE || r == -ENOENT)
		cfs_plans_suspect(views->plans, node->path);
	return r;
}

int cfs_vnode_open(struct cfs_vnode *node, struct cfs_vhandle **out,
		   struct cfs_error *err)
{
	_cleanup_(cfs_vhandle_closep) struct cfs_vhandle *handle =
		calloc(1, sizeof(*handle));
	int r;

	if (!handle)
		return -ENOMEM;
	switch (node->kind) {
	case CFS_VNODE_SOURCE:
		r = open_source(node, handle, err);
		break;
	case CFS_VNODE_FILE:
		r = open_made(node, handle, err);
		break;
	case CFS_VNODE_POINTER:
		handle->text = strdup(node->text);
		r = handle->text ? 0 : -ENOMEM;
		break;
	default:
		r = -EISDIR;
	}
	if (r < 0)
		return r;
	*out = cfs_steal(handle);
	return 0;
}

static ssize_t read_text(const char *text, void *buf, size_t len, uint64_t off)
{
	size_t size = strlen(text);

	if (off >= size)
		return 0;
	len = CFS_MIN(len, size - (size_t)off);
	memcpy(buf, text + off, len);
	return (ssize_t)len;
}

/* Until @len or the end: a source may give less at a time. */
static ssize_t read_file(struct cfs_file *file, uint8_t *buf, size_t len,
			 uint64_t off)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = file->ops->pread(file, buf + done, len - done, off + done);
		if (n < 0)
			return n;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t cfs_vhandle_pread(struct cfs_vhandle *handle, void *buf, size_t len,
			  uint64_t off)
{
	if (handle->reader)
		return cfs_reader_pread(handle->reader, buf, len, off);
	if (handle->file)
		return read_file(handle->file, buf, len, off);
	return read_text(handle->text, buf, len, off);
}

void cfs_vhandle_close(struct cfs_vhandle *handle)
{
	if (!handle)
		return;
	cfs_file_close(handle->file); /* gives it back to the pool */
	cfs_reader_close(handle->reader);
	free(handle->text);
	free(handle);
}

void cfs_vhandle_closep(struct cfs_vhandle **handle)
{
	cfs_vhandle_close(*handle);
}
