#!/usr/bin/env python3
"""Steps saved, read, pruned, collected, scrubbed and derived at once.

usage: store_churn.py [--seconds S] [--kills N] [--savers N]

Savers write steps of which many hold the same bytes, each into a run of its
own, `latest` last; readers compare steps, also those that are pruned while
they have them open; one process prunes, collects garbage, scrubs and checks in
turn; weights are derived whenever the store is quiet. The daemon is killed N
times, in the middle of all that: the next mount's `latest` must name a whole
step, at least as new as the last one acknowledged, and every step that is
there must be right; fsck and scrub find nothing.
"""
import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import step_maker  # noqa: E402
import store_place  # noqa: E402

POOL = 4
MIB = 1 << 20


def read_all(path):
    with open(path, "rb") as f:
        return f.read()


def make_pool(top, rng):
    """Whole steps, and steps of one's weights with another's moments."""
    pool = []
    for i in range(POOL):
        step_maker.make(f"{top}/{i}", rng)
        pool.append({n: read_all(f"{top}/{i}/{n}")
                     for n in sorted(os.listdir(f"{top}/{i}"))})
    mixed = dict(pool[0])
    name = next(n for n in mixed if "rank_1" in n)
    mixed[name] = pool[1][name]
    return pool + [mixed]


class Ground:
    """What all processes know."""

    def __init__(self, mnt, pool, savers):
        self.mnt, self.pool = mnt, pool
        self.stop = multiprocessing.Event()
        self.killed = multiprocessing.Event()
        self.sure = multiprocessing.Array("q", [0] * savers)
        self.counts = multiprocessing.Array("q", [0] * 4)

    def count(self, what):
        with self.counts.get_lock():
            self.counts[what] += 1


SAVED, READ, PASSES, PRUNED_OPEN = range(4)


def save_step(g, run, number, which, rng):
    path = f"{run}/global_step{number}"
    os.makedirs(path)
    with open(f"{path}/which", "w", encoding="utf-8") as f:
        f.write(str(which))
    for name, data in g.pool[which].items():
        before = f"{run}/global_step{number - 1}/{name}"
        if rng.random() < 0.2 and os.path.exists(before) and \
                os.path.getsize(before) == len(data):
            shutil.copyfile(before, f"{path}/{name}")
            if read_all(f"{path}/{name}") == data:
                continue
        size = rng.choice([MIB, 100_000, 3 * MIB])
        with open(f"{path}/{name}", "wb", buffering=0) as f:
            for at in range(0, len(data), size):
                f.write(data[at:at + size])
            if rng.random() < 0.3:
                os.fsync(f.fileno())
    with open(f"{run}/latest", "w", encoding="utf-8") as f:
        f.write(f"global_step{number}")


def last_step(run):
    try:
        return int(read_all(f"{run}/latest")[11:] or 0)
    except FileNotFoundError:
        return 0


def saver(g, index, seed):
    rng = random.Random(seed)
    run = f"{g.mnt}/run{index}"
    os.makedirs(run, exist_ok=True)
    # what a kill left of a step that was being saved: later ones would make
    # it look like one that `latest` has named
    number = last_step(run)
    for name in os.listdir(run):
        if name.startswith("global_step") and int(name[11:]) > number:
            shutil.rmtree(f"{run}/{name}")
    while not g.stop.is_set():
        number += 1
        save_step(g, run, number, rng.randrange(len(g.pool)), rng)
        g.sure[index] = number
        g.count(SAVED)


def check_step(g, path):
    """Opens everything, then reads it: it may be pruned in between."""
    files = {}
    try:
        try:
            for name in ["which"] + list(g.pool[0]):
                files[name] = open(f"{path}/{name}", "rb")
        except (FileNotFoundError, NotADirectoryError):
            return False
        time.sleep(0.02)
        which = int(files.pop("which").read())
        for name, f in files.items():
            got, want = f.read(), g.pool[which][name]
            at = next((i for i, (a, b) in enumerate(zip(got, want))
                       if a != b), None) if got != want else None
            assert got == want, (f"{path}/{name} is wrong: {len(got)} bytes "
                                 f"of {len(want)}, first difference at {at}")
        return True
    finally:
        for f in files.values():
            f.close()


def reader(g, seed):
    rng = random.Random(seed)
    while not g.stop.is_set():
        steps = whole_steps(g.mnt)
        if not steps:
            time.sleep(0.05)
            continue
        path = rng.choice(steps)
        if check_step(g, path):
            g.count(READ)
            if not os.path.exists(path):
                g.count(PRUNED_OPEN)


