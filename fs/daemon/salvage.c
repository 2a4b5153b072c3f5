/* fsck --salvage: out of a log that is damaged, in words. */
#include <errno.h>
#include <time.h>

#include "fs/daemon/open.h"
#include "fs/daemon/verb.h"
#include "store/core/store.h"

static void tell_state(const struct cfs_salvaged *s,
		       const struct cfs_verb_reply *reply)
{
	time_t seconds = (time_t)(s->time_ns / 1000000000u);
	char when[40] = "";
	struct tm tm;

	if (seconds && gmtime_r(&seconds, &tm))
		(void)strftime(when, sizeof(when), " of %F %T UTC", &tm);
	if (s->passed)
		cfs_verb_line(reply,
			      "the log does not hold in pack 0000/%08x at "
			      "%u%s",
			      s->pack, s->off,
			      s->passed > 1 ? ", nor in places behind it" : "");
	if (s->known > s->group)
		cfs_verb_line(reply,
			      "it goes back to group %llu%s: what was saved "
			      "after that, up to group %llu, is lost",
			      (unsigned long long)s->group, when,
			      (unsigned long long)s->known);
	else
		cfs_verb_line(reply,
			      "its newest state, group %llu%s, can be had%s",
			      (unsigned long long)s->group, when,
			      s->from_index ? " from the index" : "");
}

static void put_state(const struct cfs_salvaged *s, bool done, cJSON *result)
{
	cJSON *o = cJSON_AddObjectToObject(result, "salvage");

	cfs_verb_put_flag(o, "done", done);
	cfs_verb_put_u64(o, "group", s->group);
	cfs_verb_put_u64(o, "known_group", s->known);
	cfs_verb_put_u64(o, "time_ns", s->time_ns);
	cfs_verb_put_flag(o, "from_index", s->from_index);
	cfs_verb_put_u64(o, "places", s->passed);
}

/* 1: it opens as it is. */
static int opens(const char *store_path, bool write,
		 const struct cfs_verb_reply *reply, struct cfs_error *err)
{
	_cleanup_(cfs_opened_closep) struct cfs_opened opened = {0};
	const struct cfs_store_options how = {.read_only = !write};
	struct cfs_error why = {""};
	int r = cfs_opened_open_as(store_path, &how, NULL, &opened, &why);

	if (r == 0)
		return 1;
	if (r != -EBADMSG && r != -EIO)
		return cfs_fail(err, r, "%s", why.text);
	cfs_verb_line(reply, "%s", why.text);
	return 0;
}

int cfs_opened_salvage(const char *store_path, bool write,
		       const struct cfs_verb_reply *reply, cJSON *result,
		       struct cfs_error *err)
{
	_cleanup_(cfs_opened_closep) struct cfs_opened opened = {0};
	const struct cfs_store_options how = {.salvage = true,
					      .read_only = !write};
	struct cfs_verb_context context;
	struct cfs_salvaged state;
	int r = opens(store_path, write, reply, err);

	if (r)
		return r;
	r = cfs_opened_open_as(store_path, &how, reply, &opened, err);
	if (r < 0)
		return r;
	if (write && cfs_store_read_only(opened.store))
		return cfs_fail(err, -EROFS,
				"%s may only be read here: nothing was written",
				store_path);
	cfs_store_salvaged(opened.store, &state);
	tell_state(&state, reply);
	put_state(&state, write, result);
	cfs_opened_context(&opened, &context);
	r = cfs_verb_run(&context, "fsck", NULL, reply, result, err);
	if (r < 0)
		return r;
	r = cfs_opened_close(&opened);
	return r < 0 ? cfs_fail_prefix(err, r, "%s", store_path) : 0;
}
