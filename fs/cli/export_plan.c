/* Lists what an export writes. */
#include "fs/cli/export_plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/export_tree.h"
#include "fs/cli/files.h"
#include "fs/cli/target.h"
#include "fs/format/format.h"
#include "fs/view/view.h"
#include "store/util/buf.h"
#include "store/util/error.h"
#include "store/util/grow.h"
#include "store/util/path.h"

static struct cfs_export_item *add_item(struct cfs_export_plan *plan)
{
	if (!CFS_GROW(plan->items, plan->n_items, plan->cap_items))
		return NULL;
	plan->items[plan->n_items] = (struct cfs_export_item){.step = SIZE_MAX};
	return &plan->items[plan->n_items++];
}

/* What decides every byte of the step as it is shown. */
static int identify(struct cfs_target *t, struct cfs_vnode *node,
		    struct cfs_export_step *step, struct cfs_error *err)
{
	_cleanup_(cfs_step_unrefp) struct cfs_step *saved = NULL;
	char view[160] = "";
	ssize_t n;
	int r;

	r = cfs_target_saved_step(t, node, &saved, err);
	if (r < 0)
		return r;
	n = cfs_vnode_getxattr(node, "user.ckptfs.view", view,
			       sizeof(view) - 1);
	view[n > 0 ? n : 0] = 0;
	if (asprintf(&step->identity, "%s %016" PRIx64, view[0] ? view : "-",
		     saved->identity) < 0) {
		step->identity = NULL;
		return -ENOMEM;
	}
	return 0;
}

int cfs_export_plan_add(struct cfs_export_plan *plan, const char *prefix,
			size_t step, const struct cfs_files_entry *e)
{
	struct cfs_export_item *item = add_item(plan);

	if (!item)
		return -ENOMEM;
	item->path = cfs_path_join(prefix, e->path);
	item->node = cfs_vnode_ref(e->node);
	item->st = e->st;
	item->step = step;
	item->pointer = cfs_vnode_kind(e->node) == CFS_VNODE_POINTER;
	if (S_ISREG(e->st.st_mode))
		plan->bytes += (uint64_t)e->st.st_size;
	return item->path ? 0 : -ENOMEM;
}

struct cfs_export_step *cfs_export_plan_begin(struct cfs_export_plan *plan,
					      const char *name)
{
	struct cfs_export_step *steps;

	steps = reallocarray(plan->steps, plan->n_steps + 1, sizeof(*steps));
	if (!steps)
		return NULL;
	plan->steps = steps;
	steps[plan->n_steps] = (struct cfs_export_step){.name = strdup(name)};
	return steps[plan->n_steps].name ? &steps[plan->n_steps++] : NULL;
}

/* The files of one step, under @name ("" for the directory itself). */
static int add_step(struct cfs_target *t, struct cfs_vnode *node,
		    const char *name, struct cfs_export_plan *plan,
		    struct cfs_error *err)
{
	_cleanup_(cfs_files_free) struct cfs_files files = {0};
	struct cfs_export_step *step = cfs_export_plan_begin(plan, name);
	size_t i;
	int r;

	r = step ? identify(t, node, step, err) : -ENOMEM;
	if (r == 0)
		r = cfs_files_list(node, true, &files, err);
	for (i = 0; r == 0 && i < files.n; i++)
		r = cfs_export_plan_add(plan, name, plan->n_steps - 1,
					&files.entries[i]);
	return r;
}

static int add_named(struct cfs_target *t, const char *name,
		     struct cfs_export_plan *plan, struct cfs_error *err)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;
	struct cfs_error why = {""};
	int r;

	r = cfs_target_is_whole(t, t->node, name, &why);
	if (r == -ENOENT)
		return cfs_fail(err, r, "%s: the run has no such step", name);
	if (r == 0)
		return cfs_fail(err, -ENODATA, "%s: not a whole step: %s", name,
				why.text);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", name);
	r = cfs_vnode_lookup(t->node, name, &node, err);
	return r < 0 ? r : add_step(t, node, name, plan, err);
}

static int add_whole(struct cfs_target *t, const char *name,
		     void (*skipped)(const char *step, const char *why),
		     struct cfs_export_plan *plan, struct cfs_error *err)
{
	struct cfs_error why = {""};
	int r;

	r = cfs_target_is_whole(t, t->node, name, &why);
	if (r == 0) {
		(void)cfs_fail_prefix(&why, -ENODATA, "it is not whole");
		skipped(name, why.text);
	}
	if (r <= 0)
		return r == -ENOENT ? 0 : r;
	return add_named(t, name, plan, err);
}

static int add_all(struct cfs_target *t,
		   void (*skipped)(const char *step, const char *why),
		   struct cfs_export_plan *plan, struct cfs_error *err)
{
	_cleanup_(cfs_files_names_free) struct cfs_files_names names = {0};
	size_t i;
	int r;

	r = cfs_files_names(t->node, &names);
	for (i = 0; r == 0 && i < names.n; i++)
		r = add_whole(t, names.list[i], skipped, plan, err);
	return r;
}

