/* fs/container/pickle: decoding, making, looking, comparing, encoding. */
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fs/container/pickle.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define DECODE(doc, lit) decode(doc, lit, sizeof(lit) - 1)

static struct cfs_node *decode(struct cfs_pickle *doc, const void *data,
			       size_t len)
{
	struct cfs_error err = {""};
	struct cfs_node *root = NULL;
	size_t used = 0;
	const int r = cfs_pickle_decode(doc, data, len, &root, &used, &err);

	ck_assert_msg(!r, "%d %s", r, err.text);
	ck_assert_uint_eq(used, len);
	return root;
}

static void encode(const struct cfs_node *root, struct cfs_buf *out)
{
	struct cfs_error err = {""};
	const int r = cfs_pickle_encode(root, NULL, out, &err);

	ck_assert_msg(!r, "%d %s", r, err.text);
}

/* @root encodes to exactly these bytes. */
#define ck_encodes(root, lit)                                                  \
	do {                                                                   \
		struct cfs_buf b_ = CFS_BUF_INIT;                              \
                                                                               \
		encode(root, &b_);                                             \
		ck_assert_uint_eq(b_.len, sizeof(lit) - 1);                    \
		ck_assert_mem_eq(b_.data, lit, sizeof(lit) - 1);               \
		cfs_buf_free(&b_);                                             \
	} while (0)

static void ck_refused(const void *data, size_t len, int want, const char *text)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_error err = {""};
	struct cfs_node *root;

	ck_assert_int_eq(cfs_pickle_decode(doc, data, len, &root, NULL, &err),
			 want);
	ck_assert_msg(strstr(err.text, text), "'%s' lacks '%s'", err.text,
		      text);
}

#define REFUSED(lit, want, text) ck_refused(lit, sizeof(lit) - 1, want, text)

START_TEST(values_of_every_protocol)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	const struct cfs_node *n;
	double d;
	int64_t v;
	bool b;

	ck_assert(cfs_node_is_none(DECODE(doc, "N.")));
	ck_assert(cfs_node_as_bool(DECODE(doc, "I01\n."), &b) && b);
	ck_assert(cfs_node_as_bool(DECODE(doc, "\x80\x02\x89."), &b) && !b);
	ck_assert(cfs_node_as_int(DECODE(doc, "I-42\n."), &v) && v == -42);
	ck_assert(cfs_node_as_int(DECODE(doc, "L5L\n."), &v) && v == 5);
	ck_assert(
		cfs_node_as_int(DECODE(doc, "L-9223372036854775808L\n."), &v) &&
		v == INT64_MIN);
	ck_assert(cfs_node_as_int(DECODE(doc, "J\xff\xff\xff\xff."), &v) &&
		  v == -1);
	ck_assert(cfs_node_as_int(DECODE(doc, "M\x01\x02."), &v) && v == 513);
	ck_assert(cfs_node_as_int(DECODE(doc, "\x8a\x00."), &v) && v == 0);
	ck_assert(cfs_node_as_int(DECODE(doc, "\x8a\x02\xff\x00."), &v) &&
		  v == 255);
	ck_assert(cfs_node_as_int(DECODE(doc, "\x8b\x01\0\0\0\x80."), &v) &&
		  v == -128);
	n = DECODE(doc, "L9223372036854775808L\n.");
	ck_assert_int_eq(n->kind, CFS_NODE_BIGINT);
	ck_assert_uint_eq(n->u.str.len, 9);
	ck_assert(cfs_node_as_real(DECODE(doc, "F-1.5\n."), &d) && d < -1.4);
	ck_assert(cfs_node_as_real(
			  DECODE(doc, "G\x3f\xf8\x00\x00\x00\x00\x00\x00."),
			  &d) &&
		  d > 1.4 && d < 1.6);
	ck_assert_str_eq(cfs_node_as_str(DECODE(doc, "Va\\u00e9\\\\u0041\n.")),
			 "a\xc3\xa9\\\\u0041");
	ck_assert_str_eq(
		cfs_node_as_str(DECODE(doc, "S'a\\'\\x41\\101\\n'\n.")),
		"a'AA\n");
	ck_assert_str_eq(cfs_node_as_str(DECODE(doc, "U\x02hi.")), "hi");
	ck_assert_int_eq(DECODE(doc, "U\x01\xff.")->kind, CFS_NODE_BYTES);
	ck_assert_int_eq(DECODE(doc, "C\x01x.")->kind, CFS_NODE_BYTES);
	ck_assert_int_eq(DECODE(doc, "\x96\x01\0\0\0\0\0\0\0x.")->kind,
			 CFS_NODE_BYTEARRAY);
	ck_assert_str_eq(
		cfs_node_as_str(DECODE(doc, "\x8d\x01\0\0\0\0\0\0\0x.")), "x");
}
END_TEST

