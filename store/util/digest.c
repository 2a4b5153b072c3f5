/* SHA-256 through OpenSSL's one algorithm object, fetched once; two at a time
 * by instructions of the processor where it has them. */
#include "store/util/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/util/digest_x86.h"

struct cfs_digester {
	EVP_MD_CTX *ctx;
};

static EVP_MD *sha256;
static bool pairs;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Fetching by name for every chunk would cost a look-up under a lock. */
static void fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	if (!sha256)
		abort();
	pairs = cfs_digest_x86_has();
}

static const EVP_MD *algorithm(void)
{
	pthread_once(&once, fetch);
	return sha256;
}

void cfs_digest_of(const void *data, size_t len, struct cfs_digest *out)
{
	unsigned n = 0;

	if (!EVP_Digest(data, len, out->bytes, &n, algorithm(), NULL) ||
	    n != CFS_DIGEST_BYTES)
		abort();
}

void cfs_digest_pair(const void *const data[2], const size_t len[2],
		     struct cfs_digest *const out[2])
{
	(void)algorithm();
	if (pairs) {
		cfs_digest_x86_pair(data, len, out);
		return;
	}
	cfs_digest_of(data[0], len[0], out[0]);
	cfs_digest_of(data[1], len[1], out[1]);
}

int cfs_digest_cmp(const struct cfs_digest *a, const struct cfs_digest *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

const char *cfs_digest_hex(const struct cfs_digest *digest, char *buf)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < CFS_DIGEST_BYTES; i++) {
		buf[2 * i] = digits[digest->bytes[i] >> 4];
		buf[2 * i + 1] = digits[digest->bytes[i] & 15];
	}
	buf[2 * CFS_DIGEST_BYTES] = '\0';
	return buf;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int cfs_digest_parse(const char *hex, struct cfs_digest *out)
{
	struct cfs_digest d;
	int high, low;
	size_t i;

	if (strlen(hex) != CFS_DIGEST_HEX - 1)
		return -EINVAL;
	for (i = 0; i < CFS_DIGEST_BYTES; i++) {
		high = nibble(hex[2 * i]);
		low = nibble(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		d.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*out = d;
	return 0;
}

struct cfs_digester *cfs_digester_new(void)
{
	struct cfs_digester *d = malloc(sizeof(*d));

	if (!d)
		return NULL;
	d->ctx = EVP_MD_CTX_new();
	if (!d->ctx || !EVP_DigestInit_ex2(d->ctx, algorithm(), NULL)) {
		cfs_digester_free(d);
		return NULL;
	}
	return d;
}

void cfs_digester_free(struct cfs_digester *digester)
{
	if (!digester)
		return;
	EVP_MD_CTX_free(digester->ctx);
	free(digester);
}

void cfs_digester_add(struct cfs_digester *digester, const void *data,
		      size_t len)
{
	if (!EVP_DigestUpdate(digester->ctx, data, len))
		abort();
}

void cfs_digester_end(struct cfs_digester *digester, struct cfs_digest *out)
{
	unsigned n = 0;

	if (!EVP_DigestFinal_ex(digester->ctx, out->bytes, &n) ||
	    n != CFS_DIGEST_BYTES)
		abort();
}
