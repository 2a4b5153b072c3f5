#!/usr/bin/env python3
"""SIGKILLs the daemon at random moments under a mixed load.

usage: store_crash.py [--kills N] [--mib M] [--work DIR]

Workers write, append, overwrite, replace by rename, link and unlink, truncate,
delete and copy by reference in directories of their own through the mount.
What they are about to do, and that fsync(2) (of a file or of a directory) or
the closing of a completion marker acknowledged it, is noted outside of the
mount. After each kill the store is mounted again, without any repair command.
Then each file must be, bit for bit, what was acknowledged last. Of the one
change that a worker had under way, only as much may be there as it had made:
the old file or a beginning of the new one; all old bytes before appended ones;
outside of an overwritten range the old bytes, within it old or new ones;
renamed, linked, truncated and deleted files as before or as after, and a
closed marker never without what was written before it.

A kill comes a moment after a random amount was acknowledged, so that a slow
machine does as much between two of them as a fast one. Reports kills,
acknowledged syncs and the bytes newly written that these acknowledged (copies
by reference count for none), and the slowest mount; fewer than 20 syncs or M
(256) MiB on average are a failure, however many kills.
"""
import argparse
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


def sync(top):
    fd = os.open(top, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def content(note):
    """The bytes that a noted change writes."""
    return noise(random.Random(note["seed"]), note["size"])


def after(note, files):
    """What the change makes of the files: name -> bytes, None for none."""
    how, name = note["how"], note["name"]
    old = files.get(name)
    if how in ("new", "replace"):
        return {name: content(note)}
    if how == "append":
        return {name: old + content(note)}
    if how == "overwrite":
        end = note["at"] + note["size"]
        return {name: old[:note["at"]] + content(note) + old[end:]}
    if how == "truncate":
        return {name: old[:note["at"]]}
    if how == "link":
        return {name: None, note["to"]: old}
    if how == "copy":
        return {note["to"]: old}
    if how == "marker":
        return {"payload": content(note), "latest": note["tag"].encode()}
    assert how == "delete", how
    return {name: None}


class Worker:
    """Files f0 … f9 in one directory, changed one at a time."""

    def __init__(self, top, journal, seed, known):
        self.top, self.j = top, journal
        self.rng = random.Random(seed)
        self.now = known  # name -> bytes, as this process sees it
        os.makedirs(top, exist_ok=True)

    def path(self, name):
        return f"{self.top}/{name}"

    def note(self):
        """One change, drawn."""
        rng = self.rng
        name, to = (f"f{i}" for i in rng.sample(range(10), 2))
        old = self.now.get(name)
        how = rng.choice(["new", "new", "append", "overwrite", "replace",
                          "truncate", "delete", "marker", "link", "copy"])
        if not old and how not in ("replace", "marker"):
            how = "new"
        note = {"how": how, "name": name, "seed": rng.randrange(1 << 31)}
        sizes = {"new": [10, 3000, 100_000, 5 * MIB, 24 * MIB, 48 * MIB],
                 "append": [1, 5000, 2 * MIB],
                 "overwrite": [1, 4096, 300_000],
                 "replace": [100, 200_000, 8 * MIB],
                 "marker": [1000, 3 * MIB]}
        note["size"] = rng.choice(sizes.get(how, [0]))
        if how == "overwrite":
            note["size"] = min(note["size"], len(old))
            note["at"] = rng.randrange(len(old) - note["size"] + 1)
        elif how == "truncate":
            note["at"] = rng.randrange(len(old) + 1)
        elif how == "marker":
            note["tag"] = f"step{rng.randrange(1000)}"
        elif how in ("link", "copy"):
            note["to"] = to
        return note

    def step(self):
        note = self.note()
        new = after(note, self.now)
        self.j.note(op="begin", **note)
        getattr(self, note["how"])(note, new)
        self.j.note(op="sure", bytes=note["size"])
        self.now.update(new)

    def write(self, name, mode, data, at=0, sync=True):
        with open(self.path(name), mode, buffering=0) as f:
            if at:
                f.seek(at)
            for i in range(0, len(data), MIB):
                f.write(data[i:i + MIB])
            if sync:
                os.fsync(f.fileno())

    def new(self, note, new):
        self.write(note["name"], "wb", new[note["name"]])

    def append(self, note, _):
        self.write(note["name"], "ab", content(note))

    def overwrite(self, note, _):
        self.write(note["name"], "r+b", content(note), note["at"])

    def replace(self, note, new):
        name = note["name"]
        self.write("new.tmp", "wb", new[name], sync=False)
        os.rename(self.path("new.tmp"), self.path(name))
        sync(self.top)

    def truncate(self, note, _):
        os.truncate(self.path(note["name"]), note["at"])
        sync(self.top)

    def delete(self, note, _):
        os.unlink(self.path(note["name"]))
        sync(self.top)

    def link(self, note, _):
        """Two names for a moment, the second one over an older file."""
        os.link(self.path(note["name"]), self.path("link.tmp"))
        os.rename(self.path("link.tmp"), self.path(note["to"]))
        os.unlink(self.path(note["name"]))
        sync(self.top)

    def copy(self, note, new):
        left = len(new[note["to"]])
        with open(self.path(note["name"]), "rb", buffering=0) as a, \
                open(self.path(note["to"]), "wb", buffering=0) as b:
            while left:
                n = os.copy_file_range(a.fileno(), b.fileno(), left)
                assert n, "a copy ended early"
                left -= n
            os.fsync(b.fileno())

    def marker(self, _, new):
        """A file written and not synced, then `latest` closed: both hold."""
        self.write("payload", "wb", new["payload"], sync=False)
        self.write("latest", "wb", new["latest"], sync=False)


def work(top, journal_path, seed, known, killing):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(top, Journal(journal_path), seed, known)
    try:
        while True:
            worker.step()
    except OSError as e:
        if killing.is_set():
            os._exit(0)
        print(f"{top}: {e}", flush=True)
        raise


def notes(journal_path):
    if not os.path.exists(journal_path):
        return []
    with open(journal_path) as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def acknowledged(journal_path):
    """Syncs and bytes newly written."""
    sizes = [n["bytes"] for n in notes(journal_path) if n["op"] == "sure"]
    return len(sizes), sum(sizes)


def replay(journal_path, files):
    """Brings `files` to what was acknowledged; the change under way or
    None."""
    under_way = None
    for note in notes(journal_path):
        if note["op"] == "begin":
            under_way = note
        else:
            files.update(after(under_way, files))
            under_way = None
    return under_way


def possible(note, name, old, new, got):
    """Whether the change, cut off somewhere, can have left `got`."""
    if got == old:
        return True
    if got is None:
        return new is None
    if note["how"] in ("new", "copy", "marker"):
        return new.startswith(got)
    if note["how"] == "append":
        return got.startswith(old) and new.startswith(got)
    if note["how"] == "overwrite":
        at, end = note["at"], note["at"] + note["size"]
        return (len(got) == len(old) and got[:at] == old[:at] and
                got[end:] == old[end:] and
                all(g in (o, n) for g, o, n in
                    zip(got[at:end], old[at:end], new[at:end])))
    return got == new


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def brief(data):
    return data if data is None else (len(data), data[:20])


def verify(top, files, under_way):
    """Raises on a lost acknowledgement; `files` becomes what is there."""
    new = after(under_way, files) if under_way else {}
    there = set(os.listdir(top)) if os.path.isdir(top) else set()
    odd = {n for n in there - files.keys() - new.keys()
           if not n.endswith(".tmp")}
    assert not odd, f"{top}: never acknowledged, not under way: {odd}"
    got = {}
    for name in files.keys() | new.keys():
        old, got[name] = files.get(name), read(f"{top}/{name}")
        if name not in new:
            assert got[name] == old, \
                f"{top}/{name}: not what was acknowledged, " \
                f"{brief(got[name])} for {brief(old)}; {under_way}"
        else:
            assert possible(under_way, name, old, new[name], got[name]), \
                f"{top}/{name}: {under_way} cannot have left " \
                f"{brief(got[name])} of {brief(old)}"
    how = under_way["how"] if under_way else None
    if how == "marker" and got["latest"] not in (files.get("latest"), b""):
        assert got["payload"] == new["payload"], \
            f"{top}: a marker without what was written before it"
    if how == "link":
        name, to = under_way["name"], under_way["to"]
        assert files[name] in (got[name], got[to]), f"{top}: a link lost {name}"
        if got[name] is not None and got[to] == got[name] and \
                os.path.samefile(f"{top}/{name}", f"{top}/{to}"):
            os.unlink(f"{top}/{to}")
            got[to] = None
    for name in there:
        if name.endswith(".tmp"):
            os.unlink(f"{top}/{name}")
    if there:
        sync(top)
    files.clear()
    files.update({n: data for n, data in got.items() if data is not None})
    return bool(under_way)


def wait_for(journals, target, procs):
    """Until @target bytes are acknowledged since the last kill."""
    deadline = time.monotonic() + 600
    while sum(acknowledged(j)[1] for j in journals) < target:
        assert all(p.is_alive() for p in procs), "a worker failed"
        assert time.monotonic() < deadline, "the workers do not get on"
        time.sleep(0.05)


def one_round(s, seed, mib, known, journals):
    """Acknowledged syncs and bytes, changes cut off, seconds of the mount."""
    rng = random.Random(seed)
    killing = multiprocessing.Event()
    tops = [f"{s.mnt}/w{i}" for i in range(len(known))]
    procs = [multiprocessing.Process(
        target=work, args=(tops[i], journals[i], seed + i, known[i], killing))
        for i in range(len(known))]
    for p in procs:
        p.start()
    wait_for(journals, mib * MIB, procs)
    time.sleep(rng.uniform(0, 0.3))
    killing.set()
    s.kill()
    for p in procs:
        p.join(60)
        assert p.exitcode == 0, "a worker hangs or failed"
    began = time.monotonic()
    s.mount()
    took = time.monotonic() - began
    syncs = size = cut = 0
    for i, journal in enumerate(journals):
        a, b = acknowledged(journal)
        syncs, size = syncs + a, size + b
        cut += verify(tops[i], known[i], replay(journal, known[i]))
        # From here on what is there now is what was acknowledged.
        os.unlink(journal)
    return syncs, size, cut, took


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
    syncs = sizes = cuts = slowest = 0
    try:
        # the clock's syncs fall between those that are asked for
        with store_place.store("--sync", "1", top=args.work) as s:
            s.mount()
            for k in range(args.kills):
                mib = random.Random(SEED + k).uniform(0.6, 1.8) * args.mib
                if k == args.kills - 1:  # what is left to the average
                    mib = max(mib, args.mib * args.kills - sizes / MIB)
                a, b, c, t = one_round(s, SEED + 1000 * k, mib, known,
                                       journals)
                syncs, sizes, cuts = syncs + a, sizes + b, cuts + c
                slowest = max(slowest, t)
                if k % 10 == 9:
                    store_place.check(store_place.CKPTFS, "gc", s.store)
                    print(f"{k + 1} kills, {syncs} syncs, "
                          f"{sizes / MIB:.0f} MiB acknowledged", flush=True)
            s.umount()
            s.fsck()
            store_place.check(store_place.CKPTFS, "scrub", s.store)
    finally:
        shutil.rmtree(out)
    print(f"{args.kills} kills: 0 acknowledged bytes lost, 0 repairs, "
          f"{cuts} changes cut off as they may be; on average "
          f"{syncs / args.kills:.1f} acknowledged syncs and "
          f"{sizes / args.kills / MIB:.0f} MiB before each; slowest mount "
          f"{slowest:.2f} s")
    enough = syncs >= 20 * args.kills and sizes >= args.mib * args.kills * MIB
    if not enough:
        print("too little was acknowledged between kills: no proof")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
