/* Decoding the frames of a rank: op.h. */
#include "fs/rank/op.h"

#include <errno.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/error.h"

#define EXACT_MAX   9e15 /* numbers up to here are whole in JSON */
#define NAME_MAX_   255u
#define PATH_MAX_   4095u
#define TENSOR_MAX  1023u
#define TIMEOUT_MAX (30u * 24 * 3600)

static const struct {
	const char *name;
	enum cfs_dtype dtype;
} dtypes[] = {
	{"float32", CFS_F32}, {"float16", CFS_F16}, {"bfloat16", CFS_BF16},
	{"float64", CFS_F64}, {"int64", CFS_I64},   {"int32", CFS_I32},
	{"int16", CFS_I16},   {"int8", CFS_I8},	    {"uint8", CFS_U8},
	{"bool", CFS_BOOL},
};

enum cfs_dtype cfs_op_dtype(const char *name)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++)
		if (!strcmp(dtypes[i].name, name))
			return dtypes[i].dtype;
	return CFS_DTYPE_NONE;
}

const char *cfs_op_dtype_name(enum cfs_dtype dtype)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(dtypes); i++)
		if (dtypes[i].dtype == dtype)
			return dtypes[i].name;
	return NULL;
}

/* ---- members ---- */

/* The first error of a frame; what is read after it does not count. */
struct reading {
	const cJSON *frame;
	int r;
	struct cfs_error *err;
};

static void refuse(struct reading *in, const char *name, const char *what)
{
	if (!in->r)
		in->r = cfs_fail(in->err, -EINVAL, "\"%s\" %s", name, what);
}

static bool whole(const cJSON *item, uint64_t max, uint64_t *out)
{
	double v = item->valuedouble;

	if (!cJSON_IsNumber(item) || !(v >= 0) || v > EXACT_MAX)
		return false;
	*out = (uint64_t)v;
	return *out <= max && (double)*out == v;
}

static uint64_t number(struct reading *in, const char *name, uint64_t max)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(in->frame, name);
	uint64_t v = 0;

	if (!item)
		refuse(in, name, "is missing");
	else if (!whole(item, max, &v))
		refuse(in, name, "is no number that can be");
	return v;
}

static uint64_t number_or_0(struct reading *in, const char *name, uint64_t max)
{
	return cJSON_GetObjectItemCaseSensitive(in->frame, name)
		       ? number(in, name, max)
		       : 0;
}

/* No control characters: names are told in lines of text. */
static bool plain(const char *s, size_t max)
{
	size_t n = 0;

	for (; s[n]; n++)
		if ((unsigned char)s[n] < 0x20 || s[n] == 0x7f || n >= max)
			return false;
	return true;
}

static const char *string(struct reading *in, const char *name, size_t max)
{
	const char *s = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(in->frame, name));

	if (!s)
		refuse(in, name, "is missing");
	else if (!plain(s, max))
		refuse(in, name, "is too long or no plain text");
	return s ? s : "";
}

static const char *string_or_null(struct reading *in, const char *name,
				  size_t max)
{
	return cJSON_GetObjectItemCaseSensitive(in->frame, name)
		       ? string(in, name, max)
		       : NULL;
}

/* A path below the step or the run. */
static const char *path(struct reading *in, const char *name, bool empty)
{
	const char *s = string(in, name, PATH_MAX_);

	if (!in->r && (!cfs_source_path_ok(s) || (!*s && !empty)))
		refuse(in, name, "is no path below its directory");
	return s;
}

static const char *component(struct reading *in, const char *name, bool empty)
{
	const char *s = path(in, name, empty);

	if (!in->r && (strchr(s, '/') || strlen(s) > NAME_MAX_))
		refuse(in, name, "is not one name");
	return s;
}

static bool flag(struct reading *in, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(in->frame, name);

	if (item && !cJSON_IsBool(item))
		refuse(in, name, "is neither true nor false");
	return cJSON_IsTrue(item);
}

/* At most @max whole numbers; how many. */
static uint32_t numbers(struct reading *in, const char *name, uint64_t *out,
			uint32_t max)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(in->frame, name);
	const cJSON *item;
	uint32_t n = 0;

	if (!cJSON_IsArray(list)) {
		refuse(in, name, "is no list");
		return 0;
	}
	cJSON_ArrayForEach(item, list)
	{
		if (n == max || !whole(item, UINT64_MAX, &out[n])) {
			refuse(in, name, "is no list that can be");
			return 0;
		}
		n++;
	}
	return n;
}

/* ---- operations ---- */

