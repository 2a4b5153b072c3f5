/* The rank client's library, one rank: what is saved is there, what is refused
 * is told, and nothing hangs or is left. */
#include "rank_client/rank_internal.h"
#include "tests/unit/rank_client_bed.h"

static struct daemon d;

static void start(void)
{
	setup();
	daemon_new(&d);
}

static void stop(void)
{
	daemon_stop(&d);
	teardown();
}

/* ---- files and objects ---- */

static const size_t sizes[] = {0,	 1,    4095,	 SLOT - 1, SLOT,
			       SLOT + 1, RING, RING + 7, 3 * RING, 5000};

static void save_file(struct cfs_rank_save *save, const char *name,
		      const uint8_t *data, size_t len, size_t piece)
{
	struct cfs_rank_file *file = NULL;
	size_t at, n;

	ok(cfs_rank_file_begin(save, name, &file));
	for (at = 0; at < len; at += n) {
		n = CFS_MIN(piece, len - at);
		ok(cfs_rank_file_write(file, data + at, n, CFS_RANK_HOST,
				       NULL));
	}
	ok(cfs_rank_file_end(file));
}

START_TEST(test_files)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(1, 4 * RING);
	char name[64];
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "a/f%zu", i);
		save_file(save, name, data + i, sizes[i],
			  i % 2 ? 777 : SIZE_MAX);
	}
	ok(cfs_rank_put_object(save, "rng", data, 3 * SLOT));
	ok(cfs_rank_put_object(save, "none", NULL, 0));
	ck_assert(!is_there(&d, "run/global_step1"));
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "run/global_step1/a/f%zu", i);
		expect_file(&d, name, data + i, sizes[i]);
	}
	expect_file(&d, "run/global_step1/ckptfs/rng", data, 3 * SLOT);
	expect_file(&d, "run/global_step1/ckptfs/none", data, 0);
	cfs_rank_close(rank);
	free(data);
	scrub_clean(&d);
}
END_TEST

/* More files than the ring has slots, a bit of each in turn. */
START_TEST(test_files_at_once)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(2, 24 * 40 * 501);
	struct cfs_rank_file *files[24];
	char name[64];
	size_t i, k;

	for (i = 0; i < 24; i++) {
		snprintf(name, sizeof(name), "f%zu", i);
		ok(cfs_rank_file_begin(save, name, &files[i]));
	}
	for (k = 0; k < 40; k++)
		for (i = 0; i < 24; i++)
			ok(cfs_rank_file_write(files[i],
					       data + (i * 40 + k) * 501, 501,
					       CFS_RANK_HOST, NULL));
	for (i = 0; i < 24; i++)
		ok(cfs_rank_file_end(files[i]));
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	for (i = 0; i < 24; i++) {
		snprintf(name, sizeof(name), "run/global_step1/f%zu", i);
		expect_file(&d, name, data + i * 40 * 501, 40 * 501);
	}
	cfs_rank_close(rank);
	free(data);
}
END_TEST

/* Files that are open have a slot each: all there are. */
START_TEST(test_load_with_files_open)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(9, RING), *got = malloc(RING);
	struct cfs_rank_file *files[RING / SLOT];
	struct cfs_rank_load *load = NULL;
	char name[64];
	size_t i;

	save_file(save, "f", data, RING, SIZE_MAX);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	save = begin(rank, "global_step2", "files");
	for (i = 0; i < CFS_ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof(name), "f%zu", i);
		ok(cfs_rank_file_begin(save, name, &files[i]));
		ok(cfs_rank_file_write(files[i], data + i, 1, CFS_RANK_HOST,
				       NULL));
	}
	ok(cfs_rank_load_open(rank, "global_step1", &load));
	ok(cfs_rank_file_read(load, "f", 0, RING, got, CFS_RANK_HOST, NULL));
	ck_assert(!memcmp(got, data, RING));
	for (i = 0; i < CFS_ARRAY_SIZE(files); i++) {
		ok(cfs_rank_file_write(files[i], data, 3, CFS_RANK_HOST, NULL));
		ok(cfs_rank_file_end(files[i]));
	}
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	memcpy(got, data + 7, 1);
	memcpy(got + 1, data, 3);
	expect_file(&d, "run/global_step2/f7", got, 4);
	cfs_rank_close(rank);
	free(data);
	free(got);
}
END_TEST

/* ---- a device that fails ---- */

