/* Ranks that use the library over a daemon in this process. */
#ifndef CFS_RANK_CLIENT_BED_H
#define CFS_RANK_CLIENT_BED_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <ckptfs/rank.h>

#include "fs/rank/server.h"
#include "store/ns/ns.h"
#include "tests/unit/control_bed.h"
#include "tests/unit/rank_client_use.h"

struct daemon {
	char path[PATH_MAX], run[PATH_MAX + 8];
	struct cfs_opened opened;
	struct cfs_verb_context context;
	struct cfs_rank_server *server;
	struct cfs_control *control;
};

static inline void daemon_start(struct daemon *d)
{
	struct cfs_error err = {""};
	int r;

	snprintf(d->run, sizeof(d->run), "%s/run", d->path);
	open_store(d->path, &d->opened, &d->context);
	d->server = cfs_rank_server_new();
	ck_assert_ptr_nonnull(d->server);
	d->context.session = cfs_rank_server_session;
	d->context.session_arg = d->server;
	r = cfs_control_start(d->path, &d->context, &d->control, &err);
	ck_assert_msg(r == 0, "%s", err.text);
}

static inline void daemon_new(struct daemon *d)
{
	snprintf(d->path, sizeof(d->path), "%s", new_store("s"));
	ck_assert_int_eq(chmod(d->path, 0755), 0);
	daemon_start(d);
}

static inline void daemon_stop(struct daemon *d)
{
	cfs_rank_server_stop(d->server);
	cfs_control_stop(d->control);
	cfs_rank_server_free(d->server);
	ck_assert_int_eq(cfs_opened_close(&d->opened), 0);
}

static inline void scrub_clean(struct daemon *d)
{
	struct cfs_error err;
	cJSON *result = NULL;
	int r = run_verb(&d->context, "scrub", "{}", &result, &err);

	ck_assert_msg(r == 0, "scrub: %d %s", r, err.text);
	cJSON_Delete(result);
}

/* ---- what stands in the store ---- */

static inline bool is_there(struct daemon *d, const char *path)
{
	struct stat st;
	int r = cfs_ns_walk(d->opened.ns, path, &st);

	ck_assert_msg(r == 0 || r == -ENOENT, "%s: %d", path, r);
	return r == 0;
}

static inline void expect_file(struct daemon *d, const char *path,
			       const void *data, size_t len)
{
	struct cfs_ns_file *file = NULL;
	uint8_t *got = malloc(len + 1);
	struct stat st;

	ck_assert_msg(cfs_ns_walk(d->opened.ns, path, &st) == 0, "%s", path);
	ck_assert_msg((size_t)st.st_size == len, "%s: %zu", path,
		      (size_t)st.st_size);
	ck_assert_int_eq(
		cfs_ns_open_file(d->opened.ns, st.st_ino, O_RDONLY, &file), 0);
	ck_assert_int_eq(cfs_ns_pread(file, got, len, 0), (ssize_t)len);
	ck_assert_msg(!len || !memcmp(got, data, len), "%s differs", path);
	cfs_ns_close_file(file);
	free(got);
}

/* ---- ranks ---- */

#define ok(call)                                                               \
	do {                                                                   \
		int ok_r = (call);                                             \
                                                                               \
		ck_assert_msg(ok_r == 0, "%s: %d %s", #call, ok_r,             \
			      cfs_rank_error());                               \
	} while (0)
#define fails(call, want, part)                                                \
	do {                                                                   \
		int fails_r = (call);                                          \
                                                                               \
		ck_assert_msg(fails_r == (want) &&                             \
				      strstr(cfs_rank_error(), (part)),        \
			      "%s: %d %s", #call, fails_r, cfs_rank_error());  \
	} while (0)

static inline struct cfs_rank *open_alone(struct daemon *d)
{
	struct cfs_rank_options o = {.size = sizeof(o), .ring_bytes = RING};
	struct cfs_rank *rank = NULL;

	ok(cfs_rank_open(d->run, &o, &rank));
	return rank;
}

static inline struct cfs_rank_save *begin(struct cfs_rank *rank,
					  const char *step, const char *format)
{
	struct cfs_rank_save_options o = {.size = sizeof(o), .format = format};
	struct cfs_rank_save *save = NULL;

	ok(cfs_rank_save_begin(rank, step, &o, &save));
	return save;
}

#endif
