/* fs/container/sniff: hints hit tensors exactly, however a file is written. */
#include "tests/test.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/container/sniff.h"
#include "fs/container/torchfile.h"
#include "store/map/eval.h"
#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/endian.h"

struct regions {
	struct cfs_region v[4096];
	size_t n;
	uint64_t fed; /* bytes of earlier calls */
};

static void note(void *arg, const struct cfs_region *region)
{
	struct regions *r = arg;

	ck_assert_uint_lt(r->n, CFS_ARRAY_SIZE(r->v));
	ck_assert_uint_ge(region->off, r->fed);
	ck_assert_uint_gt(region->len, 0);
	if (r->n)
		ck_assert_uint_ge(region->off,
				  r->v[r->n - 1].off + r->v[r->n - 1].len);
	r->v[r->n++] = *region;
}

/* As the mount does: pieces of at most @piece bytes (0: all), what is not
 * asked for left out; if @random, some of it is not. */
static struct regions *sniff(const char *name, const struct cfs_buf *b,
			     size_t piece, bool random)
{
	struct regions *r = calloc(1, sizeof(*r));
	void *s = cfs_sniffer.begin(name);
	uint64_t want = 0;

	ck_assert(r && s);
	for (uint64_t at = 0, n; at < b->len; at += n) {
		n = piece ? piece : b->len;
		if (random)
			n = (uint64_t)rand() % piece + 1;
		n = CFS_MIN(n, b->len - at);
		if (want < at + n) {
			const uint64_t skip =
				want > at && !(random && rand() % 2) ? want - at
								     : 0;

			want = cfs_sniffer.feed(s, b->data + at + skip,
						(size_t)(n - skip), at + skip,
						note, r);
			ck_assert_uint_ge(want, at + n);
		}
		r->fed = at + n;
	}
	cfs_sniffer.end(s);
	return r;
}

static void same(const struct regions *a, const struct regions *b)
{
	ck_assert_uint_eq(a->n, b->n);
	for (size_t i = 0; i < a->n; i++) {
		ck_assert_uint_eq(a->v[i].off, b->v[i].off);
		ck_assert_uint_eq(a->v[i].len, b->v[i].len);
		ck_assert_uint_eq(a->v[i].phase, b->v[i].phase);
		ck_assert_uint_eq(a->v[i].elem_size, b->v[i].elem_size);
		ck_assert_int_eq(a->v[i].grid, b->v[i].grid);
	}
}

static struct regions *sniff_all_ways(const char *name, const struct cfs_buf *b)
{
	static const size_t pieces[] = {1, 7, 64, 4096};
	struct regions *whole = sniff(name, b, 0, false), *r;

	for (size_t i = 0; i < CFS_ARRAY_SIZE(pieces); i++) {
		r = sniff(name, b, pieces[i], false);
		same(whole, r);
		free(r);
	}
	r = sniff(name, b, 5000, true);
	same(whole, r);
	free(r);
	return whole;
}

static const struct cfs_region *at(const struct regions *r, uint64_t off)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].off <= off && off < r->v[i].off + r->v[i].len)
			return &r->v[i];
	return NULL;
}

/* A torch file in memory, and read. */
struct bed {
	struct cfs_source *source;
	struct cfs_filetab *tab;
	struct cfs_filepool *pool;
	struct cfs_file *file;
	struct cfs_torchfile *tf;
};

static void bed_fini(struct bed *b)
{
	cfs_torchfile_free(b->tf);
	cfs_file_close(b->file);
	cfs_filepool_free(b->pool);
	cfs_filetab_unref(b->tab);
	cfs_source_free(b->source);
}

static void bed_init(struct bed *b)
{
	memset(b, 0, sizeof(*b));
	b->source = cfs_source_mem_new();
	b->tab = cfs_filetab_new();
	b->pool = cfs_filepool_new(b->source);
	ck_assert(b->source && b->tab && b->pool);
}

static void bed_read(struct bed *b, const struct cfs_buf *bytes)
{
	struct cfs_version version;
	struct stat st;
	uint32_t index;

	ck_assert_int_eq(
		cfs_source_mem_put(b->source, "f", bytes->data, bytes->len), 0);
	ck_assert_int_eq(b->source->ops->open(b->source, "f", &b->file), 0);
	ck_assert_int_eq(b->file->ops->stat(b->file, &st), 0);
	cfs_version_of(&st, &version);
	ck_assert_int_eq(cfs_filetab_add(b->tab, "f", &version, &index), 0);
	ck_assert_int_eq(cfs_torchfile_read(b->file, bytes->len, b->tab, index,
					    NULL, &b->tf, NULL),
			 0);
}

