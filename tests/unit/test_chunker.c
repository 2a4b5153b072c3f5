/* Where streams are cut: by the grid, by content, and over other layouts. */
#include "tests/test.h"

#include <string.h>

#include "store/chunk/chunk.h"
#include "store/chunk/chunker.h"
#include "store/util/digest.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static uint8_t *noise(size_t len)
{
	uint8_t *p = malloc(len + 8);
	size_t i;
	uint64_t v;

	ck_assert_ptr_nonnull(p);
	for (i = 0; i < len; i += sizeof(v)) {
		v = rng();
		memcpy(p + i, &v, sizeof(v));
	}
	return p;
}

struct cuts {
	uint64_t end[4096];
	uint32_t elem_size[4096];
	size_t n;
};

/*
 * Cuts @len bytes; every call sees at most @step bytes more than the last.
 * Hints are given as soon as the byte before their region has been seen.
 */
static void cut_all(const uint8_t *data, size_t len,
		    const struct cfs_region *regions, size_t n_regions,
		    size_t step, struct cuts *out)
{
	struct cfs_chunker *c = cfs_chunker_new(0);
	size_t start = 0, seen = 0, hinted = 0, n;
	uint32_t elem_size;

	ck_assert_ptr_nonnull(c);
	out->n = 0;
	while (start < len) {
		n = seen + 1 + rng() % step;
		seen = CFS_MIN(len, n);
		while (hinted < n_regions && regions[hinted].off <= seen)
			ck_assert_int_eq(
				cfs_chunker_hint(c, &regions[hinted++]), 0);
		while ((n = cfs_chunker_next(c, data + start, seen - start,
					     seen == len, &elem_size))) {
			ck_assert_uint_le(n, CFS_CHUNK_BYTES_MAX);
			ck_assert_uint_le(n, seen - start);
			start += n;
			ck_assert_uint_lt(out->n, 4096);
			out->end[out->n] = start;
			out->elem_size[out->n++] = elem_size;
		}
		ck_assert_uint_lt(seen - start, CFS_CHUNK_BYTES_MAX);
	}
	cfs_chunker_free(c);
}

static void check_same(const struct cuts *a, const struct cuts *b)
{
	size_t i;

	for (i = 0; i < CFS_MIN(a->n, b->n); i++)
		ck_assert_msg(a->end[i] == b->end[i] &&
				      a->elem_size[i] == b->elem_size[i],
			      "chunk %zu: to %zu of %u or to %zu of %u", i,
			      (size_t)a->end[i], a->elem_size[i],
			      (size_t)b->end[i], b->elem_size[i]);
	ck_assert_uint_eq(a->n, b->n);
}

static void setup(void)
{
	rng_state = 0x5eed;
}

static struct cfs_region grid(uint64_t off, uint64_t len, uint64_t phase,
			      uint32_t elem_size)
{
	return (struct cfs_region){.off = off,
				   .len = len,
				   .phase = phase,
				   .elem_size = elem_size,
				   .grid = true};
}

START_TEST(grid_begins_at_the_parameter)
{
	uint8_t *data = noise(6 * MIB);
	/* the second is the rest of a parameter that began elsewhere */
	struct cfs_region regions[] = {
		grid(100, 2 * MIB + 500 * KIB, 0, 4),
		grid(100 + 2 * MIB + 500 * KIB, 2 * MIB, 3 * MIB + 768 * KIB,
		     2),
	};
	static const uint64_t want[] = {
		100,
		100 + MIB,
		100 + 2 * MIB,
		100 + 2 * MIB + 500 * KIB,
		100 + 2 * MIB + 756 * KIB,
		100 + 3 * MIB + 756 * KIB,
		100 + 4 * MIB + 500 * KIB,
	};
	static const uint32_t sizes[] = {0, 4, 4, 4, 2, 2, 2};
	struct cuts cuts;
	size_t i;

	cut_all(data, 6 * MIB, regions, 2, 100 * KIB, &cuts);
	ck_assert_uint_ge(cuts.n, CFS_ARRAY_SIZE(want) + 1);
	for (i = 0; i < CFS_ARRAY_SIZE(want); i++) {
		ck_assert_uint_eq(cuts.end[i], want[i]);
		ck_assert_uint_eq(cuts.elem_size[i], sizes[i]);
	}
	ck_assert_uint_eq(cuts.end[cuts.n - 1], 6 * MIB);
	free(data);
}
END_TEST

