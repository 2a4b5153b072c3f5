#!/usr/bin/env python3
"""SIGKILLs the daemon at random moments under a mixed load.

usage: store_crash.py [--kills N] [--mib M] [--work DIR]

Workers write, append, overwrite, rename, link, truncate, delete and copy in
directories of their own through the mount; whatever fsync(2) (of a file or of
a directory), or the closing of a completion marker, acknowledged is noted
outside of the mount. After each kill the store is mounted again, without any
repair command, and every acknowledged state must be there bit for bit, unless
the worker changed it after (then the old or the new one, whole).

A kill comes a moment after a random amount was acknowledged, so that a slow
machine does as much between two of them as a fast one. Reports kills,
acknowledged syncs and bytes on average, and the slowest mount; fewer than 20
syncs or 256 MiB on average are a failure.
"""
import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import store_place  # noqa: E402

MIB = 1 << 20
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 31))))


class Journal:
    """What one worker was told, in a file outside: one JSON line each,
    written with one write(2), so it survives the worker but not the machine."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, **what):
        os.write(self.fd, (json.dumps(what) + "\n").encode())


def noise(rng, size):
    """Compressible and not, repeated and not."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(size)
    if kind == 1:
        return bytes(size)
    block = rng.randbytes(4096 if kind == 2 else 65537)
    return (block * (size // len(block) + 1))[:size]


class Worker:
    """Files f0 … f9 in one directory; `sure` is what an fsync acknowledged,
    `maybe` what was begun after that and may or may not be there."""

    def __init__(self, top, journal, seed):
        self.top, self.j = top, journal
        self.rng = random.Random(seed)
        self.now = {}  # name -> bytes, as this process sees it
        os.makedirs(top, exist_ok=True)

    def path(self, name):
        return f"{self.top}/{name}"

    def begin(self, name):
        """Before the first change after an acknowledgement."""
        self.j.note(op="begin", name=name)

    def sure(self, name, data):
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        self.j.note(op="sure", name=name, digest=digest,
                    size=len(data) if data is not None else 0)

    def step(self):
        name = f"f{self.rng.randrange(10)}"
        self.begin(name)
        rng, path = self.rng, self.path(name)
        old = self.now.get(name)
        how = rng.choice(["new", "new", "append", "overwrite", "replace",
                          "truncate", "delete", "marker"])
        if how in ("append", "overwrite", "truncate") and not old:
            how = "new"
        if how == "new":
            data = noise(rng, rng.choice([10, 3000, 100_000, 5 * MIB,
                                          24 * MIB, 48 * MIB]))
            with open(path, "wb", buffering=0) as f:
                for at in range(0, len(data), MIB):
                    f.write(data[at:at + MIB])
                os.fsync(f.fileno())
        elif how == "append":
            more = noise(rng, rng.choice([1, 5000, 2 * MIB]))
            data = old + more
            with open(path, "ab", buffering=0) as f:
                f.write(more)
                os.fsync(f.fileno())
        elif how == "overwrite":
            part = noise(rng, min(len(old), rng.choice([1, 4096, 300_000])))
            at = rng.randrange(len(old) - len(part) + 1)
            data = old[:at] + part + old[at + len(part):]
            with open(path, "r+b", buffering=0) as f:
                f.seek(at)
                f.write(part)
                os.fsync(f.fileno())
        elif how == "replace":
            data = noise(rng, rng.choice([100, 200_000, 8 * MIB]))
            with open(path + ".tmp", "wb", buffering=0) as f:
                f.write(data)
            os.rename(path + ".tmp", path)
            self.sync_dir()
        elif how == "truncate":
            data = old[:rng.randrange(len(old) + 1)]
            os.truncate(path, len(data))
            self.sync_dir()
        elif how == "delete":
            data = None
            if old is not None:
                os.unlink(path)
            self.sync_dir()
        else:
            self.marker()
            data = old
            if data is None:
                return
        self.now[name] = data
        self.sure(name, data)

    def sync_dir(self):
        fd = os.open(self.top, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def marker(self):
        """A file written and not synced, then `latest` closed: both hold."""
        data = noise(self.rng, self.rng.choice([1000, 3 * MIB]))
        self.begin("payload")
        self.begin("latest")
        with open(self.path("payload"), "wb", buffering=0) as f:
            f.write(data)
        tag = f"step{self.rng.randrange(1000)}".encode()
        with open(self.path("latest"), "wb", buffering=0) as f:
            f.write(tag)
        self.now["payload"], self.now["latest"] = data, tag
        self.sure("payload", data)
        self.sure("latest", tag)


def work(top, journal_path, seed, known, killing):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(top, Journal(journal_path), seed)
    worker.now = known
    try:
        while True:
            worker.step()
    except OSError as e:
        if killing.is_set():
            os._exit(0)
        print(f"{top}: {e}", flush=True)
        raise


def replay(journal_path):
    """name -> (acknowledged digest or None, changed since?); syncs, bytes."""
    state, syncs, size = {}, 0, 0
    if not os.path.exists(journal_path):
        return state, 0, 0
    with open(journal_path) as f:
        for line in f:
            what = json.loads(line)
            name = what["name"]
            if what["op"] == "begin":
                state[name] = (state.get(name, (None, False))[0], True)
            else:
                state[name] = (what["digest"], False)
                syncs += 1
                size += what["size"]
    return state, syncs, size


def verify(top, state):
    """What is there; raises on a lost acknowledgement. Returns the bytes."""
    found = {}
    for name, (digest, changed) in state.items():
        try:
            with open(f"{top}/{name}", "rb") as f:
                data = f.read()
        except FileNotFoundError:
            data = None
        got = None if data is None else hashlib.sha256(data).hexdigest()
        if not changed:
            assert got == digest, \
                f"{top}/{name}: acknowledged {digest}, found {got}"
        if data is not None:
            found[name] = data
    return found


def wait_for(journals, target, procs):
    """Until @target bytes are acknowledged since the last kill."""
    deadline = time.monotonic() + 300
    while sum(replay(j)[2] for j in journals) < target:
        assert all(p.is_alive() for p in procs), "a worker failed"
        assert time.monotonic() < deadline, "the workers do not get on"
        time.sleep(0.02)


def one_round(s, n_workers, seed, mib, known, journals):
    rng = random.Random(seed)
    mnt = s.mnt
    killing = multiprocessing.Event()
    procs = [multiprocessing.Process(
        target=work, args=(f"{mnt}/w{i}", journals[i], seed + i, known[i],
                           killing))
        for i in range(n_workers)]
    for p in procs:
        p.start()
    wait_for(journals, rng.uniform(0.6, 2.2) * mib * MIB, procs)
    time.sleep(rng.uniform(0, 0.3))
    killing.set()
    s.kill()
    for p in procs:
        p.join(60)
        assert p.exitcode == 0, "a worker hangs or failed"
    began = time.monotonic()
    s.mount()
    took = time.monotonic() - began
    syncs = size = 0
    for i in range(n_workers):
        state, a, b = replay(journals[i])
        known[i] = verify(f"{mnt}/w{i}", state)
        syncs, size = syncs + a, size + b
        # From here on what is there now is what was acknowledged.
        os.unlink(journals[i])
        journal = Journal(journals[i])
        for name in state:
            data = known[i].get(name)
            journal.note(op="sure", name=name, size=0,
                         digest=None if data is None else
                         hashlib.sha256(data).hexdigest())
        os.close(journal.fd)
    return syncs - sum(map(len, known)), size, took


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kills", type=int, default=100)
    ap.add_argument("--mib", type=float, default=256,
                    help="between kills at least, on average (default 256)")
    ap.add_argument("--workers", type=int, default=3)
    ap.add_argument("--work", help="directory for the store")
    args = ap.parse_args()
    why = store_place.why_not()
    if why:
        print(f"skipped: {why}")
        return 77
    print(f"SEED={SEED}", flush=True)
    out = tempfile.mkdtemp(prefix="ckptfs-crash-")
    journals = [f"{out}/j{i}" for i in range(args.workers)]
    known = [{} for _ in range(args.workers)]
    syncs, sizes, slowest = 0, 0, 0
    try:
        with store_place.store(top=args.work) as s:
            s.mount()
            for k in range(args.kills):
                a, b, t = one_round(s, args.workers, SEED + 1000 * k,
                                    args.mib, known, journals)
                syncs, sizes, slowest = syncs + a, sizes + b, max(slowest, t)
                if k % 10 == 9:
                    store_place.check(store_place.CKPTFS, "gc", s.store)
                    print(f"{k + 1} kills, {syncs} syncs, "
                          f"{sizes / MIB:.0f} MiB acknowledged", flush=True)
            s.umount()
            s.fsck()
            store_place.check(store_place.CKPTFS, "scrub", s.store)
    finally:
        shutil.rmtree(out)
    print(f"{args.kills} kills: 0 acknowledged bytes lost, 0 repairs; on "
          f"average {syncs / args.kills:.1f} acknowledged syncs and "
          f"{sizes / args.kills / MIB:.0f} MiB before each; slowest mount "
          f"{slowest:.2f} s")
    enough = syncs >= 20 * args.kills and sizes >= args.mib * args.kills * MIB
    if not enough:
        print("too little was acknowledged between kills: no proof")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
