/*
 * receive: the other end of send.
 *
 * What comes is queued until the chunks that the first batch in the queue
 * lacks are there, so that answers to later batches can go out at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fs/daemon/nstree.h"
#include "fs/daemon/receive.h"
#include "fs/daemon/transfer_pins.h"
#include "store/ns/ns.h"

#define QUEUE_MAX	4096u
#define QUEUE_BYTES_MAX ((size_t)64 << 20)

struct item {
	struct item *next;
	int type;
	struct cfs_receive_batch *batch; /* of EXTENTS */
	struct cfs_buf frame;		 /* of all else */
};

struct receive {
	struct cfs_receive_tree tree;
	struct cfs_transfer_stream stream;
	struct cfs_transfer_pins pins;
	struct cfs_error *err;
	bool duplex, ended;
	struct item *first, **last;
	unsigned n_items;
	size_t n_bytes; /* of frames in the queue */
};

static void item_free(struct item *item)
{
	cfs_receive_batch_free(item->batch);
	cfs_buf_free(&item->frame);
	free(item);
}

static void drop_first(struct receive *v)
{
	struct item *item = v->first;

	v->first = item->next;
	if (!v->first)
		v->last = &v->first;
	v->n_items--;
	v->n_bytes -= item->frame.len;
	item_free(item);
}

static void receive_fini(struct receive *v)
{
	while (v->first)
		drop_first(v);
	cfs_receive_tree_fini(&v->tree);
	cfs_transfer_fini(&v->stream);
	cfs_transfer_pins_free(&v->pins);
}

static int odd(struct receive *v, const char *what)
{
	return cfs_fail(v->err, -EBADMSG, "the stream is damaged: %s", what);
}

/* ---- the queue ---- */

static int apply(struct receive *v, struct item *item)
{
	const void *data = item->frame.data;
	size_t len = item->frame.len;
	int r;

	switch (item->type) {
	case CFS_TRANSFER_NODE:
		return cfs_receive_node(&v->tree, data, len);
	case CFS_TRANSFER_LINK:
		return cfs_receive_link(&v->tree, data, len);
	case CFS_TRANSFER_XATTR:
		return cfs_receive_xattr(&v->tree, data, len);
	case CFS_TRANSFER_DATA:
		return cfs_receive_data(&v->tree, data, len);
	case CFS_TRANSFER_EXTENTS:
		return cfs_receive_write(&v->tree, item->batch);
	case CFS_TRANSFER_NODE_END:
		return cfs_receive_node_end(&v->tree);
	case CFS_TRANSFER_PIN:
		r = cfs_transfer_pins_take(&v->pins, data, len);
		return r == -EBADMSG ? odd(v, "a pin") : r;
	case CFS_TRANSFER_END:
		v->ended = true;
		return cfs_receive_finish(&v->tree);
	default:
		return odd(v, "a frame of no known type");
	}
}

/* All from the front that waits for nothing. */
static int apply_ready(struct receive *v)
{
	int r = 0;

	while (!r && v->first && !v->ended &&
	       !(v->first->batch && v->first->batch->lacks)) {
		r = apply(v, v->first);
		drop_first(v);
	}
	return r;
}

static int answer(struct receive *v, const struct cfs_receive_batch *batch)
{
	uint8_t bits[CFS_TRANSFER_EXTENTS_MAX / 8] = {0};
	unsigned i;
	int r;

	if (!v->duplex)
		return 0;
	for (i = 0; i < batch->n; i++)
		if (batch->lacked[i])
			bits[i / 8] |= (uint8_t)(1u << (i % 8));
	r = cfs_transfer_put(&v->stream, CFS_TRANSFER_LACKS, bits,
			     (batch->n + 7) / 8);
	return r ? r : cfs_transfer_flush(&v->stream);
}

static int take_extents(struct receive *v, struct item *item)
{
	struct cfs_receive_batch *b = calloc(1, sizeof(*b));
	uint64_t bytes = 0;
	unsigned i;
	int n, r;

	item->batch = b;
	if (!b)
		return -ENOMEM;
	n = cfs_transfer_get_extents(v->stream.frame.data, v->stream.frame.len,
				     b->extents);
	if (n < 0)
		return odd(v, "extents");
	b->n = (unsigned)n;
	for (i = 0; i < b->n; i++)
		bytes += b->extents[i].chunk_len;
	if (b->n > 1 && bytes > CFS_TRANSFER_BATCH_BYTES)
		return odd(v, "extents");
	r = cfs_receive_want(&v->tree, b, v->duplex);
	return r ? r : answer(v, b);
}

