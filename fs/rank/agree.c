/* Do two ranks begin the same save? */
#include "fs/rank/agree.h"

#include <errno.h>
#include <string.h>

#include "store/util/error.h"

struct ranks {
	uint32_t first, rank;
};

static const char *pointer_text(const char *pointer)
{
	return !pointer ? "the format's own" : *pointer ? pointer : "none";
}

static int same_text(const struct ranks *ranks, const char *what, const char *a,
		     const char *b, struct cfs_error *err)
{
	return !strcmp(a, b)
		       ? 0
		       : cfs_fail(err, -EINVAL,
				  "the ranks disagree: rank %u says %s %.200s, "
				  "rank %u says %.200s",
				  ranks->first, what, a, ranks->rank, b);
}

static int same_number(const struct ranks *ranks, const char *what, uint32_t a,
		       uint32_t b, struct cfs_error *err)
{
	return a == b ? 0
		      : cfs_fail(err, -EINVAL,
				 "the ranks disagree: rank %u says %s %u, "
				 "rank %u says %u",
				 ranks->first, what, a, ranks->rank, b);
}

int cfs_rank_agree(const struct cfs_stage_options *o, uint32_t first,
		   const struct cfs_op *op, uint32_t rank,
		   struct cfs_error *err)
{
	const struct ranks ranks = {first, rank};
	int r;

	r = same_text(&ranks, "step", o->step, op->step, err);
	if (!r)
		r = same_text(&ranks, "format", o->format, op->format, err);
	if (!r)
		r = same_text(&ranks, "pointer", pointer_text(o->pointer),
			      pointer_text(op->pointer), err);
	if (!r)
		r = same_number(&ranks, "dp", o->dp, op->dp, err);
	if (!r)
		r = same_number(&ranks, "tp", o->tp, op->tp, err);
	if (!r)
		r = same_number(&ranks, "pp", o->pp, op->pp, err);
	if (!r)
		r = same_number(&ranks, "zero", (uint32_t)o->zero_stage,
				(uint32_t)op->zero_stage, err);
	if (!r)
		r = same_text(&ranks, "replace", o->replace ? "yes" : "no",
			      op->replace ? "yes" : "no", err);
	return r;
}
