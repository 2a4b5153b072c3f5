/* Which steps of a run retention keeps, and why: no I/O. */
#ifndef CFS_DAEMON_PRUNE_RULES_H
#define CFS_DAEMON_PRUNE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cfs_steps;

struct cfs_prune_rules {
	uint64_t keep_last;    /* newest whole steps; 0: none by this rule */
	uint64_t keep_every;   /* numbers divisible by it; 0: none */
	int64_t newer_than_ns; /* saved at or after this; INT64_MAX: none */
	int64_t now_ns;	       /* what is not whole and younger than an hour
				  may still be written */
	const char *pointer;   /* what `latest` holds, or NULL */
	const char *settled;   /* what a load would get, or NULL */
	const char *universal; /* what `latest_universal` holds, or NULL */
	const char *universal_settled;
	bool (*pinned)(void *arg, const char *name);
	void *arg;
};
/* For each step the reason to keep it, or NULL: it goes. */
void cfs_prune_rules_apply(const struct cfs_prune_rules *rules,
			   const struct cfs_steps *steps,
			   const char **reasons_out);

#endif
