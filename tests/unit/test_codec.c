/* Chunks as stored: what goes in comes out, and damage never does. */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "store/chunk/chunk.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

enum kind {
	NOISE,
	ZEROS,
	FLOATS,
	BF16,
	TEXT,
	NANS,
	COUNTERS,
	PATCHY,
	N_KINDS
};

static uint64_t rng_state;
static struct cfs_encoder *encoder;
static uint8_t *raw;

static uint64_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return rng_state;
}

static void setup(void)
{
	rng_state = 0x5eed;
	encoder = cfs_encoder_new();
	raw = malloc(CFS_CHUNK_BYTES_MAX);
	ck_assert(encoder && raw);
}

static void teardown(void)
{
	cfs_encoder_free(encoder);
	free(raw);
}

/* About normal, as weights are. */
static float weight(void)
{
	float sum = 0;
	int i;

	for (i = 0; i < 6; i++)
		sum += (float)(int32_t)rng() / 2147483648.0f;
	return sum * 0.01f;
}

static void fill_words(uint8_t *p, size_t len, enum kind kind)
{
	static const uint32_t nans[] = {0x7fc00000, 0xffc00001, 0x7f800001,
					0x7f800000, 0xff800000, 0x80000000};
	uint32_t v = 0, i = 0;
	float f;

	for (; len; i++) {
		f = weight();
		memcpy(&v, &f, sizeof(v));
		if (kind == NOISE)
			v = (uint32_t)rng();
		else if (kind == NANS && i % 3 == 0)
			v = nans[rng() % CFS_ARRAY_SIZE(nans)];
		else if (kind == COUNTERS)
			v = i;
		cfs_put_le32(p, v);
		p += CFS_MIN(len, sizeof(v));
		len -= CFS_MIN(len, sizeof(v));
	}
}

/* @len bytes of @kind in raw; the buffer is large enough for a last word. */
static void fill(enum kind kind, size_t len)
{
	static const char *const words[] = {"weight ", "bias ", "layer.", "\n"};
	size_t i, n;

	memset(raw, 0, len);
	switch (kind) {
	case ZEROS:
		break;
	case TEXT:
		for (i = 0; i < len; i += n) {
			const char *w = words[rng() % CFS_ARRAY_SIZE(words)];

			n = CFS_MIN(strlen(w), len - i);
			memcpy(raw + i, w, n);
		}
		break;
	case BF16:
		for (i = 0; i + 1 < len; i += 2) {
			float f = weight();

			memcpy(raw + i, (const char *)&f + 2, 2);
		}
		break;
	case PATCHY: /* rows that were never touched */
		fill_words(raw, len & ~(size_t)3, FLOATS);
		for (i = 0; i + 4096 < len; i += 4096)
			if (rng() % 3)
				memset(raw + i, 0, 4096);
		break;
	default:
		fill_words(raw, len & ~(size_t)3, kind);
	}
}

/* Parses and decodes; 0 when it gives @want, else what failed first. */
static int decode(const uint8_t *stored, size_t len, const uint8_t *want,
		  size_t want_len)
{
	_cleanup_(cfs_freep) struct cfs_chunk_head *h = NULL;
	_cleanup_(cfs_freep) uint8_t *frame = malloc(CFS_FRAME_BYTES);
	_cleanup_(cfs_freep) uint8_t *exact = NULL;
	uint32_t i;
	int r;

	ck_assert(frame);
	r = cfs_chunk_head_parse(stored, CFS_MIN(len, CFS_CHUNK_HEAD_MAX), len,
				 &h);
	if (r < 0)
		return r;
	for (i = 0; i < h->n_frames; i++) {
		ck_assert(h->frames[i].off + h->frames[i].len <= len);
		free(exact); /* so that a sanitizer sees one byte too many */
		exact = malloc(h->frames[i].len);
		ck_assert(exact);
		memcpy(exact, stored + h->frames[i].off, h->frames[i].len);
		r = cfs_frame_decode(h, i, exact, frame);
		if (r < 0)
			return r;
		ck_assert_int_eq(cfs_frame_check(h, i, frame), 0);
		ck_assert_uint_le(i * (size_t)CFS_FRAME_BYTES +
					  cfs_frame_raw_len(h, i),
				  want_len);
		ck_assert_int_eq(memcmp(frame,
					want + (size_t)i * CFS_FRAME_BYTES,
					cfs_frame_raw_len(h, i)),
				 0);
	}
	ck_assert_uint_eq(h->raw_len, want_len);
	return 0;
}

