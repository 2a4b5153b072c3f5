/* A step as its format's reader sees it. */
#include "tests/unit/rank_model.h"

#include <string.h>

#include "fs/format/format.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

/* All elements of what was put, through the format's reader. */
void rank_expect_step(struct cfs_ns *ns, const char *name, const char *path,
		      uint32_t dp)
{
	const struct cfs_format *format = !strcmp(name, "universal")
						  ? &cfs_format_universal
						  : &cfs_format_deepspeed;
	struct cfs_source *source = NULL;
	struct cfs_filepool *pool;
	struct cfs_step *step = NULL;
	struct cfs_error err = {""};
	int r;

	ck_assert_int_eq(cfs_source_ns_open(ns, &source), 0);
	pool = cfs_filepool_new(source);
	ck_assert_int_eq(format->probe(source, path), 1);
	ck_assert_int_eq(format->complete(source, path, &err), 1);
	r = format->read(source, pool, path, &step, &err);
	ck_assert_msg(r == 0, "%s: %d %s", path, r, err.text);
	ck_assert_int_eq(step->global_steps, 7);
	if (dp)
		ck_assert_uint_eq(step->topology.dp, dp);
	for (size_t t = 0; t < CFS_ARRAY_SIZE(model); t++)
		for (size_t k = 0; k < 3; k++) {
			const struct cfs_catalogue *cat =
				step->ranks[0].catalogue;
			uint64_t n = model[t].rows * model[t].columns;
			_cleanup_(cfs_freep) float *want =
				values(&model[t], t * 8 + k);
			_cleanup_(cfs_freep) float *have = malloc(n * 4);
			struct cfs_map *map = cfs_map_new(step->files);
			struct cfs_reader *reader = NULL;
			uint32_t i;

			ck_assert_int_eq(
				cfs_catalogue_find(cat, model[t].name, &i), 0);
			ck_assert_int_eq(cfs_catalogue_append(
						 cat, i,
						 CFS_ROLE_MASTER + (uint32_t)k,
						 0, n, map),
					 0);
			cfs_map_seal(map);
			ck_assert_int_eq(
				cfs_reader_open(map, pool, NULL, &reader, &err),
				0);
			ck_assert_int_eq(
				cfs_reader_pread(reader, have, n * 4, 0),
				(ssize_t)(n * 4));
			ck_assert_mem_eq(have, want, n * 4);
			cfs_reader_close(reader);
			cfs_map_unref(map);
		}
	cfs_step_unref(step);
	cfs_filepool_free(pool);
	cfs_source_free(source);
}
