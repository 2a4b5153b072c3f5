/*
 * Which trainer wrote a directory, and did it finish?
 *
 *  - NxD:       tag/{checkpoint,model/,optim/,…,done}; the newest `done` wins
 *  - Megatron:  iter_0000100/, and latest_checkpointed_iteration.txt beside it
 *  - HF Trainer: checkpoint-500/…, trainer_state.json near the end
 *  - Levanter:  step-1000/…, metadata.json last
 *  - torch DCP: .metadata last
 *  - any that the rank client committed: ckptfs/step.json, with all else
 */
#include "fs/daemon/layouts.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/map/source.h"
#include "store/util/buf.h"
#include "store/util/path.h"

#define BLANK	   " \t\r\n"
#define GROUPS_MAX 8u
#define RANKS_MAX  4096u

/* "model-00002-of-00005.safetensors" */
struct group {
	char name[64];
	uint32_t total, seen;
};

struct look {
	struct cfs_source *source;
	const char *run, *name, *path;
	struct cfs_layout_facts *out;
	bool done, begun, model, dcp, metadata, json, ocdbt, manifest, cert,
		state, ranks;
	uint32_t n_ranks; /* mp_rank_…, directories */
	struct group groups[GROUPS_MAX];
	uint32_t n_groups;
};

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

static bool ends(const char *name, const char *with)
{
	const size_t n = strlen(name), m = strlen(with);

	return n >= m && !strcmp(name + n - m, with);
}

/* "iter_" and digits: the number, else -1. */
static int64_t number_behind(const char *name, const char *prefix)
{
	const char *p = name + strlen(prefix);
	int64_t n = 0;

	if (!begins(name, prefix) || !*p || strlen(p) > 18)
		return -1;
	for (; *p; p++) {
		if (!isdigit((unsigned char)*p))
			return -1;
		n = n * 10 + (*p - '0');
	}
	return n;
}

/* ---- what is there ---- */

static void note_part(struct look *l, const char *name)
{
	const char *of = strstr(name, "-of-");
	size_t len = of ? (size_t)(of - name) : 0, i;
	unsigned long total = of ? strtoul(of + 4, NULL, 10) : 0;

	while (len && isdigit((unsigned char)name[len - 1]))
		len--;
	if (!of || !len || len >= sizeof(l->groups[0].name) ||
	    name + len == of || !total || total > UINT32_MAX)
		return;
	for (i = 0; i < l->n_groups; i++)
		if (l->groups[i].total == total &&
		    strlen(l->groups[i].name) == len &&
		    !memcmp(l->groups[i].name, name, len))
			break;
	if (i == GROUPS_MAX)
		return;
	if (i == l->n_groups) {
		memcpy(l->groups[i].name, name, len);
		l->groups[i].name[len] = '\0';
		l->groups[i].total = (uint32_t)total;
		l->n_groups++;
	}
	l->groups[i].seen++;
}

static void note_dir(struct look *l, const char *name)
{
	l->model |= !strcmp(name, "model") || !strcmp(name, "optim");
	l->ranks |= !strcmp(name, CFS_LAYOUT_RANKS);
	l->n_ranks += begins(name, "mp_rank_");
	if (number_behind(name, "global_step") >= 0)
		(void)snprintf(l->out->inner, sizeof(l->out->inner), "%s",
			       name);
}

static int note(void *arg, const char *name, const struct stat *st)
{
	struct look *l = arg;

	if (S_ISDIR(st->st_mode)) {
		note_dir(l, name);
		return 0;
	}
	l->done |= !strcmp(name, "done");
	l->begun |= !strcmp(name, "checkpoint");
	l->metadata |= !strcmp(name, ".metadata");
	l->json |= !strcmp(name, "metadata.json");
	l->ocdbt |= !strcmp(name, "manifest.ocdbt");
	l->manifest |= !strcmp(name, "manifest.json");
	l->state |= !strcmp(name, "trainer_state.json");
	l->cert |= begins(name, "worker-") && ends(name, ".cert");
	l->dcp |= begins(name, "__") && ends(name, ".distcp");
	note_part(l, name);
	return 0;
}

static int lacks(struct look *l, const char *what)
{
	(void)snprintf(l->out->why, sizeof(l->out->why), "%s is missing", what);
	return 1;
}

static int is_whole(struct look *l)
{
	l->out->whole = true;
	return 1;
}

static int settle(struct look *l, bool has, const char *marker)
{
	return has ? is_whole(l) : lacks(l, marker);
}

/* ---- one layout each ---- */

