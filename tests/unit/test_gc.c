/* Collecting garbage: what is needed stays, the rest goes, whatever happens. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "store/map/dtype.h"
#include "tests/unit/core_bed.h"

#define FILES  60
#define CHUNKS 6 /* of a file, at most */
#define SEEDS  80

/* A file of the namespace that the tests keep: chunks by their seeds. */
struct file {
	bool there, sealed;
	unsigned n;
	uint64_t seeds[CHUNKS];
};

static unsigned seed;

static size_t len_of(uint64_t chunk_seed)
{
	return 2000 + (size_t)(chunk_seed * 2654435761u % 30000);
}

static void put(struct bed *b, const struct cfs_key *key,
		const struct cfs_buf *val)
{
	ck_assert_int_eq(
		cfs_levels_put(cfs_store_levels(b->store), cfs_key_slice(key),
			       (struct cfs_slice){val->data, val->len}),
		0);
}

static void put_inode(struct bed *b, uint64_t ino, uint64_t size,
		      const struct cfs_digest *map)
{
	struct cfs_inode_record record = {.ino = ino,
					  .mode = S_IFREG | 0644,
					  .nlink = 1,
					  .size = size,
					  .content = CFS_CONTENT_EXTENTS};
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_key key;

	if (map) {
		record.content = CFS_CONTENT_SEALED;
		record.map = *map;
	}
	cfs_inode_encode(&record, &buf);
	cfs_key_inode(&key, ino);
	put(b, &key, &buf);
}

static void put_extent(struct bed *b, uint64_t ino, const struct cfs_extent *e)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_key key;

	cfs_extent_encode(e, &buf);
	cfs_key_extent(&key, ino, e->off);
	put(b, &key, &buf);
}

/* Level 0, or two of level 0 under one of level 1. */
static struct cfs_digest put_maps(struct bed *b, struct cfs_extent *extents,
				  unsigned n, uint64_t size, bool deep)
{
	struct cfs_content_map map = {
		.size = size, .count = n, .extents = extents};
	struct cfs_map_child children[2];
	struct cfs_digest digest;
	uint64_t half;

	if (!deep || n < 2) {
		ck_assert_int_eq(cfs_store_put_map(b->store, &map, &digest), 0);
		return digest;
	}
	half = extents[n / 2].off;
	map.count = n / 2;
	map.size = half;
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &children[0].digest),
			 0);
	children[0].off = 0;
	children[0].len = half;
	map.extents = extents + n / 2;
	map.count = n - n / 2;
	map.size = size - half;
	for (size_t i = 0; i < map.count; i++)
		map.extents[i].off -= half;
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &children[1].digest),
			 0);
	children[1].off = half;
	children[1].len = size - half;
	map = (struct cfs_content_map){
		.level = 1, .size = size, .count = 2, .children = children};
	ck_assert_int_eq(cfs_store_put_map(b->store, &map, &digest), 0);
	return digest;
}

/* As store/ns does it: what refers is recorded before leaving. */
static void make_file(struct bed *b, uint64_t ino, const struct file *f)
{
	struct cfs_extent e[CHUNKS] = {0};
	struct cfs_digest map;
	uint64_t off = 0;

	cfs_store_enter(b->store);
	for (unsigned i = 0; i < f->n; i++) {
		const size_t len = len_of(f->seeds[i]);

		e[i] = (struct cfs_extent){
			.off = off, .len = len, .chunk_len = (uint32_t)len};
		bed_store_chunk(b, f->seeds[i], len, &e[i].digest);
		off += len;
		if (!f->sealed)
			put_extent(b, ino, &e[i]);
	}
	if (f->sealed) {
		map = put_maps(b, e, f->n, off, ino % 3 == 0);
		put_inode(b, ino, off, &map);
	} else {
		put_inode(b, ino, off, NULL);
	}
	cfs_store_leave(b->store);
}

static void remove_file(struct bed *b, uint64_t ino, const struct file *f)
{
	struct cfs_levels *levels = cfs_store_levels(b->store);
	struct cfs_key key;
	uint64_t off = 0;

	cfs_store_enter(b->store);
	cfs_key_inode(&key, ino);
	ck_assert_int_eq(cfs_levels_del(levels, cfs_key_slice(&key)), 0);
	for (unsigned i = 0; !f->sealed && i < f->n; i++) {
		cfs_key_extent(&key, ino, off);
		ck_assert_int_eq(cfs_levels_del(levels, cfs_key_slice(&key)),
				 0);
		off += len_of(f->seeds[i]);
	}
	cfs_store_leave(b->store);
}

