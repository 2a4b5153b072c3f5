/* What a named view says beside its items. */
#include "fs/format/options.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "tests/test.h"

static void refuse(const char *text, const char *words)
{
	struct cfs_options o = {.old = -1};
	struct cfs_error err = {.text = ""};

	ck_assert_int_eq(cfs_options_parse(text, &o, &err), -EINVAL);
	ck_assert_msg(strstr(err.text, words), "%s: %s", text, err.text);
}

START_TEST(all_of_it)
{
	struct cfs_options o;

	ck_assert_int_eq(
		cfs_options_parse("{\"rules\":[{\"name\":\"mlp.*\",\"is\":"
				  "\"parts:3\"},{\"is\":\"sum\",\"name\":"
				  "\"x\"}],\"boundaries\":[0,4,4,9]}",
				  &o, NULL),
		0);
	ck_assert_uint_eq(o.n_bounds, 4);
	ck_assert_uint_eq(o.bounds[1], 4);
	ck_assert_uint_eq(o.bounds[3], 9);
	ck_assert_int_eq(o.old, -1);
	ck_assert(cfs_options_of_stages(&o));
	ck_assert_int_eq(o.rules[0].kind, CFS_RULE_PARTS);
	ck_assert_uint_eq(o.rules[0].n, 3);
	ck_assert_int_eq(o.rules[1].kind, CFS_RULE_SUM);
	ck_assert_ptr_null(o.rules[2].name);
	ck_assert_ptr_eq(cfs_rules_find(o.rules, "mlp.up"), &o.rules[0]);
	cfs_options_fini(&o);
}
END_TEST

/* Compiling an expression recurses. */
static void deep(size_t n)
{
	struct cfs_error err = {""};
	char *text = malloc(n + 8);

	memcpy(text, "type:", 5);
	memset(text + 5, '(', n);
	text[5 + n] = '\0';
	ck_assert_int_eq(cfs_options_check_method(text, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "at most"));
	free(text);
}

START_TEST(stages)
{
	struct cfs_options o;

	ck_assert_int_eq(cfs_options_parse("{}", &o, NULL), 0);
	ck_assert(!cfs_options_of_stages(&o));
	cfs_options_fini(&o);
	ck_assert_int_eq(cfs_options_parse("{\"partition_method\":\"type:a|b\","
					   "\"partition_generation\":\"old\"}",
					   &o, NULL),
			 0);
	ck_assert_str_eq(o.method, "type:a|b");
	ck_assert_int_eq(o.old, 1);
	cfs_options_fini(&o);
	refuse("{\"boundaries\":[0]}", "boundaries");
	refuse("{\"boundaries\":[1,9]}", "boundaries[0]");
	refuse("{\"boundaries\":[0,5,4]}", "boundaries[2]");
	refuse("{\"boundaries\":[0,0.5]}", "boundaries[1]");
	refuse("{\"boundaries\":[0,-1]}", "boundaries[1]");
	refuse("{\"boundaries\":[0,9],\"partition_method\":\"uniform\"}",
	       "boundaries leave nothing");
	refuse("{\"partition_method\":\"profile\"}", "parameters, uniform");
	refuse("{\"partition_method\":\"type:\"}", "regular expression");
	refuse("{\"partition_method\":\"type:(\"}", "regular expression");
	refuse("{\"partition_method\":\"type:\\\\w\"}", "regular expression");
	deep(200000);
	refuse("{\"partition_generation\":\"0.12\"}", "old or new");
	refuse("{\"turbo\":1}", "'turbo'");
	refuse("{\"partition_method\":\"uniform\",\"partition_method\":"
	       "\"uniform\"}",
	       "twice");
	refuse("[]", "JSON object");
	refuse("", "JSON object");
}
END_TEST

START_TEST(templates)
{
	struct cfs_options o;

	ck_assert_int_eq(
		cfs_options_parse("{\"like\":\"/a/b\",\"like_id\":"
				  "\"00000000deadbeef\",\"partial\":true}",
				  &o, NULL),
		0);
	ck_assert_str_eq(o.like, "/a/b");
	ck_assert_uint_eq(o.like_id, 0xdeadbeef);
	ck_assert(o.partial);
	cfs_options_fini(&o);
	refuse("{\"like\":\"a\"}", "absolute");
	refuse("{\"like\":1}", "absolute");
	refuse("{\"like\":\"/a\",\"like_id\":\"12\"}", "fingerprint");
	refuse("{\"like\":\"/a\",\"like_id\":\"g000000000000000\"}",
	       "fingerprint");
	refuse("{\"like\":\"/a\",\"partial\":1}", "true or false");
	refuse("{\"partial\":true}", "like");
	refuse("{\"like\":\"/a\",\"boundaries\":[0,9]}", "says itself");
	refuse("{\"like\":\"/a\",\"like\":\"/a\"}", "twice");
}
END_TEST

