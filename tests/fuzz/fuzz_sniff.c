/* Any file, written in any pieces: hints ascend and are never late. */
#include <assert.h>

#include "fs/container/sniff.h"

struct seen {
	uint64_t fed, end;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void note(void *arg, const struct cfs_region *region)
{
	struct seen *seen = arg;

	assert(region->len && region->off >= seen->fed);
	assert(region->off >= seen->end);
	seen->end = region->off + region->len;
	assert(seen->end > region->off);
	assert(region->elem_size <= 8);
}

/* The first byte says in what pieces. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct seen seen = {0};
	uint64_t want = 0;
	size_t piece, n;
	void *s;

	if (!len)
		return 0;
	piece = *data ? (size_t)*data * 16 : len;
	data++;
	len--;
	s = cfs_sniffer.begin("bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt");
	for (size_t at = 0; at < len && s; at += n) {
		n = CFS_MIN(piece, len - at);
		if (want < at + n) {
			want = cfs_sniffer.feed(s, data + at, n, at, note,
						&seen);
			assert(want >= at + n);
		}
		seen.fed = at + n;
	}
	cfs_sniffer.end(s);
	return 0;
}
