#!/usr/bin/env bash
# The public POSIX suites over a writable mount: pjdfstest, fsx, fsstress.
#
#   tests/posix/run.sh [pjdfstest] [fsx] [fsstress]    default: all three
#
# Fetches and builds them in a temporary directory (needs git, a network, root
# and /dev/fuse; installs autoconf, automake, perl, libaio-dev, libattr1-dev,
# xfslibs-dev with apt). Other places for the sources, directories included:
#   PJDFSTEST=URL|DIR  XFSTESTS=URL|DIR
# FSX_OPS=20000 and FSX_SEEDS="1 2 3" say how long fsx runs: each seed with maps,
# without, and past the page cache. TOP=DIR: where the store lies (default: the
# temporary directory). CKPTFS=FILE: the program, else that of build/release.
# Ends with 0 if nothing failed; takes 5 to 15 minutes.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
ckptfs=${CKPTFS:-$PWD/build/release/bin/ckptfs}
pjdfstest=${PJDFSTEST:-https://github.com/pjd/pjdfstest}
xfstests=${XFSTESTS:-https://github.com/kdave/xfstests}

case "${1-}" in -h | --help)
	sed -n '2,14s/^# \{0,1\}//p' "$0"
	exit 0
	;;
esac
(($#)) || set -- pjdfstest fsx fsstress
((EUID == 0)) || { echo "needs root"; exit 77; }
[[ -e /dev/fuse ]] || { echo "needs /dev/fuse"; exit 77; }

packages=(autoconf automake make gcc perl libaio-dev libattr1-dev xfslibs-dev)
dpkg-query -W "${packages[@]}" >/dev/null 2>&1 ||
	apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null ||
	exit 1

tmp=$(mktemp -d "${TOP:-${TMPDIR:-/tmp}}/ckptfs-posix.XXXXXX")
mnt=$tmp/mnt
clean() {
	mountpoint -q "$mnt" && { "$ckptfs" umount "$mnt" || umount -l "$mnt"; }
	rm -rf "$tmp"
}
trap clean EXIT

fetch() { # fetch URL|DIR NAME
	if [[ -d $1 ]]; then
		cp -r "$1" "$tmp/$2"
	else
		git clone -q --depth 1 "$1" "$tmp/$2"
	fi
}

build_pjdfstest() {
	fetch "$pjdfstest" pjdfstest || return 1
	(cd "$tmp/pjdfstest" && autoreconf -i && ./configure && make pjdfstest) \
		>"$tmp/pjdfstest.log" 2>&1 || { tail "$tmp/pjdfstest.log"; return 1; }
}

# fsx and fsstress alone: the rest of xfstests wants a block device.
build_xfstests() {
	local tool h
	[[ -d $tmp/xfstests ]] && return 0
	fetch "$xfstests" xfstests || return 1
	{
		for h in XFS_XFS ATTR_ATTRIBUTES SYS_TYPES SYS_STAT SYS_STATVFS \
			SYS_TIME SYS_IOCTL SYS_WAIT STRING STRINGS STDLIB UNISTD \
			ERRNO LINUX_FALLOC SYS_SYSCALL SYS_UIO SYS_PRCTL SYS_FILE \
			SYS_PARAM SYS_MMAN DIRENT; do
			echo "#define HAVE_${h}_H 1"
		done
		echo "#define HAVE_FALLOCATE 1"
		echo "#define HAVE_RENAMEAT2 1"
	} >"$tmp/config.h"
	for tool in fsx fsstress; do
		gcc -O2 -w -D_GNU_SOURCE -DFALLOCATE -DHAVE_COPY_FILE_RANGE \
			-I"$tmp" -I"$tmp/xfstests/src" -o "$tmp/$tool" \
			"$tmp/xfstests/ltp/$tool.c" -lattr || return 1
	done
}

run_pjdfstest() {
	build_pjdfstest || return 1
	mkdir "$mnt/pjdfstest" && (cd "$mnt/pjdfstest" &&
		prove -rQ -j2 "$tmp/pjdfstest/tests")
}

run_fsx() {
	local seed
	build_xfstests || return 1
	for seed in ${FSX_SEEDS:-1 2 3}; do
		"$tmp/fsx" -q -N "${FSX_OPS:-20000}" -S "$seed" "$mnt/fsx.$seed" ||
			return 1
		"$tmp/fsx" -q -N "${FSX_OPS:-20000}" -S "$seed" -W -R \
			"$mnt/fsx.$seed.nomap" || return 1
		"$tmp/fsx" -q -N "${FSX_OPS:-20000}" -S "$seed" -Z -W -R \
			-r 4096 -w 4096 "$mnt/fsx.$seed.direct" || return 1
	done
	echo "fsx: seeds ${FSX_SEEDS:-1 2 3}, ${FSX_OPS:-20000} operations" \
		"with maps, without and direct each: clean"
}

run_fsstress() {
	build_xfstests || return 1
	mkdir "$mnt/fsstress" &&
		"$tmp/fsstress" -d "$mnt/fsstress" -n 2000 -p 4 >/dev/null ||
		return 1
	find "$mnt/fsstress" -type f -exec cat {} + >/dev/null || return 1
	echo "fsstress: 4 x 2000 operations: clean"
}

mkdir "$mnt" && "$ckptfs" init "$tmp/store" &&
	"$ckptfs" mount -o "allow_other,log=$tmp/log" "$tmp/store" "$mnt" || exit 1
bad=0
for suite; do
	case $suite in
	pjdfstest | fsx | fsstress) ;;
	*) echo "no suite $suite"; exit 2 ;;
	esac
	"run_$suite" || { echo "$suite: FAILED"; tail -20 "$tmp/log"; bad=1; }
done
# What they left must survive, too.
"$ckptfs" umount "$mnt" && "$ckptfs" fsck "$tmp/store" >/dev/null || bad=1
exit $bad