def whole_steps(mnt):
    """All below what `latest` names, itself among them."""
    found = []
    for run in sorted(os.listdir(mnt)):
        try:
            last = int(read_all(f"{mnt}/{run}/latest")[11:] or 0)
            found += [f"{mnt}/{run}/{n}" for n in os.listdir(f"{mnt}/{run}")
                      if n.startswith("global_step") and int(n[11:]) <= last]
        except (FileNotFoundError, NotADirectoryError):
            pass
    return found


def verb(g, *args):
    done = store_place.run(store_place.CKPTFS, *args)
    assert done.returncode == 0 or g.killed.is_set(), \
        (args, done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    g.count(PASSES)


def keeper(g, seed):
    rng = random.Random(seed)
    while not g.stop.is_set():
        runs = sorted(os.listdir(g.mnt))
        for run in rng.sample(runs, len(runs)):
            if os.path.exists(f"{g.mnt}/{run}/latest"):
                verb(g, "prune", "--quiet", "--keep-last", "2",
                     *(["--gc"] if rng.random() < 0.3 else []),
                     f"{g.mnt}/{run}")
        verb(g, *rng.choice([["gc", "--quiet"], ["gc", "--quiet"],
                             ["scrub", "--quiet"], ["fsck", "--quiet"],
                             ["stats"]]), g.mnt)


def guarded(target, g, *args):
    try:
        target(g, *args)
    except OSError as e:
        if not g.killed.is_set():
            # the kill may be there before it is said
            time.sleep(1)
        if not g.killed.is_set():
            raise AssertionError(f"{target.__name__}: {e}") from e
    except AssertionError:
        if not g.killed.is_set():
            time.sleep(1)
        if not g.killed.is_set() or target is reader:
            raise


def start(g, savers, rng):
    jobs = [(saver, g, i, rng.random()) for i in range(savers)]
    jobs += [(reader, g, rng.random()), (reader, g, rng.random()),
             (keeper, g, rng.random())]
    procs = [multiprocessing.Process(target=guarded, args=job)
             for job in jobs]
    for p in procs:
        p.start()
    return procs


def finish(g, procs):
    g.stop.set()
    for p in procs:
        p.join(120)
        if p.is_alive():
            p.kill()
            raise AssertionError("a client hangs")
        assert p.exitcode == 0, "a client failed"
    g.stop.clear()
    g.killed.clear()


def check_all(g):
    for index, sure in enumerate(g.sure):
        run = f"{g.mnt}/run{index}"
        if not sure:
            continue
        latest = read_all(f"{run}/latest").decode()
        assert int(latest[11:]) >= sure, (run, latest, sure)
        assert check_step(g, f"{run}/{latest}"), f"{run}/{latest} is not whole"
        with_name = subprocess.run(
            [store_place.CKPTFS, "resolve", "--name", run],
            capture_output=True, text=True, check=True).stdout.strip()
        assert with_name == latest, (with_name, latest)
    for path in whole_steps(g.mnt):
        check_step(g, path)


def churn(seconds, kills, savers, rng):
    top = tempfile.mkdtemp(prefix="ckptfs-churn-")
    try:
        pool = make_pool(top, rng)
    finally:
        shutil.rmtree(top)
    with store_place.store() as s:
        mnt = s.mount("derive=1")
        g = Ground(mnt, pool, savers)
        for left in range(kills, -1, -1):
            procs = start(g, savers, rng)
            time.sleep(seconds / (kills + 1) * rng.uniform(0.6, 1.4))
            if left:
                g.killed.set()
                s.kill()
            finish(g, procs)
            if left:
                s.mount("derive=1")
            check_all(g)
            verb(g, "fsck", "--quiet", mnt)
            verb(g, "scrub", "--quiet", mnt)
        s.umount()
        s.fsck()
        store_place.check(store_place.CKPTFS, "scrub", s.store)
    return list(g.counts)


def main(argv=None):
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seconds", type=float, default=120)
    ap.add_argument("--kills", type=int, default=6)
    ap.add_argument("--savers", type=int, default=3)
    args = ap.parse_args(argv)
    why = store_place.why_not()
    if why:
        print(f"skipped: {why}")
        return 77
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print(f"    seed {seed}", flush=True)
    saved, read, passes, pruned = churn(args.seconds, args.kills, args.savers,
                                        random.Random(seed))
    print(f"    {saved} steps saved, {read} read, {pruned} of them pruned "
          f"meanwhile, {passes} verbs, {args.kills} kills")
    assert saved and read and passes
    return 0


if __name__ == "__main__":
    sys.exit(main())
