/* Maps to bytes: encode_internal.h says which. */
#include "store/map/encode_internal.h"

#include <errno.h>
#include <string.h>

#include "store/map/map_internal.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/hash.h"

struct encoder {
	struct cfs_buf *out;
	const struct cfs_map *top; /* its files, in order, are the numbers */
};

static void put_varint(struct encoder *e, uint64_t v)
{
	uint8_t raw[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		raw[n++] = (uint8_t)(v | 0x80);
	raw[n++] = (uint8_t)v;
	cfs_buf_put(e->out, raw, n);
}

static void put_files(struct encoder *e)
{
	const struct cfs_map *map = e->top;

	put_varint(e, map->n_files);
	for (uint32_t i = 0; i < map->n_files; i++) {
		uint32_t file = map->files[i];
		const struct cfs_version *v =
			cfs_filetab_version(map->tab, file);
		const char *path = cfs_filetab_path(map->tab, file);

		put_varint(e, strlen(path));
		cfs_buf_put_str(e->out, path);
		put_varint(e, v->dev);
		put_varint(e, v->ino);
		put_varint(e, v->size);
		put_varint(e, cfs_zigzag(v->mtime_ns));
		put_varint(e, cfs_zigzag(v->ctime_ns));
	}
}

static uint32_t file_number(const struct encoder *e, uint32_t file)
{
	uint32_t lo = 0, hi = e->top->n_files;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (e->top->files[mid] <= file)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static void put_body(struct encoder *e, const struct cfs_map *map);

static void put_expr(struct encoder *e, const struct cfs_expr *expr)
{
	const struct cfs_gather *box = expr->box;

	if (expr->kind == CFS_SEG_GATHER) {
		put_varint(e, box->run);
		put_varint(e, box->base);
		put_varint(e, box->ndim);
		for (uint32_t i = 0; i < box->ndim; i++) {
			put_varint(e, box->shape[i]);
			put_varint(e, box->stride[i]);
		}
	} else {
		put_varint(e, (uint64_t)expr->from);
		put_varint(e, (uint64_t)expr->to);
	}
	if (expr->kind == CFS_SEG_LINEAR)
		put_varint(e, expr->n_children);
	for (uint32_t i = 0; i < expr->n_children; i++) {
		uint64_t bits;

		if (expr->kind == CFS_SEG_LINEAR) {
			memcpy(&bits, &expr->weights[i], sizeof(bits));
			cfs_buf_put_le64(e->out, bits);
		}
		put_body(e, expr->children[i]);
	}
}

static void put_body(struct encoder *e, const struct cfs_map *map)
{
	uint64_t range_end = 0;

	put_varint(e, map->n_segs);
	for (uint32_t i = 0; i < map->n_segs; i++) {
		const struct cfs_seg *seg = &map->segs[i];
		uint64_t len = cfs_map_seg_len(map, i);

		cfs_buf_put_u8(e->out, (uint8_t)seg->kind);
		switch ((enum cfs_segment_kind)seg->kind) {
		case CFS_SEG_LITERAL:
			put_varint(e, len);
			cfs_buf_put(e->out, map->literals + seg->pos,
				    (size_t)len);
			break;
		case CFS_SEG_RANGE:
			put_varint(e, file_number(e, seg->ref));
			put_varint(e, cfs_zigzag((int64_t)seg->pos -
						 (int64_t)range_end));
			put_varint(e, len);
			range_end = seg->pos + len;
			break;
		case CFS_SEG_ZERO:
			put_varint(e, len);
			break;
		default:
			put_varint(e, seg->pos);
			put_varint(e, len);
			put_expr(e, map->exprs[seg->ref]);
		}
	}
}

int cfs_map_encode(const struct cfs_map *map, struct cfs_buf *out)
{
	struct encoder e = {.out = out, .top = map};
	size_t start = out->len;

	cfs_buf_put(out, CFS_MAP_MAGIC, strlen(CFS_MAP_MAGIC));
	cfs_buf_put_u8(out, CFS_MAP_VERSION);
	put_files(&e);
	put_body(&e, map);
	if (out->failed)
		return -ENOMEM;
	cfs_buf_put_le64(out,
			 cfs_hash64(out->data + start, out->len - start, 0));
	return out->failed ? -ENOMEM : 0;
}
