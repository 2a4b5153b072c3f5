/*
 * Random operations on the namespace and on a model of it in memory; commits,
 * crashes and reopening between them.  CFS_SEED=n repeats a run.
 */
#include "store/ns/ns.h"

#include <linux/falloc.h>
#include <time.h>

#include "tests/unit/ns_bed.h"

#define DIRS  5
#define NAMES 12
#define FILES 64
#define BYTES (3u << 20)

struct mfile {
	uint8_t *data;
	size_t size;
	unsigned nlink;
	bool less; /* saved: a crash may leave the first part of it only */
};
struct model {
	struct mfile files[FILES];
	int names[DIRS][NAMES]; /* file or -1 */
};

static struct ns_bed bed;
static struct model now, saved;
static struct cfs_ns_file *handles[FILES];
static uint64_t state;

static size_t pick(size_t n)
{
	return (size_t)(bed_random(&state) % n);
}

static void model_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
	for (size_t d = 0; d < DIRS; d++)
		for (size_t i = 0; i < NAMES; i++)
			m->names[d][i] = -1;
}

static void model_fini(struct model *m)
{
	for (size_t i = 0; i < FILES; i++)
		free(m->files[i].data);
}

/* Without what is open but has no name: a crash takes that away. */
static void model_copy(struct model *to, const struct model *from)
{
	model_fini(to);
	*to = *from;
	for (size_t i = 0; i < FILES; i++) {
		to->files[i].data = NULL;
		if (!from->files[i].nlink) {
			to->files[i].size = 0;
			continue;
		}
		to->files[i].data = malloc(from->files[i].size + 1);
		ck_assert_ptr_nonnull(to->files[i].data);
		if (from->files[i].size)
			memcpy(to->files[i].data, from->files[i].data,
			       from->files[i].size);
	}
}

static void model_resize(struct mfile *f, size_t size)
{
	uint8_t *p = realloc(f->data, size + 1);

	ck_assert_ptr_nonnull(p);
	if (size > f->size)
		memset(p + f->size, 0, size - f->size);
	f->data = p;
	f->size = size;
}

static const char *name_of(size_t i)
{
	static char text[16];

	(void)snprintf(text, sizeof(text), "name%zu", i);
	return text;
}

static const char *path_of(size_t d, size_t i)
{
	static char text[32];

	(void)snprintf(text, sizeof(text), "d%zu/name%zu", d, i);
	return text;
}

static uint64_t dir_ino(size_t d)
{
	char text[8];

	(void)snprintf(text, sizeof(text), "d%zu", d);
	return ns_ino(&bed, text);
}

static void drop_handle(size_t f)
{
	if (!handles[f])
		return;
	cfs_ns_close_file(handles[f]);
	handles[f] = NULL;
	if (!now.files[f].nlink) {
		free(now.files[f].data);
		now.files[f].data = NULL;
		now.files[f].size = 0;
	}
}

static void lose_name(size_t d, size_t i)
{
	int f = now.names[d][i];

	now.names[d][i] = -1;
	if (f < 0 || --now.files[f].nlink || handles[f])
		return;
	free(now.files[f].data);
	now.files[f].data = NULL;
	now.files[f].size = 0;
}

/* A file that exists and its handle; -1. */
static int some_file(void)
{
	for (int t = 0; t < 20; t++) {
		size_t d = pick(DIRS), i = pick(NAMES);
		int f = now.names[d][i];

		if (f < 0)
			continue;
		if (!handles[f])
			handles[f] = ns_open(&bed, path_of(d, i), O_RDWR);
		return f;
	}
	return -1;
}

static void op_create(void)
{
	size_t d = pick(DIRS), i = pick(NAMES), f = 0;

	while (f < FILES && (now.files[f].nlink || handles[f]))
		f++;
	if (now.names[d][i] >= 0 || f == FILES)
		return;
	handles[f] = ns_create(&bed, dir_ino(d), name_of(i));
	now.names[d][i] = (int)f;
	now.files[f].nlink = 1;
}

static void write_at(int f, size_t len, size_t off)
{
	uint64_t seed = bed_random(&state);
	uint8_t *p;

	if (off + len > BYTES)
		return;
	p = bed_bytes(seed, len);
	ns_write(handles[f], p, len, off);
	if (off + len > now.files[f].size)
		model_resize(&now.files[f], off + len);
	memcpy(now.files[f].data + off, p, len);
	free(p);
}

static void op_append(size_t len)
{
	int f = some_file();

	if (f >= 0)
		write_at(f, len, now.files[f].size);
}

