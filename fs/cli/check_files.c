/* Every file of the step parses, and every storage lies inside it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "fs/cli/check.h"
#include "fs/cli/progress.h"
#include "fs/container/torchfile.h"
#include "fs/container/zip.h"
#include "fs/format/format.h"
#include "store/map/eval.h"
#include "store/map/map.h"
#include "store/util/error.h"

#define BLOCK (1u << 20)

struct file {
	struct cfs_check *check;
	const char *name;
	struct cfs_file *file;
	const struct cfs_version *version;
	uint32_t index;
	uint64_t n_records, n_crc;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int crc_of(struct file *f, uint64_t off, uint64_t len, uint32_t *out)
{
	_cleanup_(cfs_freep) uint8_t *block = malloc(BLOCK);
	uLong crc = crc32(0, NULL, 0);
	int r;

	if (!block)
		return -ENOMEM;
	while (len) {
		size_t n = (size_t)CFS_MIN(len, (uint64_t)BLOCK);

		r = cfs_file_pread_all(f->file, block, n, off);
		if (r < 0)
			return r;
		crc = crc32(crc, block, (uInt)n);
		off += n;
		len -= n;
		cfs_progress_add(f->check->progress, n, f->name);
	}
	*out = (uint32_t)crc;
	return 0;
}

static int check_crc(struct file *f, const struct cfs_zip_entry *e,
		     uint64_t off)
{
	uint32_t crc;
	int r;

	if (!e->crc || e->method)
		return 0; /* none was made, or inflating has checked it */
	r = crc_of(f, off, e->usize, &crc);
	if (r < 0)
		return r;
	f->n_crc++;
	if (crc != e->crc)
		cfs_check_report_problem(f->check->report, f->name,
					 "record %s: its bytes do not match "
					 "its CRC-32",
					 e->name);
	return 0;
}

static void check_zip(struct file *f, const struct cfs_zip *zip)
{
	struct cfs_check_report *report = f->check->report;
	uint32_t i;

	for (i = 0; i < zip->n_entries; i++) {
		const struct cfs_zip_entry *e = &zip->entries[i];
		struct cfs_error why = {""};
		uint64_t off;
		int r;

		f->n_records++;
		r = cfs_zip_payload(f->file, f->version->size, e, &off, &why);
		if (r == 0 && f->check->crc)
			r = check_crc(f, e, off);
		if (r < 0)
			cfs_check_report_problem(
				report, f->name, "record %s: %s", e->name,
				why.text[0] ? why.text : strerror(-r));
	}
}

/* A legacy stream has no records; its storages are looked at one by one. */
static void check_legacy(struct file *f, const struct cfs_torchfile *tf)
{
	uint32_t i;

	for (i = 0; i < cfs_torchfile_count(tf); i++) {
		struct cfs_error why = {""};
		uint64_t off;
		int r;

		f->n_records++;
		r = cfs_torch_storage_extent(cfs_torchfile_storage(tf, i),
					     f->file, &off, &why);
		if (r < 0)
			cfs_check_report_problem(f->check->report, f->name,
						 "storage %" PRIu32 ": %s", i,
						 why.text[0] ? why.text
							     : strerror(-r));
	}
}

static int check_file(struct file *f, struct cfs_error *err)
{
	_cleanup_(cfs_torchfile_freep) struct cfs_torchfile *tf = NULL;
	const struct cfs_zip *zip;
	int r;

	r = cfs_torchfile_read(f->file, f->version->size, f->check->step->files,
			       f->index, NULL, &tf, err);
	if (r < 0)
		return r;
	zip = cfs_torchfile_zip(tf);
	if (zip)
		check_zip(f, zip);
	else
		check_legacy(f, tf);
	return 0;
}

int cfs_check_files(struct cfs_check *check, struct cfs_error *err)
{
	struct cfs_step *step = check->step;
	uint32_t i, n = cfs_filetab_count(step->files);
	struct file f = {.check = check};
	int r;

	if (step->format == &cfs_format_safetensors) {
		cfs_check_report_skip(check->report, "files",
				      "headers are looked at as they are read, "
				      "and nothing else is there to compare");
		return 0;
	}
	cfs_check_report_begin(check->report, "files");
	for (i = 0; i < n; i++) {
		const char *path = cfs_filetab_path(step->files, i);
		struct cfs_error why = {""};

		f.index = i;
		f.name = base_name(path);
		f.version = cfs_filetab_version(step->files, i);
		r = cfs_filepool_get(step->pool, path, f.version, &f.file,
				     &why);
		if (r == 0) {
			r = check_file(&f, &why);
			cfs_filepool_put(step->pool, f.file);
		}
		if (r == -ENOMEM)
			return cfs_fail_prefix(err, r, "%s", path);
		if (r < 0)
			cfs_check_report_problem(check->report, f.name, "%s",
						 why.text[0] ? why.text
							     : strerror(-r));
	}
	cfs_check_report_number(check->report, "files", n);
	cfs_check_report_number(check->report, "records", f.n_records);
	cfs_check_report_number(check->report, "crcs_compared", f.n_crc);
	if (check->crc)
		cfs_check_report_end(check->report,
				     "%" PRIu32 " files, %" PRIu64
				     " records, %" PRIu64 " CRCs compared",
				     n, f.n_records, f.n_crc);
	else
		cfs_check_report_end(check->report,
				     "%" PRIu32 " files, %" PRIu64
				     " records; CRCs not compared (--crc)",
				     n, f.n_records);
	return 0;
}
