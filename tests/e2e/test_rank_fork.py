#!/usr/bin/env python3
"""Ranks without MPI: who lives hears of a death at once and in one text, and
a store is unmounted while ranks are connected.

    test_rank_fork.py RANK_FORK CKPTFS [KILLS]
"""
import os
import random
import subprocess
import sys

os.environ["CKPTFS"] = sys.argv[2]
import store_place  # noqa: E402

KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else int(
    os.environ.get("CFS_KILLS", "10"))
BYTES = 12_000_000
# Nobody waits for the half hour that ranks may be late.
PATIENCE = 60


def content(rank):
    one = bytes((i * 7 + (i >> 8) + rank) & 255 for i in range(65536))
    return (one * (BYTES // 65536 + 1))[:BYTES]


def is_whole(step, n):
    return all(open(f"{step}/part-{i}", "rb").read() == content(i)
               for i in range(n))


def start(*args):
    return subprocess.Popen([sys.argv[1], *map(str, args)], text=True,
                            stdout=subprocess.PIPE)


def end(job):
    out, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, job.returncode
    return out.splitlines()


def kill_one(rng, run, k):
    n = rng.choice((2, 4, 8))
    victim = rng.randrange(n)
    step = f"global_step{100 + k}"
    lines = end(start(run, step, BYTES, n, victim, rng.randrange(300_000)))
    refused = set(x for x in lines if x != "saved")
    assert len(lines) >= n - 1, (k, lines)  # the victim may have been quick
    assert len(refused) <= 1 and not (refused and "saved" in lines), (k, lines)
    there = os.path.isdir(f"{run}/{step}")
    assert there == (not refused), (k, lines)
    assert not there or is_whole(f"{run}/{step}", n), k
    if refused:
        text = refused.pop()
        assert f"rank {victim} (pid" in text and "is gone" in text, (k, text)
    return there


def unmount(store, rng):
    """In the middle of a save; and then it is mounted and goes on."""
    for _ in range(3):
        n = rng.choice((1, 2, 4))
        job = start(f"{store.mnt}/run", "global_step1", BYTES, n, "wait")
        assert job.stdout.readline() == "ready\n"
        store.umount()
        lines = end(job)
        assert len(lines) == n, lines
        for line in lines:
            assert "being unmounted" in line and "mount it again" in line, line
        store.fsck()
        store.mount()
        assert not os.path.exists(f"{store.mnt}/run/global_step1")


def main():
    why = store_place.why_not()
    if why:
        print("skipped:", why)
        return 77
    seed = int(os.environ.get("CFS_SEED", random.randrange(1 << 30)))
    print("seed", seed, flush=True)
    rng = random.Random(seed)
    with store_place.store() as store:
        run = store.mount() + "/run"
        kept = sum(kill_one(rng, run, k) for k in range(KILLS))
        print(f"{KILLS} kills: {kept} steps were saved before, "
              f"{KILLS - kept} left nothing", flush=True)
        unmount(store, rng)
        store.umount()
        store.fsck()
        store_place.check(store_place.CKPTFS, "scrub", store.store)
    return 0


sys.exit(main())
