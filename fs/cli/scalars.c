/* Values of an optimizer's state that stand for a whole group. */
#include "fs/cli/scalars.h"

#include "fs/cli/elements.h"
#include "fs/cli/tensors.h"
#include "store/map/map.h"

bool cfs_scalars_value(const struct cfs_node *node, struct cfs_filetab *tab,
		       struct cfs_filepool *pool, double *out)
{
	_cleanup_(cfs_map_unrefp) struct cfs_map *map = NULL;
	_cleanup_(cfs_elements_close) struct cfs_elements e = {0};
	struct cfs_torch_tensor t;

	if (cfs_node_as_real(node, out))
		return true;
	if (!node || cfs_torch_tensor_get(node, &t) < 0 || t.numel != 1 ||
	    !t.storage || !cfs_elements_is_number(t.dtype))
		return false;
	if (cfs_tensors_torch_map(&t, tab, pool, &map, NULL) < 0 ||
	    cfs_elements_open(map, pool, t.dtype, &e, NULL) < 0 ||
	    cfs_elements_next(&e, NULL) <= 0)
		return false;
	cfs_elements_decode(t.dtype, e.raw, 1, out);
	return true;
}
