/*
 * Zip archives of stored or deflated records, as torch reads and writes them.
 * Rules: PyTorch 2.6 caffe2/serialize/inline_container.cc and miniz.
 */
#ifndef CFS_CONTAINER_ZIP_H
#define CFS_CONTAINER_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/util/base.h"

struct cfs_arena;
struct cfs_buf;
struct cfs_error;
struct cfs_file;

struct cfs_zip_entry {
	const char *name; /* in the arena */
	uint64_t header_off, csize, usize;
	uint64_t limit_off; /* where the next entry or the directory starts */
	uint32_t crc; /* as in the central directory; 0 may mean "not made" */
	uint16_t method, flags; /* 0 stored, 8 deflated */
};

struct cfs_zip {
	struct cfs_zip_entry *entries; /* central directory order; in arena */
	uint32_t n_entries;
};

/* A larger central directory is -E2BIG. */
#define CFS_ZIP_DIRECTORY_MAX ((uint64_t)256 << 20)

/* Reads the central directory (zip64 or not) of a file of @size bytes.
 * -EBADMSG with the reason in @err: overlapping or out-of-range entries,
 * duplicate names, several disks, encryption, bytes before the first header. */
CFS_MUST_CHECK int cfs_zip_read(struct cfs_file *file, uint64_t size,
				struct cfs_arena *arena,
				struct cfs_zip *zip_out, struct cfs_error *err);

/* Offset of an entry's payload, from its local header, which must agree with
 * the directory (name, method); one small read. */
CFS_MUST_CHECK int cfs_zip_payload(struct cfs_file *file, uint64_t size,
				   const struct cfs_zip_entry *entry,
				   uint64_t *off_out, struct cfs_error *err);

/* The whole record, inflated if need be, at most @max bytes (-E2BIG); checked
 * against its CRC unless that is 0. */
CFS_MUST_CHECK int cfs_zip_extract(struct cfs_file *file, uint64_t size,
				   const struct cfs_zip_entry *entry,
				   size_t max, struct cfs_buf *out,
				   struct cfs_error *err);

/*
 * Writing, as torch 2.1 to 2.6 lays it out: flags 0x0808, payloads on 64-byte
 * borders through an FB extra field, data descriptors, zip64 end records
 * always. Only what stands between payloads is produced; the caller
 * interleaves.
 */
struct cfs_zip_writer; /* opaque */
struct cfs_zip_writer *cfs_zip_writer_new(void);
void cfs_zip_writer_free(struct cfs_zip_writer *w);
void cfs_zip_writer_freep(struct cfs_zip_writer **w);
/* Header bytes up to the payload of a record of @size bytes, appended to @out.
 */
CFS_MUST_CHECK int cfs_zip_writer_begin(struct cfs_zip_writer *w,
					const char *name, uint64_t size,
					uint32_t crc, struct cfs_buf *out);
/* The data descriptor behind that payload (nothing if it was empty). */
CFS_MUST_CHECK int cfs_zip_writer_end(struct cfs_zip_writer *w,
				      struct cfs_buf *out);
/* Central directory and end records. */
CFS_MUST_CHECK int cfs_zip_writer_finish(struct cfs_zip_writer *w,
					 struct cfs_buf *out);

#endif
