/*
 * Files of torch.save: zip (torch >= 1.6) and legacy stream (before, or with
 * _use_new_zipfile_serialization=False).  Read into a pickle tree and a table
 * of storages; written as maps whose payloads are maps over source files.
 * Rules: torch/serialization.py, torch/_utils.py, torch/_tensor.py of 1.13 and
 * 2.6.  Archives of torch.jit.save and tar files (< 0.1.10) are refused by
 * name.
 */
#ifndef CFS_CONTAINER_TORCHFILE_H
#define CFS_CONTAINER_TORCHFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/container/pickle.h"
#include "store/map/dtype.h"
#include "store/map/map.h"

#define CFS_TENSOR_DIMS_MAX 16

/* One storage of a file that was read, or one to be written. */
struct cfs_torch_storage {
	const char *key;      /* as in the source; NULL for a new one */
	const char *location; /* "cpu", "cuda:0", … */
	const char *cls_module, *cls_name; /* "torch", "FloatStorage" */
	enum cfs_dtype dtype; /* element type; CFS_U8 for UntypedStorage */
	uint64_t numel, nbytes;
	struct cfs_map *payload; /* new ones: sealed, nbytes long; owned by
				    the document that made it */
	bool crc_known;
	uint32_t crc;
	uint32_t number; /* of a file that was read: cfs_torchfile_storage() */
	/* of a file that was read: */
	const struct cfs_torchfile *file; /* NULL for a new one */
	uint32_t zip_entry;
	uint64_t legacy_off;
	uint64_t legacy_count_off, legacy_count;     /* what is checked there */
	const struct cfs_torch_storage *legacy_root; /* this is a view of it */
};

struct cfs_torchfile; /* opaque: pickle document, storages, where they lie */

/**
 * cfs_torchfile_read - read the tree and the storage table of a .pt file
 * @file:  open; only used during this call and cfs_torch_storage_extent()
 * @tab, @index: the file's row in a file table; payload ranges refer to it
 * @limits: NULL for the defaults
 *
 * -EBADMSG (what is wrong, where), -ENOTSUP (jit archive, tar, big-endian),
 * -E2BIG, -EIO, -ENOMEM.  The caller prefixes the file's name to @err.
 */
CFS_MUST_CHECK int cfs_torchfile_read(struct cfs_file *file, uint64_t size,
				      struct cfs_filetab *tab, uint32_t index,
				      const struct cfs_pickle_limits *limits,
				      struct cfs_torchfile **out,
				      struct cfs_error *err);
void cfs_torchfile_free(struct cfs_torchfile *tf);
void cfs_torchfile_freep(struct cfs_torchfile **tf);

struct cfs_node *cfs_torchfile_root(const struct cfs_torchfile *tf);
bool cfs_torchfile_is_legacy(const struct cfs_torchfile *tf);
uint32_t cfs_torchfile_index(const struct cfs_torchfile *tf);
uint32_t cfs_torchfile_count(const struct cfs_torchfile *tf);
const struct cfs_torch_storage *
cfs_torchfile_storage(const struct cfs_torchfile *tf, uint32_t i);
/* Records of a zip archive, for tables (NULL, 0 for a legacy file). */
struct cfs_zip;
const struct cfs_zip *cfs_torchfile_zip(const struct cfs_torchfile *tf);

/*
 * Where a read storage's bytes lie in its file.  The local header is read on
 * first use, so @file must be the file that was read (any open handle of it).
 * -ENOTSUP for a deflated record.  Any thread.
 */
CFS_MUST_CHECK int
cfs_torch_storage_extent(const struct cfs_torch_storage *storage,
			 struct cfs_file *file, uint64_t *off_out,
			 struct cfs_error *err);

/* A tensor as its rebuild call describes it. */
struct cfs_torch_tensor {
	const struct cfs_torch_storage *storage; /* NULL for meta tensors */
	enum cfs_dtype dtype;
	uint64_t storage_offset; /* in elements */
	uint32_t ndim;
	uint64_t shape[CFS_TENSOR_DIMS_MAX], stride[CFS_TENSOR_DIMS_MAX];
	uint64_t numel;
	bool requires_grad;
	bool contiguous;
	bool parameter; /* wrapped by _rebuild_parameter */
};