START_TEST(kinds)
{
	static const struct {
		const char *word;
		enum cfs_rule_kind kind;
		uint32_t n;
	} all[] = {{"same", CFS_RULE_SAME, 0},
		   {"rows", CFS_RULE_ROWS, 0},
		   {"columns", CFS_RULE_COLUMNS, 0},
		   {"vocab", CFS_RULE_VOCAB, 0},
		   {"vocab-columns", CFS_RULE_VOCAB_COLUMNS, 0},
		   {"sum", CFS_RULE_SUM, 0},
		   {"mean", CFS_RULE_MEAN, 0},
		   {"halves", CFS_RULE_PARTS, 2},
		   {"parts:1", CFS_RULE_PARTS, 1},
		   {"parts:8", CFS_RULE_PARTS, 8}};
	char text[128];

	for (size_t i = 0; i < CFS_ARRAY_SIZE(all); i++) {
		struct cfs_options o;

		snprintf(text, sizeof(text),
			 "{\"rules\":[{\"name\":\"x\",\"is\":\"%s\"}]}",
			 all[i].word);
		ck_assert_int_eq(cfs_options_parse(text, &o, NULL), 0);
		ck_assert_int_eq(o.rules[0].kind, all[i].kind);
		ck_assert_uint_eq(o.rules[0].n, all[i].n);
		cfs_options_fini(&o);
	}
}
END_TEST

static void refuse_file(const char *text, const char *words)
{
	struct cfs_error err = {.text = ""};
	cJSON *rules = NULL;

	ck_assert_int_eq(
		cfs_options_read_rules(text, strlen(text), &rules, &err),
		-EINVAL);
	ck_assert_ptr_null(rules);
	ck_assert_msg(strstr(err.text, words), "%s: %s", text, err.text);
}

START_TEST(files)
{
	static const char good[] =
		"{\"rules\": [\n {\"name\": \"a.*\", \"is\": \"rows\"}\n]}\n";
	struct cfs_error err;
	cJSON *rules = NULL;

	ck_assert_int_eq(
		cfs_options_read_rules(good, strlen(good), &rules, &err), 0);
	ck_assert_int_eq(cJSON_GetArraySize(rules), 1);
	cJSON_Delete(rules);
	refuse_file("{\"rules\": [\n {\"name\": \"a\",\n  \"is\" \"rows\"}]}",
		    "line 3");
	refuse_file("{\"rules\": []}\nmore", "line 2");
	refuse_file("", "line 1");
	refuse_file("[]", "{\"rules\"");
	refuse_file("{\"rules\": [], \"x\": 1}", "{\"rules\"");
	refuse_file("{\"rules\": []}", "1 to");
	refuse_file("{\"rules\": [1]}", "rules[0]");
	refuse_file("{\"rules\": [{\"name\": \"a\", \"is\": \"rows\"},"
		    "{\"name\": \"b\", \"is\": \"cut\"}]}",
		    "rules[1] (b): \"is\"");
	refuse_file("{\"rules\": [{\"name\": \"a\", \"is\": \"parts:9\"}]}",
		    "rules[0] (a)");
	refuse_file("{\"rules\": [{\"is\": \"rows\"}]}", "\"name\"");
	refuse_file("{\"rules\": [{\"name\": \"a\", \"is\": \"rows\","
		    "\"of\": 1}]}",
		    "'of'");
	refuse_file("{\"rules\": [{\"name\": \"a\", \"name\": \"b\","
		    "\"is\": \"rows\"}]}",
		    "twice");
}
END_TEST

START_TEST(one_copy)
{
	char text[] = "{\"x\":1}";
	const char *a = cfs_options_intern(text), *b;

	ck_assert_ptr_ne(a, text);
	ck_assert_str_eq(a, text);
	b = cfs_options_intern("{\"x\":2}");
	ck_assert_ptr_ne(a, b);
	ck_assert_ptr_eq(a, cfs_options_intern(text));
	ck_assert_ptr_eq(b, cfs_options_intern("{\"x\":2}"));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("options");
	TCase *t = tcase_create("options");

	tcase_add_test(t, all_of_it);
	tcase_add_test(t, stages);
	tcase_add_test(t, templates);
	tcase_add_test(t, kinds);
	tcase_add_test(t, files);
	tcase_add_test(t, one_copy);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
