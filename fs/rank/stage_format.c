/*
 * The files that a format makes of what was put.  "deepspeed" goes by way of a
 * universal checkpoint in the stage's directory: its reader and its writer are
 * those that views use.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/format/format.h"
#include "fs/format/step_name.h"
#include "fs/rank/stage_internal.h"
#include "store/ns/ns.h"
#include "store/util/error.h"
#include "store/util/parallel.h"

#define IDLE_MAX 16

/* Files are made by several threads, each with one of these. */
struct target {
	struct cfs_stage *stage;
	struct cfs_assemble *to; /* one like these makes all */
	pthread_mutex_t lock;
	struct cfs_assemble *idle[IDLE_MAX]; /* guarded by lock */
	unsigned n_idle;		     /* guarded by lock */
};

static void target_init(struct target *t, struct cfs_stage *stage,
			struct cfs_assemble *to)
{
	*t = (struct target){.stage = stage, .to = to};
	(void)pthread_mutex_init(&t->lock, NULL);
}

static void target_fini(struct target *t)
{
	while (t->n_idle)
		cfs_assemble_free(t->idle[--t->n_idle]);
	(void)pthread_mutex_destroy(&t->lock);
}

static int take(struct target *t, struct cfs_assemble **out)
{
	*out = NULL;
	(void)pthread_mutex_lock(&t->lock);
	if (t->n_idle)
		*out = t->idle[--t->n_idle];
	(void)pthread_mutex_unlock(&t->lock);
	return *out ? 0 : cfs_assemble_like(t->to, out);
}

static void give(struct target *t, struct cfs_assemble *a)
{
	(void)pthread_mutex_lock(&t->lock);
	if (t->n_idle < IDLE_MAX)
		t->idle[t->n_idle++] = cfs_steal(a);
	(void)pthread_mutex_unlock(&t->lock);
	cfs_assemble_free(a);
}

/* One file; where a rank wrote that one itself, it is named.  Any thread. */
static int make_file(void *arg, const char *name, struct cfs_map *map,
		     struct cfs_error *err)
{
	struct target *t = arg;
	const struct cfs_stage_name *n;
	struct cfs_assemble *a;
	int r = take(t, &a);

	if (r < 0)
		return r;
	r = cfs_assemble_map(a, name, map, err);
	give(t, a);
	if (r != -EEXIST)
		return r;
	n = cfs_stage_names_find(&t->stage->names, CFS_STAGE_FILE, name);
	return n ? cfs_fail(err, r,
			    "%s: rank %u wrote it, and the format %s makes it, "
			    "too",
			    name, n->rank, t->stage->options.format)
		 : r;
}

/* ---- what was put ---- */

struct gathered {
	struct cfs_puts puts;
	const struct cfs_put **list;
	struct cfs_put_object *objects;
};

static void gathered_fini(struct gathered *g)
{
	cfs_filetab_unref(g->puts.files);
	free(g->list);
	free(g->objects);
}

/* A row of the file table for what rank @rank put. */
static int add_part(struct cfs_stage *stage, uint32_t rank,
		    struct cfs_filetab *tab, uint32_t *row_out)
{
	struct cfs_version version;
	char path[160];
	struct stat st;
	int r = cfs_ns_getattr(stage->context->ns, stage->parts[rank].ino, &st);

	if (r < 0)
		return r;
	cfs_version_of(&st, &version);
	(void)snprintf(path, sizeof(path), "%s/%s/part-%u", CFS_NSTREE_TRASH,
		       stage->hidden, rank);
	return cfs_filetab_add(tab, path, &version, row_out);
}

/* All puts in the order of ranks; the parts keep them. */
static int gather_puts(struct cfs_stage *stage, struct gathered *g)
{
	size_t n = 0;

	for (uint32_t i = 0; i < stage->options.n_ranks; i++)
		n += stage->parts[i].n_puts;
	g->list = calloc(n + 1, sizeof(*g->list));
	if (!g->list)
		return -ENOMEM;
	for (uint32_t i = 0; i < stage->options.n_ranks; i++) {
		struct cfs_stage_part *part = &stage->parts[i];
		uint32_t row;
		int r;

		if (!part->n_puts)
			continue;
		r = add_part(stage, i, g->puts.files, &row);
		if (r < 0)
			return r;
		for (size_t k = 0; k < part->n_puts; k++) {
			part->puts[k].file = row;
			g->list[g->puts.n_puts++] = &part->puts[k];
		}
	}
	g->puts.puts = g->list;
	return 0;
}

