/*
 * Steps of safetensors: what ranks put comes back by name and role, headers are
 * taken as strictly as the format says, other programs' directories are left
 * alone.
 */
#include "tests/unit/puts_bed.h"

#include "fs/format/safetensors/safetensors.h"

/* ---- headers ---- */

static int parse(const char *text, uint64_t bytes, struct cfs_error *err)
{
	struct cfs_st_header h = {0};
	int r = cfs_st_header_parse(text, strlen(text), bytes, &h, err);

	cfs_st_header_fini(&h);
	return r;
}

START_TEST(test_header)
{
	static const char text[] =
		"{\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":"
		"[8,10]},\"__metadata__\":{\"format\":\"pt\"},"
		"\"a\":{\"shape\":[2,1],\"dtype\":\"F32\",\"data_offsets\":"
		"[0,8]}}   ";
	struct cfs_st_header h = {0};
	struct cfs_error err = {""};

	ck_assert_int_eq(cfs_st_header_parse(text, strlen(text), 10, &h, &err),
			 0);
	ck_assert_uint_eq(h.n, 2);
	ck_assert_str_eq(h.v[0].name, "a");
	ck_assert_int_eq(h.v[0].dtype, CFS_F32);
	ck_assert_uint_eq(h.v[0].ndim, 2);
	ck_assert_uint_eq(h.v[0].shape[0], 2);
	ck_assert_str_eq(h.v[1].name, "b");
	ck_assert_uint_eq(h.v[1].begin, 8);
	cfs_st_header_fini(&h);
	ck_assert_int_eq(cfs_st_header_parse(text, strlen(text), 11, &h, &err),
			 -EBADMSG);
}
END_TEST

static const struct {
	const char *text, *why;
	uint64_t bytes;
	int r;
} wrong[] = {
	{"", "no JSON", 0, -EBADMSG},
	{" {}", "no JSON", 0, -EBADMSG},
	{"{} x", "no JSON", 0, -EBADMSG},
	{"[]", "no JSON", 0, -EBADMSG},
	{"{\"a\":1}", "tensor a", 0, -EBADMSG},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
	 "begins at 4", 8, -EBADMSG},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
	 "its shape", 4, -EBADMSG},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}",
	 "make no sense", 4, -EBADMSG},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
	 "make no sense", 4, -EBADMSG},
	{"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}",
	 "F4", 1, -ENOTSUP},
	{"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
	 "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
	 "twice", 0, -EBADMSG},
	{"{\"__metadata__\":{\"a\":1}}", "texts", 0, -EBADMSG},
};

START_TEST(test_wrong_header)
{
	struct cfs_error err = {""};

	ck_assert_int_eq(parse(wrong[_i].text, wrong[_i].bytes, &err),
			 wrong[_i].r);
	ck_assert_msg(strstr(err.text, wrong[_i].why), "%s", err.text);
}
END_TEST

/* ---- what was put ---- */

static const uint64_t shape_w[] = {6, 10}, shape_b[] = {6};

static void put_halves(struct bed *b, const char *name, const char *role,
		       enum cfs_dtype dtype, uint32_t ndim,
		       const uint64_t *shape, uint8_t fill)
{
	uint8_t bytes[512];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(fill + i);
	for (uint32_t rank = 0; rank < 2; rank++) {
		struct cfs_put put =
			bed_whole(rank, name, role, dtype, ndim, shape);

		if (!ndim && rank)
			continue;
		if (ndim) {
			put.extent[ndim - 1] = shape[ndim - 1] / 2;
			put.offset[ndim - 1] = rank * put.extent[ndim - 1];
		}
		bed_put(b, &put, bytes);
	}
}

