/* The state of one decoding; shared by pickle_read.c and pickle_ops.c. */
#ifndef CFS_CONTAINER_PICKLE_READER_H
#define CFS_CONTAINER_PICKLE_READER_H

#include "fs/container/pickle_internal.h"

struct cfs_error;

struct cfs_pickle_reader {
	struct cfs_pickle *doc;
	struct cfs_error *err;
	const uint8_t *data;
	size_t len, pos, op_pos;
	uint8_t op;
	struct cfs_node **stack;
	size_t n, cap;
	size_t *marks; /* stack heights */
	size_t n_marks, cap_marks;
	/* The memo: by index while indices are about as many as entries, as
	 * every pickler numbers them; others (index + 1) in a hash map. */
	struct cfs_node **memo;
	size_t cap_memo;
	uint64_t n_memo; /* entries of both */
	struct cfs_u64map sparse;
};

struct cfs_pickle_opcode {
	const char *name; /* NULL: no such opcode */
	int (*run)(struct cfs_pickle_reader *rd);
};

extern const struct cfs_pickle_opcode cfs_pickle_opcodes[256];

/* Refusals: the text names offset and opcode. */
int cfs_pickle_bad(struct cfs_pickle_reader *rd, int r, const char *what);
int cfs_pickle_nomem(struct cfs_pickle_reader *rd);

/* The next @len bytes; NULL, with nothing consumed, when there are fewer. */
const uint8_t *cfs_pickle_take(struct cfs_pickle_reader *rd, uint64_t len);
/* Up to a newline, which is consumed and not counted; NULL if there is none */
const char *cfs_pickle_line(struct cfs_pickle_reader *rd, size_t *len_out);
int cfs_pickle_ended(struct cfs_pickle_reader *rd); /* -ENODATA */

/* pickle_memo.c; NULL: nothing there */
struct cfs_node *cfs_pickle_memo_get(const struct cfs_pickle_reader *rd,
				     uint64_t index);
CFS_MUST_CHECK int cfs_pickle_memo_put(struct cfs_pickle_reader *rd,
				       uint64_t index, struct cfs_node *node);

/* NULL @node: out of memory. */
CFS_MUST_CHECK int cfs_pickle_push(struct cfs_pickle_reader *rd,
				   struct cfs_node *node);
/* NULL when nothing is above the last MARK. */
struct cfs_node *cfs_pickle_pop(struct cfs_pickle_reader *rd);
struct cfs_node *cfs_pickle_top(struct cfs_pickle_reader *rd);
CFS_MUST_CHECK int cfs_pickle_mark(struct cfs_pickle_reader *rd);
/* Pops down to the last MARK: *items_out stays valid until the next push. */
CFS_MUST_CHECK int cfs_pickle_pop_mark(struct cfs_pickle_reader *rd,
				       struct cfs_node ***items_out,
				       size_t *n_out);

#endif
