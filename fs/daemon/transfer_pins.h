/* Pins go with the steps that send sends. */
#ifndef CFS_DAEMON_TRANSFER_PINS_H
#define CFS_DAEMON_TRANSFER_PINS_H

#include <stdbool.h>
#include <stddef.h>

#include "store/util/base.h"

struct cfs_ns;
struct cfs_store;
struct cfs_transfer_stream;
struct cfs_verb_reply;

/* A frame for each pin at or below @top whose step is there. */
CFS_MUST_CHECK int cfs_transfer_put_pins(struct cfs_transfer_stream *stream,
					 struct cfs_ns *ns, const char *top);

struct cfs_transfer_pin {
	char *path; /* below the top, "" the top itself */
	bool fresh; /* set by cfs_transfer_pins_set(), was none before */
};
struct cfs_transfer_pins {
	size_t n, cap;
	struct cfs_transfer_pin *list;
};
void cfs_transfer_pins_free(struct cfs_transfer_pins *pins); /* _cleanup_ */
/* One frame's payload: 0, -EBADMSG, -ENOMEM. */
CFS_MUST_CHECK int cfs_transfer_pins_take(struct cfs_transfer_pins *pins,
					  const void *data, size_t len);
/* All of them below @top; one that is too long there is left out, and told. */
CFS_MUST_CHECK int cfs_transfer_pins_set(struct cfs_transfer_pins *pins,
					 struct cfs_store *store,
					 const char *top,
					 const struct cfs_verb_reply *reply);
/* Takes that back; what was pinned before stays. */
void cfs_transfer_pins_unset(const struct cfs_transfer_pins *pins,
			     struct cfs_store *store, const char *top);

#endif
