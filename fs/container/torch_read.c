/* Files of torch.save: opening them, their records, where storages lie. */
#include "fs/container/torchfile.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/container/pickle_internal.h"
#include "fs/container/torch_internal.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/checked.h"
#include "store/util/endian.h"
#include "store/util/error.h"

struct cfs_torch_offset {
	_Atomic uint64_t value;
};

#define SMALL_RECORD_MAX 64
#define TAR_MAGIC_AT	 257
#define SNIFF_BYTES	 512

void cfs_torchfile_free(struct cfs_torchfile *tf)
{
	if (!tf)
		return;
	cfs_pickle_free(tf->doc);
	cfs_arena_free(tf->arena);
	cfs_filetab_unref(tf->tab);
	cfs_u64map_free(&tf->by_key);
	free(tf->storages);
	free(tf->offsets);
	free(tf);
}

void cfs_torchfile_freep(struct cfs_torchfile **tf)
{
	cfs_torchfile_free(*tf);
}

struct cfs_node *cfs_torchfile_root(const struct cfs_torchfile *tf)
{
	return tf->root;
}

bool cfs_torchfile_is_legacy(const struct cfs_torchfile *tf)
{
	return tf->legacy;
}

uint32_t cfs_torchfile_index(const struct cfs_torchfile *tf)
{
	return tf->index;
}

uint32_t cfs_torchfile_count(const struct cfs_torchfile *tf)
{
	return tf->n_storages;
}

const struct cfs_torch_storage *
cfs_torchfile_storage(const struct cfs_torchfile *tf, uint32_t i)
{
	return i < tf->n_storages ? tf->storages[i] : NULL;
}

const struct cfs_zip *cfs_torchfile_zip(const struct cfs_torchfile *tf)
{
	return tf->legacy ? NULL : &tf->zip;
}

const struct cfs_zip_entry *cfs_torchfile_record(const struct cfs_torchfile *tf,
						 const char *name)
{
	const size_t n = strlen(tf->prefix);

	for (uint32_t i = 0; i < tf->zip.n_entries; i++) {
		const struct cfs_zip_entry *e = &tf->zip.entries[i];

		if (!strncmp(e->name, tf->prefix, n) &&
		    !strcmp(e->name + n, name))
			return e;
	}
	return NULL;
}

/* A record of a few bytes, as text. */
static int read_small(const struct cfs_torchfile *tf, struct cfs_file *file,
		      const char *name, char *out, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	const struct cfs_zip_entry *e = cfs_torchfile_record(tf, name);
	int r;

	if (!e)
		return -ENOENT;
	r = cfs_zip_extract(file, tf->size, e, SMALL_RECORD_MAX - 1, &buf, err);
	if (r < 0)
		return r == -E2BIG ? -EBADMSG : r;
	memcpy(out, cfs_buf_str(&buf), buf.len + 1);
	return 0;
}

static int check_byteorder(const struct cfs_torchfile *tf,
			   struct cfs_file *file, struct cfs_error *err)
{
	char text[SMALL_RECORD_MAX];
	int r = read_small(tf, file, "byteorder", text, err);

	if (r == -ENOENT)
		return 0; /* torch < 2.1 */
	if (r < 0)
		return r;
	if (!strcmp(text, "big"))
		return cfs_fail(err, -ENOTSUP, "saved on a big-endian machine");
	if (strcmp(text, "little"))
		return cfs_fail(err, -EBADMSG, "record byteorder is '%.20s'",
				text);
	return 0;
}

static int check_version(const struct cfs_torchfile *tf, struct cfs_file *file,
			 struct cfs_error *err)
{
	char text[SMALL_RECORD_MAX], *end;
	unsigned long v;
	int r = read_small(tf, file, "version", text, err);

