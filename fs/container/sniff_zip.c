/*
 * A torch archive as it streams by.  Its writer does not know sizes when it
 * writes a local header: data.pkl comes first and says how long each storage
 * is; the other records are small and end at a descriptor that fits.
 *
 *   head ─▶ data.pkl, small ─▶ find its descriptor ─▶ head
 *     └───▶ data/<key>: emit, skip ─▶ after ──────────▶ head
 */
#include <errno.h>
#include <string.h>

#include "fs/container/sniff_internal.h"
#include "fs/container/zip_format.h"
#include "store/util/checked.h"
#include "store/util/endian.h"

#define SMALL_MAX      (64u << 10)
#define DESCRIPTOR_MAX 24

static void next_head(struct cfs_sniff *s, uint64_t target)
{
	cfs_sniff_seek(s, target, CFS_SNIFF_ZIP_HEAD, cfs_sniff_zip_head);
}

/* Length of the descriptor of @size bytes at @p, 0: there is none. */
static size_t descriptor(const uint8_t *p, size_t len, uint64_t size)
{
	if (len < 16 || cfs_get_le32(p) != ZIP_DESCRIPTOR_SIG)
		return 0;
	if (cfs_get_le32(p + 8) == size && cfs_get_le32(p + 12) == size)
		return 16;
	if (len >= DESCRIPTOR_MAX && cfs_get_le64(p + 8) == size &&
	    cfs_get_le64(p + 16) == size)
		return DESCRIPTOR_MAX;
	return 0;
}

static int read_table(struct cfs_sniff *s, size_t len)
{
	int r;

	s->in_pickle = false;
	cfs_sniff_table_fini(&s->table);
	r = cfs_sniff_table_read(&s->table, s->buf.data, len, s->rank);
	if (r < 0)
		return r;
	s->have_table = true;
	return 0;
}

/* In the payload of a record of unknown size. */
static int find_end(struct cfs_sniff *s)
{
	static const uint8_t sig[4] = {0x50, 0x4b, 0x07, 0x08};
	const uint8_t *base = s->buf.data, *p;
	size_t at = s->scanned, n;
	int r = 0;

	if (!s->buf.len)
		return 0;
	while ((p = memmem(base + at, s->buf.len - at, sig, sizeof(sig)))) {
		at = (size_t)(p - base);
		if (s->buf.len - at < DESCRIPTOR_MAX)
			break; /* once all of it is there */
		n = descriptor(p, s->buf.len - at, at);
		if (n) {
			if (s->in_pickle)
				r = read_table(s, at);
			next_head(s, s->at + at + n);
			return r;
		}
		at++;
	}
	if (s->buf.len >= s->need)
		return -E2BIG;
	s->scanned = p ? at : s->buf.len - CFS_MIN(s->buf.len, 3);
	return 0;
}

/* Behind a payload of known size. */
static int after(struct cfs_sniff *s)
{
	const size_t n = descriptor(s->buf.data, s->buf.len, s->record);

	if (!n)
		return -EINVAL;
	next_head(s, s->at + n);
	return 0;
}

static int whole_pickle(struct cfs_sniff *s)
{
	const int r = read_table(s, s->buf.len);

	if (!r)
		next_head(s, s->at + s->buf.len);
	return r;
}

struct head {
	const char *name; /* behind the prefix */
	size_t name_len;
	uint64_t payload, size; /* size 0 and @later: not known */
	bool later;		/* a descriptor follows */
};

static int storage(struct cfs_sniff *s, const struct head *h)
{
	const struct cfs_sniff_storage *st =
		cfs_sniff_table_find(&s->table, h->name + 5, h->name_len - 5);
	uint64_t end;

	if (!st ||
	    (h->size && h->size != st->nbytes && h->size != UINT32_MAX) ||
	    !cfs_add_u64(h->payload, st->nbytes, &end))
		return -EINVAL;
	if (st->n) /* else there may be no spans at all */
		cfs_sniff_emit(s, s->table.spans.v + st->first, st->n,
			       h->payload);
	s->record = st->nbytes;
	if (h->later && st->nbytes)
		cfs_sniff_seek(s, end, DESCRIPTOR_MAX, after);
	else
		next_head(s, end);
	return 0;
}