static uint64_t place(const struct bed *b, const struct cfs_torch_storage *s)
{
	uint64_t off;

	ck_assert_int_eq(cfs_torch_storage_extent(s, b->file, &off, NULL), 0);
	return off;
}

/* Every storage of wide elements is covered from end to end, and no other
 * byte is: returns how many there are. */
static size_t storages_are_covered(const struct bed *b, const struct regions *r)
{
	uint64_t covered = 0, all = 0;
	size_t n = 0;

	for (size_t i = 0; i < r->n; i++)
		covered += r->v[i].len;
	for (uint32_t i = 0; i < cfs_torchfile_count(b->tf); i++) {
		const struct cfs_torch_storage *s =
			cfs_torchfile_storage(b->tf, i);
		const uint64_t off = place(b, s);
		uint64_t to = off;

		while (to < off + s->nbytes && at(r, to)) {
			ck_assert_uint_eq(at(r, to)->off, to);
			to += at(r, to)->len;
		}
		if (cfs_dtype_size(s->dtype) > 1)
			ck_assert_uint_eq(to, off + s->nbytes);
		else
			ck_assert(to == off || to == off + s->nbytes);
		all += to - off;
		n += to > off;
	}
	ck_assert_uint_eq(covered, all);
	return n;
}

static void tensor_is_region(const struct bed *b, const struct regions *r,
			     const struct cfs_node *node)
{
	struct cfs_torch_tensor t;
	const struct cfs_region *region;
	uint64_t size;

	if (cfs_torch_tensor_get(node, &t) || !t.numel)
		return;
	size = cfs_dtype_size(t.dtype);
	region = at(r, place(b, t.storage) + t.storage_offset * size);
	ck_assert_ptr_nonnull(region);
	ck_assert_uint_eq(region->off,
			  place(b, t.storage) + t.storage_offset * size);
	ck_assert_uint_eq(region->len, t.numel * size);
	ck_assert_uint_eq(region->elem_size, size);
	ck_assert_uint_eq(region->phase, 0);
	ck_assert(region->grid);
}

/* The flat tensors of ZeRO 1 and 2 lie on the grid of their group. */
static size_t flats_are_in_phase(const struct bed *b, const struct regions *r,
				 const struct cfs_node *masters,
				 const struct cfs_node *state, uint64_t rank)
{
	const uint32_t n = cfs_seq_node_count(masters);
	size_t checked = 0;

	for (uint32_t g = 0; g < n; g++) {
		const struct cfs_node *of_group = cfs_node_get_int(state, g);
		const struct cfs_node *nodes[] = {
			cfs_seq_node_item(masters, g),
			cfs_node_get(of_group, "exp_avg"),
			cfs_node_get(of_group, "exp_avg_sq"),
		};
		struct cfs_torch_tensor t;
		uint64_t part;

		if (cfs_torch_tensor_get(nodes[1], &t))
			continue;
		part = t.numel;
		for (size_t i = 0; i < CFS_ARRAY_SIZE(nodes); i++) {
			const struct cfs_region *region;

			ck_assert_int_eq(cfs_torch_tensor_get(nodes[i], &t), 0);
			if (t.numel < 2)
				continue;
			region = at(r, place(b, t.storage));
			ck_assert_ptr_nonnull(region);
			ck_assert_uint_eq(region->len, t.storage->nbytes);
			ck_assert_uint_eq(region->phase, rank * part * 4);
			ck_assert(region->grid);
			checked++;
		}
	}
	return checked;
}

static size_t n_files, n_flat, n_weights, n_storages;

static int check_golden(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(bed_fini) struct bed bed = {0};
	const char *name = path + ftw->base, *rank;
	const struct cfs_node *root, *osd, *module;
	struct cfs_node *key, *value;
	struct regions *r;
	FILE *f;

	if (type != FTW_F || !strstr(name, "states.pt"))
		return 0;
	bed_init(&bed);
	f = fopen(path, "rb");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(cfs_buf_grow(&b, (size_t)st->st_size));
	ck_assert_uint_eq(fread(b.data, 1, b.len, f), b.len);
	(void)fclose(f);
	if (cfs_get_le32(b.data) != 0x04034b50)
		return 0;
	bed_read(&bed, &b);
	r = n_files % 8 ? sniff(name, &b, 0, false) : sniff_all_ways(name, &b);
	n_storages += storages_are_covered(&bed, r);
	root = cfs_torchfile_root(bed.tf);
	osd = cfs_node_get(root, "optimizer_state_dict");
	rank = strstr(name, "zero_pp_rank_");
	if (rank && cfs_node_get(osd, "single_partition_of_fp32_groups"))
		n_flat += flats_are_in_phase(
			&bed, r,
			cfs_node_get(osd, "single_partition_of_fp32_groups"),
			cfs_node_get(cfs_node_get(osd, "base_optimizer_state"),
				     "state"),
			strtoul(rank + strlen("zero_pp_rank_"), NULL, 10));
	module = cfs_node_get(root, "module");
	for (uint32_t i = 0; i < cfs_map_node_count(module); i++) {
		cfs_map_node_pair(module, i, &key, &value);
		tensor_is_region(&bed, r, value);
		n_weights++;
	}
	free(r);
	n_files++;
	return 0;
}

