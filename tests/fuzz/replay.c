/* Runs a fuzz target over every file of the given directories. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;
	size_t n;

	if (!f || fstat(fileno(f), &st) < 0) {
		perror(path);
		return -1;
	}
	/* an exact allocation, so that a sanitizer sees one byte too many */
	data = malloc((size_t)st.st_size ? (size_t)st.st_size : 1);
	n = data ? fread(data, 1, (size_t)st.st_size, f) : 0;
	(void)fclose(f);
	if (!data || n != (size_t)st.st_size) {
		(void)fprintf(stderr, "%s: cannot be read\n", path);
		free(data);
		return -1;
	}
	(void)LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	for (int i = 1; i < argc; i++) {
		DIR *d = opendir(argv[i]);
		struct dirent *e;
		char path[4096];

		if (!d) {
			perror(argv[i]);
			return 1;
		}
		while ((e = readdir(d))) {
			if (e->d_name[0] == '.')
				continue;
			(void)snprintf(path, sizeof(path), "%s/%s", argv[i],
				       e->d_name);
			if (replay_file(path) < 0) {
				(void)closedir(d);
				return 1;
			}
			count++;
		}
		(void)closedir(d);
	}
	(void)printf("%u inputs replayed\n", count);
	return count ? 0 : 1;
}
