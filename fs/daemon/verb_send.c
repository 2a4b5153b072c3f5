/*
 * send: a tree of the store as a stream, of its chunks only those that the
 * other side lacks.  Batches of digests go ahead of the answers, so that a
 * long way between the two costs no waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/daemon/chunkset.h"
#include "fs/daemon/nstree.h"
#include "fs/daemon/transfer.h"
#include "fs/daemon/transfer_pins.h"
#include "fs/daemon/verb.h"
#include "store/chunk/chunk.h"
#include "store/core/store.h"
#include "store/ns/ns.h"

#define AHEAD_MAX 1024u /* the receiver's own limit is four times that */

struct batch {
	unsigned n;
	struct cfs_extent extents[CFS_TRANSFER_EXTENTS_MAX];
};

struct send {
	struct cfs_ns *ns;
	struct cfs_transfer_stream stream;
	struct cfs_encoder *encoder;
	struct cfs_buf scratch, raw;
	bool duplex;
	struct batch current;
	uint64_t current_bytes;
	/* a ring of what is not answered yet */
	struct batch *waiting;
	unsigned first, n_waiting;
	unsigned ahead; /* frames since then, which the receiver keeps */
	struct cfs_chunkset sent; /* whole chunks in a stream without answers */
	struct cfs_chunkset links; /* owner: 1 + index in paths */
	char **paths;
	size_t n_paths, cap_paths;
	uint64_t files, bytes, chunks_sent, chunks_known;
	struct cfs_error *err;
};

static void send_fini(struct send *s)
{
	size_t i;

	for (i = 0; i < s->n_paths; i++)
		free(s->paths[i]);
	free(s->paths);
	free(s->waiting);
	cfs_chunkset_free(&s->sent);
	cfs_chunkset_free(&s->links);
	cfs_transfer_fini(&s->stream);
	cfs_encoder_free(s->encoder);
	cfs_buf_free(&s->scratch);
	cfs_buf_free(&s->raw);
}

/* ---- chunks ---- */

static int send_chunk(struct send *s, const struct cfs_extent *e)
{
	uint8_t *data;
	int r;

	cfs_buf_reset(&s->raw);
	data = cfs_buf_grow(&s->raw, e->chunk_len);
	if (!data)
		return -ENOMEM;
	r = cfs_store_read_chunk(cfs_ns_store(s->ns), &e->digest, 0, data,
				 e->chunk_len);
	if (r < 0)
		return cfs_fail_prefix(s->err, r, "reading a chunk");
	cfs_buf_reset(&s->scratch);
	r = cfs_transfer_put_chunk(&s->scratch, s->encoder, &e->digest, data,
				   e->chunk_len);
	if (r < 0)
		return r;
	s->chunks_sent++;
	return cfs_transfer_put(&s->stream, CFS_TRANSFER_CHUNK, s->scratch.data,
				s->scratch.len);
}

/* A chunk is known to a reader of the stream once an extent used all of it. */
static int send_unsent(struct send *s, const struct batch *b)
{
	unsigned i;

	for (i = 0; i < b->n; i++) {
		const struct cfs_extent *e = &b->extents[i];
		struct cfs_chunkset_item *item;
		bool fresh = true;
		int r;

		if (cfs_chunkset_get(&s->sent, &e->digest)) {
			s->chunks_known++;
			continue;
		}
		r = send_chunk(s, e);
		if (!r && e->len == e->chunk_len)
			r = cfs_chunkset_put(&s->sent, &e->digest, &item,
					     &fresh);
		if (r < 0)
			return r;
	}
	return 0;
}

/* A frame behind those that are not answered yet. */
static int put(struct send *s, enum cfs_transfer_type type, const void *data,
	       size_t len)
{
	s->ahead += s->n_waiting > 0;
	return cfs_transfer_put(&s->stream, type, data, len);
}

static int refused(struct send *s)
{
	return cfs_fail(s->err, -EREMOTEIO, "the receiver: %.400s",
			cfs_buf_str(&s->stream.frame));
}

/* The answer to the oldest batch, and what it asks for. */
static int take_answer(struct send *s)
{
	const struct batch *b = &s->waiting[s->first];
	uint8_t bits[CFS_TRANSFER_EXTENTS_MAX / 8];
	unsigned i;
	int r;

	r = cfs_transfer_flush(&s->stream);
	if (!r || r == -EPIPE) /* why it went may be said */
		r = cfs_transfer_get(&s->stream);
	if (r == CFS_TRANSFER_REFUSED)
		return refused(s);
	if (r == -EPIPE)
		return cfs_fail(s->err, r, "the receiver ended early");
	if (r < 0)
		return r;
	if (r != CFS_TRANSFER_LACKS || s->stream.frame.len != (b->n + 7) / 8)
		return cfs_fail(s->err, -EBADMSG,
				"the receiver's answer is none");
	memcpy(bits, s->stream.frame.data, s->stream.frame.len);
	for (i = 0; i < b->n; i++) {
		if (!(bits[i / 8] >> (i % 8) & 1)) {
			s->chunks_known++;
			continue;
		}
		r = send_chunk(s, &b->extents[i]);
		if (r < 0)
			return r;
	}
	s->first = (s->first + 1) % CFS_TRANSFER_WAITING_MAX;
	s->n_waiting--;
	if (!s->n_waiting)
		s->ahead = 0;
	return 0;
}

