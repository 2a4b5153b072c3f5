/* What the torch_*.c files share. */
#ifndef CFS_CONTAINER_TORCH_INTERNAL_H
#define CFS_CONTAINER_TORCH_INTERNAL_H

#include "fs/container/torchfile.h"
#include "fs/container/u64map.h"
#include "fs/container/zip.h"

struct cfs_arena;

struct cfs_torch_offset; /* torch_read.c */

struct cfs_torchfile {
	struct cfs_pickle *doc;
	struct cfs_node *root;
	struct cfs_arena *arena; /* storages, zip directory */
	struct cfs_filetab *tab;
	uint32_t index;
	uint64_t size;
	bool legacy;
	struct cfs_zip zip;
	const char *prefix; /* with its '/' */
	struct cfs_torch_storage **storages;
	uint32_t n_storages, cap_storages;
	struct cfs_u64map by_key; /* hash of the key -> number + 1 */
	/*
	 * By storage: where its bytes start, or 0 while unknown (nothing
	 * starts at 0).  Relaxed: whoever looks it up finds the same value.
	 */
	struct cfs_torch_offset *offsets;
};

/* A storage class of torch: what its name means. */
struct cfs_torch_class {
	const char *name;
	enum cfs_dtype dtype;
	uint32_t itemsize;
};
/* NULL for a name torch does not have. */
const struct cfs_torch_class *cfs_torch_class_find(const char *module,
						   const char *name);
bool cfs_torch_class_untyped(const struct cfs_torch_storage *storage);
/* "float8_e4m3fn" and its size; CFS_DTYPE_NONE if not one of torch's. */
enum cfs_dtype cfs_torch_dtype_find(const char *name, uint32_t *size_out);
/* The reverse, NULL for CFS_DTYPE_NONE and _OTHER. */
const char *cfs_torch_dtype_name(enum cfs_dtype dtype);

/* The record "<prefix>/<name>", or NULL. */
const struct cfs_zip_entry *cfs_torchfile_record(const struct cfs_torchfile *tf,
						 const char *name);

/* Makes storages of the persistent ids that decoding met.  For a legacy file
 * their places are not known yet. */
CFS_MUST_CHECK int cfs_torchfile_resolve(struct cfs_torchfile *tf,
					 struct cfs_error *err);
/* The storage of a key, or NULL. */
struct cfs_torch_storage *cfs_torchfile_find(const struct cfs_torchfile *tf,
					     const char *key);

CFS_MUST_CHECK int cfs_torchfile_read_legacy(struct cfs_torchfile *tf,
					     struct cfs_file *file,
					     struct cfs_error *err);

#endif
