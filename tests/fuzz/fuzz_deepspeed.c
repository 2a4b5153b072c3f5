/*
 * Reads a step whose pickles are the input, completes a request for it and
 * makes every file of the view.  Byte 0: what the files are called and what is
 * asked; then the length of the first pickle (little-endian, 2 bytes), the
 * model states, and the optimizer's pickle.
 */
#include <assert.h>
#include <stdio.h>

#include "fs/container/zip.h"
#include "fs/format/format.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define RECORDS 64

static void put(struct cfs_zip_writer *w, const char *name, const void *data,
		size_t len, struct cfs_buf *out)
{
	assert(!cfs_zip_writer_begin(w, name, len, 0, out));
	cfs_buf_put(out, data, len);
	assert(!cfs_zip_writer_end(w, out));
}

/* An archive of @data with a few storages of 512 bytes. */
static void add_file(struct cfs_source *source, const char *name,
		     const uint8_t *data, size_t len)
{
	_cleanup_(cfs_buf_free) struct cfs_buf out = CFS_BUF_INIT;
	_cleanup_(cfs_zip_writer_freep) struct cfs_zip_writer *w =
		cfs_zip_writer_new();
	static const uint8_t bytes[512];

	assert(w);
	put(w, "a/data.pkl", data, len, &out);
	for (int i = 0; i < RECORDS; i++) {
		char record[24];

		(void)snprintf(record, sizeof(record), "a/data/%d", i);
		put(w, record, bytes, sizeof(bytes), &out);
	}
	put(w, "a/version", "3\n", 2, &out);
	assert(!cfs_zip_writer_finish(w, &out));
	assert(!cfs_source_mem_put(source, name, out.data, out.len));
}

static struct cfs_source *step_source(const uint8_t *data, size_t len)
{
	struct cfs_source *source = cfs_source_mem_new();
	size_t model = CFS_MIN(cfs_get_le16(data + 1), len - 3);
	bool zero3 = data[0] & 1, optim = data[0] & 2;
	char name[96];

	assert(source);
	for (int r = 0; r < (zero3 ? 2 : 1); r++) {
		(void)snprintf(name, sizeof(name),
			       "zero_pp_rank_%d_mp_rank_00_model_states.pt", r);
		if (!r || zero3)
			add_file(source,
				 zero3 ? name : "mp_rank_00_model_states.pt",
				 data + 3, model);
		(void)snprintf(name, sizeof(name),
			       "zero_pp_rank_%d_mp_rank_00_optim_states.pt", r);
		if (optim)
			add_file(source, name, data + 3 + model,
				 len - 3 - model);
	}
	return source;
}

static struct cfs_request request_of(uint8_t byte)
{
	struct cfs_request q = CFS_REQUEST_INIT;

	q.dp = 1 + (byte >> 2 & 3);
	q.zero_stage = (byte >> 4 & 7) - 1;
	q.round_robin = byte & 0x80 ? 1 : -1;
	return q;
}

static void look(struct cfs_step *step, uint8_t byte)
{
	_cleanup_(cfs_tree_unrefp) struct cfs_tree *tree = NULL;
	struct cfs_request q = request_of(byte);
	struct cfs_error err = {""};
	struct cfs_resolved target;

	if (step->format->resolve(step, &q, &target, &err) < 0) {
		assert(err.text[0]);
		return;
	}
	if (step->format->write(step, &target, &tree, &err) < 0)
		return;
	for (uint32_t i = 0; i < tree->n_files; i++) {
		_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;

		(void)!cfs_tree_map(tree, i, &map, &err);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	_cleanup_(cfs_source_freep) struct cfs_source *source = NULL;
	_cleanup_(cfs_filepool_freep) struct cfs_filepool *pool = NULL;
	_cleanup_(cfs_step_unrefp) struct cfs_step *step = NULL;
	struct cfs_error err = {""};

	if (len < 3 || len > 1 << 16)
		return 0;
	source = step_source(data, len);
	pool = cfs_filepool_new(source);
	assert(pool);
	(void)!cfs_format_deepspeed.complete(source, "", &err);
	if (cfs_format_deepspeed.read(source, pool, "", &step, &err) < 0)
		assert(err.text[0]);
	else
		look(step, data[0]);
	return 0;
}
