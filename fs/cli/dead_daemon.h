/* Mounts of daemons that were killed. */
#ifndef CFS_CLI_DEAD_DAEMON_H
#define CFS_CLI_DEAD_DAEMON_H

/*
 * Of the store at @path: where its last daemon was killed and its mount is
 * still there, ends the requests that wait for it.  Such a request may hold a
 * directory that a thread of the dead daemon waits for, in the kernel; until
 * somebody forces them both, the store stays in use, and whoever looks into
 * the mount waits, too.  No store, nobody dead: does nothing.
 */
void cfs_dead_daemon_end(const char *path);

#endif
