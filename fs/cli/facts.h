/* One step in a few facts, as ls and show print them. */
#ifndef CFS_CLI_FACTS_H
#define CFS_CLI_FACTS_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "fs/cli/text.h"
#include "fs/format/format.h"

/* "zero", "bf16opt", "zero3", "plain", "none": the view items' own words. */
const char *cfs_facts_class(enum cfs_optimizer_class cls);
/* Adds dp, mp, zero_stage, optimizer and what decides the layout. */
void cfs_facts_topology_json(const struct cfs_topology *t, uint32_t n_ranks,
			     cJSON *json);
/* "dp 4, ZeRO stage 1, DeepSpeedZeroOptimizer" */
struct cfs_text cfs_facts_topology(const struct cfs_topology *t,
				   uint32_t n_ranks);

#endif
