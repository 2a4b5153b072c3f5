/* What a rank reads: to come. */
#include <errno.h>

#include "fs/rank/conn.h"

int cfs_conn_load_op(struct cfs_conn *conn, const struct cfs_op *op,
		     cJSON *result, struct cfs_error *err)
{
	(void)conn;
	(void)result;
	return cfs_fail(err, -ENOTSUP, "%s: not yet", op->name);
}

void cfs_conn_drop_loads(struct cfs_conn *conn)
{
	(void)conn;
}
