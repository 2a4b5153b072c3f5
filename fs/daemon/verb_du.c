/*
 * du: what each entry of a directory takes.
 *
 * A chunk belongs to the one entry that uses it, or is shared: between
 * entries, or with what lies elsewhere in the store.  So entries are walked
 * first, each marking its chunks, then the rest of the namespace.
 */
#include <errno.h>
#include <string.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/verb.h"
#include "store/core/store.h"
#include "store/index/keys.h"
#include "store/ns/ns.h"

#define SHARED	UINT32_MAX	 /* by entries */
#define OUTSIDE (UINT32_MAX - 1) /* used elsewhere, too */

struct entry {
	char *name;
	uint64_t ino;
	bool dir;
	uint64_t files, apparent, stored, unique;
};

struct du {
	struct cfs_ns *ns;
	const struct cfs_verb_reply *reply;
	struct cfs_nstree_names names;
	struct entry *entries;
	size_t n;
	uint32_t current; /* 1 + index in entries; 0: outside */
	uint64_t skip;	  /* inode of what was counted already; 0: none */
	struct cfs_chunkset chunks, links;
	uint64_t files_seen, inline_bytes;
};

static void du_fini(struct du *du)
{
	cfs_nstree_names_free(&du->names);
	cfs_chunkset_free(&du->chunks);
	cfs_chunkset_free(&du->links);
	free(du->entries);
}

static int count_chunk(void *arg, const struct cfs_extent *extent)
{
	struct du *du = arg;
	struct entry *e = &du->entries[du->current - 1];
	struct cfs_chunkset_item *item;
	struct cfs_chunk_facts facts;
	bool fresh;
	int r;

	r = cfs_chunkset_put(&du->chunks, &extent->digest, &item, &fresh);
	if (r < 0)
		return r;
	if (fresh) {
		r = cfs_store_chunk_facts(cfs_ns_store(du->ns), &extent->digest,
					  &facts);
		if (r < 0 && r != -ENOENT)
			return r;
		item->stored = r ? 0 : facts.stored_len;
		item->owner = du->current;
	} else if (item->owner != du->current) {
		item->owner = SHARED;
	}
	if (item->last != du->current)
		e->stored += item->stored;
	item->last = du->current;
	return 0;
}

static int mark_outside(void *arg, const struct cfs_extent *extent)
{
	struct du *du = arg;
	struct cfs_chunkset_item *item =
		cfs_chunkset_get(&du->chunks, &extent->digest);

	if (item)
		item->owner = OUTSIDE;
	return 0;
}

/* 1: another name of what was counted. */
static int seen_link(struct du *du, const struct stat *st)
{
	if (st->st_nlink < 2)
		return 0;
	return cfs_chunkset_put_ino(&du->links, st->st_ino);
}

static int count_file(void *arg, const char *path, const struct stat *st)
{
	struct du *du = arg;
	struct entry *e = &du->entries[du->current - 1];
	uint64_t stored = e->stored;
	int r;

	if (!cfs_verb_progress(du->reply, ++du->files_seen, 0, path))
		return -ECANCELED;
	if (S_ISDIR(st->st_mode))
		return 0;
	r = seen_link(du, st);
	if (r)
		return r < 0 ? r : 0;
	e->files++;
	if (!S_ISREG(st->st_mode))
		return 0;
	e->apparent += (uint64_t)st->st_size;
	r = cfs_ns_extents(du->ns, st->st_ino, count_chunk, du);
	if (r < 0)
		return r == -ENOENT || r == -ESTALE ? 0 : r;
	if (e->stored == stored && st->st_size <= CFS_INLINE_MAX) {
		e->stored += (uint64_t)st->st_size; /* in its inode */
		e->unique += (uint64_t)st->st_size;
		du->inline_bytes += (uint64_t)st->st_size;
	}
	return 0;
}

/* All of the namespace but the subtree that was counted. */
static int mark_file(void *arg, const char *path, const struct stat *st)
{
	struct du *du = arg;
	int r;

	if (st->st_ino == du->skip)
		return CFS_NSTREE_SKIP;
	if (!cfs_verb_progress(du->reply, ++du->files_seen, 0, path))
		return -ECANCELED;
	if (!S_ISREG(st->st_mode))
		return 0;
	r = cfs_ns_extents(du->ns, st->st_ino, mark_outside, du);
	return r == -ENOENT || r == -ESTALE ? 0 : r;
}

