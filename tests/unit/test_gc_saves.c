/* Collecting garbage while the same data is saved, and through power cuts. */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/gc_bed.h"

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
	uint64_t state = gc_seed;
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
	uint64_t state = gc_seed;
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

static Suite *suite(void)
{
	Suite *s = suite_create("gc_saves");
	TCase *t = tcase_create("gc_saves");

	gc_seed_new();
	tcase_add_test(t, saves_of_the_same_data);
	tcase_add_test(t, power_cut_at_every_event);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
