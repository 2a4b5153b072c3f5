/* fs/container/torchfile: storages, tensors, CRCs, sharing, legacy views. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "fs/container/torchfile.h"
#include "fs/container/zip.h"
#include "store/map/eval.h"
#include "store/util/arena.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/error.h"

/* A memory source with one file, and what was read from it. */
struct fixture {
	struct cfs_source *source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	struct cfs_file *file;
	struct cfs_torchfile *tf;
	uint32_t index;
	struct cfs_error err;
};

static void fixture_fini(struct fixture *f)
{
	cfs_torchfile_free(f->tf);
	cfs_file_close(f->file);
	cfs_filepool_free(f->pool);
	cfs_filetab_unref(f->tab);
	cfs_source_free(f->source);
}

static void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->source = cfs_source_mem_new();
	f->tab = cfs_filetab_new();
	f->pool = cfs_filepool_new(f->source);
	ck_assert(f->source && f->tab && f->pool);
}

/* Puts @b under @path and reads it; the result of reading. */
static int fixture_read(struct fixture *f, const char *path,
			const struct cfs_buf *b)
{
	struct cfs_version version;
	struct stat st;

	ck_assert_int_eq(cfs_source_mem_put(f->source, path, b->data, b->len),
			 0);
	cfs_file_close(f->file);
	f->file = NULL;
	ck_assert_int_eq(f->source->ops->open(f->source, path, &f->file), 0);
	ck_assert_int_eq(f->file->ops->stat(f->file, &st), 0);
	cfs_version_of(&st, &version);
	ck_assert_int_eq(cfs_filetab_add(f->tab, path, &version, &f->index), 0);
	cfs_torchfile_free(f->tf);
	f->tf = NULL;
	return cfs_torchfile_read(f->file, b->len, f->tab, f->index, NULL,
				  &f->tf, &f->err);
}

static int open_file(void *arg, uint32_t index, struct cfs_file **out)
{
	struct fixture *f = arg;

	ck_assert_uint_eq(index, f->index);
	*out = f->file;
	return 0;
}

static struct cfs_map *finish(struct fixture *f, struct cfs_torch_writer *w,
			      const struct cfs_node *root)
{
	struct cfs_map *map = NULL;
	const int r = cfs_torch_writer_finish(w, root, open_file, f, NULL, NULL,
					      &map, &f->err);

	ck_assert_msg(!r, "%d %s", r, f->err.text);
	return map;
}

/* All bytes of a map. */
static void flatten(struct fixture *f, struct cfs_map *map, struct cfs_buf *out)
{
	_cleanup_(cfs_reader_closep) struct cfs_reader *rd = NULL;
	uint8_t *p = cfs_buf_grow(out, (size_t)cfs_map_size(map));

	ck_assert_int_eq(cfs_reader_open(map, f->pool, NULL, &rd, &f->err), 0);
	ck_assert_int_eq(cfs_reader_pread(rd, p, out->len, 0),
			 (ssize_t)out->len);
}

static struct cfs_map *literal_map(struct fixture *f, const void *data,
				   size_t len)
{
	struct cfs_map *map = cfs_map_new(f->tab);

	ck_assert_int_eq(cfs_map_add_literal(map, data, len), 0);
	cfs_map_seal(map);
	return map;
}

/* The record's CRC, as the directory has it, and its true one. */
static void record_crcs(const struct cfs_buf *b, const char *name,
			uint32_t *said, uint32_t *real)
{
	_cleanup_(cfs_source_freep) struct cfs_source *source =
		cfs_source_mem_new();
	_cleanup_(cfs_file_closep) struct cfs_file *file = NULL;
	_cleanup_(cfs_arena_freep) struct cfs_arena *arena = cfs_arena_new(0);
	struct cfs_zip zip;
	uint64_t off;

	ck_assert_int_eq(cfs_source_mem_put(source, "z", b->data, b->len), 0);
	ck_assert_int_eq(source->ops->open(source, "z", &file), 0);
	ck_assert_int_eq(cfs_zip_read(file, b->len, arena, &zip, NULL), 0);
	for (uint32_t i = 0; i < zip.n_entries; i++) {
		if (strcmp(zip.entries[i].name, name))
			continue;
		ck_assert_int_eq(cfs_zip_payload(file, b->len, &zip.entries[i],
						 &off, NULL),
				 0);
		ck_assert_uint_eq(off % 64, 0);
		*said = zip.entries[i].crc;
		*real = (uint32_t)crc32_z(0, b->data + off,
					  (size_t)zip.entries[i].usize);
		return;
	}
	ck_abort_msg("no record %s", name);
}

