/* Collecting garbage: what is needed stays, the rest goes. */
#include "tests/unit/gc_bed.h"

static bool is_used(const struct file *files, uint64_t chunk_seed)
{
	for (size_t i = 0; i < FILES; i++)
		for (unsigned k = 0; files[i].there && k < files[i].n; k++)
			if (files[i].seeds[k] == chunk_seed)
				return true;
	return false;
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
	uint64_t state = gc_seed, before;
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
	uint64_t state = gc_seed;
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
	TCase *t = tcase_create("gc");

	gc_seed_new();
	tcase_add_test(t, needed_stays_dead_goes);
	tcase_add_test(t, a_full_disk);
	tcase_add_test(t, memory_only);
	tcase_add_test(t, stopped_early);
	tcase_add_test(t, damage_is_not_swept_away);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
