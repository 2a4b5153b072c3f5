/*
 * send: a tree of the store as a stream, of its chunks only those that the
 * other side lacks.  Batches of digests go ahead of the answers, so that a
 * long way between the two costs no waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/send.h"
#include "fs/daemon/transfer_pins.h"
#include "fs/daemon/verb.h"
#include "store/chunk/chunk.h"
#include "store/ns/ns.h"

#define AHEAD_MAX 1024u /* the receiver's own limit is four times that */

static int send_small(struct cfs_send *s, const struct stat *st)
{
	char data[CFS_INLINE_MAX];
	struct cfs_ns_file *file;
	ssize_t n;
	int r;

	r = cfs_ns_open_file(s->ns, st->st_ino, O_RDONLY, &file);
	if (r < 0)
		return r;
	n = cfs_ns_pread(file, data, (size_t)st->st_size, 0);
	cfs_ns_close_file(file);
	if (n < 0)
		return (int)n;
	s->stream.done += (uint64_t)n;
	return cfs_send_put(s, CFS_TRANSFER_DATA, data, (size_t)n);
}

static int send_xattr(struct cfs_send *s, uint64_t ino, const char *name)
{
	char value[65536];
	ssize_t n = cfs_ns_getxattr(s->ns, ino, name, value, sizeof(value));

	if (n < 0)
		return n == -ENODATA ? 0 : (int)n;
	cfs_buf_reset(&s->scratch);
	cfs_buf_put_str(&s->scratch, name);
	cfs_buf_put_u8(&s->scratch, 0);
	cfs_buf_put(&s->scratch, value, (size_t)n);
	if (s->scratch.failed)
		return -ENOMEM;
	return cfs_send_put(s, CFS_TRANSFER_XATTR, s->scratch.data,
			    s->scratch.len);
}

static int send_xattrs(struct cfs_send *s, uint64_t ino)
{
	char names[65536];
	const char *p = names;
	ssize_t n = cfs_ns_listxattr(s->ns, ino, names, sizeof(names));
	int r = 0;

	if (n < 0)
		return (int)n;
	while (!r && p < names + n) {
		r = send_xattr(s, ino, p);
		p += strlen(p) + 1;
	}
	return r;
}

static int send_content(struct cfs_send *s, const struct stat *st)
{
	int r = 0;

	if (!S_ISREG(st->st_mode))
		return 0;
	s->files++;
	s->bytes += (uint64_t)st->st_size;
	if (st->st_size && st->st_size <= CFS_INLINE_MAX)
		return send_small(s, st);
	if (st->st_size)
		r = cfs_ns_extents(s->ns, st->st_ino, cfs_send_extent, s);
	return r ? r : cfs_send_flush(s);
}

/* 1: it went as another name of an earlier one. */
static int send_link(struct cfs_send *s, const char *path,
		     const struct stat *st)
{
	struct cfs_chunkset_item *item;
	bool fresh;
	int r;

	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return 0;
	r = cfs_chunkset_put_ino_item(&s->links, st->st_ino, &item, &fresh);
	if (r < 0)
		return r;
	if (!fresh) {
		cfs_buf_reset(&s->scratch);
		cfs_transfer_put_node(&s->scratch, st, path,
				      s->paths[item->owner - 1]);
		r = s->scratch.failed
			    ? -ENOMEM
			    : cfs_send_put(s, CFS_TRANSFER_LINK,
					   s->scratch.data, s->scratch.len);
		return r < 0 ? r : 1;
	}
	if (s->n_paths == s->cap_paths) {
		size_t cap = s->cap_paths ? 2 * s->cap_paths : 16;
		char **paths = reallocarray(s->paths, cap, sizeof(*paths));

		if (!paths)
			return -ENOMEM;
		s->paths = paths;
		s->cap_paths = cap;
	}
	s->paths[s->n_paths] = strdup(path);
	if (!s->paths[s->n_paths])
		return -ENOMEM;
	item->owner = (uint32_t)++s->n_paths;
	return 0;
}

