/* The namespace as a source of views; open files keep what they opened. */
#include "store/ns/ns_internal.h"

#include <errno.h>
#include <limits.h>

#include "store/map/source.h"

#define LINKS_MAX 40

struct ns_source {
	struct cfs_source base;
	struct cfs_ns *ns;
};

struct ns_file {
	struct cfs_file base;
	struct cfs_ns *ns;
	struct stat st;
	struct cfs_pin pin;
};

static struct cfs_ns *ns_of(struct cfs_source *source)
{
	return container_of(source, struct ns_source, base)->ns;
}

static struct ns_file *file_of(struct cfs_file *file)
{
	return container_of(file, struct ns_file, base);
}

/* One step of a path: @at becomes what @name leads to. */
static int step(struct cfs_ns *ns, uint64_t *at, const char *name,
		struct stat *st)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *d = NULL;
	struct cfs_dirent_value v = {0};
	int r = cfs_ino_get(ns, *at, &d);

	if (r == 0 && !S_ISDIR(d->type))
		r = -ENOTDIR;
	if (r < 0)
		return r;
	if (!strcmp(name, "."))
		v.ino = *at;
	else if (!strcmp(name, ".."))
		v.ino = d->parent;
	else
		r = cfs_dirent_get(ns, *at, name, &v);
	if (r < 0)
		return r;
	r = cfs_ns_getattr(ns, v.ino, st);
	if (r == 0)
		*at = v.ino;
	return r;
}

/* Puts a link's target in front of what is left of the path. */
static int splice_link(struct cfs_ns *ns, uint64_t ino, struct cfs_buf *path,
		       size_t at)
{
	_cleanup_(cfs_buf_free) struct cfs_buf whole = CFS_BUF_INIT;
	int r = cfs_ns_readlink(ns, ino, &whole);

	if (r < 0)
		return r;
	/* nobody here knows where the store is mounted */
	if (!whole.len || whole.data[0] == '/')
		return -ENOENT;
	cfs_buf_put_str(&whole, "/");
	cfs_buf_put(&whole, path->data + at, path->len - at);
	cfs_buf_reset(path);
	cfs_buf_put(path, whole.data, whole.len);
	return path->failed || whole.failed ? -ENOMEM : 0;
}

/* @follow: a link at the end, too. */
static int resolve(struct cfs_ns *ns, const char *name, bool follow,
		   struct stat *st)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;
	uint64_t at = CFS_ROOT_INO;
	unsigned links = 0;
	size_t i = 0;
	int r = cfs_ns_getattr(ns, at, st);

	cfs_buf_put_str(&path, name);
	while (r == 0) {
		const char *p = cfs_buf_str(&path) + i;
		char part[CFS_NAME_MAX + 1];
		uint64_t dir = at;
		size_t n;

		n = strspn(p, "/");
		p += n;
		i += n;
		if (path.failed)
			return -ENOMEM;
		if (!*p)
			return 0;
		n = strcspn(p, "/");
		if (n > CFS_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(part, p, n);
		part[n] = '\0';
		i += n;
		r = step(ns, &at, part, st);
		if (r < 0 || !S_ISLNK(st->st_mode))
			continue;
		if (!follow && !p[n + strspn(p + n, "/")])
			return 0;
		if (++links > LINKS_MAX)
			return -ELOOP;
		r = splice_link(ns, at, &path, i);
		i = 0;
		at = dir;
		if (r == 0)
			r = cfs_ns_getattr(ns, at, st);
	}
	return r;
}

static int ns_stat(struct cfs_source *source, const char *path,
		   struct stat *st_out)
{
	return resolve(ns_of(source), path, false, st_out);
}

struct listing {
	cfs_dirent_fn *fn;
	void *arg;
	int r;
};

static int on_name(void *arg, const char *name, const struct stat *st,
		   uint64_t cookie)
{
	struct listing *l = arg;

	(void)cookie;
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return 0;
	l->r = l->fn(l->arg, name, st);
	return l->r;
}

