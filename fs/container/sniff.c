/* Which kind of file it is, and the bytes a kind's steps ask for. */
#include "fs/container/sniff.h"

#include <errno.h>
#include <string.h>

#include "fs/container/sniff_internal.h"
#include "fs/container/zip_format.h"
#include "store/util/checked.h"
#include "store/util/endian.h"

#define START_BYTES 12

void cfs_sniff_seek(struct cfs_sniff *s, uint64_t target, size_t need,
		    cfs_sniff_step_fn *step)
{
	const uint64_t skip = target - s->at;

	if (skip < s->buf.len) {
		memmove(s->buf.data, s->buf.data + skip, s->buf.len - skip);
		s->buf.len -= skip;
	} else {
		s->buf.len = 0;
	}
	s->at = target;
	s->need = need;
	s->greedy = false;
	s->step = step;
}

void cfs_sniff_emit(struct cfs_sniff *s, const struct cfs_sniff_span *spans,
		    size_t n, uint64_t base)
{
	for (size_t i = 0; i < n; i++) {
		struct cfs_region region = {.len = spans[i].len,
					    .phase = spans[i].phase,
					    .elem_size = spans[i].elem_size,
					    .grid = spans[i].grid};
		uint64_t end;

		if (!cfs_add_u64(base, spans[i].off, &region.off) ||
		    !cfs_add_u64(region.off, region.len, &end) ||
		    end > INT64_MAX)
			return;
		s->emit(s->arg, &region);
	}
}

static int safetensors(struct cfs_sniff *s)
{
	_cleanup_(cfs_sniff_spans_fini) struct cfs_sniff_spans spans = {0};
	const int r = cfs_sniff_json(s->buf.data, s->buf.len, &spans);

	if (!r)
		cfs_sniff_emit(s, spans.v, spans.n, s->at + s->buf.len);
	s->step = NULL;
	return r;
}

static int npy_text(struct cfs_sniff *s)
{
	struct cfs_sniff_span span = {0};
	const int r =
		cfs_sniff_npy((const char *)s->buf.data, s->buf.len, &span);

	if (!r)
		cfs_sniff_emit(s, &span, 1, s->at + s->buf.len);
	s->step = NULL;
	return r;
}

/* magic 6, version 2, length 2 (version 1) or 4 */
static int npy(struct cfs_sniff *s)
{
	const uint8_t *p = s->buf.data;
	const bool first = p[6] == 1;
	const size_t len = first ? cfs_get_le16(p + 8) : cfs_get_le32(p + 8);

	if (p[6] < 1 || p[6] > 3 || !len || len > (1u << 20))
		return -EINVAL;
	cfs_sniff_seek(s, s->at + (first ? 10 : 12), len, npy_text);
	return 0;
}

static int start(struct cfs_sniff *s)
{
	const uint8_t *p = s->buf.data;
	const uint64_t json = cfs_get_le64(p);

	if (cfs_get_le32(p) == ZIP_LOCAL_SIG) {
		cfs_sniff_seek(s, s->at, CFS_SNIFF_ZIP_HEAD,
			       cfs_sniff_zip_head);
		return 0;
	}
	if (!memcmp(p, "\x93NUMPY", 6))
		return npy(s);
	if (json >= 2 && json <= CFS_SNIFF_HEADER_MAX && p[8] == '{') {
		cfs_sniff_seek(s, s->at + 8, (size_t)json, safetensors);
		return 0;
	}
	return -EINVAL;
}

int64_t cfs_sniff_rank(const char *name, size_t len)
{
	static const char mark[] = "zero_pp_rank_";
	const char *p = memmem(name, len, mark, sizeof(mark) - 1);
	const char *end = name + len;
	int64_t rank = 0;

	if (!p)
		return -1;
	p += sizeof(mark) - 1;
	if (p == end || *p < '0' || *p > '9')
		return -1;
	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		rank = rank * 10 + (*p - '0');
		if (rank > 1000000)
			return -1;
	}
	return rank;
}

static void *begin(const char *name)
{
	struct cfs_sniff *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->step = start;
	s->need = START_BYTES;
	s->rank = cfs_sniff_rank(name, strlen(name));
	return s;
}

static void give_up(struct cfs_sniff *s)
{
	s->step = NULL;
	cfs_buf_free(&s->buf);
	cfs_sniff_table_fini(&s->table);
}

/* Takes what is asked for and there: false when a gap was left out. */
static bool fill(struct cfs_sniff *s, const uint8_t *data, size_t len,
		 uint64_t off)
{
	const uint64_t from = s->at + s->buf.len;
	size_t want = s->need - s->buf.len;

	if (off > from)
		return false;
	if (from - off >= len)
		return true;
	want = CFS_MIN(want, len - (size_t)(from - off));
	cfs_buf_put(&s->buf, data + (from - off), want);
	return !s->buf.failed;
}

static uint64_t feed(void *sniff, const void *data, size_t len, uint64_t off,
		     cfs_region_fn *emit, void *arg)
{
	struct cfs_sniff *s = sniff;
	size_t had;

	s->emit = emit;
	s->arg = arg;
	while (s->step) {
		had = s->buf.len;
		if (had < s->need && !fill(s, data, len, off)) {
			give_up(s);
			break;
		}
		if (s->buf.len < s->need && !(s->greedy && s->buf.len > had))
			return s->at + s->buf.len;
		if (s->step(s) < 0)
			s->step = NULL;
	}
	give_up(s);
	return UINT64_MAX;
}

static void end(void *sniff)
{
	struct cfs_sniff *s = sniff;

	if (!s)
		return;
	give_up(s);
	free(s);
}

const struct cfs_sniffer_ops cfs_sniffer = {begin, feed, end};
