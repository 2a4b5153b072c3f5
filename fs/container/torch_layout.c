/*
 * From a tree to the map of a whole file: the pickle is encoded, which numbers
 * the storages; their payloads and CRCs are found; then records are laid one
 * behind the other, headers as literals, payloads as what they are maps of.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/torch_writer.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/hash.h"

#define NAME_MAX_BYTES 4096

struct payload {
	const struct cfs_torch_storage *storage;
	struct cfs_map *map; /* a reference */
	uint32_t crc;
};

struct layout {
	struct cfs_torch_writer *w;
	struct cfs_error *err;
	struct cfs_u64map keys; /* storage -> place in payloads + 1 */
	struct payload *payloads;
	size_t n, cap;
	struct cfs_node *word;	  /* 'storage', shared by all ids */
	struct cfs_u64map places; /* a location's hash -> its node */
	struct cfs_zip_writer *zip;
	struct cfs_map *map;
	struct cfs_buf ident; /* names, sizes, CRCs: what the file is */
};

static void layout_fini(struct layout *l)
{
	for (size_t i = 0; i < l->n; i++)
		cfs_map_unref(l->payloads[i].map);
	free(l->payloads);
	cfs_u64map_free(&l->keys);
	cfs_u64map_free(&l->places);
	cfs_zip_writer_free(l->zip);
	cfs_map_unref(l->map);
	cfs_buf_free(&l->ident);
}

/* One table may have the rows of another one before its own. */
static bool is_row_of(const struct cfs_torchfile *file,
		      const struct cfs_filetab *tab)
{
	uint32_t i = file->index;

	if (file->tab == tab)
		return true;
	return i < cfs_filetab_count(tab) &&
	       !strcmp(cfs_filetab_path(file->tab, i),
		       cfs_filetab_path(tab, i)) &&
	       cfs_version_equal(cfs_filetab_version(file->tab, i),
				 cfs_filetab_version(tab, i));
}

/* The number of a storage: 0, 1, … in order of first encounter. */
static int key_of(struct layout *l, const struct cfs_torch_storage *s,
		  uint64_t *key_out)
{
	const uint64_t *at = cfs_u64map_find(&l->keys, cfs_u64map_of(s));

	if (at) {
		*key_out = *at - 1;
		return 0;
	}
	if (s->file && !is_row_of(s->file, l->w->tab))
		return cfs_fail(l->err, -EINVAL,
				"storage %s comes from another plan's file",
				s->key);
	if (!CFS_GROW(l->payloads, l->n, l->cap))
		return -ENOMEM;
	l->payloads[l->n++] = (struct payload){.storage = s};
	if (!cfs_u64map_put(&l->keys, cfs_u64map_of(s), l->n))
		return -ENOMEM;
	*key_out = l->n - 1;
	return 0;
}

/* One node a location, so that "cpu" is written once. */
static struct cfs_node *location_node(struct layout *l, const char *location)
{
	const uint64_t key =
		cfs_hash64(location, strlen(location), cfs_u64map_seed()) | 1;
	const uint64_t *at = cfs_u64map_find(&l->places, key);
	struct cfs_node *node;

	if (at)
		return (struct cfs_node *)(uintptr_t)*at;
	node = cfs_node_str(l->w->doc, location);
	if (node && !cfs_u64map_put(&l->places, key, (uintptr_t)node))
		return NULL;
	return node;
}

/* ('storage', class, key, location, numel) */
static int make_id(void *arg, const struct cfs_node *persid,
		   struct cfs_node **id_out)
{
	const struct cfs_torch_storage *s = persid->u.persid.storage;
	struct layout *l = arg;
	struct cfs_pickle *doc = l->w->doc;
	struct cfs_node *items[5];
	uint64_t key = 0;
	char text[24];
	int r;

	if (!s)
		return cfs_fail(l->err, -ENOTSUP,
				"a persistent id that names no storage cannot "
				"be written to a zip file");
	r = key_of(l, s, &key);
	if (r < 0)
		return r;
	if (!l->word)
		l->word = cfs_node_str(doc, "storage");
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)key);
	items[0] = l->word;
	items[1] = cfs_node_global(doc, s->cls_module, s->cls_name);
	items[2] = cfs_node_str(doc, text);
	items[3] = location_node(l, s->location);
	items[4] = cfs_node_int(doc, (int64_t)s->numel);
	*id_out = cfs_node_tuple(doc, items, 5);
	return *id_out ? 0 : -ENOMEM;
}

/* A range over the bytes a storage has in the file it was read from. */
static int carry(struct layout *l, struct payload *p, struct cfs_file *file)
{
	const struct cfs_torch_storage *s = p->storage;
	uint64_t off;
	int r;

	p->map = cfs_map_new(l->w->tab);
	if (!p->map)
		return -ENOMEM;
	if (s->nbytes) {
		r = cfs_torch_storage_extent(s, file, &off, l->err);
		if (r < 0)
			return r;
		r = cfs_map_add_range(p->map, s->file->index, off, s->nbytes);
		if (r < 0)
			return r;
	}
	cfs_map_seal(p->map);
	return 0;
}

struct opener {
	int (*fn)(void *arg, uint32_t index, struct cfs_file **borrowed);
	void *arg;
	cfs_crc_fn *crc;
	void *crc_arg;
};

