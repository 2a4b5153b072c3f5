#!/usr/bin/env python3
"""Calls of the daemon fail while files are written, and while it mounts.

usage: store_fault.py [--rounds N] [KIND ...]

  write sync rename create room remove read   calls on the store's files, the
           index's among them, with EIO, ENOSPC, and for write and room EDQUOT
           (tests/e2e/fault_calls.c)
  alloc    allocations of the program and of zstd, with ENOMEM

Every nth call of a kind fails, and the nth alone, for many n. The errno must
arrive, and no other: system calls end with it (for write, sync, room, read and
alloc at least one must have), gc's message has its text. What was acknowledged
stays; the very next call after the last failure works, without a restart. Then the daemon is killed, and what
was acknowledged is still there, while calls of the mount fail in turn: it
comes up or says why not, and comes up at the next try.
"""
import argparse
import collections
import contextlib
import errno
import mmap
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import store_place  # noqa: E402
from store_place import CKPTFS, run  # noqa: E402

LIB = os.path.join(os.path.dirname(CKPTFS), "libfault_calls.so")
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 31))))
rng = random.Random(SEED)
KINDS = {"write": 1, "sync": 2, "rename": 4, "create": 8, "room": 16,
         "remove": 32, "read": 64, "alloc": 128}
ERRORS = {"alloc": [errno.ENOMEM], "read": [errno.EIO],
          "write": [errno.ENOSPC, errno.EDQUOT, errno.EIO],
          "room": [errno.ENOSPC, errno.EDQUOT, errno.EIO]}
# An answer takes memory, too.
NO_ANSWER = "the daemon ended before it answered"
# Callers need not wait for the others, or for them to succeed.
ARRIVES = ("write", "sync", "room", "read", "alloc")
SIZES = (10, 3000, 70_000, 1_300_000)
EVERY = (1, 2, 3, 5, 8, 13, 40)


class Page:
    """What fault_calls.c shares: kinds, nth, once, error, count, hits."""

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as f:
            f.write(bytes(24))
            f.flush()
            self.map = mmap.mmap(f.fileno(), 24)

    def env(self, store):
        return {"LD_PRELOAD": LIB, "CFS_FAULT_PAGE": self.path,
                "CFS_FAULT_DIR": os.path.realpath(store)}

    def arm(self, kind, nth, once, error):
        self.map[4:24] = struct.pack("5I", nth, once, error, 0, 0)
        self.map[0:4] = struct.pack("I", KINDS[kind])

    def disarm(self):
        """How many calls there were, and how many of them failed."""
        self.map[0:4] = bytes(4)
        return struct.unpack("II", self.map[16:24])


def write_all(fd, data):
    for at in range(0, len(data), 1 << 18):
        os.write(fd, data[at:at + (1 << 18)])