/* DeepSpeed leaves these beside its steps; the rest of a run is not ours. */
static int add_scripts(struct cfs_target *t, struct cfs_export_plan *plan)
{
	static const char *const names[] = {"zero_to_fp32.py",
					    "zero_to_torch.py"};
	size_t i;
	int r;

	for (i = 0; i < CFS_ARRAY_SIZE(names); i++) {
		struct cfs_files_entry e = {.path = strdup(names[i])};

		if (!e.path)
			return -ENOMEM;
		r = cfs_vnode_lookup(t->node, names[i], &e.node, NULL);
		if (r == 0)
			r = cfs_vnode_stat(e.node, &e.st, NULL);
		if (r == 0 && S_ISREG(e.st.st_mode))
			r = cfs_export_plan_add(plan, "", SIZE_MAX, &e);
		free(e.path);
		cfs_vnode_unrefp(&e.node);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

static int add_pointer(const char *path, const char *name,
		       struct cfs_export_plan *plan)
{
	struct cfs_export_item *item = add_item(plan);

	if (!item)
		return -ENOMEM;
	item->path = strdup(path);
	item->text = strdup(name);
	item->pointer = true;
	item->st.st_mode = S_IFREG | 0644;
	item->st.st_size = (off_t)strlen(name);
	plan->bytes += strlen(name);
	return item->path && item->text ? 0 : -ENOMEM;
}

/* Does the view make a pointer for loaders of universal checkpoints? */
static bool is_universal(struct cfs_vnode *run)
{
	_cleanup_(cfs_vnode_unrefp) struct cfs_vnode *node = NULL;

	return cfs_vnode_lookup(run, "latest_universal", &node, NULL) == 0 &&
	       cfs_vnode_kind(node) == CFS_VNODE_POINTER;
}

static bool has_step(const struct cfs_export_plan *plan, const char *name)
{
	size_t i;

	for (i = 0; i < plan->n_steps; i++)
		if (strcmp(plan->steps[i].name, name) == 0)
			return true;
	return false;
}

static int plan_run(struct cfs_target *t,
		    const struct cfs_export_select *select,
		    void (*skipped)(const char *step, const char *why),
		    struct cfs_export_plan *plan, struct cfs_error *err)
{
	_cleanup_(cfs_buf_free) struct cfs_buf latest = CFS_BUF_INIT;
	const char *name = select->step;
	int r;

	if (!name) {
		r = cfs_target_latest(t->node, &latest, err);
		if (r < 0 && r != -ENOENT && !select->all)
			return r;
		if (r >= 0)
			name = cfs_buf_str(&latest);
	}
	if (!name && !select->all)
		return cfs_fail(err, -ENOENT,
				"the run has no `latest`: name a step with "
				"--step, or --all");
	r = select->all ? add_all(t, skipped, plan, err)
			: add_named(t, name, plan, err);
	if (r == 0 && !plan->n_steps)
		return cfs_fail(err, -ENOENT, "no whole step in it");
	if (r == 0)
		r = add_scripts(t, plan);
	if (r == 0 && name && has_step(plan, name))
		r = add_pointer("latest", name, plan);
	if (r == 0 && name && has_step(plan, name) && is_universal(t->node))
		r = add_pointer("latest_universal", name, plan);
	return r;
}

static int by_order(const void *a, const void *b)
{
	const struct cfs_export_item *x = a, *y = b;

	if (x->pointer != y->pointer)
		return x->pointer ? 1 : -1;
	return strverscmp(x->path, y->path);
}

/* A run, a step, or something else. */
static int make(struct cfs_target *t, const struct cfs_export_select *select,
		void (*skipped)(const char *step, const char *why),
		struct cfs_export_plan *plan, struct cfs_error *err)
{
	int r;

	if (select->tree)
		return cfs_export_plan_tree(t, skipped, plan, err);
	r = cfs_target_is_run(t->node);
	if (r > 0)
		return plan_run(t, select, skipped, plan, err);
	if (r == 0)
		r = cfs_vnode_is_step(t->node);
	if (r < 0)
		return r;
	if (select->step || select->all)
		return cfs_fail(err, -EINVAL,
				r ? "is one step: --step and --all are for runs"
				  : "no run: --step and --all are for runs");
	if (r)
		return add_step(t, t->node, "", plan, err);
	if (select->any)
		return cfs_export_plan_tree(t, skipped, plan, err);
	return cfs_fail(err, -EINVAL,
			"not a run, a step or a view of one (--tree copies "
			"anything)");
}

int cfs_export_plan_make(struct cfs_target *target,
			 const struct cfs_export_select *select,
			 void (*skipped)(const char *step, const char *why),
			 struct cfs_export_plan *out, struct cfs_error *err)
{
	struct cfs_export_plan plan = {.view = cfs_target_path(target)};
	int r;

	r = plan.view ? make(target, select, skipped, &plan, err) : -ENOMEM;
	if (r < 0) {
		cfs_export_plan_free(&plan);
		return r;
	}
	if (plan.n_items)
		qsort(plan.items, plan.n_items, sizeof(*plan.items), by_order);
	*out = plan;
	return 0;
}

void cfs_export_plan_free(struct cfs_export_plan *plan)
{
	size_t i;

	for (i = 0; i < plan->n_items; i++) {
		free(plan->items[i].path);
		free(plan->items[i].text);
		cfs_vnode_unrefp(&plan->items[i].node);
	}
	for (i = 0; i < plan->n_steps; i++) {
		free(plan->steps[i].name);
		free(plan->steps[i].identity);
	}
	free(plan->items);
	free(plan->steps);
	free(plan->view);
	*plan = (struct cfs_export_plan){0};
}
