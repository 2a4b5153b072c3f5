/* What the bytes of a map are made of. */
#include "fs/cli/ranges.h"

#include "store/util/checked.h"

struct each {
	cfs_ranges_fn *fn;
	void *arg;
	enum cfs_segment_kind how; /* 0 at the top */
};

static int each(const struct each *e, const struct cfs_map *map, uint64_t off,
		uint64_t len);

/* [@skip, @skip + @n) of a computed segment, as bytes of its child. */
static int computed(const struct each *e, const struct cfs_segment *seg,
		    uint64_t skip, uint64_t n)
{
	struct each inner = *e;
	uint64_t first = 0, last = cfs_map_size(seg->child);

	if (!inner.how)
		inner.how = seg->kind;
	if (seg->kind == CFS_SEG_CAST) {
		uint64_t to = cfs_dtype_size(seg->to);
		uint64_t from = cfs_dtype_size(seg->from);

		first = skip / to * from;
		last = cfs_div_up(skip + n, to) * from;
	}
	return each(&inner, seg->child, first, last - first);
}

static int plain(const struct each *e, const struct cfs_segment *seg,
		 uint64_t skip, uint64_t n)
{
	struct cfs_ranges_piece piece = {
		.how = e->how ? e->how : seg->kind,
		.from_file = seg->kind == CFS_SEG_RANGE,
		.len = n,
	};

	if (piece.from_file) {
		piece.file = seg->file;
		piece.file_off = seg->file_off + skip;
	}
	return e->fn(e->arg, &piece);
}

static int each(const struct each *e, const struct cfs_map *map, uint64_t off,
		uint64_t len)
{
	uint64_t end = off + len;
	int r = 0;

	while (r == 0 && off < end) {
		struct cfs_segment seg;
		uint64_t into, n;

		cfs_map_segment(map, cfs_map_find(map, off), &seg);
		into = off - seg.off;
		n = CFS_MIN(seg.len - into, end - off);
		if (seg.child)
			r = computed(e, &seg, seg.skip + into, n);
		else
			r = plain(e, &seg, into, n);
		off += n;
	}
	return r;
}

int cfs_ranges_each(const struct cfs_map *map, uint64_t off, uint64_t len,
		    cfs_ranges_fn *fn, void *arg)
{
	struct each e = {.fn = fn, .arg = arg};

	return each(&e, map, off, len);
}

static int count_file(void *arg, uint32_t file)
{
	struct cfs_ranges_tally *tally = arg;

	(void)file;
	tally->n_files++;
	return 0;
}

void cfs_ranges_add(const struct cfs_map *map, struct cfs_ranges_tally *tally)
{
	uint64_t *const sums[] = {
		[CFS_SEG_LITERAL] = &tally->literal,
		[CFS_SEG_RANGE] = &tally->range,
		[CFS_SEG_ZERO] = &tally->zero,
		[CFS_SEG_GATHER] = &tally->gather,
		[CFS_SEG_CAST] = &tally->cast,
		[CFS_SEG_LINEAR] = &tally->linear,
	};
	struct cfs_segment seg;
	uint32_t i;

	for (i = 0; i < cfs_map_count(map); i++) {
		cfs_map_segment(map, i, &seg);
		*sums[seg.kind] += seg.len;
	}
	tally->total += cfs_map_size(map);
	(void)cfs_map_each_file(map, count_file, tally);
}

const char *cfs_ranges_kind(enum cfs_segment_kind kind)
{
	switch (kind) {
	case CFS_SEG_LITERAL:
		return "literal";
	case CFS_SEG_RANGE:
		return "range";
	case CFS_SEG_ZERO:
		return "zero";
	case CFS_SEG_GATHER:
		return "gather";
	case CFS_SEG_CAST:
		return "cast";
	case CFS_SEG_LINEAR:
		return "linear";
	}
	return "?";
}
