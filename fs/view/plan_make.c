/* Reading a step, and making the tree that a request asks of it. */
#include "fs/view/plan_make.h"

#include <errno.h>
#include <string.h>

#include "fs/format/options.h"
#include "fs/view/internal.h"
#include "store/util/hash.h"
#include "store/util/log.h"

/* ---- steps ---- */

struct names {
	const struct cfs_format *format;
	uint64_t hash;
};

static int add_name(void *arg, const char *name, const struct stat *st)
{
	struct names *names = arg;

	(void)st;
	if (names->format->owns(name) ||
	    (names->format->looks_for && names->format->looks_for(name)))
		names->hash += cfs_hash64(name, strlen(name), 1);
	return 0;
}

/* A sum, so that the order of names does not matter. */
int cfs_plan_names(struct cfs_source *source, const char *path,
		   const struct cfs_format *format, uint64_t *out)
{
	struct names names = {format, 0};
	int r;

	r = source->ops->readdir(source, path, add_name, &names);
	if (r < 0)
		return r;
	*out = names.hash;
	return 0;
}

void cfs_plan_read_step(const struct cfs_views *views, const char *path,
			struct cfs_plan_read *out)
{
	const struct cfs_format *format;

	*out = (struct cfs_plan_read){.r = 0};
	out->r = cfs_format_probe(views->source, path, &format);
	/* One that may not be listed is shown as it is: as unreadable. */
	if (out->r == -ENOENT || out->r == -ENOTDIR || out->r == -EACCES)
		out->r = 1;
	if (out->r)
		return;
	out->r = cfs_plan_names(views->source, path, format, &out->names);
	if (out->r < 0)
		return;
	out->r = format->read(views->source, views->pool, path, &out->step,
			      &out->why);
}

/* ---- trees ---- */

/* A template's files, filled: 1, or 0 where none is asked for. */
static int fill_template(const struct cfs_views *views, struct cfs_step *step,
			 const struct cfs_request *request,
			 struct cfs_plan_made *out)
{
	struct cfs_error *err = &out->why;
	_cleanup_(cfs_options_fini) struct cfs_options options = {.old = -1};
	_cleanup_(cfs_freep) char *path = NULL;
	int r;

	r = request->options
		    ? cfs_options_parse(request->options, &options, err)
		    : 0;
	if (r < 0 || !options.like)
		return r;
	out->like = true;
	r = cfs_outside_path(options.like, views->source_path, views->real_path,
			     &path);
	if (r < 0)
		return r;
	if (!step->format->fill)
		return cfs_fail(err, -ENOTSUP,
				"%s checkpoints fill no templates",
				step->format->name);
	r = step->format->fill(step, views->outside, views->pool, path, request,
			       &out->tree, err);
	if (r < 0)
		return r;
	if (out->tree->step->note)
		cfs_log(CFS_LOG_WARN, "%s with the template %s: %s", step->path,
			options.like, out->tree->step->note);
	return 1;
}

static int make_tree(const struct cfs_views *views, struct cfs_step *step,
		     const struct cfs_request *request,
		     struct cfs_plan_made *out)
{
	struct cfs_error *err = &out->why;
	struct cfs_resolved target;
	int r = fill_template(views, step, request, out);

	if (r > 0)
		out->tree->crc_full = views->crc_full;
	if (r)
		return CFS_MIN(r, 0);
	r = step->format->resolve(step, request, &target, err);
	if (r < 0)
		return r;
	if (!target.options &&
	    cfs_topology_equal(&target.topology, &step->topology))
		return 0; /* shown as it is */
	r = step->format->write(step, &target, &out->tree, err);
	if (r < 0)
		return r;
	out->tree->crc_full = views->crc_full;
	return 0;
}

void cfs_plan_make_tree(const struct cfs_views *views, struct cfs_step *step,
			const struct cfs_request *request,
			struct cfs_plan_made *out)
{
	out->r = make_tree(views, step, request, out);
}

struct cfs_tree *cfs_plan_tree(const struct cfs_plan_made *made)
{
	return made->tree ? cfs_tree_ref(made->tree) : NULL;
}