static int flush_batch(struct send *s)
{
	struct batch *b = &s->current;
	unsigned i;
	int r;

	if (!b->n)
		return 0;
	cfs_buf_reset(&s->scratch);
	for (i = 0; i < b->n; i++)
		cfs_transfer_put_extent(&s->scratch, &b->extents[i]);
	if (s->scratch.failed)
		return -ENOMEM;
	r = cfs_transfer_put(&s->stream, CFS_TRANSFER_EXTENTS, s->scratch.data,
			     s->scratch.len);
	if (!r && !s->duplex) {
		r = send_unsent(s, b);
	} else if (!r) {
		s->waiting[(s->first + s->n_waiting) %
			   CFS_TRANSFER_WAITING_MAX] = *b;
		s->n_waiting++;
		if (s->n_waiting == CFS_TRANSFER_WAITING_MAX)
			r = take_answer(s);
	}
	b->n = 0;
	s->current_bytes = 0;
	return r;
}

static int on_extent(void *arg, const struct cfs_extent *e)
{
	struct send *s = arg;
	int r = 0;

	if (s->current.n == CFS_TRANSFER_EXTENTS_MAX ||
	    (s->current.n &&
	     s->current_bytes + e->chunk_len > CFS_TRANSFER_BATCH_BYTES))
		r = flush_batch(s);
	if (r < 0)
		return r;
	s->current.extents[s->current.n++] = *e;
	s->current_bytes += e->chunk_len;
	s->stream.done += e->len;
	return 0;
}

/* ---- nodes ---- */

static int send_small(struct send *s, const struct stat *st)
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
	return put(s, CFS_TRANSFER_DATA, data, (size_t)n);
}

static int send_xattr(struct send *s, uint64_t ino, const char *name)
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
	return put(s, CFS_TRANSFER_XATTR, s->scratch.data, s->scratch.len);
}

static int send_xattrs(struct send *s, uint64_t ino)
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

static int send_content(struct send *s, const struct stat *st)
{
	int r = 0;

	if (!S_ISREG(st->st_mode))
		return 0;
	s->files++;
	s->bytes += (uint64_t)st->st_size;
	if (st->st_size && st->st_size <= CFS_INLINE_MAX)
		return send_small(s, st);
	if (st->st_size)
		r = cfs_ns_extents(s->ns, st->st_ino, on_extent, s);
	return r ? r : flush_batch(s);
}

/* 1: it went as another name of an earlier one. */
static int send_link(struct send *s, const char *path, const struct stat *st)
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
		r = s->scratch.failed ? -ENOMEM
				      : put(s, CFS_TRANSFER_LINK,
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

static int put_node(struct send *s, const char *path, const struct stat *st)
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
	return put(s, CFS_TRANSFER_NODE, s->scratch.data, s->scratch.len);
}

static int on_object(void *arg, const char *path, const struct stat *st)
{
	struct send *s = arg;
	int r;

	s->stream.what = path;
	if (!cfs_verb_progress(s->stream.reply, s->stream.done, s->stream.total,
			       path))
		return -ECANCELED;
	while (s->ahead > AHEAD_MAX) {
		r = take_answer(s);
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
		r = put(s, CFS_TRANSFER_NODE_END, NULL, 0);
	return r < 0 && r != -ECANCELED ? cfs_fail_prefix(s->err, r, "%s", path)
					: r;
}

static int add_size(void *arg, const char *path, const struct stat *st)
{
	struct send *s = arg;

	if (S_ISREG(st->st_mode))
		s->stream.total += (uint64_t)st->st_size;
	return cfs_verb_progress(s->stream.reply, 0, 0, path) ? 0 : -ECANCELED;
}

static int finish(struct send *s, const char *top)
{
	struct cfs_digest sum;
	int r = 0;

	while (!r && s->n_waiting)
		r = take_answer(s);
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
	r = cfs_transfer_get(&s->stream);
	if (r == CFS_TRANSFER_REFUSED)
		return refused(s);
	if (r == -EPIPE)
		return cfs_fail(s->err, r, "the receiver ended early");
	if (r < 0)
		return r;
	return r == CFS_TRANSFER_DONE
		       ? 0
		       : cfs_fail(s->err, -EBADMSG,
				  "the receiver's answer is none");
}

static int send_tree(struct send *s, uint64_t ino, const char *top)
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
	_cleanup_(send_fini) struct send s = {.ns = context->ns, .err = err};
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
