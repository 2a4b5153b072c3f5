/* A save, and how its bytes go out: save.c, file.c, outflow.c. */
#ifndef CFS_RANK_CLIENT_SAVE_INTERNAL_H
#define CFS_RANK_CLIENT_SAVE_INTERNAL_H

#include "rank_client/rank_internal.h"

struct cfs_rank_file {
	struct cfs_rank_file *next;
	struct cfs_rank_save *save;
	uint64_t id;
	bool has_slot; /* host bytes that are not told of yet */
	uint32_t slot, fill;
	char name[];
};

struct cfs_rank_save {
	struct cfs_rank *rank;
	uint64_t number;	     /* of the handle's saves */
	struct cfs_rank_file *files; /* open */
	uint64_t next_id;
	uint64_t put_bytes, taken_before; /* for progress */
	struct cfs_link_call *commit;	  /* asked */
	bool commit_asked, settled;	  /* settled: ended for the daemon */
	int failed;			  /* here, with the words */
	struct cfs_error why;
};

/* Something of the save failed on this rank: it will on all.  Returns @r. */
int cfs_save_fail(struct cfs_rank_save *save, int r, struct cfs_error *err);
/* It may still be put to: 0, or why it failed. */
CFS_MUST_CHECK int cfs_save_check(struct cfs_rank_save *save,
				  struct cfs_error *err);
void cfs_save_tell(struct cfs_rank_save *save, bool last);
/* Sends @frames, with nothing to wait for. */
CFS_MUST_CHECK int cfs_save_send(struct cfs_rank_save *save,
				 struct cfs_buf *frames, struct cfs_error *err);

/* A slot; blocks, and sends what files hold back meanwhile. */
CFS_MUST_CHECK int cfs_outflow_slot(struct cfs_rank_save *save,
				    uint32_t *slot_out, struct cfs_error *err);
/* @len bytes of stream @id behind the frames in @head (emptied). */
CFS_MUST_CHECK int cfs_outflow_write(struct cfs_rank_save *save,
				     struct cfs_buf *head, uint64_t id,
				     const void *data, uint64_t len,
				     uint32_t memory, void *stream,
				     struct cfs_error *err);
/* What @file holds back. */
CFS_MUST_CHECK int cfs_outflow_flush(struct cfs_rank_file *file,
				     struct cfs_error *err);

#endif
