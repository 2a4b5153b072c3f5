/* Retention of steps: several rules, each of which keeps. */
#include "fs/daemon/prune_rules.h"

#include <string.h>

#include "fs/daemon/steps.h"

#define HOUR_NS INT64_C(3600000000000)

static bool is_named(const char *name, const char *step)
{
	return name && !strcmp(name, step);
}

/* Of what may still be written: newer than any whole step, or just changed. */
static const char *reason_unfinished(const struct cfs_prune_rules *rules,
				     const struct cfs_steps_item *step,
				     bool newest)
{
	if (newest)
		return "newer than the newest whole step";
	if (step->mtime_ns > rules->now_ns - HOUR_NS)
		return "not whole, but changed within the last hour";
	return NULL;
}

static bool has_place(const struct cfs_steps_item *step)
{
	return step->number >= 0 || step->order_ns;
}

/* @rank: whole steps that are newer. */
static const char *reason_of(const struct cfs_prune_rules *rules,
			     const struct cfs_steps_item *step, uint64_t rank)
{
	if (is_named(rules->pointer, step->name))
		return "latest names it";
	if (is_named(rules->universal, step->name))
		return "latest_universal names it";
	if (is_named(rules->settled, step->name) ||
	    is_named(rules->universal_settled, step->name))
		return "a load gets it";
	if (rules->pinned && rules->pinned(rules->arg, step->name))
		return "pinned";
	if (!has_place(step))
		return "its name has no number";
	if (!step->whole)
		return reason_unfinished(rules, step, !rank);
	if (rank < rules->keep_last)
		return "one of the last";
	if (rules->keep_every && step->number >= 0 &&
	    (uint64_t)step->number % rules->keep_every == 0)
		return "every so many steps";
	if (step->mtime_ns >= rules->newer_than_ns)
		return "new enough";
	return NULL;
}

void cfs_prune_rules_apply(const struct cfs_prune_rules *rules,
			   const struct cfs_steps *steps,
			   const char **reasons_out)
{
	uint64_t rank = 0;
	size_t i;

	for (i = steps->n; i--;) {
		const struct cfs_steps_item *step = &steps->list[i];

		reasons_out[i] = reason_of(rules, step, rank);
		rank += step->whole && has_place(step);
	}
}