	if (r == -ENOENT)
		r = read_small(tf, file, ".data/version", text, err);
	if (r == -ENOENT)
		return cfs_fail(err, -EBADMSG, "no record named version");
	if (r < 0)
		return r;
	v = strtoul(text, &end, 10);
	if (end == text || (*end && *end != '\n') || v < 1)
		return cfs_fail(err, -EBADMSG, "record version is '%.20s'",
				text);
	if (v > 10)
		return cfs_fail(err, -EPROTONOSUPPORT,
				"file format version %lu is newer than 10", v);
	return 0;
}

/* Everything lies in the directory that the first record names. */
static int find_prefix(struct cfs_torchfile *tf, struct cfs_error *err)
{
	const char *first, *slash;

	if (!tf->zip.n_entries)
		return cfs_fail(err, -EBADMSG, "a zip archive without records");
	first = tf->zip.entries[0].name;
	slash = strchr(first, '/');
	if (!slash)
		return cfs_fail(err, -EBADMSG,
				"record '%.200s' is not in a directory; not "
				"an archive of torch.save",
				first);
	tf->prefix = cfs_arena_strndup(tf->arena, first,
				       (size_t)(slash - first) + 1);
	return tf->prefix ? 0 : -ENOMEM;
}

static int read_zip(struct cfs_torchfile *tf, struct cfs_file *file,
		    struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	const struct cfs_zip_entry *e;
	int r;

	r = cfs_zip_read(file, tf->size, tf->arena, &tf->zip, err);
	if (r < 0)
		return r;
	r = find_prefix(tf, err);
	if (r < 0)
		return r;
	if (cfs_torchfile_record(tf, "constants.pkl"))
		return cfs_fail(err, -ENOTSUP,
				"an archive of torch.jit.save (TorchScript)");
	e = cfs_torchfile_record(tf, "data.pkl");
	if (!e)
		return cfs_fail(err, -EBADMSG,
				"no record named data.pkl; not an archive of "
				"torch.save");
	r = check_version(tf, file, err);
	if (r < 0)
		return r;
	r = check_byteorder(tf, file, err);
	if (r < 0)
		return r;
	r = cfs_zip_extract(file, tf->size, e, tf->doc->limits.memory_bytes,
			    &raw, err);
	if (r < 0)
		return r;
	r = cfs_pickle_decode(tf->doc, raw.data, raw.len, &tf->root, NULL, err);
	if (r < 0)
		return r;
	return cfs_torchfile_resolve(tf, err);
}

/* A legacy file starts with a number, pickled in the protocol of the rest. */
static bool is_legacy(const struct cfs_torchfile *tf, const uint8_t *head,
		      size_t len)
{
	static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9,
					0x20, 0x6a, 0xa8, 0x50, 0x19};
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(&tf->doc->limits);
	struct cfs_node *node;

	return doc && !cfs_pickle_decode(doc, head, len, &node, NULL, NULL) &&
	       node->kind == CFS_NODE_BIGINT &&
	       node->u.str.len == sizeof(magic) &&
	       !memcmp(node->u.str.data, magic, sizeof(magic));
}

/* Which of torch's formats is it? */
static int read_any(struct cfs_torchfile *tf, struct cfs_file *file,
		    struct cfs_error *err)
{
	uint8_t head[SNIFF_BYTES] = {0};
	const size_t n = (size_t)CFS_MIN(tf->size, (uint64_t)sizeof(head));
	int r;

	r = cfs_file_pread_all(file, head, n, 0);
	if (r < 0)
		return cfs_fail(err, r, "cannot be read: %s", strerror(-r));
	if (n >= 4 && !memcmp(head, "PK\3\4", 4))
		return read_zip(tf, file, err);
	if (is_legacy(tf, head, n)) {
		tf->legacy = true;
		return cfs_torchfile_read_legacy(tf, file, err);
	}
	if (!memcmp(head, "PYTORCH1", 8))
		return cfs_fail(err, -ENOTSUP,
				"a PYTORCH1 file, which no released torch "
				"reads");
	if (!memcmp(head + TAR_MAGIC_AT, "ustar", 5))
		return cfs_fail(err, -ENOTSUP,
				"a tar file of torch before 0.1.10; save it "
				"again with a newer torch");
	if (!n)
		return cfs_fail(err, -EBADMSG, "the file is empty");
	return cfs_fail(err, -EBADMSG, "not a file of torch.save");
}

