/* Parameters of a step in sums and one by one, and its files. */
#include "fs/cli/show_params.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/table.h"
#include "fs/cli/text.h"
#include "fs/format/format.h"
#include "store/util/buf.h"

/* One role over all parameters of one rank. */
struct role_sum {
	uint64_t params, elements, bytes;
	enum cfs_dtype dtype; /* NONE: of several types */
};

static struct role_sum sum_role(const struct cfs_catalogue *cat, uint32_t role)
{
	struct role_sum s = {0};
	uint32_t i;

	for (i = 0; i < cfs_catalogue_params(cat); i++) {
		uint64_t numel = cfs_catalogue_param(cat, i)->numel;
		enum cfs_dtype dtype;

		if (!cfs_catalogue_has(cat, i, role))
			continue;
		dtype = cfs_catalogue_dtype(cat, i, role);
		s.dtype = s.params && s.dtype != dtype ? CFS_DTYPE_NONE : dtype;
		s.params++;
		s.elements += numel;
		s.bytes += numel * cfs_dtype_size(dtype);
	}
	return s;
}

static void show_roles(const struct cfs_catalogue *cat, cJSON *o, bool print)
{
	cJSON *roles = cfs_json_object(o, "roles");
	uint32_t role;

	for (role = 0; role < cfs_catalogue_roles(cat); role++) {
		struct role_sum s = sum_role(cat, role);
		const char *name = cfs_catalogue_role_name(cat, role);
		const char *dtype = s.dtype == CFS_DTYPE_NONE
					    ? "mixed types"
					    : cfs_dtype_name(s.dtype);
		cJSON *item;

		if (!s.params) {
			if (print)
				printf("    %-12s not stored\n", name);
			continue;
		}
		item = cfs_json_object(roles, name);
		cfs_json_u64(item, "parameters", s.params);
		cfs_json_u64(item, "elements", s.elements);
		cfs_json_u64(item, "bytes", s.bytes);
		cfs_json_str(item, "dtype", dtype);
		if (print)
			printf("    %-12s %s, %" PRIu64 " parameters, %s\n",
			       name, dtype, s.params,
			       cfs_text_bytes(s.bytes).s);
	}
}

int cfs_show_params_totals(const struct cfs_step *step, cJSON *json)
{
	cJSON *ranks = cfs_json_array(json, "parameters");
	uint32_t rank, i;

	for (rank = 0; rank < step->n_ranks; rank++) {
		const struct cfs_catalogue *cat = step->ranks[rank].catalogue;
		uint32_t n = cfs_catalogue_params(cat), frozen = 0;
		cJSON *o = cfs_json_object(ranks, NULL);
		uint64_t elements = 0;

		for (i = 0; i < n; i++) {
			const struct cfs_param *p = cfs_catalogue_param(cat, i);

			elements += p->numel;
			frozen += p->group == CFS_GROUP_FROZEN;
		}
		cfs_json_u64(o, "mp_rank", rank);
		cfs_json_u64(o, "parameters", n);
		cfs_json_u64(o, "frozen", frozen);
		cfs_json_u64(o, "elements", elements);
		if (!json)
			printf("  parameters   %" PRIu32 " (%" PRIu32
			       " frozen), %" PRIu64 " elements\n",
			       n, frozen, elements);
		show_roles(cat, o, !json);
	}
	return 0;
}

static void param_roles(const struct cfs_catalogue *cat, uint32_t i,
			struct cfs_buf *out)
{
	uint32_t role;

	for (role = 0; role < cfs_catalogue_roles(cat); role++)
		if (cfs_catalogue_has(cat, i, role))
			cfs_buf_printf(out, "%s%s:%s", out->len ? " " : "",
				       cfs_catalogue_role_name(cat, role),
				       cfs_dtype_name(cfs_catalogue_dtype(
					       cat, i, role)));
}

static void list_param(const struct cfs_catalogue *cat, uint32_t rank,
		       uint32_t i, cJSON *list, struct cfs_table *table)
{
	_cleanup_(cfs_buf_free) struct cfs_buf roles = CFS_BUF_INIT;
	const struct cfs_param *p = cfs_catalogue_param(cat, i);
	cJSON *o = cfs_json_object(list, NULL);

	param_roles(cat, i, &roles);
	cfs_json_str(o, "name", p->name);
	cfs_json_u64(o, "mp_rank", rank);
	if (p->group == CFS_GROUP_FROZEN)
		cfs_json_str(o, "group", NULL);
	else
		cfs_json_u64(o, "group", p->group);
	cfs_json_shape(o, "shape", p->ndim, p->shape);
	cfs_json_u64(o, "elements", p->numel);
	cfs_json_str(o, "roles", cfs_buf_str(&roles));
	cfs_table_cell(table, "%s", p->name);
	if (p->group == CFS_GROUP_FROZEN)
		cfs_table_cell(table, "frozen");
	else
		cfs_table_cell(table, "%" PRIu32, p->group);
	cfs_table_cell(table, "%s", cfs_text_shape(p->ndim, p->shape).s);
	cfs_table_cell(table, "%" PRIu64, p->numel);
	cfs_table_cell(table, "%s", cfs_buf_str(&roles));
}

int cfs_show_params_list(const struct cfs_step *step, cJSON *json)
{
	static const char *const headers[] = {"PARAMETER", "GROUP", "SHAPE",
					      ">ELEMENTS", "ROLES", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table =
		cfs_table_new(headers);
	cJSON *list = cfs_json_array(json, "parameter_list");
	uint32_t rank, i;

	for (rank = 0; rank < step->n_ranks; rank++) {
		const struct cfs_catalogue *cat = step->ranks[rank].catalogue;

		for (i = 0; i < cfs_catalogue_params(cat); i++)
			list_param(cat, rank, i, list, table);
	}
	return json ? 0 : cfs_table_print(table, 2, stdout);
}

int cfs_show_params_files(const struct cfs_step *step, cJSON *json)
{
	static const char *const headers[] = {"FILE", ">BYTES", "SAVED", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table =
		cfs_table_new(headers);
	cJSON *files = cfs_json_array(json, "files");
	uint32_t i, n = cfs_filetab_count(step->files);
	uint64_t bytes = 0;

	for (i = 0; i < n; i++) {
		const struct cfs_version *v =
			cfs_filetab_version(step->files, i);
		const char *path = cfs_filetab_path(step->files, i);
		const char *slash = strrchr(path, '/');
		cJSON *o = cfs_json_object(files, NULL);

		path = slash ? slash + 1 : path;
		bytes += v->size;
		cfs_json_str(o, "name", path);
		cfs_json_u64(o, "bytes", v->size);
		cfs_json_i64(o, "mtime_ns", v->mtime_ns);
		cfs_table_cell(table, "%s", path);
		cfs_table_cell(table, "%" PRIu64, v->size);
		cfs_table_cell(table, "%s", cfs_text_time(v->mtime_ns).s);
	}
	cfs_json_u64(json, "size_bytes", bytes);
	if (json)
		return 0;
	printf("  files        %" PRIu32 ", %s\n", n, cfs_text_bytes(bytes).s);
	return cfs_table_print(table, 2, stdout);
}
