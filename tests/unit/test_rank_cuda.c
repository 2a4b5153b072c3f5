/*
 * The rank client with device memory: puts on streams, files, slices back into
 * the device.  The driver is looked for when it runs, so that this builds
 * everywhere; where there is none it is skipped.
 */
#include <dlfcn.h>

#include "tests/unit/rank_client_bed.h"

typedef void *stream_t;
typedef unsigned long long device_ptr; /* CUdeviceptr */

/* As cuda.h declares them. */
static struct {
	int (*init)(unsigned flags);
	int (*device_count)(int *n);
	int (*retain)(void **context, int device);
	int (*set_current)(void *context);
	int (*alloc)(device_ptr *ptr, size_t len);
	int (*alloc_managed)(device_ptr *ptr, size_t len, unsigned flags);
	int (*mem_free)(device_ptr ptr);
	int (*to_device)(device_ptr to, const void *from, size_t len,
			 stream_t stream);
	int (*to_host)(void *to, device_ptr from, size_t len);
	int (*fill)(device_ptr ptr, unsigned char value, size_t len,
		    stream_t stream);
	int (*stream_new)(stream_t *stream, unsigned flags);
	int (*stream_sync)(stream_t stream);
	int (*stream_free)(stream_t stream);
	int (*capture_begin)(stream_t stream, int mode);
	int (*capture_end)(stream_t stream, void **graph);
} cu;

static void *driver;
static void *context;

static bool find(void *to, const char *name)
{
	void *symbol = dlsym(driver, name);

	memcpy(to, &symbol, sizeof(symbol));
	return symbol != NULL;
}

/* Why there is no device, or NULL. */
static const char *no_device(void)
{
	int n = 0;

	driver = dlopen("libcuda.so.1", RTLD_NOW);
	if (!driver)
		return "no libcuda.so.1";
	if (!find(&cu.init, "cuInit") ||
	    !find(&cu.device_count, "cuDeviceGetCount") ||
	    !find(&cu.retain, "cuDevicePrimaryCtxRetain") ||
	    !find(&cu.set_current, "cuCtxSetCurrent") ||
	    !find(&cu.alloc, "cuMemAlloc_v2") ||
	    !find(&cu.alloc_managed, "cuMemAllocManaged") ||
	    !find(&cu.mem_free, "cuMemFree_v2") ||
	    !find(&cu.to_device, "cuMemcpyHtoDAsync_v2") ||
	    !find(&cu.to_host, "cuMemcpyDtoH_v2") ||
	    !find(&cu.fill, "cuMemsetD8Async") ||
	    !find(&cu.stream_new, "cuStreamCreate") ||
	    !find(&cu.stream_sync, "cuStreamSynchronize") ||
	    !find(&cu.stream_free, "cuStreamDestroy_v2") ||
	    !find(&cu.capture_begin, "cuStreamBeginCapture_v2") ||
	    !find(&cu.capture_end, "cuStreamEndCapture"))
		return "the driver lacks a function";
	if (cu.init(0) || cu.device_count(&n) || !n)
		return "no device";
	return cu.retain(&context, 0) || cu.set_current(context)
		       ? "the device cannot be used"
		       : NULL;
}

#define cu_ok(call)  ck_assert_int_eq((call), 0)
#define NON_BLOCKING 1u

static void *memory(device_ptr ptr)
{
	return (void *)(uintptr_t)ptr;
}

/* @data in the device, once @stream is there. */
static device_ptr on_device(const void *data, size_t len, stream_t stream)
{
	device_ptr ptr;

	cu_ok(cu.alloc(&ptr, len ? len : 1));
	if (len)
		cu_ok(cu.to_device(ptr, data, len, stream));
	return ptr;
}

static void put_bytes(struct cfs_rank_save *save, const char *name,
		      device_ptr ptr, size_t len, stream_t stream)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = name,
				    .role = "weight",
				    .dtype = CFS_RANK_U8,
				    .ndim = 1,
				    .shape = {len},
				    .extent = {len}};

	ok(cfs_rank_put(save, &t, memory(ptr), CFS_RANK_CUDA, stream));
}

/* Of a tensor of @all bytes, from @from to its end. */
static void get_bytes(struct cfs_rank_load *load, const char *name,
		      device_ptr ptr, size_t all, size_t from, stream_t stream)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = name,
				    .role = "weight",
				    .dtype = CFS_RANK_U8,
				    .ndim = 1,
				    .shape = {all},
				    .offset = {from},
				    .extent = {all - from}};

	ok(cfs_rank_get(load, &t, memory(ptr), CFS_RANK_CUDA, stream));
}

static const size_t sizes[] = {1,    3,	       4096,	 SLOT - 1,
			       SLOT, SLOT + 1, 3 * RING, 4 * RING + 17};

static const char *name_of(size_t i)
{
	static char names[CFS_ARRAY_SIZE(sizes)][32];

	snprintf(names[i], sizeof(names[i]), "w%zu", i);
	return names[i];
}

