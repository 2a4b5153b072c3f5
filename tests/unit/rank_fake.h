/*
 * A stage that keeps what it is given in memory and fails where it is told to,
 * in the place of fs/rank/stage: for the server's own tests.
 */
#ifndef CFS_RANK_FAKE_H
#define CFS_RANK_FAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What fails, by the name it is begun with, "" nothing. */
extern char fake_fail_begin[64]; /* a step */
extern char fake_fail_write[64]; /* a tensor, file or object */
extern bool fake_fail_commit;
extern bool fake_no_write; /* nobody may write */

/* Counts since the last reset; stages and streams are those that live. */
struct fake_counts {
	unsigned stages, streams, commits, puts, files, objects;
};
struct fake_counts fake_counts(void);
void fake_reset(void);
/* What was written under @name by @rank, in all; -1 none.  Any thread. */
int64_t fake_bytes(const char *name, uint32_t rank, const uint8_t **data_out);

#endif
