/* The names of views: "dp32-zero1" to a request, and back. */
#include "fs/view/view.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/util/error.h"
#include "store/util/hash.h"

#define DEGREE_MAX 65536 /* ranks of one kind; far above any machine */
#define KNOWN_ITEMS                                                            \
	"dpN, zeroN, bf16opt, zeroopt, rr, norr, subN, tpN, ppN, mpN, "        \
	"vocabN, qkvparts, qkvheads, biassum, biassame, universal"

/* One item of a name: a word and, where the word wants one, a number. */
struct item {
	const char *text;
	int len;	 /* of the whole item */
	size_t word_len; /* letters in front of the number */
	bool has_number;
	uint64_t number;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * Words may hold digits ("bf16opt"), so the number is what digits end the
 * item, behind an optional '='.
 */
static int item_split(const char *s, size_t len, struct item *out,
		      struct cfs_error *err)
{
	size_t digits = len, i;
	uint64_t n = 0;

	while (digits > 0 && is_digit(s[digits - 1]))
		digits--;
	*out = (struct item){.text = s, .len = (int)CFS_MIN(len, 64)};
	out->has_number = digits < len;
	out->word_len = digits;
	if (digits > 0 && s[digits - 1] == '=')
		out->word_len--;
	for (i = digits; i < len; i++)
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(s[i] - '0'), &n))
			return cfs_fail(err, -EINVAL,
					"'%.*s': the number is too large",
					out->len, s);
	out->number = n;
	return 0;
}

static bool item_is(const struct item *item, const char *word)
{
	return strlen(word) == item->word_len &&
	       !memcmp(item->text, word, item->word_len);
}

static int fail_twice(const struct item *item, struct cfs_error *err)
{
	return cfs_fail(err, -EINVAL,
			"'%.*s' contradicts or repeats an item "
			"before it",
			item->len, item->text);
}

static int fail_number(const struct item *item, const char *wanted,
		       struct cfs_error *err)
{
	return cfs_fail(err, -EINVAL, "'%.*s' needs %s", item->len, item->text,
			wanted);
}

static int set_degree(const struct item *item, void *field, int value,
		      struct cfs_error *err)
{
	uint32_t *degree = field;

	(void)value;
	if (!item->has_number || item->number < 1 || item->number > DEGREE_MAX)
		return fail_number(item, "a number from 1 to 65536, as in dp32",
				   err);
	if (*degree)
		return fail_twice(item, err);
	*degree = (uint32_t)item->number;
	return 0;
}

/* Of a pipeline; 0: none. */
static int set_stages(const struct item *item, void *field, int value,
		      struct cfs_error *err)
{
	int *stages = field;

	(void)value;
	if (!item->has_number || item->number > DEGREE_MAX)
		return fail_number(item, "a number from 0 to 65536, as in pp4",
				   err);
	if (*stages >= 0)
		return fail_twice(item, err);
	*stages = (int)item->number;
	return 0;
}

static int set_stage(const struct item *item, void *field, int value,
		     struct cfs_error *err)
{
	int *stage = field;

	(void)value;
	if (!item->has_number || item->number > 3)
		return fail_number(
			item, "a ZeRO stage from 0 to 3, as in zero1", err);
	if (*stage >= 0)
		return fail_twice(item, err);
	*stage = (int)item->number;
	return 0;
}

static int set_elements(const struct item *item, void *field, int value,
			struct cfs_error *err)
{
	uint64_t *elements = field;

	(void)value;
	if (!item->has_number || item->number < 1 || item->number > INT64_MAX)
		return fail_number(
			item, "a number of elements, as in sub1000000000", err);
	if (*elements)
		return fail_twice(item, err);
	*elements = item->number;
	return 0;
}

static int set_words(const struct item *item, void *field, int value,
		     struct cfs_error *err)
{
	uint64_t *words = field;

	(void)value;
	if (!item->has_number || item->number < 1 || item->number > UINT32_MAX)
		return fail_number(item,
				   "the size of the vocabulary without "
				   "padding, as in vocab50277",
				   err);
	if (*words)
		return fail_twice(item, err);
	*words = item->number;
	return 0;
}

static int set_flag(const struct item *item, void *field, int value,
		    struct cfs_error *err)
{
	int *flag = field;

	if (item->has_number)
		return cfs_fail(err, -EINVAL, "'%.*s' takes no number",
				item->len, item->text);
	if (*flag >= 0)
		return fail_twice(item, err);
	*flag = value;
	return 0;
}

#define FIELD(name) offsetof(struct cfs_request, name)