static int check_sum(struct receive *v)
{
	struct cfs_digest sum;

	cfs_digester_end(v->stream.sum, &sum);
	if (v->stream.frame.len != sizeof(sum.bytes) ||
	    memcmp(v->stream.frame.data, sum.bytes, sizeof(sum.bytes)) != 0)
		return odd(v, "it is not what was sent");
	return 0;
}

static int queue(struct receive *v, int type)
{
	struct item *item;
	int r;

	if (v->n_items == QUEUE_MAX ||
	    v->n_bytes + v->stream.frame.len > QUEUE_BYTES_MAX)
		return odd(v, "it promises too much at once");
	r = type == CFS_TRANSFER_END ? check_sum(v) : 0;
	if (r < 0)
		return r;
	item = calloc(1, sizeof(*item));
	if (!item)
		return -ENOMEM;
	item->type = type;
	if (type == CFS_TRANSFER_EXTENTS)
		r = take_extents(v, item);
	else
		cfs_buf_put(&item->frame, v->stream.frame.data,
			    v->stream.frame.len);
	if (!r && item->frame.failed)
		r = -ENOMEM;
	if (r < 0) {
		item_free(item);
		return r;
	}
	*v->last = item;
	v->last = &item->next;
	v->n_items++;
	v->n_bytes += item->frame.len;
	return 0;
}

/* It belongs to the first batch that waits, which is the first in the queue,
 * and there to the first extent that lacks it. */
static int take_chunk(struct receive *v)
{
	_cleanup_(cfs_buf_free) struct cfs_buf raw = CFS_BUF_INIT;
	struct cfs_receive_batch *b = v->first ? v->first->batch : NULL;
	struct cfs_digest digest;
	unsigned i;
	int r;

	if (!b || !b->lacks)
		return odd(v, "a chunk nobody asked for");
	r = cfs_transfer_get_chunk(v->stream.frame.data, v->stream.frame.len,
				   &digest, &raw);
	if (r < 0)
		return r == -ENOMEM ? r
				    : odd(v, "a chunk is not what it is "
					     "called");
	for (i = 0; i < b->n; i++)
		if (b->lacked[i] && !b->chunks[i].len)
			break;
	if (i == b->n || cfs_digest_cmp(&b->extents[i].digest, &digest) ||
	    raw.len != b->extents[i].chunk_len)
		return odd(v, "another chunk than was asked for");
	b->chunks[i] = raw;
	raw = (struct cfs_buf)CFS_BUF_INIT;
	b->lacks--;
	v->tree.chunks++;
	return 0;
}

static int take_all(struct receive *v)
{
	int r = 0;

	while (!v->ended) {
		v->stream.done = v->tree.bytes;
		r = cfs_transfer_get(&v->stream);
		if (r == -EPIPE)
			return cfs_fail(v->err, -EBADMSG,
					"the stream ends too early");
		if (r < 0)
			return r;
		if (r == CFS_TRANSFER_CHUNK)
			r = take_chunk(v);
		else
			r = queue(v, r);
		if (!r)
			r = apply_ready(v);
		if (r < 0)
			return r;
	}
	return v->first ? odd(v, "more behind its end") : 0;
}

/* ---- the tree's place ---- */

static int check_place(struct cfs_ns *ns, const char *path,
		       struct cfs_error *err)
{
	struct stat st;
	int r;

	if (!path[0])
		return cfs_fail(err, -EINVAL,
				"name what is received: STORE/NAME");
	r = cfs_ns_walk(ns, path, &st);
	if (!r)
		return cfs_fail(err, -EEXIST, "%s is there already", path);
	return r == -ENOENT ? 0 : cfs_fail_prefix(err, r, "%s", path);
}

/*
 * The whole tree gets its name at once; no prune finds it without its pins.
 * One at a time: of two for the same place, the one that comes too late must
 * not take for its own, and back, the pins of the other.
 */
static int give_name(struct receive *v, const char *path, uint64_t dir,
		     const char *name)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cfs_ns *ns = v->tree.context->ns;
	struct cfs_store *store = cfs_ns_store(ns);
	int r;

	pthread_mutex_lock(&lock);
	r = cfs_transfer_pins_set(&v->pins, store, path, v->stream.reply);
	if (!r)
		r = cfs_ns_rename(ns, v->tree.top_dir, v->tree.top_name, dir,
				  name, RENAME_NOREPLACE);
	if (r < 0)
		cfs_transfer_pins_unset(&v->pins, store, path);
	pthread_mutex_unlock(&lock);
	return r;
}

