/*
 * The batch of a configuration on a step's ranks: is it the one that the step
 * was trained with, which the position in the data is counted in?
 *
 * Rules: two of the three sizes give the third; accumulation is 1 where neither
 * it nor the global batch is told, and in GPT-NeoX wherever it is not.
 */
#include <inttypes.h>

#include "fs/cli/against.h"
#include "fs/cli/batch.h"
#include "fs/format/deepspeed/deepspeed.h"

#define MICRO "train_micro_batch_size_per_gpu"
#define STEPS "gradient_accumulation_steps"

/* What is configured; 0: it is not. */
struct sizes {
	uint64_t train, micro, steps;
};

static uint64_t get_count(const struct cfs_against *a, const char *name)
{
	double v;

	return cfs_against_number(a, name, &v) && v >= 1 && v < 1e15
		       ? (uint64_t)v
		       : 0;
}

static uint64_t largest_divisor(uint64_t of, uint64_t most)
{
	most = CFS_MIN(most, CFS_MIN(of, (uint64_t)1 << 20));
	while (most > 1 && of % most)
		most--;
	return most;
}

/* @each: samples of a step's global batch that a rank has. */
static void check_share(const struct cfs_against *a, const struct sizes *s,
			uint64_t each, uint32_t dp)
{
	if (s->micro && each % s->micro)
		cfs_check_report_problem(
			a->report, MICRO,
			"%" PRIu64 " on %" PRIu32 " ranks cannot make the "
			"step's global batch of %" PRIu64 ", %" PRIu64
			" of which each has: %" PRIu64 " can",
			s->micro, dp, each * dp, each,
			largest_divisor(each, s->micro));
	else if (s->micro && s->steps && s->micro * s->steps != each)
		cfs_check_report_problem(
			a->report, STEPS,
			"micro %" PRIu64 " x accumulation %" PRIu64
			" x %" PRIu32 " ranks is a global batch of %" PRIu64
			", the step's is %" PRIu64 ": %" PRIu64 " keeps it",
			s->micro, s->steps, dp, s->micro * s->steps * dp,
			each * dp, each / s->micro);
	else if (!s->micro && s->steps && each % s->steps)
		cfs_check_report_problem(
			a->report, STEPS,
			"%" PRIu64 " on %" PRIu32 " ranks cannot make the "
			"step's global batch of %" PRIu64 ", %" PRIu64
			" of which each has: %" PRIu64 " can",
			s->steps, dp, each * dp, each,
			largest_divisor(each, s->steps));
}

static void check_sizes(const struct cfs_against *a, const struct sizes *s,
			uint64_t want, uint32_t dp)
{
	if (s->train && s->train != want)
		cfs_against_differ(a, "train_batch_size", (double)want,
				   (double)s->train);
	else if (want % dp)
		cfs_check_report_problem(
			a->report, "data-parallel ranks",
			"%" PRIu32 " cannot share the step's global batch of "
			"%" PRIu64 ": their number has to divide it",
			dp, want);
	else if (!a->neox && s->train && s->micro && s->steps &&
		 s->micro * s->steps * dp != want &&
		 want % (s->micro * s->steps) == 0)
		cfs_check_report_problem(
			a->report, "data-parallel ranks",
			"the step has %" PRIu32 ", the configuration is for "
			"%" PRIu64 " (or %s: %" PRIu64 ")",
			dp, want / (s->micro * s->steps), STEPS,
			CFS_MAX(want / s->micro / dp, (uint64_t)1));
	else
		check_share(a, s, want / dp, dp);
}

void cfs_against_batch(const struct cfs_against *a)
{
	const uint32_t dp = a->step->base.topology.dp;
	struct cfs_batch b =
		cfs_batch_of(a->step->ds_config, a->as_saved ? dp : 0);
	struct sizes s = {.train = get_count(a, "train_batch_size"),
			  .micro = get_count(a, MICRO),
			  .steps = get_count(a, STEPS)};

	if (!b.train) {
		cfs_check_report_skip(a->report, "batch",
				      "the step does not say its global batch");
		return;
	}
	if (!s.steps && (a->neox || (s.micro && !s.train)))
		s.steps = 1;
	cfs_check_report_begin(a->report, "batch");
	cfs_check_report_number(a->report, "global_batch", b.train);
	check_sizes(a, &s, b.train, dp);
	if (!s.micro)
		s.micro = b.micro;
	if (s.micro && b.train % (s.micro * dp) == 0)
		cfs_check_report_end(a->report,
				     "global batch %" PRIu64 " = micro %" PRIu64
				     " x accumulation %" PRIu64 " x %" PRIu32
				     " data-parallel ranks",
				     b.train, s.micro, b.train / (s.micro * dp),
				     dp);
	else
		cfs_check_report_end(a->report,
				     "global batch %" PRIu64 " on %" PRIu32
				     " data-parallel ranks",
				     b.train, dp);
}