START_TEST(containers_and_memo)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *n;

	/* protocol 0: marks, PUT and GET as text */
	n = DECODE(doc, "(lp0\nI1\na(dp7\nI2\nI3\nsag7\na.");
	ck_assert_uint_eq(cfs_seq_node_count(n), 3);
	ck_assert_ptr_eq(cfs_seq_node_item(n, 1), cfs_seq_node_item(n, 2));
	/* protocol 4: MEMOIZE counts; FROZENSET, EMPTY_SET, ADDITEMS */
	n = DECODE(doc, "\x80\x04](\x8f\x94(K\x01K\x02\x90h\x00"
			"(K\x03\x91\x65.");
	ck_assert_uint_eq(cfs_seq_node_count(n), 3);
	ck_assert_int_eq(cfs_seq_node_item(n, 0)->kind, CFS_NODE_SET);
	ck_assert_ptr_eq(cfs_seq_node_item(n, 0), cfs_seq_node_item(n, 1));
	ck_assert_int_eq(cfs_seq_node_item(n, 2)->kind, CFS_NODE_FROZENSET);
	/* a huge index costs nothing; POP, DUP, POP_MARK */
	n = DECODE(doc, "Np999999999999999\n0]2(K\x01K\x02\x31"
			"0g999999999999999\na.");
	ck_assert_uint_eq(n->n, 1);
	n = DECODE(doc, "(K\x01K\x02K\x03K\x04t.");
	ck_assert_int_eq(n->kind, CFS_NODE_TUPLE);
	ck_assert_uint_eq(n->n, 4);
}
END_TEST

START_TEST(objects_keep_what_was_done)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *n, *k, *v;

	n = DECODE(doc, "\x80\x02"
			"ccollections\nOrderedDict\n)R(X\x01\0\0\0aK\x01"
			"X\x01\0\0\0bK\x02u}b.");
	ck_assert_int_eq(n->kind, CFS_NODE_OBJECT);
	ck_assert_uint_eq(n->u.object->n_ops, 3);
	ck_assert(cfs_node_is_map(n));
	ck_assert_uint_eq(cfs_map_node_count(n), 2);
	cfs_map_node_pair(n, 1, &k, &v);
	ck_assert_str_eq(cfs_node_as_str(k), "b");
	ck_assert_ptr_eq(cfs_node_get(n, "b"), v);
	ck_assert_ptr_nonnull(
		cfs_node_call_args(n, "collections", "OrderedDict"));
	ck_assert_ptr_null(cfs_node_call_args(n, "collections", "Counter"));
	/* STACK_GLOBAL and NEWOBJ_EX */
	n = DECODE(doc, "\x80\x04\x8c\x01m\x8c\x03\x41.B\x93)}\x92.");
	ck_assert_int_eq(n->u.object->call, CFS_CALL_NEWOBJ_EX);
	ck_assert(cfs_node_is_global(n->u.object->fn, "m", "A.B"));
	/* INST without and OBJ with arguments */
	n = DECODE(doc, "(im\nC\n(dI1\nI2\nsb.");
	ck_assert_int_eq(n->u.object->call, CFS_CALL_NEWOBJ);
	n = DECODE(doc, "(cm\nC\nI1\no.");
	ck_assert_int_eq(n->u.object->call, CFS_CALL_REDUCE);
	/* Python 2 and 3 names are the same */
	n = DECODE(doc, "c__builtin__\nset\n.");
	ck_assert(cfs_node_is_global(n, "builtins", "set"));
	ck_assert(cfs_node_is_global(n, "__builtin__", "set"));
	ck_assert(!cfs_node_is_global(n, "builtins", "list"));
	/* items that come in two runs are no mapping */
	n = DECODE(doc, "cm\nC\n)RK\x01K\x02sK\x07\x61K\x03K\x04s.");
	ck_assert(!cfs_node_is_map(n));
	ck_assert_ptr_null(cfs_node_get_int(n, 3));
}
END_TEST