/*
 * Understands _rebuild_tensor, _v2, _v3, _rebuild_parameter(_with_state) and
 * _rebuild_from_type_v2 around them.  -ENOENT: @node is no tensor at all;
 * -ENOTSUP: a tensor of another kind (sparse, quantised, conj, subclass);
 * -EBADMSG: outside its storage.
 */
CFS_MUST_CHECK int cfs_torch_tensor_get(const struct cfs_node *node,
					struct cfs_torch_tensor *out);
/* Is this node any kind of tensor, also one that get() cannot read? */
bool cfs_torch_is_tensor(const struct cfs_node *node);

/*
 * Writing.  Make a document, build the tree (new nodes around old ones, new
 * tensors with payloads), then finish.
 */
struct cfs_torch_writer;
/* @prefix: archive prefix, the file's base name less its last extension. */
struct cfs_torch_writer *cfs_torch_writer_new(struct cfs_filetab *tab,
					      const char *prefix);
void cfs_torch_writer_free(struct cfs_torch_writer *w);
void cfs_torch_writer_freep(struct cfs_torch_writer **w);
struct cfs_pickle *cfs_torch_writer_doc(struct cfs_torch_writer *w);

/*
 * A storage of numel elements; a reference to @payload is taken, NULL serves
 * for no elements.
 * Its CRC is taken as known when @crc is not NULL, else composed where the
 * payload is literals, zeros and ranges given to cfs_torch_writer_note_crc(),
 * else 0.  Element types without a storage class (fp8, uint16, …) make an
 * UntypedStorage, whose numel and dtype count bytes.  NULL: out of memory, a
 * type that cannot be written, or a payload of another length (both are
 * remembered by cfs_pickle_failed() of the writer's document).
 */
const struct cfs_torch_storage *
cfs_torch_writer_storage(struct cfs_torch_writer *w, enum cfs_dtype dtype,
			 uint64_t numel, struct cfs_map *payload,
			 const uint32_t *crc, const char *location);
/* _rebuild_tensor_v2 node over @storage; contiguous from @offset elements. */
struct cfs_node *
cfs_torch_writer_tensor(struct cfs_torch_writer *w,
			const struct cfs_torch_storage *storage,
			uint64_t offset, uint32_t ndim, const uint64_t *shape,
			bool requires_grad);

/* The same with any strides, in elements. */
struct cfs_node *
cfs_torch_writer_strided(struct cfs_torch_writer *w,
			 const struct cfs_torch_storage *storage,
			 uint64_t offset, uint32_t ndim, const uint64_t *shape,
			 const uint64_t *stride, bool requires_grad);
/*
 * The CRC of bytes that payloads may show as a range: a whole record of a
 * source file.  0 is taken as not known.  Failing loses only the CRC.
 */
void cfs_torch_writer_note_crc(struct cfs_torch_writer *w, uint32_t file,
			       uint64_t off, uint64_t len, uint32_t crc);

/* Reads a payload's bytes for crc=full; see cfs_torch_writer_finish(). */
typedef int cfs_crc_fn(void *arg, const struct cfs_map *payload,
		       uint32_t *crc_out);

/**
 * cfs_torch_writer_finish - the file's map
 * @root: the object; storages get keys in order of first encounter.  Storages
 *        of source files met in the tree are carried whole, through
 *        @open_file, which yields the open file for a file table index.
 * @crc:  NULL, or computes the CRCs that are not known
 *
 * Layout of torch 2.1 to 2.6: data.pkl, byteorder, data/<k>, version,
 * .data/serialization_id; no .format_version.  The same input gives the same
 * bytes.  The map is sealed.
 */
CFS_MUST_CHECK int cfs_torch_writer_finish(
	struct cfs_torch_writer *w, const struct cfs_node *root,
	int (*open_file)(void *arg, uint32_t index, struct cfs_file **borrowed),
	void *open_arg, cfs_crc_fn *crc, void *crc_arg,
	struct cfs_map **map_out, struct cfs_error *err);

/* The storage class torch names for @dtype, or NULL ("FloatStorage", …). */
const char *cfs_torch_storage_class(enum cfs_dtype dtype);

#endif
