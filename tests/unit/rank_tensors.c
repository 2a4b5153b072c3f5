#include "tests/unit/rank_tensors.h"

#include <string.h>

#include "fs/format/format.h"
#include "store/util/error.h"
#include "tests/test.h"

struct expected {
	struct cfs_source *source;
	struct cfs_filepool *pool;
	struct cfs_step *step;
	const struct cfs_catalogue *cat;
};

struct expected *expect_open(const char *run, const char *step)
{
	struct expected *e = calloc(1, sizeof(*e));
	struct cfs_error err = {""};

	ck_assert_ptr_nonnull(e);
	ck_assert_int_eq(cfs_source_dir_open(run, &e->source), 0);
	e->pool = cfs_filepool_new(e->source);
	ck_assert_msg(cfs_format_deepspeed.read(e->source, e->pool, step,
						&e->step, &err) == 0,
		      "%s", err.text);
	e->cat = e->step->ranks[0].catalogue;
	return e;
}

void expect_close(struct expected *e)
{
	cfs_step_unref(e->step);
	cfs_filepool_free(e->pool);
	cfs_source_free(e->source);
	free(e);
}

uint8_t *expect_bytes(const struct expected *e, const char *name,
		      const char *role, enum cfs_dtype *dtype_out,
		      uint64_t *len_out)
{
	struct cfs_map *map = cfs_map_new(e->step->files);
	struct cfs_reader *reader;
	struct cfs_error err = {""};
	const struct cfs_catalogue *cat = NULL;
	uint32_t param = 0, k = 0;
	uint8_t *bytes;

	for (uint32_t i = 0; i < e->step->n_ranks; i++)
		if (!cfs_catalogue_find(e->step->ranks[i].catalogue, name,
					&param))
			cat = e->step->ranks[i].catalogue;
	ck_assert_msg(cat != NULL, "%s", name);
	while (strcmp(cfs_catalogue_role_name(cat, k), role) != 0)
		k++;
	*dtype_out = cfs_catalogue_dtype(cat, param, k);
	ck_assert_int_eq(cfs_catalogue_append(
				 cat, param, k, 0,
				 cfs_catalogue_param(cat, param)->numel, map),
			 0);
	cfs_map_seal(map);
	*len_out = cfs_map_size(map);
	bytes = malloc(*len_out + 1);
	ck_assert_int_eq(cfs_reader_open(map, e->pool, NULL, &reader, &err), 0);
	ck_assert_int_eq(cfs_reader_pread(reader, bytes, *len_out, 0),
			 (int64_t)*len_out);
	cfs_reader_close(reader);
	cfs_map_unref(map);
	return bytes;
}

uint32_t expect_params(const struct expected *e)
{
	return cfs_catalogue_params(e->cat);
}

const struct expected_param *expect_param(const struct expected *e, uint32_t i)
{
	static struct expected_param out;
	const struct cfs_param *p = cfs_catalogue_param(e->cat, i);

	out = (struct expected_param){p->name, p->ndim, p->shape,
				      p->group == CFS_GROUP_FROZEN};
	return &out;
}
