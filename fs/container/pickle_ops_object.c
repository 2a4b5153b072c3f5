/* Opcodes of names, objects, the memo and the stack; the opcode table. */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_ops.h"
#include "store/util/endian.h"
#include "store/util/grow.h"

#define BAD(text) cfs_pickle_bad(rd, -EBADMSG, text)

static int make_global(struct cfs_pickle_reader *rd, const char *module,
		       size_t module_len, const char *name, size_t name_len,
		       struct cfs_node **out)
{
	if (!module_len || !name_len || memchr(module, '\0', module_len) ||
	    memchr(name, '\0', name_len) || !cfs_utf8_ok(module, module_len) ||
	    !cfs_utf8_ok(name, name_len))
		return BAD("not a name");
	*out = cfs_node_globaln(rd->doc, module, module_len, name, name_len);
	return *out ? 0 : cfs_pickle_nomem(rd);
}

static int read_global(struct cfs_pickle_reader *rd, struct cfs_node **out)
{
	const char *module, *name;
	size_t module_len, name_len;

	module = cfs_pickle_line(rd, &module_len);
	name = module ? cfs_pickle_line(rd, &name_len) : NULL;
	if (!name)
		return cfs_pickle_ended(rd);
	return make_global(rd, module, module_len, name, name_len, out);
}

static int op_global(struct cfs_pickle_reader *rd)
{
	struct cfs_node *node = NULL;
	int r = read_global(rd, &node);

	return r < 0 ? r : cfs_pickle_push(rd, node);
}

static int op_stack_global(struct cfs_pickle_reader *rd)
{
	const struct cfs_node *name = cfs_pickle_pop(rd);
	const struct cfs_node *module = cfs_pickle_pop(rd);
	struct cfs_node *node = NULL;
	int r;

	if (!module || module->kind != CFS_NODE_STR ||
	    name->kind != CFS_NODE_STR)
		return BAD("needs two strings");
	r = make_global(rd, module->u.str.data, module->u.str.len,
			name->u.str.data, name->u.str.len, &node);
	return r < 0 ? r : cfs_pickle_push(rd, node);
}

static int push_object(struct cfs_pickle_reader *rd, enum cfs_call_kind call,
		       struct cfs_node *fn, struct cfs_node *args,
		       struct cfs_node *kwargs)
{
	if (args->kind != CFS_NODE_TUPLE)
		return BAD("arguments are no tuple");
	if (kwargs && kwargs->kind != CFS_NODE_DICT)
		return BAD("keyword arguments are no dict");
	return cfs_pickle_push(
		rd, cfs_node_object(rd->doc, call, fn, args, kwargs));
}

static int op_call(struct cfs_pickle_reader *rd)
{
	struct cfs_node *kwargs = NULL, *args, *fn;

	if (rd->op == 0x92) {
		kwargs = cfs_pickle_pop(rd);
		if (!kwargs)
			return BAD("too little on the stack");
	}
	args = cfs_pickle_pop(rd);
	fn = args ? cfs_pickle_pop(rd) : NULL;
	if (!fn)
		return BAD("too little on the stack");
	return push_object(rd,
			   rd->op == 'R'    ? CFS_CALL_REDUCE
			   : rd->op == 0x81 ? CFS_CALL_NEWOBJ
					    : CFS_CALL_NEWOBJ_EX,
			   fn, args, kwargs);
}

/* INST and OBJ of protocols 0 and 1: a class and marked arguments. */
static int op_instance(struct cfs_pickle_reader *rd)
{
	struct cfs_node *fn = NULL, *args, **items;
	size_t n;
	int r;

	if (rd->op == 'i') {
		r = read_global(rd, &fn);
		if (r < 0)
			return r;
	}
	r = cfs_pickle_pop_mark(rd, &items, &n);
	if (r < 0)
		return r;
	if (rd->op == 'o') {
		if (!n--)
			return BAD("too little on the stack");
		fn = *items++;
	}
	if (n > UINT32_MAX / 4)
		return cfs_pickle_nomem(rd);
	args = cfs_node_tuple(rd->doc, items, (uint32_t)n);
	if (!args)
		return cfs_pickle_nomem(rd);
	/* Python makes an instance without arguments by __new__ alone */
	return push_object(rd, n ? CFS_CALL_REDUCE : CFS_CALL_NEWOBJ, fn, args,
			   NULL);
}

