/* view add: options that name items, and what two of them contradict in. */
#include "fs/cli/view_request.h"

#include <errno.h>
#include <string.h>

#include "fs/cli/say.h"
#include "fs/view/view.h"
#include "store/util/error.h"

static const struct cfs_verb *const me = &cfs_verb_view;

static int number(const char *name, const char *text, uint64_t min,
		  uint64_t max, uint64_t *out)
{
	char *end = NULL;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || *out < min ||
	    *out > max)
		return cfs_say_usage(me, "--%s %s: not a number it can be",
				     name, text);
	return 0;
}

/* One option that names an item of the request; 0 or an exit status. */
static int take_item(int c, const char *arg, struct cfs_request *request)
{
	uint64_t v = 0;
	int status = 0;

	switch (c) {
	case 'd':
		status = number("dp", arg, 1, 1u << 20, &v);
		request->dp = (uint32_t)v;
		break;
	case 'z':
		status = number("zero", arg, 0, 3, &v);
		request->zero_stage = (int)v;
		break;
	case 's':
		status = number("sub-group-size", arg, 1, UINT64_MAX / 2, &v);
		request->sub_group_size = v;
		break;
	case 'b':
		request->bf16_optimizer = 1;
		break;
	case 'Z':
		request->bf16_optimizer = 0;
		break;
	case 'r':
		request->round_robin = 1;
		break;
	default:
		request->round_robin = 0;
		break;
	}
	return status;
}

static int take_as(const char *text, struct cfs_request *request)
{
	struct cfs_error err = {""};

	if (text[0] == '@')
		text++;
	if (cfs_view_name_parse(text, request, &err) < 0)
		return cfs_say_usage(me, "--as %s: %s", text, err.text);
	return 0;
}

/* The number is there already and another? */
#define DIFFER(a, b, unset) ((a) != (unset) && (b) != (unset) && (a) != (b))

/* Adds @more to @request; the item that both name differently, or NULL. */
static const char *merge(struct cfs_request *request,
			 const struct cfs_request *more)
{
	struct cfs_request *r = request;

	if (DIFFER(r->dp, more->dp, 0))
		return "dp";
	if (DIFFER(r->tp, more->tp, 0))
		return "tp";
	if (DIFFER(r->pp, more->pp, -1))
		return "pp";
	if (DIFFER(r->zero_stage, more->zero_stage, -1))
		return "the ZeRO stage";
	if (DIFFER(r->bf16_optimizer, more->bf16_optimizer, -1))
		return "the optimizer's class";
	if (DIFFER(r->round_robin, more->round_robin, -1))
		return "round_robin_gradients";
	if (DIFFER(r->sub_group_size, more->sub_group_size, 0))
		return "sub_group_size";
	if (DIFFER(r->vocabulary, more->vocabulary, 0))
		return "the vocabulary";
	if (DIFFER(r->qkv_in_parts, more->qkv_in_parts, -1))
		return "the order of queries, keys and values";
	if (DIFFER(r->bias_sum, more->bias_sum, -1))
		return "how biases are shared";
	r->dp = r->dp ? r->dp : more->dp;
	r->tp = r->tp ? r->tp : more->tp;
	r->pp = CFS_MAX(r->pp, more->pp);
	r->zero_stage = CFS_MAX(r->zero_stage, more->zero_stage);
	r->bf16_optimizer = CFS_MAX(r->bf16_optimizer, more->bf16_optimizer);
	r->round_robin = CFS_MAX(r->round_robin, more->round_robin);
	r->sub_group_size =
		r->sub_group_size ? r->sub_group_size : more->sub_group_size;
	r->vocabulary = CFS_MAX(r->vocabulary, more->vocabulary);
	r->qkv_in_parts = CFS_MAX(r->qkv_in_parts, more->qkv_in_parts);
	r->bias_sum = CFS_MAX(r->bias_sum, more->bias_sum);
	r->universal = CFS_MAX(r->universal, more->universal);
	return NULL;
}

/* One option of `add`, on top of those before it; 0 or an exit status. */
int cfs_view_request_take(int c, const char *arg, struct cfs_request *request)
{
	struct cfs_request more = CFS_REQUEST_INIT;
	const char *twice;
	int status;

	status = c == 'a' ? take_as(arg, &more) : take_item(c, arg, &more);
	if (status)
		return status;
	twice = merge(request, &more);
	if (twice)
		return cfs_say_usage(me, "%s is asked for twice, differently",
				     twice);
	return 0;
}