static int gather(struct cfs_stage *stage, struct gathered *g)
{
	g->puts.step = cfs_step_number(stage->options.step);
	g->puts.dp = stage->options.dp;
	g->puts.zero_stage = stage->options.zero_stage;
	g->puts.files = cfs_filetab_new();
	g->objects = calloc(stage->n_objects + 1, sizeof(*g->objects));
	if (!g->puts.files || !g->objects)
		return -ENOMEM;
	for (size_t i = 0; i < stage->n_objects; i++)
		g->objects[i] = (struct cfs_put_object){
			.name = stage->objects[i].name,
			.data = stage->objects[i].data,
			.len = stage->objects[i].len,
		};
	g->puts.objects = g->objects;
	g->puts.n_objects = stage->n_objects;
	return gather_puts(stage, g);
}

/* ---- by way of a universal checkpoint ---- */

struct reading {
	struct cfs_source *source;
	struct cfs_filepool *pool;
	struct cfs_step *step;
	struct cfs_tree *tree;
};

static void reading_fini(struct reading *rd)
{
	cfs_tree_unref(rd->tree);
	cfs_step_unref(rd->step);
	cfs_filepool_free(rd->pool);
	cfs_source_free(rd->source);
}

static int make_universal(struct cfs_stage *stage, const struct cfs_puts *puts,
			  struct cfs_error *err)
{
	struct cfs_assemble_owner owner = {geteuid(), getegid(), 077};
	struct cfs_ns_cred cred = {owner.uid, owner.gid};
	_cleanup_(cfs_assemble_freep) struct cfs_assemble *to = NULL;
	struct target t;
	struct stat st;
	int r = cfs_ns_mkdir(stage->context->ns, &cred, stage->dir, "universal",
			     0700, &st);

	if (r < 0)
		return r;
	cfs_ns_forget(stage->context->ns, st.st_ino, 1);
	r = cfs_assemble_new(stage->context->ns, st.st_ino, &owner, &to);
	if (r < 0)
		return r;
	target_init(&t, stage, to);
	r = cfs_puts_universal(puts, make_file, &t, err);
	target_fini(&t);
	return r;
}

static int read_universal(struct cfs_stage *stage, struct reading *rd,
			  struct cfs_error *err)
{
	char path[160];
	int r = cfs_source_ns_open(stage->context->ns, &rd->source);

	if (r < 0)
		return r;
	rd->pool = cfs_filepool_new(rd->source);
	if (!rd->pool)
		return -ENOMEM;
	(void)snprintf(path, sizeof(path), "%s/%s/universal", CFS_NSTREE_TRASH,
		       stage->hidden);
	return cfs_format_universal.read(rd->source, rd->pool, path, &rd->step,
					 err);
}

static int plan_deepspeed(struct cfs_stage *stage, struct reading *rd,
			  struct cfs_error *err)
{
	const struct cfs_stage_options *o = &stage->options;
	struct cfs_request request = CFS_REQUEST_INIT;
	struct cfs_resolved resolved;
	int r;

	request.dp = o->dp;
	request.tp = o->tp;
	/* one stage of a pipeline is none: the layers in sequence */
	request.pp = o->pp > 1 ? (int)o->pp : 0;
	request.zero_stage = o->zero_stage;
	r = rd->step->format->resolve(rd->step, &request, &resolved, err);
	if (r < 0)
		return r;
	return rd->step->format->write(rd->step, &resolved, &rd->tree, err);
}

struct making {
	struct cfs_tree *tree;
	struct target *target;
};

/* Any thread. */
static int make_row(void *arg, uint32_t i, struct cfs_error *err)
{
	const struct making *m = arg;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	int r = cfs_tree_map(m->tree, i, &map, err);

	return r < 0 ? r
		     : make_file(m->target, m->tree->files[i].name, map, err);
}

static int make_deepspeed(struct cfs_stage *stage, const struct cfs_puts *puts,
			  struct target *t, struct cfs_error *err)
{
	_cleanup_(reading_fini) struct reading rd = {0};
	struct making m = {.target = t};
	int r = make_universal(stage, puts, err);

	if (r == 0)
		r = read_universal(stage, &rd, err);
	if (r == 0)
		r = plan_deepspeed(stage, &rd, err);
	m.tree = rd.tree;
	return r ? r : cfs_parallel(rd.tree->n_files, make_row, &m, err);
}

static int make_of_puts(struct cfs_stage *stage, const struct cfs_puts *puts,
			struct target *t, struct cfs_error *err)
{
	const char *format = stage->options.format;

	if (!strcmp(format, "universal"))
		return cfs_puts_universal(puts, make_file, t, err);
	if (!strcmp(format, "deepspeed"))
		return make_deepspeed(stage, puts, t, err);
	return cfs_puts_safetensors(puts, make_file, t, err);
}

int cfs_stage_format(struct cfs_stage *stage, struct cfs_error *err)
{
	_cleanup_(gathered_fini) struct gathered g = {0};
	struct target t;
	int r;

	if (!strcmp(stage->options.format, "files"))
		return 0;
	r = gather(stage, &g);
	if (r < 0)
		return r;
	target_init(&t, stage, stage->files);
	r = make_of_puts(stage, &g.puts, &t, err);
	target_fini(&t);
	return r;
}
