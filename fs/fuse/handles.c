#include "fs/fuse/handles.h"

#include <pthread.h>

#include "store/ns/ns.h"

struct cfs_handles {
	pthread_mutex_t lock; /* guards the ring */
	struct cfs_handle head;
};

struct cfs_handles *cfs_handles_new(void)
{
	struct cfs_handles *handles = calloc(1, sizeof(*handles));

	if (!handles)
		return NULL;
	pthread_mutex_init(&handles->lock, NULL);
	handles->head.prev = handles->head.next = &handles->head;
	return handles;
}

void cfs_handles_free(struct cfs_handles *handles)
{
	if (!handles)
		return;
	while (handles->head.next != &handles->head)
		cfs_handles_close(handles, handles->head.next);
	pthread_mutex_destroy(&handles->lock);
	free(handles);
}

struct cfs_handle *cfs_handles_add(struct cfs_handles *handles,
				   struct cfs_ns_file *file)
{
	struct cfs_handle *handle = calloc(1, sizeof(*handle));

	if (!handle) {
		cfs_ns_close_file(file);
		return NULL;
	}
	handle->file = file;
	pthread_mutex_lock(&handles->lock);
	handle->prev = &handles->head;
	handle->next = handles->head.next;
	handle->next->prev = handle;
	handles->head.next = handle;
	pthread_mutex_unlock(&handles->lock);
	return handle;
}

void cfs_handles_close(struct cfs_handles *handles, struct cfs_handle *handle)
{
	pthread_mutex_lock(&handles->lock);
	handle->prev->next = handle->next;
	handle->next->prev = handle->prev;
	pthread_mutex_unlock(&handles->lock);
	cfs_ns_close_file(handle->file);
	free(handle);
}
