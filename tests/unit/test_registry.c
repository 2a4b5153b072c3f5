/* Named views, kept per user. */
#include "fs/view/view.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "store/util/error.h"
#include "tests/test.h"

static char dir[] = "/tmp/cfs-registry-XXXXXX";

static void set_up(void)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	setenv("CKPTFS_CACHE_DIR", dir, 1);
}

static void tear_down(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static int add(const char *run, const char *name, const char *request,
	       struct cfs_error *err)
{
	struct cfs_registry_entry entry = {strdup(name), strdup(request), NULL};
	int r = cfs_registry_add(run, &entry, err);

	cfs_registry_entry_fini(&entry);
	return r;
}

static void expect(const char *run, const char *name, const char *request)
{
	_cleanup_(cfs_registry_entry_fini) struct cfs_registry_entry found = {
		NULL, NULL, NULL};
	int r = cfs_registry_find(run, name, &found);

	if (!request) {
		ck_assert_int_eq(r, -ENOENT);
		return;
	}
	ck_assert_int_eq(r, 0);
	ck_assert_str_eq(found.name, name);
	ck_assert_str_eq(found.request, request);
	ck_assert_ptr_null(found.options);
}

START_TEST(test_add_find_remove)
{
	expect("/run", "prod", NULL);
	ck_assert_int_eq(add("/run", "prod", "dp32", NULL), 0);
	ck_assert_int_eq(add("/run", "small", "dp1-zero1", NULL), 0);
	expect("/run", "prod", "dp32");
	expect("/run", "small", "dp1-zero1");
	expect("/other", "prod", NULL);
	ck_assert_int_eq(add("/run", "prod", "dp8", NULL), 0);
	expect("/run", "prod", "dp8");
	ck_assert_int_eq(cfs_registry_remove("/run", "prod", NULL), 0);
	expect("/run", "prod", NULL);
	expect("/run", "small", "dp1-zero1");
	ck_assert_int_eq(cfs_registry_remove("/run", "prod", NULL), -ENOENT);
	ck_assert_int_eq(cfs_registry_remove("/other", "x", NULL), -ENOENT);
}
END_TEST

START_TEST(test_refused)
{
	struct cfs_error err;

	ck_assert_int_eq(add("/r", "dp4", "dp8", &err), -EINVAL);
	ck_assert_int_eq(add("/r", "a/b", "dp8", &err), -EINVAL);
	ck_assert_int_eq(add("/r", "", "dp8", &err), -EINVAL);
	ck_assert_int_eq(add("/r", "@x", "dp8", &err), -EINVAL);
	ck_assert_int_eq(add("/r", "x", "turbo", &err), -EINVAL);
	expect("/r", "x", NULL);
}
END_TEST

/* Options lie beside the request, and a view without them as it always was. */
START_TEST(test_options)
{
	static const char text[] = "{\"boundaries\":[0,4,9]}";
	struct cfs_registry_entry entry = {strdup("wide"), strdup("pp2"),
					   strdup(text)};
	struct cfs_registry_entry found;
	struct cfs_error err = {.text = ""};

	ck_assert_int_eq(cfs_registry_add("/run", &entry, &err), 0);
	ck_assert_int_eq(add("/run", "plain", "dp2", &err), 0);
	ck_assert_int_eq(cfs_registry_find("/run", "wide", &found), 0);
	ck_assert_str_eq(found.request, "pp2");
	ck_assert_str_eq(found.options, text);
	cfs_registry_entry_fini(&found);
	expect("/run", "plain", "dp2");
	ck_assert_int_eq(add("/run", "wide", "pp4", &err), 0);
	expect("/run", "wide", "pp4");
	entry.options[2] = 'x';
	ck_assert_int_eq(cfs_registry_add("/run", &entry, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "'xoundaries'"));
	cfs_registry_entry_fini(&entry);
}
END_TEST

/* What would no longer be read is not written. */
START_TEST(test_full)
{
	struct cfs_error err = {.text = ""};
	char *text = malloc(100000);
	struct cfs_registry_entry found;
	int r = 0, n;
	size_t len = (size_t)sprintf(text, "{\"rules\":[");

	for (n = 0; n < 700; n++)
		len += (size_t)sprintf(text + len,
				       "%s{\"name\":\"mlp.%040d\","
				       "\"is\":\"rows\"}",
				       n ? "," : "", n);
	(void)sprintf(text + len, "]}");
	for (n = 0; !r && n < 40; n++) {
		char name[16];
		struct cfs_registry_entry e;

		(void)snprintf(name, sizeof(name), "v%d", n);
		e = (struct cfs_registry_entry){strdup(name), strdup("pp2"),
						strdup(text)};
		r = cfs_registry_add("/full", &e, &err);
		cfs_registry_entry_fini(&e);
	}
	ck_assert_int_eq(r, -EFBIG);
	ck_assert_int_gt(n, 10);
	ck_assert_int_eq(cfs_registry_find("/full", "v0", &found), 0);
	ck_assert_str_eq(found.options, text);
	cfs_registry_entry_fini(&found);
	ck_assert_int_eq(cfs_registry_remove("/full", "v1", NULL), 0);
	free(text);
}
END_TEST

static int count(void *arg, const struct cfs_registry_entry *entry)
{
	ck_assert_ptr_nonnull(entry->name);
	ck_assert_str_eq(entry->request, "dp2");
	++*(int *)arg;
	return 0;
}

START_TEST(test_list)
{
	int n = 0;

	ck_assert_int_eq(cfs_registry_list("/run", count, &n, NULL), 0);
	ck_assert_int_eq(n, 0);
	ck_assert_int_eq(add("/run", "a", "dp2", NULL), 0);
	ck_assert_int_eq(add("/run", "b", "dp2", NULL), 0);
	ck_assert_int_eq(cfs_registry_list("/run", count, &n, NULL), 0);
	ck_assert_int_eq(n, 2);
}
END_TEST

static void overwrite_all(const char *text)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "for f in %s/views-*.json; do printf '%s' > $f; done", dir,
		 text);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(test_damaged)
{
	static const char *const texts[] = {
		"", "{", "[]", "{\"run\": 1}", "{\"run\": \"/run\"}", "null"};
	struct cfs_error err;
	struct cfs_registry_entry found;

	ck_assert_int_eq(add("/run", "a", "dp2", NULL), 0);
	for (size_t i = 0; i < CFS_ARRAY_SIZE(texts); i++) {
		overwrite_all(texts[i]);
		ck_assert_int_eq(cfs_registry_find("/run", "a", &found),
				 -EBADMSG);
		ck_assert_int_eq(add("/run", "b", "dp2", &err), -EBADMSG);
	}
}
END_TEST

/* Adds from several processes: none is lost. */
START_TEST(test_concurrent)
{
	enum {
		N = 8
	};
	int n = 0, status;

	for (int i = 0; i < N; i++)
		if (!fork()) {
			char name[16];

			snprintf(name, sizeof(name), "v%d", i);
			_exit(add("/run", name, "dp2", NULL) != 0);
		}
	for (int i = 0; i < N; i++) {
		ck_assert_int_ge(wait(&status), 0);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(cfs_registry_list("/run", count, &n, NULL), 0);
	ck_assert_int_eq(n, N);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("registry");
	TCase *t = tcase_create("registry");

	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, test_add_find_remove);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_options);
	tcase_add_test(t, test_full);
	tcase_add_test(t, test_list);
	tcase_add_test(t, test_damaged);
	tcase_add_test(t, test_concurrent);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
