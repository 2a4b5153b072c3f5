/*
 * A store with an index that is missing, behind, ahead, of another log or
 * without room: the log decides what it holds.
 */
#include "store/util/endian.h"
#include "store/util/log.h"
#include "tests/unit/history_bed.h"

static void reopen_with(struct bed *b, const struct history *h,
			struct cfs_index *index, const char *what)
{
	struct bed after;

	bed_open(&after, bed_disk(b), index);
	check_state(&after, h, h->n, what);
	check_life(&after, what);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
}

static char told[500];

static void hear(enum cfs_log_level level, const char *line)
{
	(void)level;
	(void)snprintf(told, sizeof(told), "%s", line);
}

START_TEST(index_anyhow)
{
	struct cfs_batch batch = CFS_BATCH_INIT;
	struct cfs_applied a = {0};
	struct history h = {0};
	struct cfs_index *index;
	struct cfs_key key;
	struct bed b, other;
	unsigned i;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 31, true);
	reopen_with(&b, &h, NULL, "missing");
	for (i = 0; i < h.n; i++)
		reopen_with(&b, &h, bed_index_copy(h.index[i]), "behind");
	/* ahead: it claims a group that the log does not have */
	index = bed_index_copy(b.index);
	a.group = cfs_store_group(b.store) + 3;
	a.from = cfs_packs_end(b.store->packs);
	cfs_applied_put(&batch, &a);
	cfs_key_setting(&key, "key0");
	cfs_batch_put(&batch, cfs_key_slice(&key), (struct cfs_slice){"?", 1});
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	told[0] = '\0';
	cfs_log_set_sink(hear, CFS_LOG_ERR);
	reopen_with(&b, &h, index, "ahead");
	cfs_log_set_sink(NULL, CFS_LOG_ERR);
	ck_assert_msg(strstr(told, "is not there"), "%s", told);
	/* the same number, but of another store's history */
	cfs_batch_fini(&batch);
	batch = (struct cfs_batch)CFS_BATCH_INIT;
	index = bed_index_copy(b.index);
	a.group = cfs_store_group(b.store);
	cfs_applied_put(&batch, &a);
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "of another log");
	/* a position in a pack that is not there */
	cfs_batch_fini(&batch);
	batch = (struct cfs_batch)CFS_BATCH_INIT;
	index = bed_index_copy(b.index);
	a.from.pack = 99999;
	cfs_applied_put(&batch, &a);
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "of a pack that is gone");
	cfs_batch_fini(&batch);
	/* nonsense */
	index = cfs_index_mem_new();
	cfs_key_applied(&key);
	cfs_batch_put(&batch, cfs_key_slice(&key), (struct cfs_slice){"?", 1});
	ck_assert_int_eq(index->ops->commit(index, &batch), 0);
	reopen_with(&b, &h, index, "nonsense");
	cfs_batch_fini(&batch);
	/* an index of an empty store */
	bed_open(&other, NULL, NULL);
	reopen_with(&b, &h, bed_index_copy(other.index), "empty");
	ck_assert_int_eq(cfs_store_close(other.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Its disk, with a byte changed in the last BATCH record. */
static struct cfs_engine *damaged(const struct bed *b)
{
	struct cfs_engine *disk = bed_disk(b);
	uint32_t pack = cfs_packs_end(b->store->packs).pack;
	uint8_t *bytes, *p, *last = NULL;
	size_t len;

	for (; pack && !last; pack--) {
		bytes = cfs_engine_mem_bytes(
			disk, (struct cfs_pack_id){0, pack}, &len);
		for (p = bytes; p; last = p ? p++ : last)
			p = memmem(p, (size_t)(bytes + len - p), "CFSr\4", 5);
	}
	ck_assert_ptr_nonnull(last);
	last[80] ^= 1;
	return disk;
}

/* One that was just made is met by the next opening, which does not read what
 * lies before: damage there is no matter to it. */
START_TEST(just_made)
{
	struct history h = {0};
	struct cfs_index *index;
	struct cfs_error err = {""};
	struct bed b, after;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 77, false);
	bed_open(&after, bed_disk(&b), NULL);
	index = bed_index_copy(after.index);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	/* without an index it is one */
	ck_assert_int_eq(bed_try_open(&after, damaged(&b), NULL, &err),
			 -EBADMSG);
	ck_assert_msg(strstr(err.text, "is damaged"), "%s", err.text);
	bed_open(&after, damaged(&b), index);
	check_state(&after, &h, h.n, "just made");
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- an index without room ---- */

struct flaky {
	struct cfs_index base;
	struct cfs_index *real;
	unsigned fail; /* so many commits fail */
};

static int flaky_get(struct cfs_index *index, struct cfs_slice key,
		     struct cfs_buf *val_out)
{
	struct flaky *f = container_of(index, struct flaky, base);

	return f->real->ops->get(f->real, key, val_out);
}

static int flaky_commit(struct cfs_index *index, const struct cfs_batch *batch)
{
	struct flaky *f = container_of(index, struct flaky, base);

	if (f->fail) {
		f->fail--;
		return -ENOSPC;
	}
	return f->real->ops->commit(f->real, batch);
}

static int flaky_iter(struct cfs_index *index, struct cfs_slice prefix,
		      struct cfs_slice from, struct cfs_index_iter **out)
{
	struct flaky *f = container_of(index, struct flaky, base);

	return f->real->ops->iter_new(f->real, prefix, from, out);
}

static void flaky_close(struct cfs_index *index)
{
	struct flaky *f = container_of(index, struct flaky, base);

	cfs_index_close(f->real);
	free(f);
}

static const struct cfs_index_ops flaky_ops = {
	.get = flaky_get,
	.commit = flaky_commit,
	.iter_new = flaky_iter,
	.close = flaky_close,
};

/* The log has the group, so it is acknowledged; the index gets it later. */
START_TEST(an_index_without_room)
{
	struct flaky *f = calloc(1, sizeof(*f));
	struct cfs_digest d;
	struct bed b, after;
	int i;

	ck_assert_ptr_nonnull(f);
	f->base.ops = &flaky_ops;
	f->real = cfs_index_mem_new();
	bed_open(&b, NULL, &f->base);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	f->fail = 2;
	bed_set(&b, "a", "2");
	bed_store_chunk(&b, 8, 10000, &d);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "b", "3");
	ck_assert_int_eq(cfs_store_commit(b.store), -ENOSPC);
	for (i = 0; i < 2; i++) {
		bed_open(&after, bed_disk(&b), bed_index_copy(f->real));
		ck_assert_str_eq(bed_get(&after, "a"), "2");
		ck_assert_str_eq(bed_get(&after, "b"), i ? "3" : "");
		ck_assert_int_eq(bed_check_chunk(&after, 8, 10000, &d), 0);
		ck_assert_int_eq(cfs_store_close(after.store), 0);
		ck_assert_str_eq(bed_get(&b, "a"), "2");
		ck_assert_str_eq(bed_get(&b, "b"), "3");
		ck_assert_int_eq(cfs_store_commit(b.store), 0);
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* ---- where index and log do not agree ---- */

/* An index that is behind may name a pack that gc has removed since: such a
 * key is no reason to believe that a chunk is there. */
START_TEST(dedup_looks_at_the_record)
{
	struct cfs_object_value v = {
		.pack = 77, .off = 200, .stored_len = 100, .raw_len = 5000};
	struct cfs_buf buf = CFS_BUF_INIT;
	struct cfs_digest d;
	struct cfs_key key;
	uint8_t *data = bed_bytes(6, 5000);
	struct bed b, after;

	bed_open(&b, NULL, NULL);
	cfs_digest_of(data, 5000, &d);
	free(data);
	cfs_key_chunk(&key, &d);
	cfs_object_encode(&v, &buf);
	ck_assert_int_eq(cfs_levels_put(b.store->levels, cfs_key_slice(&key),
					(struct cfs_slice){buf.data, buf.len}),
			 0);
	cfs_buf_free(&buf);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d), -ENOENT);
	bed_store_chunk(&b, 6, 5000, &d);
	ck_assert_int_eq(bed_check_chunk(&b, 6, 5000, &d), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_int_eq(bed_check_chunk(&after, 6, 5000, &d), 0);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* A GROUP record of a number that is there already replaces it. */
START_TEST(a_group_written_twice)
{
	static const struct cfs_digest none;
	struct cfs_batcher one, two;
	struct cfs_digest digest;
	struct cfs_key key;
	struct cfs_slice val = {"old", 3};
	struct bed b, after;
	int i;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	cfs_key_setting(&key, "a");
	ck_assert_int_eq(cfs_batcher_init(&one, b.store, 0), 0);
	ck_assert_int_eq(cfs_batcher_add(&one, cfs_key_slice(&key), &val), 0);
	ck_assert_int_eq(cfs_batcher_end(&one, &digest), 0);
	/* an attempt that ended before its GROUP record */
	ck_assert_int_eq(cfs_batcher_init(&two, b.store, 0), 0);
	two.batch = (struct cfs_batch)CFS_BATCH_INIT;
	{
		uint8_t lost[8 + 1 + 2 + 1] = {0};

		cfs_put_le64(lost, two.group.number);
		ck_assert_int_eq(cfs_append_record(b.store, CFS_RECORD_BATCH,
						   0x80, &none, 0, lost,
						   sizeof(lost), false, NULL,
						   NULL),
				 0);
	}
	val = (struct cfs_slice){"new", 3};
	ck_assert_int_eq(cfs_batcher_add(&two, cfs_key_slice(&key), &val), 0);
	ck_assert_int_eq(cfs_batcher_end(&two, &digest), 0);
	ck_assert_int_eq(cfs_packs_sync(b.store->packs), 0);
	for (i = 0; i < 2; i++) {
		bed_open(&after, bed_disk(&b),
			 i ? bed_index_copy(b.index) : NULL);
		ck_assert_str_eq(bed_get(&after, "a"), "new");
		ck_assert_uint_eq(cfs_store_group(after.store), 2);
		check_life(&after, "twice");
		ck_assert_int_eq(cfs_store_close(after.store), 0);
	}
	cfs_batcher_fini(&one);
	cfs_batcher_fini(&two);
	(void)cfs_store_close(b.store);
}
END_TEST

/* The index stopped at a snapshot's group, and is lost later on: the snapshot
 * that packs name since must be that one's, not what came before it. */
START_TEST(an_index_that_stopped_at_a_snapshot)
{
	struct cfs_position at, named;
	struct cfs_index *index;
	struct bed b, c, after;

	bed_open(&b, NULL, NULL);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	bed_set(&b, "b", "2");
	ck_assert_int_eq(
		cfs_group_commit(b.store, CFS_WISH_GROUP | CFS_WISH_SNAPSHOT),
		0);
	at = b.store->snapshot_at;
	index = bed_index_copy(b.index);
	bed_open(&c, bed_disk(&b), index);
	named = c.store->recovered_snapshot;
	ck_assert_uint_eq(named.pack, at.pack);
	ck_assert_uint_eq(named.off, at.off);
	bed_set(&c, "c", "3");
	ck_assert_int_eq(cfs_store_commit(c.store), 0);
	bed_open(&after, bed_disk(&c), NULL);
	ck_assert_str_eq(bed_get(&after, "a"), "1");
	ck_assert_str_eq(bed_get(&after, "b"), "2");
	ck_assert_str_eq(bed_get(&after, "c"), "3");
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(c.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("recovery_index");
	TCase *t = tcase_create("recovery_index");

	tcase_add_test(t, index_anyhow);
	tcase_add_test(t, just_made);
	tcase_add_test(t, an_index_without_room);
	tcase_add_test(t, dedup_looks_at_the_record);
	tcase_add_test(t, a_group_written_twice);
	tcase_add_test(t, an_index_that_stopped_at_a_snapshot);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
