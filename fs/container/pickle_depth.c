/* How deep a decoded tree is: readers of trees may recurse, so it is bounded */
#include <errno.h>
#include <string.h>

#include "fs/container/pickle_internal.h"

#define IN_PROGRESS UINT32_MAX /* as a height: on the path from the root */

struct frame {
	struct cfs_node *node;
	size_t next;	 /* slot to look at */
	uint32_t height; /* of the slots done */
};

/*
 * The longest path of the tree, each node visited once.  An edge back to the
 * path it came from is a cycle of the object itself and counts as nothing.
 */
static int walk(struct frame *stack, uint32_t limit)
{
	size_t n = 1;

	while (n) {
		struct frame *f = &stack[n - 1];
		struct cfs_node *child;

		if (f->next == cfs_node_slots(f->node)) {
			f->node->height = f->height + 1;
			if (f->node->height > limit)
				return -E2BIG;
			if (--n && stack[n - 1].height < f->node->height)
				stack[n - 1].height = f->node->height;
			continue;
		}
		child = cfs_node_slot(f->node, f->next++);
		if (!child || child->height == IN_PROGRESS)
			continue;
		if (child->height || !cfs_node_slots(child)) {
			if (f->height < CFS_MAX(child->height, 1u))
				f->height = CFS_MAX(child->height, 1u);
			continue;
		}
		if (n == limit)
			return -E2BIG;
		child->height = IN_PROGRESS;
		stack[n++] = (struct frame){child, 0, 0};
	}
	return 0;
}

int cfs_node_check_depth(struct cfs_node *root, uint32_t limit)
{
	_cleanup_(cfs_freep) struct frame *stack = NULL;

	if (!cfs_node_slots(root))
		return 0;
	stack = calloc(limit, sizeof(*stack));
	if (!stack)
		return -ENOMEM;
	root->height = IN_PROGRESS;
	stack[0] = (struct frame){root, 0, 0};
	return walk(stack, limit);
}
