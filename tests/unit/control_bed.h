/* A directory with stores in it, opened as the verbs find them. */
#ifndef CFS_CONTROL_BED_H
#define CFS_CONTROL_BED_H

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/daemon/open.h"
#include "fs/daemon/verb.h"
#include "store/core/store.h"
#include "tests/test.h"

#define GOLDEN CFS_TEST_DATA "/deepspeed-0.16.5/bf16-g3-fused_z1-dp8"
#define STEP   "global_step7"

static char top[PATH_MAX];

static inline void teardown(void)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", top);
	ck_assert_int_eq(system(command), 0);
}

static inline void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%s/ckptfs-control-XXXXXX",
		 tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(top));
	ck_assert_int_eq(chmod(top, 0755), 0);
}

static inline const char *below(const char *name)
{
	static char paths[4][PATH_MAX + 512];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", top, name);
	return path;
}

static inline const char *new_store(const char *name)
{
	struct cfs_store_init_options options = {0};
	struct cfs_error err = {""};
	const char *path = below(name);

	ck_assert_msg(cfs_store_init(path, &options, &err) == 0, "%s",
		      err.text);
	return path;
}

static inline void open_store(const char *path, struct cfs_opened *o,
			      struct cfs_verb_context *context)
{
	static const struct cfs_verb_caller self = {0, 0, false, {-1, -1}, 0};
	struct cfs_error err = {""};

	ck_assert_msg(cfs_opened_open(path, NULL, o, &err) == 0, "%s",
		      err.text);
	cfs_opened_context(o, context);
	context->caller = &self;
}

static inline int run_verb(struct cfs_verb_context *context, const char *verb,
			   const char *arguments, cJSON **result_out,
			   struct cfs_error *err)
{
	cJSON *parsed = cJSON_Parse(arguments);
	cJSON *result = cJSON_CreateObject();
	int r;

	ck_assert_ptr_nonnull(parsed);
	err->text[0] = 0;
	r = cfs_verb_run(context, verb, parsed, NULL, result, err);
	cJSON_Delete(parsed);
	if (result_out && !r)
		*result_out = result;
	else
		cJSON_Delete(result);
	return r;
}

static inline void run_ok(struct cfs_verb_context *context, const char *verb,
			  const char *arguments)
{
	struct cfs_error err;
	int r = run_verb(context, verb, arguments, NULL, &err);

	ck_assert_msg(r == 0, "%s: %d %s", verb, r, err.text);
}

static inline void import_golden(struct cfs_verb_context *context)
{
	run_ok(context, "import",
	       "{\"path\":\"\",\"sources\":[{\"path\":\"" GOLDEN
	       "\",\"name\":\"run\"}]}");
}

#endif
