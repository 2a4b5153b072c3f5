/* gc, scrub and fsck: the store's own jobs, with their findings told. */
#include <errno.h>
#include <string.h>

#include "fs/daemon/derive.h"
#include "fs/daemon/verb.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

static bool on_progress(void *arg, uint64_t done, uint64_t total,
			const char *what)
{
	return cfs_verb_progress(arg, done, total, what);
}

static void on_finding(void *arg, const char *text)
{
	cfs_verb_line(arg, "%s", text);
}

static struct cfs_job_control control_of(struct cfs_verb_reply *reply)
{
	return (struct cfs_job_control){on_progress, on_finding, reply};
}

static struct cfs_verb_reply copy_of(const struct cfs_verb_reply *reply)
{
	return reply ? *reply : (struct cfs_verb_reply){0};
}

/* What it cannot do leaves less to collect, no more. */
static int derive(struct cfs_verb_context *context,
		  const struct cfs_verb_reply *reply, cJSON *result)
{
	struct cfs_verb_reply quiet = *reply;
	struct cfs_error err = {""};
	struct cfs_derive_result d = {0};
	int r;

	quiet.line = NULL; /* of steps that cannot be read */
	r = cfs_derive_tree(context, "", NULL, NULL, &quiet, &d, &err);
	if (r == -ECANCELED)
		return r;
	if (r < 0)
		cfs_verb_line(reply, "weights were not derived: %s",
			      err.text[0] ? err.text : strerror(-r));
	cfs_verb_put_u64(result, "derived", d.derived);
	return 0;
}

static int gc(struct cfs_verb_context *context, const cJSON *arguments,
	      const struct cfs_verb_reply *reply, cJSON *result,
	      struct cfs_error *err)
{
	struct cfs_verb_reply copy = copy_of(reply);
	struct cfs_job_control control = control_of(&copy);
	struct cfs_gc_options options = {
		.dry_run = cfs_verb_flag(arguments, "dry_run"),
		.min_dead_percent = (unsigned)CFS_MIN(
			cfs_verb_u64(arguments, "min_dead_percent", 0), 100),
	};
	struct cfs_gc_result g = {0};
	int r = 0;

	if (!options.dry_run)
		r = derive(context, &copy, result);
	if (r < 0)
		return r;
	r = cfs_store_gc(cfs_ns_store(context->ns), &options, &control, &g,
			 err);
	if (r < 0)
		return r;
	cfs_verb_put_flag(result, "dry_run", options.dry_run);
	cfs_verb_put_u64(result, "packs_before", g.packs_before);
	cfs_verb_put_u64(result, "packs_removed", g.packs_removed);
	cfs_verb_put_u64(result, "packs_rewritten", g.packs_rewritten);
	cfs_verb_put_u64(result, "chunks_live", g.chunks_live);
	cfs_verb_put_u64(result, "chunks_dead", g.chunks_dead);
	cfs_verb_put_u64(result, "bytes_before", g.bytes_before);
	cfs_verb_put_u64(result, "bytes_freed", g.bytes_freed);
	cfs_verb_put_u64(result, "bytes_copied", g.bytes_copied);
	return 0;
}

static int scrub(struct cfs_verb_context *context, const cJSON *arguments,
		 const struct cfs_verb_reply *reply, cJSON *result,
		 struct cfs_error *err)
{
	struct cfs_verb_reply copy = copy_of(reply);
	struct cfs_job_control control = control_of(&copy);
	struct cfs_scrub_result s = {0};
	int r;

	(void)arguments;
	r = cfs_store_scrub(cfs_ns_store(context->ns), &control, &s, err);
	if (r < 0)
		return r;
	cfs_verb_put_u64(result, "chunks", s.chunks);
	cfs_verb_put_u64(result, "maps", s.maps);
	cfs_verb_put_u64(result, "bytes", s.bytes);
	cfs_verb_put_u64(result, "damaged", s.damaged);
	cfs_verb_put_u64(result, "missing", s.missing);
	cfs_verb_put_u64(result, "lost", s.lost);
	cfs_verb_put_u64(result, "files", s.files);
	return 0;
}

static int fsck(struct cfs_verb_context *context, const cJSON *arguments,
		const struct cfs_verb_reply *reply, cJSON *result,
		struct cfs_error *err)
{
	struct cfs_verb_reply copy = copy_of(reply);
	struct cfs_job_control control = control_of(&copy);
	struct cfs_fsck_result f = {0};
	int r = 0;

	if (cfs_verb_flag(arguments, "acknowledge")) {
		r = cfs_verb_may_change(context, "--acknowledge", err);
		if (r == 0)
			r = cfs_store_acknowledge(cfs_ns_store(context->ns));
	}
	if (r == 0)
		r = cfs_store_fsck(cfs_ns_store(context->ns), &control, &f,
				   err);
	if (r < 0)
		return r;
	cfs_verb_put_u64(result, "inodes", f.inodes);
	cfs_verb_put_u64(result, "dirents", f.dirents);
	cfs_verb_put_u64(result, "extents", f.extents);
	cfs_verb_put_u64(result, "maps", f.maps);
	cfs_verb_put_u64(result, "chunks", f.chunks);
	cfs_verb_put_u64(result, "problems", f.problems);
	cfs_verb_put_u64(result, "files", f.files);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_gc = {"gc", gc, true, true};
const struct cfs_daemon_verb cfs_daemon_verb_scrub = {"scrub", scrub, true,
						      false};
const struct cfs_daemon_verb cfs_daemon_verb_fsck = {"fsck", fsck, true, false};