/* A thousand layer norms between two matrices are few chunks. */
START_TEST(small_parameters_join)
{
	enum {
		N = 1000,
		SMALL = 4 * KIB
	};
	size_t len = 2 * MIB + (size_t)N * SMALL, i;
	uint8_t *data = noise(len);
	struct cfs_region *r = calloc(N + 2, sizeof(*r));
	struct cuts cuts;

	ck_assert_ptr_nonnull(r);
	r[0] = grid(0, MIB, 0, 4);
	for (i = 0; i < N; i++)
		r[i + 1] = grid(MIB + i * SMALL, SMALL, 0, 4);
	r[N + 1] = grid(MIB + (size_t)N * SMALL, MIB, 0, 4);
	cut_all(data, len, r, N + 2, 64 * KIB, &cuts);
	ck_assert_uint_eq(cuts.end[0], MIB);
	ck_assert_uint_le(cuts.n, 2 + 16);
	ck_assert_uint_eq(cuts.end[cuts.n - 2], len - MIB);
	for (i = 0; i < cuts.n; i++) {
		ck_assert_uint_eq(cuts.elem_size[i], 4);
		ck_assert_uint_eq(cuts.end[i] % 4, 0);
	}
	free(r);
	free(data);
}
END_TEST

/* Noise is cut near 1 MiB on average, never outside the bounds. */
START_TEST(content_sizes)
{
	size_t len = 64 * (size_t)MIB, i;
	uint8_t *data = noise(len);
	struct cuts cuts;
	uint64_t last = 0;

	cut_all(data, len, NULL, 0, MIB, &cuts);
	for (i = 0; i + 1 < cuts.n; i++) {
		ck_assert_uint_ge(cuts.end[i] - last, 256 * KIB);
		last = cuts.end[i];
	}
	ck_assert_uint_ge(cuts.n, 40);
	ck_assert_uint_le(cuts.n, 100);
	memset(data, 0, len); /* never a match: the longest there is */
	cut_all(data, len, NULL, 0, MIB, &cuts);
	ck_assert_uint_eq(cuts.n, len / CFS_CHUNK_BYTES_MAX);
	free(data);
}
END_TEST

/* Bytes put in front change the chunk they are in and no more than the next. */
START_TEST(content_falls_into_step)
{
	size_t len = 16 * (size_t)MIB, shift = 4099, i, j, same = 0;
	uint8_t *data = noise(len), *moved = noise(len + shift);
	struct cuts a, b;

	memcpy(moved + shift, data, len);
	cut_all(data, len, NULL, 0, MIB, &a);
	cut_all(moved, len + shift, NULL, 0, MIB, &b);
	for (i = 0; i < a.n; i++)
		for (j = 0; j < b.n; j++)
			same += a.end[i] + shift == b.end[j];
	ck_assert_uint_ge(same + 2, a.n);
	free(data);
	free(moved);
}
END_TEST

START_TEST(elements_stay_whole)
{
	size_t len = 24 * (size_t)MIB, i, in = 0;
	uint8_t *data = noise(len);
	/* not on a grid, and beginning in the middle of nowhere */
	struct cfs_region r = {.off = 1003, .len = len - 5000, .elem_size = 8};
	struct cuts cuts;

	cut_all(data, len, &r, 1, MIB, &cuts);
	for (i = 0; i < cuts.n; i++) {
		if (cuts.end[i] <= r.off || cuts.end[i] >= r.off + r.len)
			continue;
		ck_assert_uint_eq((cuts.end[i] - r.off) % 8, 0);
		ck_assert_uint_eq(cuts.elem_size[i], 8);
		in++;
	}
	ck_assert_uint_ge(in, 8);
	free(data);
}
END_TEST

