/* Collecting garbage with derived chunks: their parts stay as they do. */
#include <pthread.h>
#include <stdatomic.h>

#include "store/map/dtype.h"
#include "tests/unit/gc_bed.h"

#define ELEMENTS 50000

struct derived {
	struct cfs_digest master, weights;
	uint8_t *bytes; /* of the weights */
};

static void store_bytes(struct bed *b, const void *data, size_t len,
			unsigned elem_size, struct cfs_digest *digest)
{
	struct cfs_pending *p;
	void *copy = malloc(len);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, len);
	ck_assert_int_eq(cfs_store_reserve(b->store, len, false), 0);
	p = cfs_store_ingest(b->store, copy, len, elem_size);
	ck_assert_int_eq(cfs_pending_wait(p, digest), 0);
	cfs_pending_unref(p);
}

static void make_derived(struct bed *b, struct derived *d, uint64_t chunk_seed)
{
	struct cfs_chunk_part part = {.len = 4 * ELEMENTS};
	uint8_t *raw = bed_bytes(chunk_seed * 2, 4 * ELEMENTS);

	for (size_t i = 0; i < ELEMENTS; i++)
		raw[4 * i + 3] &= 0x3f;
	d->bytes = malloc(2 * ELEMENTS);
	ck_assert_ptr_nonnull(d->bytes);
	cfs_dtype_cast(CFS_F32, raw, CFS_BF16, d->bytes, ELEMENTS);
	store_bytes(b, raw, 4 * ELEMENTS, 4, &d->master);
	store_bytes(b, d->bytes, 2 * ELEMENTS, 2, &d->weights);
	refer(b, 10, &d->master, 4 * ELEMENTS);
	refer(b, 11, &d->weights, 2 * ELEMENTS);
	part.digest = d->master;
	ck_assert_int_eq(cfs_store_derive(b->store, &d->weights, CFS_F32,
					  CFS_BF16, &part, 1),
			 0);
	free(raw);
}

static void weights_read(struct bed *b, const struct derived *d)
{
	uint8_t *is = malloc(2 * ELEMENTS);

	ck_assert_ptr_nonnull(is);
	ck_assert_int_eq(cfs_store_read_chunk(b->store, &d->weights, 0, is,
					      2 * ELEMENTS),
			 0);
	ck_assert_mem_eq(is, d->bytes, 2 * ELEMENTS);
	free(is);
}

static unsigned codec_of(struct bed *b, const struct cfs_digest *digest)
{
	struct cfs_chunk_facts f;

	ck_assert_int_eq(cfs_store_chunk_facts(b->store, digest, &f), 0);
	return f.codec;
}

START_TEST(parts_stay)
{
	struct cfs_engine *disk;
	struct derived d;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_derived(&b, &d, 7);
	unrefer(&b, 10);
	gc(&b, NULL, NULL);
	ck_assert_uint_eq(codec_of(&b, &d.weights), CFS_CODEC_DERIVED);
	weights_read(&b, &d);
	disk = bed_disk(&b);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	bed_open(&b, disk, NULL);
	ck_assert_uint_eq(codec_of(&b, &d.weights), CFS_CODEC_DERIVED);
	weights_read(&b, &d);
	unrefer(&b, 11);
	gc(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d.weights), -ENOENT);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d.master), -ENOENT);
	free(d.bytes);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* A dead derived chunk whose record outlives its parts, found by a rebuild, is
 * no copy of the same bytes saved again. */
START_TEST(derived_without_parts)
{
	const struct cfs_gc_options stingy = {.min_dead_percent = 99};
	struct cfs_engine *disk;
	struct cfs_digest digest;
	struct derived d;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_derived(&b, &d, 9);
	/* beside the derived record, so that its pack stays */
	for (uint64_t i = 0; i < 4; i++) {
		bed_store_chunk(&b, 100 + 2 * i, 30000, &digest);
		refer(&b, 20 + i, &digest, 30000);
	}
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	unrefer(&b, 10);
	unrefer(&b, 11);
	gc(&b, &stingy, NULL);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d.weights), -ENOENT);
	disk = bed_disk(&b);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	bed_open(&b, disk, NULL);
	store_bytes(&b, d.bytes, 2 * ELEMENTS, 2, &digest);
	refer(&b, 11, &digest, 2 * ELEMENTS);
	weights_read(&b, &d);
	gc(&b, NULL, NULL);
	weights_read(&b, &d);
	free(d.bytes);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- at the same time ---- */

/* Weights that are derived, dropped, saved again and read while collections
 * run, of each with and without a file that has the masters. */
