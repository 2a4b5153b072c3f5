/* What every libcheck program here starts with. */
#ifndef CFS_TEST_H
#define CFS_TEST_H

#include <check.h>
#include <stdlib.h>

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
