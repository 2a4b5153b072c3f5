/* Arguments and results of verbs as JSON, and the caller's ear. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/verb.h"
#include "store/util/buf.h"

#define NUMBER_MAX 9e15

int cfs_verb_sweep(const struct cfs_verb_context *context)
{
	int r = cfs_nstree_sweep(context->ns);

	if (context->invalidate)
		context->invalidate(context->invalidate_arg, 1,
				    CFS_NSTREE_TRASH);
	return r;
}

const char *cfs_verb_str(const cJSON *arguments, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(arguments, name);

	return cJSON_IsString(item) ? item->valuestring : NULL;
}

bool cfs_verb_flag(const cJSON *arguments, const char *name)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(arguments, name));
}

uint64_t cfs_verb_u64(const cJSON *arguments, const char *name,
		      uint64_t otherwise)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(arguments, name);

	if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0))
		return otherwise;
	return (uint64_t)CFS_MIN(item->valuedouble, NUMBER_MAX);
}

int cfs_verb_path(const cJSON *arguments, const char *name, char **out,
		  struct cfs_error *err)
{
	const char *p = cfs_verb_str(arguments, name);
	char *tidy, *o;

	if (!p)
		p = "";
	o = tidy = calloc(1, strlen(p) + 1);
	if (!tidy)
		return -ENOMEM;
	while (*p) {
		size_t n = strcspn(p, "/");

		if (n == 2 && p[0] == '.' && p[1] == '.') {
			free(tidy);
			return cfs_fail(err, -EINVAL, "a path with '..' in it");
		}
		if (n && !(n == 1 && p[0] == '.')) {
			if (o > tidy)
				*o++ = '/';
			memcpy(o, p, n);
			o += n;
		}
		p += n + (p[n] == '/');
	}
	*out = tidy;
	return 0;
}

void cfs_verb_put_u64(cJSON *object, const char *name, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, v);
	cJSON_AddRawToObject(object, name, text);
}

/* The length of the UTF-8 sequence at @s; 0: it is none. */
static size_t utf8_len(const unsigned char *s)
{
	size_t n = s[0] < 0x80			  ? 1
		   : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
		   : s[0] >= 0xe0 && s[0] <= 0xef ? 3
		   : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
						  : 0;
	size_t i;

	for (i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

void cfs_verb_put_str(cJSON *object, const char *name, const char *v)
{
	_cleanup_(cfs_buf_free) struct cfs_buf clean = CFS_BUF_INIT;
	const unsigned char *s = (const unsigned char *)v;

	if (!v) {
		cJSON_AddNullToObject(object, name);
		return;
	}
	while (*s) {
		size_t n = utf8_len(s);

		if (n)
			cfs_buf_put(&clean, s, n);
		else
			cfs_buf_printf(&clean, "\\x%02x", *s);
		s += n ? n : 1;
	}
	cJSON_AddStringToObject(object, name, cfs_buf_str(&clean));
}

void cfs_verb_put_flag(cJSON *object, const char *name, bool v)
{
	cJSON_AddBoolToObject(object, name, v);
}

bool cfs_verb_progress(const struct cfs_verb_reply *reply, uint64_t done,
		       uint64_t total, const char *what)
{
	if (!reply || !reply->progress)
		return true;
	return reply->progress(reply->arg, done, total, what ? what : "");
}

void cfs_verb_line(const struct cfs_verb_reply *reply, const char *fmt, ...)
{
	_cleanup_(cfs_freep) char *text = NULL;
	va_list ap;

	if (!reply || !reply->line)
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text)
		reply->line(reply->arg, text);
}
