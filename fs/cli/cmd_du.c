/* ckptfs du: what each entry of a directory in a store takes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/store_command.h"
#include "fs/cli/table.h"
#include "fs/cli/text.h"
#include "store/util/buf.h"

static void put_row(struct cfs_table *table, const cJSON *row, const char *name)
{
	_cleanup_(cfs_buf_free) struct cfs_buf safe = CFS_BUF_INIT;

	cfs_text_safe(&safe, name, strlen(name));
	cfs_table_cell(
		table, "%s",
		cfs_text_bytes(cfs_store_verb_u64(row, "apparent_bytes")).s);
	cfs_table_cell(
		table, "%s",
		cfs_text_bytes(cfs_store_verb_u64(row, "stored_bytes")).s);
	cfs_table_cell(
		table, "%s",
		cfs_text_bytes(cfs_store_verb_u64(row, "unique_bytes")).s);
	cfs_table_cell(table, "%" PRIu64, cfs_store_verb_u64(row, "files"));
	cfs_table_cell(table, "%s%s", cfs_buf_str(&safe),
		       cfs_store_verb_flag(row, "directory") ? "/" : "");
}

static int print_table(const struct cfs_store_verb *call, const cJSON *result)
{
	static const char *const headers[] = {">SIZE",	">STORED", ">ONLY HERE",
					      ">FILES", "NAME",	   NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table =
		cfs_table_new(headers);
	const cJSON *row;

	(void)call;
	cJSON_ArrayForEach(row,
			   cJSON_GetObjectItemCaseSensitive(result, "entries"))
	{
		put_row(table, row, cfs_store_verb_str(row, "name"));
	}
	put_row(table, cJSON_GetObjectItemCaseSensitive(result, "total"),
		"total");
	return cfs_table_print(table, 0, stdout);
}

static int run(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_du, .name = "du", .units = true},
		.takes = "name a store, or a path in one",
		.print = print_table,
	};

	return cfs_store_command_run(&command, argc, argv);
}

const struct cfs_verb cfs_verb_du = {
	.name = "du",
	.summary = "what the entries of a directory in a store take",
	.help = "usage: ckptfs du [--json] STORE[/PATH]\n"
		"\n"
		"For each entry of a directory in a store:\n"
		"\n"
		"  SIZE       of its files\n"
		"  STORED     what their chunks take in the store, shared "
		"ones included\n"
		"  ONLY HERE  of that, what nothing else in the store uses: "
		"removing this entry\n"
		"             alone, then ckptfs gc, frees so much\n"
		"\n"
		"In the last line every chunk counts once: what all entries "
		"take together, and\n"
		"what removing all of them would free. Works while the store "
		"is mounted, and on a\n"
		"path in the mount.\n"
		"\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be told, 2 for bad usage.\n",
	.run = run,
};
