/* Rules: what each decides, and what it refuses to. */
#include "fs/reslice/rules.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/test.h"

static const struct cfs_model_facts unknown = {.gated = -1,
					       .parallel_residual = -1,
					       .qkv_in_parts = -1,
					       .output_columns = -1};

/* The answer, with why not in @err. */
static int ask(enum cfs_rule_kind kind, const struct cfs_model_facts *facts,
	       uint64_t rows, uint64_t cols, uint32_t tp, uint32_t to_tp,
	       struct cfs_tp_layout *from, struct cfs_tp_layout *to,
	       struct cfs_error *err)
{
	const struct cfs_rule rule = {"x", kind, 2, "because", false};
	const uint64_t shape[] = {rows, cols};

	return cfs_rule_layout(&rule, facts, cols ? 2 : 1, shape, tp, to_tp,
			       from, to, err);
}

static void expect(enum cfs_rule_kind kind, const struct cfs_model_facts *facts,
		   uint64_t rows, uint64_t cols, uint32_t tp, uint32_t to_tp,
		   const struct cfs_tp_layout *want)
{
	struct cfs_error err = {""};
	struct cfs_tp_layout from, to;

	ck_assert_msg(
		!ask(kind, facts, rows, cols, tp, to_tp, &from, &to, &err),
		"%s", err.text);
	ck_assert_int_eq(from.kind, want->kind);
	ck_assert_uint_eq(from.shape[0], want->shape[0]);
	ck_assert_uint_eq(from.ndim > 1 ? from.shape[1] : 0, want->shape[1]);
	ck_assert_uint_eq(from.dim, want->dim);
	ck_assert_uint_eq(from.n_parts, want->n_parts);
	ck_assert_mem_eq(from.parts, want->parts, sizeof(from.parts));
}

static void refuse(int r, enum cfs_rule_kind kind,
		   const struct cfs_model_facts *facts, uint64_t rows,
		   uint64_t cols, uint32_t tp, uint32_t to_tp,
		   const char *names)
{
	struct cfs_error err = {""};
	struct cfs_tp_layout from, to;

	ck_assert_int_eq(
		ask(kind, facts, rows, cols, tp, to_tp, &from, &to, &err), r);
	ck_assert_msg(strstr(err.text, names), "%s", err.text);
	/* nothing is asked where nothing changes */
	ck_assert_int_eq(ask(kind, facts, rows, cols, tp, tp, &from, &to, NULL),
			 0);
	ck_assert_int_eq(from.kind, CFS_TP_SAME);
}

#define CUT(dim_, rows_, cols_, n_, ...)                                       \
	(&(struct cfs_tp_layout){.kind = CFS_TP_CUT,                           \
				 .shape = {rows_, cols_},                      \
				 .dim = dim_,                                  \
				 .n_parts = n_,                                \
				 .parts = {__VA_ARGS__}})
#define WHOLE(kind_, rows_, cols_)                                             \
	(&(struct cfs_tp_layout){.kind = kind_, .shape = {rows_, cols_}})

START_TEST(plain)
{
	expect(CFS_RULE_SAME, &unknown, 5, 7, 2, 4, WHOLE(CFS_TP_SAME, 5, 7));
	expect(CFS_RULE_SUM, &unknown, 5, 0, 2, 4, WHOLE(CFS_TP_SUM, 5, 0));
	expect(CFS_RULE_MEAN, &unknown, 5, 0, 2, 4, WHOLE(CFS_TP_MEAN, 5, 0));
	expect(CFS_RULE_ROWS, &unknown, 6, 7, 2, 4, CUT(0, 12, 7, 1, 12));
	expect(CFS_RULE_COLUMNS, &unknown, 5, 6, 2, 4, CUT(1, 5, 12, 1, 12));
	expect(CFS_RULE_PARTS, &unknown, 8, 5, 2, 4, CUT(0, 16, 5, 2, 8, 8));
	refuse(-EINVAL, CFS_RULE_ROWS, &unknown, 5, 7, 2, 4, "10");
	refuse(-EINVAL, CFS_RULE_COLUMNS, &unknown, 5, 0, 2, 4, "dimension 1");
	refuse(-EINVAL, CFS_RULE_PARTS, &unknown, 5, 0, 2, 4, "dimension 0");
	refuse(-ENOTSUP, CFS_RULE_REFUSED, &unknown, 8, 8, 2, 4, "because");
}
END_TEST

