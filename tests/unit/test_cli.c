/* What the verbs share, as far as it needs no checkpoint. */
#include "tests/test.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/batch.h"
#include "fs/cli/elements.h"
#include "fs/cli/nodes.h"
#include "fs/cli/ranges.h"
#include "fs/cli/table.h"
#include "fs/cli/text.h"
#include "fs/container/pickle.h"
#include "store/map/map.h"
#include "store/util/buf.h"
#include "store/util/mounts.h"

/* ---- text ---- */

START_TEST(test_text)
{
	const uint64_t shape[] = {2, 3, 5};
	uint64_t wide[40];

	memset(wide, 0xff, sizeof(wide));
	ck_assert_str_eq(cfs_text_bytes(0).s, "0 B");
	ck_assert_str_eq(cfs_text_bytes(1023).s, "1023 B");
	ck_assert_str_eq(cfs_text_bytes(1536).s, "1.50 KiB");
	ck_assert_str_eq(cfs_text_bytes(UINT64_MAX).s, "16384.0 PiB");
	ck_assert_str_eq(cfs_text_count(1234567).s, "1.23 M");
	ck_assert_str_eq(cfs_text_shape(3, shape).s, "[2, 3, 5]");
	ck_assert_str_eq(cfs_text_shape(0, NULL).s, "[]");
	ck_assert_ptr_nonnull(strstr(cfs_text_shape(40, wide).s, "…]"));
	ck_assert_str_eq(cfs_text_duration(3909).s, "1:05:09");
	ck_assert_str_eq(cfs_text_duration(-1).s, "-:--");
	ck_assert_str_eq(cfs_text_duration((double)INFINITY).s, "-:--");
	ck_assert_str_eq(cfs_text_real(0.1).s, "0.1");
	ck_assert_str_eq(cfs_text_real(1e-8).s, "1e-08");
}
END_TEST

START_TEST(test_text_safe)
{
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	static const char hostile[] = "a\033[2J\nü\xc2\x9b\xff…\x7f";

	cfs_text_safe(&b, hostile, sizeof(hostile) - 1);
	ck_assert_str_eq(cfs_buf_str(&b),
			 "a\\x1b[2J\\x0aü\\xc2\\x9b\\xff…\\x7f");
	cfs_buf_reset(&b);
	cfs_text_safe(&b, "\xe2\x80", 2); /* cut in the middle */
	ck_assert_str_eq(cfs_buf_str(&b), "\\xe2\\x80");
	cfs_buf_reset(&b);
	/* overlong, a surrogate, too large; and what is right beside them */
	cfs_text_utf8(&b,
		      "\xe0\x80\x80\n\xed\xa0\x80\xf4\x90\x80\x80\xed\x9f\xbf",
		      14);
	ck_assert_str_eq(cfs_buf_str(&b), "\\xe0\\x80\\x80\n\\xed\\xa0\\x80"
					  "\\xf4\\x90\\x80\\x80\xed\x9f\xbf");
}
END_TEST

/* ---- tables ---- */

START_TEST(test_table)
{
	static const char *const headers[] = {"NAME", ">N", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *t = cfs_table_new(headers);
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	cfs_table_cell(t, "ü%s", "x");
	cfs_table_cell(t, "%d", 1234);
	cfs_table_cell(t, "%s", "");
	cfs_table_cell(t, "%d", 5);
	cfs_table_cell(t, "half a row");
	ck_assert_int_eq(cfs_table_print(t, 1, f), 0);
	fclose(f);
	/* the row that is not whole widens its column and is not printed */
	ck_assert_str_eq(text, " NAME           N\n"
			       " üx          1234\n"
			       " -              5\n");
	free(text);
}
END_TEST

/* ---- batch arithmetic ---- */

static struct cfs_batch batch(int64_t train, int64_t micro, int64_t acc,
			      uint32_t dp)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *c = cfs_node_dict(doc);

	cfs_node_set_str(doc, c, "train_batch_size",
			 train < 0 ? cfs_node_str(doc, "auto")
				   : cfs_node_int(doc, train));
	if (micro)
		cfs_node_set_str(doc, c, "train_micro_batch_size_per_gpu",
				 cfs_node_int(doc, micro));
	if (acc)
		cfs_node_set_str(doc, c, "gradient_accumulation_steps",
				 cfs_node_int(doc, acc));
	ck_assert(!cfs_pickle_failed(doc));
	return cfs_batch_of(c, dp);
}

