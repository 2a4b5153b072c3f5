/*
 * What a named view says that no item of a name can: how ranks share a model's
 * parameters, where the stages of its pipeline begin, or which template's files
 * are filled.  A JSON text,
 *
 *   {"rules": [{"name": "attention.dense.bias", "is": "sum"}],
 *    "boundaries": [0, 4, 9],
 *    "partition_method": "type:transformer", "partition_generation": "old",
 *    "like": "/ckpt/dummy/global_step1", "like_id": "0123456789abcdef",
 *    "partial": true}
 *
 * each key optional.  Pure: no I/O.
 */
#ifndef CFS_FORMAT_OPTIONS_H
#define CFS_FORMAT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/reslice/rules.h"
#include "store/util/base.h"

struct cJSON;
struct cfs_error;

#define CFS_OPTIONS_TEXT_MAX 65536u

/* "parameters" and "uniform" are DeepSpeed's; else "type:REGEX". */
#define CFS_METHOD_PARAMETERS "parameters"
#define CFS_METHOD_UNIFORM    "uniform"
#define CFS_METHOD_TYPE	      "type:"

struct cfs_options {
	struct cJSON *doc;	/* what the rest points into */
	struct cfs_rule *rules; /* ended by a NULL name; or NULL */
	uint32_t *bounds;	/* n_bounds, ascending from 0; or NULL */
	uint32_t n_bounds;
	const char *method; /* or NULL */
	int old;	    /* generation of DeepSpeed: 1, 0 new, -1 not said */
	/* A template's directory, its fingerprint, and whether it and the step
	 * may have parameters that the other one lacks; like is NULL: none. */
	const char *like;
	uint64_t like_id;
	bool partial;
};

/* -EINVAL: @err names the key; -E2BIG, -ENOMEM. */
CFS_MUST_CHECK int cfs_options_parse(const char *text, struct cfs_options *out,
				     struct cfs_error *err);
void cfs_options_fini(struct cfs_options *options);
/* Do they say anything of a pipeline's stages? */
bool cfs_options_of_stages(const struct cfs_options *options);

/* The text of a rules file, {"rules": […]}, into the array *rules_out, which
 * the caller deletes.  -EINVAL: @err names the line or the key. */
CFS_MUST_CHECK int cfs_options_read_rules(const char *text, size_t len,
					  struct cJSON **rules_out,
					  struct cfs_error *err);
/* @array to rules that point into it: options_rules.c. */
CFS_MUST_CHECK int cfs_options_rules(const struct cJSON *array,
				     struct cfs_rule **rules_out,
				     struct cfs_error *err);
/* Is it one that can be asked for?  -EINVAL with the reason. */
CFS_MUST_CHECK int cfs_options_check_method(const char *method,
					    struct cfs_error *err);

/*
 * The one copy of @text there is, kept for as long as the process lives, so
 * that requests stay plain values: as many as there are named views.  Any
 * thread; NULL: no memory.
 */
const char *cfs_options_intern(const char *text);

#endif
