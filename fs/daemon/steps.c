/* Steps, whole or not, by asking the formats. */
#include "fs/daemon/steps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/layouts.h"
#include "fs/format/format.h"
#include "fs/format/step_name.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/path.h"

#define UNIVERSAL_WORD "_universal"

void cfs_steps_free(struct cfs_steps *steps)
{
	size_t i;

	for (i = 0; i < steps->n; i++)
		free(steps->list[i].name);
	free(steps->list);
	*steps = (struct cfs_steps){0};
}

/* ---- listing ---- */

struct names {
	size_t n, cap;
	char **list;
};

static void names_free(struct names *names)
{
	size_t i;

	for (i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
}

static int keep_dir(void *arg, const char *name, const struct stat *st)
{
	struct names *names = arg;

	if (!S_ISDIR(st->st_mode))
		return 0;
	if (!CFS_GROW(names->list, names->n, names->cap))
		return -ENOMEM;
	names->list[names->n] = strdup(name);
	return names->list[names->n++] ? 0 : -ENOMEM;
}

struct newest {
	struct cfs_source *source;
	const char *dir;
	int64_t mtime_ns;
};

static int64_t mtime_of(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int keep_newest(void *arg, const char *name, const struct stat *type)
{
	struct newest *n = arg;
	_cleanup_(cfs_freep) char *path = cfs_path_join(n->dir, name);
	struct stat st;

	(void)type;
	if (!path)
		return -ENOMEM;
	if (n->source->ops->stat(n->source, path, &st) == 0)
		n->mtime_ns = CFS_MAX(n->mtime_ns, mtime_of(&st));
	return 0;
}

/* Whole, and the step of a format in it, too? */
static int look(struct cfs_source *source, const char *run, const char *name,
		struct cfs_layout_facts *facts)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run, name);
	struct cfs_error why = {""};
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_layout_look(source, run, name, facts);
	if (r <= 0 || !facts->whole || !facts->inner[0])
		return r;
	r = cfs_steps_is_whole(source, path, facts->inner, &why);
	facts->whole = r > 0;
	if (!r)
		snprintf(facts->why, sizeof(facts->why), "%.159s", why.text);
	return r < 0 ? r : 1;
}

/* 1: it is a step. */
static int judge(struct cfs_source *source, const char *run, const char *name,
		 struct cfs_steps_item *item)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run, name);
	const struct cfs_format *format;
	struct cfs_layout_facts facts = {0};
	struct cfs_error why = {""};
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_format_probe(source, path, &format);
	if (!r) {
		r = format->complete(source, path, &why);
		item->format = format;
		item->whole = r > 0;
		snprintf(item->why, sizeof(item->why), "%.159s", why.text);
		return r < 0 ? r : 1;
	}
	if (r == -ENOENT)
		r = look(source, run, name, &facts);
	if (r <= 0)
		return r;
	item->whole = facts.whole;
	item->order_ns = facts.order_ns;
	memcpy(item->why, facts.why, sizeof(item->why));
	return 1;
}

static int find_newest(struct cfs_source *source, const char *run,
		       const char *name, struct cfs_steps_item *item)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run, name);
	struct newest newest = {source, path, 0};
	struct stat st;
	int r;

	if (!path)
		return -ENOMEM;
	r = source->ops->stat(source, path, &st);
	if (r < 0)
		return r;
	item->ino = st.st_ino;
	newest.mtime_ns = mtime_of(&st);
	r = source->ops->readdir(source, path, keep_newest, &newest);
	item->mtime_ns = newest.mtime_ns;
	return r;
}

static int add_step(struct cfs_source *source, const char *run, char *name,
		    struct cfs_steps *out)
{
	struct cfs_steps_item item = {.number = cfs_step_number(name)};
	int r;

	r = judge(source, run, name, &item);
	if (r > 0)
		r = find_newest(source, run, name, &item);
	else if (!r)
		return 0;
	if (r < 0) /* gone since it was listed */
		return r == -ENOENT ? 0 : r;
	if (!CFS_GROW(out->list, out->n, out->cap))
		return -ENOMEM;
	item.name = strdup(name);
	if (!item.name)
		return -ENOMEM;
	out->list[out->n++] = item;
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const struct cfs_steps_item *x = a, *y = b;

	if (x->order_ns != y->order_ns)
		return x->order_ns < y->order_ns ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return strcmp(x->name, y->name);
}

int cfs_steps_list(struct cfs_source *source, const char *run,
		   struct cfs_steps *out)
{
	_cleanup_(names_free) struct names names = {0};
	size_t i;
	int r;

	r = source->ops->readdir(source, run, keep_dir, &names);
	for (i = 0; !r && i < names.n; i++)
		r = add_step(source, run, names.list[i], out);
	if (r) {
		cfs_steps_free(out);
		return r;
	}
	if (out->n)
		qsort(out->list, out->n, sizeof(*out->list), by_number);
	return 0;
}

/* ---- pointers ---- */