static void check_round_trip(size_t len, unsigned elem_size)
{
	_cleanup_(cfs_buf_free) struct cfs_buf a = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf b = CFS_BUF_INIT;
	struct cfs_encoder *fresh = cfs_encoder_new();

	ck_assert_int_eq(cfs_chunk_encode(encoder, raw, len, elem_size, &a), 0);
	ck_assert_uint_le(a.len, cfs_chunk_bound(len));
	ck_assert_int_eq(decode(a.data, a.len, raw, len), 0);
	/* an encoder with no past, behind other bytes */
	cfs_buf_put(&b, "xyz", 3);
	ck_assert_ptr_nonnull(fresh);
	ck_assert_int_eq(cfs_chunk_encode(fresh, raw, len, elem_size, &b), 0);
	ck_assert_uint_eq(b.len, a.len + 3);
	ck_assert_int_eq(memcmp(b.data + 3, a.data, a.len), 0);
	cfs_encoder_free(fresh);
}

START_TEST(comes_back)
{
	static const size_t lens[] = {1,
				      2,
				      3,
				      4,
				      7,
				      8,
				      9,
				      31,
				      64,
				      255,
				      1023,
				      4096,
				      4099,
				      65535,
				      CFS_FRAME_BYTES - 1,
				      CFS_FRAME_BYTES,
				      CFS_FRAME_BYTES + 1,
				      2 * CFS_FRAME_BYTES + 13,
				      CFS_CHUNK_BYTES,
				      CFS_CHUNK_BYTES_MAX};
	static const unsigned sizes[] = {0, 1, 2, 4, 8, 3, 16};
	size_t i, s;

	for (i = 0; i < CFS_ARRAY_SIZE(lens); i++) {
		fill((enum kind)_i, lens[i]);
		for (s = 0; s < CFS_ARRAY_SIZE(sizes); s++) {
			if (lens[i] > 3 * CFS_FRAME_BYTES && sizes[s] != 4)
				continue;
			check_round_trip(lens[i], sizes[s]);
		}
	}
}
END_TEST

static struct cfs_chunk_head *stored_head(enum kind kind, size_t len,
					  unsigned elem_size)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_chunk_head *h = NULL;

	fill(kind, len);
	ck_assert_int_eq(cfs_chunk_encode(encoder, raw, len, elem_size, &out),
			 0);
	ck_assert_int_eq(cfs_chunk_head_parse(out.data, out.len, out.len, &h),
			 0);
	return h;
}

START_TEST(codec_fits_the_data)
{
	static const struct {
		enum kind kind;
		unsigned elem_size;
		enum cfs_codec codec;
		double least; /* ratio */
	} cases[] = {
		{NOISE, 0, CFS_CODEC_RAW, 0.99},
		{NOISE, 4, CFS_CODEC_RAW, 0.99},
		{ZEROS, 0, CFS_CODEC_ZSTD, 2000},
		{ZEROS, 4, CFS_CODEC_ZSTD, 2000},
		{FLOATS, 4, CFS_CODEC_PLANES, 1.17},
		{FLOATS, 0, CFS_CODEC_PLANES, 1.17},
		{BF16, 2, CFS_CODEC_PLANES, 1.4},
		{BF16, 0, CFS_CODEC_PLANES, 1.4},
		{TEXT, 0, CFS_CODEC_ZSTD, 3},
		{COUNTERS, 4, CFS_CODEC_PLANES, 1.9},
		{PATCHY, 4, CFS_CODEC_PLANES, 2},
	};
	struct cfs_chunk_head *h;
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		h = stored_head(cases[i].kind, CFS_CHUNK_BYTES,
				cases[i].elem_size);
		ck_assert_msg(h->codec == cases[i].codec &&
				      h->stored_len * cases[i].least <=
					      h->raw_len,
			      "case %zu: codec %d, %u bytes", i, (int)h->codec,
			      h->stored_len);
		free(h);
	}
}
END_TEST