/* However the bytes arrive, and with regions of all kinds. */
START_TEST(calls_do_not_matter)
{
	size_t len = 12 * (size_t)MIB, off = 0, n = 0, i;
	struct cfs_region r[64];
	uint8_t *data;
	struct cuts a, b;

	rng_state = 0x5eed + (uint64_t)_i;
	data = noise(len);
	memset(data + rng() % len / 2, 0, MIB);
	while (n < CFS_ARRAY_SIZE(r)) {
		uint64_t size = 8ull << rng() % 20;

		off += rng() % 3 ? 0 : rng() % (256 * KIB);
		if (off + size > len)
			break;
		r[n] = grid(off, size, 8 * (rng() % MIB), 1u << rng() % 4);
		r[n].grid = rng() % 4 != 0;
		off += size;
		n++;
	}
	cut_all(data, len, r, n, len, &a);
	for (i = 0; i < 3; i++) {
		cut_all(data, len, r, n, (size_t)256 << (4 * i), &b);
		check_same(&a, &b);
	}
	free(data);
}
END_TEST

START_TEST(odd_hints)
{
	size_t len = 3 * MIB;
	uint8_t *data = noise(len);
	struct cfs_chunker *c = cfs_chunker_new(0);
	struct cfs_region r = grid(MIB, 0, 0, 4);
	uint32_t elem_size;
	struct cuts cuts;

	ck_assert_int_eq(cfs_chunker_hint(c, &r), 0);
	r = grid(UINT64_MAX - 5, 10, 0, 4);
	ck_assert_int_eq(cfs_chunker_hint(c, &r), 0);
	/* late: seen, but not cut yet */
	ck_assert_uint_eq(
		cfs_chunker_next(c, data, 200 * KIB, false, &elem_size), 0);
	r = grid(100 * KIB, 2 * MIB, 0, 3);
	ck_assert_int_eq(cfs_chunker_hint(c, &r), 0);
	r = grid(150 * KIB, 2 * MIB, 0, 4); /* overlaps */
	ck_assert_int_eq(cfs_chunker_hint(c, &r), 0);
	ck_assert_uint_eq(
		cfs_chunker_next(c, data, 200 * KIB, false, &elem_size),
		100 * KIB);
	ck_assert_uint_eq(cfs_chunker_next(c, data + 100 * KIB, MIB - 1, false,
					   &elem_size),
			  0);
	ck_assert_uint_eq(
		cfs_chunker_next(c, data + 100 * KIB, MIB, false, &elem_size),
		MIB);
	ck_assert_uint_eq(elem_size, 0);
	ck_assert_uint_eq(cfs_chunker_next(c, data, 0, true, &elem_size), 0);
	cfs_chunker_free(c);
	/* a region longer than the file */
	r = grid(10, 100 * (uint64_t)MIB, 0, 4);
	cut_all(data, len, &r, 1, MIB, &cuts);
	ck_assert_uint_eq(cuts.n, 4);
	ck_assert_uint_eq(cuts.end[3], len);
	cfs_chunker_free(NULL);
	free(data);
}
END_TEST

/*
 * Other layouts of one state.  Parameters as in a transformer, flat one behind
 * the other and split evenly over dp ranks, or one file each with a header.
 */
#define LAYERS	 12
#define N_PARAMS (LAYERS * 6 + 1)

struct state {
	uint8_t *data;
	uint64_t len, off[N_PARAMS + 1];
};

static void make_state(struct state *s)
{
	static const uint64_t sizes[] = {768 * 4,
					 768 * 4,
					 768 * 2304 * 4,
					 2304 * 4,
					 768 * 768 * 4 + 40,
					 768 * 1536 * 4};
	size_t i;

	s->off[0] = 0;
	for (i = 0; i < N_PARAMS; i++)
		s->off[i + 1] = s->off[i] +
				(i ? sizes[(i - 1) % 6] : 30011ull * 768 * 4);
	s->len = s->off[N_PARAMS];
	s->data = noise(s->len);
}

struct seen {
	struct cfs_digest *digests;
	size_t n, cap;
	uint64_t all, fresh; /* bytes */
};

