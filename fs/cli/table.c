/* Tables in plain text: cells are kept until printed, then padded. */
#include "fs/cli/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "fs/cli/text.h"
#include "store/util/buf.h"
#include "store/util/grow.h"

struct cfs_table {
	size_t n_cols, n_cells, cap;
	char **cells; /* the headers are the first row */
	bool *right;
	bool failed;
};

static void put_cell(struct cfs_table *t, char *text)
{
	if (!text) {
		t->failed = true;
		return;
	}
	if (!CFS_GROW(t->cells, t->n_cells, t->cap)) {
		free(text);
		t->failed = true;
		return;
	}
	t->cells[t->n_cells++] = text;
}

struct cfs_table *cfs_table_new(const char *const *headers)
{
	_cleanup_(cfs_table_freep) struct cfs_table *t = calloc(1, sizeof(*t));
	size_t i;

	if (!t)
		return NULL;
	while (headers[t->n_cols])
		t->n_cols++;
	t->right = calloc(t->n_cols + 1, sizeof(*t->right));
	if (!t->right)
		return NULL;
	for (i = 0; i < t->n_cols; i++) {
		t->right[i] = headers[i][0] == '>';
		put_cell(t, strdup(headers[i] + (t->right[i] ? 1 : 0)));
	}
	return cfs_steal(t);
}

void cfs_table_free(struct cfs_table *table)
{
	size_t i;

	if (!table)
		return;
	for (i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table->right);
	free(table);
}

void cfs_table_freep(struct cfs_table **table)
{
	cfs_table_free(*table);
}

/* A copy of @text as a terminal may get it, "-" for nothing. */
static char *clean(const char *text)
{
	struct cfs_buf buf = CFS_BUF_INIT;

	cfs_text_safe(&buf, text, strlen(text));
	if (!buf.len)
		cfs_buf_put_str(&buf, "-");
	cfs_buf_put_u8(&buf, 0);
	if (buf.failed)
		cfs_buf_free(&buf);
	return (char *)buf.data;
}

void cfs_table_cell(struct cfs_table *table, const char *fmt, ...)
{
	_cleanup_(cfs_freep) char *text = NULL;
	va_list ap;

	if (!table)
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	put_cell(table, text ? clean(text) : NULL);
}

/* Code points, which is columns for all that is printed here. */
static size_t columns(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void blanks(FILE *out, size_t n)
{
	while (n--)
		fputc(' ', out);
}

static void print_row(const struct cfs_table *t, size_t row,
		      const size_t *width, int indent, FILE *out)
{
	size_t i;

	blanks(out, (size_t)indent);
	for (i = 0; i < t->n_cols; i++) {
		const char *cell = t->cells[row * t->n_cols + i];
		size_t pad = width[i] - columns(cell);

		if (i)
			fputs("  ", out);
		if (t->right[i])
			blanks(out, pad);
		fputs(cell, out);
		if (!t->right[i] && i + 1 < t->n_cols)
			blanks(out, pad);
	}
	fputc('\n', out);
}

int cfs_table_print(const struct cfs_table *table, int indent, FILE *out)
{
	_cleanup_(cfs_freep) size_t *width = NULL;
	size_t i, n_rows;

	if (!table || table->failed)
		return -ENOMEM;
	width = calloc(table->n_cols, sizeof(*width));
	if (!width)
		return -ENOMEM;
	for (i = 0; i < table->n_cells; i++) {
		size_t w = columns(table->cells[i]);
		size_t col = i % table->n_cols;

		width[col] = CFS_MAX(width[col], w);
	}
	n_rows = table->n_cells / table->n_cols;
	for (i = 0; i < n_rows; i++)
		print_row(table, i, width, indent, out);
	return 0;
}