static int neuronx(struct look *l)
{
	_cleanup_(cfs_freep) char *path =
		cfs_path_join(l->path, l->done ? "done" : "checkpoint");
	struct stat st;
	int r;

	if (!path)
		return -ENOMEM;
	r = l->source->ops->stat(l->source, path, &st);
	if (r < 0)
		return r;
	l->out->order_ns =
		(int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	l->out->order_ns = CFS_MAX(l->out->order_ns, 1);
	return settle(l, l->done, "`done`");
}

/* One file in each, of one of two names. */
struct ranks {
	struct look *look;
	uint32_t seen;
	int r;
};

static int has_rank_file(void *arg, const char *name, const struct stat *st)
{
	struct ranks *ranks = arg;
	struct look *l = ranks->look;
	_cleanup_(cfs_freep) char *dir = NULL, *path = NULL;
	struct stat file;

	if (!S_ISDIR(st->st_mode) || !begins(name, "mp_rank_") ||
	    ranks->seen == RANKS_MAX)
		return 0;
	dir = cfs_path_join(l->path, name);
	path = dir ? cfs_path_join(dir, "model_optim_rng.pt") : NULL;
	if (!path)
		return -ENOMEM;
	if (l->source->ops->stat(l->source, path, &file) == 0)
		ranks->seen++;
	return 0;
}

/* The pointer is written when all ranks have: what is newer is not whole. */
static int is_pointed_at(struct look *l, int64_t number)
{
	char name[256];
	int r = cfs_layout_pointer(l->source, l->run, name);

	if (r <= 0 || number < 0)
		return r < 0 ? r : 1;
	return number_behind(name, "iter_") >= number ||
	       !strcmp(name, "release");
}

static int megatron(struct look *l, int64_t number)
{
	struct ranks ranks = {.look = l};
	int r = is_pointed_at(l, number);

	if (r < 0)
		return r;
	if (!r)
		return lacks(l, "its number in " CFS_LAYOUT_POINTER);
	if (!l->n_ranks)
		return settle(l, l->json, "`metadata.json`");
	r = l->source->ops->readdir(l->source, l->path, has_rank_file, &ranks);
	if (r < 0)
		return r;
	return settle(l, ranks.seen >= CFS_MIN(l->n_ranks, RANKS_MAX),
		      "a rank's `model_optim_rng.pt`");
}

static int trainer(struct look *l)
{
	for (uint32_t i = 0; i < l->n_groups; i++)
		if (l->groups[i].seen < l->groups[i].total)
			return lacks(l, l->groups[i].name);
	return settle(l, l->state, "`trainer_state.json`");
}

int cfs_layout_committed(struct cfs_source *source, const char *path)
{
	_cleanup_(cfs_freep) char *mark =
		cfs_path_join(path, CFS_LAYOUT_RANKS "/" CFS_LAYOUT_RANKS_MARK);
	struct stat st;
	int r;

	if (!mark)
		return -ENOMEM;
	r = source->ops->stat(source, mark, &st);
	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	return r < 0 ? r : S_ISREG(st.st_mode);
}

/* It came into the run as a whole, whatever its name makes of it. */
static int committed(struct look *l, int r)
{
	int mark = l->ranks ? cfs_layout_committed(l->source, l->path) : 0;

	if (mark <= 0)
		return mark < 0 ? mark : r;
	l->out->why[0] = '\0';
	return is_whole(l);
}

static int decide(struct look *l)
{
	const int64_t iteration = number_behind(l->name, "iter_");
	const bool dcp = l->dcp || l->metadata;

	if ((l->begun && (l->model || l->done)) || (l->done && l->model))
		return neuronx(l);
	if ((iteration >= 0 || !strcmp(l->name, "release")) &&
	    (l->n_ranks || dcp || l->json))
		return megatron(l, iteration);
	if (number_behind(l->name, "checkpoint-") >= 0)
		return trainer(l);
	if ((number_behind(l->name, "step-") >= 0 ||
	     number_behind(l->name, "epoch-") >= 0) &&
	    (l->json || l->ocdbt || l->manifest || l->cert))
		return settle(l, l->json, "`metadata.json`");
	if (dcp)
		return settle(l, l->metadata, "`.metadata`");
	return 0;
}

int cfs_layout_look(struct cfs_source *source, const char *run,
		    const char *name, struct cfs_layout_facts *out)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(run, name);
	struct look l = {
		.source = source, .run = run, .name = name, .path = path};
	int r;

	if (!path)
		return -ENOMEM;
	*out = (struct cfs_layout_facts){0};
	l.out = out;
	r = source->ops->readdir(source, path, note, &l);
	if (r == 0)
		r = decide(&l);
	return r < 0 ? r : committed(&l, r);
}

int cfs_layout_pointer(struct cfs_source *source, const char *run,
		       char name_out[256])
{
	_cleanup_(cfs_freep) char *path =
		cfs_path_join(run, CFS_LAYOUT_POINTER);
	_cleanup_(cfs_buf_free) struct cfs_buf text = CFS_BUF_INIT;
	const char *p;
	size_t len;
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_source_read_small(source, path, 4096, &text);
	if (r == -ENOENT || r == -EISDIR || r == -EFBIG || r == -EINVAL ||
	    r == -ENOTDIR)
		return 0;
	if (r < 0)
		return r;
	p = cfs_buf_str(&text);
	p += strspn(p, BLANK);
	len = strcspn(p, BLANK);
	if (len == 7 && !memcmp(p, "release", len)) {
		strcpy(name_out, "release");
		return 1;
	}
	if (!isdigit((unsigned char)*p) || len > 15)
		return 0;
	(void)snprintf(name_out, 256, "iter_%07lld", strtoll(p, NULL, 10));
	return 1;
}

bool cfs_layout_pointer_text(const char *step, char text_out[24])
{
	const int64_t number = number_behind(step, "iter_");

	if (number < 0)
		return false;
	(void)snprintf(text_out, 24, "%lld", (long long)number);
	return true;
}