/* {'a': float32 2x3, 'v': its second row, 'h': bf16[2], 'e': fp8[4],
 *  'n': float32[0]} */
static void make_file(struct fixture *f, struct cfs_buf *out)
{
	static const float six[6] = {0, 1, 2, 3, 4, 5};
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w =
		cfs_torch_writer_new(f->tab, "test");
	_cleanup_(cfs_map_unrefp) struct cfs_map *a =
		literal_map(f, six, sizeof(six));
	_cleanup_(cfs_map_unrefp) struct cfs_map *h = literal_map(f, "abcd", 4);
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	const struct cfs_torch_storage *s;
	struct cfs_pickle *doc = cfs_torch_writer_doc(w);
	struct cfs_node *root = cfs_node_dict(doc);

	s = cfs_torch_writer_storage(w, CFS_F32, 6, a, NULL, NULL);
	cfs_node_set_str(doc, root, "a",
			 cfs_torch_writer_tensor(
				 w, s, 0, 2, (const uint64_t[]){2, 3}, false));
	cfs_node_set_str(doc, root, "v",
			 cfs_torch_writer_tensor(w, s, 3, 1,
						 (const uint64_t[]){3}, true));
	cfs_node_set_str(
		doc, root, "t",
		cfs_torch_writer_strided(w, s, 0, 2, (const uint64_t[]){3, 2},
					 (const uint64_t[]){1, 3}, false));
	s = cfs_torch_writer_storage(w, CFS_BF16, 2, h, NULL, "cuda:1");
	cfs_node_set_str(doc, root, "h",
			 cfs_torch_writer_tensor(w, s, 0, 1,
						 (const uint64_t[]){2}, false));
	s = cfs_torch_writer_storage(w, CFS_F8_E4M3, 4, h, NULL, NULL);
	cfs_node_set_str(doc, root, "e",
			 cfs_torch_writer_tensor(w, s, 0, 1,
						 (const uint64_t[]){4}, false));
	s = cfs_torch_writer_storage(w, CFS_F32, 0, NULL, NULL, NULL);
	cfs_node_set_str(doc, root, "n",
			 cfs_torch_writer_tensor(w, s, 0, 1,
						 (const uint64_t[]){0}, false));
	map = finish(f, w, root);
	flatten(f, map, out);
}

static struct cfs_torch_tensor tensor(const struct fixture *f, const char *key)
{
	struct cfs_torch_tensor t;
	const struct cfs_node *node =
		cfs_node_get(cfs_torchfile_root(f->tf), key);

	ck_assert_ptr_nonnull(node);
	ck_assert(cfs_torch_is_tensor(node));
	ck_assert_int_eq(cfs_torch_tensor_get(node, &t), 0);
	return t;
}

START_TEST(what_is_written_is_read)
{
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_torch_tensor a, v, t;
	uint32_t said, real;
	uint64_t off, again;

	fixture_init(&f);
	make_file(&f, &b);
	ck_assert_msg(!fixture_read(&f, "x.pt", &b), "%s", f.err.text);
	ck_assert_uint_eq(cfs_torchfile_count(f.tf), 4);
	ck_assert(!cfs_torchfile_is_legacy(f.tf));
	a = tensor(&f, "a");
	v = tensor(&f, "v");
	t = tensor(&f, "t");
	ck_assert_ptr_eq(a.storage, v.storage);
	ck_assert_ptr_eq(a.storage, t.storage);
	ck_assert_str_eq(a.storage->key, "0");
	ck_assert_uint_eq(a.storage->nbytes, 24);
	ck_assert(a.contiguous && v.contiguous && !t.contiguous);
	ck_assert(!a.requires_grad && v.requires_grad);
	ck_assert_uint_eq(v.storage_offset, 3);
	ck_assert_uint_eq(a.stride[0], 3);
	ck_assert_int_eq(
		cfs_torch_storage_extent(a.storage, f.file, &off, &f.err), 0);
	ck_assert_uint_eq(off % 64, 0);
	ck_assert_int_eq(
		cfs_torch_storage_extent(a.storage, NULL, &again, NULL),
		0); /* the second time without a file */
	ck_assert_uint_eq(off, again);
	t = tensor(&f, "h");
	ck_assert_int_eq(t.dtype, CFS_BF16);
	ck_assert_str_eq(t.storage->location, "cuda:1");
	t = tensor(&f, "e");
	ck_assert_int_eq(t.dtype, CFS_F8_E4M3);
	ck_assert_str_eq(t.storage->cls_name, "UntypedStorage");
	ck_assert_uint_eq(tensor(&f, "n").numel, 0);
	record_crcs(&b, "test/data/0", &said, &real);
	ck_assert_uint_eq(said, real);
	record_crcs(&b, "test/data.pkl", &said, &real);
	ck_assert_uint_eq(said, real);
}
END_TEST

