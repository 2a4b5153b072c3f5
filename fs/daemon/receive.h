/* receive in two halves: what is put into the store, and the talk. */
#ifndef CFS_DAEMON_RECEIVE_H
#define CFS_DAEMON_RECEIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/transfer.h"
#include "fs/daemon/verb.h"

struct cfs_ns_file;

/* Chunks of the batch that is being written, by number of the extent. */
struct cfs_receive_batch {
	unsigned n, lacks; /* how many have not come yet */
	struct cfs_extent extents[CFS_TRANSFER_EXTENTS_MAX];
	bool lacked[CFS_TRANSFER_EXTENTS_MAX];
	struct cfs_buf chunks[CFS_TRANSFER_EXTENTS_MAX];
};
void cfs_receive_batch_free(struct cfs_receive_batch *batch);

struct cfs_receive_dir {
	uint64_t ino;
	struct stat st;
};

/* Where bytes of a chunk are that came: in a file of the tree. */
struct cfs_receive_place {
	uint64_t ino, off;
};

struct cfs_receive_tree {
	struct cfs_verb_context *context;
	struct cfs_error *err;
	uint64_t top_dir; /* where the tree is made under a name of its own */
	char top_name[64];
	bool made; /* the top is there */
	struct cfs_ns_cred *cred;
	bool owners;
	/* the node at hand */
	struct cfs_transfer_node node;
	uint64_t ino;
	bool open; /* a node is at hand */
	struct cfs_ns_file *file;
	uint64_t end; /* extents of it so far end here */
	/* directories get their times last */
	struct cfs_receive_dir *dirs;
	size_t n_dirs, cap_dirs;
	/* the parent looked up last */
	char parent[4096];
	uint64_t parent_ino;
	/* owner: 1 + index in places; 0: asked for, on its way */
	struct cfs_chunkset known;
	struct cfs_receive_place *places;
	size_t n_places, cap_places;
	void *buffer; /* CFS_CHUNK_BYTES_MAX */
	uint64_t files, bytes, chunks;
};
void cfs_receive_tree_fini(struct cfs_receive_tree *tree);
CFS_MUST_CHECK int cfs_receive_node(struct cfs_receive_tree *tree,
				    const void *data, size_t len);
CFS_MUST_CHECK int cfs_receive_link(struct cfs_receive_tree *tree,
				    const void *data, size_t len);
CFS_MUST_CHECK int cfs_receive_xattr(struct cfs_receive_tree *tree,
				     const void *data, size_t len);
CFS_MUST_CHECK int cfs_receive_data(struct cfs_receive_tree *tree,
				    const void *data, size_t len);
CFS_MUST_CHECK int cfs_receive_node_end(struct cfs_receive_tree *tree);
/* Notes which chunks of the batch have to come: in ->lacked and ->lacks.
 * @ask: nobody but the store and the tree has them; else the sender sends what
 * was not sent before, whatever is here. */
CFS_MUST_CHECK int cfs_receive_want(struct cfs_receive_tree *tree,
				    struct cfs_receive_batch *batch, bool ask);
/* All chunks have come: writes the extents into the node at hand. */
CFS_MUST_CHECK int cfs_receive_write(struct cfs_receive_tree *tree,
				     struct cfs_receive_batch *batch);
/* Times of directories; then the tree is whole. */
CFS_MUST_CHECK int cfs_receive_finish(struct cfs_receive_tree *tree);

#endif
