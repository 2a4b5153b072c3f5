/* The open store: objects, commits, sharing, the lock, damage. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/core/store_internal.h"
#include "store/map/dtype.h"
#include "tests/unit/core_bed.h"

/* ---- a directory of its own ---- */

static char dir[64], store_dir[80];

static void make_dir(void)
{
	strcpy(dir, "/tmp/cfs_store_XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	(void)snprintf(store_dir, sizeof(store_dir), "%s/s", dir);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_dir(void)
{
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void replace_in_config(const char *from, const char *to)
{
	char path[128], text[4096], out[4200], *at;
	size_t len;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/ckptfs.json", store_dir);
	f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	len = fread(text, 1, sizeof(text) - 1, f);
	text[len] = '\0';
	(void)fclose(f);
	at = strstr(text, from);
	ck_assert_ptr_nonnull(at);
	(void)snprintf(out, sizeof(out), "%.*s%s%s", (int)(at - text), text, to,
		       at + strlen(from));
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(out, 1, strlen(out), f), strlen(out));
	ck_assert_int_eq(fclose(f), 0);
}

START_TEST(keeps_what_was_stored)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	int i;

	ck_assert_int_eq(cfs_store_probe(store_dir), 0);
	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), -EEXIST);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	for (i = 0; i < 3; i++) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		ck_assert(!cfs_store_was_unclean(b.store));
		ck_assert_uint_eq(cfs_store_config(b.store)->sync_seconds, 5);
		ck_assert_uint_gt(cfs_store_config(b.store)->n_markers, 5);
		ck_assert_str_eq(bed_get(&b, "a"), i ? "1" : "");
		if (i == 0) {
			bed_store_chunk(&b, 1, 300000, &d);
			bed_set(&b, "a", "1");
		}
		ck_assert_int_eq(bed_check_chunk(&b, 1, 300000, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
	}
}
END_TEST

/* Opening only to look must not write. */
START_TEST(looking_writes_nothing)
{
	struct cfs_store_facts before, after;
	struct cfs_error err = {""};
	struct bed b = {0};

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	bed_set(&b, "a", "1");
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &before), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
	ck_assert_int_eq(
		cfs_store_open(store_dir, &bed_options, &b.store, &err), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &after), 0);
	ck_assert_uint_eq(before.packs, after.packs);
	ck_assert_uint_eq(before.groups, after.groups);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static uint64_t room_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* A killed process leaves room set aside: the next one gives it back. */
START_TEST(room_of_the_killed)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	char path[128];
	int status;
	pid_t pid;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (cfs_store_open(store_dir, &bed_options, &b.store, &err) < 0)
			_exit(1);
		bed_store_chunk(&b, 4, 10000, &d);
		_exit(cfs_store_commit(b.store) < 0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	(void)snprintf(path, sizeof(path), "%s/packs/0000/00000001.pack",
		       store_dir);
	/* else this filesystem sets nothing aside */
	if (room_of(path) >= bed_options.pack_bytes) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		bed_store_chunk(&b, 6, 10000, &d);
		ck_assert_uint_lt(room_of(path), bed_options.pack_bytes / 4);
		ck_assert_int_eq(bed_check_chunk(&b, 6, 10000, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
	}
}
END_TEST

START_TEST(two_opens_are_refused)
{
	struct cfs_store *one = NULL, *two = NULL;
	struct cfs_error err = {""};
	char pid[64], path[128];

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &one, &err),
			 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	(void)snprintf(pid, sizeof(pid), "in use by process %ld",
		       (long)getpid());
	ck_assert_msg(strstr(err.text, pid), "%s", err.text);
	ck_assert_int_eq(cfs_store_set_mount(one, "/mnt/here"), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	ck_assert_msg(strstr(err.text, "(mounted at /mnt/here)"), "%s",
		      err.text);
	/* deleting the file does not let a second one in */
	(void)snprintf(path, sizeof(path), "%s/lock", store_dir);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 -EBUSY);
	ck_assert_int_eq(cfs_store_close(one), 0);
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &two, &err),
			 0);
	ck_assert_int_eq(cfs_store_close(two), 0);
}
END_TEST