START_TEST(source_storages_are_carried_and_stay_shared)
{
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf c = CFS_BUF_INIT;
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_node *root, *old;
	struct cfs_segment seg;
	uint32_t said, real, ranges = 0;
	struct cfs_pickle *doc;

	fixture_init(&f);
	make_file(&f, &b);
	ck_assert_int_eq(fixture_read(&f, "x.pt", &b), 0);
	w = cfs_torch_writer_new(f.tab, "other");
	doc = cfs_torch_writer_doc(w);
	old = cfs_torchfile_root(f.tf);
	root = cfs_node_list(doc);
	cfs_node_append(doc, root, cfs_node_get(old, "v"));
	cfs_node_append(doc, root, cfs_node_get(old, "e"));
	cfs_node_append(doc, root, old);
	map = finish(&f, w, root);
	for (uint32_t i = 0; i < cfs_map_count(map); i++) {
		cfs_map_segment(map, i, &seg);
		ranges += seg.kind == CFS_SEG_RANGE;
	}
	ck_assert_uint_eq(ranges, 3); /* the fourth is empty */
	flatten(&f, map, &c);
	record_crcs(&c, "other/data/1", &said, &real);
	ck_assert_uint_eq(said, real);
	ck_assert_int_eq(fixture_read(&f, "y.pt", &c), 0);
	ck_assert_uint_eq(cfs_torchfile_count(f.tf), 4);
	root = cfs_torchfile_root(f.tf);
	ck_assert_ptr_eq(cfs_seq_node_item(root, 0),
			 cfs_node_get(cfs_seq_node_item(root, 2), "v"));
}
END_TEST

START_TEST(crcs_are_composed_where_parts_are_known)
{
	static const char text[] = "0123456789";
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf c = CFS_BUF_INIT;
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL, *known = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *unknown = NULL;
	const struct cfs_torch_storage *s;
	struct cfs_node *root;
	struct cfs_pickle *doc;
	uint32_t said, real;

	fixture_init(&f);
	cfs_buf_put(&b, text, 10);
	ck_assert_int_lt(fixture_read(&f, "raw", &b), 0); /* only bytes */
	w = cfs_torch_writer_new(f.tab, "p");
	doc = cfs_torch_writer_doc(w);
	cfs_torch_writer_note_crc(w, f.index, 2, 4,
				  (uint32_t)crc32_z(0, b.data + 2, 4));
	known = cfs_map_new(f.tab);
	ck_assert_int_eq(cfs_map_add_literal(known, "ab", 2), 0);
	ck_assert_int_eq(cfs_map_add_range(known, f.index, 2, 4), 0);
	ck_assert_int_eq(cfs_map_add_zero(known, 100001), 0);
	cfs_map_seal(known);
	unknown = cfs_map_new(f.tab);
	ck_assert_int_eq(cfs_map_add_range(unknown, f.index, 2, 5), 0);
	cfs_map_seal(unknown);
	root = cfs_node_list(doc);
	s = cfs_torch_writer_storage(w, CFS_U8, 100007, known, NULL, NULL);
	cfs_node_append(doc, root,
			cfs_torch_writer_tensor(w, s, 0, 0, NULL, false));
	s = cfs_torch_writer_storage(w, CFS_U8, 5, unknown, NULL, NULL);
	cfs_node_append(doc, root,
			cfs_torch_writer_tensor(w, s, 0, 0, NULL, false));
	map = finish(&f, w, root);
	flatten(&f, map, &c);
	record_crcs(&c, "p/data/0", &said, &real);
	ck_assert_uint_eq(said, real);
	record_crcs(&c, "p/data/1", &said, &real);
	ck_assert_uint_eq(said, 0);
	/* a payload of another length is refused */
	ck_assert_ptr_null(
		cfs_torch_writer_storage(w, CFS_F32, 5, unknown, NULL, NULL));
	ck_assert(cfs_pickle_failed(doc));
}
END_TEST