static void see(struct seen *s, const uint8_t *p, size_t len)
{
	struct cfs_digest d;
	size_t i;

	cfs_digest_of(p, len, &d);
	s->all += len;
	for (i = 0; i < s->n; i++)
		if (cfs_digest_cmp(&d, &s->digests[i]) == 0)
			return;
	if (s->n == s->cap) {
		s->cap = CFS_MAX(s->cap * 2, (size_t)256);
		s->digests = reallocarray(s->digests, s->cap, sizeof(d));
		ck_assert_ptr_nonnull(s->digests);
	}
	s->digests[s->n++] = d;
	s->fresh += len;
}

/* A file: @head bytes of its own, then [from, to) of the state. */
static void save_file(const struct state *st, uint64_t from, uint64_t to,
		      size_t head, bool hints, struct seen *seen)
{
	static struct cuts cuts;
	struct cfs_region r[N_PARAMS];
	uint8_t *file = malloc(head + (to - from));
	uint64_t a, b, last = 0;
	size_t i, n = 0;

	ck_assert_ptr_nonnull(file);
	for (i = 0; i < head; i++)
		file[i] = (uint8_t)rng();
	memcpy(file + head, st->data + from, to - from);
	for (i = 0; hints && i < N_PARAMS; i++) {
		a = CFS_MAX(st->off[i], from);
		b = CFS_MIN(st->off[i + 1], to);
		if (a < b)
			r[n++] =
				grid(head + a - from, b - a, a - st->off[i], 4);
	}
	cut_all(file, head + (to - from), r, n, 4 * MIB, &cuts);
	for (i = 0; i < cuts.n; i++) {
		see(seen, file + last, cuts.end[i] - last);
		last = cuts.end[i];
	}
	free(file);
}

static void save(const struct state *st, unsigned dp, bool hints,
		 struct seen *seen)
{
	uint64_t part, from;
	size_t i;

	seen->all = seen->fresh = 0;
	if (!dp) {
		for (i = 0; i < N_PARAMS; i++)
			save_file(st, st->off[i], st->off[i + 1], 1000, hints,
				  seen);
		return;
	}
	part = (st->len / 4 + dp - 1) / dp * 4;
	for (from = 0; from < st->len; from += part)
		save_file(st, from, CFS_MIN(from + part, st->len), 1024, hints,
			  seen);
}

/* New bytes of @dp (0: a file each) where @seen is there already. */
static void check_fresh(const struct state *st, unsigned dp, bool hints,
			struct seen *seen, uint64_t bound)
{
	size_t n = seen->n;

	save(st, dp, hints, seen);
	ck_assert_msg(seen->fresh <= bound,
		      "dp %u, hints %d: %.1f of %.1f MB are new", dp, hints,
		      (double)seen->fresh * 1e-6, (double)seen->all * 1e-6);
	seen->n = n;
}

/*
 * With hints a partition border that is gone or new costs one cell of the grid
 * and what is small around it; from 12 to 6 ranks that is 2.3 % of this state
 * (which is a fifth of a small one).
 */
START_TEST(other_layouts)
{
	struct seen seen = {0};
	struct state st;

	make_state(&st);
	save(&st, 12, true, &seen);
	check_fresh(&st, 12, true, &seen, 12 * 1024);
	check_fresh(&st, 6, true, &seen, 6 * (MIB + 64 * KIB));
	check_fresh(&st, 6, true, &seen, st.len / 20);
	check_fresh(&st, 5, true, &seen, 15 * (MIB + 64 * KIB));
	check_fresh(&st, 0, true, &seen, 11 * (MIB + 64 * KIB) + 500 * KIB);
	seen.n = 0;
	save(&st, 12, false, &seen);
	check_fresh(&st, 6, false, &seen, st.len * 15 / 100);
	check_fresh(&st, 5, false, &seen, st.len * 30 / 100);
	free(seen.digests);
	free(st.data);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("chunker");
	TCase *tc = tcase_create("chunker");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, grid_begins_at_the_parameter);
	tcase_add_test(tc, small_parameters_join);
	tcase_add_test(tc, content_sizes);
	tcase_add_test(tc, content_falls_into_step);
	tcase_add_test(tc, elements_stay_whole);
	tcase_add_loop_test(tc, calls_do_not_matter, 0, 8);
	tcase_add_test(tc, odd_hints);
	tcase_add_test(tc, other_layouts);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