static void expect(struct bed *b, const struct cfs_step *step, const char *name,
		   const char *role, enum cfs_dtype dtype, uint8_t fill)
{
	const struct cfs_catalogue *cat = step->ranks[0].catalogue;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map =
		cfs_map_new(step->files);
	_cleanup_(cfs_buf_free) struct cfs_buf have = CFS_BUF_INIT;
	uint32_t i, k = 0;

	ck_assert_msg(!cfs_catalogue_find(cat, name, &i), "%s", name);
	while (k < cfs_catalogue_roles(cat) &&
	       strcmp(cfs_catalogue_role_name(cat, k), role) != 0)
		k++;
	ck_assert_msg(cfs_catalogue_has(cat, i, k), "%s %s", name, role);
	ck_assert_int_eq(cfs_catalogue_dtype(cat, i, k), dtype);
	ck_assert_int_eq(
		cfs_catalogue_append(cat, i, k, 0,
				     cfs_catalogue_param(cat, i)->numel, map),
		0);
	cfs_map_seal(map);
	bed_read(b, map, &have);
	ck_assert_uint_eq(have.len, cfs_catalogue_param(cat, i)->numel *
					    cfs_dtype_size(dtype));
	for (size_t n = 0; n < have.len; n++)
		ck_assert_uint_eq(have.data[n], (uint8_t)(fill + n));
}

static void put_step(struct bed *b, bool optimizer)
{
	bed_init(b, 2);
	put_halves(b, "w.weight", "weight", CFS_BF16, 2, shape_w, 1);
	put_halves(b, "w.bias", "weight", CFS_F32, 1, shape_b, 2);
	put_halves(b, "seen", "buffer", CFS_I64, 0, NULL, 3);
	if (!optimizer)
		return;
	put_halves(b, "w.weight", "master", CFS_F32, 2, shape_w, 4);
	put_halves(b, "w.weight", "exp_avg", CFS_F32, 2, shape_w, 5);
	put_halves(b, "w.weight", "step", CFS_F32, 0, NULL, 6);
	put_halves(b, "other", "exp_avg", CFS_F32, 1, shape_b, 7);
}

START_TEST(test_round_trip)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	struct cfs_request request = CFS_REQUEST_INIT;
	const struct cfs_format *format;
	static struct bed b;
	struct bed_dir dir = {&b, "run/step8", 0};
	struct cfs_resolved target;
	struct cfs_puts puts;

	put_step(&b, true);
	puts = bed_puts(&b);
	ck_assert_msg(!cfs_puts_safetensors(&puts, bed_file, &dir, &b.err),
		      "%s", b.err.text);
	ck_assert_uint_eq(dir.n, 2);
	ck_assert_int_eq(cfs_format_probe(b.source, "run/step8", &format), 0);
	ck_assert_ptr_eq(format, &cfs_format_safetensors);
	ck_assert_int_eq(format->complete(b.source, "run/step8", &b.err), 1);
	ck_assert_msg(
		!format->read(b.source, b.pool, "run/step8", &step, &b.err),
		"%s", b.err.text);
	ck_assert_int_eq(step->global_steps, 8);
	expect(&b, step, "w.weight", "weight", CFS_BF16, 1);
	expect(&b, step, "w.bias", "weight", CFS_F32, 2);
	expect(&b, step, "seen", "weight", CFS_I64, 3);
	expect(&b, step, "w.weight", "master", CFS_F32, 4);
	expect(&b, step, "w.weight", "exp_avg", CFS_F32, 5);
	expect(&b, step, "w.weight.step", "weight", CFS_F32, 6);
	expect(&b, step, "other", "exp_avg", CFS_F32, 7);
	ck_assert_int_eq(format->resolve(step, &request, &target, &b.err), 0);
	ck_assert(cfs_topology_equal(&target.topology, &step->topology));
	request.dp = 2;
	ck_assert_int_eq(format->resolve(step, &request, &target, &b.err),
			 -ENOTSUP);
	cfs_step_unref(cfs_steal(step));
	bed_fini(&b);
}
END_TEST