static int ns_readdir(struct cfs_source *source, const char *path,
		      cfs_dirent_fn *fn, void *arg)
{
	struct cfs_ns *ns = ns_of(source);
	struct listing l = {fn, arg, 0};
	struct stat st;
	int r = resolve(ns, path, true, &st);

	if (r == 0)
		r = cfs_ns_readdir(ns, st.st_ino, 0, false, on_name, &l);
	return r < 0 ? r : l.r;
}

static int ns_readlink(struct cfs_source *source, const char *path,
		       struct cfs_buf *target_out)
{
	struct stat st;
	int r = resolve(ns_of(source), path, false, &st);

	return r < 0 ? r
		     : cfs_ns_readlink(ns_of(source), st.st_ino, target_out);
}

static int file_stat(struct cfs_file *file, struct stat *st_out)
{
	*st_out = file_of(file)->st;
	return 0;
}

static ssize_t file_pread(struct cfs_file *file, void *buf, size_t len,
			  uint64_t off)
{
	struct ns_file *f = file_of(file);
	uint64_t size = (uint64_t)f->st.st_size;
	int r;

	if (off >= size)
		return 0;
	len = (size_t)CFS_MIN((uint64_t)len, size - off);
	r = cfs_pieces_read(f->ns->store, f->pin.pieces, buf, len, off);
	if (r < 0)
		cfs_ns_tell_damage(f->ns, (uint64_t)f->st.st_ino, r);
	return r < 0 ? r : (ssize_t)len;
}

static void file_advise(struct cfs_file *file, uint64_t off, uint64_t len)
{
	struct ns_file *f = file_of(file);

	cfs_pieces_advise(f->ns->store, f->pin.pieces, off, len);
}

static void file_close(struct cfs_file *file)
{
	struct ns_file *f = file_of(file);

	cfs_ino_unpin(f->ns, &f->pin);
	free(f);
}

static const struct cfs_file_ops file_ops = {
	.stat = file_stat,
	.pread = file_pread,
	.advise = file_advise,
	.close = file_close,
};

static int ns_file_open(struct cfs_source *source, const char *path,
			struct cfs_file **file_out)
{
	_cleanup_(cfs_ino_putp) struct cfs_ino *i = NULL;
	_cleanup_(cfs_freep) struct ns_file *f = NULL;
	struct cfs_ns *ns = ns_of(source);
	struct stat st;
	int r = resolve(ns, path, true, &st);

	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	r = cfs_ino_get(ns, st.st_ino, &i);
	if (r < 0)
		return r;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	r = cfs_ino_pin(i, &f->pin, &f->st);
	if (r < 0)
		return r;
	f->base.ops = &file_ops;
	f->ns = ns;
	*file_out = &cfs_steal(f)->base;
	return 0;
}

static ssize_t ns_getxattr(struct cfs_source *source, const char *path,
			   const char *name, void *buf, size_t size)
{
	struct stat st;
	int r = resolve(ns_of(source), path, false, &st);

	return r < 0 ? r
		     : cfs_ns_getxattr(ns_of(source), st.st_ino, name, buf,
				       size);
}

static ssize_t ns_listxattr(struct cfs_source *source, const char *path,
			    char *buf, size_t size)
{
	struct stat st;
	int r = resolve(ns_of(source), path, false, &st);

	return r < 0 ? r
		     : cfs_ns_listxattr(ns_of(source), st.st_ino, buf, size);
}

static int ns_statfs(struct cfs_source *source, struct statvfs *out)
{
	return cfs_ns_statfs(ns_of(source), out);
}

static void ns_free(struct cfs_source *source)
{
	free(container_of(source, struct ns_source, base));
}

static const struct cfs_source_ops source_ops = {
	.stat = ns_stat,
	.readdir = ns_readdir,
	.readlink = ns_readlink,
	.open = ns_file_open,
	.getxattr = ns_getxattr,
	.listxattr = ns_listxattr,
	.statfs = ns_statfs,
	.free = ns_free,
};

int cfs_source_ns_open(struct cfs_ns *ns, struct cfs_source **source_out)
{
	struct ns_source *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->base.ops = &source_ops;
	s->ns = ns;
	*source_out = &s->base;
	return 0;
}
