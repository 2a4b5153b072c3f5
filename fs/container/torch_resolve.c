/* Persistent ids: from the tuples in a pickle to the table of storages. */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/torch_internal.h"
#include "store/util/arena.h"
#include "store/util/checked.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

#define KEY_MAX 200

/* ('storage', class, key, location, numel[, view of a legacy file]) */
struct id {
	const char *key, *location;
	const struct cfs_node *cls, *view;
	uint64_t numel;
};

static uint64_t key_hash(const char *key)
{
	return cfs_hash64(key, strlen(key), cfs_u64map_seed()) | 1;
}

struct cfs_torch_storage *cfs_torchfile_find(const struct cfs_torchfile *tf,
					     const char *key)
{
	const uint64_t *at = cfs_u64map_find(&tf->by_key, key_hash(key));

	return at && !strcmp(tf->storages[*at]->key, key) ? tf->storages[*at]
							  : NULL;
}

static bool parse_id(const struct cfs_node *node, struct id *id)
{
	const uint32_t n = cfs_seq_node_count(node);

	if (n != 5 && n != 6)
		return false;
	id->cls = cfs_seq_node_item(node, 1);
	id->key = cfs_node_as_str(cfs_seq_node_item(node, 2));
	id->location = cfs_node_as_str(cfs_seq_node_item(node, 3));
	id->view = cfs_seq_node_item(node, 5);
	if (cfs_node_is_none(id->view))
		id->view = NULL;
	return id->cls->kind == CFS_NODE_GLOBAL && id->key && *id->key &&
	       strlen(id->key) <= KEY_MAX && !strchr(id->key, '/') &&
	       id->location &&
	       cfs_node_as_u64(cfs_seq_node_item(node, 4), &id->numel);
}

static struct cfs_torch_storage *add_storage(struct cfs_torchfile *tf,
					     const char *key)
{
	struct cfs_torch_storage *s;

	if (!CFS_GROW(tf->storages, tf->n_storages, tf->cap_storages))
		return NULL;
	s = cfs_arena_alloc(tf->arena, sizeof(*s));
	if (!s || !cfs_u64map_put(&tf->by_key, key_hash(key), tf->n_storages))
		return NULL;
	s->key = key;
	s->file = tf;
	s->number = tf->n_storages;
	tf->storages[tf->n_storages++] = s;
	return s;
}

/* Size and class. */
static int describe(struct cfs_torch_storage *s, const struct id *id,
		    struct cfs_error *err)
{
	const struct cfs_torch_class *cls;

	s->cls_module = id->cls->u.global.module;
	s->cls_name = id->cls->u.global.name;
	s->location = id->location;
	s->numel = id->numel;
	cls = cfs_torch_class_find(s->cls_module, s->cls_name);
	if (!cls)
		return cfs_fail(
			err, -ENOTSUP,
			"storage %s is of an unknown class %.100s.%.100s",
			s->key, s->cls_module, s->cls_name);
	s->dtype = cls->dtype;
	if (!cfs_mul_u64(s->numel, cls->itemsize, &s->nbytes) ||
	    s->nbytes > INT64_MAX)
		return cfs_fail(err, -EBADMSG, "storage %s: absurd size",
				s->key);
	return 0;
}

static int find_record(struct cfs_torchfile *tf, struct cfs_torch_storage *s,
		       const struct cfs_u64map *records, struct cfs_error *err)
{
	const struct cfs_zip_entry *e;
	const uint64_t *at = cfs_u64map_find(records, key_hash(s->key));

	if (!at)
		return cfs_fail(err, -EBADMSG, "no record for storage %s",
				s->key);
	s->zip_entry = (uint32_t)*at;
	e = &tf->zip.entries[s->zip_entry];
	if (e->usize < s->nbytes)
		return cfs_fail(err, -EBADMSG,
				"record '%.200s' has %llu bytes, its tensors "
				"need %llu",
				e->name, (unsigned long long)e->usize,
				(unsigned long long)s->nbytes);
	s->crc = e->crc;
	s->crc_known = e->usize == s->nbytes && (e->crc || !s->nbytes);
	return 0;
}

static int same_storage(const struct cfs_torch_storage *s, const struct id *id,
			struct cfs_error *err)
{
	if (s->numel == id->numel &&
	    !strcmp(s->cls_name, id->cls->u.global.name))
		return 0;
	return cfs_fail(err, -EBADMSG,
			"storage %s is described in two ways (%llu %s, "
			"%llu %.100s)",
			s->key, (unsigned long long)s->numel, s->cls_name,
			(unsigned long long)id->numel, id->cls->u.global.name);
}

