/*
 * Decoding: the stack machine.  What the opcodes do is in pickle_ops.c and
 * pickle_ops_object.c.  Nothing here recurses, and each byte of input costs a
 * bounded amount of work and memory.
 */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_reader.h"
#include "store/util/error.h"

#define OP_STOP '.'

int cfs_pickle_bad(struct cfs_pickle_reader *rd, int r, const char *what)
{
	const char *name = cfs_pickle_opcodes[rd->op].name;

	return cfs_fail(rd->err, r,
			"pickle: offset %zu, opcode 0x%02x (%s): %s",
			rd->op_pos, rd->op, name ? name : "unknown", what);
}

int cfs_pickle_ended(struct cfs_pickle_reader *rd)
{
	return cfs_pickle_bad(rd, -ENODATA, "the stream ends here");
}

int cfs_pickle_nomem(struct cfs_pickle_reader *rd)
{
	if (!rd->doc->over)
		return -ENOMEM;
	return cfs_pickle_bad(rd, -E2BIG, "more memory needed than allowed");
}

const uint8_t *cfs_pickle_take(struct cfs_pickle_reader *rd, uint64_t len)
{
	const uint8_t *p = rd->data + rd->pos;

	if (len > rd->len - rd->pos)
		return NULL;
	rd->pos += (size_t)len;
	return p;
}

const char *cfs_pickle_line(struct cfs_pickle_reader *rd, size_t *len_out)
{
	const uint8_t *p = rd->data + rd->pos;
	const uint8_t *end =
		rd->pos < rd->len ? memchr(p, '\n', rd->len - rd->pos) : NULL;

	if (!end)
		return NULL;
	*len_out = (size_t)(end - p);
	rd->pos += *len_out + 1;
	return (const char *)p;
}

/* The stacks live outside the arena but count against its limit. */
static void *grow_stack(struct cfs_pickle_reader *rd, void *old, size_t width,
			size_t *cap)
{
	const size_t more = *cap ? *cap * 2 : 256;
	void *p = NULL;

	if (more * width <= rd->doc->limits.memory_bytes)
		p = realloc(old, more * width);
	if (p)
		*cap = more;
	return p;
}

int cfs_pickle_push(struct cfs_pickle_reader *rd, struct cfs_node *node)
{
	struct cfs_node **p;

	if (!node)
		return cfs_pickle_nomem(rd);
	if (rd->n == rd->cap) {
		p = grow_stack(rd, rd->stack, sizeof(*p), &rd->cap);
		if (!p)
			return cfs_pickle_bad(rd, -E2BIG, "stack too large");
		rd->stack = p;
	}
	rd->stack[rd->n++] = node;
	return 0;
}

static size_t fence(const struct cfs_pickle_reader *rd)
{
	return rd->n_marks ? rd->marks[rd->n_marks - 1] : 0;
}

struct cfs_node *cfs_pickle_top(struct cfs_pickle_reader *rd)
{
	return rd->n > fence(rd) ? rd->stack[rd->n - 1] : NULL;
}

struct cfs_node *cfs_pickle_pop(struct cfs_pickle_reader *rd)
{
	return rd->n > fence(rd) ? rd->stack[--rd->n] : NULL;
}

int cfs_pickle_mark(struct cfs_pickle_reader *rd)
{
	size_t *p;

	if (rd->n_marks == rd->cap_marks) {
		p = grow_stack(rd, rd->marks, sizeof(*p), &rd->cap_marks);
		if (!p)
			return cfs_pickle_bad(rd, -E2BIG, "too many marks");
		rd->marks = p;
	}
	rd->marks[rd->n_marks++] = rd->n;
	return 0;
}

int cfs_pickle_pop_mark(struct cfs_pickle_reader *rd,
			struct cfs_node ***items_out, size_t *n_out)
{
	size_t start;

	if (!rd->n_marks)
		return cfs_pickle_bad(rd, -EBADMSG, "no MARK on the stack");
	start = rd->marks[--rd->n_marks];
	/* never NULL, so that an empty run can be copied from */
	*items_out = rd->stack + start;
	*n_out = rd->n - start;
	rd->n = start;
	return 0;
}

static int run(struct cfs_pickle_reader *rd)
{
	const struct cfs_pickle_opcode *op;
	int r;

	for (;;) {
		rd->op_pos = rd->pos;
		if (rd->pos == rd->len)
			return cfs_fail(rd->err, -ENODATA,
					"pickle: offset %zu: the stream ends "
					"without STOP",
					rd->pos);
		rd->op = rd->data[rd->pos++];
		if (rd->op == OP_STOP)
			return 0;
		op = &cfs_pickle_opcodes[rd->op];
		if (!op->run)
			return cfs_pickle_bad(rd, -EBADMSG, "no such opcode");
		r = op->run(rd);
		if (r < 0)
			return r;
	}
}

static int decode(struct cfs_pickle_reader *rd, struct cfs_node **root_out)
{
	struct cfs_node *root;
	int r;

	r = cfs_pickle_push(rd, cfs_node_none(rd->doc));
	if (r < 0)
		return r;
	rd->n = 0; /* the stack is there now, if empty */
	r = run(rd);
	if (r < 0)
		return r;
	root = cfs_pickle_pop(rd);
	if (!root)
		return cfs_pickle_bad(rd, -EBADMSG, "nothing on the stack");
	r = cfs_node_check_depth(root, rd->doc->limits.depth);
	if (r == -E2BIG)
		return cfs_fail(rd->err, r,
				"pickle: nested deeper than %u levels",
				rd->doc->limits.depth);
	if (r < 0)
		return r;
	*root_out = root;
	return 0;
}

int cfs_pickle_decode_more(struct cfs_pickle *doc, const void *data, size_t len,
			   struct cfs_node **root_out, size_t *consumed_out,
			   struct cfs_error *err)
{
	struct cfs_pickle_reader rd = {.doc = doc,
				       .err = err,
				       .data = data,
				       .len = len,
				       .sparse = CFS_U64MAP_INIT};
	int r = decode(&rd, root_out);

	free(rd.stack);
	free(rd.marks);
	free(rd.memo);
	cfs_u64map_free(&rd.sparse);
	if (!r && consumed_out)
		*consumed_out = rd.pos;
	if (r == -ENOMEM)
		return cfs_fail(err, r, "pickle: out of memory");
	return r;
}

int cfs_pickle_decode(struct cfs_pickle *doc, const void *data, size_t len,
		      struct cfs_node **root_out, size_t *consumed_out,
		      struct cfs_error *err)
{
	int r = cfs_pickle_decode_more(doc, data, len, root_out, consumed_out,
				       err);

	return r == -ENODATA ? -EBADMSG : r;
}
