/* Walks what is to be imported, so that its size is known beforehand. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

#include "fs/daemon/import.h"
#include "store/core/store.h"
#include "store/ns/ns.h"
#include "store/util/buf.h"

#define DEEP 2048u

/* ---- whose rights ---- */

void cfs_import_enter(const struct cfs_import *import)
{
	if (!import->as_caller)
		return;
	/* of this thread only, which glibc's own call would not be */
	(void)syscall(SYS_setgroups, (size_t)0, NULL);
	(void)setfsgid(import->context->caller->gid);
	(void)setfsuid(import->context->caller->uid);
}

void cfs_import_leave(const struct cfs_import *import)
{
	if (!import->as_caller)
		return;
	(void)setfsuid(geteuid());
	(void)setfsgid(getegid());
}

/* ---- items ---- */

void cfs_import_fini(struct cfs_import *import)
{
	size_t i;

	for (i = 0; i < import->n; i++) {
		free(import->items[i].name);
		free(import->items[i].path);
	}
	free(import->items);
	import->items = NULL;
	import->n = import->cap = 0;
}

static int add_item(struct cfs_import *import, size_t parent, const char *name,
		    const char *path, const struct stat *st, size_t *out)
{
	struct cfs_import_item *item;

	if (import->n == import->cap) {
		size_t cap = import->cap ? 2 * import->cap : 64;

		item = reallocarray(import->items, cap, sizeof(*item));
		if (!item)
			return -ENOMEM;
		import->items = item;
		import->cap = cap;
	}
	item = &import->items[import->n];
	*item = (struct cfs_import_item){
		.name = strdup(name),
		.path = path ? strdup(path) : NULL,
		.parent = parent,
		.link = CFS_IMPORT_NONE,
		.st = *st,
	};
	*out = import->n++;
	if (!item->name || (path && !item->path))
		return -ENOMEM;
	if (S_ISREG(st->st_mode)) {
		import->files++;
		import->bytes += (uint64_t)st->st_size;
	}
	return 0;
}

static void put_path(const struct cfs_import *import, size_t item,
		     struct cfs_buf *out)
{
	const struct cfs_import_item *i = &import->items[item];

	if (i->path) {
		cfs_buf_put_str(out, i->path);
		return;
	}
	put_path(import, i->parent, out);
	if (out->len && out->data[out->len - 1] != '/')
		cfs_buf_put_u8(out, '/');
	cfs_buf_put_str(out, i->name);
}

char *cfs_import_path(const struct cfs_import *import, size_t item)
{
	_cleanup_(cfs_buf_free) struct cfs_buf path = CFS_BUF_INIT;

	put_path(import, item, &path);
	return path.failed ? NULL : strdup(cfs_buf_str(&path));
}

/* ---- scanning ---- */

struct scan {
	struct cfs_import *import;
	const struct cfs_store_config *config;
	struct stat store; /* its directory */
	unsigned depth;
	uint64_t seen;
	struct cfs_error *err;
};

static bool is_marker(const struct scan *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->config->n_markers; i++)
		if (!fnmatch(s->config->markers[i], name, 0))
			return true;
	return false;
}

static int read_names(const struct cfs_import *import, const char *path,
		      struct cfs_buf *names)
{
	struct dirent *e;
	int fd;
	DIR *d;

