#include "store/util/grow.h"

#include <stdlib.h>

enum {
	FIRST = 16
};

void *cfs_grow(void *array, size_t *cap, size_t size, size_t max)
{
	size_t more = *cap ? *cap * 2 : FIRST;
	void *grown;

	if (*cap > max / 2)
		return NULL;
	grown = reallocarray(array, more, size);
	if (grown)
		*cap = more;
	return grown;
}
