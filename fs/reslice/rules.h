/*
 * How the tensor-parallel ranks of a family of models share each parameter: a
 * table of names.  A family is data; a user's own rules come before it.
 */
#ifndef CFS_RESLICE_RULES_H
#define CFS_RESLICE_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/reslice/tensor_parallel.h"

struct cfs_error;

enum cfs_rule_kind {
	CFS_RULE_SAME,	  /* whole on every rank */
	CFS_RULE_ROWS,	  /* cut along dimension 0 */
	CFS_RULE_COLUMNS, /* cut along dimension 1 */
	CFS_RULE_VOCAB,	  /* rows, of which the last ones are padding */
	/* the same, but cut along dimension 1 */
	CFS_RULE_VOCAB_COLUMNS,
	CFS_RULE_SUM,	/* each rank has a share of the sum */
	CFS_RULE_MEAN,	/* copies that went apart: their mean */
	CFS_RULE_PARTS, /* rows in equal parts, each cut by itself */
	/* decided by the model's facts: */
	CFS_RULE_QKV,	   /* queries, keys and values in one */
	CFS_RULE_UP,	   /* a gated MLP has two in one */
	CFS_RULE_ROW_BIAS, /* whole, or a share where ranks add it up */
	CFS_RULE_OUTPUT,   /* VOCAB or VOCAB_COLUMNS */
	CFS_RULE_REFUSED,  /* the function itself depends on the size */
};

struct cfs_rule {
	const char *name; /* in its layer; '*' stands for anything */
	enum cfs_rule_kind kind;
	uint32_t n;	     /* PARTS: how many */
	const char *because; /* REFUSED */
	/* Each stage has one of its own: no other stages can be made. */
	bool by_stage;
};

/* What a checkpoint says about the model; 0 or -1: nothing. */
struct cfs_model_facts {
	uint64_t hidden, heads;
	int gated;	       /* two halves in one matrix: 1, 0 */
	int parallel_residual; /* row biases are added up over ranks: 1, 0 */
	int qkv_in_parts;      /* fewer keys than queries: all queries first
				* (1), or head by head (0) */
	int output_columns;    /* OUTPUT of one rank would be cut by columns:
				* 1, 0; of several their shape shows it */
	bool qkv_always;     /* that decides as well where keys are not fewer */
	uint64_t vocabulary; /* without padding */
	uint64_t divisible_by;	 /* the padding's unit, times the ranks */
	uint64_t padded_to;	 /* rows there are at any number of ranks */
	const char *qkv_unknown; /* why their order is not known, or NULL */
	uint64_t rows;		 /* padded, at the target: told, not computed */
	bool padding_cut; /* rows that it does not divide are the vocabulary */
};

/* The first of @rules (ended by a NULL name) for @name, or NULL. */
const struct cfs_rule *cfs_rules_find(const struct cfs_rule *rules,
				      const char *name);

/* Of ranks that have @shape each: has it padded rows?  1: and is cut by
 * columns, 0: by rows, -1: it has none, or that is not told. */
int cfs_rule_vocab_columns(const struct cfs_rule *rule,
			   const struct cfs_model_facts *facts, uint32_t ndim,
			   const uint64_t *shape, uint32_t tp);

/*
 * The layouts of a parameter of which each of @tp ranks has @shape, for those
 * ranks and for @to_tp: they differ in a vocabulary's padding alone.  Where
 * both numbers are the same nothing is asked: each rank keeps what it has, and
 * gets the padding that was cut off.
 * -EINVAL: it cannot be cut so; -ENOTSUP: it cannot be told how, and @err names
 * the rule or option that would decide it.
 */
CFS_MUST_CHECK int cfs_rule_layout(const struct cfs_rule *rule,
				   const struct cfs_model_facts *facts,
				   uint32_t ndim, const uint64_t *shape,
				   uint32_t tp, uint32_t to_tp,
				   struct cfs_tp_layout *from,
				   struct cfs_tp_layout *to,
				   struct cfs_error *err);

/*
 * The same for a rank that has all of it, also where both numbers are the same:
 * how ranks would share it.  A vocabulary that is told has no padding in @to,
 * one that is not keeps that of @to_tp ranks.
 */
CFS_MUST_CHECK int
cfs_rule_whole(const struct cfs_rule *rule, const struct cfs_model_facts *facts,
	       uint32_t ndim, const uint64_t *shape, uint32_t tp,
	       uint32_t to_tp, struct cfs_tp_layout *from,
	       struct cfs_tp_layout *to, struct cfs_error *err);

#endif
