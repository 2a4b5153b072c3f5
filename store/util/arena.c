/* Bump allocation in blocks that double from 4 KiB up to 1 MiB. */
#include "store/util/arena.h"

#include <stdalign.h>
#include <string.h>

#include "store/util/checked.h"

#define BLOCK_MIN ((size_t)4096)
#define BLOCK_MAX ((size_t)1 << 20)

struct block {
	struct block *next;
	size_t size, used;
	alignas(max_align_t) unsigned char data[];
};

struct cfs_arena {
	struct block *head; /* the one being filled */
	size_t limit, used, next_size;
};

struct cfs_arena *cfs_arena_new(size_t limit_bytes)
{
	struct cfs_arena *arena = calloc(1, sizeof(*arena));

	if (!arena)
		return NULL;
	arena->limit = limit_bytes;
	arena->next_size = BLOCK_MIN;
	return arena;
}

void cfs_arena_free(struct cfs_arena *arena)
{
	struct block *b, *next;

	if (!arena)
		return;
	for (b = arena->head; b; b = next) {
		next = b->next;
		free(b);
	}
	free(arena);
}

void cfs_arena_freep(struct cfs_arena **arena)
{
	cfs_arena_free(*arena);
}

static struct block *block_add(struct cfs_arena *arena, size_t size)
{
	size_t room = CFS_MAX(size, arena->next_size);
	struct block *b = malloc(sizeof(*b) + room);

	if (!b)
		return NULL;
	if (arena->next_size < BLOCK_MAX)
		arena->next_size *= 2;
	b->size = room;
	b->used = 0;
	b->next = arena->head;
	arena->head = b;
	return b;
}

void *cfs_arena_alloc(struct cfs_arena *arena, size_t size)
{
	const size_t align = alignof(max_align_t);
	struct block *b = arena->head;
	void *p;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = cfs_div_up(size, align) * align;
	if (arena->limit && size > arena->limit - arena->used)
		return NULL;
	if (!b || size > b->size - b->used) {
		b = block_add(arena, size);
		if (!b)
			return NULL;
	}
	p = b->data + b->used;
	b->used += size;
	arena->used += size;
	return memset(p, 0, size);
}

char *cfs_arena_strndup(struct cfs_arena *arena, const char *s, size_t len)
{
	char *p = cfs_arena_alloc(arena, len + 1);

	if (p && len)
		memcpy(p, s, len);
	return p;
}

size_t cfs_arena_used(const struct cfs_arena *arena)
{
	return arena->used;
}