START_TEST(test_batch)
{
	struct cfs_batch b = batch(120, 30, 1, 4);

	ck_assert(!b.derived && !b.wrong);
	b = batch(120, 30, 0, 2);
	ck_assert(b.derived && !b.wrong);
	ck_assert_uint_eq(b.accumulation, 2);
	b = batch(-1, 5, 3, 4); /* "auto" */
	ck_assert_uint_eq(b.train, 60);
	b = batch(64, 0, 0, 8);
	ck_assert_uint_eq(b.micro, 8);
	ck_assert_uint_eq(b.accumulation, 1);
	ck_assert(batch(120, 30, 1, 3).wrong);
	b = cfs_batch_of(NULL, 4);
	ck_assert_uint_eq(b.train, 0);
	ck_assert(!b.wrong);
}
END_TEST

/* ---- live mounts ---- */

static const char mounts[] =
	"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	"40 22 0:40 / /mnt/ckpt ro,nosuid - fuse.ckptfs /lustre/run\\0401 ro\n"
	"41 22 0:41 / /mnt/ckpt2 ro master:3 - fuse.ckptfs /lustre/b ro\n"
	"42 40 0:42 / /mnt/ckpt/inner rw - tmpfs tmpfs rw\n"
	"43 22 0:43 / /mnt/other rw - fuse.sshfs host:/x rw\n"
	"damaged line\n";

START_TEST(test_live)
{
	char mount[PATH_MAX], source[PATH_MAX];

	ck_assert_int_eq(
		cfs_mounts_find(mounts, "/mnt/ckpt/@dp3", mount, source), 1);
	ck_assert_str_eq(mount, "/mnt/ckpt");
	ck_assert_str_eq(source, "/lustre/run 1");
	ck_assert_int_eq(cfs_mounts_find(mounts, "/mnt/ckpt", mount, source),
			 1);
	ck_assert_int_eq(cfs_mounts_find(mounts, "/mnt/ckpt2/x", mount, source),
			 1);
	ck_assert_str_eq(source, "/lustre/b");
	ck_assert_int_eq(
		cfs_mounts_find(mounts, "/mnt/ckpt/inner/x", mount, source), 0);
	ck_assert_int_eq(cfs_mounts_find(mounts, "/mnt/other/x", mount, source),
			 0);
	ck_assert_int_eq(cfs_mounts_find(mounts, "/home", mount, source), 0);
	ck_assert_int_eq(cfs_mounts_find("", "/home", mount, source), 0);
}
END_TEST

/* ---- pickle trees ---- */

struct seen {
	struct cfs_buf text;
};

static int note_leaf(void *arg, const char *path, const struct cfs_node *node)
{
	struct seen *seen = arg;

	cfs_buf_printf(&seen->text, "%s=", path);
	(void)cfs_nodes_repr(node, 40, &seen->text);
	cfs_buf_put_str(&seen->text, ";");
	return 0;
}

START_TEST(test_nodes)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *root = cfs_node_dict(doc), *list = cfs_node_list(doc);
	struct cfs_node *od = cfs_node_ordereddict(doc), *one;
	struct seen seen = {CFS_BUF_INIT};

	one = cfs_node_int(doc, 1);
	cfs_node_append(doc, list, cfs_node_none(doc));
	cfs_node_append(doc, list, cfs_node_tuple(doc, &one, 1));
	cfs_node_append(doc, list, root); /* a cycle */
	cfs_node_set_str(doc, od, "k", cfs_node_float(doc, 0.5));
	cfs_node_set_str(doc, root, "l", list);
	cfs_node_set_str(doc, root, "od", od);
	cfs_node_set(doc, root, cfs_node_int(doc, 7), cfs_node_str(doc, "s"));
	cfs_node_set_str(doc, root, "e", cfs_node_dict(doc));
	ck_assert(!cfs_pickle_failed(doc));
	ck_assert_int_eq(cfs_nodes_walk(root, NULL, note_leaf, &seen), 0);
	ck_assert_str_eq(cfs_buf_str(&seen.text),
			 "l/0=None;l/1/0=1;od/k=0.5;7='s';e={};");
	cfs_buf_reset(&seen.text);
	ck_assert(cfs_nodes_repr(od, 40, &seen.text));
	ck_assert_str_eq(cfs_buf_str(&seen.text), "{'k': 0.5}");
	ck_assert(!cfs_nodes_repr(root, 40, &seen.text)); /* ends at all */
	cfs_buf_free(&seen.text);
}
END_TEST

/* Thirty levels of [x, x]: a billion leaves must not be walked. */
START_TEST(test_nodes_bush)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *node = cfs_node_int(doc, 1);
	struct seen seen = {CFS_BUF_INIT};
	int i;

	for (i = 0; i < 30; i++) {
		struct cfs_node *list = cfs_node_list(doc);

		cfs_node_append(doc, list, node);
		cfs_node_append(doc, list, node);
		node = list;
	}
	ck_assert(!cfs_nodes_repr(node, 100, &seen.text));
	ck_assert_uint_lt(seen.text.len, 1000);
	ck_assert_int_eq(cfs_nodes_walk(node, NULL, note_leaf, &seen), -E2BIG);
	cfs_buf_free(&seen.text);
}
END_TEST