static int refusal(struct reading *in)
{
	const cJSON *r = cJSON_GetObjectItemCaseSensitive(in->frame, "r");

	if (cJSON_IsNumber(r) && r->valueint < 0 && r->valueint >= -4095)
		return r->valueint;
	refuse(in, "r", "is no error that can be");
	return -EIO;
}

/* With "r": the rank cannot, and comes to say so. */
static void begin(struct reading *in, struct cfs_op *op)
{
	op->save = number_or_0(in, "save", UINT64_MAX);
	if (cJSON_GetObjectItemCaseSensitive(in->frame, "r")) {
		const char *reason = string_or_null(in, "reason", 400);
		int r = refusal(in);

		if (!in->r)
			in->r = cfs_fail(in->err, r, "%s",
					 reason ? reason : strerror(-r));
		return;
	}
	op->step = component(in, "step", false);
	op->format = string(in, "format", NAME_MAX_);
	op->pointer = cJSON_GetObjectItemCaseSensitive(in->frame, "pointer")
			      ? component(in, "pointer", true)
			      : NULL;
	op->dp = (uint32_t)number_or_0(in, "dp", CFS_OP_RANKS_MAX);
	op->tp = (uint32_t)number_or_0(in, "tp", CFS_OP_RANKS_MAX);
	op->pp = (uint32_t)number_or_0(in, "pp", CFS_OP_RANKS_MAX);
	op->zero_stage = (int)number_or_0(in, "zero", 3);
	op->replace = flag(in, "replace");
}

static void box(struct reading *in, struct cfs_op *op, bool with_shape)
{
	struct cfs_put *put = &op->put;
	uint64_t flat[2] = {0, 0};
	uint32_t n;

	put->name = string(in, "name", TENSOR_MAX);
	put->role = string(in, "role", NAME_MAX_);
	if (!in->r && (!*put->name || !*put->role))
		refuse(in, *put->name ? "role" : "name", "is empty");
	put->dtype = cfs_op_dtype(string(in, "dtype", NAME_MAX_));
	if (!in->r && put->dtype == CFS_DTYPE_NONE)
		refuse(in, "dtype", "is none that there is");
	put->ndim = numbers(in, "offset", put->offset, CFS_PUT_DIMS_MAX);
	n = numbers(in, "extent", put->extent, CFS_PUT_DIMS_MAX);
	if (!in->r && n != put->ndim)
		refuse(in, "extent", "has other dimensions than \"offset\"");
	if (with_shape) {
		n = numbers(in, "shape", put->shape, CFS_PUT_DIMS_MAX);
		if (!in->r && n != put->ndim)
			refuse(in, "shape",
			       "has other dimensions than \"offset\"");
	}
	op->has_flat =
		cJSON_GetObjectItemCaseSensitive(in->frame, "flat") != NULL;
	if (op->has_flat && numbers(in, "flat", flat, 2) != 2)
		refuse(in, "flat", "is not a start and a count");
	put->flat_start = flat[0];
	put->flat_count = flat[1];
}

static void put(struct reading *in, struct cfs_op *op)
{
	op->id = number(in, "id", UINT64_MAX);
	box(in, op, true);
}

static void file(struct reading *in, struct cfs_op *op)
{
	op->id = number(in, "id", UINT64_MAX);
	op->file = path(in, "name", false);
}

static void object(struct reading *in, struct cfs_op *op)
{
	op->id = number(in, "id", UINT64_MAX);
	op->file = component(in, "name", false);
}

static void data(struct reading *in, struct cfs_op *op)
{
	op->id = number(in, "id", UINT64_MAX);
	op->slot = number(in, "slot", UINT64_MAX);
	op->len = number(in, "len", UINT64_MAX);
}

static void end(struct reading *in, struct cfs_op *op)
{
	op->id = number(in, "id", UINT64_MAX);
}

static void commit(struct reading *in, struct cfs_op *op)
{
	(void)in;
	(void)op;
}

static void abort_(struct reading *in, struct cfs_op *op)
{
	op->reason = string_or_null(in, "reason", 400);
}

static void fail(struct reading *in, struct cfs_op *op)
{
	op->reason = string_or_null(in, "reason", 400);
	op->r = refusal(in);
}

static void load(struct reading *in, struct cfs_op *op)
{
	op->step = component(in, "step", true);
}

static void list(struct reading *in, struct cfs_op *op)
{
	op->load = number(in, "load", UINT64_MAX);
	op->from = number_or_0(in, "from", UINT64_MAX);
}

