/*
 * Opening a step: which one, whether this user may read it, its tensors as one
 * rank would have them.  All files that hold them are opened at once, so that
 * the step stays as it was however long it is read.
 */
#include <errno.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/rank/load.h"
#include "fs/view/view.h"
#include "store/ns/ns.h"
#include "store/util/path.h"

#define TRIES 3 /* of a step that is changed meanwhile */

static void drop_tensors(struct cfs_load *load)
{
	for (uint32_t i = 0; i < load->n_held; i++)
		cfs_filepool_put(load->whole->pool, load->held[i]);
	free(cfs_steal(load->held));
	load->n_held = 0;
	cfs_step_unrefp(&load->whole);
	load->whole = NULL;
}

void cfs_load_fini(struct cfs_load *load)
{
	drop_tensors(load);
	free(load->path);
	*load = (struct cfs_load){.id = 0};
}

static int may_read(struct cfs_conn *conn, const char *path, int want,
		    struct cfs_error *err)
{
	return cfs_access_check(conn->context->ns, path, &conn->user, want,
				err);
}

/* ---- which step ---- */

static int find_step(struct cfs_conn *conn, const char *asked, char **name_out,
		     struct cfs_error *err)
{
	const char *run = cfs_rank_job_run(conn->member.job);
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	char name[256];
	int r;

	r = may_read(conn, run, R_OK | X_OK, err);
	if (!r)
		r = cfs_views_at(conn->context->views, run, &node);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", *run ? run : "/");
	if (!*asked) {
		r = cfs_vnode_resume(node, name, err);
		if (r < 0)
			return r;
		if (!r)
			return cfs_fail(err, -ENOENT,
					"%s: no whole step to resume from",
					*run ? run : "/");
		asked = name;
	}
	*name_out = strdup(asked);
	return *name_out ? 0 : -ENOMEM;
}

/* ---- its tensors ---- */

/* A file that lies in the step itself; behind a link it may be anybody's. */
static int check_file(struct cfs_conn *conn, const char *path, uint64_t ino,
		      struct cfs_error *err)
{
	struct stat st = {.st_ino = 0};
	int r = may_read(conn, path, R_OK, err);

	if (!r)
		r = cfs_ns_walk(conn->context->ns, path, &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_ino != ino)
		return cfs_fail(err, -ENOTSUP,
				"%s: no file of its own, or replaced meanwhile",
				path);
	return 0;
}

static int hold_files(struct cfs_conn *conn, struct cfs_load *load,
		      struct cfs_error *err)
{
	const struct cfs_filetab *files = load->whole->files;
	uint32_t n = cfs_filetab_count(files);

	load->held = calloc((size_t)n + 1, sizeof(*load->held));
	if (!load->held)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const struct cfs_version *v = cfs_filetab_version(files, i);
		const char *path = cfs_filetab_path(files, i);
		int r = check_file(conn, path, v->ino, err);

		if (!r)
			r = cfs_filepool_get(load->whole->pool, path, v,
					     &load->held[load->n_held], err);
		if (r < 0)
			return r;
		load->n_held++;
	}
	return 0;
}

static int read_tensors(struct cfs_conn *conn, struct cfs_load *load,
			struct cfs_vnode *node, struct cfs_error *err)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	int r = cfs_vnode_step(node, &step, err);

	if (!r)
		r = step->format->whole
			    ? step->format->whole(step, &load->whole, err)
			    : 0;
	if (r < 0)
		return r;
	if (!load->whole)
		load->whole = cfs_step_ref(step);
	return hold_files(conn, load, err);
}

/* Of what is no checkpoint, or none that can be told for certain, files can
 * still be read. */
static int try_tensors(struct cfs_conn *conn, struct cfs_load *load,
		       struct cfs_vnode *node, struct cfs_error *err)
{
	int r = read_tensors(conn, load, node, err);

	for (int i = 1; i < TRIES && r == -ESTALE; i++) {
		drop_tensors(load);
		cfs_vnode_suspect(node);
		r = read_tensors(conn, load, node, err);
	}
	if (r == -EINVAL)
		r = -ENOTSUP;
	if (r != -ENOTSUP && r != -EBADMSG && r != -ENOENT)
		return r;
	if (!err->text[0])
		(void)cfs_fail_prefix(err, r, "%s", load->path);
	load->tensors_r = r;
	load->tensors_err = *err;
	return 0;
}

int cfs_load_open(struct cfs_conn *conn, const char *asked,
		  struct cfs_load *load, char **name_out, struct cfs_error *err)
{
	const char *run = cfs_rank_job_run(conn->member.job);
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	_cleanup_(cfs_freep) char *name = NULL;
	struct stat st = {.st_ino = 0};
	int r;

	r = find_step(conn, asked, &name, err);
	if (r < 0)
		return r;
	load->path = cfs_path_join(run, name);
	if (!load->path)
		return -ENOMEM;
	r = may_read(conn, load->path, R_OK | X_OK, err);
	if (!r)
		r = cfs_ns_walk(conn->context->ns, load->path, &st);
	if (!r)
		r = cfs_views_at(conn->context->views, load->path, &node);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", load->path);
	load->ino = st.st_ino;
	r = try_tensors(conn, load, node, err);
	if (!r)
		*name_out = cfs_steal(name);
	return r;
}

/* ---- its files ---- */

int cfs_load_file(struct cfs_conn *conn, const struct cfs_load *load,
		  const char *name, struct cfs_load_handle *handle,
		  struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(load->path, name);
	struct cfs_source *source = cfs_views_source(conn->context->views);
	struct stat st = {.st_ino = 0};
	int r = path ? cfs_ns_walk(conn->context->ns, load->path, &st)
		     : -ENOMEM;

	if (r < 0 || st.st_ino != load->ino)
		return r == -ENOMEM ? r
				    : cfs_fail(err, -ESTALE,
					       "%s: the step was removed or "
					       "replaced since it was opened",
					       load->path);
	r = source->ops->open(source, path, &handle->file);
	if (!r)
		r = handle->file->ops->stat(handle->file, &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	handle->size = (uint64_t)st.st_size;
	return check_file(conn, path, st.st_ino, err);
}
