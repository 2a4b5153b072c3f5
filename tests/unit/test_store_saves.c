/* Saves into an open store: deduplicated, pending, committed with others. */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/core_bed.h"

/* ---- dedup ---- */

struct writer {
	struct bed *bed;
	struct cfs_digest digests[40];
};

static void *write_all(void *arg)
{
	struct writer *w = arg;
	struct cfs_pending *p[40];
	unsigned i;

	for (i = 0; i < 40; i++)
		p[i] = bed_ingest(w->bed, i, 20000);
	for (i = 0; i < 40; i++) {
		ck_assert_int_eq(cfs_pending_wait(p[i], &w->digests[i]), 0);
		cfs_pending_unref(p[i]);
	}
	return NULL;
}

START_TEST(equal_chunks_are_written_once)
{
	struct cfs_store_facts f;
	struct writer w[6];
	pthread_t t[6];
	struct bed b;
	unsigned i;

	bed_open(&b, NULL, NULL);
	for (i = 0; i < 6; i++) {
		w[i].bed = &b;
		ck_assert_int_eq(pthread_create(&t[i], NULL, write_all, &w[i]),
				 0);
	}
	for (i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < 40; i++) {
		ck_assert_mem_eq(&w[0].digests[i], &w[5].digests[i], 32);
		ck_assert_int_eq(
			bed_check_chunk(&b, i, 20000, &w[0].digests[i]), 0);
	}
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &f), 0);
	ck_assert_uint_eq(f.chunks, 40);
	ck_assert_uint_eq(f.ingested_bytes, 6 * 40 * 20000);
	ck_assert_uint_eq(f.dedup_bytes, 5 * 40 * 20000);
	/* each record once, whatever the keys say */
	ck_assert_uint_lt(f.appended_bytes, f.stored_bytes + 40 * 72 + 1000);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

START_TEST(pending_bytes_can_be_read)
{
	struct cfs_pending *p;
	struct cfs_digest d;
	uint8_t *want = bed_bytes(9, 200000), is[1000];
	struct bed b;
	int i;

	bed_open(&b, NULL, NULL);
	p = bed_ingest(&b, 9, 200000);
	for (i = 0; i < 2; i++) {
		ck_assert_int_eq(
			cfs_pending_read(b.store, p, 150000, is, sizeof(is)),
			0);
		ck_assert_mem_eq(is, want + 150000, sizeof(is));
		ck_assert_int_eq(
			cfs_pending_read(b.store, p, 199001, is, sizeof(is)),
			-EINVAL);
		ck_assert_int_eq(cfs_pending_wait(p, &d), 0);
		ck_assert_int_eq(cfs_pending_poll(p, &d), 1);
	}
	cfs_pending_unref(p);
	free(want);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- commits ---- */

struct part {
	atomic_uint cuts, dones;
	bool all;      /* of the last cut */
	unsigned fail; /* resolve fails this often */
	int last;
	bool dirty;
};

static int part_cut(void *arg, bool all, void **state_out)
{
	struct part *p = arg;

	p->cuts++;
	p->all = all;
	*state_out = p->dirty ? p : NULL;
	return 0;
}

static int part_resolve(void *arg, void *state, struct cfs_levels *levels)
{
	struct part *p = arg;
	struct cfs_key key;

	ck_assert_ptr_eq(state, p);
	if (p->fail) {
		p->fail--;
		return -EDQUOT;
	}
	cfs_key_setting(&key, "resolved");
	return cfs_levels_put_frozen(levels, cfs_key_slice(&key),
				     (struct cfs_slice){"yes", 3});
}

static void part_done(void *arg, void *state, int r)
{
	struct part *p = arg;

	ck_assert_ptr_eq(state, p);
	p->dones++;
	p->last = r;
	if (r == 0)
		p->dirty = false;
}

START_TEST(participants_take_part)
{
	struct part part = {.fail = 1, .dirty = true};
	const struct cfs_participant participant = {
		.cut = part_cut,
		.resolve = part_resolve,
		.done = part_done,
		.arg = &part,
	};
	struct bed b, again;

	bed_open(&b, NULL, NULL);
	cfs_store_set_participant(b.store, &participant);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), -EDQUOT);
	ck_assert_int_eq(part.last, -EDQUOT);
	ck_assert_uint_eq(cfs_store_group(b.store), 0);
	ck_assert_str_eq(bed_get(&b, "a"), "1");
	bed_set(&b, "b", "2");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_uint_eq(cfs_store_group(b.store), 1);
	ck_assert_uint_eq(part.dones, 2);
	/* nothing new: nothing written */
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_uint_eq(cfs_store_group(b.store), 1);
	ck_assert_uint_eq(part.cuts, 3);
	ck_assert(part.all);
	/* the clock may do with less */
	ck_assert_int_eq(cfs_store_tick(b.store), 0);
	ck_assert_uint_eq(part.cuts, 4);
	ck_assert(!part.all);
	bed_open(&again, bed_disk(&b), NULL);
	ck_assert(cfs_store_was_unclean(again.store));
	ck_assert_str_eq(bed_get(&again, "a"), "1");
	ck_assert_str_eq(bed_get(&again, "b"), "2");
	ck_assert_str_eq(bed_get(&again, "resolved"), "yes");
	ck_assert_int_eq(cfs_store_close(again.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

struct syncer {
	struct bed *bed;
	unsigned number;
};

static void *sync_often(void *arg)
{
	struct syncer *s = arg;
	char name[32];
	int i;

	for (i = 0; i < 50; i++) {
		(void)snprintf(name, sizeof(name), "%u/%d", s->number, i);
		bed_set(s->bed, name, "x");
		ck_assert_int_eq(cfs_store_commit(s->bed->store), 0);
	}
	return NULL;
}

START_TEST(syncs_share_groups)
{
	struct syncer s[8];
	pthread_t t[8];
	struct bed b, again;
	char name[32];
	unsigned i, n;

	bed_open(&b, NULL, NULL);
	for (i = 0; i < 8; i++) {
		s[i] = (struct syncer){&b, i};
		ck_assert_int_eq(pthread_create(&t[i], NULL, sync_often, &s[i]),
				 0);
	}
	for (i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_le(cfs_store_group(b.store), 400);
	bed_open(&again, bed_disk(&b), NULL);
	for (i = 0; i < 8; i++)
		for (n = 0; n < 50; n++) {
			(void)snprintf(name, sizeof(name), "%u/%u", i, n);
			ck_assert_str_eq(bed_get(&again, name), "x");
		}
	ck_assert_int_eq(cfs_store_close(again.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("store_saves");
	TCase *t = tcase_create("store_saves");

	tcase_add_test(t, equal_chunks_are_written_once);
	tcase_add_test(t, pending_bytes_can_be_read);
	tcase_add_test(t, participants_take_part);
	tcase_add_test(t, syncs_share_groups);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