START_TEST(heads)
{
	struct cfs_model_facts facts = unknown;

	refuse(-ENOTSUP, CFS_RULE_QKV, &unknown, 12, 4, 2, 1, "heads");
	facts.hidden = 8;
	facts.heads = 4;
	/* as many keys as queries */
	expect(CFS_RULE_QKV, &facts, 12, 8, 2, 4, CUT(0, 24, 8, 1, 24));
	refuse(-EINVAL, CFS_RULE_QKV, &facts, 12, 8, 2, 8, "4 heads");
	/* two heads of keys: 8 + 4 + 4 rows */
	refuse(-ENOTSUP, CFS_RULE_QKV, &facts, 8, 8, 2, 1, "@qkvparts");
	facts.qkv_in_parts = 1;
	expect(CFS_RULE_QKV, &facts, 8, 8, 2, 1, CUT(0, 16, 8, 3, 8, 4, 4));
	refuse(-EINVAL, CFS_RULE_QKV, &facts, 8, 8, 2, 4, "2 of keys");
	facts.qkv_in_parts = 0;
	expect(CFS_RULE_QKV, &facts, 8, 8, 2, 1, CUT(0, 16, 8, 1, 16));
}
END_TEST

/* Families whose versions differ in how queries, keys and values lie. */
START_TEST(heads_in_another_order)
{
	struct cfs_model_facts facts = unknown;

	facts.hidden = 8;
	facts.heads = 4;
	facts.qkv_always = true;
	refuse(-ENOTSUP, CFS_RULE_QKV, &facts, 12, 8, 2, 1, "@qkvparts");
	facts.qkv_in_parts = 1;
	expect(CFS_RULE_QKV, &facts, 12, 8, 2, 4, CUT(0, 24, 8, 3, 8, 8, 8));
	facts.qkv_in_parts = 0;
	expect(CFS_RULE_QKV, &facts, 12, 8, 2, 4, CUT(0, 24, 8, 1, 24));
	facts.qkv_unknown = "nobody knows";
	refuse(-ENOTSUP, CFS_RULE_QKV, &facts, 12, 8, 2, 4, "nobody knows");
}
END_TEST

/* As many rows at any size. */
START_TEST(vocabulary_padded_to)
{
	struct cfs_model_facts facts = unknown;
	struct cfs_tp_layout from, to;

	facts.padded_to = 250880;
	facts.divisible_by = 128;
	facts.vocabulary = 250680;
	ck_assert_int_eq(
		ask(CFS_RULE_VOCAB, &facts, 62720, 3, 4, 1, &from, &to, NULL),
		0);
	ck_assert_uint_eq(from.shape[0], 250880);
	ck_assert_uint_eq(to.shape[0], 250880);
	refuse(-EINVAL, CFS_RULE_VOCAB, &facts, 62720, 3, 4, 3, "3 ranks");
}
END_TEST

START_TEST(mlps_and_biases)
{
	struct cfs_model_facts facts = unknown;

	refuse(-ENOTSUP, CFS_RULE_UP, &facts, 8, 4, 2, 1, "\"halves\"");
	refuse(-ENOTSUP, CFS_RULE_ROW_BIAS, &facts, 8, 0, 2, 1, "@biassum");
	facts.gated = facts.parallel_residual = 1;
	expect(CFS_RULE_UP, &facts, 8, 4, 2, 1, CUT(0, 16, 4, 2, 8, 8));
	expect(CFS_RULE_ROW_BIAS, &facts, 8, 0, 2, 1, WHOLE(CFS_TP_SUM, 8, 0));
	facts.gated = facts.parallel_residual = 0;
	expect(CFS_RULE_UP, &facts, 8, 4, 2, 1, CUT(0, 16, 4, 1, 16));
	expect(CFS_RULE_ROW_BIAS, &facts, 8, 0, 2, 1, WHOLE(CFS_TP_SAME, 8, 0));
}
END_TEST

