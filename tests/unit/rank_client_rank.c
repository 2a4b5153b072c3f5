/*
 * A rank's process, for test_rank_client_ranks: does what it is told by name,
 * and says how that ended.
 *
 *   rank_client_rank WHAT RUN RANK RANKS SAID READY FD...
 *
 * SAID, READY: descriptors for its result and for a byte once it is open.
 * FD: one to each other rank (rank 0), or to rank 0.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "store/util/base.h"
#include "tests/unit/rank_client_use.h"

static int ready_fd;

static void tell_ready(void)
{
	if (write(ready_fd, "", 1) != 1)
		abort();
}

/* A broadcast over socketpairs: rank 0 has the others' ends. */
struct net {
	uint32_t rank, n;
	int fds[RANKS];
};

static int net_broadcast(void *arg, void *data, size_t len)
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

static void say(struct said *said, int r)
{
	said->r = r;
	snprintf(said->text, sizeof(said->text), "%s",
		 r ? cfs_rank_error() : "");
}

static int open_rank(const char *run, const struct cfs_rank_comm *comm,
		     struct cfs_rank **out)
{
	struct cfs_rank_options o = {.size = sizeof(o),
				     .comm = comm,
				     .ring_bytes = RING,
				     .timeout_s = 60};

	return cfs_rank_open(run, &o, out);
}

static int begin_step(struct cfs_rank *rank, const char *step,
		      struct cfs_rank_save **out)
{
	struct cfs_rank_save_options o = {
		.size = sizeof(o), .format = "files", .replace = 1};

	return cfs_rank_save_begin(rank, step, &o, out);
}

static int write_own(struct cfs_rank_save *save, uint32_t rank)
{
	_cleanup_(cfs_freep) uint8_t *data = bytes_of(rank);
	struct cfs_rank_file *file = NULL;
	char name[32];
	int r, i;

	snprintf(name, sizeof(name), "part-%u", rank);
	r = cfs_rank_file_begin(save, name, &file);
	for (i = 0; !r && i < 16; i++)
		r = cfs_rank_file_write(file, data + i * (RING / 8), RING / 8,
					CFS_RANK_HOST, NULL);
	return r ? r : cfs_rank_file_end(file);
}

static void save_all(const char *run, const struct cfs_rank_comm *comm,
		     struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r)
		tell_ready();
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

static void one_bad_put(const char *run, const struct cfs_rank_comm *comm,
			struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r && comm->rank == 1 &&
	    put_flat(save, "w", "weight", CFS_RANK_U8, 4, 3, 2, "xx") !=
		    -EINVAL)
		r = -EIO;
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

/* What is wrong without asking the daemon the others hear of, too. */
static void no_options(const char *run, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r && comm->rank == 2)
		r = cfs_rank_save_begin(rank, "global_step1", NULL, &save);
	else if (!r)
		r = begin_step(rank, "global_step1", &save);
	say(said, r);
	cfs_rank_close(rank);
}