static int move_in(struct receive *v, const char *path)
{
	struct cfs_verb_context *context = v->tree.context;
	const char *slash = strrchr(path, '/');
	_cleanup_(cfs_freep) char *head =
		strndup(path, slash ? (size_t)(slash - path) : 0);
	const char *name = slash ? slash + 1 : path;
	uint64_t dir;
	int r;

	if (!head)
		return -ENOMEM;
	r = cfs_nstree_mkdirs(context->ns, v->tree.cred, head, &dir);
	if (!r)
		r = give_name(v, path, dir, name);
	if (r < 0)
		return cfs_fail_prefix(v->err, r, "%s", path);
	v->tree.made = false; /* not ours to remove any more */
	if (context->invalidate)
		context->invalidate(context->invalidate_arg, dir, name);
	return cfs_ns_sync(context->ns);
}

static int receive_tree(struct receive *v, const char *path)
{
	uint32_t flags;
	int r;

	v->stream.sum = cfs_digester_new();
	if (!v->stream.sum)
		return -ENOMEM;
	r = cfs_transfer_get_head(&v->stream, &flags);
	if (r == -EBADMSG)
		return cfs_fail(v->err, r,
				"what comes is no stream of ckptfs "
				"send");
	if (r == -EPROTONOSUPPORT)
		return cfs_fail(v->err, r, "a newer ckptfs sends this stream");
	if (r < 0)
		return r;
	v->duplex = flags & CFS_TRANSFER_DUPLEX;
	if (!v->duplex)
		v->stream.out = -1;
	else if (v->stream.out < 0)
		return cfs_fail(v->err, -EINVAL, "nowhere to answer to");
	r = take_all(v);
	return r ? r : move_in(v, path);
}

/* Whoever sends is told why it ends. */
static void refuse(struct receive *v, int r)
{
	const char *text = v->err->text[0] ? v->err->text : strerror(-r);

	if (v->duplex && cfs_transfer_put(&v->stream, CFS_TRANSFER_REFUSED,
					  text, strlen(text)) == 0)
		(void)!cfs_transfer_flush(&v->stream);
}

static int finish(struct receive *v, const char *path, cJSON *result)
{
	int r;

	cfs_verb_put_str(result, "path", path);
	cfs_verb_put_flag(result, "duplex", v->duplex);
	cfs_verb_put_u64(result, "files", v->tree.files);
	cfs_verb_put_u64(result, "bytes", v->tree.bytes);
	cfs_verb_put_u64(result, "chunks_received", v->tree.chunks);
	cfs_verb_put_u64(result, "bytes_received", v->stream.received);
	cfs_verb_put_u64(result, "pins", v->pins.n);
	r = cfs_transfer_put(&v->stream, CFS_TRANSFER_DONE, NULL, 0);
	return r || !v->duplex ? r : cfs_transfer_flush(&v->stream);
}

/* fds: where the stream comes from, and where answers go to. */
static int receive(struct cfs_verb_context *context, const char *path,
		   const struct cfs_verb_reply *reply, cJSON *result,
		   struct cfs_error *err)
{
	const struct cfs_verb_caller *caller = context->caller;
	struct cfs_ns_cred cred = {caller->uid, caller->gid};
	_cleanup_(receive_fini) struct receive v = {.err = err};
	int r;

	v.last = &v.first;
	v.stream = (struct cfs_transfer_stream){
		.in = caller->fds[0], .out = caller->fds[1], .reply = reply};
	v.tree.context = context;
	v.tree.err = err;
	v.tree.cred = &cred;
	v.tree.owners = caller->uid == 0;
	r = check_place(context->ns, path, err);
	if (!r)
		r = receive_tree(&v, path);
	if (r < 0) {
		refuse(&v, r);
		return r;
	}
	return finish(&v, path, result);
}

static int run(struct cfs_verb_context *context, const cJSON *arguments,
	       const struct cfs_verb_reply *reply, cJSON *result,
	       struct cfs_error *err)
{
	_cleanup_(cfs_freep) char *path = NULL;
	int r, sweep_r;

	if (!context->caller->n_fds)
		return cfs_fail(err, -EINVAL, "nothing to receive from");
	r = cfs_verb_path(arguments, "path", &path, err);
	if (r < 0)
		return r;
	r = receive(context, path, reply, result, err);
	/* whole or not, nothing of it is on its way any more */
	sweep_r = cfs_verb_sweep(context);
	return r ? r : sweep_r;
}

const struct cfs_daemon_verb cfs_daemon_verb_receive = {"receive", run, false,
							true};
