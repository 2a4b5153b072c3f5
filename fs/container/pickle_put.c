#include "fs/container/pickle_put.h"

#include <errno.h>
#include <string.h>

#include "fs/container/pickle.h"
#include "store/util/buf.h"
#include "store/util/endian.h"
#include "store/util/error.h"

static void put_index(struct cfs_buf *out, char small, char large, uint32_t i)
{
	if (i <= UINT8_MAX) {
		cfs_buf_put_u8(out, (uint8_t)small);
		cfs_buf_put_u8(out, (uint8_t)i);
	} else {
		cfs_buf_put_u8(out, (uint8_t)large);
		cfs_buf_put_le32(out, i);
	}
}

void cfs_pickle_put_memo(struct cfs_buf *out, uint32_t index)
{
	put_index(out, 'q', 'r', index);
}

void cfs_pickle_put_get(struct cfs_buf *out, uint32_t index)
{
	put_index(out, 'h', 'j', index);
}

static int put_long(struct cfs_buf *out, const void *data, size_t len)
{
	if (len > INT32_MAX)
		return -E2BIG;
	if (len <= UINT8_MAX) {
		cfs_buf_put_u8(out, 0x8a);
		cfs_buf_put_u8(out, (uint8_t)len);
	} else {
		cfs_buf_put_u8(out, 0x8b);
		cfs_buf_put_le32(out, (uint32_t)len);
	}
	cfs_buf_put(out, data, len);
	return 0;
}

static int put_int(struct cfs_buf *out, int64_t v)
{
	uint8_t raw[8];
	size_t n = sizeof(raw);

	if (v >= 0 && v <= UINT16_MAX) {
		cfs_buf_put_u8(out, v <= UINT8_MAX ? 'K' : 'M');
		cfs_buf_put_u8(out, (uint8_t)v);
		if (v > UINT8_MAX)
			cfs_buf_put_u8(out, (uint8_t)(v >> 8));
		return 0;
	}
	if (v >= INT32_MIN && v <= INT32_MAX) {
		cfs_buf_put_u8(out, 'J');
		cfs_buf_put_le32(out, (uint32_t)v);
		return 0;
	}
	cfs_put_le64(raw, (uint64_t)v);
	while (raw[n - 1] == (v < 0 ? 0xff : 0) &&
	       (raw[n - 2] & 0x80) == (v < 0 ? 0x80 : 0))
		n--;
	return put_long(out, raw, n);
}

static void put_float(struct cfs_buf *out, double v)
{
	uint64_t raw;

	memcpy(&raw, &v, sizeof(raw));
	cfs_buf_put_u8(out, 'G');
	for (int shift = 56; shift >= 0; shift -= 8)
		cfs_buf_put_u8(out, (uint8_t)(raw >> shift));
}

static int put_text(struct cfs_buf *out, const char *s, size_t len)
{
	if (len > UINT32_MAX)
		return -E2BIG;
	cfs_buf_put_u8(out, 'X');
	cfs_buf_put_le32(out, (uint32_t)len);
	cfs_buf_put(out, s, len);
	return 0;
}

/* Protocol 2 has no bytes: _codecs.encode(text, 'latin1'). */
static int put_bytes(struct cfs_buf *out, const uint8_t *data, size_t len)
{
	size_t size = len;

	if (!len) {
		cfs_buf_put_str(out, "c__builtin__\nbytes\n)R");
		return 0;
	}
	for (size_t i = 0; i < len; i++)
		size += data[i] >> 7;
	if (size > UINT32_MAX)
		return -E2BIG;
	cfs_buf_put_str(out, "c_codecs\nencode\nX");
	cfs_buf_put_le32(out, (uint32_t)size);
	for (size_t i = 0; i < len; i++) {
		if (data[i] & 0x80) {
			cfs_buf_put_u8(out, (uint8_t)(0xc0 | data[i] >> 6));
			cfs_buf_put_u8(out, (uint8_t)(0x80 | (data[i] & 0x3f)));
		} else {
			cfs_buf_put_u8(out, data[i]);
		}
	}
	return put_text(out, "latin1", 6) ? -E2BIG
					  : (cfs_buf_put_str(out, "\x86R"), 0);
}

