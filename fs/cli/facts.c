/* Topologies in words and as JSON. */
#include "fs/cli/facts.h"

#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/json.h"

const char *cfs_facts_class(enum cfs_optimizer_class cls)
{
	switch (cls) {
	case CFS_OPT_NONE:
		return "none";
	case CFS_OPT_STAGE0:
		return "plain";
	case CFS_OPT_ZERO12:
		return "zero";
	case CFS_OPT_BF16:
		return "bf16opt";
	case CFS_OPT_ZERO3:
		return "zero3";
	}
	return "?";
}

void cfs_facts_topology_json(const struct cfs_topology *t, uint32_t n_ranks,
			     cJSON *json)
{
	cfs_json_u64(json, "dp", t->dp);
	cfs_json_u64(json, "mp", n_ranks);
	cfs_json_u64(json, "tp", t->tp);
	cfs_json_u64(json, "pp", t->pp);
	cfs_json_i64(json, "zero_stage", t->zero_stage);
	cfs_json_str(json, "optimizer", cfs_optimizer_class_name(t->optimizer));
	cfs_json_bool(json, "round_robin", t->round_robin);
	cfs_json_bool(json, "param_alignment", t->param_alignment);
	if (t->optimizer == CFS_OPT_ZERO3)
		cfs_json_u64(json, "sub_group_size", t->sub_group_size);
}

struct cfs_text cfs_facts_topology(const struct cfs_topology *t,
				   uint32_t n_ranks)
{
	struct cfs_text out;
	char mp[32] = "", sub[48] = "";

	if (n_ranks > 1)
		snprintf(mp, sizeof(mp), ", mp %" PRIu32, n_ranks);
	if (t->optimizer == CFS_OPT_ZERO3)
		snprintf(sub, sizeof(sub), ", sub_group_size %" PRIu64,
			 t->sub_group_size);
	snprintf(out.s, sizeof(out.s), "dp %" PRIu32 "%s, stage %d, %s%s%s%s",
		 t->dp, mp, t->zero_stage,
		 cfs_optimizer_class_name(t->optimizer), sub,
		 t->round_robin ? ", round robin" : "",
		 t->param_alignment ? ", parameter alignment" : "");
	return out;
}
