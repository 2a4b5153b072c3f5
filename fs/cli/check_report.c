/* Sections are printed when they end; problems behind their section. */
#include "fs/cli/check_report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "fs/cli/json.h"
#include "fs/cli/text.h"
#include "store/util/buf.h"

/* Problems of one section that are printed; JSON has them all. */
#define SHOWN_MAX 20

int cfs_check_report_init(struct cfs_check_report *report, const char *path,
			  bool json, bool quiet)
{
	*report = (struct cfs_check_report){.print = !json && !quiet};
	report->json = cJSON_CreateObject();
	if (!report->json)
		return -ENOMEM;
	cfs_json_str(report->json, "step", path);
	cfs_json_array(report->json, "checks");
	return 0;
}

void cfs_check_report_free(struct cfs_check_report *report)
{
	cfs_json_freep(&report->json);
}

void cfs_check_report_begin(struct cfs_check_report *report, const char *name)
{
	report->section = cfs_json_object(
		cJSON_GetObjectItem(report->json, "checks"), NULL);
	cfs_json_str(report->section, "name", name);
	report->problems = cfs_json_array(report->section, "problems");
	report->n_problems = 0;
	snprintf(report->name, sizeof(report->name), "%s", name);
}

void cfs_check_report_problem(struct cfs_check_report *report,
			      const char *object, const char *fmt, ...)
{
	char text[700];
	va_list ap;
	cJSON *o;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report->n_problems++;
	report->n_wrong++;
	o = cfs_json_object(report->problems, NULL);
	cfs_json_str(o, "object", object);
	cfs_json_str(o, "problem", text);
}

void cfs_check_report_number(struct cfs_check_report *report, const char *key,
			     uint64_t value)
{
	cfs_json_u64(report->section, key, value);
}

static void print_safe(const char *text)
{
	struct cfs_buf buf = CFS_BUF_INIT;

	cfs_text_safe(&buf, text, strlen(text));
	fputs(cfs_buf_str(&buf), stdout);
	cfs_buf_free(&buf);
}

static void print_problems(const struct cfs_check_report *report)
{
	const cJSON *o;
	uint64_t n = 0;

	cJSON_ArrayForEach(o, report->problems)
	{
		if (n++ == SHOWN_MAX)
			break;
		fputs("    ", stdout);
		print_safe(
			cJSON_GetStringValue(cJSON_GetObjectItem(o, "object")));
		fputs(": ", stdout);
		print_safe(cJSON_GetStringValue(
			cJSON_GetObjectItem(o, "problem")));
		putchar('\n');
	}
	if (report->n_problems > SHOWN_MAX)
		printf("    … %" PRIu64 " more (--json)\n",
		       report->n_problems - SHOWN_MAX);
}

static void end(struct cfs_check_report *report, const char *status,
		const char *text)
{
	cfs_json_str(report->section, "status", status);
	cfs_json_str(report->section, "summary", text);
	if (!report->print)
		return;
	printf("  %-9s %-7s ", report->name, status);
	print_safe(text);
	putchar('\n');
	print_problems(report);
}

void cfs_check_report_end(struct cfs_check_report *report, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	end(report, report->n_problems ? "WRONG" : "ok", text);
}

void cfs_check_report_skip(struct cfs_check_report *report, const char *name,
			   const char *fmt, ...)
{
	char text[256];
	va_list ap;

	cfs_check_report_begin(report, name);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	end(report, "skipped", text);
}

int cfs_check_report_print(struct cfs_check_report *report)
{
	cfs_json_bool(report->json, "ok", report->n_wrong == 0);
	cfs_json_u64(report->json, "problems", report->n_wrong);
	return cfs_json_print(report->json);
}