/* @words of 128 a rank, by @tp ranks, to @to_tp. */
static void expect_vocab(uint64_t words, uint32_t tp, uint32_t to_tp,
			 uint64_t want)
{
	struct cfs_model_facts facts = unknown;
	uint64_t rows = (words + 128 * tp - 1) / (128 * tp) * 128;
	struct cfs_tp_layout from, to;
	struct cfs_error err = {""};

	facts.divisible_by = 128;
	facts.vocabulary = words;
	ck_assert_msg(!ask(CFS_RULE_VOCAB, &facts, rows, 3, tp, to_tp, &from,
			   &to, &err),
		      "%s", err.text);
	ck_assert_uint_eq(from.shape[0], rows * tp);
	ck_assert_uint_eq(to.shape[0], want);
	ck_assert_uint_eq(to.parts[0], want);
}

static void expect_rows(uint64_t words, uint64_t rows, uint32_t tp,
			uint32_t to_tp, uint64_t told)
{
	struct cfs_model_facts facts = unknown;
	struct cfs_error err = {""};
	struct cfs_tp_layout from, to;

	facts.vocabulary = words;
	facts.rows = told;
	ck_assert_msg(!ask(CFS_RULE_VOCAB, &facts, rows, 3, tp, to_tp, &from,
			   &to, &err),
		      "%s", err.text);
	ck_assert_int_eq(from.kind, CFS_TP_CUT);
	ck_assert_uint_eq(from.shape[0], rows * tp);
	ck_assert_uint_eq(to.shape[0], told);
}

/* Of a template's vocabulary the rows are told. */
START_TEST(told_vocabularies)
{
	struct cfs_model_facts facts = unknown;
	struct cfs_tp_layout from, to;
	struct cfs_error err;

	expect_rows(0, 32, 2, 4, 64);
	expect_rows(0, 32, 2, 2, 96); /* more of them at the same size, too */
	expect_rows(61, 32, 2, 1, 61);
	facts.rows = 64;
	ck_assert_int_eq(
		ask(CFS_RULE_VOCAB, &facts, 32, 3, 2, 2, &from, &to, NULL), 0);
	ck_assert_int_eq(from.kind, CFS_TP_SAME);
	facts.rows = 61;
	ck_assert_int_eq(
		ask(CFS_RULE_VOCAB, &facts, 32, 3, 2, 1, &from, &to, &err),
		-ENOTSUP);
	ck_assert(strstr(err.text, "@vocabN"));
	facts.vocabulary = 62;
	ck_assert_int_eq(
		ask(CFS_RULE_VOCAB, &facts, 32, 3, 2, 1, &from, &to, &err),
		-EINVAL);
	ck_assert(strstr(err.text, "61 rows"));
	facts.vocabulary = 65;
	facts.rows = 70;
	ck_assert_int_eq(
		ask(CFS_RULE_VOCAB, &facts, 32, 3, 2, 1, &from, &to, &err),
		-EINVAL);
	ck_assert(strstr(err.text, "64 rows"));
}
END_TEST

START_TEST(vocabularies)
{
	struct cfs_model_facts facts = unknown;

	expect_vocab(50277, 2, 1, 50304);
	expect_vocab(50277, 1, 2, 50432);
	expect_vocab(50277, 4, 1, 50304);
	expect_vocab(50000, 4, 2, 50176);
	refuse(-ENOTSUP, CFS_RULE_VOCAB, &facts, 256, 3, 2, 1, "padded");
	/* 512 rows of two ranks: 257 to 512 words, so 384 or 512 for one */
	facts.divisible_by = 128;
	refuse(-ENOTSUP, CFS_RULE_VOCAB, &facts, 256, 3, 2, 1, "@vocabN");
	/* the same for all of them */
	{
		struct cfs_tp_layout from, to;

		ck_assert_int_eq(ask(CFS_RULE_VOCAB, &facts, 256, 3, 2, 4,
				     &from, &to, NULL),
				 0);
		ck_assert_uint_eq(to.shape[0], 512);
	}
	expect(CFS_RULE_VOCAB, &facts, 200, 3, 1, 1,
	       WHOLE(CFS_TP_SAME, 200, 3));
	/* what a converter left is padded again, by as many ranks, too */
	facts.padding_cut = true;
	expect(CFS_RULE_VOCAB, &facts, 256, 3, 1, 1,
	       WHOLE(CFS_TP_SAME, 256, 3));
	for (uint32_t tp = 1; tp < 5; tp++) {
		struct cfs_tp_layout from, to;

		ck_assert_int_eq(ask(CFS_RULE_VOCAB, &facts, 200, 3, 1, tp,
				     &from, &to, NULL),
				 0);
		ck_assert_uint_eq(from.shape[0], 200);
		ck_assert_uint_eq(to.shape[0], tp < 3 ? 256 : tp * 128);
	}
	{
		struct cfs_tp_layout from, to;

		ck_assert_int_eq(ask(CFS_RULE_OUTPUT, &facts, 200, 3, 1, 1,
				     &from, &to, NULL),
				 0);
		ck_assert_uint_eq(to.shape[0], 256);
	}
	facts.padding_cut = false;
	facts.vocabulary = 200;
	refuse(-EINVAL, CFS_RULE_VOCAB, &facts, 256, 3, 2, 1, "200");
	facts.vocabulary = 513;
	refuse(-EINVAL, CFS_RULE_VOCAB, &facts, 256, 3, 2, 1, "513");
}
END_TEST

