/* Pins in a stream: the sender's steps stay pinned where they arrive. */
#include "fs/daemon/transfer_pins.h"

#include <errno.h>
#include <string.h>

#include "fs/daemon/pins.h"
#include "fs/daemon/transfer.h"
#include "fs/daemon/verb.h"
#include "store/map/source.h"
#include "store/ns/ns.h"
#include "store/util/grow.h"
#include "store/util/log.h"
#include "store/util/path.h"

#define PINS_MAX 65536u /* of one stream */

void cfs_transfer_pins_free(struct cfs_transfer_pins *pins)
{
	size_t i;

	for (i = 0; i < pins->n; i++)
		free(pins->list[i].path);
	free(pins->list);
	*pins = (struct cfs_transfer_pins){0};
}

static int keep(struct cfs_transfer_pins *pins, const char *path, size_t len)
{
	if (!CFS_GROW(pins->list, pins->n, pins->cap))
		return -ENOMEM;
	pins->list[pins->n] =
		(struct cfs_transfer_pin){.path = strndup(path, len)};
	if (!pins->list[pins->n].path)
		return -ENOMEM;
	pins->n++;
	return 0;
}

/* ---- the sender ---- */

struct below {
	const char *top;
	struct cfs_transfer_pins pins;
};

static int keep_below(void *arg, const char *path)
{
	struct below *b = arg;
	size_t len = strlen(b->top);

	if (strncmp(path, b->top, len) != 0)
		return 0;
	path += len;
	if (len && *path && *path != '/')
		return 0;
	path += *path == '/';
	return keep(&b->pins, path, strlen(path));
}

static int put_pin(struct cfs_transfer_stream *stream, struct cfs_ns *ns,
		   const char *top, const char *below)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(top, below);
	struct stat st;
	int r;

	if (!path)
		return -ENOMEM;
	r = cfs_ns_walk(ns, path, &st);
	if (r < 0) /* a step that is gone is not sent, nor is its pin */
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	return cfs_transfer_put(stream, CFS_TRANSFER_PIN, below, strlen(below));
}

int cfs_transfer_put_pins(struct cfs_transfer_stream *stream, struct cfs_ns *ns,
			  const char *top)
{
	struct below b = {.top = top};
	size_t i;
	int r;

	r = cfs_pins_each(cfs_ns_store(ns), keep_below, &b);
	for (i = 0; !r && i < b.pins.n; i++)
		r = put_pin(stream, ns, top, b.pins.list[i].path);
	cfs_transfer_pins_free(&b.pins);
	return r;
}

/* ---- the receiver ---- */

int cfs_transfer_pins_take(struct cfs_transfer_pins *pins, const void *data,
			   size_t len)
{
	char path[CFS_NAME_MAX + 1];

	if (len >= sizeof(path) || pins->n == PINS_MAX ||
	    (len && memchr(data, 0, len)))
		return -EBADMSG;
	if (len)
		memcpy(path, data, len);
	path[len] = '\0';
	return cfs_source_path_ok(path) ? keep(pins, path, len) : -EBADMSG;
}

static int set_one(struct cfs_store *store, const char *top,
		   struct cfs_transfer_pin *pin,
		   const struct cfs_verb_reply *reply)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(top, pin->path);
	int r = path ? cfs_pins_has(store, path) : -ENOMEM;

	if (r)
		return r < 0 ? r : 0;
	r = cfs_pins_set(store, path, true);
	pin->fresh = !r;
	if (r != -ENAMETOOLONG)
		return r;
	if (reply)
		cfs_verb_line(reply, "%s: too long to be pinned here", path);
	return 0;
}

int cfs_transfer_pins_set(struct cfs_transfer_pins *pins,
			  struct cfs_store *store, const char *top,
			  const struct cfs_verb_reply *reply)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < pins->n; i++)
		r = set_one(store, top, &pins->list[i], reply);
	return r;
}

static int unset_one(struct cfs_store *store, const char *top,
		     const struct cfs_transfer_pin *pin)
{
	_cleanup_(cfs_freep) char *path = cfs_path_join(top, pin->path);

	return path ? cfs_pins_set(store, path, false) : -ENOMEM;
}

void cfs_transfer_pins_unset(const struct cfs_transfer_pins *pins,
			     struct cfs_store *store, const char *top)
{
	size_t i;

	for (i = 0; i < pins->n; i++)
		if (pins->list[i].fresh &&
		    unset_one(store, top, &pins->list[i]) < 0)
			cfs_log(CFS_LOG_WARN, "a pin below %s stays", top);
}
