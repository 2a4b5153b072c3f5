#include "tests/test.h"
static Suite *suite(void){return suite_create("puts");}
TEST_MAIN(suite)
