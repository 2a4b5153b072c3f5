/* Open addressing, linear probing, at most 2/3 full. */
#include "fs/container/u64map.h"

#include <pthread.h>
#include <sys/random.h>

static uint64_t seed_value = 0x9e3779b97f4a7c15U;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void seed_make(void)
{
	uint64_t v;

	if (getrandom(&v, sizeof(v), GRND_NONBLOCK) == (ssize_t)sizeof(v))
		seed_value = v;
}

uint64_t cfs_u64map_seed(void)
{
	(void)pthread_once(&seed_once, seed_make);
	return seed_value;
}

static size_t slot_of(const struct cfs_u64map *map, uint64_t key)
{
	uint64_t h = key ^ seed_value;

	h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9U;
	h = (h ^ (h >> 27)) * 0x94d049bb133111ebU;
	h ^= h >> 31;
	for (size_t i = (size_t)h & (map->cap - 1);;
	     i = (i + 1) & (map->cap - 1)) {
		if (!map->slots[i].key || map->slots[i].key == key)
			return i;
	}
}

void cfs_u64map_free(struct cfs_u64map *map)
{
	free(map->slots);
	*map = (struct cfs_u64map)CFS_U64MAP_INIT;
}

uint64_t *cfs_u64map_find(const struct cfs_u64map *map, uint64_t key)
{
	struct cfs_u64map_slot *s;

	if (!map->cap)
		return NULL;
	s = &map->slots[slot_of(map, key)];
	return s->key ? &s->value : NULL;
}

static bool grow(struct cfs_u64map *map)
{
	struct cfs_u64map bigger = {NULL, map->n, map->cap ? map->cap * 2 : 64};

	(void)cfs_u64map_seed();
	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < map->cap; i++) {
		const struct cfs_u64map_slot *s = &map->slots[i];

		if (s->key)
			bigger.slots[slot_of(&bigger, s->key)] = *s;
	}
	free(map->slots);
	*map = bigger;
	return true;
}

bool cfs_u64map_put(struct cfs_u64map *map, uint64_t key, uint64_t value)
{
	struct cfs_u64map_slot *s;

	if (map->n >= map->cap / 3 * 2 && !grow(map))
		return false;
	s = &map->slots[slot_of(map, key)];
	if (!s->key)
		map->n++;
	s->key = key;
	s->value = value;
	return true;
}
