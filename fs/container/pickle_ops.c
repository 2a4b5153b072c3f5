/* What the opcodes of plain values and containers do. */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_ops.h"
#include "fs/container/pickle_text.h"
#include "store/util/buf.h"
#include "store/util/endian.h"

#define BAD(text) cfs_pickle_bad(rd, -EBADMSG, text)

/* A little-endian count of @width bytes at the cursor, then that many. */
static int take_counted(struct cfs_pickle_reader *rd, unsigned width,
			const uint8_t **data_out, size_t *len_out)
{
	const uint8_t *p = cfs_pickle_take(rd, width);
	uint64_t len = 0;

	if (!p)
		return cfs_pickle_ended(rd);
	for (unsigned i = 0; i < width; i++)
		len |= (uint64_t)p[i] << (8 * i);
	if (len > INT64_MAX)
		return BAD("negative length");
	*data_out = cfs_pickle_take(rd, len);
	if (!*data_out)
		return cfs_pickle_ended(rd);
	*len_out = (size_t)len;
	return 0;
}

static unsigned count_width(uint8_t op)
{
	switch (op) {
	case 'U':
	case 'C':
	case 0x8c:
	case 0x8a:
		return 1;
	case 0x8d:
	case 0x8e:
	case 0x96:
		return 8;
	default:
		return 4;
	}
}

int cfs_op_proto(struct cfs_pickle_reader *rd)
{
	const uint8_t *p = cfs_pickle_take(rd, 1);

	if (!p)
		return cfs_pickle_ended(rd);
	if (*p > 5)
		return cfs_pickle_bad(rd, -ENOTSUP, "protocol newer than 5");
	return 0;
}

int cfs_op_frame(struct cfs_pickle_reader *rd)
{
	const uint8_t *p = cfs_pickle_take(rd, 8);

	if (!p)
		return cfs_pickle_ended(rd);
	if (cfs_get_le64(p) > INT64_MAX)
		return BAD("negative length");
	/* a frame only tells how to buffer */
	if (cfs_get_le64(p) > rd->len - rd->pos)
		return cfs_pickle_ended(rd);
	return 0;
}

int cfs_op_none(struct cfs_pickle_reader *rd)
{
	return cfs_pickle_push(rd, cfs_node_none(rd->doc));
}

int cfs_op_true(struct cfs_pickle_reader *rd)
{
	return cfs_pickle_push(rd, cfs_node_bool(rd->doc, true));
}

int cfs_op_false(struct cfs_pickle_reader *rd)
{
	return cfs_pickle_push(rd, cfs_node_bool(rd->doc, false));
}

int cfs_op_binint(struct cfs_pickle_reader *rd)
{
	const unsigned width = rd->op == 'K' ? 1 : rd->op == 'M' ? 2 : 4;
	const uint8_t *p = cfs_pickle_take(rd, width);
	int64_t v;

	if (!p)
		return cfs_pickle_ended(rd);
	v = width == 1	 ? p[0]
	    : width == 2 ? cfs_get_le16(p)
			 : (int32_t)cfs_get_le32(p);
	return cfs_pickle_push(rd, cfs_node_int(rd->doc, v));
}

int cfs_op_text_int(struct cfs_pickle_reader *rd)
{
	struct cfs_node *node;
	const char *s;
	size_t len;
	int r;

	s = cfs_pickle_line(rd, &len);
	if (!s)
		return cfs_pickle_ended(rd);
	if (rd->op == 'I' && len == 2 && s[0] == '0' &&
	    (s[1] == '0' || s[1] == '1'))
		return cfs_pickle_push(rd, cfs_node_bool(rd->doc, s[1] == '1'));
	r = cfs_pickle_text_int(rd->doc, s, len, &node);
	if (r == -ENOMEM)
		return cfs_pickle_nomem(rd);
	if (r < 0)
		return cfs_pickle_bad(rd, r,
				      r == -E2BIG ? "number has too many digits"
						  : "not a number");
	return cfs_pickle_push(rd, node);
}

int cfs_op_long(struct cfs_pickle_reader *rd)
{
	const uint8_t *p = NULL;
	size_t len = 0;
	int r;

	r = take_counted(rd, count_width(rd->op), &p, &len);
	if (r < 0)
		return r;
	if (len > INT32_MAX)
		return BAD("negative length");
	return cfs_pickle_push(rd, cfs_pickle_long(rd->doc, p, len));
}