#define PAIRS	 12
#define OF_PAIR	 3000 /* elements */
#define TROUBLES 40   /* collections */

struct trouble {
	struct bed *b;
	atomic_bool over;
	struct cfs_digest masters[PAIRS], weights[PAIRS];
	uint8_t *raw[PAIRS], *bytes[PAIRS];
	atomic_uint derived, again;
};

/* As store/ns does it: the reference is there before a group can be cut. */
static struct cfs_digest save_pair(struct trouble *t, unsigned i, bool master)
{
	const size_t len = (master ? 4 : 2) * OF_PAIR;
	struct cfs_extent e = {.len = len, .chunk_len = (uint32_t)len};
	const uint64_t ino = 100 + 2 * (uint64_t)i + master;

	cfs_store_enter(t->b->store);
	store_bytes(t->b, master ? t->raw[i] : t->bytes[i], len, master ? 4 : 2,
		    &e.digest);
	put_inode(t->b, ino, len, NULL);
	bed_put_extent(t->b, ino, &e);
	cfs_store_leave(t->b->store);
	return e.digest;
}

static void *derive_all(void *arg)
{
	struct trouble *t = arg;

	for (unsigned i = 0; !t->over; i = (i + 1) % PAIRS) {
		const struct cfs_chunk_part part = {t->masters[i], 0,
						    4 * OF_PAIR};
		int r = cfs_store_derive(t->b->store, &t->weights[i], CFS_F32,
					 CFS_BF16, &part, 1);

		ck_assert_msg(r == 0 || r == -ENOENT, "%d", r);
		t->derived += r == 0;
	}
	return NULL;
}

static void *drop_and_save(void *arg)
{
	struct trouble *t = arg;

	for (unsigned i = 0; !t->over; i = (i + 5) % PAIRS) {
		const bool master = t->again % 3 == 0;

		unrefer(t->b, 100 + 2 * (uint64_t)i + master);
		sched_yield();
		(void)save_pair(t, i, master);
		t->again++;
	}
	return NULL;
}

static void check_pairs(struct trouble *t)
{
	uint8_t is[4 * OF_PAIR];

	for (unsigned i = 0; i < PAIRS; i++) {
		ck_assert_int_eq(cfs_store_read_chunk(t->b->store,
						      &t->weights[i], 0, is,
						      2 * OF_PAIR),
				 0);
		ck_assert_mem_eq(is, t->bytes[i], 2 * OF_PAIR);
		ck_assert_int_eq(cfs_store_read_chunk(t->b->store,
						      &t->masters[i], 0, is,
						      4 * OF_PAIR),
				 0);
		ck_assert_mem_eq(is, t->raw[i], 4 * OF_PAIR);
	}
}

START_TEST(deriving_against_gc)
{
	const struct cfs_gc_options eager = {.min_dead_percent = 1};
	struct trouble t = {0};
	pthread_t threads[2];
	struct cfs_engine *disk;
	struct bed b;

	bed_open(&b, NULL, NULL);
	t.b = &b;
	for (unsigned i = 0; i < PAIRS; i++) {
		t.raw[i] = bed_bytes(2 * (uint64_t)i + 2, 4 * OF_PAIR);
		for (size_t k = 0; k < OF_PAIR; k++)
			t.raw[i][4 * k + 3] &= 0x3f;
		t.bytes[i] = malloc(2 * OF_PAIR);
		ck_assert_ptr_nonnull(t.bytes[i]);
		cfs_dtype_cast(CFS_F32, t.raw[i], CFS_BF16, t.bytes[i],
			       OF_PAIR);
		t.masters[i] = save_pair(&t, i, true);
		t.weights[i] = save_pair(&t, i, false);
	}
	ck_assert_int_eq(pthread_create(&threads[0], NULL, derive_all, &t), 0);
	ck_assert_int_eq(pthread_create(&threads[1], NULL, drop_and_save, &t),
			 0);
	for (int i = 0; i < TROUBLES || !t.derived || t.again < TROUBLES; i++)
		gc(&b, &eager, NULL);
	t.over = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	check_pairs(&t);
	gc(&b, &eager, NULL);
	check_pairs(&t);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	disk = bed_disk(&b);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	bed_open(&b, disk, NULL);
	check_pairs(&t);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	for (unsigned i = 0; i < PAIRS; i++) {
		free(t.raw[i]);
		free(t.bytes[i]);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("gc_derived");
	TCase *t = tcase_create("gc_derived");

	tcase_add_test(t, parts_stay);
	tcase_add_test(t, derived_without_parts);
	tcase_add_test(t, deriving_against_gc);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
