#!/usr/bin/env bash
# The end-to-end tests over build/release: real mounts, real DeepSpeed.
#
#   tests/e2e/run.sh [--ci]   what every change must pass
#   tests/e2e/run.sh --all    every pair of topologies, by export and by mount
#                             (of what GPT-NeoX wrote by export: 15 minutes);
#                             100 kills and power cuts of a store, 100 rounds
#                             of failing calls, 10 minutes of churn; 100 ranks
#                             killed under mpirun, and 100 without it
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

all=()
case "${1---ci}" in
--ci) ;;
--all) all=(--all) ;;
*)
	sed -n '2,10s/^# \{0,1\}//p' "$0"
	exit 2
	;;
esac

venv=${CKPTFS_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/ckptfs/venv}
export CKPTFS=$PWD/build/release/bin/ckptfs
bad=0 skipped=()
run() { # 77: it cannot run here, and has said why
	local start=$SECONDS code=0
	echo "--- $*"
	"$@" || code=$?
	case $code in
	0) ;;
	77) skipped+=("$*") ;;
	*) bad=1 ;;
	esac
	echo "    exit $code after $((SECONDS - start)) s"
	((code == 0 || code == 77))
}
python() { run "$venv/bin/python" -W ignore "$@"; }

# All that the tests mount lies here, so that what they leave is told from what
# others on this machine have.
export TMPDIR
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/ckptfs-e2e.XXXXXX")
chmod 1777 "$TMPDIR"
mounts() { grep -F " $TMPDIR/" /proc/self/mountinfo; }
daemons() {
	local p exe
	for p in /proc/[0-9]*; do
		exe=$(readlink "$p/exe") || continue
		[[ $exe == "$PWD"/build/*/bin/ckptfs* ]] &&
			tr '\0' ' ' <"$p/cmdline" | grep -F "$TMPDIR/"
	done 2>/dev/null
}

((${#all[@]} == 0)) || export CFS_KILLS=100
run ctest --test-dir build/release -L e2e --output-on-failure
python tests/e2e/run_golden.py
python tests/e2e/run_mds.py
python tests/e2e/test_mds.py
python tests/e2e/test_pipeline.py
python tests/e2e/test_universal.py
python tests/e2e/test_universal_neox.py
python tests/e2e/test_puts.py
python tests/e2e/run_template.py "${all[@]}"
python tests/e2e/run_template.py --megatron
python tests/e2e/test_named_cases.py "${all[@]}"
python tests/e2e/test_slices.py
python tests/e2e/run_pairs.py "${all[@]}"
python tests/e2e/run_neox.py "${all[@]}"
((${#all[@]} == 0)) || python tests/e2e/run_pairs.py --all --mount
python tests/e2e/resume.py "${all[@]}"
python tests/e2e/resume_pipeline.py
python tests/e2e/run_tools.py
python tests/e2e/store_clients.py
python tests/e2e/store_deepspeed.py
if ((${#all[@]})); then
	python tests/e2e/store_crash.py --kills 100
	python tests/e2e/store_disk.py --cuts 100
	python tests/e2e/store_fault.py --rounds 100
	python tests/e2e/store_churn.py --seconds 600 --kills 40
else
	python tests/e2e/store_crash.py --kills 15
	python tests/e2e/store_disk.py --cuts 8
	python tests/e2e/store_fault.py --rounds 6
fi
((${#all[@]} == 0)) || (cd tests/e2e && python -m oracle.selfcheck) || bad=1
((${#all[@]} == 0)) || python tests/e2e/run_pairs.py --random 60

((${#skipped[@]} == 0)) || printf 'skipped: %s\n' "${skipped[@]}"
sleep 1
left=$(mounts; daemons)
if [[ -n $left ]]; then
	echo "left behind:" "$left"
	bad=1
else
	rm -rf "$TMPDIR"
fi
exit $bad
