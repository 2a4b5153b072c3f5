/* DeepSpeed's batch arithmetic: train = micro x accumulation x dp. */
#ifndef CFS_CLI_BATCH_H
#define CFS_CLI_BATCH_H

#include <stdbool.h>
#include <stdint.h>

struct cfs_node;

struct cfs_batch {
	uint64_t train, micro, accumulation; /* 0: not known */
	bool derived; /* not all three were in the configuration */
	bool wrong;   /* the three do not multiply up */
};

/* From a ds_config; what is missing or "auto" is completed by DeepSpeed's
 * rules where they decide it. */
struct cfs_batch cfs_batch_of(const struct cfs_node *ds_config, uint32_t dp);

#endif