static int fake_to_ring(struct cfs_dev *dev, void *ring, const void *data,
			size_t len, void *stream, struct cfs_error *err)
{
	(void)dev, (void)stream, (void)err;
	memcpy(ring, data, len);
	return 0;
}

static int fake_from_ring(struct cfs_dev *dev, void *data, const void *ring,
			  size_t len, void *stream, struct cfs_error *err)
{
	(void)dev, (void)stream, (void)err;
	memcpy(data, ring, len);
	return 0;
}

static int fake_mark(struct cfs_dev *dev, const void *data, void *stream,
		     struct cfs_dev_event **event_out, struct cfs_error *err)
{
	(void)dev, (void)data, (void)stream, (void)event_out;
	return cfs_fail(err, -EIO, "no event today");
}

static int fake_sync_result;

static int fake_sync(struct cfs_dev *dev, const void *data, void *stream,
		     struct cfs_error *err)
{
	(void)dev, (void)data, (void)stream, (void)err;
	return fake_sync_result;
}

static void fake_close(struct cfs_dev *dev)
{
	(void)dev;
}

static const struct cfs_dev_ops fake_ops = {
	.to_ring = fake_to_ring,
	.from_ring = fake_from_ring,
	.mark = fake_mark,
	.sync = fake_sync,
	.close = fake_close,
};

/* Far more failures than there are slots, and then all is well. */
START_TEST(test_device_fails)
{
	struct cfs_dev fake = {&fake_ops};
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(10, RING), *got = malloc(RING);
	struct cfs_rank_load *load = NULL;
	struct cfs_rank_file *file = NULL;
	int i;

	rank->dev[CFS_RANK_HOST + 1] = &fake; /* as if it had been opened */
	fake_sync_result = 0;
	save_file(save, "f", data, RING, SIZE_MAX);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ok(cfs_rank_load_open(rank, "global_step1", &load));
	for (i = 0; i < 30; i++) {
		fails(cfs_rank_file_read(load, "f", 0, RING, got, CFS_RANK_CUDA,
					 NULL),
		      -EIO, "no event today");
		save = begin(rank, "global_step2", "files");
		ok(cfs_rank_file_begin(save, "f", &file));
		fails(cfs_rank_file_write(file, data, RING, CFS_RANK_CUDA,
					  NULL),
		      -EIO, "no event today");
		cfs_rank_abort(save, NULL);
	}
	ok(cfs_rank_file_read(load, "f", 0, RING, got, CFS_RANK_HOST, NULL));
	ck_assert(!memcmp(got, data, RING));
	/* and where nothing tells when copies end, nothing goes on */
	fake_sync_result = -EIO;
	fails(cfs_rank_file_read(load, "f", 0, RING, got, CFS_RANK_CUDA, NULL),
	      -EIO, "");
	fails(cfs_rank_file_read(load, "f", 0, RING, got, CFS_RANK_HOST, NULL),
	      -EIO, "slots that a device may still use");
	cfs_rank_close(rank);
	free(data);
	free(got);
}
END_TEST

/* ---- tensors, there and back ---- */

static int count_tensor(void *arg, const struct cfs_rank_tensor *t)
{
	ck_assert(t->name && t->role && t->dtype);
	++*(int *)arg;
	return 0;
}

static void get_flat(struct cfs_rank_load *load, const char *name, uint64_t all,
		     uint64_t from, uint64_t n, const float *expect)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = name,
				    .role = "weight",
				    .dtype = CFS_RANK_F32,
				    .ndim = 1,
				    .shape = {all},
				    .extent = {all},
				    .flat_start = from,
				    .flat_count = n};
	float *got = calloc(n + 1, sizeof(*got));

	ok(cfs_rank_get(load, &t, got, CFS_RANK_HOST, NULL));
	ck_assert(!memcmp(got, expect, n * sizeof(*got)));
	free(got);
}

#define BIG (3 * RING / 4 + 11) /* elements */

