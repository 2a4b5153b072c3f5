/* Additions to cJSON: whole 64-bit numbers, shapes, printing. */
#ifndef CFS_CLI_JSON_H
#define CFS_CLI_JSON_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "store/util/base.h"

void cfs_json_freep(cJSON **json); /* for _cleanup_ */

/*
 * Adding to an object; @key NULL appends to an array.  A NULL @parent makes
 * it a no-op, so that callers need not ask whether --json was given.
 */
void cfs_json_u64(cJSON *parent, const char *key, uint64_t v);
void cfs_json_i64(cJSON *parent, const char *key, int64_t v);
void cfs_json_real(cJSON *parent, const char *key, double v); /* NaN: "nan" */
void cfs_json_str(cJSON *parent, const char *key, const char *v); /* or null */
void cfs_json_bool(cJSON *parent, const char *key, int v);
void cfs_json_shape(cJSON *parent, const char *key, uint32_t ndim,
		    const uint64_t *shape);
cJSON *cfs_json_array(cJSON *parent, const char *key);
cJSON *cfs_json_object(cJSON *parent, const char *key);

/* Prints the document and a newline on stdout.  0 or -ENOMEM. */
CFS_MUST_CHECK int cfs_json_print(const cJSON *json);

#endif
