/* After power cuts a store is in a state it had before: history_bed.h. */
#include "tests/unit/history_bed.h"

START_TEST(power_cuts)
{
	uint64_t state = 99 + (uint64_t)_i, seed;
	struct history h = {0};
	struct bed b;
	size_t events, all;

	bed_open(&b, NULL, NULL);
	make_history(&b, &h, 1000 + (uint64_t)_i, true);
	all = cfs_engine_mem_events(b.engine);
	for (events = 0; events <= all; events += TEST_STEP)
		for (seed = 0; seed < 6; seed++)
			cut_power(&b, &h, events, seed ? seed + events * 10 : 0,
				  &state);
	history_fini(&h);
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

/* Power fails again while the store comes back, and again. */
START_TEST(power_cuts_on_power_cuts)
{
	uint64_t state = 7 + (uint64_t)_i;
	struct history h = {0};
	struct bed b, next;
	unsigned round, acked;

	bed_open(&b, NULL, NULL);
	for (round = 0; round < 25; round++) {
		size_t events;
		unsigned n = 1 + (unsigned)(bed_random(&state) % 3);

		memset(&h, 0, sizeof(h));
		read_state(&b, &h.now);
		/* what it is now is there, acknowledged or not, once anything
		 * is */
		h.states[h.n] = h.now;
		h.acked[h.n] = round > 0;
		h.acked_at[h.n++] = 0;
		while (n--) {
			change(&b, &h, &state);
			change(&b, &h, &state);
			(void)commit(&b, &h, false);
		}
		events = cfs_engine_mem_events(b.engine);
		events = bed_random(&state) % (events + 1);
		acked = acked_by(&h, events);
		bed_open(&next,
			 cfs_engine_mem_after_power_cut(b.engine, events,
							bed_random(&state) | 1),
			 NULL);
		check_state(&next, &h, acked, "again");
		ck_assert_int_eq(cfs_store_close(b.store), 0);
		b = next;
	}
	ck_assert_int_eq(cfs_store_close(b.store), 0);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("recovery_power_cut");
	TCase *t = tcase_create("recovery_power_cut");

	tcase_add_loop_test(t, power_cuts, 0, 4);
	tcase_add_loop_test(t, power_cuts_on_power_cuts, 0, 6);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