static int check_map(struct bed *b, const struct cfs_digest *digest,
		     const struct file *f, unsigned *at)
{
	struct cfs_content_map map = {0};
	int r = cfs_store_get_map(b->store, digest, &map);

	for (size_t i = 0; r == 0 && i < map.count; i++, *at += !map.level)
		r = map.level ? check_map(b, &map.children[i].digest, f, at)
			      : bed_check_chunk(b, f->seeds[*at],
						len_of(f->seeds[*at]),
						&map.extents[i].digest);
	cfs_content_map_fini(&map);
	return r;
}

static int check_file(struct bed *b, uint64_t ino, const struct file *f)
{
	_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_inode_record record;
	struct cfs_extent e;
	struct cfs_key key;
	uint64_t off = 0;
	unsigned n = 0;
	int r;

	cfs_key_inode(&key, ino);
	r = cfs_levels_get(cfs_store_levels(b->store), cfs_key_slice(&key),
			   &buf);
	if (r == 0)
		r = cfs_inode_decode(buf.data, buf.len, &record);
	if (r == 0 && record.content == CFS_CONTENT_SEALED) {
		r = check_map(b, &record.map, f, &n);
		ck_assert(r < 0 || n == f->n);
		return r;
	}
	for (; r == 0 && n < f->n; n++) {
		cfs_key_extent(&key, ino, off);
		cfs_buf_reset(&buf);
		r = cfs_levels_get(cfs_store_levels(b->store),
				   cfs_key_slice(&key), &buf);
		if (r == 0)
			r = cfs_extent_decode(off, buf.data, buf.len, &e);
		if (r == 0)
			r = bed_check_chunk(b, f->seeds[n], e.len, &e.digest);
		off += len_of(f->seeds[n]);
	}
	return r;
}

static void random_file(struct file *f, uint64_t *state)
{
	f->there = true;
	f->sealed = bed_random(state) % 3;
	f->n = (unsigned)(bed_random(state) % CHUNKS) + 1;
	for (unsigned i = 0; i < f->n; i++)
		f->seeds[i] = bed_random(state) % SEEDS + 1;
}

static void make_files(struct bed *b, struct file *files, uint64_t *state)
{
	for (uint64_t i = 0; i < FILES; i++) {
		random_file(&files[i], state);
		make_file(b, i + 2, &files[i]);
		if (i % 16 == 0)
			ck_assert_int_eq(cfs_store_commit(b->store), 0);
	}
	ck_assert_int_eq(cfs_store_commit(b->store), 0);
}

static void remove_some(struct bed *b, struct file *files, unsigned percent,
			uint64_t *state)
{
	for (uint64_t i = 0; i < FILES; i++) {
		if (!files[i].there || bed_random(state) % 100 >= percent)
			continue;
		remove_file(b, i + 2, &files[i]);
		files[i].there = false;
	}
}

static void all_are_there(struct bed *b, const struct file *files)
{
	for (uint64_t i = 0; i < FILES; i++)
		if (files[i].there)
			ck_assert_int_eq(check_file(b, i + 2, &files[i]), 0);
}

static bool is_used(const struct file *files, uint64_t chunk_seed)
{
	for (size_t i = 0; i < FILES; i++)
		for (unsigned k = 0; files[i].there && k < files[i].n; k++)
			if (files[i].seeds[k] == chunk_seed)
				return true;
	return false;
}

static void gc(struct bed *b, const struct cfs_gc_options *options,
	       struct cfs_gc_result *result)
{
	struct cfs_error err = {""};
	int r = cfs_store_gc(b->store, options, NULL, result, &err);

	ck_assert_msg(r == 0, "gc: %d %s", r, err.text);
}

static struct cfs_digest digest_of(uint64_t chunk_seed, size_t len)
{
	_cleanup_(cfs_freep) void *p = bed_bytes(chunk_seed, len);
	struct cfs_digest digest;

	cfs_digest_of(p, len, &digest);
	return digest;
}

static uint64_t pack_bytes(struct bed *b)
{
	struct cfs_store_facts facts;

	ck_assert_int_eq(cfs_store_facts(b->store, &facts), 0);
	return facts.pack_bytes;
}