int cfs_torchfile_read(struct cfs_file *file, uint64_t size,
		       struct cfs_filetab *tab, uint32_t index,
		       const struct cfs_pickle_limits *limits,
		       struct cfs_torchfile **out, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	int r;

	tf = calloc(1, sizeof(*tf));
	if (!tf)
		return cfs_fail(err, -ENOMEM, "out of memory");
	tf->tab = cfs_filetab_ref(tab);
	tf->index = index;
	tf->size = size;
	tf->doc = cfs_pickle_new(limits);
	tf->arena =
		tf->doc ? cfs_arena_new(tf->doc->limits.memory_bytes) : NULL;
	if (!tf->arena)
		return cfs_fail(err, -ENOMEM, "out of memory");
	r = read_any(tf, file, err);
	if (r == -ENOMEM)
		return cfs_fail(err, r, "out of memory");
	if (r < 0)
		return r;
	if (tf->n_storages) {
		tf->offsets = calloc(tf->n_storages, sizeof(*tf->offsets));
		if (!tf->offsets)
			return cfs_fail(err, -ENOMEM, "out of memory");
	}
	*out = cfs_steal(tf);
	return 0;
}

/* A legacy storage has its number of elements, as int64, in front of it. */
static int legacy_offset(const struct cfs_torch_storage *storage,
			 struct cfs_file *file, uint64_t *off_out,
			 struct cfs_error *err)
{
	const uint64_t count_off = storage->legacy_count_off;
	uint8_t raw[8];
	int r;

	r = cfs_file_pread_all(file, raw, sizeof(raw), count_off);
	if (r < 0)
		return cfs_fail(err, r, "storage %s: %s", storage->key,
				strerror(-r));
	if (cfs_get_le64(raw) != storage->legacy_count)
		return cfs_fail(err, -EBADMSG,
				"storage %s has %llu elements at offset %llu, "
				"not the %llu its tensors speak of",
				storage->key,
				(unsigned long long)cfs_get_le64(raw),
				(unsigned long long)count_off,
				(unsigned long long)storage->legacy_count);
	*off_out = storage->legacy_off;
	return 0;
}

static int zip_offset(const struct cfs_torch_storage *storage,
		      struct cfs_file *file, uint64_t *off_out,
		      struct cfs_error *err)
{
	const struct cfs_torchfile *tf = storage->file;
	const struct cfs_zip_entry *e = &tf->zip.entries[storage->zip_entry];

	if (e->method)
		return cfs_fail(err, -ENOTSUP,
				"record '%.200s' is compressed; save the file "
				"again with torch",
				e->name);
	return cfs_zip_payload(file, tf->size, e, off_out, err);
}

int cfs_torch_storage_extent(const struct cfs_torch_storage *storage,
			     struct cfs_file *file, uint64_t *off_out,
			     struct cfs_error *err)
{
	const struct cfs_torchfile *tf = storage->file;
	struct cfs_torch_offset *cached;
	uint64_t off;
	int r;

	if (!tf)
		return cfs_fail(err, -EINVAL, "a storage of no file");
	cached = &tf->offsets[storage->number];
	off = atomic_load_explicit(&cached->value, memory_order_relaxed);
	if (!off) {
		r = tf->legacy ? legacy_offset(storage, file, &off, err)
			       : zip_offset(storage, file, &off, err);
		if (r < 0)
			return r;
		atomic_store_explicit(&cached->value, off,
				      memory_order_relaxed);
	}
	*off_out = off;
	return 0;
}