/* Shorter by a byte, without its first file. */
START_TEST(test_not_whole)
{
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	const struct cfs_format *format = &cfs_format_safetensors;
	static struct bed b;
	struct bed_dir dir = {&b, "s", 0};
	struct cfs_puts puts;

	put_step(&b, true);
	puts = bed_puts(&b);
	ck_assert_int_eq(cfs_puts_safetensors(&puts, bed_file, &dir, &b.err),
			 0);
	ck_assert_int_eq(cfs_source_read_small(b.source,
					       "s/optimizer.safetensors",
					       1 << 20, &bytes),
			 0);
	ck_assert_int_eq(cfs_source_mem_put(b.source, "s/optimizer.safetensors",
					    bytes.data, bytes.len - 1),
			 0);
	ck_assert_int_eq(format->complete(b.source, "s", &b.err), 0);
	ck_assert_msg(strstr(b.err.text, "optimizer.safetensors: "), "%s",
		      b.err.text);
	ck_assert_int_eq(cfs_source_mem_remove(b.source, "s/model.safetensors"),
			 0);
	ck_assert_int_eq(format->complete(b.source, "s", &b.err), 0);
	ck_assert_int_eq(format->probe(b.source, "s"), 0);
	bed_fini(&b);
}
END_TEST

/* A file of that name is in many directories that are no steps. */
START_TEST(test_probe)
{
	static struct bed b;
	struct bed_dir dir = {&b, "s", 0};
	const struct cfs_format *format = &cfs_format_safetensors;
	struct cfs_puts puts;

	put_step(&b, false);
	puts = bed_puts(&b);
	ck_assert_int_eq(cfs_puts_safetensors(&puts, bed_file, &dir, &b.err),
			 0);
	ck_assert_uint_eq(dir.n, 1);
	ck_assert_int_eq(format->probe(b.source, "s"), 1);
	ck_assert_int_eq(format->complete(b.source, "s", &b.err), 1);
	ck_assert_int_eq(cfs_source_mem_put(b.source, "s/config.json", "{}", 2),
			 0);
	ck_assert_int_eq(format->probe(b.source, "s"), 0);
	ck_assert_int_eq(cfs_source_mem_put(b.source, "s/ckptfs/rng", "x", 1),
			 0);
	ck_assert_int_eq(format->probe(b.source, "s"), 1);
	ck_assert_int_eq(format->probe(b.source, "s/config.json"), 0);
	bed_fini(&b);
}
END_TEST

START_TEST(test_refusals)
{
	static struct bed b;
	struct bed_dir dir = {&b, "s", 0};
	struct cfs_puts puts;

	bed_init(&b, 2);
	put_halves(&b, "w", "master", CFS_F32, 1, shape_b, 1);
	puts = bed_puts(&b);
	ck_assert_int_eq(cfs_puts_safetensors(&puts, bed_file, &dir, &b.err),
			 -EINVAL);
	ck_assert_msg(strstr(b.err.text, "no weight"), "%s", b.err.text);
	bed_fini(&b);
	bed_init(&b, 2);
	put_halves(&b, "w", "weight", CFS_F32, 1, shape_b, 1);
	put_halves(&b, "w", "buffer", CFS_F32, 1, shape_b, 1);
	puts = bed_puts(&b);
	ck_assert_int_eq(cfs_puts_safetensors(&puts, bed_file, &dir, &b.err),
			 -EINVAL);
	ck_assert_msg(strstr(b.err.text, "tensor w: "), "%s", b.err.text);
	ck_assert_uint_eq(dir.n, 0);
	bed_fini(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("safetensors");
	TCase *tc = tcase_create("all");

	tcase_add_test(tc, test_header);
	tcase_add_loop_test(tc, test_wrong_header, 0,
			    (int)CFS_ARRAY_SIZE(wrong));
	tcase_add_test(tc, test_round_trip);
	tcase_add_test(tc, test_not_whole);
	tcase_add_test(tc, test_probe);
	tcase_add_test(tc, test_refusals);
	suite_add_tcase(s, tc);
	return s;
}

TEST_MAIN(suite)
