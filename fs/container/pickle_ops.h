/* Opcode handlers, listed in the table of pickle_ops_object.c. */
#ifndef CFS_CONTAINER_PICKLE_OPS_H
#define CFS_CONTAINER_PICKLE_OPS_H

#include "fs/container/pickle_reader.h"

int cfs_op_proto(struct cfs_pickle_reader *rd);
int cfs_op_frame(struct cfs_pickle_reader *rd);
int cfs_op_none(struct cfs_pickle_reader *rd);
int cfs_op_true(struct cfs_pickle_reader *rd);
int cfs_op_false(struct cfs_pickle_reader *rd);
int cfs_op_binint(struct cfs_pickle_reader *rd);
int cfs_op_text_int(struct cfs_pickle_reader *rd);
int cfs_op_long(struct cfs_pickle_reader *rd);
int cfs_op_float(struct cfs_pickle_reader *rd);
int cfs_op_binfloat(struct cfs_pickle_reader *rd);
int cfs_op_unicode(struct cfs_pickle_reader *rd);
int cfs_op_binunicode(struct cfs_pickle_reader *rd);
int cfs_op_string(struct cfs_pickle_reader *rd);
int cfs_op_binstring(struct cfs_pickle_reader *rd);
int cfs_op_binbytes(struct cfs_pickle_reader *rd);
int cfs_op_empty(struct cfs_pickle_reader *rd);
int cfs_op_marked(struct cfs_pickle_reader *rd);
int cfs_op_tuple123(struct cfs_pickle_reader *rd);
int cfs_op_add_one(struct cfs_pickle_reader *rd);
int cfs_op_add_many(struct cfs_pickle_reader *rd);

#endif