START_TEST(test_tensors)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "safetensors");
	uint8_t *data = random_bytes(3, BIG * 4);
	struct cfs_rank_load *load = NULL;
	uint64_t size = 0;
	size_t len = 0, i;
	void *object = NULL;
	char name[64];
	int n_tensors = 0;

	ok(put_flat(save, "big", "weight", CFS_RANK_F32, BIG, 0, 0, data));
	ok(put_flat(save, "byte", "weight", CFS_RANK_U8, 1, 0, 0, data + 1));
	ok(put_flat(save, "none", "weight", CFS_RANK_F32, 0, 0, 0, NULL));
	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "small.%zu", i);
		ok(put_flat(save, name, "weight", CFS_RANK_F32, 10, 0, 0,
			    data + i));
	}
	ok(cfs_rank_put_object(save, "user", "state", 5));
	ok(cfs_rank_commit(save));
	while (!cfs_rank_test(save))
		usleep(1000);
	ok(cfs_rank_wait(save));
	ok(cfs_rank_load_open(rank, "global_step1", &load));
	ck_assert_str_eq(cfs_rank_load_step(load), "global_step1");
	ok(cfs_rank_get_object(load, "user", &object, &len));
	ck_assert(len == 5 && !memcmp(object, "state", 5));
	free(object);
	ok(cfs_rank_file_size(load, "model.safetensors", &size));
	ck_assert_uint_gt(size, BIG * 4);
	ok(cfs_rank_list(load, count_tensor, &n_tensors));
	ck_assert_int_eq(n_tensors, 103); /* also the empty one */
	get_flat(load, "none", 0, 0, 0, (float *)data);
	get_flat(load, "big", BIG, 0, BIG, (float *)data);
	get_flat(load, "big", BIG, 5, SLOT, (float *)data + 5);
	get_flat(load, "small.7", 10, 3, 4, (float *)(data + 7 + 12));
	cfs_rank_load_close(load);
	fails(cfs_rank_load_open(rank, "global_step9", &load), -ENOENT, "");
	cfs_rank_close(rank);
	free(data);
	scrub_clean(&d);
}
END_TEST

/* Files come back whole, at any offset. */
START_TEST(test_read_files)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(4, 4 * RING), *got = malloc(4 * RING);
	struct cfs_rank_load *load = NULL;

	save_file(save, "f", data, 4 * RING, 99999);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ok(cfs_rank_load_open(rank, "global_step1", &load));
	ok(cfs_rank_file_read(load, "f", 0, 4 * RING, got, CFS_RANK_HOST,
			      NULL));
	ck_assert(!memcmp(got, data, 4 * RING));
	ok(cfs_rank_file_read(load, "f", 12345, SLOT + 3, got, CFS_RANK_HOST,
			      NULL));
	ck_assert(!memcmp(got, data + 12345, SLOT + 3));
	ok(cfs_rank_file_read(load, "f", 4 * RING, 0, got, CFS_RANK_HOST,
			      NULL));
	fails(cfs_rank_file_read(load, "f", 4 * RING - 1, 2, got, CFS_RANK_HOST,
				 NULL),
	      -EINVAL, "f: 2 bytes");
	fails(cfs_rank_file_read(load, "g", 0, 1, got, CFS_RANK_HOST, NULL),
	      -ENOENT, "g");
	cfs_rank_close(rank); /* with the load open */
	free(data);
	free(got);
}
END_TEST

/* ---- a client that changes what it puts ---- */

static atomic_bool scribbling;

static void *scribble(void *arg)
{
	uint64_t *data = arg, i = 0;

	while (atomic_load(&scribbling)) {
		i = (i + 4099) % (RING / 8);
		((volatile uint64_t *)data)[i] += i;
	}
	return NULL;
}

START_TEST(test_scribble)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(5, RING);
	pthread_t thread;
	uint8_t *ring = NULL;
	char line[512];
	unsigned long from;
	FILE *maps = fopen("/proc/self/maps", "re");
	int i;

	/* not only its own memory: the ring, while the daemon reads it */
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "memfd:ckptfs-rank") &&
		    sscanf(line, "%lx", &from) == 1 && !ring)
			ring = (uint8_t *)from;
	fclose(maps);
	ck_assert_ptr_nonnull(ring);
	atomic_store(&scribbling, true);
	ck_assert_int_eq(pthread_create(&thread, NULL, scribble, ring), 0);
	for (i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		save_file(save, name, data, RING, SIZE_MAX);
	}
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	atomic_store(&scribbling, false);
	pthread_join(thread, NULL);
	cfs_rank_close(rank);
	free(data);
	scrub_clean(&d);
}
END_TEST

/* ---- refusals ---- */

#define OBJECT_MAX ((size_t)64 << 20)