START_TEST(refusals_name_offset_and_opcode)
{
	REFUSED("", -EBADMSG, "without STOP");
	REFUSED("N", -EBADMSG, "without STOP");
	REFUSED(".", -EBADMSG, "nothing on the stack");
	REFUSED("N\x80\x06N.", -ENOTSUP, "offset 1, opcode 0x80 (PROTO)");
	REFUSED("\xff.", -EBADMSG, "no such opcode");
	REFUSED("X\xff\xff\xff\x7f.", -EBADMSG, "(BINUNICODE): the stream");
	REFUSED("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", -EBADMSG, "negative");
	REFUSED("X\x02\0\0\0\xc3\x28.", -EBADMSG, "not UTF-8");
	REFUSED("h\x01.", -EBADMSG, "nothing at that memo index");
	REFUSED("g-1\n.", -EBADMSG, "not a memo index");
	REFUSED("K\x01K\x02\x61.", -EBADMSG, "wrong kind");
	REFUSED("t.", -EBADMSG, "no MARK");
	REFUSED("(K\x01K\x02K\x03\x64.", -EBADMSG, "key without a value");
	REFUSED("K\x01(\x85.", -EBADMSG, "too little");
	REFUSED("K\x01(.", -EBADMSG, "nothing on the stack");
	REFUSED("cm\nC\nK\x01R.", -EBADMSG, "no tuple");
	REFUSED("]}b.", -EBADMSG, "no object");
	REFUSED("\x82\x01.", -ENOTSUP, "extension");
	REFUSED("\x97.", -ENOTSUP, "out-of-band");
	REFUSED("c\nC\n.", -EBADMSG, "not a name");
	REFUSED("Iabc\n.", -EBADMSG, "not a number");
	REFUSED("F0x10\n.", -EBADMSG, "not a number");
	REFUSED("S'a\n.", -EBADMSG, "quoted");
	REFUSED("\x95\xff\0\0\0\0\0\0\0N.", -EBADMSG, "ends here");
}
END_TEST

START_TEST(limits_hold)
{
	const struct cfs_pickle_limits limits = {.memory_bytes = 1 << 20,
						 .depth = 50};
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(&limits);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_error err = {""};
	struct cfs_node *root;

	/* 51 lists, one in the other */
	for (unsigned i = 0; i < 51; i++)
		cfs_buf_put_str(&b, "]");
	for (unsigned i = 0; i < 50; i++)
		cfs_buf_put_str(&b, "a");
	cfs_buf_put_str(&b, ".");
	ck_assert_int_eq(
		cfs_pickle_decode(doc, b.data, b.len, &root, NULL, &err),
		-E2BIG);
	ck_assert_ptr_nonnull(strstr(err.text, "deeper than 50"));
	ck_assert_int_eq(cfs_pickle_decode(doc, b.data + 1, b.len - 3, &root,
					   NULL, NULL),
			 -EBADMSG);
	/* a million nodes */
	cfs_buf_reset(&b);
	cfs_buf_put_str(&b, "(");
	for (unsigned i = 0; i < 1000000; i++)
		cfs_buf_put_str(&b, "]");
	cfs_buf_put_str(&b, "l.");
	ck_assert_int_eq(
		cfs_pickle_decode(doc, b.data, b.len, &root, NULL, &err),
		-E2BIG);
	ck_assert_uint_le(cfs_pickle_memory_bytes(doc), 2u << 20);
	/* digits */
	cfs_buf_reset(&b);
	cfs_buf_put_str(&b, "L");
	for (unsigned i = 0; i < 4301; i++)
		cfs_buf_put_str(&b, "9");
	cfs_buf_put_str(&b, "L\n.");
	ck_assert_int_eq(
		cfs_pickle_decode(doc, b.data, b.len, &root, NULL, NULL),
		-E2BIG);
}
END_TEST

