/* Which files a universal checkpoint has, in an order that does not depend on
 * the directory's. */
#include "fs/format/universal/read.h"

#include <errno.h>
#include <string.h>

#include "store/util/grow.h"
#include "store/util/path.h"

struct listing {
	struct cfs_ds_list *list;
	const char *prefix; /* of the names */
	bool dirs;	    /* that is what is wanted */
};

static int add_name(struct cfs_ds_list *list, const char *prefix,
		    const char *name)
{
	struct cfs_ds_entry *e;

	if (!CFS_GROW(list->entries, list->n, list->cap))
		return -ENOMEM;
	e = &list->entries[list->n];
	*e = (struct cfs_ds_entry){.parsed.kind = CFS_DS_UNIVERSAL};
	e->name = cfs_path_join(prefix, name);
	if (!e->name)
		return -ENOMEM;
	list->n++;
	return 0;
}

static int on_name(void *arg, const char *name, const struct stat *st)
{
	const struct listing *l = arg;
	size_t len = strlen(name);

	if (l->dirs != S_ISDIR(st->st_mode))
		return 0;
	if (!l->dirs && (len < 4 || strcmp(name + len - 3, ".pt") != 0))
		return 0;
	return add_name(l->list, l->prefix, name);
}

static int list_dir(const struct cfs_ds_step *step, const char *prefix,
		    bool dirs, struct cfs_ds_list *list)
{
	struct cfs_source *source = step->base.source;
	struct listing l = {list, prefix, dirs};
	char path[4096];
	int r = cfs_path_put(path, sizeof(path), step->base.path, prefix);

	return r < 0 ? r : source->ops->readdir(source, path, on_name, &l);
}

static int name_cmp(const void *a, const void *b)
{
	return strcmp(((const struct cfs_ds_entry *)a)->name,
		      ((const struct cfs_ds_entry *)b)->name);
}

static void sort_names(struct cfs_ds_list *list, uint32_t first)
{
	if (list->n > first)
		qsort(list->entries + first, list->n - first,
		      sizeof(*list->entries), name_cmp);
}

int cfs_uc_list(const struct cfs_ds_step *step, const struct cfs_ds_list *top,
		bool zero3, struct cfs_ds_list *out)
{
	enum cfs_ds_kind kind = zero3 ? CFS_DS_MODEL_ZERO3 : CFS_DS_MODEL;
	struct cfs_ds_list dirs = {0};
	const struct cfs_ds_entry *e;
	uint32_t n, first;
	int r = 0;

	e = cfs_ds_list_kind(top, kind, &n);
	for (uint32_t i = 0; !r && i < n; i++) {
		r = add_name(out, "", e[i].name);
		/* others than the first rank's lie beside, for their shapes */
		if (!r && (zero3 || !i))
			out->entries[out->n - 1].parsed = e[i].parsed;
	}
	first = out->n;
	if (!r)
		r = list_dir(step, "zero", false, out);
	if (!r)
		r = list_dir(step, "zero", true, &dirs);
	for (uint32_t i = 0; !r && i < dirs.n; i++)
		r = list_dir(step, dirs.entries[i].name, false, out);
	cfs_ds_list_fini(&dirs);
	sort_names(out, first);
	return r;
}