/* Zeros among the rest cost next to nothing, wherever they are. */
START_TEST(zero_frames_are_tiny)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_chunk_head *h;
	uint32_t i;

	fill(FLOATS, CFS_CHUNK_BYTES);
	memset(raw, 0, 6 * (size_t)CFS_FRAME_BYTES);
	ck_assert_int_eq(
		cfs_chunk_encode(encoder, raw, CFS_CHUNK_BYTES, 4, &out), 0);
	ck_assert_int_eq(cfs_chunk_head_parse(out.data, out.len, out.len, &h),
			 0);
	ck_assert_int_eq(h->codec, CFS_CODEC_PLANES);
	for (i = 0; i < 6; i++)
		ck_assert_uint_lt(h->frames[i].len, 128);
	ck_assert_int_eq(decode(out.data, out.len, raw, CFS_CHUNK_BYTES), 0);
	free(h);
}
END_TEST

/* Damage is seen, or harmless; only another codec number may be "unknown". */
static void check_damaged(const uint8_t *stored, size_t len, size_t raw_len,
			  size_t at)
{
	int r = decode(stored, len, raw, raw_len);

	ck_assert_msg(r == 0 || r == -EBADMSG ||
			      (r == -EPROTONOSUPPORT && at == 0),
		      "byte %zu: %d", at, r);
}

START_TEST(damage_is_seen)
{
	static const struct {
		size_t len;
		enum kind kind;
		unsigned elem_size;
	} cases[] = {
		{300, NOISE, 4},   {5000, ZEROS, 0},
		{1003, FLOATS, 4}, {2001, BF16, 2},
		{2005, FLOATS, 8}, {900, TEXT, 0},
		{9001, PATCHY, 4}, {CFS_FRAME_BYTES + 200, TEXT, 0},
	};
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	static const uint8_t masks[] = {0x01, 0x10, 0x80, 0xff};
	size_t i, at, m, step;

	for (i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		fill(cases[i].kind, cases[i].len);
		cfs_buf_reset(&out);
		ck_assert_int_eq(cfs_chunk_encode(encoder, raw, cases[i].len,
						  cases[i].elem_size, &out),
				 0);
		step = out.len > 20000 ? 7 : 1;
		for (at = 0; at < out.len; at += step)
			for (m = 0; m < CFS_ARRAY_SIZE(masks); m++) {
				out.data[at] ^= masks[m];
				check_damaged(out.data, out.len, cases[i].len,
					      at);
				out.data[at] ^= masks[m];
			}
		for (at = 0; at < out.len; at += step)
			ck_assert_int_eq(
				decode(out.data, at, raw, cases[i].len),
				-EBADMSG);
	}
}
END_TEST

START_TEST(lengths_are_refused)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;

	ck_assert_int_eq(cfs_chunk_encode(encoder, raw, 0, 0, &out), -EINVAL);
	ck_assert_int_eq(cfs_chunk_encode(encoder, raw, CFS_CHUNK_BYTES_MAX + 1,
					  0, &out),
			 -EINVAL);
	ck_assert_uint_eq(out.len, 0);
	cfs_encoder_free(NULL);
}
END_TEST

static struct cfs_chunk_part part(uint8_t name, uint32_t off, uint32_t len)
{
	struct cfs_chunk_part p = {.off = off, .len = len};

	memset(p.digest.bytes, name, sizeof(p.digest.bytes));
	return p;
}