START_TEST(needed_stays_dead_goes)
{
	struct file files[FILES];
	struct cfs_gc_result dry, result;
	uint64_t state = seed, before;
	struct bed b;
	unsigned used = 0;

	bed_open(&b, NULL, NULL);
	make_files(&b, files, &state);
	for (unsigned round = 0; round < 4; round++) {
		remove_some(&b, files, 70, &state);
		before = pack_bytes(&b);
		gc(&b, &(struct cfs_gc_options){.dry_run = true}, &dry);
		ck_assert_uint_ge(pack_bytes(&b), before);
		gc(&b, NULL, &result);
		if (result.chunks_dead > 10) {
			ck_assert_uint_lt(pack_bytes(&b), before);
			ck_assert_uint_gt(result.bytes_freed, 0);
		}
		ck_assert_uint_eq(dry.chunks_live, result.chunks_live);
		ck_assert_uint_eq(dry.chunks_dead, result.chunks_dead);
		used = 0;
		for (uint64_t s = 1; s <= SEEDS; s++) {
			struct cfs_digest d = digest_of(s, len_of(s));

			ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d),
					 is_used(files, s) ? 0 : -ENOENT);
			used += is_used(files, s);
		}
		ck_assert_uint_eq(result.chunks_live, used);
		all_are_there(&b, files);
		/* with the index as it is, behind, and without one */
		if (round % 2) {
			struct cfs_engine *disk = bed_disk(&b);
			struct cfs_index *index =
				round > 2 ? NULL : bed_index_copy(b.index);

			ck_assert_int_eq(cfs_store_close(b.store), 0);
			bed_open(&b, disk, index);
			all_are_there(&b, files);
		}
	}
	gc(&b, NULL, &result);
	gc(&b, &(struct cfs_gc_options){.dry_run = true}, &dry);
	ck_assert_uint_eq(dry.chunks_dead, 0);
	remove_some(&b, files, 100, &state);
	gc(&b, NULL, &result);
	ck_assert_uint_eq(result.chunks_live, 0);
	ck_assert_uint_lt(pack_bytes(&b), 100000);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- saves of the same data meanwhile ---- */

struct saver {
	struct bed *b;
	struct file *files;
	uint64_t first, state;
	atomic_bool *stop;
	unsigned saves;
};

static void *save(void *arg)
{
	struct saver *s = arg;

	while (!atomic_load(s->stop)) {
		const uint64_t i =
			s->first + bed_random(&s->state) % (FILES / 3);
		struct file *f = &s->files[i];

		if (f->there) {
			remove_file(s->b, i + 2, f);
			f->there = false;
		} else {
			if (bed_random(&s->state) % 2)
				random_file(f, &s->state);
			f->there = true;
			make_file(s->b, i + 2, f);
			s->saves++;
		}
	}
	return NULL;
}