START_TEST(newer_stores_are_refused)
{
	struct cfs_error err = {""};
	struct cfs_store *s = NULL;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	replace_in_config("[]", "[\"warp\"]");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err),
			 -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.text, "warp"), "%s", err.text);
	replace_in_config("[\"warp\"]", "[]");
	replace_in_config("\"version\":\t1", "\"version\":\t2");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err),
			 -EPROTONOSUPPORT);
	ck_assert_msg(strstr(err.text, "version 2"), "%s", err.text);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	replace_in_config("\"version\":\t2", "\"version\":\t1, \"new\": [3]");
	ck_assert_int_eq(cfs_store_open(store_dir, &bed_options, &s, &err), 0);
	ck_assert_int_eq(cfs_store_close(s), 0);
}
END_TEST

/* Not "no store": whoever said that would show or overwrite its packs. */
START_TEST(a_damaged_config_is_named)
{
	static const char *const damages[][2] = {
		{"\"format\"", "\"fornat\""},
		{"ckptfs store", "ckptfs stare"},
		{"\"version\":\t1", "\"version\":\t0"},
		{"\"uuid\":\t\"", "\"uuid\":\t\"x"},
		{"{", "("},
	};
	struct cfs_store *s = NULL;
	struct cfs_error err = {""};
	char path[128];

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(damages); i++) {
		replace_in_config(damages[i][0], damages[i][1]);
		ck_assert_int_eq(cfs_store_probe(store_dir), 1);
		err.text[0] = '\0';
		ck_assert_int_eq(
			cfs_store_open(store_dir, &bed_options, &s, &err),
			-EBADMSG);
		ck_assert_msg(strstr(err.text, store_dir) &&
				      strstr(err.text, "ckptfs.json") &&
				      strstr(err.text, "put it back"),
			      "%s", err.text);
		ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err),
				 -EEXIST);
		replace_in_config(damages[i][1], damages[i][0]);
	}
	(void)snprintf(path, sizeof(path), "%s/ckptfs.json", store_dir);
	ck_assert_int_eq(truncate(path, 0), 0);
	ck_assert_int_eq(cfs_store_probe(store_dir), 1);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(cfs_store_probe(store_dir), 0);
}
END_TEST

/* Who may not look is told so; a directory that only lets through is passed. */
START_TEST(what_may_not_be_read_is_told)
{
	struct cfs_error err = {""};
	pid_t pid;
	int st;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	ck_assert_int_eq(chmod(dir, 0711), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		if (!geteuid() && seteuid(65534) < 0)
			_exit(1);
		if (cfs_store_probe(dir) != 0)
			_exit(2);
		_exit(cfs_store_probe(store_dir) == (getuid() ? 1 : -EACCES)
			      ? 0
			      : 3);
	}
	ck_assert_int_eq(waitpid(pid, &st, 0), pid);
	ck_assert_int_eq(st, 0);
}
END_TEST

START_TEST(a_deleted_or_damaged_index_is_rebuilt)
{
	struct cfs_error err = {""};
	struct bed b = {0};
	struct cfs_digest d;
	char path[128];
	FILE *f;
	int i;

	ck_assert_int_eq(cfs_store_init(store_dir, NULL, &err), 0);
	for (i = 0; i < 3; i++) {
		ck_assert_msg(cfs_store_open(store_dir, &bed_options, &b.store,
					     &err) == 0,
			      "%s", err.text);
		if (i == 0) {
			bed_set(&b, "a", "1");
			bed_store_chunk(&b, 4, 99999, &d);
		}
		ck_assert_str_eq(bed_get(&b, "a"), "1");
		ck_assert_int_eq(bed_check_chunk(&b, 4, 99999, &d), 0);
		ck_assert_int_eq(cfs_store_close(b.store), 0);
		if (i == 0) {
			(void)snprintf(path, sizeof(path), "%s/index",
				       store_dir);
			ck_assert_int_eq(nftw(path, remove_one, 16,
					      FTW_DEPTH | FTW_PHYS),
					 0);
		} else if (i == 1) {
			(void)snprintf(path, sizeof(path), "%s/index/CURRENT",
				       store_dir);
			f = fopen(path, "w");
			ck_assert_ptr_nonnull(f);
			(void)fputs("nonsense\n", f);
			ck_assert_int_eq(fclose(f), 0);
		}
	}
}
END_TEST

