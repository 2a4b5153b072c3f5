/*
 * What ranks read, by raw frames: tensors of a step that DeepSpeed wrote, whole
 * and in slices, against the same state as it wrote it at another topology.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "fs/daemon/nstree.h"
#include "store/ns/ns.h"
#include "tests/unit/rank_tensors.h"
#include "tests/unit/rank_server_bed.h"

#define OTHER CFS_TEST_DATA "/deepspeed-0.16.5/bf16-g3-fused_z1-dp3"

static struct bed bed;
static struct peer peer;

static void start(void)
{
	setup();
	bed_start(&bed);
	import_golden(&bed.context);
	job_open(&bed, &peer, 1);
}

/* One of two stages, so that tensors are of two ranks. */
static void start_pipeline(void)
{
	setup();
	bed_start(&bed);
	run_ok(&bed.context, "import",
	       "{\"path\":\"\",\"sources\":[{\"path\":\"" CFS_TEST_DATA
	       "/pipeline/pp2-dp1\",\"name\":\"run\"}]}");
	job_open(&bed, &peer, 1);
}

static void stop(void)
{
	peer_close(&peer);
	bed_stop(&bed);
	teardown();
}

/* ---- asking ---- */

static uint64_t number_of(const cJSON *frame, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(frame, name);

	ck_assert_msg(cJSON_IsNumber(item), "%s", cJSON_Print(frame));
	return (uint64_t)item->valuedouble;
}

static const char *text_of(const cJSON *frame, const char *name)
{
	const char *s = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(frame, name));

	ck_assert_ptr_nonnull(s);
	return s;
}

static uint64_t load_step(const char *step, const char *want)
{
	cJSON *frame;
	uint64_t load;

	ask(&peer, "{\"op\":\"load\",\"step\":\"%s\"}", step);
	frame = next_frame(&peer);
	ck_assert_msg(number_of(frame, "r") == 0, "%s", cJSON_Print(frame));
	ck_assert_str_eq(text_of(frame, "step"), want);
	load = number_of(frame, "load");
	cJSON_Delete(frame);
	return load;
}

static uint64_t handle_of(uint64_t *size_out)
{
	cJSON *frame = next_frame(&peer);
	uint64_t handle;

	ck_assert_msg(number_of(frame, "r") == 0, "%s", cJSON_Print(frame));
	handle = number_of(frame, "handle");
	*size_out = number_of(frame, "size");
	cJSON_Delete(frame);
	return handle;
}

/* All of a handle, through the ring, which is then closed. */
static uint8_t *read_handle(uint64_t handle, uint64_t size)
{
	uint8_t *bytes = malloc(size + 1);

	for (uint64_t at = 0; at < size;) {
		uint64_t n = CFS_MIN(size - at, (uint64_t)SLOT * SLOTS);
		char slots[64] = "";

		for (unsigned i = 0; i < (n + SLOT - 1) / SLOT; i++)
			snprintf(slots + strlen(slots), 8, "%s%u", i ? "," : "",
				 SLOTS - 1 - i);
		ask(&peer,
		    "{\"op\":\"read\",\"handle\":%llu,\"off\":%llu,"
		    "\"len\":%llu,\"slots\":[%s]}",
		    (unsigned long long)handle, (unsigned long long)at,
		    (unsigned long long)n, slots);
		ask_ok(&peer);
		for (unsigned i = 0; i * SLOT < n; i++)
			memcpy(bytes + at + i * SLOT,
			       peer.ring + (SLOTS - 1 - i) * SLOT,
			       CFS_MIN((uint64_t)SLOT, n - i * SLOT));
		at += n;
	}
	ask(&peer, "{\"op\":\"close\",\"handle\":%llu}",
	    (unsigned long long)handle);
	ask_ok(&peer);
	return bytes;
}

static const char *dtype_name(enum cfs_dtype dtype)
{
	return dtype == CFS_BF16 ? "bfloat16" : "float32";
}

