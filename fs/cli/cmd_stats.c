/* ckptfs stats: what a store holds, what it takes, by role of the bytes. */
#include <inttypes.h>
#include <stdio.h>

#include "fs/cli/store_command.h"
#include "fs/cli/table.h"
#include "fs/cli/text.h"

static void put_ratio(struct cfs_table *table, const cJSON *row,
		      const char *name)
{
	double v = cfs_store_verb_real(row, name);

	if (v > 0)
		cfs_table_cell(table, "%.3f", v);
	else
		cfs_table_cell(table, "%s", "");
}

static void put_row(struct cfs_table *table, const cJSON *row, const char *name)
{
	static const char *const bytes[] = {"logical_bytes", "unique_bytes",
					    "stored_bytes"};
	size_t i;

	cfs_table_cell(table, "%s", name);
	for (i = 0; i < CFS_ARRAY_SIZE(bytes); i++)
		cfs_table_cell(
			table, "%s",
			cfs_text_bytes(cfs_store_verb_u64(row, bytes[i])).s);
	put_ratio(table, row, "dedup_ratio");
	put_ratio(table, row, "compression_ratio");
	put_ratio(table, row, "ratio");
}

static int print_table(const struct cfs_store_verb *call, const cJSON *result)
{
	static const char *const headers[] = {
		"ROLE",	  ">SIZE",	  ">ONCE",  ">STORED",
		">DEDUP", ">COMPRESSION", ">RATIO", NULL};
	_cleanup_(cfs_table_freep) struct cfs_table *table =
		cfs_table_new(headers);
	const cJSON *row, *store;
	uint64_t unreadable = cfs_store_verb_u64(result, "unreadable_steps");

	(void)call;
	cJSON_ArrayForEach(row,
			   cJSON_GetObjectItemCaseSensitive(result, "roles"))
	{
		put_row(table, row, cfs_store_verb_str(row, "role"));
	}
	put_row(table, result, "total");
	store = cJSON_GetObjectItemCaseSensitive(result, "store");
	printf("%" PRIu64 " files, %" PRIu64 " steps; %" PRIu64
	       " packs of %s, group %" PRIu64 "\n",
	       cfs_store_verb_u64(result, "files"),
	       cfs_store_verb_u64(result, "steps"),
	       cfs_store_verb_u64(store, "packs"),
	       cfs_text_bytes(cfs_store_verb_u64(store, "pack_bytes")).s,
	       cfs_store_verb_u64(store, "groups"));
	if (unreadable)
		printf("%" PRIu64 " of the steps could not be read: all of "
		       "them is \"other\"\n",
		       unreadable);
	return cfs_table_print(table, 0, stdout);
}

static int run(int argc, char **argv)
{
	static const struct cfs_store_command command = {
		.call = {.verb = &cfs_verb_stats,
			 .name = "stats",
			 .units = true,
			 .whole = true},
		.takes = "name a store",
		.print = print_table,
	};

	return cfs_store_command_run(&command, argc, argv);
}

const struct cfs_verb cfs_verb_stats = {
	.name = "stats",
	.summary = "what a store holds and takes, by role",
	.help = "usage: ckptfs stats [--json] STORE\n"
		"\n"
		"What a store holds, and what it takes: the size of all files, "
		"what is left when\n"
		"everything is kept once, and what that takes when it is "
		"compressed; overall and\n"
		"by role: weights, master copies, moments (and other states "
		"of the optimizer),\n"
		"and all other bytes. A chunk that several files share counts "
		"for the roles it\n"
		"has in the first of them.\n"
		"\n"
		"  --json      print JSON\n"
		"  -h, --help  print this help\n"
		"\n"
		"Exits 0, or 1 when it cannot be told, 2 for bad usage.\n",
	.run = run,
};
