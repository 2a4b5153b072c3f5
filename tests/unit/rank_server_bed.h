/* Ranks that speak the protocol by hand, with a daemon in this process. */
#ifndef CFS_RANK_SERVER_BED_H
#define CFS_RANK_SERVER_BED_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/rank/server.h"
#include "store/util/wire.h"
#include "tests/unit/control_bed.h"

#define SLOT  65536u
#define SLOTS 4u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct bed {
	char path[PATH_MAX];
	struct cfs_opened opened;
	struct cfs_verb_context context;
	struct cfs_rank_server *server;
	struct cfs_control *control;
};

struct peer {
	int fd, ring_fd;
	uint8_t *ring;
	char job[64];
	unsigned n_freed, n_failed;
	double failed_save;
	uint64_t freed[64];
};

static inline void bed_start(struct bed *bed)
{
	struct cfs_error err = {""};

	snprintf(bed->path, sizeof(bed->path), "%s", new_store("s"));
	ck_assert_int_eq(chmod(bed->path, 0755), 0);
	open_store(bed->path, &bed->opened, &bed->context);
	bed->server = cfs_rank_server_new();
	ck_assert_ptr_nonnull(bed->server);
	bed->context.session = cfs_rank_server_session;
	bed->context.session_arg = bed->server;
	ck_assert_msg(cfs_control_start(bed->path, &bed->context, &bed->control,
					&err) == 0,
		      "%s", err.text);
}

static inline void bed_stop(struct bed *bed)
{
	cfs_rank_server_stop(bed->server);
	cfs_control_stop(bed->control);
	cfs_rank_server_free(bed->server);
	ck_assert_int_eq(cfs_opened_close(&bed->opened), 0);
}

static inline int ring_new(uint64_t bytes, int seals)
{
	int fd = memfd_create("ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)bytes), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static inline void peer_open(struct bed *bed, struct peer *p)
{
	*p = (struct peer){.fd = -1};
	ck_assert_int_eq(cfs_wire_connect(bed->path, &p->fd), 0);
	p->ring_fd = ring_new((uint64_t)SLOT * SLOTS, SEALS);
	p->ring = mmap(NULL, (size_t)SLOT * SLOTS, PROT_READ | PROT_WRITE,
		       MAP_SHARED, p->ring_fd, 0);
	ck_assert_ptr_ne(p->ring, MAP_FAILED);
}

static inline void peer_close(struct peer *p)
{
	close(p->fd);
	close(p->ring_fd);
	munmap(p->ring, (size_t)SLOT * SLOTS);
}

static inline void send_text(struct peer *p, const char *text, int fd)
{
	cJSON *json = cJSON_Parse(text);

	ck_assert_msg(json != NULL, "%s", text);
	ck_assert_int_eq(cfs_wire_send(p->fd, json, &fd, fd >= 0), 0);
	cJSON_Delete(json);
}

static inline void CFS_PRINTF(2, 3) ask(struct peer *p, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	send_text(p, text, -1);
}

static inline void hello_for(struct peer *p, uint32_t rank, uint32_t ranks,
			     const char *job, unsigned seconds)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"verb\":\"rank\",\"arguments\":{\"version\":1,\"run\":"
		 "\"run\",\"rank\":%u,\"ranks\":%u,\"job\":\"%s\",\"slots\":%u,"
		 "\"slot_bytes\":%u,\"timeout\":%u,\"umask\":18}}",
		 rank, ranks, job, SLOTS, SLOT, seconds);
	send_text(p, text, p->ring_fd);
}

static inline void hello(struct peer *p, uint32_t rank, uint32_t ranks,
			 const char *job)
{
	hello_for(p, rank, ranks, job, 30);
}

/* The next answer. */
static inline cJSON *next_frame(struct peer *p)
{
	for (;;) {
		cJSON *frame = NULL, *item;

		ck_assert_int_eq(cfs_wire_receive(p->fd, CFS_WIRE_REPLY_MAX,
						  &frame, NULL),
				 0);
		item = cJSON_GetObjectItemCaseSensitive(frame, "failed");
		if (item) {
			p->n_failed++;
			p->failed_save = cJSON_GetNumberValue(
				cJSON_GetObjectItem(item, "save"));
			cJSON_Delete(frame);
			continue;
		}
		item = cJSON_GetObjectItemCaseSensitive(frame, "free");
		if (!item)
			return frame;
		cJSON_ArrayForEach(
			item, cJSON_GetObjectItemCaseSensitive(frame, "free"))
			p->freed[p->n_freed++ % 64] =
			(uint64_t)item->valuedouble;
		cJSON_Delete(frame);
	}
}

static inline int result_of(cJSON *frame, char text[640])
{
	const cJSON *r = cJSON_GetObjectItemCaseSensitive(frame, "r");
	int v;

	ck_assert(cJSON_IsNumber(r));
	v = r->valueint;
	snprintf(text, 640, "%s",
		 cJSON_GetStringValue(
			 cJSON_GetObjectItemCaseSensitive(frame, "error")));
	cJSON_Delete(frame);
	return v;
}

static inline int answer_of(struct peer *p, char text[640])
{
	return result_of(next_frame(p), text);
}

#define ask_ok(p)                                                              \
	do {                                                                   \
		char ask_text[640];                                            \
		int ask_r = answer_of((p), ask_text);                          \
                                                                               \
		ck_assert_msg(ask_r == 0, "%d %s", ask_r, ask_text);           \
	} while (0)
/* Fails with @want, in words that hold @part. */
#define ask_fails(p, want, part)                                               \
	do {                                                                   \
		char ask_text[640];                                            \
		int ask_r = answer_of((p), ask_text);                          \
                                                                               \
		ck_assert_msg(ask_r == (want) && strstr(ask_text, (part)),     \
			      "%d %s", ask_r, ask_text);                       \
	} while (0)

/* Rank 0 is told the job. */
static inline void take_job(struct peer *p)
{
	cJSON *frame = next_frame(p);
	const char *job = cJSON_GetStringValue(
		cJSON_GetObjectItemCaseSensitive(frame, "job"));

	ck_assert_msg(job && !cJSON_GetObjectItemCaseSensitive(frame, "r"),
		      "%s", cJSON_Print(frame));
	snprintf(p->job, sizeof(p->job), "%s", job);
	cJSON_Delete(frame);
}

static inline void job_open(struct bed *bed, struct peer *peers, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		peer_open(bed, &peers[i]);
		hello(&peers[i], i, n, i ? peers[0].job : "");
		if (!i)
			take_job(&peers[0]);
	}
	for (uint32_t i = 0; i < n; i++)
		ask_ok(&peers[i]);
}

static inline void begin(struct peer *p, const char *step)
{
	ask(p, "{\"op\":\"begin\",\"step\":\"%s\",\"format\":\"files\"}", step);
}

static inline void begin_all(struct peer *peers, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		begin(&peers[i], "global_step1");
	for (uint32_t i = 0; i < n; i++)
		ask_ok(&peers[i]);
}

#endif
