/*
 * The tensors of a step or of a torch file under names that do not depend on
 * how they are cut: what diff compares and check looks at.
 */
#ifndef CFS_CLI_TENSORS_H
#define CFS_CLI_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/container/torchfile.h"
#include "store/map/dtype.h"
#include "store/util/base.h"

struct cfs_arena;
struct cfs_catalogue;
struct cfs_error;
struct cfs_filepool;
struct cfs_filetab;
struct cfs_map;
struct cfs_step;

struct cfs_tensors_item {
	const char *name; /* "mp_rank_01/emb.weight" where there are several */
	const char
		*role; /* "weight", "master", "exp_avg", "buffer", "tensor" */
	enum cfs_dtype dtype;
	uint32_t ndim;
	const uint64_t *shape;
	uint64_t numel;
	/* where it comes from: a catalogue, or a tensor of a file */
	const struct cfs_catalogue *catalogue;
	uint32_t param, role_index;
	const struct cfs_torch_tensor *tensor;
};

struct cfs_tensors {
	struct cfs_tensors_item *items; /* sorted by name, then role */
	size_t n, cap;
	struct cfs_arena *arena;
	struct cfs_filetab *tab;   /* borrowed */
	struct cfs_filepool *pool; /* borrowed */
};

/* All parameters in all roles, and buffers.  @step is borrowed for the set's
 * life. */
CFS_MUST_CHECK int cfs_tensors_of_step(struct cfs_step *step,
				       struct cfs_tensors *out,
				       struct cfs_error *err);
/* Every tensor in @root, named by its path; @tab and @pool are those it was
 * read with, borrowed as the tree is. */
CFS_MUST_CHECK int cfs_tensors_of_tree(const struct cfs_node *root,
				       struct cfs_filetab *tab,
				       struct cfs_filepool *pool,
				       struct cfs_tensors *out,
				       struct cfs_error *err);
void cfs_tensors_free(struct cfs_tensors *set); /* for _cleanup_ too */

uint64_t cfs_tensors_item_bytes(const struct cfs_tensors_item *item);

/* Its elements, row-major, as a sealed map; caller unrefs. */
CFS_MUST_CHECK int cfs_tensors_map(const struct cfs_tensors *set,
				   const struct cfs_tensors_item *item,
				   struct cfs_map **map_out,
				   struct cfs_error *err);
/* The same for any tensor of a tree. */
CFS_MUST_CHECK int cfs_tensors_torch_map(const struct cfs_torch_tensor *t,
					 struct cfs_filetab *tab,
					 struct cfs_filepool *pool,
					 struct cfs_map **map_out,
					 struct cfs_error *err);

#endif