static void op_write(void)
{
	int f = some_file();
	size_t len = 1 + pick(pick(4) ? 5000 : 300000);

	if (f >= 0)
		write_at(f, len, pick(BYTES / 2));
}

static void op_truncate(void)
{
	int f = some_file();
	struct stat st = {0};

	if (f < 0)
		return;
	st.st_size = (off_t)(pick(3) ? pick(BYTES) : 0);
	ck_assert_int_eq(cfs_ns_setattr(bed.ns, cfs_ns_file_ino(handles[f]),
					&st, CFS_SET_SIZE, &st),
			 0);
	model_resize(&now.files[f], (size_t)st.st_size);
}

static void op_punch(void)
{
	int f = some_file();
	size_t off = pick(BYTES / 2), len = 1 + pick(100000), end;

	if (f < 0)
		return;
	ck_assert_int_eq(
		cfs_ns_fallocate(handles[f],
				 FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 off, len),
		0);
	end = CFS_MIN(off + len, now.files[f].size);
	if (off < end)
		memset(now.files[f].data + off, 0, end - off);
}

static void op_copy(void)
{
	int a = some_file(), b = some_file();
	size_t from = pick(BYTES / 2), to = pick(BYTES / 2);
	size_t len = 1 + pick(200000);
	ssize_t n;

	if (a < 0 || b < 0 || a == b)
		return;
	n = cfs_ns_copy_range(handles[a], from, handles[b], to, len);
	len = from < now.files[a].size ? CFS_MIN(len, now.files[a].size - from)
				       : 0;
	ck_assert_int_eq(n, (ssize_t)len);
	if (!len)
		return;
	if (to + len > now.files[b].size)
		model_resize(&now.files[b], to + len);
	memcpy(now.files[b].data + to, now.files[a].data + from, len);
}

static void op_unlink(void)
{
	size_t d = pick(DIRS), i = pick(NAMES);
	int r = cfs_ns_unlink(bed.ns, dir_ino(d), name_of(i));

	ck_assert_int_eq(r, now.names[d][i] < 0 ? -ENOENT : 0);
	lose_name(d, i);
}

static void op_rename(void)
{
	size_t d = pick(DIRS), i = pick(NAMES), e = pick(DIRS), j = pick(NAMES);
	int f = now.names[d][i];
	char to[16];

	(void)snprintf(to, sizeof(to), "%s", name_of(j));
	ck_assert_int_eq(cfs_ns_rename(bed.ns, dir_ino(d), name_of(i),
				       dir_ino(e), to, 0),
			 f < 0 ? -ENOENT : 0);
	if (f < 0 || f == now.names[e][j])
		return; /* two names of one file stay */
	lose_name(e, j);
	now.names[e][j] = f;
	now.names[d][i] = -1;
}

static void op_link(void)
{
	size_t d = pick(DIRS), i = pick(NAMES);
	int f = some_file();
	struct stat st;
	int r;

	if (f < 0)
		return;
	r = cfs_ns_link(bed.ns, cfs_ns_file_ino(handles[f]), dir_ino(d),
			name_of(i), &st);
	if (now.names[d][i] >= 0) {
		ck_assert_int_eq(r, -EEXIST);
		return;
	}
	if (!now.files[f].nlink) {
		ck_assert_int_eq(r, -ENOENT);
		return;
	}
	ck_assert_int_eq(r, 0);
	cfs_ns_forget(bed.ns, st.st_ino, 1);
	now.names[d][i] = f;
	now.files[f].nlink++;
	ck_assert_uint_eq(st.st_nlink, now.files[f].nlink);
}

static void op_read(void)
{
	int f = some_file();
	size_t off, len;

	if (f < 0 || !now.files[f].size)
		return;
	off = pick(now.files[f].size);
	len = 1 + pick(200000);
	len = CFS_MIN(len, now.files[f].size - off);
	ns_expect(handles[f], now.files[f].data + off, len, off);
}

struct names {
	size_t dir, n;
};

static int on_name(void *arg, const char *name, const struct stat *st,
		   uint64_t cookie)
{
	struct names *l = arg;
	unsigned i = 0;

	(void)cookie;
	(void)st;
	if (name[0] == '.')
		return 0;
	ck_assert_int_eq(sscanf(name, "name%u", &i), 1);
	ck_assert_int_ge(now.names[l->dir][i], 0);
	l->n++;
	return 0;
}

