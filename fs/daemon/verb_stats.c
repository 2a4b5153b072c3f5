/*
 * stats: what the store holds, what it takes, and why: by role.
 *
 * Of a chunk that several files share, the bytes it takes are counted for the
 * roles of the first file met, so that roles add up to the total.
 */
#include <errno.h>
#include <string.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/roles.h"
#include "fs/daemon/verb.h"
#include "store/core/store.h"
#include "store/index/keys.h"
#include "store/ns/ns.h"

struct tally {
	uint64_t logical, unique, stored;
};

struct stats {
	struct cfs_ns *ns;
	const struct cfs_verb_reply *reply;
	struct cfs_roles roles;
	struct cfs_chunkset chunks, links;
	struct tally by_role[CFS_ROLES_N];
	uint64_t files, directories, missing, bytes, seen;
	uint64_t ino; /* being counted */
	uint64_t covered;
};

static void stats_fini(struct stats *s)
{
	cfs_roles_free(&s->roles);
	cfs_chunkset_free(&s->chunks);
	cfs_chunkset_free(&s->links);
}

/* @whole shared out as @parts of their sum; the last one takes the rest. */
static void share_out(struct stats *s, const uint64_t parts[CFS_ROLES_N],
		      uint64_t sum, uint64_t raw, uint64_t stored)
{
	uint64_t raw_left = raw, stored_left = stored, sum_left = sum;
	int i;

	for (i = 0; i < CFS_ROLES_N && sum_left; i++) {
		uint64_t r = (uint64_t)((double)raw_left * (double)parts[i] /
					(double)sum_left);
		uint64_t t = (uint64_t)((double)stored_left * (double)parts[i] /
					(double)sum_left);

		if (parts[i] == sum_left) {
			r = raw_left;
			t = stored_left;
		}
		s->by_role[i].unique += r;
		s->by_role[i].stored += t;
		raw_left -= r;
		stored_left -= t;
		sum_left -= parts[i];
	}
}

static int on_extent(void *arg, const struct cfs_extent *extent)
{
	struct stats *s = arg;
	uint64_t parts[CFS_ROLES_N] = {0};
	struct cfs_chunkset_item *item;
	struct cfs_chunk_facts facts;
	bool fresh;
	int i, r;

	cfs_roles_count(&s->roles, s->ino, extent->off, extent->len, parts);
	for (i = 0; i < CFS_ROLES_N; i++)
		s->by_role[i].logical += parts[i];
	s->covered += extent->len;
	r = cfs_chunkset_put(&s->chunks, &extent->digest, &item, &fresh);
	if (r < 0 || !fresh)
		return r;
	r = cfs_store_chunk_facts(cfs_ns_store(s->ns), &extent->digest, &facts);
	if (r == -ENOENT) {
		s->missing++;
		return 0;
	}
	if (r < 0)
		return r;
	share_out(s, parts, extent->len, facts.raw_len, facts.stored_len);
	return 0;
}

static int count_file(struct stats *s, const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size;
	struct tally *other = &s->by_role[CFS_ROLES_OTHER];
	int r = 0;

	if (st->st_nlink > 1)
		r = cfs_chunkset_put_ino(&s->links, st->st_ino);
	if (r)
		return r < 0 ? r : 0;
	s->files++;
	if (!S_ISREG(st->st_mode))
		return 0;
	s->bytes += size;
	s->ino = st->st_ino;
	s->covered = 0;
	r = cfs_ns_extents(s->ns, st->st_ino, on_extent, s);
	if (r < 0)
		return r == -ENOENT || r == -ESTALE ? 0 : r;
	if (!s->covered && size <= CFS_INLINE_MAX) { /* in its inode */
		other->unique += size;
		other->stored += size;
	}
	if (size > s->covered)
		other->logical += size - s->covered;
	return 0;
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct stats *s = arg;

	if (!cfs_verb_progress(s->reply, ++s->seen, 0, path))
		return -ECANCELED;
	if (S_ISDIR(st->st_mode)) {
		s->directories++;
		return 0;
	}
	return count_file(s, st);
}