/* Each list holds the one before twice: 2^200 leaves if walked naively. */
static struct cfs_node *laughs(struct cfs_pickle *doc, unsigned levels)
{
	struct cfs_node *n = cfs_node_list(doc), *outer;

	for (unsigned i = 0; i < levels; i++) {
		outer = cfs_node_list(doc);
		cfs_node_append(doc, outer, n);
		cfs_node_append(doc, outer, n);
		n = outer;
	}
	return n;
}

START_TEST(shared_nodes_cost_once)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_node *a = laughs(doc, 200), *c = laughs(doc, 200), *back;

	ck_assert(cfs_node_equal(a, c));
	ck_assert(!cfs_node_equal(a, laughs(doc, 199)));
	encode(a, &b);
	ck_assert_uint_le(b.len, 200 * 9 + 10);
	back = decode(doc, b.data, b.len);
	ck_assert(cfs_node_equal(a, back));
}
END_TEST

START_TEST(encodes_as_torch_does)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *n, *s;

	ck_encodes(cfs_node_int(doc, 255), "\x80\x02K\xff.");
	ck_encodes(cfs_node_int(doc, 256), "\x80\x02M\x00\x01.");
	ck_encodes(cfs_node_int(doc, -1), "\x80\x02J\xff\xff\xff\xff.");
	ck_encodes(cfs_node_int(doc, INT64_C(2147483648)),
		   "\x80\x02\x8a\x05\x00\x00\x00\x80\x00.");
	ck_encodes(cfs_node_int(doc, INT64_MIN),
		   "\x80\x02\x8a\x08\0\0\0\0\0\0\0\x80.");
	ck_encodes(cfs_node_float(doc, 1.5), "\x80\x02G\x3f\xf8\0\0\0\0\0\0.");
	ck_encodes(cfs_node_tuple(doc, NULL, 0), "\x80\x02).");
	/* not memoised when referred to once, memoised when twice */
	n = cfs_node_list(doc);
	s = cfs_node_str(doc, "s");
	cfs_node_append(doc, n, s);
	ck_encodes(n, "\x80\x02]X\x01\0\0\0sa.");
	cfs_node_append(doc, n, s);
	ck_encodes(n, "\x80\x02](X\x01\0\0\0sq\0h\0e.");
	n = cfs_node_ordereddict(doc);
	cfs_node_set_str(doc, n, "k", cfs_node_none(doc));
	cfs_node_build(doc, n, cfs_node_dict(doc));
	ck_encodes(n, "\x80\x02"
		      "ccollections\nOrderedDict\n)RX\x01\0\0\0kNs}b.");
	n = DECODE(doc, "\x80\x03"
			"C\x02z\xe9.");
	ck_encodes(n, "\x80\x02"
		      "c_codecs\nencode\nX\x03\0\0\0z\xc3\xa9X\x06\0\0\0"
		      "latin1\x86R.");
	n = DECODE(doc, "\x80\x04\x8f(K\x01\x90.");
	ck_encodes(n, "\x80\x02"
		      "c__builtin__\nset\n]K\x01\x61\x85R.");
	n = DECODE(doc, "\x80\x04\x8c\x01m\x8c\x03\x41.B\x93.");
	ck_encodes(n, "\x80\x02"
		      "c__builtin__\ngetattr\ncm\nA\nX\x01\0\0\0B\x86R.");
	ck_assert(!cfs_pickle_failed(doc));
}
END_TEST