static void check_slice(struct cfs_rank_load *load, size_t i, stream_t stream)
{
	const size_t from = sizes[i] / 3, len = sizes[i] - from;
	uint8_t *want = random_bytes((uint32_t)i, sizes[i]);
	uint8_t *got = malloc(len);
	device_ptr ptr;

	cu_ok(cu.alloc(&ptr, len));
	get_bytes(load, name_of(i), ptr, sizes[i], from, stream);
	cu_ok(cu.stream_sync(stream));
	cu_ok(cu.to_host(got, ptr, len));
	ck_assert_msg(!memcmp(got, want + from, len), "%s", name_of(i));
	cu_ok(cu.mem_free(ptr));
	free(want);
	free(got);
}

/* Work put on the stream after a put does not change what was put. */
START_TEST(test_puts)
{
	device_ptr ptrs[CFS_ARRAY_SIZE(sizes)];
	struct cfs_rank_save *save;
	struct cfs_rank_load *load;
	struct cfs_rank *rank;
	struct daemon d;
	stream_t stream;
	size_t i;

	daemon_new(&d);
	rank = open_alone(&d);
	cu_ok(cu.stream_new(&stream, NON_BLOCKING));
	save = begin(rank, "step1", "safetensors");
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++) {
		uint8_t *data = random_bytes((uint32_t)i, sizes[i]);

		ptrs[i] = on_device(data, sizes[i], stream);
		put_bytes(save, name_of(i), ptrs[i], sizes[i], stream);
		cu_ok(cu.fill(ptrs[i], 0xee, sizes[i], stream));
		free(data);
	}
	ok(cfs_rank_wait_copied(save));
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	ok(cfs_rank_load_open(rank, NULL, &load));
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++)
		check_slice(load, i, stream);
	cfs_rank_load_close(load);
	for (i = 0; i < CFS_ARRAY_SIZE(sizes); i++)
		cu_ok(cu.mem_free(ptrs[i]));
	cu_ok(cu.stream_free(stream));
	cfs_rank_close(rank);
	scrub_clean(&d);
	daemon_stop(&d);
}
END_TEST

/* Files, from the device and the host in turn, and from managed memory. */
START_TEST(test_files)
{
	uint8_t *data = random_bytes(7, 3 * RING);
	struct cfs_rank_save *save;
	struct cfs_rank_file *file;
	device_ptr ptr, managed;
	struct cfs_rank *rank;
	stream_t stream;
	struct daemon d;

	daemon_new(&d);
	rank = open_alone(&d);
	cu_ok(cu.stream_new(&stream, NON_BLOCKING));
	ptr = on_device(data, 3 * RING, stream);
	cu_ok(cu.alloc_managed(&managed, RING, 1));
	cu_ok(cu.to_device(managed, data + RING, RING, stream));
	save = begin(rank, "step1", "files");
	ok(cfs_rank_file_begin(save, "f", &file));
	ok(cfs_rank_file_write(file, memory(ptr), RING, CFS_RANK_CUDA, stream));
	ok(cfs_rank_file_write(file, memory(managed), RING, CFS_RANK_CUDA,
			       stream));
	ok(cfs_rank_file_write(file, data + 2 * RING, RING, CFS_RANK_HOST,
			       NULL));
	ok(cfs_rank_file_end(file));
	ok(cfs_rank_commit(save));
	ok(cfs_rank_wait(save));
	expect_file(&d, "run/step1/f", data, 3 * RING);
	cu_ok(cu.mem_free(ptr));
	cu_ok(cu.mem_free(managed));
	cu_ok(cu.stream_free(stream));
	free(data);
	cfs_rank_close(rank);
	daemon_stop(&d);
}
END_TEST

/* What a graph captures is done later: nothing of it can be saved now. */
START_TEST(test_capture)
{
	struct cfs_rank_tensor t = {.size = sizeof(t),
				    .name = "w",
				    .role = "weight",
				    .dtype = CFS_RANK_U8,
				    .ndim = 1,
				    .shape = {64},
				    .extent = {64}};
	struct cfs_rank_save *save;
	struct cfs_rank *rank;
	stream_t stream;
	struct daemon d;
	device_ptr ptr;
	void *graph;

	daemon_new(&d);
	rank = open_alone(&d);
	cu_ok(cu.stream_new(&stream, NON_BLOCKING));
	cu_ok(cu.alloc(&ptr, 64));
	save = begin(rank, "step1", "safetensors");
	cu_ok(cu.capture_begin(stream, 2 /* relaxed */));
	fails(cfs_rank_put(save, &t, memory(ptr), CFS_RANK_CUDA, stream),
	      -EINVAL, "captur");
	cu_ok(cu.capture_end(stream, &graph));
	cfs_rank_abort(save, NULL);
	ck_assert(!is_there(&d, "run/step1"));
	cu_ok(cu.mem_free(ptr));
	cu_ok(cu.stream_free(stream));
	cfs_rank_close(rank);
	daemon_stop(&d);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("rank_cuda");
	TCase *t = tcase_create("device memory");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, TEST_TIMEOUT);
	tcase_add_test(t, test_puts);
	tcase_add_test(t, test_files);
	tcase_add_test(t, test_capture);
	suite_add_tcase(s, t);
	return s;
}

/* In this process: a forked one cannot use the device. */
int main(void)
{
	const char *why = no_device();
	SRunner *runner;
	int failed;

	if (why) {
		printf("skipped: %s\n", why);
		return 77;
	}
	runner = srunner_create(suite());
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
