/*
 * The configuration GPT-NeoX was started with, as a step holds it.
 * Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_NEOX_CONFIG_H
#define CFS_FORMAT_DEEPSPEED_NEOX_CONFIG_H

#include "fs/format/deepspeed/deepspeed.h"

#define CFS_DS_NEOX_CONFIGS "configs"

/*
 * Reads it into step->neox_config: NULL where there is none, or it cannot be
 * read, or its files contradict one another.  What was looked at goes to
 * base.beside and into the step's identity.
 */
CFS_MUST_CHECK int cfs_ds_neox_config_read(struct cfs_ds_step *step);

/* A switch that is off by default: 1, 0, or -1 where nothing is known. */
int cfs_ds_neox_config_flag(const struct cfs_ds_step *step, const char *key);
/* A word, or NULL. */
const char *cfs_ds_neox_config_str(const struct cfs_ds_step *step,
				   const char *key);

#endif
