/*
 * What maps read from: a tree of files.  Today a directory (source_dir) and
 * memory (source_mem, the twin for tests); a store is one more.
 *
 * Paths are relative to the source's root, without a leading '/', "" being the
 * root itself; they never hold "." or ".." components.
 */
#ifndef CFS_MAP_SOURCE_H
#define CFS_MAP_SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_source;
struct cfs_file;

/*
 * One state of one file: equal versions mean equal bytes.  Over a directory
 * that is the file's identity, size and both times; a file that changed less
 * than a clock tick ago is not trusted until the tick is over (source_dir).
 */
struct cfs_version {
	uint64_t dev, ino, size;
	int64_t mtime_ns, ctime_ns;
};

void cfs_version_of(const struct stat *st, struct cfs_version *out);
bool cfs_version_equal(const struct cfs_version *a,
		       const struct cfs_version *b);

/* Return 0 to go on; anything else stops the listing and is returned. */
typedef int cfs_dirent_fn(void *arg, const char *name, const struct stat *st);

struct cfs_source_ops {
	/* lstat: a symbolic link is reported as such.  Any thread. */
	int (*stat)(struct cfs_source *source, const char *path,
		    struct stat *st_out);
	/* Every name but "." and "..", in no order; st has at least
	 * st_mode's type and st_ino.  -ENOTDIR, -ENOENT. */
	int (*readdir)(struct cfs_source *source, const char *path,
		       cfs_dirent_fn *fn, void *arg);
	int (*readlink)(struct cfs_source *source, const char *path,
			struct cfs_buf *target_out);
	/* Follows links; regular files only (-EISDIR, -EINVAL otherwise). */
	int (*open)(struct cfs_source *source, const char *path,
		    struct cfs_file **file_out);
	/* As getxattr(2) and listxattr(2); @size 0 asks for the length. */
	ssize_t (*getxattr)(struct cfs_source *source, const char *path,
			    const char *name, void *buf, size_t size);
	ssize_t (*listxattr)(struct cfs_source *source, const char *path,
			     char *buf, size_t size);
	int (*statfs)(struct cfs_source *source, struct statvfs *out);
	void (*free)(struct cfs_source *source);
};

/*
 * An open file: keeps what it opened, also after unlink or rename.  Closed
 * before its source is freed.
 */
struct cfs_file_ops {
	/* The file as it is now (fstat). */
	int (*stat)(struct cfs_file *file, struct stat *st_out);
	/* As pread(2): may be short at the end of the file.  Any thread. */
	ssize_t (*pread)(struct cfs_file *file, void *buf, size_t len,
			 uint64_t off);
	/* These bytes will be read soon; returns at once. */
	void (*advise)(struct cfs_file *file, uint64_t off, uint64_t len);
	void (*close)(struct cfs_file *file);
};

struct cfs_source {
	const struct cfs_source_ops *ops;
};

struct cfs_file {
	const struct cfs_file_ops *ops;
};

/**
 * cfs_file_settle - the version of an open file, once it can be trusted
 *
 * The kernel's clock for file times moves in ticks of up to 10 ms, so a file
 * that changed within the current tick could change once more and keep its
 * times.  Waits (20 ms at most, unless the file goes on changing; 2 s where
 * the filesystem counts whole seconds) until ctime is older than that.
 * A ctime in the future (another machine's clock) is accepted when it is the
 * same a tick later.  Take the version before reading what a plan rests on,
 * and call cfs_file_check() after.
 *
 * Not seen, on any kernel: stores through a writable mapping that was made
 * and first written before the version was taken, and the rest of one long
 * overwriting write(2) that was under way.
 *
 * Returns 0, -EBUSY (still changing after a second or so) or fstat's error.
 */
CFS_MUST_CHECK int cfs_file_settle(struct cfs_file *file,
				   struct cfs_version *version_out);

/* 0 if @file still has @version, all of it; else -ESTALE or fstat's error. */
CFS_MUST_CHECK int cfs_file_check(struct cfs_file *file,
				  const struct cfs_version *version);

/* Relative, no empty, "." or ".." components; "" is fine. */
bool cfs_source_path_ok(const char *path);

/* A directory of the machine; @path is opened once and held. */
CFS_MUST_CHECK int cfs_source_dir_open(const char *path,
				       struct cfs_source **source_out);

/* Files held in memory, for tests: empty at first. */
struct cfs_source *cfs_source_mem_new(void);
/*
 * Creates or replaces @path (parents too), as a rename over it would: a new
 * inode and version each time; handles that are open keep the old bytes.
 */
CFS_MUST_CHECK int cfs_source_mem_put(struct cfs_source *source,
				      const char *path, const void *data,
				      size_t len);
/* 0 or -ENOENT; handles that are open go on reading. */
int cfs_source_mem_remove(struct cfs_source *source, const char *path);
/* Changes @path in place: open handles see it, times move; 0 or -ENOENT. */
CFS_MUST_CHECK int cfs_source_mem_rewrite(struct cfs_source *source,
					  const char *path, const void *data,
					  size_t len);
/* Later reads of [off, …) of @path fail with @r (a negative errno); 0 heals. */
int cfs_source_mem_break(struct cfs_source *source, const char *path,
			 uint64_t off, int r);

/* Convenience over ops, same contracts. */
void cfs_source_free(struct cfs_source *source);
void cfs_source_freep(struct cfs_source **source);
void cfs_file_close(struct cfs_file *file);
void cfs_file_closep(struct cfs_file **file);
/* Stat that follows links inside ops->open's rules (opens the file). */
CFS_MUST_CHECK int cfs_source_stat_file(struct cfs_source *source,
					const char *path, struct stat *st_out);
/* Exactly @len bytes or an error; a short file is -EIO. */
CFS_MUST_CHECK int cfs_file_pread_all(struct cfs_file *file, void *buf,
				      size_t len, uint64_t off);
/* A whole small file as text, at most @max bytes (-EFBIG). */
CFS_MUST_CHECK int cfs_source_read_small(struct cfs_source *source,
					 const char *path, size_t max,
					 struct cfs_buf *out);

#endif