START_TEST(test_refusals)
{
	struct cfs_rank_save_options o = {.size = sizeof(o), .format = "files"};
	struct cfs_rank_options open = {.size = sizeof(open)};
	void *large = calloc(1, OBJECT_MAX + 1);
	struct cfs_rank *rank = open_alone(&d), *other = NULL;
	struct cfs_rank_save *save = NULL, *second = NULL;

	fails(cfs_rank_open(top, NULL, &other), -EINVAL, "neither a ckptfs");
	fails(cfs_rank_open("/nowhere/at/all", NULL, &other), -ENOENT,
	      "/nowhere/at/all");
	open.ring_bytes = 1ull << 39;
	fails(cfs_rank_open(d.run, &open, &other), -EINVAL, "64 GiB");
	o.format = "nonsense";
	fails(cfs_rank_save_begin(rank, "global_step1", &o, &save), -EINVAL,
	      "nonsense");
	o.format = "files";
	fails(cfs_rank_save_begin(rank, "a/b", &o, &save), -EINVAL, "step");
	ok(cfs_rank_save_begin(rank, "global_step1", &o, &save));
	fails(cfs_rank_save_begin(rank, "global_step2", &o, &second), -EBUSY,
	      "abort");
	/* one bad put, and nothing of it is there */
	fails(put_flat(save, "w", "weight", 99, 4, 0, 0, "x"), -EINVAL,
	      "tensor w");
	fails(put_flat(save, "v", "weight", CFS_RANK_U8, 1, 0, 0, "x"), -EINVAL,
	      "tensor w");
	ok(cfs_rank_commit(save));
	fails(cfs_rank_wait(save), -EINVAL, "rank 0: tensor w");
	ck_assert(!is_there(&d, "run/global_step1"));
	/* a file that nobody ended */
	ok(cfs_rank_save_begin(rank, "global_step1", &o, &save));
	{
		struct cfs_rank_file *file = NULL;

		ok(cfs_rank_file_begin(save, "open", &file));
		ok(cfs_rank_commit(save));
		fails(cfs_rank_wait(save), -EINVAL, "open");
	}
	/* an object as large as one may be, and one that is not */
	ok(cfs_rank_save_begin(rank, "global_step1", &o, &save));
	ok(cfs_rank_put_object(save, "large", large, OBJECT_MAX));
	ok(cfs_rank_wait_copied(save));
	(void)!cfs_rank_put_object(save, "larger", large, OBJECT_MAX + 1);
	ok(cfs_rank_commit(save));
	fails(cfs_rank_wait(save), -EFBIG, "object larger: more than 64 MiB");
	free(large);
	/* device memory without a device */
	ok(cfs_rank_save_begin(rank, "global_step1", &o, &save));
	{
		struct cfs_rank_tensor t = {.size = sizeof(t),
					    .name = "t",
					    .role = "weight",
					    .dtype = CFS_RANK_U8};
		int r = cfs_rank_put(save, &t, "x", CFS_RANK_CUDA, NULL);

		/* where there is one, that is no memory of its */
		ck_assert_msg(r == -ENODEV || r == -EINVAL, "%d %s", r,
			      cfs_rank_error());
	}
	cfs_rank_abort(save, "enough");
	/* and after all that it works */
	save = begin(rank, "global_step1", "files");
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ck_assert(is_there(&d, "run/global_step1"));
	cfs_rank_close(rank);
}
END_TEST

START_TEST(test_replace)
{
	struct cfs_rank_save_options o = {.size = sizeof(o), .format = "files"};
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");

	save_file(save, "f", (const uint8_t *)"old", 3, 3);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ck_assert_int_eq(cfs_rank_save_begin(rank, "global_step1", &o, &save),
			 -EEXIST);
	o.replace = 1;
	ok(cfs_rank_save_begin(rank, "global_step1", &o, &save));
	save_file(save, "f", (const uint8_t *)"newer", 5, 3);
	expect_file(&d, "run/global_step1/f", "old", 3);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	expect_file(&d, "run/global_step1/f", "newer", 5);
	cfs_rank_close(rank);
}
END_TEST

/* ---- ends ---- */

