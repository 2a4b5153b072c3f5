/*
 * A `module` that is a tree of dictionaries, as Megatron's models save it
 * where they are no pipeline: {"language_model": {"encoder": {"layers.0.…":
 * …}}} for the parameter language_model.encoder.layers.0.…. Private to
 * fs/format/deepspeed.
 *
 * Rules: Megatron-DeepSpeed megatron/model/{gpt_model,language_model}.py,
 * state_dict_for_save_checkpoint().
 */
#ifndef CFS_FORMAT_DEEPSPEED_MODULE_TREE_H
#define CFS_FORMAT_DEEPSPEED_MODULE_TREE_H

#include <stdbool.h>

#include "fs/container/pickle.h"

/* Nothing but dictionaries, at least one. */
bool cfs_ds_module_is_tree(const struct cfs_node *module);
/* Whole names to values, in a new OrderedDict of @doc, in the tree's order;
 * NULL: no memory, or too deep. */
struct cfs_node *cfs_ds_module_flat(struct cfs_pickle *doc,
				    const struct cfs_node *tree);
/* @root with its module flat: a copy in @doc, or @root itself where it is, or
 * cannot be made so; NULL: no memory. */
struct cfs_node *cfs_ds_module_flat_root(struct cfs_pickle *doc,
					 struct cfs_node *root);
/* @tree, copied in @doc, with the values of @flat; NULL: no memory. */
struct cfs_node *cfs_ds_module_nest(struct cfs_pickle *doc,
				    const struct cfs_node *tree,
				    const struct cfs_node *flat);

#endif