/* What list says there is, each whole. */
static void compare_all(const char *step, const char *other)
{
	uint64_t load = load_step("", step), from = 0;
	struct expected *e = expect_open(other, step);
	unsigned n = 0;
	bool more = true;

	while (more) {
		cJSON *frame, *t;

		ask(&peer, "{\"op\":\"list\",\"load\":%llu,\"from\":%llu}",
		    (unsigned long long)load, (unsigned long long)from);
		frame = next_frame(&peer);
		ck_assert_uint_eq(number_of(frame, "r"), 0);
		cJSON_ArrayForEach(
			t, cJSON_GetObjectItemCaseSensitive(frame, "tensors"))
		{
			const char *name = text_of(t, "name");
			const char *role = text_of(t, "role");
			char *shape = cJSON_PrintUnformatted(
				cJSON_GetObjectItemCaseSensitive(t, "shape"));
			char zeros[64] = "[0", *p = zeros + 2;
			uint64_t len, size, handle;
			enum cfs_dtype dtype;
			uint8_t *want, *got;

			want = expect_bytes(e, name, role, &dtype, &len);
			ck_assert_str_eq(text_of(t, "dtype"),
					 dtype_name(dtype));
			for (const char *s = shape; *s; s++)
				if (*s == ',')
					p += sprintf(p, ",0");
			strcpy(p, "]");
			ask(&peer,
			    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"%s\","
			    "\"role\":\"%s\",\"dtype\":\"%s\",\"offset\":%s,"
			    "\"extent\":%s}",
			    (unsigned long long)load, name, role,
			    text_of(t, "dtype"), zeros, shape);
			handle = handle_of(&size);
			ck_assert_uint_eq(size, len);
			got = read_handle(handle, size);
			ck_assert_mem_eq(got, want, len);
			free(got);
			free(want);
			free(shape);
			n++;
		}
		more = cJSON_HasObjectItem(frame, "next");
		if (more)
			from = number_of(frame, "next");
		cJSON_Delete(frame);
	}
	ck_assert_uint_ge(n, 4 * expect_params(e));
	ask(&peer, "{\"op\":\"close\",\"load\":%llu}",
	    (unsigned long long)load);
	ask_ok(&peer);
	ask(&peer, "{\"op\":\"list\",\"load\":%llu}", (unsigned long long)load);
	ask_fails(&peer, -EINVAL, "load");
	expect_close(e);
}

START_TEST(test_whole)
{
	compare_all(STEP, OTHER);
}
END_TEST

START_TEST(test_pipeline)
{
	compare_all("global_step2", CFS_TEST_DATA "/pipeline/pp2-dp2");
}
END_TEST

/* Random boxes and flat parts of them, of random tensors. */
START_TEST(test_slices)
{
	unsigned seed = (unsigned)time(NULL);
	struct expected *e;
	uint64_t load = load_step(STEP, STEP);

	printf("slices: seed %u\n", seed);
	srand(seed);
	e = expect_open(OTHER, STEP);
	for (int round = 0; round < 200 / TEST_STEP + 5; round++) {
		uint32_t n_params = expect_params(e);
		const struct expected_param *p =
			expect_param(e, (uint32_t)rand() % n_params);
		bool bf16 = rand() % 2;
		enum cfs_dtype dtype;
		uint64_t len, size, handle, o[8], x[8], numel = 1, fs, fc;
		char offset[256] = "[", extent[256] = "[";
		uint8_t *want, *got, *all;

		if (p->frozen || !p->ndim)
			continue;
		all = expect_bytes(e, p->name, "master", &dtype, &len);
		ck_assert_int_eq(dtype, CFS_F32);
		for (uint32_t i = 0; i < p->ndim; i++) {
			o[i] = rand() % 3 ? (uint64_t)rand() % p->shape[i] : 0;
			x[i] = rand() % 3 ? 1 + (uint64_t)rand() %
							    (p->shape[i] - o[i])
					  : p->shape[i] - o[i];
			numel *= x[i];
			sprintf(offset + strlen(offset), "%s%llu", i ? "," : "",
				(unsigned long long)o[i]);
			sprintf(extent + strlen(extent), "%s%llu", i ? "," : "",
				(unsigned long long)x[i]);
		}
		fs = (uint64_t)rand() % numel;
		fc = 1 + (uint64_t)rand() % (numel - fs);
		ask(&peer,
		    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"%s\","
		    "\"role\":\"master\",\"dtype\":\"%s\",\"offset\":%s],"
		    "\"extent\":%s],\"flat\":[%llu,%llu]}",
		    (unsigned long long)load, p->name,
		    bf16 ? "bfloat16" : "float32", offset, extent,
		    (unsigned long long)fs, (unsigned long long)fc);
		handle = handle_of(&size);
		ck_assert_uint_eq(size, fc * (bf16 ? 2 : 4));
		want = malloc(fc * 4);
		for (uint64_t i = 0; i < fc; i++) {
			uint64_t rest = fs + i, at = 0, stride = 1;

			for (uint32_t k = p->ndim; k-- > 0;) {
				at += (o[k] + rest % x[k]) * stride;
				rest /= x[k];
				stride *= p->shape[k];
			}
			memcpy(want + i * 4, all + at * 4, 4);
		}
		if (bf16) {
			uint8_t *rounded = malloc(fc * 2);

			cfs_dtype_cast(CFS_F32, want, CFS_BF16, rounded, fc);
			free(want);
			want = rounded;
		}
		got = read_handle(handle, size);
		ck_assert_mem_eq(got, want, size);
		free(got);
		free(want);
		free(all);
	}
	expect_close(e);
}
END_TEST

