/* Rules and the model's facts to layouts. */
#include "fs/reslice/rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "store/util/checked.h"
#include "store/util/error.h"

struct question {
	const struct cfs_rule *rule;
	const struct cfs_model_facts *facts;
	uint32_t ndim;
	const uint64_t *shape; /* a rank's */
	uint32_t tp, to_tp;
	bool whole; /* one rank is to have all of it */
	struct cfs_tp_layout *from, *to;
	struct cfs_error *err;
};

const struct cfs_rule *cfs_rules_find(const struct cfs_rule *rules,
				      const char *name)
{
	for (; rules && rules->name; rules++)
		if (!fnmatch(rules->name, name, 0))
			return rules;
	return NULL;
}

static int whole(const struct question *q, enum cfs_tp_kind kind)
{
	*q->from = (struct cfs_tp_layout){.kind = kind, .ndim = q->ndim};
	memcpy(q->from->shape, q->shape, q->ndim * sizeof(q->shape[0]));
	*q->to = *q->from;
	return 0;
}

/* Along @dim lie @n parts of @sizes elements each, of all ranks. */
static int cut(const struct question *q, uint32_t dim, uint32_t n,
	       const uint64_t *sizes)
{
	struct cfs_tp_layout *l = q->from;
	uint64_t local[CFS_TP_DIMS_MAX];

	(void)whole(q, CFS_TP_CUT);
	l->dim = dim;
	l->n_parts = n;
	l->shape[dim] = 0;
	for (uint32_t i = 0; i < n; i++) {
		l->parts[i] = sizes[i];
		l->shape[dim] += sizes[i];
	}
	*q->to = *l;
	if (cfs_tp_local_shape(l, q->tp, local) < 0 ||
	    local[dim] != q->shape[dim])
		return cfs_fail(q->err, -EINVAL,
				"%llu along dimension %u is not what one of "
				"%u ranks has of %llu",
				(unsigned long long)q->shape[dim], dim, q->tp,
				(unsigned long long)l->shape[dim]);
	if (cfs_tp_local_shape(l, q->to_tp, local) < 0)
		return cfs_fail(q->err, -EINVAL,
				"%llu along dimension %u cannot be cut for "
				"%u ranks",
				(unsigned long long)l->shape[dim], dim,
				q->to_tp);
	return 0;
}

static int cut_even(const struct question *q, uint32_t dim, uint32_t n)
{
	uint64_t sizes[CFS_TP_PARTS_MAX], all;

	if (dim >= q->ndim || !n || n > CFS_TP_PARTS_MAX || q->shape[dim] % n ||
	    !cfs_mul_u64(q->shape[dim], q->tp, &all))
		return cfs_fail(q->err, -EINVAL,
				"it cannot be cut along dimension %u", dim);
	for (uint32_t i = 0; i < n; i++)
		sizes[i] = all / n;
	return cut(q, dim, n, sizes);
}

/* ---- vocabularies ---- */

/* More of them are more padding; fewer must still hold the vocabulary. */
static int told_rows(const struct question *q, uint64_t rows, uint64_t *out)
{
	uint64_t words = q->facts->vocabulary, to = q->facts->rows;

	if (!words && to < rows)
		return cfs_fail(q->err, -ENOTSUP,
				"of %llu rows %llu stay: say how many the "
				"vocabulary has without padding (@vocabN)",
				(unsigned long long)rows,
				(unsigned long long)to);
	if (words > to || words > rows)
		return cfs_fail(q->err, -EINVAL,
				"there are %llu rows, less than a vocabulary "
				"of %llu",
				(unsigned long long)CFS_MIN(to, rows),
				(unsigned long long)words);
	*out = to;
	return 0;
}

/* What makes words of the last layer's output: a rank of several has all of its
 * rows, or all of its columns.  1: cut by columns, 0: by rows, -1: not told. */
