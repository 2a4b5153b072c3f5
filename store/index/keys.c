/* Keys to bytes and back: a class, then fixed big-endian parts or a name. */
#include "store/index/keys.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "store/util/endian.h"

#define NUM 8u /* bytes of a number in a key */

static void begin(struct cfs_key *key, char class)
{
	key->data[0] = (uint8_t) class;
	key->len = 1;
}

static void add_u64(struct cfs_key *key, uint64_t v)
{
	cfs_put_be64(key->data + key->len, v);
	key->len += NUM;
}

static void add_bytes(struct cfs_key *key, const void *data, size_t len)
{
	assert(len <= sizeof(key->data) - key->len);
	memcpy(key->data + key->len, data, len);
	key->len += len;
}

void cfs_key_inode(struct cfs_key *key, uint64_t ino)
{
	begin(key, 'i');
	add_u64(key, ino);
}

void cfs_key_dirent(struct cfs_key *key, uint64_t dir, const char *name,
		    size_t len)
{
	begin(key, 'd');
	add_u64(key, dir);
	add_bytes(key, name, len);
}

void cfs_key_cookie(struct cfs_key *key, uint64_t dir, uint64_t cookie)
{
	begin(key, 'D');
	add_u64(key, dir);
	add_u64(key, cookie);
}

void cfs_key_xattr(struct cfs_key *key, uint64_t ino, const char *name,
		   size_t len)
{
	begin(key, 'x');
	add_u64(key, ino);
	add_bytes(key, name, len);
}

void cfs_key_extent(struct cfs_key *key, uint64_t ino, uint64_t off)
{
	begin(key, 'e');
	add_u64(key, ino);
	add_u64(key, off);
}

void cfs_key_orphan(struct cfs_key *key, uint64_t ino)
{
	begin(key, 'o');
	add_u64(key, ino);
}

void cfs_key_setting(struct cfs_key *key, const char *name)
{
	begin(key, 's');
	add_bytes(key, name, strlen(name));
}

void cfs_key_chunk(struct cfs_key *key, const struct cfs_digest *digest)
{
	begin(key, 'c');
	add_bytes(key, digest->bytes, sizeof(digest->bytes));
}

void cfs_key_map(struct cfs_key *key, const struct cfs_digest *digest)
{
	begin(key, 'm');
	add_bytes(key, digest->bytes, sizeof(digest->bytes));
}

void cfs_key_applied(struct cfs_key *key)
{
	begin(key, 't');
}

void cfs_key_prefix(struct cfs_key *key, char class, uint64_t ino)
{
	begin(key, class);
	if (ino)
		add_u64(key, ino);
}

/* ---- back ---- */

static bool is_class(struct cfs_slice key, const char *classes)
{
	const char *class = key.data;

	return key.len && *class && strchr(classes, *class) != NULL;
}

bool cfs_key_is_logged(struct cfs_slice key)
{
	return is_class(key, "idDxeosk");
}

static uint64_t u64_at(struct cfs_slice key, size_t off)
{
	return cfs_get_be64((const uint8_t *)key.data + off);
}

int cfs_key_parse_ino(struct cfs_slice key, uint64_t *ino_out)
{
	if (!is_class(key, "io") || key.len != 1 + NUM)
		return -EBADMSG;
	*ino_out = u64_at(key, 1);
	return 0;
}

int cfs_key_parse_u64(struct cfs_slice key, uint64_t *ino_out,
		      uint64_t *second_out)
{
	if (!is_class(key, "De") || key.len != 1 + NUM + NUM)
		return -EBADMSG;
	*ino_out = u64_at(key, 1);
	*second_out = u64_at(key, 1 + NUM);
	return 0;
}

static bool is_dot(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

int cfs_key_parse_name(struct cfs_slice key, uint64_t *ino_out,
		       const char **name_out, size_t *len_out)
{
	const char *name;
	size_t len;

	if (!is_class(key, "dx") || key.len <= 1 + NUM || key.len > CFS_KEY_MAX)
		return -EBADMSG;
	name = (const char *)key.data + 1 + NUM;
	len = key.len - 1 - NUM;
	if (memchr(name, '\0', len))
		return -EBADMSG;
	if (is_class(key, "d") && (memchr(name, '/', len) || is_dot(name, len)))
		return -EBADMSG;
	*ino_out = u64_at(key, 1);
	*name_out = name;
	*len_out = len;
	return 0;
}

int cfs_key_parse_digest(struct cfs_slice key, struct cfs_digest *out)
{
	if (!is_class(key, "cm") || key.len != 1 + sizeof(out->bytes))
		return -EBADMSG;
	memcpy(out->bytes, (const uint8_t *)key.data + 1, sizeof(out->bytes));
	return 0;
}
