/* Counts calls of each kind and fails those that the rules name. */
#include "store/pack/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "store/util/log.h"

struct rule {
	unsigned nth; /* 0: none */
	bool onward;
	int r;
};

static const char *const kinds[CFS_ENGINE_CALLS] = {
	[CFS_ENGINE_CREATE] = "create", [CFS_ENGINE_WRITE] = "write",
	[CFS_ENGINE_SYNC] = "sync",	[CFS_ENGINE_SEAL] = "seal",
	[CFS_ENGINE_READ] = "read",	[CFS_ENGINE_REMOVE] = "remove",
	[CFS_ENGINE_REF] = "ref",
};
static const struct {
	const char *name;
	int r;
} errors[] = {{"ENOSPC", -ENOSPC},
	      {"EDQUOT", -EDQUOT},
	      {"EIO", -EIO},
	      {"ENOMEM", -ENOMEM}};

/* Rules are set before threads start; armed and the counts are not. */
static struct rule rules[CFS_ENGINE_CALLS];
static atomic_uint counts[CFS_ENGINE_CALLS];
static atomic_bool armed;

static int kind_of(const char *name)
{
	for (int i = 0; i < CFS_ENGINE_CALLS; i++)
		if (!strcmp(kinds[i], name))
			return i;
	return -EINVAL;
}

static int error_of(const char *name)
{
	for (size_t i = 0; i < CFS_ARRAY_SIZE(errors); i++)
		if (!strcmp(errors[i].name, name))
			return errors[i].r;
	return -EINVAL;
}

static int rule_set(char *text)
{
	char *save = NULL, *end;
	const char *kind = strtok_r(text, ":", &save);
	const char *nth = strtok_r(NULL, ":", &save);
	const char *error = strtok_r(NULL, ":", &save);
	unsigned long n;
	int k, r;

	if (!kind || !nth || !error)
		return -EINVAL;
	k = kind_of(kind);
	r = error_of(error);
	n = strtoul(nth, &end, 10);
	if (k < 0 || r == -EINVAL || n == 0 || n > UINT32_MAX ||
	    (*end && strcmp(end, "+") != 0))
		return -EINVAL;
	rules[k] = (struct rule){(unsigned)n, *end == '+', r};
	atomic_store(&counts[k], 0);
	return 0;
}

int cfs_fault_set(const char *text)
{
	_cleanup_(cfs_freep) char *copy = NULL;
	char *save = NULL;
	int r = 0;

	atomic_store(&armed, false);
	memset(rules, 0, sizeof(rules));
	if (!text || !*text)
		return 0;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	for (char *one = strtok_r(copy, ",", &save); one && r == 0;
	     one = strtok_r(NULL, ",", &save))
		r = rule_set(one);
	if (r == 0)
		atomic_store(&armed, true);
	return r;
}

void cfs_fault_from_env(void)
{
	const char *text = getenv("CKPTFS_FAULT");

	if (text && cfs_fault_set(text) < 0)
		cfs_log(CFS_LOG_ERR, "CKPTFS_FAULT is not understood: %s",
			text);
}

int cfs_fault_hit(enum cfs_engine_call call)
{
	const struct rule *rule = &rules[call];
	unsigned n;

	/* relaxed: a test arms it before the calls it counts */
	if (!atomic_load_explicit(&armed, memory_order_relaxed) || !rule->nth)
		return 0;
	n = atomic_fetch_add(&counts[call], 1) + 1;
	if (n != rule->nth && !(rule->onward && n > rule->nth))
		return 0;
	return rule->r;
}