static int read_pointer(struct cfs_source *source, const char *run,
			const char *file, char name_out[256])
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run, file);
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_source_read_small(source, path, 4096, &text);
	if (r == -EISDIR || r == -EFBIG || r == -EINVAL)
		return 0;
	if (r < 0)
		return r;
	return cfs_step_pointed(text.data, text.len, name_out);
}

int cfs_steps_pointer(struct cfs_source *source, const char *run,
		      char name_out[256])
{
	int r = read_pointer(source, run, CFS_STEPS_LATEST, name_out);

	return r == -ENOENT ? cfs_layout_pointer(source, run, name_out) : r;
}

int cfs_steps_universal(struct cfs_source *source, const char *run,
			char name_out[256])
{
	int r = read_pointer(source, run, CFS_STEPS_UNIVERSAL, name_out);

	return r == -ENOENT ? 0 : r;
}

int cfs_steps_is_whole(struct cfs_source *source, const char *run,
		       const char *name, struct cfs_error *err)
{
	struct cfs_steps_item item = {0};
	int r = judge(source, run, name, &item);

	if (!r || r == -ENOENT || r == -ENOTDIR || r == -ELOOP) {
		(void)cfs_fail(err, -ENOENT,
			       "no step of a known format is there");
		return 0;
	}
	if (r > 0 && !item.whole)
		(void)cfs_fail(err, -EINVAL, "%s", item.why);
	return r < 0 ? r : item.whole;
}

struct wanted {
	const struct cfs_format *format; /* NULL: any, or none */
	const char *like;		 /* NULL: of any name */
	int64_t below;
};

static const struct cfs_steps_item *newest_below(const struct cfs_steps *steps,
						 const struct wanted *wanted)
{
	size_t i = steps->n;

	while (i--) {
		const struct cfs_steps_item *s = &steps->list[i];

		if (s->whole && (s->number >= 0 || s->order_ns) &&
		    s->number < wanted->below &&
		    (!wanted->format || s->format == wanted->format) &&
		    (!wanted->like || cfs_step_is_like(s->name, wanted->like)))
			return s;
	}
	return NULL;
}

static const struct cfs_steps_item *find(const struct cfs_steps *steps,
					 const char *name)
{
	size_t i;

	for (i = 0; i < steps->n; i++)
		if (!strcmp(steps->list[i].name, name))
			return &steps->list[i];
	return NULL;
}

const struct cfs_steps_item *cfs_steps_settle(const struct cfs_steps *steps,
					      const char *pointer)
{
	const struct cfs_steps_item *named = find(steps, pointer);
	const struct wanted wanted = {named ? named->format : NULL, pointer,
				      cfs_step_number(pointer)};

	return named && named->whole ? named : newest_below(steps, &wanted);
}

/* Of a name without the word that says what is in it. */
static bool without_word(const char *name, char out[256])
{
	const size_t len = strlen(name), word = strlen(UNIVERSAL_WORD);

	snprintf(out, 256, "%s", name);
	if (len <= word || len >= 256 ||
	    strcmp(name + len - word, UNIVERSAL_WORD) != 0)
		return false;
	out[len - word] = '\0';
	return true;
}

const struct cfs_steps_item *
cfs_steps_settle_universal(const struct cfs_steps *steps, const char *pointer)
{
	const struct cfs_steps_item *named = find(steps, pointer);
	const struct cfs_steps_item *best = NULL;
	char bare[256], other[256];
	const bool word = without_word(pointer, bare);
	const int64_t below = cfs_step_number(bare);
	int64_t n, most = 0;
	size_t i;

	if (named && named->whole)
		return named;
	for (i = 0; i < steps->n; i++) {
		const struct cfs_steps_item *s = &steps->list[i];

		if (!s->whole || s->format != &cfs_format_universal ||
		    without_word(s->name, other) != word ||
		    !cfs_step_is_like(other, bare))
			continue;
		n = cfs_step_number(other);
		if (n < most || n >= below)
			continue;
		best = s;
		most = n;
	}
	return best;
}

int cfs_steps_resolve(struct cfs_source *source, const char *run,
		      char name_out[256])
{
	_cleanup_(cfs_steps_free) struct cfs_steps steps = {0};
	static const struct wanted any = {NULL, NULL, INT64_MAX};
	const struct cfs_steps_item *item = NULL;
	char pointer[256];
	bool named;
	int r;

	r = cfs_steps_pointer(source, run, pointer);
	if (r > 0 && cfs_steps_is_whole(source, run, pointer, NULL) > 0) {
		strcpy(name_out, pointer);
		return 1;
	}
	named = r > 0;
	if (r >= 0)
		r = cfs_steps_list(source, run, &steps);
	if (r < 0)
		return r;
	if (named)
		item = cfs_steps_settle(&steps, pointer);
	if (!item)
		item = newest_below(&steps, &any);
	if (!item || strlen(item->name) >= 256)
		return 0;
	strcpy(name_out, item->name);
	return 1;
}
