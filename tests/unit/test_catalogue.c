/*
 * The catalogue against a model that remembers, for every element of every
 * tensor, which byte of which file it is.
 */
#include "fs/reslice/catalogue.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "store/map/map.h"
#include "store/util/error.h"
#include "tests/test.h"

#define MODEL_PARAMS 6
#define MODEL_ROLES  3
#define MODEL_NUMEL  60

struct place {
	uint32_t file;
	uint64_t off;
};

struct model {
	uint64_t numel[MODEL_PARAMS];
	struct place at[MODEL_PARAMS][MODEL_ROLES][MODEL_NUMEL];
	uint32_t size[MODEL_ROLES];
};

static struct cfs_filetab *filetab(uint32_t n)
{
	struct cfs_filetab *tab = cfs_filetab_new();

	ck_assert_ptr_nonnull(tab);
	for (uint32_t i = 0; i < n; i++) {
		struct cfs_version v = {1, i, 1 << 20, 0, 0};
		char name[16];
		uint32_t index;

		snprintf(name, sizeof(name), "f%u", i);
		ck_assert_int_eq(cfs_filetab_add(tab, name, &v, &index), 0);
		ck_assert_uint_eq(index, i);
	}
	return tab;
}

/* Cuts a tensor at random and puts the pieces anywhere, in any order. */
static void scatter(struct cfs_catalogue *cat, struct model *m, uint32_t p,
		    uint32_t role)
{
	struct cfs_extent e[MODEL_NUMEL];
	uint32_t n = 0;
	uint64_t at = 0;

	while (at < m->numel[p]) {
		uint64_t len = 1 + (uint64_t)rand() % (m->numel[p] - at);
		uint64_t off = (uint64_t)rand() % 5000;
		uint32_t file = (uint32_t)rand() % 3;

		if (n && rand() % 3 == 0) { /* goes on where the last ended */
			file = e[n - 1].file;
			off = e[n - 1].offset + e[n - 1].count * m->size[role];
		}
		e[n++] = (struct cfs_extent){at, len, off, file};
		for (uint64_t i = 0; i < len; i++)
			m->at[p][role][at + i] =
				(struct place){file, off + i * m->size[role]};
		at += len;
	}
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = (uint32_t)rand() % i;
		struct cfs_extent t = e[i - 1];

		e[i - 1] = e[j];
		e[j] = t;
	}
	for (uint32_t i = 0; i < n; i++)
		ck_assert_int_eq(cfs_catalogue_add_extent(cat, p, role, &e[i]),
				 0);
}

/* A span's map must name, byte by byte, what the model remembers. */
static void check_span(const struct cfs_catalogue *cat, const struct model *m,
		       struct cfs_filetab *tab, uint32_t p, uint32_t role,
		       uint64_t start, uint64_t count)
{
	struct cfs_map *map = cfs_map_new(tab);
	uint32_t size = m->size[role];
	uint64_t byte = 0;

	ck_assert_int_eq(cfs_catalogue_append(cat, p, role, start, count, map),
			 0);
	cfs_map_seal(map);
	ck_assert_uint_eq(cfs_map_size(map), count * size);
	for (uint32_t i = 0; i < cfs_map_count(map); i++) {
		struct cfs_segment seg;

		cfs_map_segment(map, i, &seg);
		ck_assert_int_eq(seg.kind, CFS_SEG_RANGE);
		for (uint64_t b = 0; b < seg.len; b++, byte++) {
			const struct place *at =
				&m->at[p][role][start + byte / size];

			ck_assert_uint_eq(seg.file, at->file);
			ck_assert_uint_eq(seg.file_off + b,
					  at->off + byte % size);
		}
	}
	ck_assert_uint_eq(byte, count * size);
	cfs_map_unref(map);
}

static void model_build(struct cfs_catalogue *cat, struct model *m)
{
	static const enum cfs_dtype dtypes[MODEL_ROLES] = {CFS_BF16, CFS_F32,
							   CFS_F64};
	uint32_t role, index;

	ck_assert_int_eq(cfs_catalogue_add_role(cat, "exp_avg", &role), 0);
	ck_assert_uint_eq(role, CFS_ROLE_STATE0);
	for (uint32_t p = 0; p < MODEL_PARAMS; p++) {
		uint64_t shape[2] = {1 + (uint64_t)rand() % 6,
				     (uint64_t)rand() % 11};
		char name[16];

		snprintf(name, sizeof(name), "p%u", p);
		ck_assert_int_eq(cfs_catalogue_add_param(cat, name, 2, shape,
							 p / 2, &index),
				 0);
		ck_assert_uint_eq(index, p);
		m->numel[p] = shape[0] * shape[1];
		for (role = 0; role < MODEL_ROLES; role++) {
			m->size[role] = cfs_dtype_size(dtypes[role]);
			ck_assert_int_eq(cfs_catalogue_set_dtype(cat, p, role,
								 dtypes[role]),
					 0);
			scatter(cat, m, p, role);
		}
	}
}

START_TEST(random_model)
{
	unsigned seed = (unsigned)time(NULL);
	struct cfs_filetab *tab = filetab(3);
	static struct model m;

	printf("seed %u\n", seed);
	srand(seed);
	for (int round = 0; round < 300; round++) {
		struct cfs_catalogue *cat = cfs_catalogue_new();
		struct cfs_error err = {""};

		model_build(cat, &m);
		ck_assert_msg(!cfs_catalogue_seal(cat, &err), "%s", err.text);
		for (uint32_t p = 0; p < MODEL_PARAMS; p++) {
			for (uint32_t k = 0; k < MODEL_ROLES; k++) {
				uint64_t a =
					(uint64_t)rand() % (m.numel[p] + 1);
				uint64_t n =
					(uint64_t)rand() % (m.numel[p] - a + 1);

				check_span(cat, &m, tab, p, k, 0, m.numel[p]);
				check_span(cat, &m, tab, p, k, a, n);
				ck_assert(cfs_catalogue_has(cat, p, k));
			}
		}
		cfs_catalogue_free(cat);
	}
	cfs_filetab_unref(tab);
}
END_TEST

