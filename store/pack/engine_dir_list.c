/* Names of packs in a directory, and which there are. */
#include "store/pack/engine_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/util/grow.h"

const char *cfs_engine_dir_pack(struct cfs_pack_id id,
				char name[CFS_ENGINE_DIR_NAME])
{
	(void)snprintf(name, CFS_ENGINE_DIR_NAME, "%04x/%08x.pack",
		       (unsigned)id.lane, (unsigned)id.number);
	return name;
}

const char *cfs_engine_dir_lane(struct cfs_pack_id id,
				char name[CFS_ENGINE_DIR_NAME])
{
	(void)snprintf(name, CFS_ENGINE_DIR_NAME, "%04x", (unsigned)id.lane);
	return name;
}

static int packs_fd(struct cfs_engine *engine)
{
	return container_of(engine, struct cfs_engine_dir, base)->packs_fd;
}

int cfs_engine_dir_size(struct cfs_engine *engine, struct cfs_pack_id id,
			uint64_t *size_out)
{
	char name[CFS_ENGINE_DIR_NAME];
	struct stat st;

	if (fstatat(packs_fd(engine), cfs_engine_dir_pack(id, name), &st,
		    AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	*size_out = (uint64_t)st.st_size;
	return 0;
}

/* Exactly @digits lower-case hex digits and then @tail. */
static bool parse_name(const char *name, int digits, const char *tail,
		       uint32_t *out)
{
	uint32_t v = 0;

	for (int i = 0; i < digits; i++) {
		char c = name[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint32_t)(c - 'a' + 10);
		else
			return false;
	}
	*out = v;
	return strcmp(name + digits, tail) == 0;
}

struct numbers {
	uint32_t *v;
	size_t n, cap;
};

static void numbers_free(struct numbers *numbers)
{
	free(numbers->v);
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The names in a directory that are numbers, ascending. */
static int read_numbers(int dirfd, const char *path, int digits,
			const char *tail, struct numbers *out)
{
	const struct dirent *e;
	uint32_t v;
	DIR *dir;
	int fd, r;

	fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = -errno;
		cfs_closep(&fd);
		return r;
	}
	for (errno = 0, r = 0; r == 0 && (e = readdir(dir)); errno = 0) {
		if (!parse_name(e->d_name, digits, tail, &v))
			continue;
		if (!CFS_GROW(out->v, out->n, out->cap)) {
			r = -ENOMEM;
			break;
		}
		out->v[out->n++] = v;
	}
	if (r == 0 && errno)
		r = -errno;
	(void)closedir(dir);
	if (r == 0 && out->n)
		qsort(out->v, out->n, sizeof(*out->v), compare);
	return r;
}

static int list_lane(struct cfs_engine *engine, uint16_t lane, cfs_pack_fn *fn,
		     void *arg)
{
	_cleanup_(numbers_free) struct numbers packs = {0};
	struct cfs_pack_id id = {lane, 0};
	char name[CFS_ENGINE_DIR_NAME];
	uint64_t size = 0;
	int r;

	r = read_numbers(packs_fd(engine), cfs_engine_dir_lane(id, name), 8,
			 ".pack", &packs);
	for (size_t i = 0; r == 0 && i < packs.n; i++) {
		id.number = packs.v[i];
		r = cfs_engine_dir_size(engine, id, &size);
		if (r == -ENOENT) /* removed meanwhile */
			r = 0;
		else if (r == 0 && id.number)
			r = fn(arg, id, size);
	}
	return r;
}

int cfs_engine_dir_list(struct cfs_engine *engine, cfs_pack_fn *fn, void *arg)
{
	_cleanup_(numbers_free) struct numbers lanes = {0};
	int r;

	r = read_numbers(packs_fd(engine), ".", 4, "", &lanes);
	for (size_t i = 0; r == 0 && i < lanes.n; i++)
		r = list_lane(engine, (uint16_t)lanes.v[i], fn, arg);
	return r;
}
