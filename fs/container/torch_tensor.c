/* Tensors as their rebuild calls describe them. */
#include <errno.h>
#include <string.h>

#include "fs/container/torch_internal.h"
#include "store/util/checked.h"

#define WRAPPERS_MAX 8 /* a parameter of a tensor with state of a … */

enum call {
	CALL_NONE,
	CALL_V1,
	CALL_V2,
	CALL_V3,
	CALL_PARAMETER,
	CALL_TYPE
};

static const struct {
	const char *module, *name;
	enum call call;
} calls[] = {
	{"torch._utils", "_rebuild_tensor_v2", CALL_V2},
	{"torch._utils", "_rebuild_parameter", CALL_PARAMETER},
	{"torch._utils", "_rebuild_tensor_v3", CALL_V3},
	{"torch._utils", "_rebuild_parameter_with_state", CALL_PARAMETER},
	{"torch._tensor", "_rebuild_from_type_v2", CALL_TYPE},
	{"torch._utils", "_rebuild_tensor", CALL_V1},
};

/* @fn: a GLOBAL.  -ENOENT: nothing of torch's that makes tensors. */
static int which_call(const struct cfs_node *fn, enum call *out)
{
	const char *module, *name;

	if (!fn || fn->kind != CFS_NODE_GLOBAL)
		return -ENOENT;
	module = fn->u.global.module;
	name = fn->u.global.name;
	for (size_t i = 0; i < CFS_ARRAY_SIZE(calls); i++) {
		if (!strcmp(name, calls[i].name) &&
		    !strcmp(module, calls[i].module)) {
			*out = calls[i].call;
			return 0;
		}
	}
	if ((!strcmp(module, "torch._utils") ||
	     !strcmp(module, "torch._tensor")) &&
	    !strncmp(name, "_rebuild_", strlen("_rebuild_")))
		return -ENOTSUP;
	return -ENOENT;
}

static bool row_major(const struct cfs_torch_tensor *t)
{
	uint64_t step = 1;

	if (!t->numel)
		return true;
	for (uint32_t i = t->ndim; i-- > 0;) {
		if (t->shape[i] != 1 && t->stride[i] != step)
			return false;
		step *= t->shape[i];
	}
	return true;
}

/* Does every element lie inside the storage? */
static bool fits(const struct cfs_torch_tensor *t, uint32_t itemsize)
{
	uint64_t last = t->storage_offset, span, bytes;

	if (!t->numel)
		return true;
	for (uint32_t i = 0; i < t->ndim; i++) {
		if (!cfs_mul_u64(t->shape[i] - 1, t->stride[i], &span) ||
		    !cfs_add_u64(last, span, &last))
			return false;
	}
	return cfs_add_u64(last, 1, &last) &&
	       cfs_mul_u64(last, itemsize, &bytes) &&
	       bytes <= t->storage->nbytes;
}

static int read_layout(const struct cfs_node *args, struct cfs_torch_tensor *t)
{
	uint32_t n;

	if (!cfs_node_as_u64(cfs_seq_node_item(args, 1), &t->storage_offset))
		return -EBADMSG;
	if (cfs_seq_node_count(cfs_seq_node_item(args, 2)) >
	    CFS_TENSOR_DIMS_MAX)
		return -ENOTSUP;
	if (!cfs_node_as_shape(cfs_seq_node_item(args, 2), CFS_TENSOR_DIMS_MAX,
			       &t->ndim, t->shape) ||
	    !cfs_node_as_shape(cfs_seq_node_item(args, 3), CFS_TENSOR_DIMS_MAX,
			       &n, t->stride) ||
	    n != t->ndim)
		return -EBADMSG;
	t->numel = 1;
	for (uint32_t i = 0; i < t->ndim; i++) {
		if (!t->shape[i]) {
			t->numel = 0;
			return 0;
		}
	}
	for (uint32_t i = 0; i < t->ndim; i++) {
		if (!cfs_mul_u64(t->numel, t->shape[i], &t->numel))
			return -EBADMSG;
	}
	return 0;
}

/* The element type: the storage's, or for v3 the seventh argument. */
static int read_dtype(const struct cfs_node *args, bool v3,
		      struct cfs_torch_tensor *t, uint32_t *itemsize_out)
{
	const struct cfs_torch_storage *s = t->storage;
	const struct cfs_node *node = cfs_seq_node_item(args, 6);
	const struct cfs_torch_class *cls;

	if (v3) {
		if (!node || node->kind != CFS_NODE_GLOBAL ||
		    strcmp(node->u.global.module, "torch"))
			return -EBADMSG;
		t->dtype =
			cfs_torch_dtype_find(node->u.global.name, itemsize_out);
		return t->dtype == CFS_DTYPE_NONE ? -ENOTSUP : 0;
	}
	if (cfs_torch_class_untyped(s))
		return -ENOTSUP;
	cls = cfs_torch_class_find(s->cls_module, s->cls_name);
	if (!cls)
		return -ENOTSUP;
	t->dtype = cls->dtype;
	*itemsize_out = cls->itemsize;
	return 0;
}

