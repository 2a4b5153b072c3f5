/*
 * Is every object there that files refer to?  The keys of all objects are
 * kept by the first 8 bytes of their digests: enough to miss nothing by chance.
 */
#include "store/core/fsck_internal.h"

#include <errno.h>
#include <string.h>

#include "store/util/endian.h"

static uint64_t prefix_of(const struct cfs_digest *digest)
{
	return cfs_get_be64(digest->bytes);
}

static int add(struct cfs_fsck_objects *objects,
	       const struct cfs_digest *digest, uint32_t raw_len, bool derived,
	       bool gone)
{
	if (objects->n == objects->cap) {
		size_t cap = CFS_MAX(objects->cap * 2, (size_t)1024);
		void *v = realloc(objects->v, cap * sizeof(*objects->v));

		if (!v)
			return -ENOMEM;
		objects->v = v;
		objects->cap = cap;
	}
	objects->v[objects->n++] =
		(struct cfs_fsck_object){.prefix = prefix_of(digest),
					 .raw_len = raw_len,
					 .derived = derived,
					 .gone = gone,
					 .bad = gone};
	return 0;
}

static struct cfs_fsck_object *find(const struct cfs_fsck_objects *objects,
				    const struct cfs_digest *digest)
{
	uint64_t prefix = prefix_of(digest);
	size_t lo = 0, hi = objects->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (objects->v[mid].prefix < prefix)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < objects->n && objects->v[lo].prefix == prefix)
		return &objects->v[lo];
	return NULL;
}

/*
 * What a group refers to may be appended after the levels were frozen for it:
 * its key gets into the index with the next group (and before, replay finds
 * the record).  1 and the length of a chunk, 0 when it is nowhere.
 */
static int find_late(struct cfs_fsck *f, bool is_map,
		     const struct cfs_digest *digest, uint32_t *raw_len)
{
	struct cfs_object_value v;
	int r = cfs_object_locate(f->store, is_map, digest, &v);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	*raw_len = v.raw_len;
	return 1;
}

/* @packs: NULL, of objects that are read anyway */
static int load(struct cfs_fsck *f, char class,
		const struct cfs_fsck_packs *packs,
		struct cfs_fsck_objects *objects, uint64_t *count)
{
	struct cfs_object_value v;
	struct cfs_digest digest;
	struct cfs_slice key, val;
	int r;

	while ((r = cfs_fsck_next(f, class, &key, &val)) > 0) {
		++*count;
		if (cfs_key_parse_digest(key, &digest) < 0 ||
		    cfs_object_decode(val.data, val.len, &v) < 0) {
			cfs_fsck_problem(f, "a place of a %s is damaged",
					 class == 'm' ? "map" : "chunk");
			continue;
		}
		r = add(objects, &digest, v.raw_len,
			class == 'c' && cfs_object_may_be_derived(&v),
			packs && !cfs_fsck_packs_have(f, packs, &digest, &v));
		if (r < 0)
			return r;
	}
	return r;
}

int cfs_fsck_load_objects(struct cfs_fsck *f)
{
	_cleanup_(cfs_fsck_packs_fini) struct cfs_fsck_packs packs = {0};
	int r = 0;

	f->what = "objects";
	if (!f->content_only) /* scrub has read them */
		r = cfs_fsck_packs_load(f, &packs);
	if (r == 0)
		r = load(f, 'c', f->content_only ? NULL : &packs, &f->chunks,
			 &f->result.chunks);
	return r < 0 ? r : load(f, 'm', NULL, &f->maps, &f->result.maps);
}

void cfs_fsck_objects_fini(struct cfs_fsck *f)
{
	free(f->chunks.v);
	free(f->maps.v);
}

void cfs_fsck_mark_bad(struct cfs_fsck *f, const struct cfs_fsck_bad *bad)
{
	for (int is_map = 0; is_map < 2; is_map++)
		for (size_t i = 0; i < bad->n[is_map]; i++) {
			struct cfs_fsck_object *o =
				find(is_map ? &f->maps : &f->chunks,
				     &bad->v[is_map][i]);

			if (o)
				o->bad = o->seen = true;
		}
}

/* A derived chunk is there if its parts are, too. */
static bool check_parts(struct cfs_fsck *f, const struct cfs_digest *digest)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *head = NULL;
	struct cfs_object_value where;
	char hex[CFS_DIGEST_HEX], part[CFS_DIGEST_HEX];
	uint32_t raw_len;
	bool whole = true;
	int r = cfs_object_chunk_head(f->store, digest, &where, &head);

	if (r == -ENOENT &&
	    cfs_object_locate(f->store, false, digest, &where) == -ENOENT)
		return true; /* gc took it away meanwhile */
	if (r < 0) {
		cfs_fsck_missing(f, "chunk %s cannot be read",
				 cfs_digest_hex(digest, hex));
		return false;
	}
	for (uint32_t i = 0; i < head->n_parts; i++) {
		const struct cfs_digest *d = &head->parts[i].digest;

		const struct cfs_fsck_object *o = find(&f->chunks, d);

		if (o ? !o->gone : find_late(f, false, d, &raw_len) > 0)
			continue;
		whole = false;
		cfs_fsck_missing(f,
				 "chunk %s is derived from chunk %s, which is "
				 "missing",
				 cfs_digest_hex(digest, hex),
				 cfs_digest_hex(d, part));
	}
	return whole;
}