/* Two halves of "w", with a gap or an overlap of @off elements. */
static int seal_with(int off, bool dtype, struct cfs_error *err)
{
	struct cfs_catalogue *cat = cfs_catalogue_new();
	struct cfs_extent a = {0, 5, 0, 0};
	struct cfs_extent b = {(uint64_t)(5 + off), 5, 100, 0};
	uint64_t shape = 10 + (uint64_t)(off > 0 ? off : 0);
	int r;

	ck_assert_int_eq(cfs_catalogue_add_param(cat, "w", 1, &shape, 0, NULL),
			 0);
	if (dtype)
		ck_assert_int_eq(cfs_catalogue_set_dtype(cat, 0, 1, CFS_F32),
				 0);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 0, 1, &b), 0);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 0, 1, &a), 0);
	r = cfs_catalogue_seal(cat, err);
	cfs_catalogue_free(cat);
	return r;
}

START_TEST(seal_checks)
{
	struct cfs_error err;

	ck_assert_int_eq(seal_with(0, true, &err), 0);
	ck_assert_int_eq(seal_with(1, true, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "master of w"));
	ck_assert_ptr_nonnull(strstr(err.text, "5 to 6"));
	ck_assert_int_eq(seal_with(-1, true, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "twice"));
	ck_assert_int_eq(seal_with(0, false, &err), -EINVAL);
}
END_TEST

START_TEST(groups_and_names)
{
	struct cfs_catalogue *cat = cfs_catalogue_new();
	uint64_t shape[2] = {UINT64_MAX, 2};
	uint32_t index, first, n;
	struct cfs_error err;

	for (uint32_t i = 0; i < 1000; i++) {
		uint64_t dim = i;
		char name[16];

		snprintf(name, sizeof(name), "layer.%u", i);
		ck_assert_int_eq(cfs_catalogue_add_param(
					 cat, name, 1, &dim,
					 i < 900 ? i / 300 : CFS_GROUP_FROZEN,
					 &index),
				 0);
	}
	ck_assert_int_eq(
		cfs_catalogue_add_param(cat, "layer.7", 0, NULL, 9, NULL),
		-EEXIST);
	ck_assert_int_eq(cfs_catalogue_add_param(cat, "late", 0, NULL, 2, NULL),
			 -EINVAL);
	ck_assert_int_eq(cfs_catalogue_add_param(cat, "big", 2, shape,
						 CFS_GROUP_FROZEN, NULL),
			 -EOVERFLOW);
	ck_assert_int_eq(cfs_catalogue_seal(cat, &err), 0);
	ck_assert_uint_eq(cfs_catalogue_params(cat), 1000);
	ck_assert_uint_eq(cfs_catalogue_groups(cat), 3);
	cfs_catalogue_group(cat, 2, &first, &n);
	ck_assert_uint_eq(first, 600);
	ck_assert_uint_eq(n, 300);
	ck_assert_int_eq(cfs_catalogue_find(cat, "layer.777", &index), 0);
	ck_assert_uint_eq(index, 777);
	ck_assert_int_eq(cfs_catalogue_find(cat, "layer.x", &index), -ENOENT);
	ck_assert_str_eq(cfs_catalogue_role_name(cat, 1), "master");
	ck_assert(!cfs_catalogue_has(cat, 5, CFS_ROLE_WEIGHT));
	cfs_catalogue_free(cat);
}
END_TEST

START_TEST(refuses_misuse)
{
	struct cfs_catalogue *cat = cfs_catalogue_new();
	struct cfs_extent out = {3, 3, 0, 0};
	uint64_t dim = 5;
	uint32_t role;
	char name[8];

	ck_assert_int_eq(cfs_catalogue_add_param(cat, "w", 1, &dim, 0, NULL),
			 0);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 0, 0, &out), -EINVAL);
	out.start = UINT64_MAX;
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 0, 0, &out), -EINVAL);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 1, 0, &out), -EINVAL);
	ck_assert_int_eq(cfs_catalogue_add_extent(cat, 0, 2, &out), -EINVAL);
	for (uint32_t i = CFS_ROLE_STATE0; i < CFS_ROLES_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		ck_assert_int_eq(cfs_catalogue_add_role(cat, name, &role), 0);
		ck_assert_uint_eq(role, i);
		ck_assert_int_eq(cfs_catalogue_add_role(cat, name, &role), 0);
		ck_assert_uint_eq(role, i);
	}
	ck_assert_int_eq(cfs_catalogue_add_role(cat, "one", &role), -E2BIG);
	ck_assert_int_eq(cfs_catalogue_set_dtype(cat, 0, 0, CFS_BF16), 0);
	ck_assert_int_eq(cfs_catalogue_set_dtype(cat, 0, 0, CFS_F16), -EINVAL);
	cfs_catalogue_free(cat);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("catalogue");
	TCase *tc = tcase_create("catalogue");

	tcase_add_test(tc, random_model);
	tcase_add_test(tc, seal_checks);
	tcase_add_test(tc, groups_and_names);
	tcase_add_test(tc, refuses_misuse);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
