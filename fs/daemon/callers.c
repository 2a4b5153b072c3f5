/* Callers of the control socket: counting, limiting and ending them. */
#include "fs/daemon/callers.h"

#include <errno.h>
#include <sys/socket.h>

#define VERBS_MAX    16u
#define SESSIONS_MAX 1024u

void cfs_callers_init(struct cfs_callers *callers)
{
	*callers = (struct cfs_callers){.n_verbs = 0};
	pthread_mutex_init(&callers->lock, NULL);
	pthread_cond_init(&callers->changed, NULL);
}

void cfs_callers_fini(struct cfs_callers *callers)
{
	pthread_cond_destroy(&callers->changed);
	pthread_mutex_destroy(&callers->lock);
}

static unsigned *count_of(struct cfs_callers *callers, bool session)
{
	return session ? &callers->n_sessions : &callers->n_verbs;
}

/* Locked. */
static bool has_room(struct cfs_callers *callers, bool session)
{
	return !callers->stopping &&
	       *count_of(callers, session) <
		       (session ? SESSIONS_MAX : VERBS_MAX);
}

bool cfs_callers_enter(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry)
{
	bool room;

	pthread_mutex_lock(&callers->lock);
	room = has_room(callers, entry->session);
	if (room) {
		++*count_of(callers, entry->session);
		entry->next = callers->list;
		entry->link = &callers->list;
		if (entry->next)
			entry->next->link = &entry->next;
		callers->list = entry;
	}
	pthread_mutex_unlock(&callers->lock);
	return room;
}

bool cfs_callers_stay(struct cfs_callers *callers,
		      struct cfs_callers_entry *entry)
{
	bool room = true;

	pthread_mutex_lock(&callers->lock);
	if (!entry->session) {
		room = has_room(callers, true);
		if (room) {
			callers->n_verbs--;
			callers->n_sessions++;
			entry->session = true;
		}
	}
	pthread_mutex_unlock(&callers->lock);
	return room;
}

void cfs_callers_leave(struct cfs_callers *callers,
		       struct cfs_callers_entry *entry)
{
	pthread_mutex_lock(&callers->lock);
	--*count_of(callers, entry->session);
	*entry->link = entry->next;
	if (entry->next)
		entry->next->link = entry->link;
	pthread_cond_broadcast(&callers->changed);
	pthread_mutex_unlock(&callers->lock);
}

bool cfs_callers_stopping(struct cfs_callers *callers)
{
	bool stopping;

	pthread_mutex_lock(&callers->lock);
	stopping = callers->stopping;
	pthread_mutex_unlock(&callers->lock);
	return stopping;
}

/* Only the way in is shut: what was asked can still be answered. */
void cfs_callers_stop(struct cfs_callers *callers)
{
	pthread_mutex_lock(&callers->lock);
	callers->stopping = true;
	for (struct cfs_callers_entry *e = callers->list; e; e = e->next)
		if (e->session)
			(void)shutdown(e->fd, SHUT_RD);
	pthread_mutex_unlock(&callers->lock);
}

void cfs_callers_wait(struct cfs_callers *callers)
{
	pthread_mutex_lock(&callers->lock);
	while (callers->n_verbs || callers->n_sessions)
		pthread_cond_wait(&callers->changed, &callers->lock);
	pthread_mutex_unlock(&callers->lock);
}

int cfs_peer_read(int fd, struct cfs_peer *out)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*out = (struct cfs_peer){cred.pid, cred.uid, cred.gid, NULL, 0};
	return 0;
}

int cfs_peer_read_groups(int fd, struct cfs_peer *peer)
{
	_cleanup_(cfs_freep) gid_t *groups = NULL;
	socklen_t len = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0)
		return 0; /* it has none */
	if (errno != ERANGE)
		return -errno;
	groups = malloc(len);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return -errno;
	peer->n_groups = len / sizeof(*groups);
	peer->groups = cfs_steal(groups);
	return 0;
}

void cfs_peer_fini(struct cfs_peer *peer)
{
	free(peer->groups);
	peer->groups = NULL;
}