bool cfs_fsck_extent(struct cfs_fsck *f, uint64_t ino,
		     const struct cfs_extent *e)
{
	struct cfs_fsck_object *o = find(&f->chunks, &e->digest);
	uint32_t raw_len = o ? o->raw_len : 0;
	char hex[CFS_DIGEST_HEX];
	int r = o ? 1 : find_late(f, false, &e->digest, &raw_len);

	f->result.extents++;
	if (r <= 0 || (o && o->gone))
		cfs_fsck_missing(f, "inode %llu at %llu: chunk %s %s",
				 (unsigned long long)ino,
				 (unsigned long long)e->off,
				 cfs_digest_hex(&e->digest, hex),
				 r < 0	 ? "cannot be looked up"
				 : r > 0 ? "is not in the pack it should be in"
					 : "is missing");
	else if (raw_len != e->chunk_len)
		cfs_fsck_missing(
			f,
			"inode %llu at %llu: chunk %s has %u bytes "
			"instead of %u",
			(unsigned long long)ino, (unsigned long long)e->off,
			cfs_digest_hex(&e->digest, hex), raw_len, e->chunk_len);
	if (o && o->derived && !o->gone && !o->seen) {
		o->seen = true;
		o->bad = !check_parts(f, &e->digest);
	}
	return r > 0 && raw_len == e->chunk_len && !(o && o->bad);
}

/*
 * The content of a map: 1; 0: there is nothing to look into, @bad_out saying
 * why (it was told, now or when it was seen first).
 */
static int get(struct cfs_fsck *f, uint64_t ino,
	       const struct cfs_digest *digest, struct cfs_content_map *out,
	       bool *bad_out)
{
	struct cfs_fsck_object *o = find(&f->maps, digest);
	struct cfs_object_value v;
	char hex[CFS_DIGEST_HEX];
	int r;

	*bad_out = o && o->bad;
	if (o && o->seen)
		return 0;
	if (o)
		o->seen = true;
	r = cfs_store_get_map(f->store, digest, out);
	if (r == -ENOMEM || r == 0)
		return r < 0 ? r : 1;
	/* nobody needs it any more since then, and gc took it away */
	if (o && r == -ENOENT &&
	    cfs_object_locate(f->store, true, digest, &v) == -ENOENT)
		return 0;
	*bad_out = true;
	cfs_fsck_missing(f, "inode %llu: map %s: %s", (unsigned long long)ino,
			 cfs_digest_hex(digest, hex),
			 r == -ENOENT ? "missing" : strerror(-r));
	return 0;
}

/* What it leads to was looked at: others refer to it, too. */
static void note(struct cfs_fsck *f, const struct cfs_digest *digest, bool bad)
{
	struct cfs_fsck_object *o = find(&f->maps, digest);

	if (o && bad)
		o->bad = true;
}

/* Is all of it there? */
static bool check_leaf(struct cfs_fsck *f, uint64_t ino,
		       const struct cfs_content_map *map, uint64_t base)
{
	bool whole = true;

	for (size_t i = 0; i < map->count; i++) {
		struct cfs_extent e = map->extents[i];

		e.off += base;
		whole &= cfs_fsck_extent(f, ino, &e);
	}
	return whole;
}

static int check_child(struct cfs_fsck *f, uint64_t ino,
		       const struct cfs_map_child *child, bool *bad_out)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};
	char hex[CFS_DIGEST_HEX];
	int r = get(f, ino, &child->digest, &map, bad_out);

	if (r <= 0)
		return r;
	*bad_out = map.level != 0 || map.size != child->len;
	if (*bad_out)
		cfs_fsck_missing(f, "inode %llu: map %s is not what it is for",
				 (unsigned long long)ino,
				 cfs_digest_hex(&child->digest, hex));
	else
		*bad_out = !check_leaf(f, ino, &map, child->off);
	note(f, &child->digest, *bad_out);
	return 0;
}

int cfs_fsck_map(struct cfs_fsck *f, uint64_t ino,
		 const struct cfs_digest *digest)
{
	_cleanup_(cfs_content_map_fini) struct cfs_content_map map = {0};
	bool bad, child_bad;
	int r = get(f, ino, digest, &map, &bad);

	if (r > 0 && map.level == 0)
		bad = !check_leaf(f, ino, &map, 0);
	for (size_t i = 0; r > 0 && map.level == 1 && i < map.count; i++) {
		int c = check_child(f, ino, &map.children[i], &child_bad);

		if (c < 0)
			return c;
		bad |= child_bad;
	}
	if (r < 0)
		return r;
	note(f, digest, bad);
	if (bad)
		cfs_fsck_affected(f, ino);
	return 0;
}
