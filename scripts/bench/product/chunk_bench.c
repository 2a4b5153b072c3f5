/*
 * What cutting, digesting, encoding and decoding cost per byte, and what they
 * save: one line per file, of the fastest of three passes.
 * usage: chunk_bench [-e ELEM_SIZE] FILE...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/chunk/chunk.h"
#include "store/chunk/chunker.h"
#include "store/util/buf.h"
#include "store/util/digest.h"

struct tally {
	double cut, digest, encode, decode; /* CPU seconds */
	size_t chunks, stored, by_codec[8];
};

static double cpu_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The whole file; *len_out bytes. */
static uint8_t *slurp(const char *path, size_t *len_out)
{
	FILE *f = fopen(path, "rb");
	uint8_t *p = NULL;
	long len;

	if (!f || fseek(f, 0, SEEK_END) < 0)
		die(path);
	len = ftell(f);
	rewind(f);
	if (len > 0)
		p = malloc((size_t)len);
	if (!p || fread(p, 1, (size_t)len, f) != (size_t)len)
		die(path);
	(void)fclose(f);
	*len_out = (size_t)len;
	return p;
}

static void decode_all(const struct cfs_buf *stored, const uint8_t *want,
		       struct tally *t)
{
	static uint8_t frame[CFS_FRAME_BYTES];
	struct cfs_chunk_head *h;
	uint32_t i;
	double start = cpu_now();

	if (cfs_chunk_head_parse(stored->data, stored->len, stored->len, &h) <
	    0)
		die("head");
	for (i = 0; i < h->n_frames; i++)
		if (cfs_frame_decode(h, i, stored->data + h->frames[i].off,
				     frame) < 0)
			die("frame");
	t->decode += cpu_now() - start;
	for (i = 0; i < h->n_frames; i++)
		if (cfs_frame_decode(h, i, stored->data + h->frames[i].off,
				     frame) < 0 ||
		    memcmp(frame, want + (size_t)i * CFS_FRAME_BYTES,
			   cfs_frame_raw_len(h, i)) != 0)
			die("other bytes");
	t->by_codec[h->codec]++;
	free(h);
}

static void one_chunk(struct cfs_encoder *encoder, struct cfs_buf *out,
		      const uint8_t *p, size_t len, unsigned elem_size,
		      struct tally *t)
{
	struct cfs_digest digest;
	double start;

	start = cpu_now();
	cfs_digest_of(p, len, &digest);
	t->digest += cpu_now() - start;
	cfs_buf_reset(out);
	start = cpu_now();
	if (cfs_chunk_encode(encoder, p, len, elem_size, out) < 0)
		die("encode");
	t->encode += cpu_now() - start;
	decode_all(out, p, t);
	t->chunks++;
	t->stored += out->len;
}

static struct tally pass(const uint8_t *p, size_t len, unsigned elem_size)
{
	struct cfs_encoder *encoder = cfs_encoder_new();
	struct cfs_chunker *chunker = cfs_chunker_new(0);
	struct cfs_buf out = CFS_BUF_INIT;
	struct tally t = {0};
	size_t off, n;
	double start;
	uint32_t known;

	if (!encoder || !chunker)
		die("memory");
	for (off = 0; off < len; off += n) {
		start = cpu_now();
		n = cfs_chunker_next(chunker, p + off, len - off, true, &known);
		t.cut += cpu_now() - start;
		one_chunk(encoder, &out, p + off, n,
			  elem_size ? elem_size : known, &t);
	}
	cfs_buf_free(&out);
	cfs_chunker_free(chunker);
	cfs_encoder_free(encoder);
	return t;
}

static void run(const char *path, unsigned elem_size)
{
	size_t len;
	uint8_t *p = slurp(path, &len);
	struct tally t = {0}, best = {0};
	double gb = (double)len * 1e-9;
	int i;

	for (i = 0; i < 3; i++) {
		t = pass(p, len, elem_size);
		if (i == 0)
			best = t;
		best.cut = CFS_MIN(best.cut, t.cut);
		best.digest = CFS_MIN(best.digest, t.digest);
		best.encode = CFS_MIN(best.encode, t.encode);
		best.decode = CFS_MIN(best.decode, t.decode);
	}
	(void)printf("%-24s %8.3f GB %6zu chunks ratio %6.3f  CPU-s/GB: "
		     "cut %.3f digest %.3f encode %.3f decode %.3f  "
		     "raw/zstd/planes %zu/%zu/%zu\n",
		     path, gb, t.chunks, (double)len / (double)t.stored,
		     best.cut / gb, best.digest / gb, best.encode / gb,
		     best.decode / gb, t.by_codec[CFS_CODEC_RAW],
		     t.by_codec[CFS_CODEC_ZSTD], t.by_codec[CFS_CODEC_PLANES]);
	free(p);
}

int main(int argc, char **argv)
{
	unsigned elem_size = 0;
	int i = 1;

	if (argc > 2 && strcmp(argv[1], "-e") == 0) {
		elem_size = (unsigned)strtoul(argv[2], NULL, 10);
		i = 3;
	}
	for (; i < argc; i++)
		run(argv[i], elem_size);
	return 0;
}