START_TEST(test_files)
{
	uint64_t load = load_step(STEP, STEP), handle, size;
	char path[PATH_MAX];
	struct stat st;
	uint8_t *got, *want;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s/mp_rank_00_model_states.pt", GOLDEN,
		 STEP);
	ck_assert_int_eq(stat(path, &st), 0);
	ask(&peer,
	    "{\"op\":\"open\",\"load\":%llu,\"name\":"
	    "\"mp_rank_00_model_states.pt\"}",
	    (unsigned long long)load);
	handle = handle_of(&size);
	ck_assert_uint_eq(size, (uint64_t)st.st_size);
	got = read_handle(handle, size);
	want = malloc(size);
	f = fopen(path, "rb");
	ck_assert_uint_eq(fread(want, 1, size, f), size);
	fclose(f);
	ck_assert_mem_eq(got, want, size);
	free(got);
	free(want);
}
END_TEST

START_TEST(test_refusals)
{
	unsigned long long load = load_step(STEP, STEP);
	uint64_t size;
	unsigned long long h;

	ask(&peer, "{\"op\":\"load\",\"step\":\"nonsense\"}");
	ask_fails(&peer, -ENOENT, "nonsense");
	ask(&peer, "{\"op\":\"load\",\"step\":\"..\"}");
	ask_fails(&peer, -EINVAL, "step");
	ask(&peer, "{\"op\":\"open\",\"load\":%llu,\"name\":\"../latest\"}",
	    load);
	ask_fails(&peer, -EINVAL, "name");
	ask(&peer, "{\"op\":\"open\",\"load\":%llu,\"name\":\"x\"}", load);
	ask_fails(&peer, -ENOENT, "x");
	ask(&peer, "{\"op\":\"open\",\"load\":99,\"name\":\"x\"}");
	ask_fails(&peer, -EINVAL, "load 99");
	ask(&peer, "{\"op\":\"close\",\"handle\":99}");
	ask_fails(&peer, -EINVAL, "handle 99");
	ask(&peer, "{\"op\":\"close\"}");
	ask_fails(&peer, -EINVAL, "close");
	ask(&peer,
	    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"x\",\"role\":"
	    "\"master\",\"dtype\":\"float32\",\"offset\":[0],\"extent\":[1]}",
	    load);
	ask_fails(&peer, -ENOENT, "no tensor x");
	ask(&peer,
	    "{\"op\":\"open\",\"load\":%llu,\"name\":"
	    "\"mp_rank_00_model_states.pt\"}",
	    load);
	h = handle_of(&size);
	ask(&peer,
	    "{\"op\":\"read\",\"handle\":%llu,\"off\":0,\"len\":65537,"
	    "\"slots\":[0]}",
	    h);
	ask_fails(&peer, -EINVAL, "");
	ask(&peer,
	    "{\"op\":\"read\",\"handle\":%llu,\"off\":0,\"len\":10,"
	    "\"slots\":[4]}",
	    h);
	ask_fails(&peer, -EINVAL, "slot 4");
	ask(&peer,
	    "{\"op\":\"read\",\"handle\":%llu,\"off\":%llu,\"len\":10,"
	    "\"slots\":[0]}",
	    h, (unsigned long long)size - 5);
	ask_fails(&peer, -EINVAL, "there are");
	for (int i = 0; i < 255; i++) {
		ask(&peer,
		    "{\"op\":\"open\",\"load\":%llu,\"name\":"
		    "\"mp_rank_00_model_states.pt\"}",
		    load);
		ask_ok(&peer);
	}
	ask(&peer,
	    "{\"op\":\"open\",\"load\":%llu,\"name\":"
	    "\"mp_rank_00_model_states.pt\"}",
	    load);
	ask_fails(&peer, -EMFILE, "256");
}
END_TEST

