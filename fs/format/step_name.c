#include "fs/format/step_name.h"

#include <ctype.h>
#include <string.h>

/* Of the name without the digits it ends in. */
static size_t stem_len(const char *name)
{
	size_t len = strlen(name);

	while (len && isdigit((unsigned char)name[len - 1]))
		len--;
	return len;
}

int64_t cfs_step_number(const char *name)
{
	const char *digits = name + stem_len(name);
	int64_t n = 0;

	if (!*digits || strlen(digits) > 18)
		return -1;
	while (*digits)
		n = n * 10 + (*digits++ - '0');
	return n;
}

bool cfs_step_is_like(const char *name, const char *other)
{
	const size_t len = stem_len(name);

	return len == stem_len(other) && !strncmp(name, other, len);
}

bool cfs_step_pointed(const void *text, size_t len, char name_out[256])
{
	const char *p = text;

	while (len && isspace((unsigned char)p[len - 1]))
		len--;
	while (len && isspace((unsigned char)*p)) {
		p++;
		len--;
	}
	if (!len || len >= 256)
		return false;
	memcpy(name_out, p, len);
	name_out[len] = '\0';
	return !strchr(name_out, '/') && name_out[0] != '.' &&
	       strlen(name_out) == len;
}