/*
 * torch < 0.4: a view of a storage was a storage of its own, (key, offset,
 * numel) within the root's elements.  It becomes one here, too.
 */
static int resolve_view(struct cfs_torchfile *tf,
			struct cfs_torch_storage *root, const struct id *id,
			struct cfs_torch_storage **out, struct cfs_error *err)
{
	const char *key = cfs_node_as_str(cfs_seq_node_item(id->view, 0));
	struct id view = *id;
	uint64_t offset;

	if (!key || !*key || cfs_seq_node_count(id->view) != 3 ||
	    !cfs_node_as_u64(cfs_seq_node_item(id->view, 1), &offset) ||
	    !cfs_node_as_u64(cfs_seq_node_item(id->view, 2), &view.numel) ||
	    !cfs_range_ok(offset, view.numel, root->numel))
		return cfs_fail(err, -EBADMSG,
				"storage %s: a view that is not inside it",
				root->key);
	*out = cfs_torchfile_find(tf, key);
	if (*out && *out != root)
		return (*out)->legacy_root == root &&
				       (*out)->legacy_off == offset
			       ? same_storage(*out, &view, err)
			       : cfs_fail(err, -EBADMSG,
					  "storage %s is described in two ways",
					  key);
	if (*out)
		return cfs_fail(err, -EBADMSG, "storage %s is its own view",
				key);
	*out = add_storage(tf, key);
	if (!*out)
		return -ENOMEM;
	(*out)->legacy_root = root;
	(*out)->legacy_off = offset; /* in elements, until it is placed */
	return describe(*out, &view, err);
}

static int resolve(struct cfs_torchfile *tf, struct cfs_node *persid,
		   const struct cfs_u64map *records, struct cfs_error *err)
{
	struct cfs_torch_storage *s;
	struct id id;
	int r;

	if (!parse_id(persid->u.persid.id, &id))
		return cfs_fail(err, -EBADMSG,
				"a persistent id that names no storage");
	s = cfs_torchfile_find(tf, id.key);
	if (s) {
		r = same_storage(s, &id, err);
	} else {
		s = add_storage(tf, id.key);
		if (!s)
			return -ENOMEM;
		r = describe(s, &id, err);
		if (!r && records)
			r = find_record(tf, s, records, err);
	}
	if (r < 0)
		return r;
	if (id.view && !records) {
		r = resolve_view(tf, s, &id, &s, err);
		if (r < 0)
			return r;
	}
	persid->u.persid.storage = s;
	return 0;
}

/*
 * Legacy files wrap the class of an nn.Module in an id that also carries its
 * source text, for a warning when it has changed.  What is meant is the class.
 */
static bool unwrap_module(struct cfs_node *persid)
{
	const struct cfs_node *id = persid->u.persid.id;
	const char *type = cfs_node_as_str(cfs_seq_node_item(id, 0));
	const struct cfs_node *cls = cfs_seq_node_item(id, 1);

	if (!type || strcmp(type, "module") || !cls ||
	    cls->kind != CFS_NODE_GLOBAL)
		return false;
	persid->kind = CFS_NODE_GLOBAL;
	persid->u = cls->u;
	return true;
}

/* data/<key> -> entry, so that 10,000 storages do not search 10,000 names */
static bool index_records(const struct cfs_torchfile *tf,
			  struct cfs_u64map *records)
{
	const size_t n = strlen(tf->prefix);

	for (uint32_t i = 0; i < tf->zip.n_entries; i++) {
		const char *name = tf->zip.entries[i].name;

		if (strncmp(name, tf->prefix, n) ||
		    strncmp(name + n, "data/", 5))
			continue;
		if (!cfs_u64map_put(records, key_hash(name + n + 5), i))
			return false;
	}
	return true;
}

int cfs_torchfile_resolve(struct cfs_torchfile *tf, struct cfs_error *err)
{
	_cleanup_(cfs_u64map_free) struct cfs_u64map records = CFS_U64MAP_INIT;
	struct cfs_pickle *doc = tf->doc;
	int r;

	if (!tf->legacy && !index_records(tf, &records))
		return -ENOMEM;
	for (size_t i = 0; i < doc->n_persids; i++) {
		if (tf->legacy && unwrap_module(doc->persids[i]))
			continue;
		r = resolve(tf, doc->persids[i], tf->legacy ? NULL : &records,
			    err);
		if (r < 0)
			return r;
	}
	free(doc->persids);
	doc->persids = NULL;
	doc->n_persids = doc->cap_persids = 0;
	return 0;
}
