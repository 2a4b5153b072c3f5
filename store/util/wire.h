/*
 * What goes over the control socket: frames of a length (4 bytes, little
 * endian) and so many bytes of JSON.  Descriptors come with the first byte.
 */
#ifndef CFS_UTIL_WIRE_H
#define CFS_UTIL_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

#define CFS_WIRE_REQUEST_MAX (1u << 20)
#define CFS_WIRE_REPLY_MAX   (256u << 20)
#define CFS_CONTROL_NAME     "control"

/* 0, -EPIPE (the other side is gone), -EAGAIN (its time is up), -E2BIG. */
CFS_MUST_CHECK int cfs_wire_send(int fd, const cJSON *json, const int *fds,
				 unsigned n_fds);
/*
 * One whole frame.  @fds: room for 2 descriptors (NULL: none are taken), -1
 * where none came; the caller's to close, also after an error.  -EPIPE at the
 * end, -EMSGSIZE over @max, -EBADMSG for what is no JSON object, -EAGAIN.
 */
CFS_MUST_CHECK int cfs_wire_receive(int fd, size_t max, cJSON **json_out,
				    int fds[2]);
/* Has the other side closed? */
bool cfs_wire_gone(int fd);

/* STORE/control however long the path is: a socket connected to, or listening
 * at it (in the place of one that nobody serves).  The store's lock is held by
 * who listens. */
CFS_MUST_CHECK int cfs_wire_connect(const char *store_path, int *fd_out);
CFS_MUST_CHECK int cfs_wire_listen(const char *store_path, int *fd_out);
void cfs_wire_unlisten(const char *store_path);

#endif
