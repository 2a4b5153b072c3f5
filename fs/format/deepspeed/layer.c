#include "fs/format/deepspeed/layer.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/deepspeed/family.h"

#define TIED	   "tied_modules."
#define SEQUENTIAL "sequential."
#define MEGATRON   "language_model."

/* What follows "NUMBER." in @s, or NULL. */
static const char *after_number(const char *s, uint32_t *number_out)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return NULL;
	errno = 0;
	v = strtoul(s, &end, 10);
	if (errno || v >= UINT32_MAX || *end != '.' || !end[1])
		return NULL;
	*number_out = (uint32_t)v;
	return end + 1;
}

/* The name behind the part of the model that @s begins with, or NULL. */
static const char *after_part(const char *s)
{
	static const char embedding[] = "embedding.", encoder[] = "encoder.";
	static const char layers[] = "encoder.layers.",
			  head[] = "output_layer.";
	uint32_t number;

	if (!strncmp(s, layers, strlen(layers)))
		return after_number(s + strlen(layers), &number);
	if (!strncmp(s, encoder, strlen(encoder)))
		return s + strlen(encoder);
	if (!strncmp(s, embedding, strlen(embedding)))
		return s + strlen(embedding);
	return strncmp(s, head, strlen(head)) != 0 ? NULL : s;
}

struct cfs_ds_layer_name cfs_ds_layer_parse(const char *full)
{
	struct cfs_ds_layer_name n = {.form = CFS_DS_FORM_PLAIN, .name = full};
	const char *rest = after_number(full, &n.layer), *key = full;

	if (rest) {
		n.form = CFS_DS_FORM_PIPELINE;
		n.name = rest;
	} else if (!strncmp(full, SEQUENTIAL, strlen(SEQUENTIAL))) {
		rest = after_number(full + strlen(SEQUENTIAL), &n.layer);
		if (rest) {
			n.form = CFS_DS_FORM_SEQUENTIAL;
			n.name = rest;
		}
	} else if (!strncmp(full, MEGATRON, strlen(MEGATRON))) {
		rest = after_part(full + strlen(MEGATRON));
		if (rest && *rest) {
			n.form = CFS_DS_FORM_PREFIXED;
			n.key = full;
			n.key_len = (size_t)(rest - full);
			n.name = rest;
		}
	} else if (!strncmp(full, TIED, strlen(TIED))) {
		key += strlen(TIED);
		rest = strchr(key, '.');
		if (rest && rest > key && rest[1]) {
			n.form = CFS_DS_FORM_TIED;
			n.key = key;
			n.key_len = (size_t)(rest - key);
			n.name = rest + 1;
		}
	}
	return n;
}

int cfs_ds_layer_format(const struct cfs_ds_layer_name *name, char *buf,
			size_t size)
{
	int n;

	switch (name->form) {
	case CFS_DS_FORM_PIPELINE:
		n = snprintf(buf, size, "%u.%s", name->layer, name->name);
		break;
	case CFS_DS_FORM_SEQUENTIAL:
		n = snprintf(buf, size, SEQUENTIAL "%u.%s", name->layer,
			     name->name);
		break;
	case CFS_DS_FORM_TIED:
		n = snprintf(buf, size, TIED "%.*s.%s", (int)name->key_len,
			     name->key, name->name);
		break;
	case CFS_DS_FORM_PREFIXED:
		n = snprintf(buf, size, "%.*s%s", (int)name->key_len, name->key,
			     name->name);
		break;
	default:
		n = snprintf(buf, size, "%s", name->name);
	}
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int cfs_ds_layer_key(const struct cfs_ds_layer_name *name,
		     const struct cfs_ds_family *family, char *buf, size_t size)
{
	struct cfs_ds_layer_name n = *name;
	const char *key = family ? family->tied_key : NULL;

	if (n.form == CFS_DS_FORM_SEQUENTIAL)
		n.form = CFS_DS_FORM_PIPELINE;
	if (n.form == CFS_DS_FORM_TIED && key && strlen(key) == n.key_len &&
	    !strncmp(key, n.key, n.key_len)) {
		n.form = CFS_DS_FORM_PIPELINE;
		n.layer = family->embedding;
	}
	return cfs_ds_layer_format(&n, buf, size);
}