START_TEST(derived_head_comes_back)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	_cleanup_(cfs_freep) struct cfs_chunk_head *h = NULL;
	struct cfs_chunk_part parts[] = {part(1, 4, 400000),
					 part(2, 0, 200000)};
	size_t len = 300000, i;

	fill(BF16, len);
	ck_assert_int_eq(cfs_chunk_encode_derived(raw, len, CFS_F32, CFS_BF16,
						  parts, 2, &out),
			 0);
	ck_assert_int_eq(cfs_chunk_head_parse(out.data, out.len, out.len, &h),
			 0);
	ck_assert_int_eq(h->codec, CFS_CODEC_DERIVED);
	ck_assert_uint_eq(h->raw_len, len);
	ck_assert_uint_eq(h->stored_len, out.len);
	ck_assert_int_eq(h->from, CFS_F32);
	ck_assert_int_eq(h->to, CFS_BF16);
	ck_assert_uint_eq(h->n_frames, 3);
	ck_assert_uint_eq(h->n_parts, 2);
	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(
			cfs_digest_cmp(&h->parts[i].digest, &parts[i].digest),
			0);
		ck_assert_uint_eq(h->parts[i].off, parts[i].off);
		ck_assert_uint_eq(h->parts[i].len, parts[i].len);
	}
	for (i = 0; i < h->n_frames; i++) {
		ck_assert_uint_eq(h->frames[i].len, 0);
		ck_assert_int_eq(cfs_frame_check(h, (uint32_t)i,
						 raw + i * CFS_FRAME_BYTES),
				 0);
	}
	raw[5] ^= 1;
	ck_assert_int_eq(cfs_frame_check(h, 0, raw), -EBADMSG);
	/* bytes that decode alone it has none */
	ck_assert_int_eq(cfs_frame_decode(h, 0, "", raw), -EBADMSG);
}
END_TEST

START_TEST(derived_is_refused)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	static struct cfs_chunk_part many[1000];
	struct cfs_chunk_part p = part(1, 0, 4000), odd = part(1, 0, 3999);
	struct cfs_chunk_part far = part(1, CFS_CHUNK_BYTES_MAX - 3999, 4000);
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(many); i++)
		many[i] = part((uint8_t)i, 0, 4);
	memset(raw, 0, CFS_CHUNK_BYTES);
#define REFUSED(len, from, to, parts, n)                                       \
	ck_assert_int_eq(                                                      \
		cfs_chunk_encode_derived(raw, len, from, to, parts, n, &out),  \
		-EINVAL)
	REFUSED(0, CFS_F32, CFS_BF16, &p, 1);
	REFUSED(2002, CFS_F32, CFS_BF16, &p, 1);
	REFUSED(2000, CFS_I32, CFS_BF16, &p, 1);
	REFUSED(2000, CFS_F32, CFS_DTYPE_NONE, &p, 1);
	REFUSED(2000, CFS_F32, CFS_BF16, &p, 0);
	REFUSED(1998, CFS_F32, CFS_BF16, &odd, 1);
	REFUSED(2000, CFS_F32, CFS_BF16, &far, 1);
	REFUSED(2000, CFS_F32, CFS_BF16, many, 1000);
#undef REFUSED
	ck_assert_uint_eq(out.len, 0);
	ck_assert_int_eq(cfs_chunk_encode_derived(raw, 1600, CFS_F32, CFS_BF16,
						  many, 800, &out),
			 0);
	ck_assert_uint_le(out.len, CFS_CHUNK_HEAD_MAX);
}
END_TEST

/* Heads that lie: each field once. */
START_TEST(bad_heads_are_refused)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	struct cfs_chunk_part p = part(1, 0, 4000);
	struct cfs_chunk_head *h = NULL;
	static const struct {
		size_t at;
		uint8_t value;
		int r;
	} cases[] = {
		{0, 0, -EPROTONOSUPPORT},
		{0, 5, -EPROTONOSUPPORT},
		{0, CFS_CODEC_RAW, -EBADMSG},
		{1, 3, -EBADMSG},
		{1, 16, -EBADMSG},
		{2, CFS_I32, -EBADMSG},
		{2, 255, -EBADMSG},
		{3, CFS_DTYPE_NONE, -EBADMSG},
		{4, 0, -EBADMSG}, /* uncompressed length */
		{7, 1, -EBADMSG},
		{8, 2, -EBADMSG}, /* parts */
		{8, 0, -EBADMSG},
		{11, 255, -EBADMSG},
		{12, 1, -EBADMSG},		 /* a frame with bytes */
		{12 + 12 + 32 + 3, 1, -EBADMSG}, /* part's offset */
		{12 + 12 + 36, 1, -EBADMSG},
	};
	size_t i;
	uint8_t was;

	memset(raw, 0, 2000);
	ck_assert_int_eq(cfs_chunk_encode_derived(raw, 2000, CFS_F32, CFS_BF16,
						  &p, 1, &out),
			 0);
	for (i = 0; i < CFS_ARRAY_SIZE(cases); i++) {
		was = out.data[cases[i].at];
		out.data[cases[i].at] = cases[i].value;
		ck_assert_msg(cfs_chunk_head_parse(out.data, out.len, out.len,
						   &h) == cases[i].r,
			      "case %zu", i);
		out.data[cases[i].at] = was;
	}
	ck_assert_int_eq(
		cfs_chunk_head_parse(out.data, out.len, out.len + 1, &h),
		-EBADMSG);
	ck_assert_int_eq(
		cfs_chunk_head_parse(out.data, out.len - 1, out.len - 1, &h),
		-EBADMSG);
}
END_TEST

