/*
 * What the commit of a save by many ranks costs: planning and metadata.
 *
 * The puts of all ranks are staged as the daemon stages them, in this process;
 * then they are committed.  Phases are told apart at the linker: the functions
 * that begin and end them are wrapped (--wrap), the product knows nothing of
 * it.
 *
 * usage: commitbench STORE FORMAT [ranks N] [tensors N] [elements N]
 *                    [layout slices|partition] [dp N]
 *
 * STORE      made here; must not be there
 * tensors    of a rank: parameters with three roles each
 * elements   of one role of a tensor, for each rank
 * layout     slices: each rank has a piece of every tensor; partition: a
 *            contiguous one of all of them, as ZeRO has it: 1/ranks of as many
 *            elements, in tensors and pieces as they fall
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "fs/container/pickle.h"
#include "fs/daemon/open.h"
#include "fs/format/puts_tensors.h"
#include "fs/rank/assemble.h"
#include "fs/rank/stage_internal.h"
#include "store/core/store.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"
#include "store/util/error.h"

static double now(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static _Noreturn void die(const char *what, int r, const struct cfs_error *err)
{
	(void)fprintf(stderr, "commitbench: %s: %s\n", what,
		      err && err->text[0] ? err->text : strerror(-r));
	exit(1);
}

/* ---- phases ---- */

/* Elapsed seconds; what threads do at once adds up.  Inner ones are part of
 * outer ones. */
enum {
	SYNC,
	FORMAT,
	GROUP,
	UNIVERSAL,
	MADE,
	PUBLISH,
	PHASES
};
static const char *const phase_names[PHASES] = {
	"sync", "format", "group", "universal", "make_files", "publish"};
static _Atomic uint64_t phase_ns[PHASES], phase_calls[PHASES];

static int ended(unsigned phase, double start, int r)
{
	double ns = (now(CLOCK_MONOTONIC) - start) * 1e9;

	(void)atomic_fetch_add(&phase_ns[phase], (uint64_t)ns);
	(void)atomic_fetch_add(&phase_calls[phase], 1);
	return r;
}