static int fixed_crc(void *arg, const struct cfs_map *payload, uint32_t *out)
{
	ck_assert_uint_eq(cfs_map_size(payload), 5);
	*out = *(const uint32_t *)arg;
	return 0;
}

START_TEST(unknown_crcs_can_be_asked_for)
{
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf c = CFS_BUF_INIT;
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL, *payload = NULL;
	uint32_t said, real, crc = 0x12345678;
	const struct cfs_torch_storage *s;

	fixture_init(&f);
	cfs_buf_put(&b, "0123456789", 10);
	ck_assert_int_lt(fixture_read(&f, "raw", &b), 0);
	w = cfs_torch_writer_new(f.tab, "p");
	payload = cfs_map_new(f.tab);
	ck_assert_int_eq(cfs_map_add_range(payload, f.index, 0, 5), 0);
	cfs_map_seal(payload);
	s = cfs_torch_writer_storage(w, CFS_U8, 5, payload, NULL, NULL);
	ck_assert_int_eq(
		cfs_torch_writer_finish(
			w, cfs_torch_writer_tensor(w, s, 0, 0, NULL, false),
			open_file, &f, fixed_crc, &crc, &map, NULL),
		0);
	flatten(&f, map, &c);
	record_crcs(&c, "p/data/0", &said, &real);
	ck_assert_uint_eq(said, crc);
}
END_TEST

/* An archive of this pickle and one storage of @len bytes. */
static void archive(const void *pickle, size_t pickle_len, size_t len,
		    struct cfs_buf *out)
{
	static const uint8_t bytes[64];
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();
	const struct {
		const char *name;
		const void *data;
		size_t len;
	} records[] = {{"a/data.pkl", pickle, pickle_len},
		       {"a/data/0", bytes, len},
		       {"a/version", "3\n", 2}};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(records); i++) {
		ck_assert_int_eq(cfs_zip_writer_begin(w, records[i].name,
						      records[i].len, 0, out),
				 0);
		cfs_buf_put(out, records[i].data, records[i].len);
		ck_assert_int_eq(cfs_zip_writer_end(w, out), 0);
	}
	ck_assert_int_eq(cfs_zip_writer_finish(w, out), 0);
}

/* ('storage', torch.FloatStorage, '0', 'cpu', <numel>) BINPERSID */
#define FLOATS(numel)                                                          \
	"(X\x07\0\0\0storagectorch\nFloatStorage\n"                            \
	"X\x01\0\0\0"                                                          \
	"0X\x03\0\0\0cpuK" numel "tQ"
#define TENSOR(storage, off, size, stride, tail)                               \
	"\x80\x02"                                                             \
	"ctorch._utils\n_rebuild_tensor_v2\n(" storage "K" off "K" size        \
	"\x85K" stride "\x85\x89"                                              \
	"ccollections\nOrderedDict\n)R" tail "tR."

static int tensor_of(const char *pickle, size_t len, struct fixture *f,
		     struct cfs_torch_tensor *t)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;

	fixture_init(f);
	archive(pickle, len, 16, &b);
	ck_assert_msg(!fixture_read(f, "t.pt", &b), "%s", f->err.text);
	return cfs_torch_tensor_get(cfs_torchfile_root(f->tf), t);
}

#define ck_tensor(lit, want)                                                   \
	do {                                                                   \
		struct fixture f_;                                             \
		struct cfs_torch_tensor t_;                                    \
                                                                               \
		ck_assert_int_eq(tensor_of(lit, sizeof(lit) - 1, &f_, &t_),    \
				 want);                                        \
		fixture_fini(&f_);                                             \
	} while (0)

START_TEST(tensors_lie_inside_their_storage)
{
	ck_tensor(TENSOR(FLOATS("\4"), "\0", "\4", "\1", ""), 0);
	ck_tensor(TENSOR(FLOATS("\4"), "\1", "\4", "\1", ""), -EBADMSG);
	ck_tensor(TENSOR(FLOATS("\4"), "\1", "\2", "\2", ""), 0);
	ck_tensor(TENSOR(FLOATS("\4"), "\1", "\2", "\3", ""), -EBADMSG);
	ck_tensor(TENSOR(FLOATS("\4"), "\x40", "\0", "\1", ""), 0);
	ck_tensor(TENSOR(FLOATS("\4"), "\0", "\4", "\1", "}X\4\0\0\0conj\x88s"),
		  -ENOTSUP);
	ck_tensor(TENSOR(FLOATS("\4"), "\0", "\4", "\1", "}"), 0);
	ck_tensor(TENSOR("K\1", "\0", "\4", "\1", ""), -ENOTSUP);
	ck_tensor("\x80\x02]q\0.", -ENOENT);
	ck_tensor("\x80\x02"
		  "ctorch._utils\n_rebuild_sparse_tensor\n)R.",
		  -ENOTSUP);
	ck_tensor("\x80\x02"
		  "ctorch._utils\n_rebuild_parameter\n)R.",
		  -EBADMSG);
}
END_TEST

