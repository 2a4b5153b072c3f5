/*
 * Reads a file, looks at every object as a tensor, writes it back.  An input
 * that starts with '!' is the pickle of an archive with two storages, so that
 * the fuzzer need not invent zip headers.
 */
#include <assert.h>

#include "fs/container/torchfile.h"
#include "fs/container/zip.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "tests/fuzz/memfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct cfs_pickle_limits limits = {.memory_bytes = 32u << 20,
						.depth = 200};

static void put(struct cfs_zip_writer *w, const char *name, const void *data,
		size_t len, struct cfs_buf *out)
{
	assert(!cfs_zip_writer_begin(w, name, len, 0, out));
	cfs_buf_put(out, data, len);
	assert(!cfs_zip_writer_end(w, out));
}

static void wrap(const uint8_t *data, size_t len, struct cfs_buf *out)
{
	static const uint8_t bytes[64];
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();

	if (!w)
		return;
	put(w, "a/data.pkl", data, len, out);
	put(w, "a/data/0", bytes, sizeof(bytes), out);
	put(w, "a/data/1", bytes, 6, out);
	put(w, "a/version", "3\n", 2, out);
	assert(!cfs_zip_writer_finish(w, out));
}

static int open_file(void *arg, uint32_t index, struct cfs_file **out)
{
	(void)index;
	*out = arg;
	return 0;
}

static void look(const struct cfs_torchfile *tf, struct cfs_file *file)
{
	const struct cfs_node *root = cfs_torchfile_root(tf);
	struct cfs_torch_tensor t;
	struct cfs_node *k, *v;
	uint64_t off;

	for (uint32_t i = 0; i < cfs_torchfile_count(tf); i++)
		(void)!cfs_torch_storage_extent(cfs_torchfile_storage(tf, i),
						file, &off, NULL);
	for (uint32_t i = 0; i < cfs_map_node_count(root); i++) {
		cfs_map_node_pair(root, i, &k, &v);
		if (!cfs_torch_tensor_get(v, &t) && t.numel)
			assert(t.storage->nbytes);
	}
	(void)!cfs_torch_tensor_get(root, &t);
}

static void run(const uint8_t *data, size_t len)
{
	struct memfile m = MEMFILE(data, len);
	const struct cfs_version version = {.size = len};
	_cleanup_(cfs_filetab_unrefp) struct cfs_filetab *tab =
		cfs_filetab_new();
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	_cleanup_(cfs_torch_writer_freep) struct cfs_torch_writer *w = NULL;
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	struct cfs_error err = {""};
	uint32_t index;
	int r;

	if (!tab || cfs_filetab_add(tab, "f", &version, &index) < 0)
		return;
	r = cfs_torchfile_read(&m.base, len, tab, index, &limits, &tf, &err);
	if (r < 0) {
		assert(err.text[0]);
		return;
	}
	look(tf, &m.base);
	w = cfs_torch_writer_new(tab, "p");
	if (!w)
		return;
	err.text[0] = '\0';
	r = cfs_torch_writer_finish(w, cfs_torchfile_root(tf), open_file,
				    &m.base, NULL, NULL, &map, &err);
	assert(!r || err.text[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf file = CFS_BUF_INIT;

	if (len && *data == '!') {
		wrap(data + 1, len - 1, &file);
		run(file.data, file.len);
	} else {
		run(data, len);
	}
	return 0;
}
