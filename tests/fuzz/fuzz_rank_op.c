/* Frames of ranks: what is accepted is within its bounds, and what is refused
 * is refused in words of one line. */
#include "fs/rank/op.h"

#include <stdlib.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_op(const struct cfs_op *op)
{
	check(op->name != NULL);
	check(op->n_slots <= CFS_OP_SLOTS_MAX);
	check(op->put.ndim <= CFS_PUT_DIMS_MAX);
	check(op->dp <= CFS_OP_RANKS_MAX && op->zero_stage <= 3);
	if (op->step)
		check(cfs_source_path_ok(op->step) && !strchr(op->step, '/'));
	if (op->file)
		check(*op->file && cfs_source_path_ok(op->file));
	if (op->kind == CFS_OP_PUT || op->kind == CFS_OP_SLICE)
		check(cfs_op_dtype_name(op->put.dtype) != NULL);
}

static void check_hello(const cJSON *frame)
{
	struct cfs_op_hello hello = {.run = NULL};
	struct cfs_error err = {""};

	if (cfs_op_hello(frame, &hello, &err) == 0) {
		check(hello.run && cfs_source_path_ok(hello.run));
		check(hello.rank < hello.n_ranks &&
		      hello.n_ranks <= CFS_OP_JOB_MAX);
	} else {
		check(err.text[0] && !hello.run);
	}
	free(hello.run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cfs_op op;
	struct cfs_error err = {""};
	cJSON *frame = cJSON_ParseWithLength((const char *)data, size);

	if (!cJSON_IsObject(frame)) {
		cJSON_Delete(frame);
		return 0;
	}
	if (cfs_op_decode(frame, &op, &err) == 0)
		check_op(&op);
	else
		check(err.text[0] && !strchr(err.text, '\n'));
	check_hello(frame);
	cJSON_Delete(frame);
	return 0;
}