START_TEST(golden_files_are_hit)
{
	ck_assert_int_eq(nftw(CFS_TEST_DATA, check_golden, 16, FTW_PHYS), 0);
	ck_assert_uint_gt(n_files, 50);
	ck_assert_uint_gt(n_flat, 50);
	ck_assert_uint_gt(n_weights, 100);
	ck_assert_uint_gt(n_storages, 200);
}
END_TEST

static void put_tensor(struct bed *b, struct cfs_torch_writer *w,
		       struct cfs_node *root, const char *key, uint64_t numel)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(b->tab);
	struct cfs_pickle *doc = cfs_torch_writer_doc(w);

	ck_assert_int_eq(cfs_map_add_zero(map, numel * 4), 0);
	cfs_map_seal(map);
	cfs_node_set_str(doc, root, key,
			 cfs_torch_writer_tensor(
				 w,
				 cfs_torch_writer_storage(w, CFS_F32, numel,
							  map, NULL, NULL),
				 0, 1, &numel, false));
}

/* A map of a file with tensors of more and of less than 4 GiB. */
static struct cfs_map *big_file(struct bed *b)
{
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w =
		cfs_torch_writer_new(b->tab, "big");
	struct cfs_node *root = cfs_node_dict(cfs_torch_writer_doc(w));
	struct cfs_map *map = NULL;

	put_tensor(b, w, root, "a", (uint64_t)5 << 28);
	put_tensor(b, w, root, "b", 1000);
	put_tensor(b, w, root, "c", (uint64_t)1 << 28);
	put_tensor(b, w, root, "d", 3);
	ck_assert_int_eq(cfs_torch_writer_finish(w, root, NULL, NULL, NULL,
						 NULL, &map, NULL),
			 0);
	return map;
}

START_TEST(bulk_is_skipped)
{
	static const uint64_t lens[] = {(uint64_t)5 << 30, 4000,
					(uint64_t)1 << 30, 12};
	_cleanup_(bed_fini) struct bed b;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_reader_closep) struct cfs_reader *rd = NULL;
	struct regions *r = calloc(1, sizeof(*r));
	void *s = cfs_sniffer.begin("big.pt");
	uint64_t want = 0, read = 0;
	uint8_t page[4096];

	bed_init(&b);
	map = big_file(&b);
	ck_assert(s && r);
	ck_assert_int_eq(cfs_reader_open(map, b.pool, NULL, &rd, NULL), 0);
	while (want < cfs_map_size(map)) {
		const ssize_t n =
			cfs_reader_pread(rd, page, sizeof(page), want);

		ck_assert_int_gt(n, 0);
		want = cfs_sniffer.feed(s, page, (size_t)n, want, note, r);
		read += (uint64_t)n;
	}
	cfs_sniffer.end(s);
	ck_assert_uint_lt(read, 100000);
	ck_assert_uint_eq(r->n, CFS_ARRAY_SIZE(lens));
	for (size_t i = 0; i < r->n; i++) {
		ck_assert_uint_eq(r->v[i].len, lens[i]);
		ck_assert_uint_eq(r->v[i].off % 64, 0);
		ck_assert_uint_eq(r->v[i].elem_size, 4);
	}
	free(r);
}
END_TEST

/* What torch.distributed.checkpoint puts into one file. */
START_TEST(archives_in_a_row)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	_cleanup_(bed_fini) struct bed bed;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;
	_cleanup_(cfs_reader_closep) struct cfs_reader *rd = NULL;
	struct cfs_node *root;
	struct regions *r;
	size_t len;

	bed_init(&bed);
	w = cfs_torch_writer_new(bed.tab, "archive");
	root = cfs_node_dict(cfs_torch_writer_doc(w));
	put_tensor(&bed, w, root, "x", 70000);
	ck_assert_int_eq(cfs_torch_writer_finish(w, root, NULL, NULL, NULL,
						 NULL, &map, NULL),
			 0);
	ck_assert_int_eq(cfs_reader_open(map, bed.pool, NULL, &rd, NULL), 0);
	len = (size_t)cfs_map_size(map);
	ck_assert_ptr_nonnull(cfs_buf_grow(&b, len));
	ck_assert_int_eq(cfs_reader_pread(rd, b.data, len, 0), len);
	ck_assert_ptr_nonnull(cfs_buf_grow(&b, len));
	memcpy(b.data + len, b.data, len);
	r = sniff_all_ways("__0_0.distcp", &b);
	ck_assert_uint_eq(r->n, 2);
	ck_assert_uint_eq(r->v[0].len, 280000);
	ck_assert_uint_eq(r->v[1].len, 280000);
	ck_assert_uint_eq(r->v[1].off, r->v[0].off + len);
	free(r);
}
END_TEST

