/* Names below a directory, made with all that lies between. */
#include "fs/rank/assemble_dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/error.h"

#define NAME_BYTES_MAX 255u
#define PATH_BYTES_MAX 3500u /* room for what lies above */

void cfs_assemble_dirs_fini(struct cfs_assemble_dirs *d)
{
	free(cfs_steal(d->last));
}

int cfs_assemble_dirs_check(const char *name, struct cfs_error *err)
{
	const char *p = name;

	if (!name[0] || !cfs_source_path_ok(name) ||
	    name[strlen(name) - 1] == '/')
		return cfs_fail(err, -EINVAL,
				"\"%s\" is no name below a step: parts between "
				"\"/\" that are neither empty nor \".\" or "
				"\"..\"",
				name);
	if (strlen(name) > PATH_BYTES_MAX)
		return cfs_fail(err, -ENAMETOOLONG,
				"%.40s…: longer than %u bytes", name,
				PATH_BYTES_MAX);
	for (; *p; p += *p == '/') {
		size_t n = strcspn(p, "/");

		if (n > NAME_BYTES_MAX)
			return cfs_fail(err, -ENAMETOOLONG,
					"%.40s…: longer than %u bytes", p,
					NAME_BYTES_MAX);
		p += n;
	}
	return 0;
}

/* A directory @name of @dir, made or found. */
static int enter(struct cfs_assemble_dirs *d, uint64_t dir, const char *name,
		 uint64_t *ino_out)
{
	struct cfs_ns_cred cred = {d->owner.uid, d->owner.gid};
	struct stat st;
	int r = cfs_ns_lookup(d->ns, dir, name, &st);

	if (r == -ENOENT)
		r = cfs_ns_mkdir(d->ns, &cred, dir, name,
				 0777 & ~d->owner.umask, &st);
	if (r == -EEXIST) /* another thread was first */
		r = cfs_ns_lookup(d->ns, dir, name, &st);
	if (r < 0)
		return r;
	cfs_ns_forget(d->ns, st.st_ino, 1);
	*ino_out = st.st_ino;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

/* The first @len bytes of @name, a directory. */
static int go_to(struct cfs_assemble_dirs *d, const char *name, size_t len,
		 uint64_t *ino_out)
{
	uint64_t at = d->top;
	size_t i = 0;

	if (d->last && d->last_len == len && !memcmp(d->last, name, len)) {
		*ino_out = d->last_ino;
		return 0;
	}
	while (i < len) {
		char part[NAME_BYTES_MAX + 1];
		size_t n = strcspn(name + i, "/");
		int r;

		memcpy(part, name + i, n);
		part[n] = '\0';
		r = enter(d, at, part, &at);
		if (r < 0)
			return r;
		i += n + 1;
	}
	free(d->last);
	d->last = strndup(name, len); /* only saves looking */
	d->last_len = len;
	d->last_ino = at;
	*ino_out = at;
	return 0;
}

int cfs_assemble_dirs_create(struct cfs_assemble_dirs *d, const char *name,
			     struct cfs_ns_file **file_out,
			     struct cfs_error *err)
{
	struct cfs_ns_cred cred = {d->owner.uid, d->owner.gid};
	const char *slash = strrchr(name, '/');
	uint64_t dir = d->top;
	struct stat st = {0};
	int r = cfs_assemble_dirs_check(name, err);

	if (r < 0)
		return r;
	if (slash)
		r = go_to(d, name, (size_t)(slash - name), &dir);
	if (r == 0)
		r = cfs_ns_create(d->ns, &cred, dir, slash ? slash + 1 : name,
				  0666 & ~d->owner.umask, O_RDWR, &st,
				  file_out);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", name);
	cfs_ns_forget(d->ns, st.st_ino, 1);
	d->n_files++;
	return 0;
}