static void slice(struct reading *in, struct cfs_op *op)
{
	op->load = number(in, "load", UINT64_MAX);
	box(in, op, false);
}

static void open_(struct reading *in, struct cfs_op *op)
{
	op->load = number(in, "load", UINT64_MAX);
	op->file = path(in, "name", false);
}

static void read_(struct reading *in, struct cfs_op *op)
{
	uint64_t slots[CFS_OP_SLOTS_MAX];

	op->handle = number(in, "handle", UINT64_MAX);
	op->off = number(in, "off", UINT64_MAX);
	op->len = number(in, "len", UINT64_MAX);
	op->n_slots = numbers(in, "slots", slots, CFS_OP_SLOTS_MAX);
	for (uint32_t i = 0; i < op->n_slots; i++) {
		op->slots[i] = (uint32_t)slots[i];
		if (slots[i] > UINT32_MAX)
			refuse(in, "slots", "is no list that can be");
	}
}

static void close_(struct reading *in, struct cfs_op *op)
{
	op->load = number_or_0(in, "load", UINT64_MAX);
	op->handle = number_or_0(in, "handle", UINT64_MAX);
	if (!in->r && !op->load == !op->handle)
		refuse(in, "handle",
		       "or \"load\" is to be closed, one of them");
}

static const struct {
	const char *name;
	enum cfs_op_kind kind;
	void (*read)(struct reading *in, struct cfs_op *op);
} ops[] = {
	{"begin", CFS_OP_BEGIN, begin},	   {"put", CFS_OP_PUT, put},
	{"file", CFS_OP_FILE, file},	   {"object", CFS_OP_OBJECT, object},
	{"data", CFS_OP_DATA, data},	   {"end", CFS_OP_END, end},
	{"commit", CFS_OP_COMMIT, commit}, {"fail", CFS_OP_FAIL, fail},
	{"abort", CFS_OP_ABORT, abort_},   {"load", CFS_OP_LOAD, load},
	{"list", CFS_OP_LIST, list},	   {"slice", CFS_OP_SLICE, slice},
	{"open", CFS_OP_OPEN, open_},	   {"read", CFS_OP_READ, read_},
	{"close", CFS_OP_CLOSE, close_},
};

int cfs_op_decode(const cJSON *frame, struct cfs_op *out, struct cfs_error *err)
{
	struct reading in = {frame, 0, err};
	const char *name = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(frame, "op"));

	memset(out, 0, offsetof(struct cfs_op, slots));
	for (size_t i = 0; name && i < CFS_ARRAY_SIZE(ops); i++) {
		if (strcmp(ops[i].name, name) != 0)
			continue;
		out->kind = ops[i].kind;
		out->name = ops[i].name;
		ops[i].read(&in, out);
		return in.r < 0 ? cfs_fail_prefix(err, in.r, "%s", name) : 0;
	}
	return cfs_fail(err, -EBADMSG, "a frame without a known \"op\"");
}

int cfs_op_hello(const cJSON *arguments, struct cfs_op_hello *out,
		 struct cfs_error *err)
{
	struct reading in = {arguments, 0, err};
	uint64_t version = number(&in, "version", UINT32_MAX);
	const char *run;

	if (!in.r && version != 1)
		return cfs_fail(err, -EPROTONOSUPPORT,
				"the library speaks version %llu and the "
				"daemon version 1: both must be of one release",
				(unsigned long long)version);
	run = path(&in, "run", true);
	out->job = string(&in, "job", 64);
	out->n_ranks = (uint32_t)number(&in, "ranks", UINT32_MAX);
	out->rank = (uint32_t)number(&in, "rank", UINT32_MAX);
	if (!in.r && out->n_ranks > CFS_OP_JOB_MAX)
		in.r = cfs_fail(err, -EINVAL,
				"a job of %u ranks: %u can save together",
				out->n_ranks, CFS_OP_JOB_MAX);
	if (!in.r && out->rank >= out->n_ranks)
		refuse(&in, "rank", "is not below \"ranks\"");
	if (!in.r && !*out->job != !out->rank)
		refuse(&in, "job", "is named by all ranks but the first");
	out->slots = number(&in, "slots", UINT64_MAX);
	out->slot_bytes = number(&in, "slot_bytes", UINT64_MAX);
	out->timeout_s = (uint32_t)number(&in, "timeout", TIMEOUT_MAX);
	out->umask = (mode_t)number(&in, "umask", 0777);
	if (in.r)
		return in.r;
	out->run = strdup(run);
	return out->run ? 0 : -ENOMEM;
}