START_TEST(safetensors_are_hit)
{
	static const char json[] = "{\"__metadata__\":{\"format\":\"pt\"},"
				   "\"b\":{\"dtype\":\"BF16\",\"shape\":[50],"
				   "\"data_offsets\":[400,500]},"
				   "\"a\":{\"dtype\":\"F32\",\"shape\":[10,10],"
				   "\"data_offsets\":[0,400]},"
				   "\"none\":{\"dtype\":\"F32\",\"shape\":[0],"
				   "\"data_offsets\":[400,400]}}  ";
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct regions *r;

	cfs_buf_put_le64(&b, sizeof(json) - 1);
	cfs_buf_put_str(&b, json);
	memset(cfs_buf_grow(&b, 500), 7, 500);
	r = sniff_all_ways("model.safetensors", &b);
	ck_assert_uint_eq(r->n, 2);
	ck_assert_uint_eq(r->v[0].off, 8 + sizeof(json) - 1);
	ck_assert_uint_eq(r->v[0].len, 400);
	ck_assert_uint_eq(r->v[0].elem_size, 4);
	ck_assert(r->v[0].grid);
	ck_assert_uint_eq(r->v[1].off, 8 + sizeof(json) - 1 + 400);
	ck_assert_uint_eq(r->v[1].len, 100);
	ck_assert_uint_eq(r->v[1].elem_size, 2);
	free(r);
}
END_TEST

START_TEST(npy_is_hit)
{
	static const char text[] =
		"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 5), }  "
		"\n";
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct regions *r;

	cfs_buf_put(&b, "\x93NUMPY\x01\x00", 8);
	cfs_buf_put_u8(&b, sizeof(text) - 1);
	cfs_buf_put_u8(&b, 0);
	cfs_buf_put_str(&b, text);
	memset(cfs_buf_grow(&b, 120), 7, 120);
	r = sniff_all_ways("x.npy", &b);
	ck_assert_uint_eq(r->n, 1);
	ck_assert_uint_eq(r->v[0].off, 10 + sizeof(text) - 1);
	ck_assert_uint_eq(r->v[0].len, 120);
	ck_assert_uint_eq(r->v[0].elem_size, 8);
	free(r);
}
END_TEST

START_TEST(other_files_have_none)
{
	static const char *const files[] = {
		"",
		"x",
		"PK",
		"hello, world: text",
		/* a legacy torch file */
		"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.",
		"PK\3\4 nothing that an archive begins with",
		"{\"a\": 1, \"b\": 2}",
	};

	for (size_t i = 0; i < CFS_ARRAY_SIZE(files); i++) {
		_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
		struct regions *r;

		cfs_buf_put_str(&b, files[i]);
		r = sniff_all_ways("x", &b);
		ck_assert_uint_eq(r->n, 0);
		free(r);
	}
}
END_TEST

/* A writer that leaves bytes out, or seeks, ends the hints. */
START_TEST(a_gap_ends_it)
{
	struct regions *r = calloc(1, sizeof(*r));
	void *s = cfs_sniffer.begin("x.pt");
	uint8_t bytes[64] = "PK\3\4";

	ck_assert(s && r);
	ck_assert_uint_eq(cfs_sniffer.feed(s, bytes, 8, 0, note, r), 8);
	ck_assert_uint_eq(cfs_sniffer.feed(s, bytes, 64, 100, note, r),
			  UINT64_MAX);
	ck_assert_uint_eq(cfs_sniffer.feed(s, bytes, 64, 164, note, r),
			  UINT64_MAX);
	cfs_sniffer.end(s);
	cfs_sniffer.end(NULL);
	free(r);
}
END_TEST

static Suite *suite(void)
{
	const unsigned seed = (unsigned)time(NULL);
	Suite *s = suite_create("sniff");
	TCase *tc = tcase_create("all");

	printf("seed %u\n", seed);
	(void)fflush(stdout);
	srand(seed);
	tcase_add_test(tc, golden_files_are_hit);
	tcase_add_test(tc, bulk_is_skipped);
	tcase_add_test(tc, archives_in_a_row);
	tcase_add_test(tc, safetensors_are_hit);
	tcase_add_test(tc, npy_is_hit);
	tcase_add_test(tc, other_files_have_none);
	tcase_add_test(tc, a_gap_ends_it);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
