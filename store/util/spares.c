#include "store/util/spares.h"

#include <string.h>

void *cfs_spares_take(struct cfs_spares *spares)
{
	void *thing;

	(void)pthread_mutex_lock(&spares->lock);
	thing = spares->top;
	if (thing)
		memcpy(&spares->top, thing, sizeof(spares->top));
	(void)pthread_mutex_unlock(&spares->lock);
	return thing;
}

void cfs_spares_put(struct cfs_spares *spares, void *thing)
{
	(void)pthread_mutex_lock(&spares->lock);
	memcpy(thing, &spares->top, sizeof(spares->top));
	spares->top = thing;
	(void)pthread_mutex_unlock(&spares->lock);
}