/* What makes words: rows or columns, by its shape or as told. */
START_TEST(outputs)
{
	struct cfs_model_facts facts = unknown;
	struct cfs_tp_layout from, to;

	facts.divisible_by = 8;
	facts.vocabulary = 13;
	facts.hidden = 6;
	expect(CFS_RULE_OUTPUT, &facts, 8, 6, 2, 1, CUT(0, 16, 6, 1, 16));
	expect(CFS_RULE_OUTPUT, &facts, 16, 3, 2, 1, CUT(1, 16, 6, 1, 6));
	refuse(-EINVAL, CFS_RULE_OUTPUT, &facts, 16, 2, 2, 1, "2 columns");
	refuse(-EINVAL, CFS_RULE_OUTPUT, &facts, 16, 0, 2, 1, "dimensions");
	refuse(-ENOTSUP, CFS_RULE_OUTPUT, &facts, 16, 6, 1, 2, "vocab-columns");
	facts.output_columns = 0;
	expect(CFS_RULE_OUTPUT, &facts, 16, 6, 1, 2, CUT(0, 16, 6, 1, 16));
	facts.output_columns = 1;
	expect(CFS_RULE_OUTPUT, &facts, 16, 6, 1, 2, CUT(1, 16, 6, 1, 6));
	refuse(-EINVAL, CFS_RULE_OUTPUT, &facts, 16, 6, 1, 4, "4 ranks");
	/* of several ranks the shape counts, not what is told */
	expect(CFS_RULE_OUTPUT, &facts, 8, 6, 2, 1, CUT(0, 16, 6, 1, 16));
	facts.hidden = 0;
	expect(CFS_RULE_OUTPUT, &facts, 16, 3, 2, 1, CUT(1, 16, 6, 1, 6));
	/* the padding is that of as many ranks */
	ck_assert_int_eq(ask(CFS_RULE_VOCAB_COLUMNS, &facts, 16, 6, 1, 3, &from,
			     &to, NULL),
			 0);
	ck_assert_uint_eq(to.shape[0], 24);
	ck_assert_uint_eq(to.shape[1], 6);
	refuse(-ENOTSUP, CFS_RULE_VOCAB_COLUMNS, &unknown, 16, 6, 1, 2,
	       "padded");
}
END_TEST

/* For one rank that has all: also where the number of ranks stays. */
START_TEST(wholes)
{
	const uint64_t shape[] = {256, 3};
	struct cfs_rule rule = {"x", CFS_RULE_COLUMNS, 0, NULL, false};
	struct cfs_model_facts facts = unknown;
	struct cfs_tp_layout from, to;
	struct cfs_error err = {""};

	ck_assert_int_eq(
		cfs_rule_whole(&rule, &facts, 2, shape, 2, 2, &from, &to, NULL),
		0);
	ck_assert_int_eq(to.kind, CFS_TP_CUT);
	ck_assert_uint_eq(to.dim, 1);
	ck_assert_uint_eq(to.shape[1], 6);
	rule.kind = CFS_RULE_ROW_BIAS;
	ck_assert_int_eq(
		cfs_rule_whole(&rule, &facts, 1, shape, 2, 2, &from, &to, &err),
		-ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.text, "@biassum"));
	/* rows stay, or are those that the vocabulary has */
	rule.kind = CFS_RULE_VOCAB;
	ck_assert_int_eq(
		cfs_rule_whole(&rule, &facts, 2, shape, 2, 2, &from, &to, NULL),
		0);
	ck_assert_uint_eq(to.shape[0], 512);
	facts.vocabulary = 500;
	ck_assert_int_eq(
		cfs_rule_whole(&rule, &facts, 2, shape, 2, 2, &from, &to, NULL),
		0);
	ck_assert_uint_eq(from.shape[0], 512);
	ck_assert_uint_eq(to.shape[0], 500);
	facts.vocabulary = 513;
	ck_assert_int_eq(
		cfs_rule_whole(&rule, &facts, 2, shape, 2, 2, &from, &to, NULL),
		-EINVAL);
}
END_TEST

