/*
 * DeepSpeed's rules (runtime/config.py of 0.19.8): any two of the three give
 * the third; one alone is taken with an accumulation of 1.
 */
#include "fs/cli/batch.h"

#include "fs/format/deepspeed/deepspeed.h"

/* 0 where it is absent, "auto" or no positive number. */
static uint64_t get(const struct cfs_node *ds_config, const char *key)
{
	uint64_t v;

	return cfs_node_as_u64(cfs_ds_config_get(ds_config, key), &v) ? v : 0;
}

static void complete(struct cfs_batch *b, uint32_t dp)
{
	if (b->train && b->micro && !b->accumulation) {
		b->accumulation = b->train / b->micro / dp;
	} else if (b->train && b->accumulation && !b->micro) {
		b->micro = b->train / b->accumulation / dp;
	} else if (b->train && !b->micro) {
		b->accumulation = 1;
		b->micro = b->train / dp;
	} else if (b->micro && !b->train) {
		if (!b->accumulation)
			b->accumulation = 1;
		b->train = b->micro * b->accumulation * dp;
	}
}

struct cfs_batch cfs_batch_of(const struct cfs_node *ds_config, uint32_t dp)
{
	struct cfs_batch b = {
		.train = get(ds_config, "train_batch_size"),
		.micro = get(ds_config, "train_micro_batch_size_per_gpu"),
		.accumulation = get(ds_config, "gradient_accumulation_steps"),
	};

	b.derived = !b.train || !b.micro || !b.accumulation;
	if (dp)
		complete(&b, dp);
	b.wrong = b.train && b.micro && b.accumulation &&
		  b.micro * b.accumulation * dp != b.train;
	return b;
}
