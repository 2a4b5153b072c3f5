#include "fs/cli/mount_options.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/error.h"

/*
 * What is meant for mount(8), systemd and fstab, or holds here anyhow: every
 * mount is nosuid and nodev.
 */
static const char *const ignored[] = {
	"auto",	       "noauto",	"nofail",
	"_netdev",     "user",		"nouser",
	"users",       "owner",		"group",
	"dev",	       "nodev",		"suid",
	"nosuid",      "exec",		"async",
	"sync",	       "dirsync",	"atime",
	"noatime",     "relatime",	"norelatime",
	"strictatime", "nostrictatime", "diratime",
	"nodiratime",  "lazytime",	"nolazytime",
	"defaults",    "silent",	"loud",
	"mand",	       "nomand",	"default_permissions",
	"nosymfollow", "symfollow",
};

static bool is_ignored(const char *name, bool has_value)
{
	static const char *const prefixes[] = {"x-", "X-"};
	static const char *const valued[] = {"comment", "uhelper", "helper",
					     "subtype"};
	size_t i;

	for (i = 0; i < CFS_ARRAY_SIZE(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	for (i = 0; has_value && i < CFS_ARRAY_SIZE(valued); i++)
		if (!strcmp(name, valued[i]))
			return true;
	for (i = 0; !has_value && i < CFS_ARRAY_SIZE(ignored); i++)
		if (!strcmp(name, ignored[i]))
			return true;
	return false;
}

static int set_string(char **field, const char *name, const char *value,
		      struct cfs_error *err)
{
	if (!value || !*value)
		return cfs_fail(err, -EINVAL, "option '%s' needs a value: %s=…",
				name, name);
	free(*field);
	*field = strdup(value);
	return *field ? 0 : -ENOMEM;
}

/* "512M": a number and K, M, G or T, powers of 1024. */
static int set_size(size_t *field, const char *name, const char *value,
		    struct cfs_error *err)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end = NULL;
	unsigned long long n = 0;
	unsigned shift = 0;

	errno = 0;
	if (value && *value >= '0' && *value <= '9')
		n = strtoull(value, &end, 10);
	if (end && *end) {
		unit = strchr(units, *end & ~0x20);
		if (unit && !end[1])
			shift = 10 * (unsigned)(unit - units + 1);
		else
			end = NULL;
	}
	if (!end || errno || !n || n > SIZE_MAX >> 1 >> shift)
		return cfs_fail(err, -EINVAL,
				"option '%s' needs a size, as in %s=512M", name,
				name);
	*field = (size_t)(n << shift);
	return 0;
}

/* Seconds from 1 to a day; 0: never. */
static int set_idle(unsigned *field, bool *off, const char *name,
		    const char *value, struct cfs_error *err)
{
	unsigned long n = ULONG_MAX;
	char *end = NULL;

	if (value && *value >= '0' && *value <= '9')
		n = strtoul(value, &end, 10);
	if (!end || *end || n > 86400)
		return cfs_fail(err, -EINVAL,
				"option '%s' needs seconds, as in %s=30, or 0: "
				"never",
				name, name);
	*field = (unsigned)n;
	*off = !n;
	return 0;
}

static int set_flag(bool *field, const char *name, const char *value,
		    struct cfs_error *err)
{
	if (value)
		return cfs_fail(err, -EINVAL, "option '%s' takes no value",
				name);
	*field = true;
	return 0;
}

static int set_crc(bool *field, const char *value, struct cfs_error *err)
{
	if (!value || (strcmp(value, "full") && strcmp(value, "known")))
		return cfs_fail(err, -EINVAL,
				"option 'crc' is crc=known or crc=full");
	*field = !strcmp(value, "full");
	return 0;
}

static int apply(struct cfs_mount_options *o, const char *name,
		 const char *value, struct cfs_error *err)
{
	if (!strcmp(name, "view"))
		return set_string(&o->view, name, value, err);
	if (!strcmp(name, "log"))
		return set_string(&o->log, name, value, err);
	if (!strcmp(name, "cache"))
		return set_size(&o->cache_bytes, name, value, err);
	if (!strcmp(name, "derive"))
		return set_idle(&o->derive_seconds, &o->no_derive, name, value,
				err);
	if (!strcmp(name, "crc"))
		return set_crc(&o->crc_full, value, err);
	if (!strcmp(name, "allow_other"))
		return set_flag(&o->allow_other, name, value, err);
	if (!strcmp(name, "direct_io"))
		return set_flag(&o->direct_io, name, value, err);
	if (!strcmp(name, "noexec"))
		return set_flag(&o->noexec, name, value, err);
	if (!value && (!strcmp(name, "rw") || !strcmp(name, "ro"))) {
		o->rw = name[1] == 'w';
		o->ro = !o->rw;
		return 0;
	}
	if (is_ignored(name, value != NULL))
		return 0;
	return cfs_fail(err, -EINVAL,
			"unknown mount option '%s' (there are view=, "
			"allow_other, crc=full, cache=SIZE, derive=SECONDS, "
			"direct_io, log=, and mount(8)'s)",
			name);
}

int cfs_mount_options_parse(struct cfs_mount_options *o, const char *text,
			    struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *copy = strdup(text);
	char *rest = NULL, *name, *value;
	int r;

	if (!copy)
		return -ENOMEM;
	for (name = strtok_r(copy, ",", &rest); name;
	     name = strtok_r(NULL, ",", &rest)) {
		value = strchr(name, '=');
		if (value)
			*value++ = '\0';
		r = apply(o, name, value, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void cfs_mount_options_fini(struct cfs_mount_options *o)
{
	free(o->view);
	free(o->log);
	*o = (struct cfs_mount_options){.view = NULL};
}