START_TEST(items_come_in_batches)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_node *n = cfs_node_list(doc);
	const char *tail = "eK\x07\x61.";

	for (unsigned i = 0; i < 2001; i++)
		cfs_node_append(doc, n, cfs_node_int(doc, 7));
	encode(n, &b);
	/* PROTO, ], two marks, items, two APPENDS, one APPEND, STOP */
	ck_assert_uint_eq(b.len, 2 + 1 + 2 + 2 * 2001 + 2 + 1 + 1);
	ck_assert_mem_eq(b.data + b.len - 5, tail, 5);
	ck_assert_mem_eq(b.data, "\x80\x02](K\x07", 6);
	ck_assert_mem_eq(b.data + 4 + 2000, "e(K", 3);
	ck_assert(cfs_node_equal(n, decode(doc, b.data, b.len)));
}
END_TEST

START_TEST(cycles_survive)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_node *list = cfs_node_list(doc), *tuple, *back, *object;
	struct cfs_error err = {""};

	/* a recursive tuple: t = ([t],) */
	tuple = cfs_node_tuple(doc, &list, 1);
	cfs_node_append(doc, list, tuple);
	encode(tuple, &b);
	back = decode(doc, b.data, b.len);
	ck_assert_int_eq(back->kind, CFS_NODE_TUPLE);
	ck_assert_ptr_eq(cfs_seq_node_item(cfs_seq_node_item(back, 0), 0),
			 back);
	ck_assert(cfs_node_equal(tuple, back));
	/* an object that is its own state */
	object = cfs_node_newobj(doc, "m", "C", cfs_node_tuple(doc, NULL, 0));
	cfs_node_build(doc, object, object);
	cfs_buf_reset(&b);
	encode(object, &b);
	back = decode(doc, b.data, b.len);
	ck_assert_ptr_eq(back->u.object->ops[0].a, back);
	/* a set in itself: Python could not make it, nor read it */
	back = DECODE(doc, "\x80\x04\x8f\x94(h\x00\x85\x90.");
	ck_assert_int_eq(cfs_pickle_encode(back, NULL, &b, &err), -ENOTSUP);
	ck_assert(cfs_node_equal(back, back));
}
END_TEST

START_TEST(trees_are_edited)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *old =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *from, *copy;

	from = DECODE(old, "\x80\x02}(X\x01\0\0\0aK\x01X\x01\0\0\0bK\x02"
			   "X\x01\0\0\0cK\x03u.");
	copy = cfs_node_copy(doc, from);
	cfs_node_replace(doc, copy, "b", cfs_node_none(doc));
	cfs_node_remove(copy, "a");
	cfs_node_replace(doc, copy, "d", cfs_node_bool(doc, true));
	ck_encodes(copy, "\x80\x02}(X\x01\0\0\0bNX\x01\0\0\0cK\x03"
			 "X\x01\0\0\0d\x88u.");
	ck_assert_uint_eq(cfs_map_node_count(from), 3);
	from = DECODE(old, "\x80\x02"
			   "cm\nO\n)R(X\x01\0\0\0aK\x01X\x01\0\0\0bK\x02uNb.");
	copy = cfs_node_copy(doc, from);
	cfs_node_remove(copy, "a");
	cfs_node_replace(doc, copy, "b", cfs_node_int(doc, 9));
	ck_assert_uint_eq(cfs_map_node_count(copy), 1);
	ck_encodes(copy, "\x80\x02"
			 "cm\nO\n)RX\x01\0\0\0bK\x09sNb.");
	ck_assert_uint_eq(cfs_map_node_count(from), 2);
	/* what an object is built of: its last state, in the copy alone */
	from = DECODE(old, "\x80\x02"
			   "cm\nO\n)\x81}X\x01\0\0\0aK\x01sb.");
	ck_assert_ptr_null(cfs_node_state(cfs_node_get(from, "a")));
	copy = cfs_node_copy(doc, cfs_node_state(from));
	cfs_node_replace(doc, copy, "a", cfs_node_int(doc, 2));
	from = cfs_node_copy(doc, from);
	cfs_node_replace_state(from, copy);
	ck_assert_ptr_eq(cfs_node_state(from), copy);
	ck_encodes(from, "\x80\x02"
			 "cm\nO\n)\x81}X\x01\0\0\0aK\x02sb.");
	/* a failed part makes the whole fail, noticed once */
	ck_assert(!cfs_pickle_failed(doc));
	cfs_node_append(doc, cfs_node_list(doc), NULL);
	ck_assert(cfs_pickle_failed(doc));
}
END_TEST

