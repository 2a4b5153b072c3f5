/* Frames of JSON over a Unix socket, and where that socket is. */
#include "store/util/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "store/util/endian.h"

#define WIRE_FDS 2

static int gone(int e)
{
	return e == ECONNRESET || e == EPIPE || e == ENOTCONN ? -EPIPE : -e;
}

/* What is left of @msg after @n bytes of it went.  Descriptors have gone with
 * the first of them. */
static void advance(struct msghdr *msg, size_t n)
{
	msg->msg_control = NULL;
	msg->msg_controllen = 0;
	while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
		n -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (msg->msg_iovlen) {
		msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + n;
		msg->msg_iov->iov_len -= n;
	}
}

static int send_all(int fd, struct msghdr *msg)
{
	while (msg->msg_iovlen) {
		ssize_t n = sendmsg(fd, msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gone(errno);
		advance(msg, (size_t)n);
	}
	return 0;
}

/* Length and text in one call. */
static int send_frame(int fd, char *text, size_t len, const int *fds,
		      unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS)];
	} control = {0};
	uint8_t head[4];
	struct iovec iov[2] = {{head, sizeof(head)}, {text, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	struct cmsghdr *c;

	cfs_put_le32(head, (uint32_t)len);
	if (n_fds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	return send_all(fd, &msg);
}

int cfs_wire_send(int fd, const cJSON *json, const int *fds, unsigned n_fds)
{
	char *text = cJSON_PrintUnformatted(json);
	size_t len;
	int r;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	if (len > CFS_WIRE_REPLY_MAX || n_fds > WIRE_FDS)
		r = -E2BIG;
	else
		r = send_frame(fd, text, len, fds, n_fds);
	cJSON_free(text);
	return r;
}

static void take_fds(struct msghdr *msg, int fds[2])
{
	struct cmsghdr *c;
	unsigned n = 0;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t i, count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < count; i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(int),
			       sizeof(int));
			if (n < WIRE_FDS && fds[n] < 0)
				fds[n++] = got;
			else
				close(got);
		}
	}
}

static int receive_all(int fd, void *data, size_t len, int *fds)
{
	char *to = data;

	while (len) {
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS)];
		} control;
		struct iovec iov = {to, len};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (fds) { /* without room for them the kernel drops them */
			msg.msg_control = control.bytes;
			msg.msg_controllen = sizeof(control.bytes);
		}
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return gone(errno);
		if (n == 0)
			return -EPIPE;
		if (fds)
			take_fds(&msg, fds);
		to += n;
		len -= (size_t)n;
	}
	return 0;
}

int cfs_wire_receive(int fd, size_t max, cJSON **json_out, int fds[2])
{
	_cleanup_(cfs_freep) char *text = NULL;
	uint8_t head[4];
	size_t len;
	cJSON *json;
	int r;

	if (fds)
		fds[0] = fds[1] = -1;
	r = receive_all(fd, head, sizeof(head), fds);
	if (r < 0)
		return r;
	len = cfs_get_le32(head);
	if (len > max)
		return -EMSGSIZE;
	text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	r = receive_all(fd, text, len, fds);
	if (r < 0)
		return r;
	text[len] = '\0';
	json = cJSON_ParseWithLength(text, len + 1);
	if (!cJSON_IsObject(json)) {
		cJSON_Delete(json);
		return -EBADMSG;
	}
	*json_out = json;
	return 0;
}

bool cfs_wire_gone(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 &&
	       p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* A path that does not fit goes through the directory's descriptor, which
 * *@dir_out keeps open. */
static int make_address(const char *store_path, struct sockaddr_un *out,
			int *dir_out)
{
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	*dir_out = -1;
	if (strlen(store_path) + sizeof("/" CFS_CONTROL_NAME) <=
	    sizeof(out->sun_path)) {
		sprintf(out->sun_path, "%s/%s", store_path, CFS_CONTROL_NAME);
		return 0;
	}
	*dir_out = open(store_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir_out < 0)
		return -errno;
	sprintf(out->sun_path, "/proc/self/fd/%d/%s", *dir_out,
		CFS_CONTROL_NAME);
	return 0;
}

static int new_socket(int *fd_out)
{
	*fd_out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return *fd_out < 0 ? -errno : 0;
}

int cfs_wire_connect(const char *store_path, int *fd_out)
{
	_cleanup_(cfs_closep) int fd = -1, dir = -1;
	struct sockaddr_un address;
	int r;

	r = make_address(store_path, &address, &dir);
	if (!r)
		r = new_socket(&fd);
	if (r < 0)
		return r;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*fd_out = cfs_steal_fd(&fd);
	return 0;
}

int cfs_wire_listen(const char *store_path, int *fd_out)
{
	_cleanup_(cfs_closep) int fd = -1, dir = -1;
	struct sockaddr_un address;
	int r;

	r = make_address(store_path, &address, &dir);
	if (!r)
		r = new_socket(&fd);
	if (r < 0)
		return r;
	/* whoever served it held the store's lock, which is ours now */
	if (unlink(address.sun_path) < 0 && errno != ENOENT)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	/* everybody may ask, so that who may not is told so */
	if (chmod(address.sun_path, 0666) < 0 || listen(fd, 16) < 0)
		return -errno;
	*fd_out = cfs_steal_fd(&fd);
	return 0;
}

void cfs_wire_unlisten(const char *store_path)
{
	_cleanup_(cfs_closep) int dir =
		open(store_path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0)
		(void)unlinkat(dir, CFS_CONTROL_NAME, 0);
}
