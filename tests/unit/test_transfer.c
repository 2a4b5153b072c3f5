/* send and receive: the chunks one has, a stream damaged on its way. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/pins.h"
#include "store/ns/ns.h"
#include "store/util/digest.h"
#include "tests/unit/control_bed.h"

START_TEST(test_chunkset)
{
	_cleanup_(cfs_chunkset_free) struct cfs_chunkset set = {0};
	struct cfs_chunkset_item *item;
	struct cfs_digest d;
	uint32_t i;
	bool fresh;

	for (i = 0; i < 5000; i++) {
		cfs_digest_of(&i, sizeof(i), &d);
		ck_assert_ptr_null(cfs_chunkset_get(&set, &d));
		ck_assert_int_eq(cfs_chunkset_put(&set, &d, &item, &fresh), 0);
		ck_assert(fresh);
		item->owner = i;
	}
	for (i = 0; i < 5000; i++) {
		cfs_digest_of(&i, sizeof(i), &d);
		ck_assert_int_eq(cfs_chunkset_put(&set, &d, &item, &fresh), 0);
		ck_assert(!fresh);
		ck_assert_uint_eq(item->owner, i);
	}
	ck_assert_uint_eq(set.n, 5000);
}
END_TEST

static int send_to_file(struct cfs_verb_context *context, const char *arguments,
			const char *file)
{
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, 1};
	struct cfs_error err = {""};
	int r;

	caller.fds[0] = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(caller.fds[0], 0);
	context->caller = &caller;
	r = run_verb(context, "send", arguments, NULL, &err);
	close(caller.fds[0]);
	return r;
}

static uint8_t *read_file(const char *file, size_t *len_out)
{
	FILE *f = fopen(file, "rb");
	struct stat st;
	uint8_t *data;

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fstat(fileno(f), &st), 0);
	data = malloc((size_t)st.st_size);
	ck_assert_ptr_nonnull(data);
	*len_out = fread(data, 1, (size_t)st.st_size, f);
	ck_assert_uint_eq(*len_out, (size_t)st.st_size);
	(void)fclose(f);
	return data;
}

static int receive_bytes(struct cfs_verb_context *context, const void *data,
			 size_t len, const char *arguments)
{
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, 1};
	struct cfs_error err = {""};
	const char *file = below("damaged");
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600), r;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	caller.fds[0] = fd;
	context->caller = &caller;
	r = run_verb(context, "receive", arguments, NULL, &err);
	close(fd);
	return r;
}

/* Some bits of a stored chunk say nothing (zstd's, for one): what was taken
 * must be what was sent, then, and goes again. */
static void check_same(struct cfs_opened *o, struct cfs_verb_context *context,
		       const uint8_t *want, size_t want_len)
{
	_cleanup_(cfs_freep) uint8_t *got = NULL;
	struct stat st;
	size_t len;

	ck_assert_int_eq(
		send_to_file(context, "{\"path\":\"a/b\"}", below("again")), 0);
	got = read_file(below("again"), &len);
	ck_assert_uint_eq(len, want_len);
	ck_assert_mem_eq(got, want, len);
	ck_assert_int_eq(cfs_ns_walk(o->ns, "a", &st), 0);
	ck_assert_int_eq(cfs_nstree_remove(o->ns, st.st_ino, "b"), 0);
}