static void check_all(void)
{
	for (size_t d = 0; d < DIRS; d++) {
		struct names l = {d, 0};
		size_t n = 0;

		ck_assert_int_eq(cfs_ns_readdir(bed.ns, dir_ino(d), 0, false,
						on_name, &l),
				 0);
		for (size_t i = 0; i < NAMES; i++) {
			int f = now.names[d][i];
			struct cfs_ns_file *h;
			struct stat st;

			if (f < 0)
				continue;
			n++;
			h = ns_open(&bed, path_of(d, i), O_RDONLY);
			ck_assert_int_eq(
				cfs_ns_getattr(bed.ns, cfs_ns_file_ino(h), &st),
				0);
			ck_assert_int_eq(st.st_size, now.files[f].size);
			ck_assert_uint_eq(st.st_nlink, now.files[f].nlink);
			ns_expect(h, now.files[f].data, now.files[f].size, 0);
			cfs_ns_close_file(h);
		}
		ck_assert_uint_eq(l.n, n);
	}
}

static void close_all(void)
{
	for (size_t f = 0; f < FILES; f++)
		drop_handle(f);
}

static void op_commit(void)
{
	ck_assert_int_eq(cfs_ns_sync(bed.ns), 0);
	model_copy(&saved, &now);
}

/* As the clock does: of a file that is open the end may come a tick later. */
static void op_tick(void)
{
	unsigned grown = (unsigned)pick(3);

	ck_assert_int_eq(cfs_store_tick(bed.bed.store), 0);
	for (unsigned i = 0; i < grown; i++)
		op_append(1000000 + pick(700000));
	ck_assert_int_eq(cfs_store_tick(bed.bed.store), 0);
	model_copy(&saved, &now);
	for (size_t f = 0; f < FILES && grown; f++)
		saved.files[f].less = handles[f] != NULL;
}

/* What is there of those that a tick left the end out of. */
static void learn_sizes(void)
{
	for (size_t d = 0; d < DIRS; d++) {
		for (size_t i = 0; i < NAMES; i++) {
			struct mfile *f;
			struct stat st;

			if (now.names[d][i] < 0)
				continue;
			f = &now.files[now.names[d][i]];
			if (!f->less)
				continue;
			ck_assert_int_eq(
				cfs_ns_walk(bed.ns, path_of(d, i), &st), 0);
			ck_assert_uint_le((size_t)st.st_size, f->size);
			f->size = (size_t)st.st_size;
		}
	}
	for (size_t f = 0; f < FILES; f++)
		now.files[f].less = saved.files[f].less = false;
}

static void op_reopen(void)
{
	close_all();
	check_all();
	ns_bed_reopen(&bed);
	model_copy(&saved, &now);
	check_all();
	ns_no_problems(&bed);
}

static void op_crash(void)
{
	size_t events = cfs_engine_mem_events(bed.bed.engine);

	close_all();
	ns_bed_crash(&bed, events);
	model_copy(&now, &saved);
	learn_sizes();
	model_copy(&saved, &now);
	check_all();
	ns_no_problems(&bed);
}

static void one_op(void)
{
	size_t k = pick(1000);

	if (k < 120)
		op_create();
	else if (k < 300)
		op_append(1 + pick(pick(4) ? 5000 : 300000));
	else if (k < 450)
		op_write();
	else if (k < 520)
		op_truncate();
	else if (k < 560)
		op_punch();
	else if (k < 620)
		op_copy();
	else if (k < 680)
		op_unlink();
	else if (k < 740)
		op_rename();
	else if (k < 780)
		op_link();
	else if (k < 880)
		op_read();
	else if (k < 940)
		drop_handle(pick(FILES));
	else if (k < 965)
		op_commit();
	else if (k < 985)
		op_tick();
	else if (k < 990)
		op_reopen();
	else if (k < 995)
		op_crash();
}

static void run(uint64_t seed, unsigned ops)
{
	printf("seed %llu\n", (unsigned long long)seed);
	state = seed * 2654435761u + 1;
	memset(handles, 0, sizeof(handles));
	model_init(&now);
	model_init(&saved);
	ns_bed_open(&bed, NULL);
	for (size_t d = 0; d < DIRS; d++) {
		char text[8];

		(void)snprintf(text, sizeof(text), "d%zu", d);
		(void)ns_mkdir(&bed, 1, text);
	}
	op_commit();
	for (unsigned i = 0; i < ops; i++)
		one_op();
	op_reopen();
	ns_bed_close(&bed);
	model_fini(&now);
	model_fini(&saved);
}

START_TEST(random_operations)
{
	const char *text = getenv("CFS_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

	for (unsigned i = 0; i < (TEST_STEP > 1 ? 1 : 4); i++)
		run(seed + i, 1500);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("ns_model");
	TCase *t = tcase_create("all");

	tcase_add_test(t, random_operations);
	tcase_set_timeout(t, TEST_TIMEOUT);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
