/* Ranks that use the library, as threads or processes, over a daemon in this
 * process. */
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

#define RING  (1u << 20) /* 8 slots of 128 KiB */
#define SLOT  (128u << 10)
#define RANKS 8

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

static inline uint8_t *random_bytes(uint32_t seed, size_t len)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
	uint8_t *data = malloc(len + 8);
	size_t i;

	for (i = 0; i < len; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
	return data;
}

static inline int put_flat(struct cfs_rank_save *save, const char *name,
			   const char *role, uint32_t dtype, uint64_t all,
			   uint64_t from, uint64_t n, const void *data)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = name,
				    .role = role,
				    .dtype = dtype,
				    .ndim = 1,
				    .shape = {all},
				    .extent = {all},
				    .flat_start = from,
				    .flat_count = n};

	return cfs_rank_put(save, &t, data, CFS_RANK_HOST, NULL);
}

/* A broadcast over socketpairs: rank 0 has the others' ends. */
struct net {
	uint32_t rank, n;
	int fds[RANKS];
};

static inline int net_broadcast(void *arg, void *data, size_t len)
{
	struct net *net = arg;
	uint32_t i;

	if (net->rank)
		return recv(net->fds[0], data, len, MSG_WAITALL) == (ssize_t)len
			       ? 0
			       : -EPIPE;
	for (i = 1; i < net->n; i++)
		if (send(net->fds[i], data, len, MSG_NOSIGNAL) != (ssize_t)len)
			return -EPIPE;
	return 0;
}

/* What a rank's process says at its end. */
struct said {
	int r;
	char text[640];
};

typedef void rank_fn(struct daemon *d, const struct cfs_rank_comm *comm,
		     struct said *said);

struct ranks {
	uint32_t n;
	pid_t pids[RANKS];
	int said[RANKS];
	int ready; /* a byte from each rank that is open */
};

static int ready_fd = -1;

static inline void tell_ready(void)
{
	ck_assert_int_eq(write(ready_fd, "", 1), 1);
}

/* Before that it is the communicator's to notice that one is gone. */
static inline void ranks_wait_ready(struct ranks *ranks)
{
	char byte;
	uint32_t i;

	for (i = 0; i < ranks->n; i++)
		if (read(ranks->ready, &byte, 1) != 1)
			break;
}

static inline void be_rank(struct daemon *d, struct net *net, rank_fn *fn,
			   int out)
{
	struct cfs_rank_comm comm = {.size = sizeof(comm),
				     .rank = net->rank,
				     .n_ranks = net->n,
				     .broadcast = net_broadcast,
				     .arg = net};
	struct said said = {0, ""};

	fn(d, &comm, &said);
	_exit(write(out, &said, sizeof(said)) == sizeof(said) ? 0 : 1);
}

static inline void ranks_start(struct ranks *ranks, struct daemon *d,
			       uint32_t n, rank_fn *fn)
{
	int pairs[RANKS][2], out[2], ready[2];
	struct net net = {.n = n};
	uint32_t i, j;

	ranks->n = n;
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	ready_fd = ready[1];
	ranks->ready = ready[0];
	for (i = 1; i < n; i++)
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]),
				 0);
	for (i = 0; i < n; i++) {
		ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
		ranks->pids[i] = fork();
		ck_assert_int_ge(ranks->pids[i], 0);
		if (!ranks->pids[i]) {
			net.rank = i;
			for (j = 1; j < n; j++)
				net.fds[j] = pairs[j][0];
			if (i)
				net.fds[0] = pairs[i][1];
			be_rank(d, &net, fn, out[1]);
		}
		close(out[1]);
		ranks->said[i] = out[0];
	}
	for (i = 1; i < n; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	close(ready[1]);
}

/* false: it died and said nothing. */
static inline bool rank_end(struct ranks *ranks, uint32_t i, struct said *said)
{
	bool spoke = read(ranks->said[i], said, sizeof(*said)) == sizeof(*said);

	close(ranks->said[i]);
	if (i + 1 == ranks->n)
		close(ranks->ready);
	ck_assert_int_eq(waitpid(ranks->pids[i], NULL, 0), ranks->pids[i]);
	return spoke;
}

#endif
