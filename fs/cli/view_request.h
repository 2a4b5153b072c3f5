/* view add: options that name items of a request. */
#ifndef CFS_CLI_VIEW_REQUEST_H
#define CFS_CLI_VIEW_REQUEST_H

#include "fs/reslice/topology.h"
#include "store/util/base.h"

/* Adds option @c (as cmd_view.c lists them) to those before it; 0, or an exit
 * status once it was said what is wrong. */
CFS_MUST_CHECK int cfs_view_request_take(int c, const char *arg,
					 struct cfs_request *request);

#endif