/* A chunk of one frame: @want, stored as @frame. */
static void put_chunk(struct cfs_buf *out, enum cfs_codec codec,
		      const struct cfs_buf *want, const struct cfs_buf *frame)
{
	cfs_buf_reset(out);
	cfs_buf_put_u8(out, (uint8_t)codec);
	cfs_buf_put_u8(out, 2);
	cfs_buf_put(out, "\0\0", 2);
	cfs_buf_put_le32(out, (uint32_t)want->len);
	cfs_buf_put_le32(out, 0);
	cfs_buf_put_le32(out, (uint32_t)frame->len);
	cfs_buf_put_le64(out, cfs_hash64(want->data, want->len, 0));
	cfs_buf_put(out, frame->data, frame->len);
}

/*
 * A planes frame built by hand as FORMAT.md says, so that encoder and decoder
 * cannot drift together: 64 elements of which byte 0 counts, byte 1 is 'a', and
 * one byte more.
 */
START_TEST(hand_made_frame)
{
	/* a zstd frame of 64 bytes, one segment, last block, run of 'a' */
	static const uint8_t run[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20,
				      64,   0x03, 0x02, 0x00, 'a'};
	_cleanup_(cfs_buf_free) struct cfs_buf want = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf frame = CFS_BUF_INIT;
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	uint8_t i;

	cfs_buf_put_u8(&frame, 0);
	cfs_buf_put_le32(&frame, 64);
	cfs_buf_put_u8(&frame, 1);
	cfs_buf_put_le32(&frame, sizeof(run));
	for (i = 0; i < 64; i++) {
		cfs_buf_put_u8(&frame, i);
		cfs_buf_put_u8(&want, i);
		cfs_buf_put_u8(&want, 'a');
	}
	cfs_buf_put(&frame, run, sizeof(run));
	cfs_buf_put_u8(&frame, 'X');
	cfs_buf_put_u8(&want, 'X');
	put_chunk(&out, CFS_CODEC_PLANES, &want, &frame);
	ck_assert_int_eq(decode(out.data, out.len, want.data, want.len), 0);
	/* as long as its bytes: raw whatever the codec, longer: never */
	put_chunk(&out, CFS_CODEC_PLANES, &want, &want);
	ck_assert_int_eq(decode(out.data, out.len, want.data, want.len), 0);
	put_chunk(&out, CFS_CODEC_ZSTD, &want, &want);
	ck_assert_int_eq(decode(out.data, out.len, want.data, want.len), 0);
	cfs_buf_reset(&frame);
	cfs_buf_put(&frame, want.data, want.len);
	cfs_buf_put_u8(&frame, 0);
	put_chunk(&out, CFS_CODEC_PLANES, &want, &frame);
	ck_assert_int_eq(decode(out.data, out.len, want.data, want.len),
			 -EBADMSG);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("codec");
	TCase *tc = tcase_create("codec");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, comes_back, 0, N_KINDS);
	tcase_add_test(tc, codec_fits_the_data);
	tcase_add_test(tc, zero_frames_are_tiny);
	tcase_add_test(tc, damage_is_seen);
	tcase_add_test(tc, lengths_are_refused);
	tcase_add_test(tc, derived_head_comes_back);
	tcase_add_test(tc, derived_is_refused);
	tcase_add_test(tc, bad_heads_are_refused);
	tcase_add_test(tc, hand_made_frame);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
