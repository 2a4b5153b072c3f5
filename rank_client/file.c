/* A file of the step being saved. */
#include <errno.h>
#include <string.h>

#include "rank_client/frame.h"
#include "rank_client/save_internal.h"

int cfs_rank_file_begin(struct cfs_rank_save *save, const char *name,
			struct cfs_rank_file **file_out)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_file *file;
	cJSON *json;
	int r = cfs_save_check(save, err);

	if (r < 0)
		return r;
	if (!name || !name[0]) {
		r = cfs_fail(err, -EINVAL, "a file has no name");
		return cfs_save_fail(save, r, err);
	}
	file = calloc(1, sizeof(*file) + strlen(name) + 1);
	if (!file) {
		r = cfs_fail(err, -ENOMEM, "no memory for a file");
		return cfs_save_fail(save, r, err);
	}
	file->save = save;
	file->id = save->next_id++;
	strcpy(file->name, name);
	json = cfs_frame_op("file");
	cJSON_AddNumberToObject(json, "id", (double)file->id);
	cJSON_AddStringToObject(json, "name", name);
	cfs_frame_put(&frames, json);
	r = cfs_save_send(save, &frames, err);
	if (r < 0) {
		free(file);
		return cfs_save_fail(save, r, err);
	}
	file->next = save->files;
	save->files = file;
	*file_out = file;
	return 0;
}

/* Through a slot that stays open, so that many small writes share one. */
static int write_host(struct cfs_rank_file *file, const uint8_t *data,
		      uint64_t len, struct cfs_error *err)
{
	struct cfs_ring *ring = &file->save->rank->ring;
	int r = 0;

	while (!r && len) {
		uint32_t n;

		if (!file->has_slot) {
			r = cfs_outflow_slot(file->save, &file->slot, err);
			if (r < 0)
				return r;
			file->has_slot = true;
			file->fill = 0;
		}
		n = (uint32_t)CFS_MIN(
			len, (uint64_t)(ring->slot_bytes - file->fill));
		memcpy(cfs_ring_slot(ring, file->slot) + file->fill, data, n);
		file->fill += n;
		file->save->put_bytes += n;
		data += n;
		len -= n;
		if (file->fill == ring->slot_bytes)
			r = cfs_outflow_flush(file, err);
		cfs_save_tell(file->save, false);
	}
	return r;
}

int cfs_rank_file_write(struct cfs_rank_file *file, const void *data,
			uint64_t len, uint32_t memory, void *stream)
{
	struct cfs_buf none = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err();
	int r;

	if (!file)
		return cfs_fail(err, -EINVAL, "no file is given");
	r = cfs_save_check(file->save, err);
	if (r < 0)
		return r;
	if (len && !data)
		r = cfs_fail(err, -EINVAL, "no data");
	else if (memory == CFS_RANK_HOST)
		r = write_host(file, data, len, err);
	else
		r = cfs_outflow_flush(file, err);
	if (!r && len && memory != CFS_RANK_HOST)
		r = cfs_outflow_write(file->save, &none, file->id, data, len,
				      memory, stream, err);
	if (r < 0) {
		cfs_fail_prefix(err, r, "file %s", file->name);
		return cfs_save_fail(file->save, r, err);
	}
	return 0;
}

int cfs_rank_file_end(struct cfs_rank_file *file)
{
	_cleanup_(cfs_buf_free) struct cfs_buf frames = CFS_BUF_INIT;
	struct cfs_error *err = cfs_rank_err();
	struct cfs_rank_save *save;
	struct cfs_rank_file **at;
	int r;

	if (!file)
		return cfs_fail(err, -EINVAL, "no file is given");
	save = file->save;
	r = cfs_save_check(save, err);
	if (!r)
		r = cfs_outflow_flush(file, err);
	cfs_frame_put_end(&frames, file->id);
	if (!r)
		r = cfs_save_send(save, &frames, err);
	if (file->has_slot && !save->rank->forked)
		cfs_link_give(save->rank->link, &file->slot, 1, NULL);
	for (at = &save->files; *at != file; at = &(*at)->next)
		;
	*at = file->next;
	free(file);
	return r < 0 ? cfs_save_fail(save, r, err) : 0;
}