static int output_columns(const struct question *q)
{
	uint64_t hidden = q->facts->hidden;

	if (q->ndim != 2 || q->tp == 1 || !hidden)
		return q->facts->output_columns;
	return q->shape[1] != hidden;
}

/* Has it padded rows?  1: and is cut by columns, 0: by rows, -1: it has not. */
static int vocab_columns(const struct question *q)
{
	switch (q->rule->kind) {
	case CFS_RULE_VOCAB:
		return 0;
	case CFS_RULE_VOCAB_COLUMNS:
		return 1;
	case CFS_RULE_OUTPUT: /* of one rank for one it does not matter */
		return CFS_MAX(output_columns(q),
			       q->tp == 1 && q->to_tp == 1 ? 0 : -1);
	default:
		return -1;
	}
}

/* Converters drop padding: what is left is the vocabulary. */
static bool lacks_padding(const struct question *q)
{
	const struct cfs_model_facts *f = q->facts;

	return q->tp == 1 && !vocab_columns(q) && f->padding_cut &&
	       f->divisible_by && q->shape[0] % f->divisible_by;
}

/* Other rows at as many ranks? */
static bool is_repadded(const struct question *q)
{
	int columns = vocab_columns(q);

	return lacks_padding(q) ||
	       (columns >= 0 && q->facts->rows &&
		q->facts->rows != q->shape[0] * (columns ? 1 : q->tp));
}

/* Rows of @to_tp ranks: what holds the vocabulary, and divides. */
static int vocab_rows(const struct question *q, uint64_t rows, uint64_t *out)
{
	uint64_t unit, now = q->facts->divisible_by * q->tp;
	uint64_t words = q->facts->vocabulary;

	if (q->facts->rows)
		return told_rows(q, rows, out);
	if (q->facts->padded_to && q->facts->padded_to == rows) {
		*out = rows;
		return rows % q->to_tp
			       ? cfs_fail(q->err, -EINVAL,
					  "%llu rows cannot be cut "
					  "for %u ranks",
					  (unsigned long long)rows, q->to_tp)
			       : 0;
	}
	if (!words && lacks_padding(q))
		words = rows;
	if (!q->facts->divisible_by)
		return cfs_fail(q->err, -ENOTSUP,
				"the checkpoint does not say how its "
				"vocabulary is padded");
	if (!cfs_mul_u64(q->facts->divisible_by, q->to_tp, &unit))
		return -EOVERFLOW;
	if (words && (words > rows || rows - words >= now))
		return cfs_fail(q->err, -EINVAL,
				"a vocabulary of %llu is not padded to %llu "
				"rows by %u ranks",
				(unsigned long long)words,
				(unsigned long long)rows, q->tp);
	/* It ends in the last @now rows: is the answer the same for all? */
	if (!words &&
	    cfs_div_up(rows - now + 1, unit) != cfs_div_up(rows, unit))
		return cfs_fail(q->err, -ENOTSUP,
				"%u ranks pad the vocabulary to %llu rows, %u "
				"to fewer, depending on its true size: say it "
				"(@vocabN)",
				q->tp, (unsigned long long)rows, q->to_tp);
	*out = cfs_div_up(words ? words : rows, unit) * unit;
	return 0;
}

/* Of a rank that has them all.  The padding of what is cut along its columns
 * stays, since a loader only knows to add some where rows are cut. */
static int whole_rows(const struct question *q, bool columns, uint64_t rows,
		      uint64_t *out)
{
	uint64_t words = q->facts->vocabulary;

	if (words > rows)
		return cfs_fail(q->err, -EINVAL,
				"there are %llu rows, less than a vocabulary "
				"of %llu",
				(unsigned long long)rows,
				(unsigned long long)words);
	if (q->tp != q->to_tp && (columns || !words))
		return vocab_rows(q, rows, out);
	*out = words && !columns ? words : rows;
	return 0;
}