int cfs_op_float(struct cfs_pickle_reader *rd)
{
	const char *s;
	double v;
	size_t len;

	s = cfs_pickle_line(rd, &len);
	if (!s)
		return cfs_pickle_ended(rd);
	if (cfs_pickle_text_float(s, len, &v) < 0)
		return BAD("not a number");
	return cfs_pickle_push(rd, cfs_node_float(rd->doc, v));
}

int cfs_op_binfloat(struct cfs_pickle_reader *rd)
{
	const uint8_t *p = cfs_pickle_take(rd, 8);
	uint64_t raw;
	double v;

	if (!p)
		return cfs_pickle_ended(rd);
	raw = cfs_get_be64(p);
	memcpy(&v, &raw, sizeof(v));
	return cfs_pickle_push(rd, cfs_node_float(rd->doc, v));
}

/* What a string's opcode makes of its bytes. */
typedef int push_fn(struct cfs_pickle_reader *rd, const void *data, size_t len);

static int push_text(struct cfs_pickle_reader *rd, const void *data, size_t len)
{
	if (!cfs_utf8_ok(data, len))
		return BAD("not UTF-8");
	return cfs_pickle_push(rd, cfs_node_strn(rd->doc, data, len));
}

/* Python 2's str: text wherever torch.load would make text of it. */
static int push_string(struct cfs_pickle_reader *rd, const void *data,
		       size_t len)
{
	return cfs_pickle_push(rd, cfs_node_bytes(rd->doc,
						  cfs_utf8_ok(data, len)
							  ? CFS_NODE_STR
							  : CFS_NODE_BYTES,
						  data, len));
}

static int push_bytes(struct cfs_pickle_reader *rd, const void *data,
		      size_t len)
{
	return cfs_pickle_push(rd, cfs_node_bytes(rd->doc,
						  rd->op == 0x96
							  ? CFS_NODE_BYTEARRAY
							  : CFS_NODE_BYTES,
						  data, len));
}

/* A line that is spelt in characters. */
static int push_line(struct cfs_pickle_reader *rd,
		     int (*parse)(const char *s, size_t len,
				  struct cfs_buf *out),
		     const char *wrong, push_fn *push)
{
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	const char *s;
	size_t len;
	int r;

	s = cfs_pickle_line(rd, &len);
	if (!s)
		return cfs_pickle_ended(rd);
	r = parse(s, len, &text);
	if (r == -EBADMSG)
		return BAD(wrong);
	if (r < 0)
		return r;
	return push(rd, text.data, text.len);
}

static int push_counted(struct cfs_pickle_reader *rd, push_fn *push)
{
	const uint8_t *p = NULL;
	size_t len = 0;
	int r;

	r = take_counted(rd, count_width(rd->op), &p, &len);
	if (r < 0)
		return r;
	return push(rd, p, len);
}

int cfs_op_unicode(struct cfs_pickle_reader *rd)
{
	return push_line(rd, cfs_pickle_text_unicode, "wrong escape",
			 push_text);
}

int cfs_op_binunicode(struct cfs_pickle_reader *rd)
{
	return push_counted(rd, push_text);
}

int cfs_op_string(struct cfs_pickle_reader *rd)
{
	return push_line(rd, cfs_pickle_text_string, "not a quoted string",
			 push_string);
}

int cfs_op_binstring(struct cfs_pickle_reader *rd)
{
	return push_counted(rd, push_string);
}

int cfs_op_binbytes(struct cfs_pickle_reader *rd)
{
	return push_counted(rd, push_bytes);
}

int cfs_op_empty(struct cfs_pickle_reader *rd)
{
	const enum cfs_node_kind kind = rd->op == ']'	? CFS_NODE_LIST
					: rd->op == '}' ? CFS_NODE_DICT
					: rd->op == ')' ? CFS_NODE_TUPLE
							: CFS_NODE_SET;

	return cfs_pickle_push(rd, cfs_node_new(rd->doc, kind));
}