#define PHASE(phase, name, params, args)                                       \
	int __real_##name params;                                              \
	int __wrap_##name params;                                              \
	int __wrap_##name params                                               \
	{                                                                      \
		double start = now(CLOCK_MONOTONIC);                           \
                                                                               \
		return ended(phase, start, __real_##name args);                \
	}

PHASE(SYNC, cfs_ns_sync, (struct cfs_ns * ns), (ns))
PHASE(FORMAT, cfs_stage_format,
      (struct cfs_stage * stage, struct cfs_error *err), (stage, err))
PHASE(GROUP, cfs_put_tensors_init,
      (struct cfs_put_tensors * t, const struct cfs_puts *puts,
       struct cfs_error *err),
      (t, puts, err))
PHASE(UNIVERSAL, cfs_puts_universal,
      (const struct cfs_puts *puts, cfs_puts_file_fn *fn, void *arg,
       struct cfs_error *err),
      (puts, fn, arg, err))
PHASE(MADE, cfs_assemble_map,
      (struct cfs_assemble * a, const char *name, struct cfs_map *map,
       struct cfs_error *err),
      (a, name, map, err))
PHASE(PUBLISH, cfs_stage_publish,
      (struct cfs_stage * stage, struct cfs_error *err), (stage, err))

/* ---- what is staged ---- */

struct job {
	const char *store, *format, *layout;
	uint32_t ranks, tensors, dp;
	uint64_t elements;
	uint64_t n_puts, bytes;
};

static const char *const roles[] = {CFS_PUT_MASTER, "exp_avg", "exp_avg_sq"};

static uint32_t n_params(const struct job *job)
{
	return CFS_MAX(job->tensors / 3, 1u);
}

static void param_name(uint32_t param, char name[64])
{
	(void)snprintf(name, 64, "module.layers.%u.weight", param);
}

/* Contents that no two puts share, and that compress a little. */
static void write_put(struct cfs_stage *stage, struct job *job,
		      const struct cfs_put *put)
{
	static uint64_t state = 88172645463325252u;
	uint64_t len = put->flat_count * cfs_dtype_size(put->dtype);
	_cleanup_(cfs_freep) uint8_t *data = malloc(len + 8);
	struct cfs_stage_stream *s = NULL;
	struct cfs_error err = {""};
	int r = data ? cfs_stage_put(stage, put, &s, &err) : -ENOMEM;

	for (uint64_t i = 0; data && i < len; i += 8) {
		uint64_t v;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		v = state & 0x00ffffff00ffffffu;
		memcpy(data + i, &v, 8);
	}
	if (!r)
		r = cfs_stage_write(s, data, len, &err);
	if (!r)
		r = cfs_stage_end(s, &err);
	if (r < 0)
		die(put->name, r, &err);
	job->n_puts++;
	job->bytes += len;
}

/* Elements [@from, @to) of the whole. */
static void put_piece(struct cfs_stage *stage, struct job *job, uint32_t rank,
		      uint32_t param, unsigned role, uint64_t from, uint64_t to)
{
	uint64_t numel = job->elements * job->ranks;
	struct cfs_put put = {.role = roles[role],
			      .dtype = CFS_F32,
			      .ndim = 2,
			      .shape = {job->ranks, job->elements},
			      .extent = {job->ranks, job->elements},
			      .flat_start = from,
			      .flat_count = CFS_MIN(to, numel) - from,
			      .rank = rank};
	char name[64];

	param_name(param, name);
	put.name = name;
	write_put(stage, job, &put);
}

static void put_slices(struct cfs_stage *stage, struct job *job, uint32_t rank)
{
	for (uint32_t p = 0; p < n_params(job); p++)
		for (unsigned role = 0; role < 3; role++)
			put_piece(stage, job, rank, p, role,
				  rank * job->elements,
				  (rank + 1) * job->elements);
}

/* The parameters one behind the other, cut in equal parts. */
static void put_partition(struct cfs_stage *stage, struct job *job,
			  uint32_t rank)
{
	uint64_t numel = job->elements * job->ranks;
	uint64_t each = job->elements * n_params(job);
	uint64_t at = rank * each, end = at + each;

	while (at < end) {
		uint64_t param = at / numel;
		uint64_t stop = CFS_MIN(end, (param + 1) * numel);

		for (unsigned role = 0; role < 3; role++)
			put_piece(stage, job, rank, (uint32_t)param, role,
				  at - param * numel, stop - param * numel);
		at = stop;
	}
}

/* Weights, of rank 0, as trainers put them. */
static void put_weights(struct cfs_stage *stage, struct job *job)
{
	for (uint32_t p = 0; p < n_params(job); p++) {
		struct cfs_put put = {.role = CFS_PUT_WEIGHT,
				      .dtype = CFS_BF16,
				      .ndim = 2,
				      .shape = {job->ranks, job->elements},
				      .extent = {job->ranks, job->elements},
				      .flat_count = job->ranks * job->elements};
		char name[64];

		param_name(p, name);
		put.name = name;
		write_put(stage, job, &put);
	}
}

static void put_groups(struct cfs_stage *stage, const struct job *job)
{
	_cleanup_(cfs_pickle_freep) struct cfs_pickle *doc =
		cfs_pickle_new(NULL);
	_cleanup_(cfs_buf_free) struct cfs_buf bytes = CFS_BUF_INIT;
	struct cfs_node *list = cfs_node_list(doc), *names = cfs_node_list(doc);
	struct cfs_node *group = cfs_node_dict(doc);
	struct cfs_stage_stream *s = NULL;
	struct cfs_error err = {""};
	int r;

	for (uint32_t p = 0; p < n_params(job); p++) {
		char name[64];

		param_name(p, name);
		cfs_node_append(doc, names, cfs_node_str(doc, name));
	}
	cfs_node_set_str(doc, group, "lr", cfs_node_float(doc, 0.5));
	cfs_node_set_str(doc, group, "step", cfs_node_int(doc, 7));
	cfs_node_set_str(doc, group, "params", names);
	cfs_node_append(doc, list, group);
	r = cfs_pickle_encode(list, NULL, &bytes, &err);
	if (!r)
		r = cfs_stage_object(stage, 0, "param_groups", &s, &err);
	if (!r)
		r = cfs_stage_write(s, bytes.data, bytes.len, &err);
	if (!r)
		r = cfs_stage_end(s, &err);
	if (r < 0)
		die("param_groups", r, &err);
}

/* "files": each rank writes one itself, of as many bytes. */
static void write_file(struct cfs_stage *stage, struct job *job, uint32_t rank)
{
	uint64_t len = job->elements * job->tensors * sizeof(float);
	_cleanup_(cfs_freep) uint8_t *data = calloc(1, len + 1);
	struct cfs_stage_stream *s = NULL;
	struct cfs_error err = {""};
	char name[64];
	int r;

	(void)snprintf(name, sizeof(name), "rank_%05u.bin", rank);
	r = data ? cfs_stage_file(stage, rank, name, &s, &err) : -ENOMEM;
	if (!r) {
		memset(data, (int)(rank % 251), len);
		memcpy(data, &rank, CFS_MIN(len, sizeof(rank)));
		r = cfs_stage_write(s, data, len, &err);
	}
	if (!r)
		r = cfs_stage_end(s, &err);
	if (r < 0)
		die(name, r, &err);
	job->n_puts++;
	job->bytes += len;
}

static void stage_all(struct cfs_stage *stage, struct job *job)
{
	bool slices = !strcmp(job->layout, "slices");
	bool files = !strcmp(job->format, "files");

	for (uint32_t rank = 0; rank < job->ranks; rank++) {
		if (files)
			write_file(stage, job, rank);
		else if (slices)
			put_slices(stage, job, rank);
		else
			put_partition(stage, job, rank);
	}
	if (files)
		return;
	put_weights(stage, job);
	put_groups(stage, job);
}

/* ---- the measurement ---- */

static void print(const struct job *job, double staged, double total,
		  double cpu, double freed)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	(void)printf("{\"format\": \"%s\", \"layout\": \"%s\", \"ranks\": %u, "
		     "\"puts\": %llu, \"bytes\": %llu, \"stage\": %.3f, "
		     "\"commit\": %.3f, \"cpu\": %.3f, \"free\": %.3f, "
		     "\"rss\": %ld",
		     job->format, job->layout, job->ranks,
		     (unsigned long long)job->n_puts,
		     (unsigned long long)job->bytes, staged, total, cpu, freed,
		     usage.ru_maxrss * 1024);
	for (unsigned i = 0; i < PHASES; i++)
		(void)printf(", \"%s\": %.3f, \"%s_calls\": %llu",
			     phase_names[i], (double)phase_ns[i] * 1e-9,
			     phase_names[i],
			     (unsigned long long)phase_calls[i]);
	(void)printf("}\n");
}