START_TEST(lookups_answer_no)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_node_index_freep) struct cfs_node_index *index = NULL;
	struct cfs_node *map = cfs_node_dict(doc), *n;
	uint64_t shape[3], u;
	uint32_t ndim;
	char key[16];
	int64_t v;

	ck_assert_ptr_null(cfs_node_get(NULL, "x"));
	ck_assert(!cfs_node_as_int(NULL, &v));
	ck_assert_uint_eq(cfs_map_node_count(cfs_node_int(doc, 3)), 0);
	ck_assert(!cfs_node_as_u64(cfs_node_int(doc, -1), &u));
	for (int i = 0; i < 5000; i++) {
		(void)snprintf(key, sizeof(key), "k%d", i % 4000);
		cfs_node_set_str(doc, map, key, cfs_node_int(doc, i));
	}
	ck_assert_int_eq(cfs_node_index_new(map, &index), 0);
	for (int i = 0; i < 4000; i += 7) {
		(void)snprintf(key, sizeof(key), "k%d", i);
		n = cfs_node_index_get(index, key);
		ck_assert_ptr_eq(n, cfs_node_get(map, key));
		ck_assert(cfs_node_as_int(n, &v));
		ck_assert_int_eq(v, i < 1000 ? i + 4000 : i);
	}
	ck_assert_ptr_null(cfs_node_index_get(index, "k4000"));
	n = DECODE(doc, "\x80\x02"
			"ctorch\nSize\nK\x02K\x03\x86\x85R.");
	ck_assert(cfs_node_as_shape(n, 3, &ndim, shape));
	ck_assert_uint_eq(ndim, 2);
	ck_assert_uint_eq(shape[1], 3);
	ck_assert(!cfs_node_as_shape(n, 1, &ndim, shape));
}
END_TEST

START_TEST(equality)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	struct cfs_node *a = DECODE(doc, "]q\0(h\0]q\1(h\1h\1ee.");
	struct cfs_node *b = DECODE(doc, "]q\0(h\0h\0e.");

	/* both unfold to the same infinite tree */
	ck_assert(cfs_node_equal(a, b));
	ck_assert(!cfs_node_equal(cfs_node_int(doc, 1),
				  cfs_node_bool(doc, true)));
	ck_assert(!cfs_node_equal(cfs_node_float(doc, 0.0),
				  cfs_node_float(doc, -0.0)));
	ck_assert(!cfs_node_equal(cfs_node_str(doc, "a"),
				  cfs_node_str(doc, "b")));
	ck_assert(!cfs_node_equal(a, NULL));
	ck_assert(!cfs_node_equal(DECODE(doc, "cm\nC\n)R."),
				  DECODE(doc, "cm\nC\n)\x81.")));
	ck_assert(!cfs_node_equal(DECODE(doc, "cm\nC\n)RNb."),
				  DECODE(doc, "cm\nC\n)R.")));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("pickle");
	TCase *tc = tcase_create("pickle");

	tcase_add_test(tc, values_of_every_protocol);
	tcase_add_test(tc, containers_and_memo);
	tcase_add_test(tc, objects_keep_what_was_done);
	tcase_add_test(tc, refusals_name_offset_and_opcode);
	tcase_add_test(tc, limits_hold);
	tcase_add_test(tc, shared_nodes_cost_once);
	tcase_add_test(tc, encodes_as_torch_does);
	tcase_add_test(tc, items_come_in_batches);
	tcase_add_test(tc, cycles_survive);
	tcase_add_test(tc, trees_are_edited);
	tcase_add_test(tc, lookups_answer_no);
	tcase_add_test(tc, equality);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
