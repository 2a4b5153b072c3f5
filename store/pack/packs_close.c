/* Leaving: footers where all is durable, spares given back. */
#include "store/pack/packs_internal.h"

static void list_free(struct cfs_packs_list *list)
{
	struct cfs_packs_pack *pack;

	while ((pack = cfs_packs_list_pop(list)))
		cfs_packs_pack_free(pack);
}

static void seal_all(struct cfs_packs *packs, bool durable)
{
	struct cfs_packs_pack *pack;

	cfs_packs_room_close(packs);
	while ((pack = cfs_packs_list_pop(&packs->closed))) {
		if (durable)
			cfs_packs_footer_write(packs, pack);
		else
			(void)packs->engine->ops->seal(
				packs->engine, cfs_packs_id(pack->number),
				pack->end);
		cfs_packs_pack_free(pack);
	}
}

void cfs_packs_close(struct cfs_packs *packs)
{
	if (!packs)
		return;
	if (packs->started) {
		/* for footers; who needs to know has synced before */
		bool durable = cfs_packs_sync(packs) == 0;

		seal_all(packs, durable);
		cfs_packs_room_trim(packs, UINT32_MAX);
	}
	list_free(&packs->doomed);
	list_free(&packs->dead);
	free(packs->chain);
	pthread_cond_destroy(&packs->landed);
	pthread_mutex_destroy(&packs->lock);
	pthread_mutex_destroy(&packs->sync_lock);
	free(packs);
}

void cfs_packs_closep(struct cfs_packs **packs)
{
	cfs_packs_close(*packs);
}