static void measure(struct cfs_verb_context *context, struct job *job)
{
	const struct cfs_stage_options options = {
		.run = "run",
		.step = "global_step7",
		.format = job->format,
		.n_ranks = job->ranks,
		.dp = job->dp,
		.zero_stage = 1,
		.uid = geteuid(),
		.gid = getegid(),
	};
	double start = now(CLOCK_MONOTONIC), staged, committed, cpu;
	struct cfs_stage *stage = NULL;
	struct cfs_error err = {""};
	int r = cfs_stage_new(context, &options, &stage, &err);

	if (r < 0)
		die("stage", r, &err);
	stage_all(stage, job);
	/* what ranks put long before the commit is on its way by then */
	r = __real_cfs_ns_sync(context->ns);
	if (r < 0)
		die("sync", r, NULL);
	staged = now(CLOCK_MONOTONIC);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	r = cfs_stage_commit(stage, &err);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	committed = now(CLOCK_MONOTONIC);
	if (r < 0)
		die("commit", r, &err);
	cfs_stage_free(stage);
	print(job, staged - start, committed - staged, cpu,
	      now(CLOCK_MONOTONIC) - committed);
}

static void parse(int argc, char **argv, struct job *job)
{
	*job = (struct job){.store = argv[1],
			    .format = argv[2],
			    .layout = "slices",
			    .ranks = 2816,
			    .tensors = 500,
			    .elements = 64};
	for (int i = 3; i + 1 < argc; i += 2) {
		unsigned long n = strtoul(argv[i + 1], NULL, 10);

		if (!strcmp(argv[i], "ranks"))
			job->ranks = (uint32_t)n;
		else if (!strcmp(argv[i], "tensors"))
			job->tensors = (uint32_t)n;
		else if (!strcmp(argv[i], "elements"))
			job->elements = n;
		else if (!strcmp(argv[i], "dp"))
			job->dp = (uint32_t)n;
		else if (!strcmp(argv[i], "layout"))
			job->layout = argv[i + 1];
		else
			die(argv[i], -EINVAL, NULL);
	}
	if (!job->dp)
		job->dp = job->ranks;
}

int main(int argc, char **argv)
{
	const struct cfs_store_init_options init = {0};
	const struct cfs_store_options how = {.cache_bytes = 64u << 20};
	_cleanup_(cfs_opened_closep) struct cfs_opened opened = {0};
	struct cfs_verb_context context;
	struct cfs_error err = {""};
	struct job job;
	int r;

	if (argc < 3 || argc % 2 == 0) {
		(void)fprintf(stderr, "usage: commitbench STORE FORMAT "
				      "[NAME VALUE]...\n");
		return 2;
	}
	parse(argc, argv, &job);
	r = cfs_store_init(job.store, &init, &err);
	if (!r)
		r = cfs_opened_open_as(job.store, &how, NULL, &opened, &err);
	if (r < 0)
		die(job.store, r, &err);
	cfs_opened_context(&opened, &context);
	measure(&context, &job);
	return 0;
}