/* What there is; KNOWN_ITEMS says the same to the user. */
static const struct word {
	const char *text;
	size_t field;
	int (*set)(const struct item *item, void *field, int value,
		   struct cfs_error *err);
	int value; /* of a flag */
} words[] = {
	{"dp", FIELD(dp), set_degree, 0},
	{"tp", FIELD(tp), set_degree, 0},
	/* DeepSpeed's one model-parallel number is the tensor degree where
	 * there are no pipeline stages. */
	{"mp", FIELD(tp), set_degree, 0},
	{"pp", FIELD(pp), set_stages, 0},
	{"zero", FIELD(zero_stage), set_stage, 0},
	{"sub", FIELD(sub_group_size), set_elements, 0},
	{"bf16opt", FIELD(bf16_optimizer), set_flag, 1},
	{"zeroopt", FIELD(bf16_optimizer), set_flag, 0},
	{"rr", FIELD(round_robin), set_flag, 1},
	{"norr", FIELD(round_robin), set_flag, 0},
	{"vocab", FIELD(vocabulary), set_words, 0},
	{"qkvparts", FIELD(qkv_in_parts), set_flag, 1},
	{"qkvheads", FIELD(qkv_in_parts), set_flag, 0},
	{"biassum", FIELD(bias_sum), set_flag, 1},
	{"biassame", FIELD(bias_sum), set_flag, 0},
	{"universal", FIELD(universal), set_flag, 1},
};

static int apply(const struct item *item, struct cfs_request *req,
		 struct cfs_error *err)
{
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(words); i++)
		if (item_is(item, words[i].text))
			return words[i].set(item, (char *)req + words[i].field,
					    words[i].value, err);
	return cfs_fail(
		err, -EINVAL,
		"'%.*s' is no item of a view's name (there are " KNOWN_ITEMS
		", joined by '-')",
		item->len, item->text);
}

int cfs_view_name_parse(const char *name, struct cfs_request *out,
			struct cfs_error *err)
{
	struct cfs_request req = CFS_REQUEST_INIT;
	const char *s = name;
	struct item item;
	size_t len;
	int r;

	for (;;) {
		len = strcspn(s, "-,");
		if (!len)
			return cfs_fail(err, -EINVAL,
					"an item is missing in the view's name "
					"'%.64s' (there are " KNOWN_ITEMS
					", joined by '-')",
					name);
		r = item_split(s, len, &item, err);
		if (r < 0)
			return r;
		r = apply(&item, &req, err);
		if (r < 0)
			return r;
		s += len;
		if (!*s)
			break;
		s++;
	}
	*out = req;
	return 0;
}

/* Appends to @buf as snprintf would, with '-' between items. */
static void put(char *buf, size_t size, size_t *len, const char *word,
		uint64_t number, bool with_number)
{
	const char *sep = *len ? "-" : "";
	size_t room = *len < size ? size - *len : 0;
	char *at = room ? buf + *len : NULL;
	int n;

	if (with_number)
		n = snprintf(at, room, "%s%s%llu", sep, word,
			     (unsigned long long)number);
	else
		n = snprintf(at, room, "%s%s", sep, word);
	*len += (size_t)n;
}

const char *cfs_view_name_format(const struct cfs_request *request, char *buf,
				 size_t size)
{
	size_t len = 0;

	if (size)
		buf[0] = '\0';
	if (request->universal > 0)
		put(buf, size, &len, "universal", 0, false);
	if (request->tp)
		put(buf, size, &len, "tp", request->tp, true);
	if (request->pp >= 0)
		put(buf, size, &len, "pp", (uint64_t)request->pp, true);
	if (request->dp)
		put(buf, size, &len, "dp", request->dp, true);
	if (request->zero_stage >= 0)
		put(buf, size, &len, "zero", (uint64_t)request->zero_stage,
		    true);
	if (request->bf16_optimizer >= 0)
		put(buf, size, &len,
		    request->bf16_optimizer ? "bf16opt" : "zeroopt", 0, false);
	if (request->round_robin >= 0)
		put(buf, size, &len, request->round_robin ? "rr" : "norr", 0,
		    false);
	if (request->sub_group_size)
		put(buf, size, &len, "sub", request->sub_group_size, true);
	if (request->vocabulary)
		put(buf, size, &len, "vocab", request->vocabulary, true);
	if (request->qkv_in_parts >= 0)
		put(buf, size, &len,
		    request->qkv_in_parts ? "qkvparts" : "qkvheads", 0, false);
	if (request->bias_sum >= 0)
		put(buf, size, &len, request->bias_sum ? "biassum" : "biassame",
		    0, false);
	/* no item: a name says which options, not what they are */
	if (request->options && len < size)
		(void)snprintf(
			buf + len, size - len, "-with%016llx",
			(unsigned long long)cfs_hash64(
				request->options, strlen(request->options), 0));
	return buf;
}