static int put_bytearray(struct cfs_buf *out, const uint8_t *data, size_t len)
{
	int r;

	cfs_buf_put_str(out, "c__builtin__\nbytearray\n");
	if (!len) {
		cfs_buf_put_str(out, ")R");
		return 0;
	}
	r = put_bytes(out, data, len);
	if (!r)
		cfs_buf_put_str(out, "\x85R");
	return r;
}

/* Protocol 2 spells these modules as Python 2 did. */
static const char *module_name(const char *module)
{
	if (!strcmp(module, "builtins"))
		return "__builtin__";
	if (!strcmp(module, "copyreg"))
		return "copy_reg";
	return module;
}

/*
 * A dotted name (a nested class, from protocol 4) is looked up step by step:
 * getattr(getattr(module.A, 'B'), 'C').
 */
static int put_global(struct cfs_buf *out, const struct cfs_node *node,
		      struct cfs_error *err)
{
	const char *module = module_name(node->u.global.module);
	const char *name = node->u.global.name, *end;

	if (!*module || !*name || strchr(module, '\n') || strchr(name, '\n') ||
	    *name == '.' || strstr(name, "..") || name[strlen(name) - 1] == '.')
		return cfs_fail(err, -EINVAL,
				"pickle: '%.100s.%.100s' cannot be written as "
				"a name",
				module, name);
	for (end = strchr(name, '.'); end; end = strchr(end + 1, '.'))
		cfs_buf_put_str(out, "c__builtin__\ngetattr\n");
	end = strchrnul(name, '.');
	cfs_buf_put_u8(out, 'c');
	cfs_buf_put_str(out, module);
	cfs_buf_put_u8(out, '\n');
	cfs_buf_put(out, name, (size_t)(end - name));
	cfs_buf_put_u8(out, '\n');
	while (*end) {
		name = end + 1;
		end = strchrnul(name, '.');
		if (put_text(out, name, (size_t)(end - name)))
			return -E2BIG;
		cfs_buf_put_str(out, "\x86R");
	}
	return 0;
}

static int put_leaf(struct cfs_buf *out, const struct cfs_node *node,
		    struct cfs_error *err)
{
	const uint8_t *data = (const uint8_t *)node->u.str.data;

	switch (node->kind) {
	case CFS_NODE_NONE:
		cfs_buf_put_u8(out, 'N');
		return 0;
	case CFS_NODE_BOOL:
		cfs_buf_put_u8(out, node->u.boolean ? 0x88 : 0x89);
		return 0;
	case CFS_NODE_INT:
		return put_int(out, node->u.integer);
	case CFS_NODE_BIGINT:
		return put_long(out, data, node->u.str.len);
	case CFS_NODE_FLOAT:
		put_float(out, node->u.real);
		return 0;
	case CFS_NODE_STR:
		return put_text(out, node->u.str.data, node->u.str.len);
	case CFS_NODE_BYTES:
		return put_bytes(out, data, node->u.str.len);
	case CFS_NODE_BYTEARRAY:
		return put_bytearray(out, data, node->u.str.len);
	case CFS_NODE_GLOBAL:
		return put_global(out, node, err);
	default: /* only the empty tuple has no children and no frame */
		cfs_buf_put_u8(out, ')');
		return 0;
	}
}

int cfs_pickle_put_leaf(struct cfs_buf *out, const struct cfs_node *node,
			struct cfs_error *err)
{
	const int r = put_leaf(out, node, err);

	if (r == -E2BIG)
		return cfs_fail(err, r,
				"pickle: a value of 4 GiB or more, which "
				"protocol 2 cannot write");
	return r;
}
