/* Lists of spans, and putting them in order. */
#include <errno.h>
#include <string.h>

#include "fs/container/sniff_internal.h"

void cfs_sniff_spans_fini(struct cfs_sniff_spans *spans)
{
	free(spans->v);
	*spans = (struct cfs_sniff_spans){0};
}

int cfs_sniff_spans_add(struct cfs_sniff_spans *spans,
			const struct cfs_sniff_span *span)
{
	struct cfs_sniff_span *v;
	size_t cap;

	if (!span->len)
		return 0;
	if (spans->n == spans->cap) {
		cap = spans->cap ? spans->cap * 2 : 64;
		if (cap > CFS_SNIFF_SPANS_MAX)
			return -E2BIG;
		v = realloc(spans->v, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		spans->v = v;
		spans->cap = cap;
	}
	spans->v[spans->n++] = *span;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct cfs_sniff_span *x = a, *y = b;

	if (x->storage != y->storage)
		return x->storage < y->storage ? -1 : 1;
	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return x->len > y->len ? -1 : x->len < y->len;
}

void cfs_sniff_spans_settle(struct cfs_sniff_spans *spans)
{
	const struct cfs_sniff_span *last = NULL;
	size_t n = 0;

	if (!spans->n)
		return;
	qsort(spans->v, spans->n, sizeof(*spans->v), by_place);
	for (size_t i = 0; i < spans->n; i++) {
		const struct cfs_sniff_span *s = &spans->v[i];

		if (last && last->storage == s->storage &&
		    s->off < last->off + last->len)
			continue; /* a tied weight, a view */
		spans->v[n] = *s;
		last = &spans->v[n++];
	}
	spans->n = n;
}