/* ---- objects ---- */

START_TEST(reads_any_part)
{
	static const size_t sizes[] = {1,	4096,	  131072,
				       131073,	1u << 20, (1u << 20) + 5,
				       3000000, 4u << 20};
	uint64_t state = 42;
	uint8_t *is = malloc(4u << 20);
	struct bed b;
	size_t i, n;

	bed_open(&b, NULL, NULL);
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		uint8_t *want = bed_bytes(i, sizes[i]);
		struct cfs_digest d;

		bed_store_chunk(&b, i, sizes[i], &d);
		ck_assert_int_eq(bed_check_chunk(&b, i, sizes[i], &d), 0);
		for (n = 0; n < 60; n++) {
			size_t off = bed_random(&state) % sizes[i];
			size_t len = bed_random(&state) % (sizes[i] - off + 1);

			if (n & 1)
				len = CFS_MIN(len, (size_t)5000);
			ck_assert_int_eq(cfs_store_read_chunk(b.store, &d,
							      (uint32_t)off, is,
							      len),
					 0);
			ck_assert_mem_eq(is, want + off, len);
		}
		ck_assert_int_eq(
			cfs_store_read_chunk(b.store, &d, 1, is, sizes[i]),
			-EINVAL);
		free(want);
	}
	free(is);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

struct reader {
	struct bed *bed;
	const struct cfs_digest *digest;
	const uint8_t *want;
	uint64_t state;
};

static void *read_around(void *arg)
{
	struct reader *rd = arg;
	uint8_t *is = malloc(70000);
	int i;

	ck_assert_ptr_nonnull(is);
	for (i = 0; i < 300; i++) {
		uint32_t off = (uint32_t)(bed_random(&rd->state) % 2000000);
		size_t len = bed_random(&rd->state) % 70000;

		if (i % 50 == 7)
			len = 0;
		ck_assert_int_eq(cfs_store_read_chunk(rd->bed->store,
						      rd->digest, off, is, len),
				 0);
		ck_assert_mem_eq(is, rd->want + off, len);
	}
	free(is);
	return NULL;
}

/* Many at the same frames, in a cache that holds few of them. */
START_TEST(readers_meet)
{
	uint8_t *want = bed_bytes(77, 2100000);
	struct cfs_store_facts f;
	struct reader rd[6];
	struct cfs_digest d;
	pthread_t t[6];
	struct bed b;
	unsigned i;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 77, 2100000, &d);
	for (i = 0; i < 6; i++) {
		rd[i] = (struct reader){&b, &d, want, 5};
		ck_assert_int_eq(
			pthread_create(&t[i], NULL, read_around, &rd[i]), 0);
	}
	for (i = 0; i < 6; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(cfs_store_facts(b.store, &f), 0);
	ck_assert_uint_gt(f.cache_hits, 0);
	free(want);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

START_TEST(absent_objects)
{
	struct cfs_content_map map;
	struct cfs_digest d = {{7}};
	struct bed b;
	char c;

	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_read_chunk(b.store, &d, 0, &c, 1), -ENOENT);
	ck_assert_int_eq(cfs_store_get_map(b.store, &d, &map), -ENOENT);
	ck_assert_int_eq(cfs_store_touch_map(b.store, &d), -ENOENT);
	ck_assert_int_eq(cfs_store_touch_chunk(b.store, &d), -ENOENT);
	cfs_store_advise_chunk(b.store, &d);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

START_TEST(maps_are_kept_once)
{
	struct cfs_extent e = {.len = 100, .chunk_len = 100};
	struct cfs_content_map map = {.size = 100, .count = 1, .extents = &e};
	struct cfs_content_map got = {0};
	struct cfs_store_facts one, two;
	struct cfs_digest d, again;
	struct bed b;

	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &d), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &one), 0);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &again), 0);
	ck_assert_int_eq(cfs_store_facts(b.store, &two), 0);
	ck_assert_mem_eq(&d, &again, sizeof(d));
	ck_assert_uint_eq(one.appended_bytes, two.appended_bytes);
	ck_assert_int_eq(cfs_store_get_map(b.store, &d, &got), 0);
	ck_assert_uint_eq(got.count, 1);
	ck_assert_uint_eq(got.extents[0].len, 100);
	cfs_content_map_fini(&got);
	ck_assert_int_eq(cfs_store_touch_map(b.store, &d), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Every byte of a record: the right bytes or -EBADMSG, never others. */
START_TEST(damage_is_never_served)
{
	const size_t len = 3000;
	struct cfs_chunk_facts f;
	struct cfs_digest d;
	uint8_t *bytes, *want = bed_bytes(3, len), is[3000];
	struct bed b;
	size_t i, n, served = 0;
	int r;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 3, len, &d);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, f.place.pack}, &n);
	ck_assert_ptr_nonnull(bytes);
	for (i = f.place.off - 72; i < f.place.off + f.place.stored_len; i++) {
		struct bed other;
		struct cfs_index *index = bed_index_copy(b.index);

		bytes[i] ^= 1;
		/* a store that has nothing of it cached */
		bed_open(&other, bed_disk(&b), index);
		bytes[i] ^= 1;
		uint8_t *copy = cfs_engine_mem_bytes(
			other.engine, (struct cfs_pack_id){0, f.place.pack},
			&n);

		copy[i] ^= 1;
		r = cfs_store_read_chunk(other.store, &d, 0, is, len);
		if (r == 0) {
			ck_assert_mem_eq(is, want, len);
			served++;
		} else {
			ck_assert_int_eq(r, -EBADMSG);
		}
		(void)cfs_store_close(other.store);
	}
	/* bytes that nothing is decided by: not those of the frames */
	ck_assert_uint_lt(served, 80);
	free(want);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* What was found damaged is stored anew when the same bytes come again. */
