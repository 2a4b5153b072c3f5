/* Which family a step is of. */
#include "fs/format/deepspeed/family.h"

#include <string.h>

#include "fs/format/deepspeed/layer.h"

static const struct cfs_ds_family *const families[] = {&cfs_ds_neox,
						       &cfs_ds_megatron, NULL};

static bool has(const struct cfs_catalogue *cat, const char *name)
{
	for (uint32_t i = 0; i < cfs_catalogue_params(cat); i++) {
		const struct cfs_ds_layer_name n =
			cfs_ds_layer_parse(cfs_catalogue_param(cat, i)->name);

		if (n.form != CFS_DS_FORM_PLAIN && !strcmp(n.name, name))
			return true;
	}
	return false;
}

const struct cfs_ds_family *cfs_ds_family_of(const struct cfs_ds_step *step)
{
	for (uint32_t k = 0; families[k]; k++)
		for (uint32_t m = 0; m < step->base.n_ranks; m++)
			if (has(step->base.ranks[m].catalogue,
				families[k]->mark))
				return families[k];
	return NULL;
}
