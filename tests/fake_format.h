/*
 * A checkpoint format for tests of what does not depend on one.  It takes the
 * name of the real format, whose object files are then not linked.
 */
#ifndef CFS_TESTS_FAKE_FORMAT_H
#define CFS_TESTS_FAKE_FORMAT_H

#include <stdatomic.h>

#include "fs/format/format.h"

/* How often it was asked to read a step, plan a tree, build a map. */
extern atomic_uint cfs_fake_reads, cfs_fake_writes, cfs_fake_builds;

#endif