START_TEST(archives_that_lie_are_refused)
{
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	const char two[] = "\x80\x02" FLOATS("\4") FLOATS("\3") "\x86.";
	const char more[] = "\x80\x02" FLOATS("\5") ".";
	const char bare[] = "\x80\x02K\1Q.";

	fixture_init(&f);
	archive(two, sizeof(two) - 1, 16, &b);
	ck_assert_int_eq(fixture_read(&f, "a", &b), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(f.err.text, "in two ways"));
	cfs_buf_reset(&b);
	archive(more, sizeof(more) - 1, 16, &b);
	ck_assert_int_eq(fixture_read(&f, "b", &b), -EBADMSG);
	ck_assert_ptr_nonnull(
		strstr(f.err.text, "has 16 bytes, its tensors need 20"));
	cfs_buf_reset(&b);
	archive(bare, sizeof(bare) - 1, 16, &b);
	ck_assert_int_eq(fixture_read(&f, "c", &b), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(f.err.text, "names no storage"));
}
END_TEST

/* Five pickles, the fourth given; one storage '5' of four floats. */
static void legacy(const char *object, size_t len, struct cfs_buf *b)
{
	cfs_buf_put(b, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.", 15);
	cfs_buf_put(b, "\x80\x02M\xe9\x03.", 6);
	cfs_buf_put_str(b, "\x80\x02}X\x0d");
	cfs_buf_put(b, "\0\0\0little_endian\x88s.", 19);
	cfs_buf_put(b, object, len);
	cfs_buf_put(b,
		    "\x80\x02]X\1\0\0\0"
		    "5a.",
		    11);
	cfs_buf_put_le64(b, 4);
	cfs_buf_put_str(b, "abcdefghijklmnop");
}

START_TEST(legacy_views_are_storages)
{
	static const char object[] =
		"\x80\x02"
		"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
		"5X\x03\0\0\0cpuK\x04(X\1\0\0\0"
		"7K\x01K\x02ttQ"
		"(X\x06\0\0\0modulecm\nNet\nX\1\0\0\0fX\1\0\0\0stQ\x86.";
	_cleanup_(fixture_fini) struct fixture f;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	const struct cfs_torch_storage *s;
	const struct cfs_node *root;
	uint64_t off;

	fixture_init(&f);
	legacy(object, sizeof(object) - 1, &b);
	ck_assert_msg(!fixture_read(&f, "l.pt", &b), "%s", f.err.text);
	ck_assert(cfs_torchfile_is_legacy(f.tf));
	root = cfs_torchfile_root(f.tf);
	s = cfs_seq_node_item(root, 0)->u.persid.storage;
	ck_assert_str_eq(s->key, "7");
	ck_assert_uint_eq(s->nbytes, 8);
	ck_assert_int_eq(cfs_torch_storage_extent(s, f.file, &off, &f.err), 0);
	ck_assert_mem_eq(b.data + off, "efghijkl", 8);
	/* the class of a module is what its id was about */
	ck_assert(cfs_node_is_global(cfs_seq_node_item(root, 1), "m", "Net"));
	/* a count that differs from what the tensors say */
	b.data[b.len - 24]++;
	ck_assert_int_eq(fixture_read(&f, "m.pt", &b), 0);
	s = cfs_torchfile_storage(f.tf, 0);
	ck_assert_int_eq(cfs_torch_storage_extent(s, f.file, &off, &f.err),
			 -EBADMSG);
	ck_assert_ptr_nonnull(strstr(f.err.text, "5 elements"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("torchfile");
	TCase *tc = tcase_create("torchfile");

	tcase_add_test(tc, what_is_written_is_read);
	tcase_add_test(tc, source_storages_are_carried_and_stay_shared);
	tcase_add_test(tc, crcs_are_composed_where_parts_are_known);
	tcase_add_test(tc, unknown_crcs_can_be_asked_for);
	tcase_add_test(tc, tensors_lie_inside_their_storage);
	tcase_add_test(tc, archives_that_lie_are_refused);
	tcase_add_test(tc, legacy_views_are_storages);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