START_TEST(saves_of_the_same_data)
{
	struct file files[FILES];
	uint64_t state = seed;
	struct saver savers[3];
	pthread_t threads[3];
	atomic_bool stop;
	struct bed b;
	unsigned saves = 0;

	bed_open(&b, NULL, NULL);
	make_files(&b, files, &state);
	for (unsigned round = 0; round < 100; round++) {
		atomic_init(&stop, false);
		for (unsigned i = 0; i < 3; i++) {
			savers[i] = (struct saver){&b,
						   files,
						   i * (FILES / 3),
						   bed_random(&state),
						   &stop,
						   0};
			ck_assert_int_eq(pthread_create(&threads[i], NULL, save,
							&savers[i]),
					 0);
		}
		gc(&b, &(struct cfs_gc_options){.min_dead_percent = 10}, NULL);
		atomic_store(&stop, true);
		for (unsigned i = 0; i < 3; i++) {
			ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
			saves += savers[i].saves;
		}
		all_are_there(&b, files);
	}
	ck_assert_uint_gt(saves, 100);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	gc(&b, NULL, NULL);
	all_are_there(&b, files);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- power cuts ---- */

static void recover_after(struct bed *b, size_t events, uint64_t cut_seed,
			  struct cfs_index *index, const struct file *files)
{
	struct bed after;

	bed_open(&after,
		 cfs_engine_mem_after_power_cut(b->engine, events, cut_seed),
		 index ? bed_index_copy(index) : NULL);
	all_are_there(&after, files);
	/* and it can be collected again */
	gc(&after, &(struct cfs_gc_options){.min_dead_percent = 1}, NULL);
	all_are_there(&after, files);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
}

START_TEST(power_cut_at_every_event)
{
	struct file files[FILES];
	uint64_t state = seed;
	struct cfs_index *before;
	size_t first, last;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_files(&b, files, &state);
	remove_some(&b, files, 80, &state);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	before = bed_index_copy(b.index);
	first = cfs_engine_mem_events(b.engine);
	gc(&b, &(struct cfs_gc_options){.min_dead_percent = 5}, NULL);
	last = cfs_engine_mem_events(b.engine);
	ck_assert_uint_gt(last, first + 10);
	printf("%zu events\n", last - first);
	for (size_t i = first; i <= last; i++) {
		recover_after(&b, i, 0, NULL, files);
		recover_after(&b, i, bed_random(&state), before, files);
		recover_after(&b, i, bed_random(&state), NULL, files);
	}
	/* not sooner: no index has a group before the sync of it */
	recover_after(&b, last, bed_random(&state), b.index, files);
	cfs_index_close(before);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- derived chunks ---- */

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

static void refer(struct bed *b, uint64_t ino, const struct cfs_digest *digest,
		  size_t len)
{
	const struct cfs_extent e = {
		.len = len, .digest = *digest, .chunk_len = (uint32_t)len};

	cfs_store_enter(b->store);
	put_inode(b, ino, len, NULL);
	put_extent(b, ino, &e);
	cfs_store_leave(b->store);
}

static void unrefer(struct bed *b, uint64_t ino)
{
	const struct file one = {.n = 1};

	remove_file(b, ino, &one);
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
	put_extent(t->b, ino, &e);
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

/* ---- a full disk ---- */

START_TEST(a_full_disk)
{
	struct cfs_digest digest;
	struct cfs_gc_result result;
	uint64_t n = 0, again = 0;
	struct bed b;

	bed_open(&b, NULL, NULL);
	cfs_engine_mem_limit(b.engine, 24u << 20);
	while (cfs_store_reserve(b.store, 60000, false) == 0) {
		cfs_store_unreserve(b.store, 60000);
		bed_store_chunk(&b, 1000 + 2 * n, 60000, &digest);
		refer(&b, 100 + n++, &digest, 60000);
		if (n % 16 == 0)
			ck_assert_int_eq(cfs_store_commit(b.store), 0);
	}
	ck_assert_uint_gt(n, 50);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	for (uint64_t i = 0; i < n; i++)
		if (i % 8)
			unrefer(&b, 100 + i);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	gc(&b, NULL, &result);
	ck_assert_uint_gt(result.bytes_freed, 4u << 20);
	for (uint64_t i = 0; i < n; i += 8) {
		digest = digest_of(1000 + 2 * i, 60000);
		ck_assert_int_eq(
			bed_check_chunk(&b, 1000 + 2 * i, 60000, &digest), 0);
	}
	while (again < n / 2 && cfs_store_reserve(b.store, 60000, false) == 0) {
		cfs_store_unreserve(b.store, 60000);
		bed_store_chunk(&b, 9000 + 2 * again++, 60000, &digest);
	}
	ck_assert_uint_eq(again, n / 2);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- memory, stopping, damage ---- */

struct memory {
	struct cfs_digest digest;
};

static int mark_memory(void *arg,
		       int (*fn)(void *fn_arg, bool is_map,
				 const struct cfs_digest *digest),
		       void *fn_arg)
{
	const struct memory *m = arg;

	return fn(fn_arg, false, &m->digest);
}

START_TEST(memory_only)
{
	struct memory m;
	const struct cfs_participant p = {.mark = mark_memory, .arg = &m};
	struct bed b;

	bed_open(&b, NULL, NULL);
	cfs_store_set_participant(b.store, &p);
	bed_store_chunk(&b, 1, 50000, &m.digest);
	gc(&b, NULL, NULL);
	ck_assert_int_eq(bed_check_chunk(&b, 1, 50000, &m.digest), 0);
	cfs_store_set_participant(b.store, NULL);
	gc(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &m.digest), -ENOENT);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static bool stop_after(void *arg, uint64_t done, uint64_t total,
		       const char *what)
{
	unsigned *left = arg;

	(void)done;
	(void)total;
	(void)what;
	return *left && --*left;
}

START_TEST(stopped_early)
{
	struct file files[FILES];
	uint64_t state = seed;
	struct cfs_error err;
	struct bed b;

	bed_open(&b, NULL, NULL);
	make_files(&b, files, &state);
	remove_some(&b, files, 80, &state);
	for (unsigned n = 1; n < 100; n++) {
		unsigned left = n;
		const struct cfs_job_control c = {.progress = stop_after,
						  .arg = &left};
		int r;

		err.text[0] = '\0';
		r = cfs_store_gc(b.store, NULL, &c, NULL, &err);
		all_are_there(&b, files);
		if (r == 0)
			break;
		ck_assert_int_eq(r, -ECANCELED);
		ck_assert(err.text[0]);
		ck_assert_uint_lt(n, 99);
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static void flip(struct bed *b, const struct cfs_object_value *at, bool head)
{
	size_t len;
	uint8_t *p = cfs_engine_mem_bytes(
		b->engine, (struct cfs_pack_id){at->lane, at->pack}, &len);

	ck_assert_ptr_nonnull(p);
	p[head ? at->off - 30 : at->off + at->stored_len - 1] ^= 4;
}

struct findings {
	unsigned n;
	char text[256];
};

static void found(void *arg, const char *text)
{
	struct findings *f = arg;

	f->n++;
	(void)snprintf(f->text, sizeof(f->text), "%s", text);
}

/* A chunk that is needed and damaged: its pack stays for whoever can mend it.
 * A map: nothing is collected, its chunks cannot be told from garbage. */
START_TEST(damage_is_not_swept_away)
{
	struct findings f = {0};
	const struct cfs_job_control c = {.finding = found, .arg = &f};
	struct file one = {.there = true, .sealed = true, .n = 1, .seeds = {3}};
	struct cfs_error err = {""};
	struct cfs_gc_result result;
	struct cfs_chunk_facts facts;
	struct cfs_digest needed, dead;
	struct bed b;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 2, 20000, &needed);
	bed_store_chunk(&b, 4, 150000, &dead);
	refer(&b, 50, &needed, 20000);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &needed, &facts), 0);
	flip(&b, &facts.place, false);
	ck_assert_int_eq(cfs_store_gc(b.store, NULL, &c, &result, &err), 0);
	ck_assert_uint_eq(result.chunks_dead, 1);
	ck_assert_uint_eq(f.n, 1);
	ck_assert_msg(strstr(f.text, "damaged"), "%s", f.text);
	flip(&b, &facts.place, false);
	ck_assert_int_eq(bed_check_chunk(&b, 2, 20000, &needed), 0);
	/* now a map */
	make_file(&b, 60, &one);
	bed_store_chunk(&b, 6, 150000, &dead);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	{
		_cleanup_(cfs_buf_free) struct cfs_buf buf = CFS_BUF_INIT;
		struct cfs_inode_record record;
		struct cfs_object_value at;
		struct cfs_key key;

		cfs_key_inode(&key, 60);
		ck_assert_int_eq(cfs_levels_get(cfs_store_levels(b.store),
						cfs_key_slice(&key), &buf),
				 0);
		ck_assert_int_eq(cfs_inode_decode(buf.data, buf.len, &record),
				 0);
		cfs_key_map(&key, &record.map);
		cfs_buf_reset(&buf);
		ck_assert_int_eq(cfs_levels_get(cfs_store_levels(b.store),
						cfs_key_slice(&key), &buf),
				 0);
		ck_assert_int_eq(cfs_object_decode(buf.data, buf.len, &at), 0);
		flip(&b, &at, false);
		ck_assert_int_eq(cfs_store_gc(b.store, NULL, &c, &result, &err),
				 -EBADMSG);
		ck_assert_msg(strstr(err.text, "nothing is collected"), "%s",
			      err.text);
		ck_assert_int_eq(cfs_store_touch_chunk(b.store, &dead), 0);
		flip(&b, &at, false);
	}
	ck_assert_int_eq(cfs_store_gc(b.store, NULL, &c, &result, &err), 0);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &dead), -ENOENT);
	ck_assert_int_eq(check_file(&b, 60, &one), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("gc");
	TCase *tc = tcase_create("all");

	seed = (unsigned)time(NULL);
	printf("seed %u\n", seed);
	(void)fflush(stdout);
	tcase_add_test(tc, needed_stays_dead_goes);
	tcase_add_test(tc, saves_of_the_same_data);
	tcase_add_test(tc, power_cut_at_every_event);
	tcase_add_test(tc, parts_stay);
	tcase_add_test(tc, derived_without_parts);
	tcase_add_test(tc, deriving_against_gc);
	tcase_add_test(tc, a_full_disk);
	tcase_add_test(tc, memory_only);
	tcase_add_test(tc, stopped_early);
	tcase_add_test(tc, damage_is_not_swept_away);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