static int add_items(struct cfs_pickle_reader *rd, struct cfs_node *node,
		     struct cfs_node **items, size_t n)
{
	if (!cfs_node_reserve(rd->doc, node, n))
		return cfs_pickle_nomem(rd);
	if (n)
		memcpy(&node->u.items[node->n], items, n * sizeof(*items));
	node->n += (uint32_t)n;
	return 0;
}

static int add_pairs(struct cfs_pickle_reader *rd, struct cfs_node *node,
		     struct cfs_node **items, size_t n)
{
	if (n % 2)
		return BAD("a key without a value");
	if (!cfs_node_reserve(rd->doc, node, n / 2))
		return cfs_pickle_nomem(rd);
	if (n)
		memcpy(&node->u.items[(size_t)node->n * 2], items,
		       n * sizeof(*items));
	node->n += (uint32_t)(n / 2);
	return 0;
}

int cfs_op_marked(struct cfs_pickle_reader *rd)
{
	const enum cfs_node_kind kind = rd->op == 'l'	? CFS_NODE_LIST
					: rd->op == 'd' ? CFS_NODE_DICT
					: rd->op == 't' ? CFS_NODE_TUPLE
							: CFS_NODE_FROZENSET;
	struct cfs_node *node, **items = NULL;
	size_t n = 0;
	int r;

	r = cfs_pickle_pop_mark(rd, &items, &n);
	if (r < 0)
		return r;
	node = cfs_node_new(rd->doc, kind);
	if (!node)
		return cfs_pickle_nomem(rd);
	r = kind == CFS_NODE_DICT ? add_pairs(rd, node, items, n)
				  : add_items(rd, node, items, n);
	if (r < 0)
		return r;
	return cfs_pickle_push(rd, node);
}

int cfs_op_tuple123(struct cfs_pickle_reader *rd)
{
	const uint32_t n = rd->op - 0x84u;
	struct cfs_node *items[3], *tuple;

	for (uint32_t i = n; i-- > 0;) {
		items[i] = cfs_pickle_pop(rd);
		if (!items[i])
			return BAD("too little on the stack");
	}
	tuple = cfs_node_tuple(rd->doc, items, n);
	return cfs_pickle_push(rd, tuple);
}

/* The items of one APPEND, SETITEM, … onto what lies below them. */
static int add_to_top(struct cfs_pickle_reader *rd, enum cfs_op_kind kind,
		      struct cfs_node **items, size_t n)
{
	static const enum cfs_node_kind own[] = {
		[CFS_OP_APPEND] = CFS_NODE_LIST,
		[CFS_OP_SETITEM] = CFS_NODE_DICT,
		[CFS_OP_ADD] = CFS_NODE_SET,
	};
	const size_t step = kind == CFS_OP_SETITEM ? 2 : 1;
	struct cfs_node *node = cfs_pickle_top(rd);

	if (!node)
		return BAD("nothing to add to");
	if (n % step)
		return BAD("a key without a value");
	if (node->kind == own[kind])
		return step == 2 ? add_pairs(rd, node, items, n)
				 : add_items(rd, node, items, n);
	if (node->kind != CFS_NODE_OBJECT)
		return BAD("the wrong kind of object to add to");
	for (size_t i = 0; i < n; i += step) {
		if (!cfs_node_add_op(rd->doc, node, kind, items[i],
				     step == 2 ? items[i + 1] : NULL))
			return cfs_pickle_nomem(rd);
	}
	return 0;
}

int cfs_op_add_one(struct cfs_pickle_reader *rd)
{
	const bool pair = rd->op == 's';
	struct cfs_node *items[2];

	items[1] = pair ? cfs_pickle_pop(rd) : NULL;
	items[0] = cfs_pickle_pop(rd);
	if (!items[0] || (pair && !items[1]))
		return BAD("too little on the stack");
	return add_to_top(rd, pair ? CFS_OP_SETITEM : CFS_OP_APPEND, items,
			  pair ? 2 : 1);
}

int cfs_op_add_many(struct cfs_pickle_reader *rd)
{
	struct cfs_node **items = NULL;
	size_t n = 0;
	int r;

	r = cfs_pickle_pop_mark(rd, &items, &n);
	if (r < 0)
		return r;
	return add_to_top(rd,
			  rd->op == 'e'	  ? CFS_OP_APPEND
			  : rd->op == 'u' ? CFS_OP_SETITEM
					  : CFS_OP_ADD,
			  items, n);
}
