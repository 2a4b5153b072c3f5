/*
 * Converting a module between stages.  Private to fs/format/deepspeed.
 */
#ifndef CFS_FORMAT_DEEPSPEED_WRITE_MODULE_H
#define CFS_FORMAT_DEEPSPEED_WRITE_MODULE_H

#include "fs/format/deepspeed/write.h"

/* While one module is converted. */
struct cfs_ds_module {
	struct cfs_ds_out *out;
	struct cfs_node *root;	  /* the source's model states */
	struct cfs_node *src;	  /* its module */
	struct cfs_node **entry;  /* by parameter: its value in src, or NULL */
	struct cfs_node **weight; /* by parameter: new tensors, or NULL */
	struct cfs_node *empty;	  /* the last new placeholder, or NULL */
	enum cfs_dtype empty_dtype;
};

/* Is it a template's, with another step's state? */
bool cfs_ds_is_filled(const struct cfs_ds_out *out);
bool cfs_ds_module_is_buffer(const struct cfs_ds_module *m, const char *name);
/* Tied before shared_params existed, or saved without ZeRO: is @node the same
 * bytes as a parameter? */
bool cfs_ds_module_same(const struct cfs_ds_module *m,
			const struct cfs_node *node, uint32_t *param_out);
/* Which parameter an entry is, also under another name? */
bool cfs_ds_module_param(const struct cfs_ds_module *m, const char *name,
			 const struct cfs_node *value, uint32_t *param_out);
/* A whole parameter from a stage 3 source: once, however often it is named. */
CFS_MUST_CHECK int cfs_ds_module_weight(struct cfs_ds_module *m, uint32_t param,
					enum cfs_dtype dtype,
					struct cfs_node **node_out);
CFS_MUST_CHECK int cfs_ds_module_convert(struct cfs_ds_module *m,
					 struct cfs_node **module_out);
/* Fills m->entry. */
void cfs_ds_module_entries(struct cfs_ds_module *m);

/* Which parameter entry @name, @value is (also under another name)? */
bool cfs_ds_module_param(const struct cfs_ds_module *m, const char *name,
			 const struct cfs_node *value, uint32_t *param_out);

#endif