static int vocab(const struct question *q, bool columns)
{
	uint64_t rows = q->shape[0], target = 0;
	int r;

	if (columns) {
		r = cut_even(q, 1, 1);
		if (r < 0)
			return r;
	} else if (!cfs_mul_u64(rows, q->tp, &rows)) {
		return -EOVERFLOW;
	}
	r = q->whole ? whole_rows(q, columns, rows, &target)
		     : vocab_rows(q, rows, &target);
	if (r < 0)
		return r;
	if (!columns) {
		(void)whole(q, CFS_TP_CUT);
		q->from->n_parts = q->to->n_parts = 1;
		q->from->shape[0] = q->from->parts[0] = rows;
		q->to->parts[0] = target;
	}
	q->to->shape[0] = target;
	return 0;
}

/* ---- what the model's facts decide ---- */

static int qkv(const struct question *q)
{
	const struct cfs_model_facts *f = q->facts;
	uint64_t rows = q->shape[0] * q->tp, kv, head;

	if (f->qkv_unknown)
		return cfs_fail(q->err, -ENOTSUP, "%s", f->qkv_unknown);
	if (!f->hidden || !f->heads || f->hidden % f->heads ||
	    rows < f->hidden || (rows - f->hidden) % 2)
		return cfs_fail(q->err, -ENOTSUP,
				"the checkpoint does not say how many heads "
				"of which size there are");
	kv = (rows - f->hidden) / 2;
	head = f->hidden / f->heads;
	if (f->heads % q->to_tp || kv % head || kv / head % q->to_tp)
		return cfs_fail(q->err, -EINVAL,
				"%llu heads, %llu of keys, cannot be cut for "
				"%u ranks",
				(unsigned long long)f->heads,
				(unsigned long long)(kv / head), q->to_tp);
	if ((kv == f->hidden && !f->qkv_always) || f->qkv_in_parts == 0)
		return cut_even(q, 0, 1);
	if (f->qkv_in_parts < 0)
		return cfs_fail(q->err, -ENOTSUP,
				"%llu heads share %llu of keys, and which "
				"version wrote them is not told: since "
				"2024-11-14 queries lie before keys before "
				"values (@qkvparts), before that head by "
				"head (@qkvheads)",
				(unsigned long long)f->heads,
				(unsigned long long)(kv / head));
	return cut(q, 0, 3, (const uint64_t[]){f->hidden, kv, kv});
}

static int row_bias(const struct question *q)
{
	int added = q->facts->parallel_residual;

	if (added < 0)
		return cfs_fail(q->err, -ENOTSUP,
				"whether ranks add it up (gpt_j_residual) is "
				"not told: @biassum or @biassame");
	return whole(q, added > 0 ? CFS_TP_SUM : CFS_TP_SAME);
}

static int output(const struct question *q)
{
	uint64_t hidden = q->facts->hidden, all;
	int columns = output_columns(q);

	if (q->ndim != 2)
		return cfs_fail(q->err, -EINVAL, "it has %u dimensions",
				q->ndim);
	if (columns < 0 && q->tp == 1 && q->to_tp == 1 && !q->whole)
		columns = 0;
	if (columns < 0)
		return cfs_fail(q->err, -ENOTSUP,
				"whether ranks cut it by rows or by columns "
				"(output_layer_parallelism) is not told: rule "
				"\"vocab\" or \"vocab-columns\" (view add "
				"--rules)");
	if (columns && hidden &&
	    (!cfs_mul_u64(q->shape[1], q->tp, &all) || all != hidden))
		return cfs_fail(q->err, -EINVAL,
				"%llu columns are neither the %llu of the "
				"model nor one of %u parts of them",
				(unsigned long long)q->shape[1],
				(unsigned long long)hidden, q->tp);
	return vocab(q, columns);
}

