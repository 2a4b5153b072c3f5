/*
 * What a store knows of states it has lost: refs/end names the last group of a
 * clean end, so that a log which ends before it is seen even without an index;
 * refs/lost has a line for each time that it was opened at an older state, told
 * by every scrub and fsck until somebody says that he knows.
 */
#include "store/core/store_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define REF_LOST "lost"
#define REF_END	 "end"
#define LOST_MAX 3500u /* of a ref's 4096 bytes */

/* Empty where there is none. */
static int get(struct cfs_store *s, const char *name, struct cfs_buf *out,
	       bool *there)
{
	int r = s->engine->ops->ref_get(s->engine, name, out);

	*there = r == 0;
	return r == -ENOENT ? 0 : r;
}

static void end_set(struct cfs_store *store, uint64_t group)
{
	_cleanup_(cfs_buf_free) struct cfs_buf old = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf now = CFS_BUF_INIT;
	bool there = false;

	if (group == store->end_group || get(store, REF_END, &old, &there) < 0)
		return;
	cfs_buf_printf(&now, "%llu\n", (unsigned long long)group);
	/* only advice */
	if (!now.failed &&
	    store->engine->ops->ref_cas(store->engine, REF_END,
					there ? &old : NULL, &now) == 0)
		store->end_group = group;
}

/* The newest line, from before a power cut that came too early for more. */
static bool ends_with(const struct cfs_buf *text, const struct cfs_buf *line)
{
	return text->len >= line->len && line->len &&
	       !memcmp(text->data + text->len - line->len, line->data,
		       line->len);
}

void cfs_loss_note(struct cfs_store *store, const struct cfs_recovered *found,
		   uint64_t known)
{
	_cleanup_(cfs_buf_free) struct cfs_buf old = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf now = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf line = CFS_BUF_INIT;
	time_t seconds = (time_t)(found->time_ns / 1000000000u);
	char when[40] = "";
	bool there = false;
	struct tm tm;

	/* who only looks notes it, too: the index says it no more after that */
	if (store->untouched || get(store, REF_LOST, &old, &there) < 0 ||
	    old.len > LOST_MAX)
		return;
	if (seconds && gmtime_r(&seconds, &tm))
		(void)strftime(when, sizeof(when), " of %F %T UTC", &tm);
	cfs_buf_printf(&line,
		       "the store went back to group %llu%s though it had been "
		       "at group %llu: what was saved in between is lost\n",
		       (unsigned long long)found->group, when,
		       (unsigned long long)known);
	cfs_buf_put(&now, old.data, old.len);
	if (!ends_with(&old, &line))
		cfs_buf_put(&now, line.data, line.len);
	/* an error was logged, and nobody is helped by not opening */
	if (line.failed || now.failed ||
	    store->engine->ops->ref_cas(store->engine, REF_LOST,
					there ? &old : NULL, &now) < 0)
		return;
	/* so that it is not found once more; salvage goes on above all there
	 * was */
	end_set(store, store->salvage ? known : found->group);
}

uint64_t cfs_loss_tell(struct cfs_store *store,
		       const struct cfs_job_control *control)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	char *line, *end;
	uint64_t n = 0;
	bool there;

	if (get(store, REF_LOST, &text, &there) < 0)
		return 0;
	cfs_buf_put(&text, "", 1);
	if (text.failed)
		return 0;
	for (line = (char *)text.data; (end = strchr(line, '\n'));
	     line = end + 1, n++) {
		*end = '\0';
		if (control && control->finding)
			control->finding(control->arg, line);
	}
	return n;
}

int cfs_store_acknowledge(struct cfs_store *store)
{
	_cleanup_(cfs_buf_free) struct cfs_buf old = CFS_BUF_INIT;
	const struct cfs_buf none = CFS_BUF_INIT;
	bool there = false;
	int r;

	if (store->options.read_only)
		return -EROFS;
	r = get(store, REF_LOST, &old, &there);
	if (r < 0 || !old.len)
		return r;
	return store->engine->ops->ref_cas(store->engine, REF_LOST, &old,
					   &none);
}

uint64_t cfs_loss_end(struct cfs_store *store)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	bool there;

	if (get(store, REF_END, &text, &there) < 0)
		return 0;
	store->end_group = strtoull(cfs_buf_str(&text), NULL, 10);
	return store->end_group;
}

void cfs_loss_end_set(struct cfs_store *store)
{
	end_set(store, cfs_store_group(store));
}