static int count_entries(struct du *du)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < du->n; i++) {
		du->current = (uint32_t)i + 1;
		r = cfs_nstree_walk(du->ns, du->entries[i].ino,
				    du->entries[i].name, count_file, du);
	}
	return r;
}

static void settle_owners(struct du *du)
{
	size_t i;

	for (i = 0; du->chunks.slots && i <= du->chunks.mask; i++) {
		const struct cfs_chunkset_item *item = &du->chunks.slots[i];

		if (item->owner && item->owner < OUTSIDE)
			du->entries[item->owner - 1].unique += item->stored;
	}
}

/* Once each, whatever uses it; *alone_out: what all entries leave behind when
 * they go. */
static uint64_t stored_total(const struct du *du, uint64_t *alone_out)
{
	uint64_t total = du->inline_bytes, alone = du->inline_bytes;
	size_t i;

	for (i = 0; du->chunks.slots && i <= du->chunks.mask; i++) {
		const struct cfs_chunkset_item *item = &du->chunks.slots[i];

		total += item->stored;
		alone += item->owner == OUTSIDE ? 0 : item->stored;
	}
	*alone_out = alone;
	return total;
}

static void put_entry(cJSON *entries, const struct entry *e)
{
	cJSON *o = cJSON_CreateObject();

	cfs_verb_put_str(o, "name", e->name);
	cfs_verb_put_flag(o, "directory", e->dir);
	cfs_verb_put_u64(o, "files", e->files);
	cfs_verb_put_u64(o, "apparent_bytes", e->apparent);
	cfs_verb_put_u64(o, "stored_bytes", e->stored);
	cfs_verb_put_u64(o, "unique_bytes", e->unique);
	cfs_verb_put_u64(o, "shared_bytes", e->stored - e->unique);
	cJSON_AddItemToArray(entries, o);
}

static void put_result(const struct du *du, const char *path, cJSON *result)
{
	cJSON *entries, *total;
	uint64_t files = 0, apparent = 0, stored, unique;
	size_t i;

	cfs_verb_put_str(result, "path", path);
	entries = cJSON_AddArrayToObject(result, "entries");
	for (i = 0; i < du->n; i++) {
		put_entry(entries, &du->entries[i]);
		files += du->entries[i].files;
		apparent += du->entries[i].apparent;
	}
	stored = stored_total(du, &unique);
	total = cJSON_AddObjectToObject(result, "total");
	cfs_verb_put_u64(total, "files", files);
	cfs_verb_put_u64(total, "apparent_bytes", apparent);
	cfs_verb_put_u64(total, "stored_bytes", stored);
	cfs_verb_put_u64(total, "unique_bytes", unique);
}

static int take_entries(struct du *du, const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/');
	size_t i;
	int r = 0;

	if (S_ISDIR(st->st_mode))
		r = cfs_nstree_list(du->ns, st->st_ino, &du->names);
	if (r < 0)
		return r;
	du->n = S_ISDIR(st->st_mode) ? du->names.n : 1;
	du->entries = calloc(du->n + 1, sizeof(*du->entries));
	if (!du->entries)
		return -ENOMEM;
	if (!S_ISDIR(st->st_mode)) {
		const char *name = slash ? slash + 1 : path;

		du->entries[0].name = (char *)(uintptr_t)name;
		du->entries[0].ino = st->st_ino;
	}
	for (i = 0; i < du->names.n; i++) {
		du->entries[i].name = du->names.list[i].name;
		du->entries[i].ino = du->names.list[i].ino;
		du->entries[i].dir = S_ISDIR(du->names.list[i].type);
	}
	return 0;
}

static int du(struct cfs_verb_context *context, const cJSON *arguments,
	      const struct cfs_verb_reply *reply, cJSON *result,
	      struct cfs_error *err)
{
	_cleanup_(du_fini) struct du du = {.ns = context->ns, .reply = reply};
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	r = cfs_verb_path(arguments, "path", &path, err);
	if (r < 0)
		return r;
	r = cfs_ns_walk(context->ns, path, &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	du.skip = st.st_ino;
	r = take_entries(&du, path, &st);
	if (!r)
		r = count_entries(&du);
	if (!r && path[0])
		r = cfs_nstree_walk(context->ns, 1, "", mark_file, &du);
	if (r < 0)
		return r;
	settle_owners(&du);
	put_result(&du, path, result);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_du = {"du", du, false, false};