	cfs_import_enter(import);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cfs_import_leave(import);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	while (errno = 0, (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			cfs_buf_put(names, e->d_name, strlen(e->d_name) + 1);
	if (errno) {
		int r = -errno;

		closedir(d);
		return r;
	}
	closedir(d);
	return names->failed ? -ENOMEM : 0;
}

static int scan_one(struct scan *s, size_t parent, const char *name,
		    const char *path, bool top);

static int scan_children(struct scan *s, size_t dir, const char *path, bool top)
{
	_cleanup_(cfs_buf_free) struct cfs_buf names = CFS_BUF_INIT;
	size_t off = 0;
	int r;

	if (s->depth == DEEP)
		return cfs_fail(s->err, -ELOOP, "%s: too deep", path);
	r = read_names(s->import, path, &names);
	if (r < 0)
		return cfs_fail_prefix(s->err, r, "%s", path);
	s->depth++;
	while (!r && off < names.len) {
		const char *name = (const char *)names.data + off;
		_cleanup_(cfs_freep) char *child = NULL;

		off += strlen(name) + 1;
		if (asprintf(&child, "%s%s%s", path,
			     path[strlen(path) - 1] == '/' ? "" : "/",
			     name) < 0) {
			child = NULL;
			r = -ENOMEM;
		} else {
			r = scan_one(s, dir, name, child, top);
		}
	}
	s->depth--;
	return r;
}

static int scan_one(struct scan *s, size_t parent, const char *name,
		    const char *path, bool top)
{
	struct stat st;
	size_t item;
	int r;

	cfs_import_enter(s->import);
	r = lstat(path, &st) < 0 ? -errno : 0;
	cfs_import_leave(s->import);
	if (r < 0)
		return cfs_fail_prefix(s->err, r, "%s", path);
	if (st.st_dev == s->store.st_dev && st.st_ino == s->store.st_ino) {
		cfs_verb_line(s->import->reply, "%s: this store, left out",
			      path);
		return 0;
	}
	if (!cfs_verb_progress(s->import->reply, 0, 0, path))
		return -ECANCELED;
	r = add_item(s->import, parent, name, top ? path : NULL, &st, &item);
	if (r < 0)
		return r;
	s->import->items[item].marker =
		S_ISREG(st.st_mode) && is_marker(s, name);
	return S_ISDIR(st.st_mode) ? scan_children(s, item, path, false) : 0;
}

/* Those of one inode next to each other, in the order they were found. */
static int by_inode(const void *a, const void *b, void *arg)
{
	const struct cfs_import_item *items = arg;
	size_t i = *(const size_t *)a, k = *(const size_t *)b;
	const struct stat *x = &items[i].st, *y = &items[k].st;

	if (x->st_dev != y->st_dev)
		return x->st_dev < y->st_dev ? -1 : 1;
	if (x->st_ino != y->st_ino)
		return x->st_ino < y->st_ino ? -1 : 1;
	return i < k ? -1 : i > k;
}

static int find_links(struct cfs_import *import)
{
	_cleanup_(cfs_freep) size_t *linked = NULL;
	size_t i, n = 0;

	linked = calloc(import->n + 1, sizeof(*linked));
	if (!linked)
		return -ENOMEM;
	for (i = 0; i < import->n; i++)
		if (S_ISREG(import->items[i].st.st_mode) &&
		    import->items[i].st.st_nlink > 1)
			linked[n++] = i;
	if (n)
		qsort_r(linked, n, sizeof(*linked), by_inode, import->items);
	for (i = 1; i < n; i++) {
		struct cfs_import_item *item = &import->items[linked[i]];
		const struct cfs_import_item *before =
			&import->items[linked[i - 1]];

		if (item->link != CFS_IMPORT_NONE ||
		    before->st.st_dev != item->st.st_dev ||
		    before->st.st_ino != item->st.st_ino)
			continue;
		item->link = before->link == CFS_IMPORT_NONE ? linked[i - 1]
							     : before->link;
		import->files--;
		import->bytes -= (uint64_t)item->st.st_size;
	}
	return 0;
}

/* The store, or files of it (not what they hold). */
static int check_outside(const struct cfs_store *store, const char *path,
			 struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *real = realpath(path, NULL);
	const char *own = cfs_store_path(store);
	const size_t len = strlen(own);

	if (real && !strncmp(real, own, len) &&
	    (!real[len] || real[len] == '/'))
		return cfs_fail(err, -EINVAL,
				"%s is of this store itself; name what is "
				"outside it",
				path);
	return 0;
}

int cfs_import_scan(struct cfs_import *import, const char *path,
		    const char *name, bool contents, struct cfs_error *err)
{
	struct cfs_store *store = cfs_ns_store(import->context->ns);
	struct scan s = {.import = import,
			 .config = cfs_store_config(store),
			 .err = err};
	int r;

	r = check_outside(store, path, err);
	if (r < 0)
		return r;
	if (stat(cfs_store_path(store), &s.store) < 0)
		return -errno;
	if (contents)
		r = scan_children(&s, CFS_IMPORT_NONE, path, true);
	else
		r = scan_one(&s, CFS_IMPORT_NONE, name, path, true);
	return r < 0 ? r : find_links(import);
}
