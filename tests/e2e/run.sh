#!/usr/bin/env bash
# The end-to-end tests over build/release: real mounts, real DeepSpeed.
#
#   tests/e2e/run.sh [--ci]   what every change must pass
#   tests/e2e/run.sh --all    every pair of topologies, by export and by mount
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

all=()
case "${1---ci}" in
--ci) ;;
--all) all=(--all) ;;
*)
	sed -n '2,6s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac

venv=${CKPTFS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/ckptfs/venv}
export CKPTFS=$PWD/build/release/bin/ckptfs
bad=0
run() {
	echo "--- $*"
	"$@" || bad=1
}
python() { run "$venv/bin/python" -W ignore "$@"; }

mounts() { grep -c ' fuse.ckptfs' /proc/self/mountinfo; }
daemons() { pgrep -xc ckptfs; }
before="$(mounts) $(daemons)"

run ctest --test-dir build/release -L e2e --output-on-failure
python tests/e2e/run_golden.py
python tests/e2e/test_pipeline.py
python tests/e2e/run_pairs.py "${all[@]}"
((${#all[@]} == 0)) || python tests/e2e/run_pairs.py --all --mount
python tests/e2e/resume.py "${all[@]}"
python tests/e2e/run_tools.py
((${#all[@]} == 0)) || (cd tests/e2e && python -m oracle.selfcheck) || bad=1
((${#all[@]} == 0)) || python tests/e2e/run_pairs.py --random 60

sleep 1
if [[ "$(mounts) $(daemons)" != "$before" ]]; then
	echo "left behind: mounts and daemons were '$before', are '$(mounts) $(daemons)'"
	bad=1
fi
exit $bad
