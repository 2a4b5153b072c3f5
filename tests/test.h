/* What every libcheck program here starts with. */
#ifndef CFS_TEST_H
#define CFS_TEST_H

#include <check.h>
#include <stdlib.h>

/*
 * libcheck writes to a file at every assertion that holds, to know where a
 * crash came after.  Some tests hold millions of them, and most of their time
 * was that; the name of the test and a debugger tell as much.
 */
#define _mark_point(file, line) ((void)0)

/*
 * Sanitizers take their time, so with one of them a long series tries every
 * so many; the build without tries all.  What one finds in a step that is left
 * out, it finds in the others: they run the same code.
 */
#if defined(__SANITIZE_ADDRESS__)
#define TEST_STEP 13
#elif defined(__SANITIZE_THREAD__)
#define TEST_STEP 37
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEST_STEP 13
#endif
#endif
#ifndef TEST_STEP
#define TEST_STEP 1
#endif

/* For a case that does much: a hang is found, a busy machine is none. */
#define TEST_TIMEOUT (TEST_STEP > 1 ? 860 : 240)

/*
 * TEST_MAIN(suite): runs the suite made by `Suite *suite(void)`.  Forked, so
 * one crash is one failure, unless CK_FORK=no (sanitizers, debuggers).
 */
#define TEST_MAIN(make_suite)                                                  \
	int main(void)                                                         \
	{                                                                      \
		SRunner *runner;                                               \
		int failed;                                                    \
                                                                               \
		/* a crowded machine is not a failure; ctest has its own */    \
		(void)setenv("CK_DEFAULT_TIMEOUT", "240", 0);                  \
		runner = srunner_create(make_suite());                         \
		srunner_run_all(runner, CK_ENV);                               \
		failed = srunner_ntests_failed(runner);                        \
		srunner_free(runner);                                          \
		return failed ? EXIT_FAILURE : EXIT_SUCCESS;                   \
	}

#endif