/* Whatever is done to a stream, nothing else than what was sent comes of it. */
START_TEST(test_receive_damaged)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context;
	unsigned seed = (unsigned)time(NULL), i, taken = 0;
	_cleanup_(cfs_freep) uint8_t *data = NULL, *copy = NULL;
	struct stat st;
	size_t len;

	printf("seed %u\n", seed);
	srandom(seed);
	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	ck_assert_int_eq(
		send_to_file(&context, "{\"path\":\"run\"}", below("stream")),
		0);
	data = read_file(below("stream"), &len);
	copy = malloc(len);
	ck_assert_ptr_nonnull(copy);
	for (i = 0; i < 300; i++) {
		size_t n = len;

		memcpy(copy, data, len);
		if (i % 3 == 0)
			n = (size_t)random() % len;
		else
			copy[(size_t)random() % (i % 3 == 1 ? len : 512)] ^=
				(uint8_t)(1 + random() % 255);
		if (receive_bytes(&context, copy, n, "{\"path\":\"a/b\"}") ==
		    0) {
			ck_assert_uint_eq(n, len);
			taken++;
			check_same(&o, &context, data, len);
		}
		ck_assert_int_eq(cfs_ns_walk(o.ns, "a/b", &st), -ENOENT);
	}
	ck_assert_uint_lt(taken, 30);
	ck_assert_int_eq(
		receive_bytes(&context, data, len, "{\"path\":\"a/b\"}"), 0);
	ck_assert_int_eq(cfs_ns_walk(o.ns, "a/b/" STEP, &st), 0);
	ck_assert_int_eq(cfs_ns_walk(o.ns, CFS_NSTREE_TRASH, &st), -ENOENT);
	ck_assert_int_eq(
		receive_bytes(&context, data, len, "{\"path\":\"a/b\"}"),
		-EEXIST);
	run_ok(&context, "fsck", "{}");
	cfs_opened_closep(&o);
}
END_TEST

/* While a stream is read, another one takes its place. */
struct late {
	struct cfs_verb_context *context;
	const uint8_t *data;
	size_t len;
};

static bool take_its_place(void *arg, uint64_t done, uint64_t total,
			   const char *what)
{
	struct late *late = arg;
	struct cfs_verb_context *context = late->context;

	(void)done;
	(void)total;
	(void)what;
	late->context = NULL;
	if (context)
		ck_assert_int_eq(receive_bytes(context, late->data, late->len,
					       "{\"path\":\"a/b\"}"),
				 0);
	return true;
}

/* The one that comes too late leaves the other's pins, not its own. */
START_TEST(test_two_to_one_place)
{
	struct cfs_opened o = {0};
	struct cfs_verb_context context, other;
	_cleanup_(cfs_freep) uint8_t *first = NULL;
	struct late late = {.context = &other};
	struct cfs_verb_reply reply = {.progress = take_its_place,
				       .arg = &late};
	struct cfs_verb_caller caller = {
		geteuid(), getegid(), false, {-1, -1}, 1};
	_cleanup_(cfs_freep) char *file = strdup(below("late"));
	cJSON *arguments = cJSON_Parse("{\"path\":\"a/b\"}");
	cJSON *result = cJSON_CreateObject();
	struct cfs_error err = {""};

	ck_assert(file && arguments && result);
	open_store(new_store("s"), &o, &context);
	import_golden(&context);
	run_ok(&context, "import",
	       "{\"path\":\"run\",\"sources\":[{\"path\":\"" GOLDEN "/" STEP
	       "\",\"name\":\"global_step3\"}]}");
	run_ok(&context, "pin", "{\"path\":\"run/" STEP "\"}");
	ck_assert_int_eq(
		send_to_file(&context, "{\"path\":\"run\"}", below("stream")),
		0);
	first = read_file(below("stream"), &late.len);
	late.data = first;
	run_ok(&context, "pin", "{\"path\":\"run/global_step3\"}");
	ck_assert_int_eq(send_to_file(&context, "{\"path\":\"run\"}", file), 0);
	caller.fds[0] = open(file, O_RDONLY);
	ck_assert_int_ge(caller.fds[0], 0);
	other = context;
	context.caller = &caller;
	ck_assert_int_eq(cfs_verb_run(&context, "receive", arguments, &reply,
				      result, &err),
			 -EEXIST);
	ck_assert_ptr_null(late.context);
	ck_assert_int_eq(cfs_pins_has(o.store, "a/b/" STEP), 1);
	ck_assert_int_eq(cfs_pins_has(o.store, "a/b/global_step3"), 0);
	close(caller.fds[0]);
	cJSON_Delete(arguments);
	cJSON_Delete(result);
	cfs_opened_closep(&o);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("transfer");
	TCase *t = tcase_create("transfer");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_chunkset);
	tcase_add_test(t, test_receive_damaged);
	tcase_add_test(t, test_two_to_one_place);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
