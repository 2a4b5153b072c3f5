#!/usr/bin/env bash
# Installs what building and testing ckptfs needs on Debian 12 or Ubuntu 24.04.
#
#   scripts/install-deps.sh            build tools and libraries (root or sudo)
#   scripts/install-deps.sh --python   also the Python environment of the
#                                      end-to-end tests: torch and DeepSpeed, in
#                                      $CKPTFS_VENV (default ~/.cache/ckptfs/venv),
#                                      about 6 GB, reused when it is there
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
	build-essential cmake ninja-build pkg-config
	libfuse3-dev fuse3 libcjson-dev libyaml-dev zlib1g-dev libxxhash-dev
	libssl-dev libzstd-dev librocksdb-dev
	check libsubunit-dev
	clang clang-format clang-tidy
	python3 python3-venv python3-dev
	util-linux mount procps man-db unzip
	# the rank client's communicator, and its tests
	libopenmpi-dev openmpi-bin
	# clients of the mount in the tests, and disks for it
	git rsync tar e2fsprogs xfsprogs
)

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' ||
		missing+=("$p")
done
# The sanitizer and fuzzer runtime of whichever clang the release has.
if ! ls /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a >/dev/null 2>&1; then
	major=$(apt-cache depends clang 2>/dev/null |
		sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1)
	missing+=("libclang-rt-${major:-14}-dev")
fi

if ((${#missing[@]})); then
	root=()
	((EUID == 0)) || root=(sudo)
	"${root[@]}" apt-get update -q
	"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

[[ ${1-} == --python ]] || exit 0

venv=${CKPTFS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/ckptfs/venv}
stamp=$venv/ckptfs-requirements.txt
if ! cmp -s tests/e2e/requirements.txt "$stamp"; then
	[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
	# DeepSpeed's set-up imports torch: everything else first, then it.
	grep -v '^deepspeed' tests/e2e/requirements.txt |
		"$venv/bin/pip" install -q --disable-pip-version-check -r /dev/stdin
	grep '^deepspeed' tests/e2e/requirements.txt |
		"$venv/bin/pip" install -q --disable-pip-version-check \
			--no-build-isolation -r /dev/stdin
	cp tests/e2e/requirements.txt "$stamp"
fi
