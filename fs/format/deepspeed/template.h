/*
 * A step's state in the files of another one, the template: a checkpoint that
 * the job to come saved once.  Everything about layout and configuration is
 * the template's, all that training made is the step's; DESIGN.md has the
 * table.  Private to fs/format/deepspeed.
 *
 *   template        the step in memory: catalogues made of the step's tensors
 *   template_match  parameters of both, by name and shape
 *   template_client client state, loss scale
 *   template_state  groups: counts of steps, rates
 *   template_buffers  what is no parameter
 *   template_write  layer files
 */
#ifndef CFS_FORMAT_DEEPSPEED_TEMPLATE_H
#define CFS_FORMAT_DEEPSPEED_TEMPLATE_H

#include "fs/format/deepspeed/remodel.h"

struct cfs_ds_out;
struct cfs_ds_plan;
struct cfs_ds_tree;

/* ---- template.c ---- */

/* The format's fill(). */
int cfs_ds_template_fill(struct cfs_step *step, struct cfs_source *source,
			 struct cfs_filepool *pool, const char *like,
			 const struct cfs_request *request,
			 struct cfs_tree **tree_out, struct cfs_error *err);

/* ---- template_match.c ---- */

/* How many rows the template has of a vocabulary, padding included; 0: it has
 * no such parameter, or it is none. */
uint64_t cfs_ds_template_rows(const struct cfs_ds_step *like,
			      const struct cfs_ds_model *model,
			      const struct cfs_ds_whole *whole);
/*
 * Finds what each parameter of the template is filled with, into made[].whole.
 * -EINVAL, unless @partial: @err counts and names what only one of both has or
 * has in another shape.  Where @partial, *note_out says so (or is NULL).
 */
CFS_MUST_CHECK int cfs_ds_template_match(struct cfs_ds_step *made, bool partial,
					 char **note_out,
					 struct cfs_error *err);

/* The step's number of role @role of the template's; UINT32_MAX: none. */
uint32_t cfs_ds_template_role(const struct cfs_ds_remodel *rm,
			      const struct cfs_ds_whole *whole,
			      const struct cfs_catalogue *like, uint32_t role);

/* ---- template_client.c ---- */

/* The step's rank that @mp of the template takes its client state from. */
uint32_t cfs_ds_template_rank(const struct cfs_ds_remodel *rm, uint32_t mp);
/* The template's model states with the client state of the step's: a copy. */
struct cfs_node *cfs_ds_template_client(struct cfs_pickle *doc,
					const struct cfs_node *like,
					const struct cfs_node *run);
/* The dictionaries of rank @mp of what is made. */
void cfs_ds_template_model_state(struct cfs_ds_step *made, uint32_t mp);

/* ---- template_state.c ---- */

/* What no tensor of a parameter is: ranks[], their groups and dictionaries. */
CFS_MUST_CHECK int cfs_ds_template_state(struct cfs_ds_step *made,
					 struct cfs_error *err);
/* The template's `step` is a tensor, the step's a number: the tensor. */
CFS_MUST_CHECK int cfs_ds_template_scalar(struct cfs_ds_out *out,
					  uint32_t group, const char *name,
					  struct cfs_node **value);

/* ---- template_write.c ---- */

/* A layer file for each that the template has. */
CFS_MUST_CHECK int cfs_ds_template_plan(struct cfs_ds_tree *tree);
CFS_MUST_CHECK int cfs_ds_template_layer(struct cfs_ds_out *out,
					 const struct cfs_ds_plan *plan,
					 struct cfs_node *map);
/* The stage that has parameters of layer @number; of a tied one the first. */
uint32_t cfs_ds_template_stage(const struct cfs_ds_step *made, uint32_t number);
/* The parameter called @name in layer @number, or the tied one of that name. */
bool cfs_ds_template_param(const struct cfs_ds_out *out, uint32_t number,
			   const char *name, uint32_t *param_out);

/* ---- template_buffers.c ---- */

enum cfs_ds_verdict {
	CFS_DS_TAKEN, /* or a constant of the model */
	CFS_DS_MISSING,
	CFS_DS_SHAPED, /* of another shape, or no number */
};

/* Is it the same whatever training does? */
bool cfs_ds_template_is_constant(const char *name);
/* Puts the step's tensor in the place of buffer @want; or leaves that, and
 * *verdict (or NULL) tells why. */
CFS_MUST_CHECK int cfs_ds_template_take(struct cfs_ds_out *out,
					const struct cfs_ds_layer_name *name,
					const struct cfs_torch_tensor *want,
					struct cfs_node **slot,
					enum cfs_ds_verdict *verdict);
/* One tensor that is no parameter of its catalogue (or is: @verdict TAKEN). */
typedef int cfs_ds_buffer_fn(void *arg, const struct cfs_ds_layer_name *name,
			     const char *full, enum cfs_ds_verdict verdict);
/* Calls @each for all tensors of the template, parameters too. */
CFS_MUST_CHECK int cfs_ds_template_each(const struct cfs_ds_step *made,
					cfs_ds_buffer_fn *each, void *arg,
					struct cfs_error *err);
/* Calls @each for the tensors of the step that are no parameter there. */
CFS_MUST_CHECK int cfs_ds_template_each_run(const struct cfs_ds_step *made,
					    cfs_ds_buffer_fn *each, void *arg,
					    struct cfs_error *err);
/* The same for an entry of the module. */
CFS_MUST_CHECK int cfs_ds_template_buffer(struct cfs_ds_out *out,
					  const char *name,
					  struct cfs_node **slot);
/* The template's model states of dp rank @dp with that rank's client state. */
CFS_MUST_CHECK int cfs_ds_template_model(struct cfs_ds_out *out,
					 struct cfs_node **root);

#endif