/* Those that go on putting hear early that it is in vain. */
static void told_early(const char *run, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank_file *file = NULL;
	struct cfs_rank *rank = NULL;
	char name[32];
	int r, i;

	r = open_rank(run, comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	snprintf(name, sizeof(name), "part-%u", comm->rank);
	if (!r && comm->rank != 1)
		r = cfs_rank_file_begin(save, name, &file);
	if (!r && comm->rank == 1)
		r = cfs_rank_put_object(save, "", "x", 1);
	for (i = 0; !r && i < 3000; i++) {
		static uint8_t block[SLOT];

		r = cfs_rank_file_write(file, block, sizeof(block),
					CFS_RANK_HOST, NULL);
	}
	if (!r)
		strcpy(said->text, "it was not told");
	/* told as early as by begin, it has no save */
	if (r && save && !cfs_rank_commit(save))
		(void)cfs_rank_test(save); /* the result is the same */
	if (r)
		say(said, save ? cfs_rank_wait(save) : r);
	cfs_rank_close(rank);
}

static int put_next(struct cfs_rank_save *save)
{
	static unsigned n;
	char name[32];

	snprintf(name, sizeof(name), "o%u", n++);
	return cfs_rank_put_object(save, name, "x", 1);
}

/* The store is unmounted while ranks do all kinds of things. */
static void is_unmounted(const char *run, const struct cfs_rank_comm *comm,
			 struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank_load *load = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		tell_ready();
	if (!r && !comm->rank) { /* waits for the others */
		r = cfs_rank_commit(save);
		if (!r)
			r = cfs_rank_wait(save);
	}
	while (!r && comm->rank == 1) { /* is putting */
		r = put_next(save);
		usleep(1000);
	}
	while (!r && comm->rank == 2) { /* asks */
		r = cfs_rank_load_open(rank, "none", &load);
		if (r == -ENOENT)
			r = 0;
	}
	while (!r && comm->rank == 3) { /* only looks now and then */
		usleep(300000);
		r = cfs_rank_wait_copied(save);
	}
	say(said, r);
	cfs_rank_close(rank);
}

static void other_step(const char *run, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r)
		r = begin_step(
			rank, comm->rank == 2 ? "global_step2" : "global_step1",
			&save);
	say(said, r);
	cfs_rank_close(rank);
}

/* Rank 1 cannot open at all: nobody waits for it until the time is up. */
static void other_run(const char *run, const struct cfs_rank_comm *comm,
		      struct said *said)
{
	struct cfs_rank_options o = {.size = sizeof(o),
				     .comm = comm,
				     .ring_bytes = RING,
				     .timeout_s = 60};
	struct cfs_rank *rank = NULL;

	say(said, cfs_rank_open(comm->rank == 1 ? "/nowhere" : run, &o, &rank));
	cfs_rank_close(rank);
}

static void nobody_home(const char *run, const struct cfs_rank_comm *comm,
			struct said *said)
{
	struct cfs_rank *rank = NULL;

	say(said, open_rank(run, comm, &rank));
	cfs_rank_close(rank);
}

static void one_aborts(const char *run, const struct cfs_rank_comm *comm,
		       struct said *said)
{
	struct cfs_rank_save *save = NULL;
	struct cfs_rank *rank = NULL;
	int r;

	r = open_rank(run, comm, &rank);
	if (!r)
		r = begin_step(rank, "global_step1", &save);
	if (!r)
		r = write_own(save, comm->rank);
	if (!r && comm->rank == 2) {
		cfs_rank_abort(save, "the loss is not a number");
		cfs_rank_close(rank);
		return;
	}
	if (!r)
		r = cfs_rank_commit(save);
	if (!r)
		r = cfs_rank_wait(save);
	say(said, r);
	cfs_rank_close(rank);
}

static const struct {
	const char *name;
	void (*fn)(const char *run, const struct cfs_rank_comm *comm,
		   struct said *said);
} acts[] = {
	{"save_all", save_all},		{"one_bad_put", one_bad_put},
	{"no_options", no_options},	{"told_early", told_early},
	{"is_unmounted", is_unmounted}, {"other_step", other_step},
	{"other_run", other_run},	{"nobody_home", nobody_home},
	{"one_aborts", one_aborts},
};

int main(int argc, char **argv)
{
	struct said said = {0, ""};
	struct net net = {0};
	struct cfs_rank_comm comm = {
		.size = sizeof(comm), .broadcast = net_broadcast, .arg = &net};
	size_t i;

	if (argc < 7)
		return 2;
	comm.rank = net.rank = (uint32_t)atoi(argv[3]);
	comm.n_ranks = net.n = (uint32_t)atoi(argv[4]);
	ready_fd = atoi(argv[6]);
	for (i = 7; i < (size_t)argc; i++)
		net.fds[net.rank ? 0 : i - 6] = atoi(argv[i]);
	for (i = 0; i < CFS_ARRAY_SIZE(acts); i++) {
		if (strcmp(acts[i].name, argv[1]) != 0)
			continue;
		acts[i].fn(argv[2], &comm, &said);
		return write(atoi(argv[5]), &said, sizeof(said)) !=
		       sizeof(said);
	}
	return 2;
}