START_TEST(saving_again_heals)
{
	const size_t len = 300000;
	struct cfs_scrub_result found;
	struct cfs_chunk_facts f, now;
	struct cfs_content_map map = {.size = 7000, .count = 1}, out = {0};
	struct cfs_extent e = {.len = 7000, .chunk_len = 7000};
	struct cfs_object_value v;
	struct cfs_error err = {""};
	struct cfs_digest d, m, again;
	struct bed b, after;
	uint8_t *bytes;
	size_t n;

	bed_open(&b, NULL, NULL);
	bed_store_chunk(&b, 4, len, &d);
	map.extents = &e;
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &m), 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	bytes = cfs_engine_mem_bytes(b.engine,
				     (struct cfs_pack_id){0, f.place.pack}, &n);
	ck_assert_ptr_nonnull(bytes);
	bytes[f.place.off + f.place.stored_len - 1] ^= 1;
	ck_assert_int_eq(cfs_object_locate(b.store, true, &m, &v), 0);
	bytes = cfs_engine_mem_bytes(b.engine, (struct cfs_pack_id){0, v.pack},
				     &n);
	bytes[v.off + 20] ^= 1;
	if (_i) {
		ck_assert_int_eq(cfs_store_scrub(b.store, NULL, &found, &err),
				 0);
		ck_assert_uint_eq(found.damaged, 2);
	} else {
		ck_assert_int_eq(bed_check_chunk(&b, 4, len, &d), -EBADMSG);
		ck_assert_int_eq(cfs_store_get_map(b.store, &m, &out),
				 -EBADMSG);
	}
	bed_store_chunk(&b, 4, len, &again);
	ck_assert_int_eq(cfs_digest_cmp(&d, &again), 0);
	ck_assert_int_eq(bed_check_chunk(&b, 4, len, &d), 0);
	ck_assert_int_eq(cfs_store_put_map(b.store, &map, &again), 0);
	ck_assert_int_eq(cfs_store_get_map(b.store, &m, &out), 0);
	cfs_content_map_fini(&out);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	/* once is enough */
	bed_store_chunk(&b, 4, len, &again);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &now), 0);
	ck_assert_uint_eq(now.place.off, f.place.off);
	ck_assert_int_eq(cfs_store_scrub(b.store, NULL, &found, &err), 0);
	ck_assert_uint_eq(found.damaged, 0);
	ck_assert_int_eq(cfs_store_commit(b.store), 0);
	/* the younger record counts without the index, too */
	bed_open(&after, bed_disk(&b), NULL);
	ck_assert_int_eq(bed_check_chunk(&after, 4, len, &d), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(after.store, &d, &now), 0);
	ck_assert_uint_eq(now.place.off, f.place.off);
	ck_assert_int_eq(cfs_store_close(after.store), 0);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

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

