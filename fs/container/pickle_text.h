/* Protocol 0 spells values as text; internal to fs/container. */
#ifndef CFS_CONTAINER_PICKLE_TEXT_H
#define CFS_CONTAINER_PICKLE_TEXT_H

#include <stddef.h>

#include "store/util/base.h"

struct cfs_buf;
struct cfs_node;
struct cfs_pickle;

/* CPython's limit for a decimal number, too */
#define CFS_PICKLE_DIGITS_MAX 4300

/* "-12", "12L": an INT or BIGINT.  -EBADMSG, -E2BIG, -ENOMEM. */
CFS_MUST_CHECK int cfs_pickle_text_int(struct cfs_pickle *doc, const char *s,
				       size_t len, struct cfs_node **out);
/* Two's complement, little-endian: an INT where it fits, else a BIGINT. */
struct cfs_node *cfs_pickle_long(struct cfs_pickle *doc, const void *data,
				 size_t len);
CFS_MUST_CHECK int cfs_pickle_text_float(const char *s, size_t len,
					 double *out);
/* A Python 2 repr: 'it\'s\x00'. */
CFS_MUST_CHECK int cfs_pickle_text_string(const char *s, size_t len,
					  struct cfs_buf *out);
/* raw-unicode-escape: Latin-1, \uXXXX and \UXXXXXXXX; UTF-8 comes out. */
CFS_MUST_CHECK int cfs_pickle_text_unicode(const char *s, size_t len,
					   struct cfs_buf *out);

#endif
