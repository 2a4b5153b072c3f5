/* Configurations of GPT-NeoX: YAML and JSON. */
#include "fs/container/yaml.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/test.h"

static cJSON *read_ok(const char *text)
{
	struct cfs_error err = {.text = ""};
	cJSON *tree = NULL;
	int r = cfs_yaml_read(text, strlen(text), &tree, &err);

	ck_assert_msg(!r, "%s: %s", text, err.text);
	return tree;
}

/* As JSON, which the caller compares. */
static void expect(const char *text, const char *json)
{
	cJSON *tree = read_ok(text);
	char *got = cJSON_PrintUnformatted(tree);

	ck_assert_str_eq(got, json);
	cJSON_free(got);
	cJSON_Delete(tree);
}

START_TEST(test_values)
{
	expect("a: true\nb: No\nc: on\n",
	       "{\"a\":true,\"b\":false,\"c\":true}");
	expect("a: 12\nb: -3\nc: 0x10\nd: 1_000",
	       "{\"a\":12,\"b\":-3,\"c\":16,\"d\":1000}");
	expect("a: 1.5\nb: 1.0e-04\nc: 1e5\n",
	       "{\"a\":1.5,\"b\":0.0001,\"c\":\"1e5\"}");
	expect("a: 'true'\nb: \"1\"\nc:\nd: ~\n",
	       "{\"a\":\"true\",\"b\":\"1\",\"c\":null,\"d\":null}");
	expect("a: [1, {b: x}]", "{\"a\":[1,{\"b\":\"x\"}]}");
	expect("a: type:transformer|mlp", "{\"a\":\"type:transformer|mlp\"}");
}
END_TEST

START_TEST(test_documents)
{
	expect("", "null");
	expect("# nothing\n", "null");
	expect("{\"a\": {\"b\": [true, null]}}", "{\"a\":{\"b\":[true,null]}}");
	expect("a: 1\na: 2\n", "{\"a\":2}");
	expect("a: &x [1]\nb: *x\n", "{\"a\":[1],\"b\":[1]}");
}
END_TEST

static void refuse(const char *text, int want, const char *words)
{
	struct cfs_error err = {.text = ""};
	cJSON *tree = NULL;

	ck_assert_int_eq(cfs_yaml_read(text, strlen(text), &tree, &err), want);
	ck_assert_ptr_null(tree);
	ck_assert_msg(strstr(err.text, words), "%s", err.text);
}

START_TEST(test_refused)
{
	refuse("a: 1\nb: c: d\n", -EINVAL, "line 2");
	refuse("a: 1\n? [x]\n: 2\n", -EINVAL, "line 2");
	refuse("a: 1\n<<: {b: 2}\n", -ENOTSUP, "line 2");
	refuse("a: !!python/name:os.system\n", -ENOTSUP, "tags");
	refuse("a: &a [*a]\n", -E2BIG, "deep");
	refuse("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
	       "b: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
	       "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
	       "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n"
	       "e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\n"
	       "f: [*e, *e, *e, *e, *e, *e, *e, *e]\n",
	       -E2BIG, "too much");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("yaml");
	TCase *t = tcase_create("yaml");

	tcase_add_test(t, test_values);
	tcase_add_test(t, test_documents);
	tcase_add_test(t, test_refused);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