static int put_node(struct cfs_send *s, const char *path, const struct stat *st)
{
	_cleanup_(cfs_buf_free) struct cfs_buf target = CFS_BUF_INIT;
	int r = 0;

	if (S_ISLNK(st->st_mode))
		r = cfs_ns_readlink(s->ns, st->st_ino, &target);
	if (r < 0)
		return r;
	if (strlen(path) >= 4096 || target.len >= 4096)
		return -ENAMETOOLONG;
	cfs_buf_reset(&s->scratch);
	cfs_transfer_put_node(&s->scratch, st, path, cfs_buf_str(&target));
	if (s->scratch.failed)
		return -ENOMEM;
	return cfs_send_put(s, CFS_TRANSFER_NODE, s->scratch.data,
			    s->scratch.len);
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct cfs_send *s = arg;
	int r;

	s->stream.what = path;
	if (!cfs_verb_progress(s->stream.reply, s->stream.done, s->stream.total,
			       path))
		return -ECANCELED;
	while (s->ahead > AHEAD_MAX) {
		r = cfs_send_answer(s);
		if (r < 0)
			return r;
	}
	r = send_link(s, path, st);
	if (r)
		return r < 0 ? r : 0;
	r = put_node(s, path, st);
	if (!r)
		r = send_xattrs(s, st->st_ino);
	if (!r)
		r = send_content(s, st);
	if (!r)
		r = cfs_send_put(s, CFS_TRANSFER_NODE_END, NULL, 0);
	return r < 0 && r != -ECANCELED ? cfs_fail_prefix(s->err, r, "%s", path)
					: r;
}

static int add_size(void *arg, const char *path, const struct stat *st)
{
	struct cfs_send *s = arg;

	if (S_ISREG(st->st_mode))
		s->stream.total += (uint64_t)st->st_size;
	return cfs_verb_progress(s->stream.reply, 0, 0, path) ? 0 : -ECANCELED;
}

static int finish(struct cfs_send *s, const char *top)
{
	struct cfs_digest sum;
	int r = 0;

	while (!r && s->n_waiting)
		r = cfs_send_answer(s);
	if (!r)
		r = cfs_transfer_put_pins(&s->stream, s->ns, top);
	if (r < 0)
		return r;
	cfs_digester_end(s->stream.sum, &sum);
	r = cfs_transfer_put(&s->stream, CFS_TRANSFER_END, sum.bytes,
			     sizeof(sum.bytes));
	if (!r)
		r = cfs_transfer_flush(&s->stream);
	if (r < 0 || !s->duplex)
		return r;
	return cfs_send_expect(s, CFS_TRANSFER_DONE);
}

static int send_tree(struct cfs_send *s, uint64_t ino, const char *top)
{
	int r;

	s->encoder = cfs_encoder_new();
	s->waiting = calloc(CFS_TRANSFER_WAITING_MAX, sizeof(*s->waiting));
	s->stream.sum = cfs_digester_new();
	s->stream.sum_out = true;
	if (!s->encoder || !s->waiting || !s->stream.sum)
		return -ENOMEM;
	r = cfs_nstree_walk(s->ns, ino, "", add_size, s);
	if (!r)
		r = cfs_transfer_put_head(&s->stream,
					  s->duplex ? CFS_TRANSFER_DUPLEX : 0);
	if (!r)
		r = cfs_nstree_walk(s->ns, ino, "", on_object, s);
	s->stream.what = NULL; /* a path of the walk's */
	return r ? r : finish(s, top);
}

/* fds: where the stream goes, and (then only what lacks is sent) where answers
 * come from. */
static int run(struct cfs_verb_context *context, const cJSON *arguments,
	       const struct cfs_verb_reply *reply, cJSON *result,
	       struct cfs_error *err)
{
	const struct cfs_verb_caller *caller = context->caller;
	_cleanup_(cfs_send_fini) struct cfs_send s = {.ns = context->ns,
						      .err = err};
	_cleanup_(cfs_freep) char *path = NULL;
	struct stat st;
	int r;

	if (!caller->n_fds)
		return cfs_fail(err, -EINVAL, "nowhere to send to");
	s.duplex = caller->n_fds > 1;
	s.stream = (struct cfs_transfer_stream){
		.out = caller->fds[0], .in = caller->fds[1], .reply = reply};
	r = cfs_verb_path(arguments, "path", &path, err);
	if (r < 0)
		return r;
	r = cfs_ns_walk(context->ns, path, &st);
	if (r < 0)
		return cfs_fail_prefix(err, r, "%s", path);
	r = send_tree(&s, st.st_ino, path);
	if (r == -EPIPE && !err->text[0])
		return cfs_fail(err, r, "the receiver ended early");
	if (r < 0)
		return r;
	cfs_verb_put_u64(result, "files", s.files);
	cfs_verb_put_u64(result, "bytes", s.bytes);
	cfs_verb_put_u64(result, "chunks_sent", s.chunks_sent);
	cfs_verb_put_u64(result, "chunks_known", s.chunks_known);
	cfs_verb_put_u64(result, "bytes_sent", s.stream.sent);
	return 0;
}

const struct cfs_daemon_verb cfs_daemon_verb_send = {"send", run, false, false};