static void set_mode(const char *name, mode_t mode)
{
	char path[512];
	struct stat st, out;

	snprintf(path, sizeof(path), "run/" STEP "/%s", name);
	ck_assert_int_eq(cfs_ns_walk(bed.context.ns, path, &st), 0);
	st.st_mode = (st.st_mode & S_IFMT) | mode;
	ck_assert_int_eq(cfs_ns_setattr(bed.context.ns, st.st_ino, &st,
					CFS_SET_MODE, &out),
			 0);
}

/* How another user, by a process of its own, fares with the step. */
static void expect_other(int want, const char *part)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		struct peer p;
		char text[640];
		int r;

		if (setgid(65534) || setuid(65534))
			_exit(3);
		job_open(&bed, &p, 1);
		ask(&p, "{\"op\":\"load\",\"step\":\"" STEP "\"}");
		r = answer_of(&p, text);
		if (r != want || !strstr(text, part))
			fprintf(stderr, "%d %s\n", r, text);
		_exit(r == want && strstr(text, part) ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

/* One file of the step may not be read: then none of its tensors. */
START_TEST(test_another_user)
{
	static const char *const names[] = {
		"mp_rank_00_model_states.pt",
		"bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
		"bf16_zero_pp_rank_7_mp_rank_00_optim_states.pt"};

	if (geteuid() != 0)
		return; /* there is nobody else to be */
	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++)
		set_mode(names[i], 0644);
	expect_other(0, "");
	for (size_t i = 0; i < CFS_ARRAY_SIZE(names); i++) {
		set_mode(names[i], 0600);
		expect_other(-EACCES, names[i]);
		set_mode(names[i], 0644);
	}
	expect_other(0, "");
}
END_TEST

/* The step is removed while it is open: its tensors stay readable. */
START_TEST(test_removed)
{
	unsigned long long load = load_step(STEP, STEP);
	struct expected *e;
	const struct expected_param *p;
	enum cfs_dtype dtype;
	uint64_t len, size, handle;
	uint8_t *want, *got;
	char zeros[64] = "", shape[256] = "";
	struct stat st;

	e = expect_open(OTHER, STEP);
	p = expect_param(e, 0);
	want = expect_bytes(e, p->name, "exp_avg", &dtype, &len);
	ck_assert_int_eq(cfs_ns_walk(bed.context.ns, "run", &st), 0);
	ck_assert_int_eq(cfs_nstree_remove(bed.context.ns, st.st_ino, STEP), 0);
	for (uint32_t i = 0; i < p->ndim; i++) {
		sprintf(zeros + strlen(zeros), "%s0", i ? "," : "");
		sprintf(shape + strlen(shape), "%s%llu", i ? "," : "",
			(unsigned long long)p->shape[i]);
	}
	ask(&peer,
	    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"%s\",\"role\":"
	    "\"exp_avg\",\"dtype\":\"float32\",\"offset\":[%s],\"extent\":"
	    "[%s]}",
	    load, p->name, zeros, shape);
	handle = handle_of(&size);
	got = read_handle(handle, size);
	ck_assert_uint_eq(size, len);
	ck_assert_mem_eq(got, want, len);
	free(got);
	ask(&peer,
	    "{\"op\":\"open\",\"load\":%llu,\"name\":"
	    "\"mp_rank_00_model_states.pt\"}",
	    load);
	ask_fails(&peer, -ESTALE, "removed");
	free(want);
	expect_close(e);
}
END_TEST

/* ---- saved by ranks, read by ranks ---- */

struct scribbler {
	atomic_bool stop;
	pthread_t thread;
};

/* Never lets the ring rest. */
static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	uint8_t v = 0;

	while (!atomic_load(&s->stop)) {
		for (size_t i = 0; i < (size_t)SLOT * SLOTS; i += 61)
			*(volatile uint8_t *)(peer.ring + i) = v;
		v += 37;
	}
	return NULL;
}