START_TEST(test_daemon_ends)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(6, RING);
	struct cfs_rank_file *file = NULL;
	int r = 0, i;

	ok(cfs_rank_file_begin(save, "f", &file));
	ok(cfs_rank_file_write(file, data, RING, CFS_RANK_HOST, NULL));
	daemon_stop(&d);
	/* the ring is soon full, and nobody empties it */
	for (i = 0; !r && i < 100; i++)
		r = cfs_rank_file_write(file, data, RING, CFS_RANK_HOST, NULL);
	ck_assert_int_eq(r, -EPIPE);
	ck_assert_msg(strstr(cfs_rank_error(), d.path) &&
			      strstr(cfs_rank_error(), "mount it again"),
		      "%s", cfs_rank_error());
	fails(cfs_rank_commit(save), -EPIPE, "mount it again");
	fails(cfs_rank_wait(save), -EPIPE, "mount it again");
	cfs_rank_close(rank);
	rank = NULL;
	fails(cfs_rank_open(d.run, NULL, &rank), -ENOTCONN, "no daemon");
	daemon_start(&d);
	ck_assert(!is_there(&d, "run/global_step1"));
	rank = open_alone(&d);
	save = begin(rank, "global_step1", "files");
	save_file(save, "f", data, RING, SIZE_MAX);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	expect_file(&d, "run/global_step1/f", data, RING);
	cfs_rank_close(rank);
	free(data);
}
END_TEST

START_TEST(test_abort)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	uint8_t *data = random_bytes(7, RING);

	save_file(save, "f", data, RING, SIZE_MAX);
	cfs_rank_abort(save, "no");
	cfs_rank_abort(NULL, NULL);
	ck_assert(!is_there(&d, "run/global_step1"));
	save = begin(rank, "global_step2", "files");
	save_file(save, "f", data, RING, SIZE_MAX);
	cfs_rank_close(rank); /* aborts */
	rank = open_alone(&d);
	ck_assert(!is_there(&d, "run/global_step2"));
	cfs_rank_close(rank);
	cfs_rank_close(NULL);
	free(data);
}
END_TEST

/* A child has no part in it, and does not end it either. */
START_TEST(test_fork)
{
	struct cfs_rank *rank = open_alone(&d);
	struct cfs_rank_save *save = begin(rank, "global_step1", "files");
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int r = cfs_rank_put_object(save, "x", "y", 1);

		cfs_rank_abort(save, "from the child");
		cfs_rank_close(rank);
		_exit(r == -EPERM ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && !WEXITSTATUS(status));
	ok(cfs_rank_put_object(save, "x", "y", 1));
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	cfs_rank_close(rank);
	expect_file(&d, "run/global_step1/ckptfs/x", "y", 1);
}
END_TEST

static void count_progress(void *arg, const struct cfs_rank_progress *p)
{
	struct cfs_rank_progress *last = arg;

	ck_assert_uint_le(p->done_bytes, p->total_bytes);
	*last = *p;
}

START_TEST(test_progress)
{
	struct cfs_rank_progress last = {0};
	struct cfs_rank_options o = {.size = sizeof(o),
				     .ring_bytes = RING,
				     .progress = count_progress,
				     .progress_arg = &last};
	uint8_t *data = random_bytes(8, 3 * RING);
	struct cfs_rank_save *save;
	struct cfs_rank *rank = NULL;

	ok(cfs_rank_open(d.run, &o, &rank));
	save = begin(rank, "global_step1", "files");
	save_file(save, "f", data, 3 * RING, SIZE_MAX);
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ck_assert_str_eq(last.what, "save");
	ck_assert_uint_eq(last.total_bytes, 3 * RING);
	ck_assert_uint_eq(last.done_bytes, 3 * RING);
	cfs_rank_close(rank);
	free(data);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_client");
	TCase *t = tcase_create("one rank");

	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_checked_fixture(t, start, stop);
	tcase_add_test(t, test_files);
	tcase_add_test(t, test_files_at_once);
	tcase_add_test(t, test_load_with_files_open);
	tcase_add_test(t, test_device_fails);
	tcase_add_test(t, test_tensors);
	tcase_add_test(t, test_read_files);
#ifdef __SANITIZE_THREAD__
	puts("test_scribble: skipped, the race is what it is about");
	(void)test_scribble;
#else
	tcase_add_test(t, test_scribble);
#endif
	tcase_add_test(t, test_refusals);
	tcase_add_test(t, test_replace);
	tcase_add_test(t, test_daemon_ends);
	tcase_add_test(t, test_abort);
	tcase_add_test(t, test_fork);
	tcase_add_test(t, test_progress);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
