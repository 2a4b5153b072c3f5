/* A cfs_file over the bytes of a fuzz input. */
#ifndef CFS_FUZZ_MEMFILE_H
#define CFS_FUZZ_MEMFILE_H

#include <errno.h>
#include <string.h>

#include "store/map/source.h"

struct memfile {
	struct cfs_file base;
	const uint8_t *data;
	size_t len;
};

static inline ssize_t memfile_pread(struct cfs_file *file, void *buf,
				    size_t len, uint64_t off)
{
	const struct memfile *m = container_of(file, struct memfile, base);

	if (off >= m->len)
		return 0;
	len = CFS_MIN(len, m->len - (size_t)off);
	memcpy(buf, m->data + off, len);
	return (ssize_t)len;
}

static const struct cfs_file_ops memfile_ops = {.pread = memfile_pread};

#define MEMFILE(bytes, size)                                                   \
	{                                                                      \
		{&memfile_ops}, (bytes), (size)                                \
	}

#endif