static int find_payload(struct layout *l, struct payload *p,
			const struct opener *open)
{
	const struct cfs_torch_storage *s = p->storage;
	struct cfs_file *file = NULL;
	int r = 0;

	if (s->file) {
		if (s->nbytes)
			r = open->fn(open->arg, s->file->index, &file);
		if (r < 0)
			return cfs_fail_prefix(
				l->err, r, "%s",
				cfs_filetab_path(l->w->tab, s->file->index));
		r = carry(l, p, file);
		if (r < 0)
			return r;
	} else {
		p->map = cfs_map_ref(s->payload);
	}
	p->crc = s->crc;
	if (s->crc_known || cfs_crc_of_map(p->map, &l->w->crcs, &p->crc))
		return 0;
	p->crc = 0; /* as torch writes it with CRCs switched off */
	if (!open->crc)
		return 0;
	r = open->crc(open->crc_arg, p->map, &p->crc);
	if (r < 0)
		return cfs_fail(l->err, r, "the CRC cannot be computed: %s",
				strerror(-r));
	return 0;
}

static int add_literal(struct layout *l, struct cfs_buf *buf)
{
	int r;

	if (buf->failed)
		return -ENOMEM;
	r = cfs_map_add_literal(l->map, buf->data, buf->len);
	cfs_buf_reset(buf);
	return r;
}

/* A record whose payload is @data, or else @payload. */
static int add_record(struct layout *l, const char *name,
		      const struct cfs_buf *data, const struct payload *payload)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	const uint64_t size = data ? data->len : cfs_map_size(payload->map);
	const uint32_t crc = data ? (uint32_t)crc32_z(0, data->data, data->len)
				  : payload->crc;
	char full[NAME_MAX_BYTES];
	int r;

	if (snprintf(full, sizeof(full), "%s/%s", l->w->prefix, name) >=
	    (int)sizeof(full))
		return -ENAMETOOLONG;
	cfs_buf_printf(&l->ident, "%s %llu %u\n", name,
		       (unsigned long long)size, crc);
	r = cfs_zip_writer_begin(l->zip, full, size, crc, &buf);
	if (r < 0)
		return r;
	if (data)
		cfs_buf_put(&buf, data->data, data->len);
	r = add_literal(l, &buf);
	if (r < 0)
		return r;
	if (!data) {
		r = cfs_map_add_map(l->map, payload->map);
		if (r < 0)
			return r;
	}
	r = cfs_zip_writer_end(l->zip, &buf);
	return r < 0 ? r : add_literal(l, &buf);
}

static int add_text(struct layout *l, const char *name, const char *text)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;

	cfs_buf_put_str(&buf, text);
	return buf.failed ? -ENOMEM : add_record(l, name, &buf, NULL);
}

/* 40 digits: the same content has the same ones, for ever. */
static int add_serialization_id(struct layout *l)
{
	char text[48];

	if (l->ident.failed)
		return -ENOMEM;
	(void)snprintf(
		text, sizeof(text), "%020llu%020llu",
		(unsigned long long)cfs_hash64(l->ident.data, l->ident.len, 0),
		(unsigned long long)cfs_hash64(l->ident.data, l->ident.len, 1));
	return add_text(l, ".data/serialization_id", text);
}

static int add_records(struct layout *l, const struct cfs_buf *pickle)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	char name[32];
	int r;

	r = add_record(l, "data.pkl", pickle, NULL);
	if (r < 0)
		return r;
	r = add_text(l, "byteorder", "little");
	for (size_t i = 0; !r && i < l->n; i++) {
		(void)snprintf(name, sizeof(name), "data/%zu", i);
		r = add_record(l, name, NULL, &l->payloads[i]);
	}
	if (r < 0)
		return r;
	r = add_text(l, "version", "3\n");
	if (r < 0)
		return r;
	r = add_serialization_id(l);
	if (r < 0)
		return r;
	r = cfs_zip_writer_finish(l->zip, &buf);
	return r < 0 ? r : add_literal(l, &buf);
}

static int lay_out(struct layout *l, const struct cfs_node *root,
		   const struct opener *open)
{
	const struct cfs_pickle_persid_ops persid = {make_id, l};
	_cleanup_(cfs_buf_free) struct cfs_buf pickle = CFS_BUF_INIT;
	int r;

	r = cfs_pickle_encode(root, &persid, &pickle, l->err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < l->n; i++) {
		r = find_payload(l, &l->payloads[i], open);
		if (r < 0)
			return r;
	}
	l->zip = cfs_zip_writer_new();
	l->map = cfs_map_new(l->w->tab);
	if (!l->zip || !l->map)
		return -ENOMEM;
	r = add_records(l, &pickle);
	if (r < 0)
		return r;
	cfs_map_seal(l->map);
	return 0;
}

int cfs_torch_writer_finish(struct cfs_torch_writer *w,
			    const struct cfs_node *root,
			    int (*open_file)(void *arg, uint32_t index,
					     struct cfs_file **borrowed),
			    void *open_arg, cfs_crc_fn *crc, void *crc_arg,
			    struct cfs_map **map_out, struct cfs_error *err)
{
	const struct opener open = {open_file, open_arg, crc, crc_arg};
	struct layout l = {.w = w, .err = err};
	int r;

	if (!root || cfs_pickle_failed(w->doc))
		return cfs_fail(err, -ENOMEM,
				"a part of the tree could not be made");
	r = lay_out(&l, root, &open);
	if (!r)
		*map_out = cfs_steal(l.map);
	layout_fini(&l);
	if (r == -ENOMEM)
		return cfs_fail(err, r, "out of memory");
	if (r == -EOVERFLOW || r == -EINVAL || r == -ENAMETOOLONG)
		return cfs_fail_prefix(err, r, "%s", w->prefix);
	return r;
}