class Files:
    """`sure` is what an fsync acknowledged and nothing touched since; of what
    a failed operation may have changed, `maybe` says what must be left."""

    def __init__(self, mnt):
        self.mnt = mnt
        self.sure = {}
        self.maybe = {}  # name -> is this content possible?
        self.codes = ()  # errors that may come
        self.more_gc = False
        self.n = 0

    def path(self, name):
        return f"{self.mnt}/{name}"

    def open(self, name, flags):
        return os.open(self.path(name), flags, 0o644)

    def sync_dir(self):
        fd = os.open(self.mnt, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def change(self, name, flags, at, data):
        fd = self.open(name, flags)
        try:
            os.lseek(fd, at, os.SEEK_SET)
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    def put(self, name, old):
        data = rng.randbytes(rng.choice(SIZES))
        self.change(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0, data)
        return data

    def append(self, name, old):
        more = rng.randbytes(rng.choice(SIZES))
        self.maybe[name] = lambda got: got[:len(old)] == old
        self.change(name, os.O_WRONLY, len(old), more)
        return old + more

    def overwrite(self, name, old):
        part = rng.randbytes(min(len(old), rng.choice(SIZES)))
        at = rng.randrange(len(old) - len(part) + 1)
        self.maybe[name] = lambda got: (
            len(got) == len(old) and got[:at] == old[:at] and
            got[at + len(part):] == old[at + len(part):])
        self.change(name, os.O_RDWR, at, part)
        return old[:at] + part + old[at + len(part):]

    def truncate(self, name, old):
        size = rng.randrange(len(old) + 1)
        self.maybe[name] = lambda got: got in (old, old[:size])
        os.truncate(self.path(name), size)
        self.sync_dir()
        return old[:size]

    def replace(self, name, old):
        data = rng.randbytes(rng.choice(SIZES))
        self.maybe[name] = lambda got: got in (old, data)
        with open(self.path("tmp"), "wb", buffering=0) as f:
            write_all(f.fileno(), data)
        os.rename(self.path("tmp"), self.path(name))
        self.sync_dir()
        return data

    def delete(self, name, old):
        self.maybe[name] = lambda got: got in (old, None)
        os.unlink(self.path(name))
        self.sync_dir()
        return None

    def names(self, name, old):
        """Calls that change no content; a directory left by an earlier
        failure is used again."""
        d = self.path("dir")
        if not os.path.isdir(d):
            os.mkdir(d)
        for left in os.listdir(d):
            os.unlink(f"{d}/{left}")
        os.symlink("somewhere", f"{d}/soft")
        os.link(self.path(name), f"{d}/hard")
        os.setxattr(f"{d}/hard", "user.note", b"x" * 100)
        os.chmod(f"{d}/hard", 0o600)
        os.unlink(f"{d}/hard")
        self.sync_dir()
        return old

    def gc(self, name, old):
        """Makes, empties and removes packs."""
        done = run(CKPTFS, "gc", self.mnt)
        if done.returncode:
            said = [c for c in self.codes if os.strerror(c) in done.stderr or
                    (c == errno.ENOMEM and NO_ANSWER in done.stderr)]
            assert said, f"gc failed, and said: {done.stderr}"
            raise OSError(said[0], done.stderr)
        return old

    def read(self, name, old):
        with open(self.path(name), "rb", buffering=0) as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert f.read() == old, name
        return old

    def step(self, *codes):
        """One operation; its name if it failed with one of `codes`."""
        self.codes = codes
        name = f"f{rng.randrange(8)}"
        old = self.sure.get(name)
        how = rng.choice(["put", "append", "overwrite", "truncate", "replace",
                          "delete", "names", "read", "read"] +
                         ["gc"] * (6 if self.more_gc else 1))
        if old is None:
            how = "put"
        keeps = how in ("names", "gc", "read")
        if not keeps:
            self.sure.pop(name, None)
            self.maybe.pop(name, None)
        try:
            new = getattr(self, how)(name, old)
        except OSError as e:
            assert e.errno in codes, (how, name, e)
            return how
        self.maybe.pop(name, None)
        if new is not None:
            self.sure[name] = new
        return None

    def works(self):
        self.n += 1
        name = f"new{self.n % 3}"
        self.sure[name] = self.put(name, None)

    def content(self, name):
        try:
            with open(self.path(name), "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None

    def verify(self):
        for name, data in self.sure.items():
            assert self.content(name) == data, \
                f"{name}: not what was acknowledged"
        for name, possible in self.maybe.items():
            assert possible(self.content(name)), \
                f"{name}: lost what was acknowledged before"


def until_seen(page, kind, code, files, seen):
    """Goes on while every call fails, until a system call (gc is none, its
    message was looked at) has ended with the errno."""
    page.arm(kind, 1, 0, code)
    for _ in range(300):
        if seen.total() > seen["gc"]:
            break
        seen.update(filter(None, [files.step(code)]))
    _, failed = page.disarm()
    assert seen.total() > seen["gc"], "no system call ended with the errno"
    files.works()
    files.verify()
    return failed


def while_running(s, page, kind, code, rounds):
    """(calls that failed, operations that saw it: name -> count, files)"""
    files = Files(s.mount(env=page.env(s.store)))
    files.more_gc = kind in ("create", "room", "remove")
    for _ in range(10):
        files.step()
    hits, seen = 0, collections.Counter()
    most = 2  # calls while the six operations below ran
    tries = [(n, 0) for n in EVERY] + [(n + 1, 1) for n in range(rounds)]
    for nth, once in tries:
        if kind == "alloc" and once:
            nth = rng.randrange(1, most)
        page.arm(kind, nth, once, code)
        try:
            for _ in range(6):
                seen.update(filter(None, [files.step(code)]))
            count, failed = page.disarm()
            hits, most = hits + failed, max(most, count)
            files.works()
            files.verify()
        except BaseException:
            print(f"{kind} {errno.errorcode[code]}: "
                  f"{'the' if once else 'every'} {nth}th")
            raise
    if kind in ARRIVES:
        hits += until_seen(page, kind, code, files, seen)
    for _ in range(30):  # few packs are made or removed
        if hits or kind == "rename":
            break
        page.arm(kind, 1, 0, code)
        seen.update(filter(None, [files.step(code)]))
        hits += page.disarm()[1]
    s.kill()
    files.mnt = s.mount(env=page.env(s.store))
    files.verify()
    return hits, seen, files


def while_mounting(s, page, kind, code, rounds, files):
    """(calls that failed, mounts that were refused)"""
    failed = refused = 0
    most = 8
    for nth in range(1, rounds + 1):
        files.works()
        s.kill()
        if kind == "alloc" and nth > 6:
            nth = rng.randrange(6, most)
        page.arm(kind, nth, 1, code)
        done = s.try_mount(env=page.env(s.store))
        count, hits = page.disarm()
        failed, most = failed + hits, max(most, count)
        if done.returncode:
            refused += 1
            assert done.stderr.strip(), "refused without a word"
            s.mount(env=page.env(s.store))
        try:
            files.verify()
            files.works()
        except BaseException:
            print(f"mount, {kind} {errno.errorcode[code]}: the {nth}th")
            raise
        if not hits:
            break
    return failed, refused


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=12,
                    help="how many n of each kind (default 12)")
    ap.add_argument("kind", nargs="*", choices=[[], *KINDS])
    args = ap.parse_args()
    why = store_place.why_not()
    if not why and not os.path.exists(LIB):
        why = f"needs {LIB}"
    if why:
        print(f"skipped: {why}")
        return 77
    print(f"SEED={SEED}", flush=True)
    for kind in args.kind or KINDS:
        for code in ERRORS.get(kind, [errno.ENOSPC, errno.EIO]):
            with store_place.store() as s:
                page = Page(f"{s.top}/page")
                hits, seen, files = while_running(s, page, kind, code,
                                                  args.rounds)
                failed, refused = while_mounting(s, page, kind, code,
                                                 args.rounds, files)
                s.umount()
                s.fsck()
            print(f"{kind} {errno.errorcode[code]}: {hits} calls failed, "
                  f"{seen.total()} operations saw it {dict(seen)}; "
                  f"{failed} while mounting, {refused} mounts refused; "
                  f"nothing lost", flush=True)
            assert hits + failed, "no call failed: the test has no power"
            assert hits or kind == "rename", "none failed while running"
    return 0


if __name__ == "__main__":
    sys.exit(main())
