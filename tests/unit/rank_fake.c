#include "tests/unit/rank_fake.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fs/rank/access.h"
#include "fs/rank/stage.h"
#include "store/util/buf.h"
#include "store/util/error.h"

#define KEPT_MAX 64

struct kept {
	char name[64];
	uint32_t rank;
	struct cfs_buf bytes;
};

struct cfs_stage {
	uint32_t n_ranks;
};

struct cfs_stage_stream {
	struct kept *kept;
	uint64_t wanted; /* UINT64_MAX: any */
	bool fails;
};

char fake_fail_begin[64], fake_fail_write[64];
bool fake_fail_commit, fake_no_write;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fake_counts counts;
static struct kept kept[KEPT_MAX];
static unsigned n_kept;

struct fake_counts fake_counts(void)
{
	struct fake_counts c;

	pthread_mutex_lock(&lock);
	c = counts;
	pthread_mutex_unlock(&lock);
	return c;
}

void fake_reset(void)
{
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < CFS_MIN(n_kept, KEPT_MAX); i++)
		cfs_buf_free(&kept[i].bytes);
	n_kept = 0;
	counts = (struct fake_counts){0};
	fake_fail_begin[0] = fake_fail_write[0] = 0;
	fake_fail_commit = fake_no_write = false;
	pthread_mutex_unlock(&lock);
}

int64_t fake_bytes(const char *name, uint32_t rank, const uint8_t **data_out)
{
	int64_t n = -1;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < CFS_MIN(n_kept, KEPT_MAX); i++) {
		if (strcmp(kept[i].name, name) || kept[i].rank != rank)
			continue;
		n = (int64_t)kept[i].bytes.len;
		if (data_out)
			*data_out = kept[i].bytes.data;
	}
	pthread_mutex_unlock(&lock);
	return n;
}

int cfs_access_check(struct cfs_ns *ns, const char *path,
		     const struct cfs_access_user *user, int want,
		     struct cfs_error *err)
{
	(void)ns;
	(void)user;
	(void)want;
	return fake_no_write ? cfs_fail(err, -EACCES, "%s: not yours", path)
			     : 0;
}

int cfs_stage_new(struct cfs_verb_context *context,
		  const struct cfs_stage_options *options,
		  struct cfs_stage **out, struct cfs_error *err)
{
	(void)context;
	if (!strcmp(options->step, fake_fail_begin))
		return cfs_fail(err, -EEXIST, "%s is there already",
				options->step);
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	(*out)->n_ranks = options->n_ranks;
	pthread_mutex_lock(&lock);
	counts.stages++;
	pthread_mutex_unlock(&lock);
	return 0;
}

void cfs_stage_free(struct cfs_stage *stage)
{
	if (!stage)
		return;
	pthread_mutex_lock(&lock);
	counts.stages--;
	pthread_mutex_unlock(&lock);
	free(stage);
}

static int new_stream(const char *name, uint32_t rank, uint64_t wanted,
		      unsigned *count, struct cfs_stage_stream **out)
{
	struct cfs_stage_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	pthread_mutex_lock(&lock);
	s->kept = &kept[n_kept++ % KEPT_MAX];
	snprintf(s->kept->name, sizeof(s->kept->name), "%s", name);
	s->kept->rank = rank;
	s->wanted = wanted;
	s->fails = !strcmp(name, fake_fail_write);
	counts.streams++;
	++*count;
	pthread_mutex_unlock(&lock);
	*out = s;
	return 0;
}

int cfs_stage_put(struct cfs_stage *stage, const struct cfs_put *put,
		  struct cfs_stage_stream **out, struct cfs_error *err)
{
	(void)stage;
	(void)err;
	return new_stream(put->name, put->rank, cfs_put_bytes(put),
			  &counts.puts, out);
}

int cfs_stage_file(struct cfs_stage *stage, uint32_t rank, const char *name,
		   struct cfs_stage_stream **out, struct cfs_error *err)
{
	(void)stage;
	(void)err;
	return new_stream(name, rank, UINT64_MAX, &counts.files, out);
}

int cfs_stage_object(struct cfs_stage *stage, uint32_t rank, const char *name,
		     struct cfs_stage_stream **out, struct cfs_error *err)
{
	(void)stage;
	(void)err;
	return new_stream(name, rank, UINT64_MAX, &counts.objects, out);
}

int cfs_stage_write(struct cfs_stage_stream *stream, const void *data,
		    size_t len, struct cfs_error *err)
{
	if (stream->fails)
		return cfs_fail(err, -ENOSPC, "%s: no room",
				stream->kept->name);
	pthread_mutex_lock(&lock);
	cfs_buf_put(&stream->kept->bytes, data, len);
	pthread_mutex_unlock(&lock);
	return 0;
}

void cfs_stage_drop(struct cfs_stage_stream *stream)
{
	if (!stream)
		return;
	pthread_mutex_lock(&lock);
	counts.streams--;
	pthread_mutex_unlock(&lock);
	free(stream);
}

int cfs_stage_end(struct cfs_stage_stream *stream, struct cfs_error *err)
{
	int r = stream->wanted != UINT64_MAX &&
				stream->kept->bytes.len != stream->wanted
			? cfs_fail(err, -EINVAL, "too few")
			: 0;

	cfs_stage_drop(stream);
	return r;
}

int cfs_stage_commit(struct cfs_stage *stage, struct cfs_error *err)
{
	(void)stage;
	if (fake_fail_commit)
		return cfs_fail(err, -EIO, "a gap in wte.weight");
	pthread_mutex_lock(&lock);
	counts.commits++;
	pthread_mutex_unlock(&lock);
	return 0;
}