static int op_build(struct cfs_pickle_reader *rd)
{
	struct cfs_node *state = cfs_pickle_pop(rd);
	struct cfs_node *node = state ? cfs_pickle_top(rd) : NULL;

	if (!node || node->kind != CFS_NODE_OBJECT)
		return BAD("no object to give a state to");
	if (!cfs_node_add_op(rd->doc, node, CFS_OP_BUILD, state, NULL))
		return cfs_pickle_nomem(rd);
	return 0;
}

static int push_persid(struct cfs_pickle_reader *rd, struct cfs_node *id)
{
	struct cfs_pickle *doc = rd->doc;
	struct cfs_node *node = cfs_node_persid(doc, id, NULL);

	if (!node)
		return cfs_pickle_nomem(rd);
	if (!CFS_GROW(doc->persids, doc->n_persids, doc->cap_persids))
		return -ENOMEM;
	doc->persids[doc->n_persids++] = node;
	return cfs_pickle_push(rd, node);
}

static int op_persid(struct cfs_pickle_reader *rd)
{
	const char *s;
	size_t len;

	s = cfs_pickle_line(rd, &len);
	if (!s)
		return cfs_pickle_ended(rd);
	if (!cfs_utf8_ok(s, len))
		return BAD("not UTF-8");
	return push_persid(rd, cfs_node_strn(rd->doc, s, len));
}

static int op_binpersid(struct cfs_pickle_reader *rd)
{
	struct cfs_node *id = cfs_pickle_pop(rd);

	return id ? push_persid(rd, id) : BAD("too little on the stack");
}

/* The memo index that GET, PUT and their binary forms carry. */
static int read_index(struct cfs_pickle_reader *rd, uint64_t *index_out)
{
	const unsigned width = rd->op == 'h' || rd->op == 'q' ? 1 : 4;
	const uint8_t *p;
	const char *s;
	uint64_t v = 0;
	size_t len;

	if (rd->op == 'j' || rd->op == 'r' || width == 1) {
		p = cfs_pickle_take(rd, width);
		if (!p)
			return cfs_pickle_ended(rd);
		*index_out = width == 1 ? *p : cfs_get_le32(p);
		return 0;
	}
	s = cfs_pickle_line(rd, &len);
	if (!s)
		return cfs_pickle_ended(rd);
	if (!len || len > 18)
		return BAD("not a memo index");
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return BAD("not a memo index");
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	*index_out = v;
	return 0;
}

static int op_get(struct cfs_pickle_reader *rd)
{
	struct cfs_node *node;
	uint64_t index = 0;
	int r;

	r = read_index(rd, &index);
	if (r < 0)
		return r;
	node = cfs_pickle_memo_get(rd, index);
	if (!node)
		return BAD("nothing at that memo index");
	return cfs_pickle_push(rd, node);
}

static int memo_put(struct cfs_pickle_reader *rd, uint64_t index)
{
	struct cfs_node *node = cfs_pickle_top(rd);

	if (!node)
		return BAD("nothing on the stack");
	return cfs_pickle_memo_put(rd, index, node);
}

static int op_put(struct cfs_pickle_reader *rd)
{
	uint64_t index = 0;
	int r;

	r = read_index(rd, &index);
	return r < 0 ? r : memo_put(rd, index);
}

static int op_memoize(struct cfs_pickle_reader *rd)
{
	return memo_put(rd, rd->n_memo);
}

/* POP takes a MARK where one lies on top, as CPython's does. */
static int op_pop(struct cfs_pickle_reader *rd)
{
	if (cfs_pickle_pop(rd))
		return 0;
	if (!rd->n_marks)
		return BAD("nothing on the stack");
	rd->n_marks--;
	return 0;
}

static int op_pop_mark(struct cfs_pickle_reader *rd)
{
	struct cfs_node **items;
	size_t n;

	return cfs_pickle_pop_mark(rd, &items, &n);
}

static int op_dup(struct cfs_pickle_reader *rd)
{
	struct cfs_node *node = cfs_pickle_top(rd);

	return node ? cfs_pickle_push(rd, node) : BAD("nothing on the stack");
}

static int op_refused(struct cfs_pickle_reader *rd)
{
	return cfs_pickle_bad(rd, -ENOTSUP,
			      rd->op >= 0x97
				      ? "out-of-band buffers cannot be "
					"read from a file"
				      : "extension codes have no meaning "
					"outside the program that wrote "
					"them");
}