static void put_ratio(cJSON *o, const char *name, uint64_t a, uint64_t b)
{
	if (b)
		cJSON_AddNumberToObject(o, name, (double)a / (double)b);
	else
		cJSON_AddNullToObject(o, name);
}

static void put_tally(cJSON *o, const struct tally *t)
{
	cfs_verb_put_u64(o, "logical_bytes", t->logical);
	cfs_verb_put_u64(o, "unique_bytes", t->unique);
	cfs_verb_put_u64(o, "stored_bytes", t->stored);
	put_ratio(o, "dedup_ratio", t->logical, t->unique);
	put_ratio(o, "compression_ratio", t->unique, t->stored);
	put_ratio(o, "ratio", t->logical, t->stored);
}

static void put_store(cJSON *result, const struct cfs_store_facts *f)
{
	cJSON *o = cJSON_AddObjectToObject(result, "store");

	cfs_verb_put_u64(o, "groups", f->groups);
	cfs_verb_put_u64(o, "packs", f->packs);
	cfs_verb_put_u64(o, "pack_bytes", f->pack_bytes);
	cfs_verb_put_u64(o, "chunks", f->chunks);
	cfs_verb_put_u64(o, "raw_bytes", f->raw_bytes);
	cfs_verb_put_u64(o, "stored_bytes", f->stored_bytes);
	o = cJSON_AddObjectToObject(result, "since_opened");
	cfs_verb_put_u64(o, "ingested_bytes", f->ingested_bytes);
	cfs_verb_put_u64(o, "dedup_bytes", f->dedup_bytes);
	cfs_verb_put_u64(o, "appended_bytes", f->appended_bytes);
	cfs_verb_put_u64(o, "cache_hits", f->cache_hits);
	cfs_verb_put_u64(o, "cache_misses", f->cache_misses);
}

static void put_result(const struct stats *s, const struct cfs_store_facts *f,
		       cJSON *result)
{
	struct tally total = {0};
	cJSON *roles;
	int i;

	for (i = 0; i < CFS_ROLES_N; i++) {
		total.logical += s->by_role[i].logical;
		total.unique += s->by_role[i].unique;
		total.stored += s->by_role[i].stored;
	}
	cfs_verb_put_u64(result, "files", s->files);
	cfs_verb_put_u64(result, "directories", s->directories);
	cfs_verb_put_u64(result, "steps", s->roles.steps);
	cfs_verb_put_u64(result, "unreadable_steps", s->roles.unreadable);
	cfs_verb_put_u64(result, "missing_chunks", s->missing);
	put_tally(result, &total);
	roles = cJSON_AddArrayToObject(result, "roles");
	for (i = 0; i < CFS_ROLES_N; i++) {
		/* the tensors first, the rest last */
		int role = (i + 1) % CFS_ROLES_N;
		cJSON *o = cJSON_CreateObject();

		cfs_verb_put_str(o, "role", cfs_roles_names[role]);
		put_tally(o, &s->by_role[role]);
		cJSON_AddItemToArray(roles, o);
	}
	put_store(result, f);
}

static int stats(struct cfs_verb_context *context, const cJSON *arguments,
		 const struct cfs_verb_reply *reply, cJSON *result,
		 struct cfs_error *err)
{
	_cleanup_(stats_fini) struct stats s = {.ns = context->ns,
						.reply = reply};
	struct cfs_store_facts facts;
	int r;

	(void)arguments;
	(void)err;
	r = cfs_store_facts(cfs_ns_store(context->ns), &facts);
	if (!r)
		r = cfs_roles_collect(context, reply, &s.roles);
	if (!r)
		r = cfs_nstree_walk(context->ns, 1, "", on_object, &s);
	if (r < 0)
		return r;
	put_result(&s, &facts, result);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_stats = {"stats", stats, false,
						      false};
