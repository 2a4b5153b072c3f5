/*
 * `latest` in a run's view.  Trainers write it before the other ranks have
 * finished, so the step it names is shown only if it is whole; else the newest
 * whole step before it.
 */
#include "fs/view/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/format.h"
#include "fs/format/step_name.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/hash.h"
#include "store/util/log.h"
#include "store/util/path.h"

#define POINTER_MAX 4096

/* 1 whole, 0 not, or an errno that says the run cannot be read. */
static int is_whole(struct cfs_vnode *run, const char *step,
		    struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run->path, step);
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_notes_complete(run->views, path, err);
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	return r;
}

struct candidates {
	struct cfs_vnode *run;
	const char *like; /* NULL: steps of any kind */
	int64_t below;
	char best[256];
	int64_t best_number; /* -1: none yet */
};

static int keep_best(void *arg, const char *name, const struct stat *st)
{
	struct candidates *c = arg;
	int64_t n = cfs_step_number(name);

	if (S_ISDIR(st->st_mode) && n >= 0 && n < c->below &&
	    n > c->best_number && strlen(name) < sizeof(c->best) &&
	    (!c->like || cfs_step_is_like(name, c->like))) {
		c->best_number = n;
		strcpy(c->best, name);
	}
	return 0;
}

/* 1 with the name in @c->best, 0 when no step below that number is whole. */
static int newest_whole(struct candidates *c, int64_t below)
{
	struct cfs_source *source = c->run->views->source;
	int r;

	c->below = below;
	if (c->below < 0)
		return 0;
	for (;;) {
		c->best_number = -1;
		r = source->ops->readdir(source, c->run->path, keep_best, c);
		if (r < 0)
			return r;
		if (c->best_number < 0)
			return 0;
		r = is_whole(c->run, c->best, NULL);
		if (r)
			return r;
		c->below = c->best_number;
	}
}

static void note_replaced(struct cfs_vnode *run, const char *target,
			  const char *shown, const struct cfs_error *why)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;

	cfs_buf_printf(&text,
		       "names %s, which is not whole (%s); views show %s",
		       target, why->text[0] ? why->text : "not there", shown);
	cfs_notes_say(run->views->notes, *run->path ? run->path : CFS_POINTER,
		      cfs_buf_str(&text));
}

/* Replaces @text, the pointer as it is, where it names what is not whole. */
static int settle(struct cfs_vnode *run, struct cfs_buf *text)
{
	struct candidates c = {.run = run};
	struct cfs_error why = {.text = ""};
	char target[256];
	int r;

	if (!cfs_step_pointed(text->data, text->len, target))
		return 0;
	r = is_whole(run, target, &why);
	if (r)
		return r < 0 ? r : 0;
	c.like = target;
	r = newest_whole(&c, cfs_step_number(target));
	if (r <= 0)
		return r;
	note_replaced(run, target, c.best, &why);
	cfs_buf_reset(text);
	cfs_buf_put_str(text, c.best);
	return text->failed ? -ENOMEM : 0;
}

static struct cfs_vnode *new_pointer(struct cfs_vnode *dir, const char *text,
				     const struct stat *st)
{
	struct cfs_vnode *node =
		cfs_vnode_new(dir->views, CFS_VNODE_POINTER, dir->path);
	uint64_t key[4] = {dir->ino, st->st_ino, (uint64_t)st->st_mtim.tv_sec,
			   (uint64_t)st->st_mtim.tv_nsec};

	if (!node)
		return NULL;
	memcpy(node->view, dir->view, sizeof(node->view));
	node->text = strdup(text);
	if (!node->text) {
		cfs_vnode_unref(node);
		return NULL;
	}
	/* The text is part of the number: what was read stays true of it. */
	node->ino = cfs_vnode_made_ino(cfs_hash64(key, sizeof(key), 0), text);
	node->st = *st;
	node->st.st_ino = node->ino;
	node->st.st_mode = S_IFREG | (st->st_mode & 0444);
	if (S_ISREG(st->st_mode) && dir->views->writable) {
		node->src_ino = st->st_ino; /* writing to it changes that */
		node->st.st_mode = st->st_mode;
	}
	node->st.st_nlink = 1;
	node->st.st_size = (off_t)strlen(text);
	node->st.st_blocks = 1;
	return node;
}