/* What a rank writes to while it is taken is saved as it was read, once. */
START_TEST(test_scribbled)
{
	struct scribbler s = {.stop = false};
	uint64_t load, handle, size;
	uint8_t *got;

	ask(&peer, "{\"op\":\"begin\",\"step\":\"global_step9\",\"format\":"
		   "\"files\"}");
	ask_ok(&peer);
	ask(&peer, "{\"op\":\"file\",\"id\":1,\"name\":\"a/b.bin\"}");
	ck_assert_int_eq(pthread_create(&s.thread, NULL, scribble, &s), 0);
	for (unsigned i = 0; i < 64; i++)
		ask(&peer, "{\"op\":\"data\",\"id\":1,\"slot\":%u,\"len\":%u}",
		    i % SLOTS, SLOT);
	ask(&peer, "{\"op\":\"end\",\"id\":1}");
	ask(&peer, "{\"op\":\"object\",\"id\":2,\"name\":\"rng\"}");
	ask(&peer, "{\"op\":\"data\",\"id\":2,\"slot\":0,\"len\":100}");
	ask(&peer, "{\"op\":\"end\",\"id\":2}");
	ask(&peer, "{\"op\":\"commit\"}");
	ask_ok(&peer);
	atomic_store(&s.stop, true);
	pthread_join(s.thread, NULL);
	ck_assert_uint_eq(peer.n_freed, 65);
	run_ok(&bed.context, "scrub", "{}");
	run_ok(&bed.context, "fsck", "{}");
	/* it is the step to resume from, and has no tensors */
	load = load_step("", "global_step9");
	ask(&peer, "{\"op\":\"list\",\"load\":%llu}", (unsigned long long)load);
	ask_fails(&peer, -ENOTSUP, "format");
	ask(&peer, "{\"op\":\"open\",\"load\":%llu,\"name\":\"a/b.bin\"}",
	    (unsigned long long)load);
	handle = handle_of(&size);
	ck_assert_uint_eq(size, 64 * SLOT);
	got = read_handle(handle, size);
	free(got);
	ask(&peer, "{\"op\":\"open\",\"load\":%llu,\"name\":\"ckptfs/rng\"}",
	    (unsigned long long)load);
	handle = handle_of(&size);
	ck_assert_uint_eq(size, 100);
	free(read_handle(handle, size));
}
END_TEST

/* ---- saved by ranks, in another format ---- */

#define ROWS 300u
#define COLS 100u

static const struct saved {
	const char *role, *dtype;
	unsigned size;
} saved[] = {
	{"weight", "bfloat16", 2},
	{"master", "float32", 4},
	{"exp_avg", "float32", 4},
};

static uint8_t saved_byte(size_t role, uint64_t i)
{
	return (uint8_t)(i * 31 + role * 7 + i / 253);
}

/* In two puts, each of half the rows. */
static void put_saved(struct peer *p, size_t role, unsigned id)
{
	uint64_t bytes = (uint64_t)ROWS / 2 * COLS * saved[role].size;

	for (unsigned half = 0; half < 2; half++) {
		ask(p,
		    "{\"op\":\"put\",\"id\":%u,\"name\":\"w.weight\",\"role\":"
		    "\"%s\",\"dtype\":\"%s\",\"shape\":[%u,%u],\"offset\":"
		    "[%u,0],\"extent\":[%u,%u]}",
		    id + half, saved[role].role, saved[role].dtype, ROWS, COLS,
		    half * ROWS / 2, ROWS / 2, COLS);
		for (uint64_t i = 0; i < bytes; i++)
			p->ring[i] = saved_byte(role, half * bytes + i);
		ck_assert_uint_le(bytes, (uint64_t)SLOT * SLOTS);
		for (uint64_t at = 0; at < bytes; at += SLOT)
			ask(p,
			    "{\"op\":\"data\",\"id\":%u,\"slot\":%u,"
			    "\"len\":%u}",
			    id + half, (unsigned)(at / SLOT),
			    (unsigned)CFS_MIN(bytes - at, (uint64_t)SLOT));
		/* the ring is written to again: all of it must be taken */
		while (p->n_freed < (bytes + SLOT - 1) / SLOT) {
			cJSON *frame = NULL, *item;

			ck_assert_int_eq(cfs_wire_receive(p->fd,
							  CFS_WIRE_REPLY_MAX,
							  &frame, NULL),
					 0);
			item = cJSON_GetObjectItemCaseSensitive(frame, "free");
			ck_assert_ptr_nonnull(item);
			p->n_freed += (unsigned)cJSON_GetArraySize(item);
			cJSON_Delete(frame);
		}
		p->n_freed = 0;
	}
}

