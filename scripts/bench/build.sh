#!/bin/sh
# build.sh OUT: the benchmark helpers, which need libfuse3 and nothing of ours
set -eu
here=$(dirname "$0")
out=${1:?usage: build.sh OUT}
mkdir -p "$out"
for name in null_fuse null_meta readbench metabench missbench \
	coherence_fuse; do
	${CC:-cc} -std=c17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror \
		"$here/$name.c" -o "$out/$name" \
		$(pkg-config --cflags --libs fuse3) -lpthread
done