/* Where ranks keep what they have, no shape is asked for. */
START_TEST(any_dimensions)
{
	static const struct cfs_rule rows = {"x", CFS_RULE_ROWS, 0, NULL,
					     false};
	static const uint64_t shape[] = {2, 3, 1, 5, 7};
	struct cfs_tp_layout from, to;
	struct cfs_error err = {""};

	for (uint32_t ndim = 0; ndim <= 5; ndim += 5) {
		ck_assert_int_eq(cfs_rule_layout(&rows, &unknown, ndim, shape,
						 2, 2, &from, &to, &err),
				 0);
		ck_assert_int_eq(to.kind, CFS_TP_SAME);
		ck_assert_uint_eq(to.ndim, 1);
		ck_assert_uint_eq(to.shape[0], ndim ? 210 : 1);
		ck_assert_int_eq(cfs_rule_layout(&rows, &unknown, ndim, shape,
						 2, 4, &from, &to, &err),
				 -EINVAL);
	}
}
END_TEST

/* How many rows there are in all depends on how they are cut. */
START_TEST(vocab_columns)
{
	static const struct cfs_rule output = {"x", CFS_RULE_OUTPUT, 0, NULL,
					       false},
				     columns = {"x", CFS_RULE_VOCAB_COLUMNS, 0,
						NULL, false},
				     same = {"x", CFS_RULE_SAME, 0, NULL,
					     false};
	static const uint64_t by_rows[] = {32, 16}, by_columns[] = {64, 8};
	struct cfs_model_facts facts = unknown;

	facts.hidden = 16;
	ck_assert_int_eq(cfs_rule_vocab_columns(&output, &facts, 2, by_rows, 2),
			 0);
	ck_assert_int_eq(
		cfs_rule_vocab_columns(&output, &facts, 2, by_columns, 2), 1);
	ck_assert_int_eq(
		cfs_rule_vocab_columns(&columns, &unknown, 2, by_columns, 2),
		1);
	ck_assert_int_eq(cfs_rule_vocab_columns(&same, &facts, 2, by_rows, 2),
			 -1);
}
END_TEST

START_TEST(names)
{
	static const struct cfs_rule rules[] = {
		{"attention.dense.weight", CFS_RULE_COLUMNS, 0, NULL, false},
		{"attention.*.bias", CFS_RULE_ROWS, 0, NULL, false},
		{"*.bias", CFS_RULE_SAME, 0, NULL, false},
		{NULL, 0, 0, NULL, false}};

	ck_assert_ptr_eq(cfs_rules_find(rules, "attention.dense.weight"),
			 &rules[0]);
	ck_assert_ptr_eq(cfs_rules_find(rules, "attention.q.bias"), &rules[1]);
	ck_assert_ptr_eq(cfs_rules_find(rules, "norm.bias"), &rules[2]);
	ck_assert_ptr_null(cfs_rules_find(rules, "bias"));
	ck_assert_ptr_null(cfs_rules_find(NULL, "bias"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rules");
	TCase *tc = tcase_create("rules");

	tcase_add_test(tc, plain);
	tcase_add_test(tc, heads);
	tcase_add_test(tc, heads_in_another_order);
	tcase_add_test(tc, vocabulary_padded_to);
	tcase_add_test(tc, mlps_and_biases);
	tcase_add_test(tc, vocabularies);
	tcase_add_test(tc, told_vocabularies);
	tcase_add_test(tc, outputs);
	tcase_add_test(tc, wholes);
	tcase_add_test(tc, any_dimensions);
	tcase_add_test(tc, vocab_columns);
	tcase_add_test(tc, names);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