static void expect_saved(uint64_t load, size_t role)
{
	uint64_t handle, size, n = (uint64_t)ROWS * COLS * saved[role].size;
	uint8_t *got;

	ask(&peer,
	    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"w.weight\","
	    "\"role\":\"%s\",\"dtype\":\"%s\",\"offset\":[0,0],"
	    "\"extent\":[%u,%u]}",
	    (unsigned long long)load, saved[role].role, saved[role].dtype, ROWS,
	    COLS);
	handle = handle_of(&size);
	ck_assert_uint_eq(size, n);
	got = read_handle(handle, size);
	for (uint64_t i = 0; i < n; i++)
		ck_assert_uint_eq(got[i], saved_byte(role, i));
	free(got);
	/* a column of it */
	ask(&peer,
	    "{\"op\":\"slice\",\"load\":%llu,\"name\":\"w.weight\","
	    "\"role\":\"%s\",\"dtype\":\"%s\",\"offset\":[10,7],"
	    "\"extent\":[200,1]}",
	    (unsigned long long)load, saved[role].role, saved[role].dtype);
	handle = handle_of(&size);
	ck_assert_uint_eq(size, 200 * saved[role].size);
	got = read_handle(handle, size);
	for (uint64_t i = 0; i < size; i++) {
		uint64_t row = 10 + i / saved[role].size;

		ck_assert_uint_eq(
			got[i],
			saved_byte(role, (row * COLS + 7) * saved[role].size +
						 i % saved[role].size));
	}
	free(got);
}

/* What list says of it: each tensor once, and no other. */
static void expect_listed(uint64_t load)
{
	unsigned seen = 0, n = 0;
	cJSON *frame, *t;

	ask(&peer, "{\"op\":\"list\",\"load\":%llu}", (unsigned long long)load);
	frame = next_frame(&peer);
	ck_assert_uint_eq(number_of(frame, "r"), 0);
	cJSON_ArrayForEach(t,
			   cJSON_GetObjectItemCaseSensitive(frame, "tensors"))
	{
		ck_assert_str_eq(text_of(t, "name"), "w.weight");
		for (size_t k = 0; k < CFS_ARRAY_SIZE(saved); k++)
			if (!strcmp(text_of(t, "role"), saved[k].role)) {
				ck_assert_str_eq(text_of(t, "dtype"),
						 saved[k].dtype);
				seen |= 1u << k;
			}
		n++;
	}
	ck_assert_uint_eq(n, 3);
	ck_assert_uint_eq(seen, 7);
	cJSON_Delete(frame);
}

START_TEST(test_safetensors)
{
	uint64_t load, handle, size;
	uint8_t *got;

	ask(&peer, "{\"op\":\"begin\",\"step\":\"step900\",\"format\":"
		   "\"safetensors\"}");
	ask_ok(&peer);
	for (size_t k = 0; k < CFS_ARRAY_SIZE(saved); k++)
		put_saved(&peer, k, 1 + 2 * (unsigned)k);
	ask(&peer, "{\"op\":\"object\",\"id\":20,\"name\":\"rng\"}");
	memcpy(peer.ring, "dice", 4);
	ask(&peer, "{\"op\":\"data\",\"id\":20,\"slot\":0,\"len\":4}");
	ask(&peer, "{\"op\":\"end\",\"id\":20}");
	ask(&peer, "{\"op\":\"commit\"}");
	ask_ok(&peer);
	load = load_step("", "step900"); /* the pointer names it */
	expect_listed(load);
	for (size_t k = 0; k < CFS_ARRAY_SIZE(saved); k++)
		expect_saved(load, k);
	ask(&peer, "{\"op\":\"open\",\"load\":%llu,\"name\":\"ckptfs/rng\"}",
	    (unsigned long long)load);
	handle = handle_of(&size);
	got = read_handle(handle, size);
	ck_assert_uint_eq(size, 4);
	ck_assert_mem_eq(got, "dice", 4);
	free(got);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_load");
	TCase *t = tcase_create("rank_load");

	tcase_add_checked_fixture(t, start, stop);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, test_whole);
	tcase_add_test(t, test_slices);
	tcase_add_test(t, test_files);
	tcase_add_test(t, test_refusals);
	tcase_add_test(t, test_another_user);
	tcase_add_test(t, test_removed);
	tcase_add_test(t, test_scribbled);
	tcase_add_test(t, test_safetensors);
	suite_add_tcase(s, t);
	t = tcase_create("pipeline");
	tcase_add_checked_fixture(t, start_pipeline, stop);
	tcase_add_test(t, test_pipeline);
	suite_add_tcase(s, t);
	return s;
}

TEST_MAIN(suite)
