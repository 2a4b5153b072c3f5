/* Is each role there for each parameter that must have it? */
#include <inttypes.h>

#include "fs/cli/check.h"
#include "fs/format/format.h"

/* Sealing the catalogue has proved that what is there is covered once; what
 * is left is what is not there at all.  Stage 3 and universal checkpoints make
 * weights of the masters. */
static void check_param(struct cfs_check *check,
			const struct cfs_catalogue *cat, uint32_t i)
{
	const struct cfs_topology *t = &check->step->topology;
	const struct cfs_param *p = cfs_catalogue_param(cat, i);
	bool frozen = p->group == CFS_GROUP_FROZEN;
	uint32_t role;

	for (role = 0; role < cfs_catalogue_roles(cat); role++) {
		bool optional =
			frozen			       ? role != CFS_ROLE_WEIGHT
			: t->optimizer == CFS_OPT_NONE ? role != CFS_ROLE_WEIGHT
			: role == CFS_ROLE_WEIGHT
				? t->optimizer == CFS_OPT_ZERO3 || t->universal
				: role == CFS_ROLE_MASTER &&
					  t->optimizer == CFS_OPT_STAGE0;

		if (!optional && p->numel && !cfs_catalogue_has(cat, i, role))
			cfs_check_report_problem(
				check->report, p->name, "has no %s",
				cfs_catalogue_role_name(cat, role));
	}
}

int cfs_check_coverage(struct cfs_check *check, struct cfs_error *err)
{
	uint32_t rank, i, n = 0;

	(void)err;
	cfs_check_report_begin(check->report, "tensors");
	for (rank = 0; rank < check->step->n_ranks; rank++) {
		const struct cfs_catalogue *cat =
			check->step->ranks[rank].catalogue;

		for (i = 0; i < cfs_catalogue_params(cat); i++)
			check_param(check, cat, i);
		n += cfs_catalogue_params(cat);
	}
	cfs_check_report_number(check->report, "parameters", n);
	cfs_check_report_end(check->report,
			     "%" PRIu32 " parameters, every element of each "
			     "found once in each role",
			     n);
	return 0;
}