const struct cfs_pickle_opcode cfs_pickle_opcodes[256] = {
	['('] = {"MARK", cfs_pickle_mark},
	['.'] = {"STOP", NULL},
	['0'] = {"POP", op_pop},
	['1'] = {"POP_MARK", op_pop_mark},
	['2'] = {"DUP", op_dup},
	['F'] = {"FLOAT", cfs_op_float},
	['I'] = {"INT", cfs_op_text_int},
	['J'] = {"BININT", cfs_op_binint},
	['K'] = {"BININT1", cfs_op_binint},
	['L'] = {"LONG", cfs_op_text_int},
	['M'] = {"BININT2", cfs_op_binint},
	['N'] = {"NONE", cfs_op_none},
	['P'] = {"PERSID", op_persid},
	['Q'] = {"BINPERSID", op_binpersid},
	['R'] = {"REDUCE", op_call},
	['S'] = {"STRING", cfs_op_string},
	['T'] = {"BINSTRING", cfs_op_binstring},
	['U'] = {"SHORT_BINSTRING", cfs_op_binstring},
	['V'] = {"UNICODE", cfs_op_unicode},
	['X'] = {"BINUNICODE", cfs_op_binunicode},
	['a'] = {"APPEND", cfs_op_add_one},
	['b'] = {"BUILD", op_build},
	['c'] = {"GLOBAL", op_global},
	['d'] = {"DICT", cfs_op_marked},
	['}'] = {"EMPTY_DICT", cfs_op_empty},
	['e'] = {"APPENDS", cfs_op_add_many},
	['g'] = {"GET", op_get},
	['h'] = {"BINGET", op_get},
	['i'] = {"INST", op_instance},
	['j'] = {"LONG_BINGET", op_get},
	['l'] = {"LIST", cfs_op_marked},
	[']'] = {"EMPTY_LIST", cfs_op_empty},
	['o'] = {"OBJ", op_instance},
	['p'] = {"PUT", op_put},
	['q'] = {"BINPUT", op_put},
	['r'] = {"LONG_BINPUT", op_put},
	['s'] = {"SETITEM", cfs_op_add_one},
	['t'] = {"TUPLE", cfs_op_marked},
	[')'] = {"EMPTY_TUPLE", cfs_op_empty},
	['u'] = {"SETITEMS", cfs_op_add_many},
	['G'] = {"BINFLOAT", cfs_op_binfloat},
	['B'] = {"BINBYTES", cfs_op_binbytes},
	['C'] = {"SHORT_BINBYTES", cfs_op_binbytes},
	[0x80] = {"PROTO", cfs_op_proto},
	[0x81] = {"NEWOBJ", op_call},
	[0x82] = {"EXT1", op_refused},
	[0x83] = {"EXT2", op_refused},
	[0x84] = {"EXT4", op_refused},
	[0x85] = {"TUPLE1", cfs_op_tuple123},
	[0x86] = {"TUPLE2", cfs_op_tuple123},
	[0x87] = {"TUPLE3", cfs_op_tuple123},
	[0x88] = {"NEWTRUE", cfs_op_true},
	[0x89] = {"NEWFALSE", cfs_op_false},
	[0x8a] = {"LONG1", cfs_op_long},
	[0x8b] = {"LONG4", cfs_op_long},
	[0x8c] = {"SHORT_BINUNICODE", cfs_op_binunicode},
	[0x8d] = {"BINUNICODE8", cfs_op_binunicode},
	[0x8e] = {"BINBYTES8", cfs_op_binbytes},
	[0x8f] = {"EMPTY_SET", cfs_op_empty},
	[0x90] = {"ADDITEMS", cfs_op_add_many},
	[0x91] = {"FROZENSET", cfs_op_marked},
	[0x92] = {"NEWOBJ_EX", op_call},
	[0x93] = {"STACK_GLOBAL", op_stack_global},
	[0x94] = {"MEMOIZE", op_memoize},
	[0x95] = {"FRAME", cfs_op_frame},
	[0x96] = {"BYTEARRAY8", cfs_op_binbytes},
	[0x97] = {"NEXT_BUFFER", op_refused},
	[0x98] = {"READONLY_BUFFER", op_refused},
};
