/* Payloads that packs write themselves: PACK and FOOTER.  Pure. */
#ifndef CFS_PACK_LAYOUT_H
#define CFS_PACK_LAYOUT_H

#include "store/pack/packs.h"

struct cfs_buf;

#define CFS_LAYOUT_VERSION     1u
#define CFS_LAYOUT_HEAD_BYTES  44u /* PACK payload */
#define CFS_LAYOUT_FIRST       (CFS_RECORD_HEAD_BYTES + CFS_LAYOUT_HEAD_BYTES)
#define CFS_LAYOUT_ENTRY_BYTES 45u
#define CFS_LAYOUT_TRAILER     8u
#define CFS_LAYOUT_ENTRIES_MAX                                                 \
	((CFS_RECORD_MAX - 4u - CFS_LAYOUT_TRAILER) / CFS_LAYOUT_ENTRY_BYTES)
#define CFS_LAYOUT_PACK_MAX (1u << 31)

struct cfs_layout_head {
	uint32_t version;
	uint8_t uuid[16];
	uint32_t number, prev, prev_end;
	struct cfs_position snapshot;
	uint32_t room;
};
void cfs_layout_head_encode(const struct cfs_layout_head *head,
			    uint8_t out[CFS_LAYOUT_HEAD_BYTES]);
/*
 * A whole PACK record at the start of @data: 0; -EBADMSG: it does not hold;
 * -EPROTONOSUPPORT: it holds and is of a newer format.
 */
CFS_MUST_CHECK int cfs_layout_head_parse(const void *data, size_t len,
					 struct cfs_record *record_out,
					 struct cfs_layout_head *head_out);

struct cfs_layout_entry {
	enum cfs_record_type type;
	struct cfs_digest digest;
	uint32_t off, len, raw_len;
};
/* Bytes of a FOOTER record with @n entries, its head included. */
uint64_t cfs_layout_footer_bytes(size_t n);
/* The payload in three steps; @at: offset of the FOOTER record. */
void cfs_layout_footer_begin(struct cfs_buf *out, size_t n);
void cfs_layout_footer_add(struct cfs_buf *out,
			   const struct cfs_layout_entry *entry);
void cfs_layout_footer_end(struct cfs_buf *out, uint32_t at);
/* The last 8 bytes of a pack: where its FOOTER record is; -ENOENT. */
CFS_MUST_CHECK int cfs_layout_trailer(const uint8_t tail[CFS_LAYOUT_TRAILER],
				      uint32_t *at_out);
/* Entries of a whole FOOTER payload whose record is at @at: every one is
 * checked before the first is told.  -EBADMSG, or what @fn returned. */
typedef int cfs_layout_entry_fn(void *arg,
				const struct cfs_layout_entry *entry);
CFS_MUST_CHECK int cfs_layout_footer_parse(const void *data, size_t len,
					   uint32_t at, cfs_layout_entry_fn *fn,
					   void *arg);

#endif