/* ---- derived chunks ---- */

START_TEST(derived_chunks)
{
	const size_t n = 100000;
	struct cfs_chunk_part part = {.len = 400000};
	struct cfs_chunk_facts f;
	struct cfs_pending *p;
	struct cfs_digest d;
	uint8_t *raw = bed_bytes(12, 4 * n), *cast = malloc(2 * n);
	uint8_t *copy = malloc(2 * n), *is = malloc(2 * n);
	struct bed b;
	int i;

	/* numbers, no NaN */
	for (i = 0; i < (int)n; i++)
		raw[4 * i + 3] &= 0x3f;
	cfs_dtype_cast(CFS_F32, raw, CFS_BF16, cast, n);
	memcpy(copy, cast, 2 * n);
	bed_open(&b, NULL, NULL);
	ck_assert_int_eq(cfs_store_reserve(b.store, 6 * n, false), 0);
	p = cfs_store_ingest(b.store, raw, 4 * n, 4);
	ck_assert_int_eq(cfs_pending_wait(p, &part.digest), 0);
	cfs_pending_unref(p);
	p = cfs_store_ingest(b.store, copy, 2 * n, 2);
	ck_assert_int_eq(cfs_pending_wait(p, &d), 0);
	cfs_pending_unref(p);
	part.off = 4;
	part.len -= 4;
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_BF16, &part, 1),
		-EINVAL);
	part.off = 0;
	part.len += 4;
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_F16, &part, 1),
		-EILSEQ);
	ck_assert_int_eq(
		cfs_store_derive(b.store, &d, CFS_F32, CFS_BF16, &part, 1), 0);
	ck_assert_int_eq(cfs_store_chunk_facts(b.store, &d, &f), 0);
	ck_assert_uint_eq(f.codec, CFS_CODEC_DERIVED);
	ck_assert_uint_lt(f.stored_len, 1000);
	for (i = 0; i < 50; i++) {
		uint32_t off = (uint32_t)(i * 3777);
		size_t len = CFS_MIN((size_t)(i * 4001), 2 * n - off);

		ck_assert_int_eq(
			cfs_store_read_chunk(b.store, &d, off, is, len), 0);
		ck_assert_mem_eq(is, cast + off, len);
	}
	free(cast);
	free(is);
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
	Suite *s = suite_create("store");
	TCase *disk = tcase_create("directory");
	TCase *mem = tcase_create("memory");

	tcase_add_checked_fixture(disk, make_dir, remove_dir);
	tcase_add_test(disk, keeps_what_was_stored);
	tcase_add_test(disk, looking_writes_nothing);
	tcase_add_test(disk, room_of_the_killed);
	tcase_add_test(disk, two_opens_are_refused);
	tcase_add_test(disk, newer_stores_are_refused);
	tcase_add_test(disk, a_damaged_config_is_named);
	tcase_add_test(disk, what_may_not_be_read_is_told);
	tcase_add_test(disk, a_deleted_or_damaged_index_is_rebuilt);
	suite_add_tcase(s, disk);
	tcase_add_test(mem, reads_any_part);
	tcase_add_test(mem, readers_meet);
	tcase_add_test(mem, absent_objects);
	tcase_add_test(mem, maps_are_kept_once);
	tcase_add_test(mem, damage_is_never_served);
	tcase_add_loop_test(mem, saving_again_heals, 0, 2);
	tcase_add_test(mem, equal_chunks_are_written_once);
	tcase_add_test(mem, pending_bytes_can_be_read);
	tcase_add_test(mem, derived_chunks);
	tcase_add_test(mem, participants_take_part);
	tcase_add_test(mem, syncs_share_groups);
	suite_add_tcase(s, mem);
	return s;
}

TEST_MAIN(suite)
