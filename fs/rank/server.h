/*
 * The daemon's side of rank_client/PROTOCOL.md: what the control socket does
 * with connections of ranks.
 */
#ifndef CFS_RANK_SERVER_H
#define CFS_RANK_SERVER_H

#include "fs/daemon/control.h"
#include "store/util/base.h"

struct cfs_rank_server;
CFS_MUST_CHECK struct cfs_rank_server *cfs_rank_server_new(void);
/* Ranks that wait for each other get to know that the daemon ends; before the
 * control socket is stopped.  NULL is fine. */
void cfs_rank_server_stop(struct cfs_rank_server *server);
/* The control socket has been stopped.  NULL is fine. */
void cfs_rank_server_free(struct cfs_rank_server *server);
void cfs_rank_server_freep(struct cfs_rank_server **server);

/* The `session` of struct cfs_verb_context; @server is its argument. */
void cfs_rank_server_session(void *server, struct cfs_verb_context *context,
			     const struct cfs_session *session);

#endif