/* ---- elements ---- */

START_TEST(test_elements)
{
	const float f32[] = {1, NAN, -INFINITY, -NAN, 0};
	const uint16_t bf16[] = {0x7f80, 0xff80, 0x7fc0, 0x7f7f, 0x3f80};
	const uint16_t f16[] = {0x7c00, 0xfc01, 0x7bff};
	const int64_t i64[] = {-3, 1 << 20};
	uint64_t nan = 0, inf = 0;
	double out[5];

	cfs_elements_count(CFS_F32, f32, 5, &nan, &inf);
	ck_assert_uint_eq(nan, 2);
	ck_assert_uint_eq(inf, 1);
	cfs_elements_count(CFS_BF16, bf16, 5, &nan, &inf);
	ck_assert_uint_eq(nan, 3);
	ck_assert_uint_eq(inf, 3);
	cfs_elements_count(CFS_F16, f16, 3, &nan, &inf);
	ck_assert_uint_eq(nan, 4);
	ck_assert_uint_eq(inf, 4);
	cfs_elements_count(CFS_I64, i64, 2, &nan, &inf);
	ck_assert_uint_eq(nan, 4);
	cfs_elements_decode(CFS_I64, i64, 2, out);
	ck_assert(out[0] == -3 && out[1] == 1 << 20);
	cfs_elements_decode(CFS_BF16, bf16 + 4, 1, out);
	ck_assert(out[0] == 1);
	ck_assert(!cfs_elements_is_number(CFS_C64));
}
END_TEST

/* ---- ranges ---- */

static int note_piece(void *arg, const struct cfs_ranges_piece *piece)
{
	cfs_buf_printf(arg, "%s ", cfs_ranges_kind(piece->how));
	if (piece->from_file)
		cfs_buf_printf(arg, "%u@%llu", piece->file,
			       (unsigned long long)piece->file_off);
	cfs_buf_printf(arg, "+%llu;", (unsigned long long)piece->len);
	return 0;
}

START_TEST(test_ranges)
{
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab =
		cfs_filetab_new();
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = cfs_map_new(tab);
	_cleanup_(cfs_map_unrefp) struct cfs_map *child = cfs_map_new(tab);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	const struct cfs_version v = {.size = 1000};
	struct cfs_ranges_tally tally = {0};
	uint32_t file;

	ck_assert_int_eq(cfs_filetab_add(tab, "f", &v, &file), 0);
	ck_assert_int_eq(cfs_map_add_range(child, file, 100, 40), 0);
	ck_assert_int_eq(cfs_map_add_zero(child, 8), 0);
	ck_assert_int_eq(cfs_map_add_literal(map, "abc", 3), 0);
	ck_assert_int_eq(cfs_map_add_range(map, file, 500, 20), 0);
	ck_assert_int_eq(cfs_map_add_cast(map, child, CFS_F32, CFS_BF16), 0);
	cfs_map_seal(map);
	ck_assert_uint_eq(cfs_map_size(map), 3 + 20 + 24);
	cfs_ranges_add(map, &tally);
	ck_assert_uint_eq(tally.total, 47);
	ck_assert_uint_eq(tally.literal, 3);
	ck_assert_uint_eq(tally.range, 20);
	ck_assert_uint_eq(tally.cast, 24);
	ck_assert_uint_eq(tally.n_files, 1);
	ck_assert_int_eq(cfs_ranges_each(map, 1, 46, note_piece, &b), 0);
	ck_assert_str_eq(cfs_buf_str(&b), "literal +2;range 0@500+20;"
					  "cast 0@100+40;cast +8;");
	cfs_buf_reset(&b);
	/* two bf16 in the middle, the first from its second byte on */
	ck_assert_int_eq(cfs_ranges_each(map, 23 + 5, 3, note_piece, &b), 0);
	ck_assert_str_eq(cfs_buf_str(&b), "cast 0@108+8;");
}
END_TEST

static Suite *make_suite(void)
{
	Suite *s = suite_create("cli");
	TCase *t = tcase_create("helpers");

	tcase_add_test(t, test_text);
	tcase_add_test(t, test_text_safe);
	tcase_add_test(t, test_table);
	tcase_add_test(t, test_batch);
	tcase_add_test(t, test_live);
	tcase_add_test(t, test_nodes);
	tcase_add_test(t, test_nodes_bush);
	tcase_add_test(t, test_elements);
	tcase_add_test(t, test_ranges);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(make_suite)
