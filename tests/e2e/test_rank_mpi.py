#!/usr/bin/env python3
"""Ranks under mpirun: a save is all there or not at all, whoever is killed.

    test_rank_mpi.py RANK_MPI CKPTFS [KILLS]
"""
import os
import random
import shutil
import subprocess
import sys

os.environ["CKPTFS"] = sys.argv[2]
import store_place  # noqa: E402

KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else int(
    os.environ.get("CFS_KILLS", "10"))
BYTES = 12_000_000


def mpirun(n, *args, recover=False):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-q"]
    if recover:  # else mpirun kills the others, too
        command += ["--enable-recovery"]
    env = {k: v for k, v in os.environ.items() if k != "ASAN_OPTIONS"}
    return subprocess.run(command + ["-n", str(n), sys.argv[1], *map(str, args)],
                          text=True, capture_output=True, timeout=120,
                          env=env)


def content(rank):
    one = bytes((i * 7 + (i >> 8) + rank) & 255 for i in range(65536))
    return (one * (BYTES // 65536 + 1))[:BYTES]


def is_whole(step, n):
    return all(open(f"{step}/part-{i}", "rb").read() == content(i)
               for i in range(n))


def main():
    why = store_place.why_not()
    if not why and not shutil.which("mpirun"):
        why = "needs mpirun"
    if why:
        print("skipped:", why)
        return 77
    seed = int(os.environ.get("CFS_SEED", random.randrange(1 << 30)))
    print("seed", seed, flush=True)
    rng = random.Random(seed)
    with store_place.store() as store:
        run = store.mount() + "/run"
        for n in (1, 2, 4, 8):
            done = mpirun(n, run, f"global_step{n}", BYTES)
            assert done.returncode == 0, (n, done.stdout, done.stderr)
            assert is_whole(f"{run}/global_step{n}", n), n
        kept = 0
        for k in range(KILLS):
            n = rng.choice((2, 4, 8))
            step = f"global_step{100 + k}"
            done = mpirun(n, run, step, BYTES, rng.randrange(n),
                          rng.randrange(300_000), recover=True)
            lines = [x for x in done.stdout.splitlines() if x.strip()]
            saved = [x for x in lines if x == "saved"]
            refused = set(x for x in lines if x != "saved")
            assert not (saved and refused), (k, lines, done.stderr)
            assert len(refused) <= 1, (k, lines)
            there = os.path.isdir(f"{run}/{step}")
            assert there or not saved, (k, lines)
            assert not there or not refused, (k, lines)
            assert not there or is_whole(f"{run}/{step}", n), k
            kept += there
        print(f"{KILLS} kills: {kept} steps were saved before, "
              f"{KILLS - kept} left nothing", flush=True)
        store.umount()
        store.fsck()
        store_place.check(store_place.CKPTFS, "scrub", store.store)
    return 0


sys.exit(main())