/* What each rank keeps may have any number of dimensions: they do not count. */
static int keep(const struct question *q)
{
	uint64_t numel = 1;

	for (uint32_t i = 0; i < q->ndim; i++)
		if (!cfs_mul_u64(numel, q->shape[i], &numel))
			return -EOVERFLOW;
	*q->from = (struct cfs_tp_layout){
		.kind = CFS_TP_SAME, .ndim = 1, .shape = {numel}};
	*q->to = *q->from;
	return 0;
}

static int ask(const struct question *q)
{
	const struct cfs_rule *rule = q->rule;
	bool can_cut = q->ndim && q->ndim <= CFS_TP_DIMS_MAX;
	bool stays = q->tp == q->to_tp && !q->whole;

	if (q->tp && stays && !can_cut)
		return keep(q);
	if (!q->tp || !q->to_tp || !can_cut)
		return cfs_fail(q->err, -EINVAL, "it has %u dimensions",
				q->ndim);
	if (stays)
		return is_repadded(q) ? vocab(q, vocab_columns(q) > 0)
				      : whole(q, CFS_TP_SAME);
	switch (rule->kind) {
	case CFS_RULE_SAME:
		return whole(q, CFS_TP_SAME);
	case CFS_RULE_SUM:
		return whole(q, CFS_TP_SUM);
	case CFS_RULE_MEAN:
		return whole(q, CFS_TP_MEAN);
	case CFS_RULE_ROWS:
		return cut_even(q, 0, 1);
	case CFS_RULE_COLUMNS:
		return cut_even(q, 1, 1);
	case CFS_RULE_PARTS:
		return cut_even(q, 0, rule->n);
	case CFS_RULE_VOCAB:
		return vocab(q, false);
	case CFS_RULE_VOCAB_COLUMNS:
		return vocab(q, true);
	case CFS_RULE_OUTPUT:
		return output(q);
	case CFS_RULE_QKV:
		return qkv(q);
	case CFS_RULE_UP:
		if (q->facts->gated < 0)
			return cfs_fail(q->err, -ENOTSUP,
					"whether the MLP is gated is not told: "
					"rule \"rows\" or \"halves\"");
		return cut_even(q, 0, q->facts->gated > 0 ? 2 : 1);
	case CFS_RULE_ROW_BIAS:
		return row_bias(q);
	default:
		return cfs_fail(q->err, -ENOTSUP, "%s", rule->because);
	}
}

int cfs_rule_vocab_columns(const struct cfs_rule *rule,
			   const struct cfs_model_facts *facts, uint32_t ndim,
			   const uint64_t *shape, uint32_t tp)
{
	const struct question q = {.rule = rule,
				   .facts = facts,
				   .ndim = ndim,
				   .shape = shape,
				   .tp = tp,
				   .to_tp = tp};

	return vocab_columns(&q);
}

int cfs_rule_layout(const struct cfs_rule *rule,
		    const struct cfs_model_facts *facts, uint32_t ndim,
		    const uint64_t *shape, uint32_t tp, uint32_t to_tp,
		    struct cfs_tp_layout *from, struct cfs_tp_layout *to,
		    struct cfs_error *err)
{
	const struct question q = {.rule = rule,
				   .facts = facts,
				   .ndim = ndim,
				   .shape = shape,
				   .tp = tp,
				   .to_tp = to_tp,
				   .from = from,
				   .to = to,
				   .err = err};

	return ask(&q);
}

int cfs_rule_whole(const struct cfs_rule *rule,
		   const struct cfs_model_facts *facts, uint32_t ndim,
		   const uint64_t *shape, uint32_t tp, uint32_t to_tp,
		   struct cfs_tp_layout *from, struct cfs_tp_layout *to,
		   struct cfs_error *err)
{
	const struct question q = {.rule = rule,
				   .facts = facts,
				   .ndim = ndim,
				   .shape = shape,
				   .tp = tp,
				   .to_tp = to_tp,
				   .whole = true,
				   .from = from,
				   .to = to,
				   .err = err};

	return ask(&q);
}