static int record(struct cfs_sniff *s, const struct head *h)
{
	const bool pickle = h->name_len == 8 && !memcmp(h->name, "data.pkl", 8);

	if (!pickle && !s->have_table)
		return -EINVAL; /* sizes would have to be guessed */
	if (h->name_len > 5 && !memcmp(h->name, "data/", 5))
		return storage(s, h);
	if (h->size > (pickle ? CFS_SNIFF_HEADER_MAX : SMALL_MAX))
		return -E2BIG;
	s->in_pickle = pickle;
	s->scanned = 0;
	if (h->later && h->size)
		return -EINVAL; /* nobody writes it; two truths */
	if (!h->later && pickle) {
		cfs_sniff_seek(s, h->payload, (size_t)h->size, whole_pickle);
		return 0;
	}
	if (!h->later) {
		next_head(s, h->payload + h->size);
		return 0;
	}
	cfs_sniff_seek(s, h->payload, pickle ? CFS_SNIFF_HEADER_MAX : SMALL_MAX,
		       find_end);
	s->greedy = true;
	return find_end(s); /* it may be in memory by now */
}

static int local_head(struct cfs_sniff *s)
{
	const uint8_t *p = s->buf.data;
	const uint16_t flags = cfs_get_le16(p + 6);
	const size_t name_len = cfs_get_le16(p + 26);
	const size_t whole = ZIP_LOCAL_SIZE + name_len;
	struct head h;
	int64_t rank;

	if (s->buf.len < whole) {
		s->need = whole;
		return 0;
	}
	if (flags & ZIP_FLAGS_REFUSED || cfs_get_le16(p + 8) != ZIP_STORED)
		return -EINVAL;
	h.name = memchr(p + ZIP_LOCAL_SIZE, '/', name_len);
	if (!h.name)
		return -EINVAL;
	/* the name it was first saved under stays in it when it is copied */
	rank = cfs_sniff_rank(
		(const char *)p + ZIP_LOCAL_SIZE,
		(size_t)(h.name - (const char *)(p + ZIP_LOCAL_SIZE)));
	if (rank >= 0)
		s->rank = rank;
	h.name++;
	h.name_len = (size_t)((const char *)(p + whole) - h.name);
	h.later = flags & ZIP_FLAG_DESCRIPTOR;
	h.size = cfs_get_le32(p + 18);
	h.payload = s->at + whole + cfs_get_le16(p + 28);
	return record(s, &h);
}

/* What stands behind the records; another archive may follow. */
int cfs_sniff_zip_head(struct cfs_sniff *s)
{
	const uint8_t *p = s->buf.data;
	uint64_t skip;

	switch (cfs_get_le32(p)) {
	case ZIP_LOCAL_SIG:
		return local_head(s);
	case ZIP_CENTRAL_SIG:
		if (s->buf.len < ZIP_CENTRAL_SIZE) {
			s->need = ZIP_CENTRAL_SIZE;
			return 0;
		}
		skip = (uint64_t)ZIP_CENTRAL_SIZE + cfs_get_le16(p + 28) +
		       cfs_get_le16(p + 30) + cfs_get_le16(p + 32);
		break;
	case ZIP_END64_SIG:
		if (!cfs_add_u64(cfs_get_le64(p + 4), 12, &skip) ||
		    skip > SMALL_MAX)
			return -EINVAL;
		break;
	case ZIP_LOCATOR_SIG:
		skip = ZIP_LOCATOR_SIZE;
		break;
	case ZIP_END_SIG:
		skip = (uint64_t)ZIP_END_SIZE + cfs_get_le16(p + 20);
		s->have_table = false;
		cfs_sniff_table_fini(&s->table);
		break;
	default:
		return -EINVAL;
	}
	next_head(s, s->at + skip);
	return 0;
}