/* conj, neg: bits that change what the elements mean */
static bool has_metadata(const struct cfs_node *args, uint32_t at)
{
	const struct cfs_node *node = cfs_seq_node_item(args, at);

	return node && !cfs_node_is_none(node) &&
	       (!cfs_node_is_map(node) || cfs_map_node_count(node));
}

static int read_tensor(const struct cfs_node *args, enum call call,
		       struct cfs_torch_tensor *t)
{
	const struct cfs_node *storage = cfs_seq_node_item(args, 0);
	const bool v3 = call == CALL_V3;
	uint32_t itemsize;
	int r;

	if (!storage || storage->kind != CFS_NODE_PERSID ||
	    !storage->u.persid.storage)
		return -ENOTSUP;
	t->storage = storage->u.persid.storage;
	r = read_dtype(args, v3, t, &itemsize);
	if (r < 0)
		return r;
	r = read_layout(args, t);
	if (r < 0)
		return r;
	if (call != CALL_V1 &&
	    !cfs_node_as_bool(cfs_seq_node_item(args, 4), &t->requires_grad))
		return -EBADMSG;
	if (call != CALL_V1 && has_metadata(args, v3 ? 7 : 6))
		return -ENOTSUP;
	if (!fits(t, itemsize))
		return -EBADMSG;
	t->contiguous = row_major(t);
	return 0;
}

static bool is_parameter(const struct cfs_node *type)
{
	return cfs_node_is_global(type, "torch.nn.parameter", "Parameter");
}

/*
 * Peels wrappers until a plain tensor call is left: *fn and *args are the
 * call, wrapped or not.
 */
static int peel(const struct cfs_node **fn, const struct cfs_node **args,
		enum call call, struct cfs_torch_tensor *t, bool *grad_set,
		bool *grad)
{
	const struct cfs_node *inner;

	if (call == CALL_TYPE) { /* (func, type, args, state) */
		inner = cfs_seq_node_item(*args, 1);
		if (!is_parameter(inner) &&
		    !cfs_node_is_global(inner, "torch", "Tensor") &&
		    !cfs_node_is_global(inner, "torch._tensor", "Tensor"))
			return -ENOTSUP;
		t->parameter |= is_parameter(inner);
		*fn = cfs_seq_node_item(*args, 0);
		*args = cfs_seq_node_item(*args, 2);
		return *fn && *args && (*args)->kind == CFS_NODE_TUPLE
			       ? 0
			       : -EBADMSG;
	}
	/* _rebuild_parameter: (tensor, requires_grad, hooks[, state]) */
	t->parameter = true;
	if (!*grad_set && !cfs_node_as_bool(cfs_seq_node_item(*args, 1), grad))
		return -EBADMSG;
	*grad_set = true;
	inner = cfs_seq_node_item(*args, 0);
	if (!inner || inner->kind != CFS_NODE_OBJECT ||
	    inner->u.object->call != CFS_CALL_REDUCE)
		return -ENOTSUP;
	*fn = inner->u.object->fn;
	*args = inner->u.object->args;
	return 0;
}

int cfs_torch_tensor_get(const struct cfs_node *node,
			 struct cfs_torch_tensor *out)
{
	const struct cfs_node *fn, *args;
	bool grad = false, grad_set = false;
	struct cfs_torch_tensor t = {0};
	enum call call = CALL_NONE;
	int r;

	if (!node || node->kind != CFS_NODE_OBJECT ||
	    node->u.object->call != CFS_CALL_REDUCE)
		return -ENOENT;
	fn = node->u.object->fn;
	args = node->u.object->args;
	r = which_call(fn, &call);
	for (unsigned i = 0; !r && call >= CALL_PARAMETER; i++) {
		if (i == WRAPPERS_MAX)
			return -ENOTSUP;
		r = peel(&fn, &args, call, &t, &grad_set, &grad);
		if (!r && which_call(fn, &call) < 0)
			r = -ENOTSUP; /* a tensor of some kind it is */
	}
	if (r < 0)
		return r;
	r = read_tensor(args, call, &t);
	if (r < 0)
		return r;
	if (grad_set)
		t.requires_grad = grad;
	*out = t;
	return 0;
}

bool cfs_torch_is_tensor(const struct cfs_node *node)
{
	enum call call;

	return node && node->kind == CFS_NODE_OBJECT &&
	       node->u.object->call == CFS_CALL_REDUCE &&
	       which_call(node->u.object->fn, &call) != -ENOENT;
}