/* What the file @name of the run says, settled. */
static int read_pointer(struct cfs_vnode *run, const char *name,
			const struct stat *st, struct cfs_vnode **out,
			struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run->path, name);
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	struct cfs_vnode *node;
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_source_read_small(run->views->source, path, POINTER_MAX, &text);
	if (r == -EFBIG) /* no pointer; show it as it is */
		return cfs_vnode_new_source(run->views, path, st, run->salt,
					    out);
	if (!r)
		r = settle(run, &text);
	if (r < 0) {
		(void)cfs_fail_prefix(err, r, "%s", path);
		return r;
	}
	node = new_pointer(run, cfs_buf_str(&text), st);
	if (!node)
		return -ENOMEM;
	*out = node;
	return 0;
}

int cfs_pointer_lookup(struct cfs_vnode *run, const struct stat *st,
		       struct cfs_vnode **out, struct cfs_error *err)
{
	return read_pointer(run, CFS_POINTER, st, out, err);
}

bool cfs_pointer_is_universal(const struct cfs_vnode *dir, const char *name)
{
	return dir->request.universal > 0 &&
	       !strcmp(name, CFS_POINTER_UNIVERSAL);
}

int cfs_pointer_other(struct cfs_vnode *run, const char *name,
		      struct cfs_vnode **out, struct cfs_error *err)
{
	const char *file =
		strcmp(name, CFS_POINTER) ? CFS_POINTER : CFS_POINTER_UNIVERSAL;
	_cleanup_(cfs_freep) char *path = cfs_path_join(run->path, file);
	struct cfs_source *source = run->views->source;
	struct cfs_vnode *node = NULL;
	struct stat st;
	int r = path ? source->ops->stat(source, path, &st) : -ENOMEM;

	if (!r && !S_ISREG(st.st_mode))
		r = -ENOENT;
	if (!r)
		r = read_pointer(run, file, &st, &node, err);
	if (r)
		return r;
	if (node->kind == CFS_VNODE_POINTER) {
		node->ino = cfs_vnode_made_ino(node->ino, name);
		node->st.st_ino = node->ino;
		node->st.st_mode &= ~(mode_t)0222;
		node->src_ino = 0;
	}
	*out = node;
	return 0;
}

int cfs_pointer_step(struct cfs_vnode *run, char name[256],
		     struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run->path, CFS_POINTER);
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	struct candidates c = {.run = run};
	char target[256];
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_source_read_small(run->views->source, path, POINTER_MAX, &text);
	if (!r)
		r = settle(run, &text);
	if (!r && cfs_step_pointed(text.data, text.len, target)) {
		r = is_whole(run, target, err);
		if (r > 0)
			strcpy(name, target);
		if (r)
			return r;
	}
	r = newest_whole(&c, INT64_MAX);
	if (r > 0)
		strcpy(name, c.best);
	return r;
}

static int any_name(void *arg, const char *name, const struct stat *st)
{
	(void)arg;
	(void)name;
	(void)st;
	return 1;
}

/* What the pointer names, if it is there and of no known format; else 0. */
static int named_unknown(struct cfs_vnode *run, char name[256])
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run->path, CFS_POINTER);
	_cleanup_(cfs_freep) char *step = NULL;
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	struct cfs_source *source = run->views->source;
	const struct cfs_format *format;
	int r;

	if (!path)
		return -ENOMEM;
	if (cfs_source_read_small(source, path, POINTER_MAX, &text) < 0 ||
	    !cfs_step_pointed(text.data, text.len, name))
		return 0;
	step = cfs_path_join(run->path, name);
	if (!step)
		return -ENOMEM;
	r = cfs_format_probe(source, step, &format);
	if (r != -ENOENT)
		return 0;
	/* one that was only just made is not a step yet */
	return source->ops->readdir(source, step, any_name, NULL) > 0;
}

int cfs_vnode_resume(struct cfs_vnode *run, char name[256],
		     struct cfs_error *err)
{
	int r = named_unknown(run, name);

	return r ? r : cfs_pointer_step(run, name, err);
}

int cfs_pointer_inside(struct cfs_vnode *step, struct cfs_vnode **out)
{
	struct stat st;
	int r;

	r = cfs_vnode_check(step, &st);
	if (r < 0)
		return r;
	*out = new_pointer(step, ".", &st);
	return *out ? 0 : -ENOMEM;
}
