#!/usr/bin/env python3
"""A store on a disk that fills up or loses power.

usage: store_disk.py [--cuts N] [NAME ...]

  full     an ext4 image of 256 MiB: ENOSPC reaches the write that causes it,
           nothing acknowledged is lost, deleting and gc work, also when
           others took the last block and after a kill; writing works again
           without a restart
  small    smaller ones, with not a block free when the next daemon comes
  cut      an XFS image shut down in mid-work without flushing its journal
           (what a power cut leaves), N times: mounted again, all that was
           acknowledged is there, no repair
"""
import argparse
import contextlib
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import store_place  # noqa: E402
from store_place import CKPTFS, check, run  # noqa: E402

MIB = 1 << 20
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 31))))
rng = random.Random(SEED)


class Image:
    """A filesystem in a file, on a loop device, at .dir."""

    def __init__(self, kind, mib):
        self.top = tempfile.mkdtemp(prefix="ckptfs-image-")
        self.img, self.dir = f"{self.top}/img", f"{self.top}/disk"
        os.mkdir(self.dir)
        with open(self.img, "wb") as f:
            f.truncate(mib * MIB)
        how = {"ext4": ("mkfs.ext4", "-q", "-m", "0", self.img),
               "xfs": ("mkfs.xfs", "-q", self.img)}
        check(*how[kind])
        self.mount()

    def mount(self):
        check("mount", "-o", "loop", self.img, self.dir)

    def umount(self):
        for _ in range(100):
            if run("umount", self.dir).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.dir} stays busy")

    def clean(self):
        if os.path.ismount(self.dir):
            run("umount", "-l", self.dir)
        shutil.rmtree(self.top)


@contextlib.contextmanager
def image(kind, mib):
    i = Image(kind, mib)
    try:
        yield i
    finally:
        i.clean()


def put(path, data):
    """Written and synced; an error of any of it is the caller's."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        left = memoryview(data)
        while left:  # the last write that fits may be a short one
            left = left[os.write(fd, left[:MIB]):]
        os.fsync(fd)
    finally:
        os.close(fd)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def sha(data):
    return hashlib.sha256(data).digest()


def same(mnt, sure):
    for name, digest in sure.items():
        assert sha(get(f"{mnt}/{name}")) == digest, name


def fill(mnt, sure, prefix):
    """Files one after the other, each synced, until one does not fit."""
    for i in range(1000):
        data = rng.randbytes(4 * MIB)
        try:
            put(f"{mnt}/{prefix}{i}", data)
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
            break
        sure[f"{prefix}{i}"] = sha(data)
    else:
        raise AssertionError("a small disk took 4 GiB")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{mnt}/{prefix}{i}")


def pour(mnt):
    """One file without a sync in between: the write itself gets the error."""
    fd = os.open(f"{mnt}/poured", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        for _ in range(4000):
            os.write(fd, rng.randbytes(MIB))
        raise AssertionError("a small disk took 4 GiB")
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
    finally:
        os.close(fd)
    # What was taken before fits.
    check("sync", "-f", mnt)
    os.unlink(f"{mnt}/poured")


def remove_half(s, sure):
    for name in list(sure)[::2]:
        os.unlink(f"{s.mnt}/{name}")
        del sure[name]
    check("sync", "-f", s.mnt)
    check(CKPTFS, "gc", s.store)


def works(s, sure, name):
    data = rng.randbytes(8 * MIB)
    put(f"{s.mnt}/{name}", data)
    sure[name] = sha(data)


def ballast(disk):
    """Others take what is left of the disk, to the last block."""
    with open(f"{disk.dir}/ballast", "wb", buffering=0) as f:
        for size in (MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    f.write(bytes(size))


def test_full(_):
    with image("ext4", 256) as disk, store_place.store(top=disk.dir) as s:
        sure = {}
        s.mount()
        fill(s.mnt, sure, "f")
        assert len(sure) >= 20, len(sure)
        same(s.mnt, sure)
        remove_half(s, sure)
        works(s, sure, "again")
        pour(s.mnt)
        check(CKPTFS, "gc", s.store)
        works(s, sure, "and again")
        fill(s.mnt, sure, "g")
        ballast(disk)
        remove_half(s, sure)
        same(s.mnt, sure)
        s.kill()
        s.mount()  # not a block is free but what the store kept
        same(s.mnt, sure)
        remove_half(s, sure)
        os.unlink(f"{disk.dir}/ballast")
        works(s, sure, "at last")
        s.kill()
        s.mount()
        same(s.mnt, sure)
        assert set(os.listdir(s.mnt)) == set(sure)
        s.umount()
        s.fsck()
    print(f"full: {len(sure)} acknowledged files kept on a full disk")


def test_small(_):
    """Not a block is free when the next daemon comes: it opens all the same."""
    for mib in (110, 160, 210):
        for others in (False, True):
            with image("ext4", mib) as disk, \
                    store_place.store(top=disk.dir) as s:
                sure = {}
                s.mount()
                fill(s.mnt, sure, "f")
                s.kill()
                if others:
                    ballast(disk)
                check(CKPTFS, "fsck", s.store)
                s.mount()
                same(s.mnt, sure)
                remove_half(s, sure)
                same(s.mnt, sure)
                s.umount()
                s.mount()
                same(s.mnt, sure)
                s.umount()
                s.fsck()
    print("small: opened on full disks of 110, 160 and 210 MiB")


def churn(mnt, told, stop):
    """Files until the disk goes away; told[name] has all contents it was given
    and when each was acknowledged, or None."""
    mine = random.Random(rng.random())
    n = 0
    while not stop.is_set():
        name = f"{mnt}/c{threading.get_ident()}-{n % 12}"
        n += 1
        data = mine.randbytes(mine.choice([100, 5000, 300_000, 3 * MIB]))
        said = [sha(data), None]
        told.setdefault(name, [[None, 0]]).append(said)
        try:
            put(name + ".tmp", data)
            os.rename(name + ".tmp", name)
            fd = os.open(mnt, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            return
        said[1] = time.monotonic()


def possible(told, cut):
    """What a file may hold after a cut that began at `cut`: what was last
    acknowledged before, or anything newer.  Not what was acknowledged while it
    was under way: XFS lets an fdatasync() succeed then whose data it drops, of
    a file on the disk itself no less than of a store."""
    last = max(i for i, (_, when) in enumerate(told)
               if when is not None and when < cut)
    return [content for content, _ in told[last:]]


def test_cut(args):
    acknowledged = 0
    with image("xfs", 600) as disk, store_place.store(top=disk.dir) as s:
        for _ in range(args.cuts):
            s.mount()
            told, stop = {}, threading.Event()
            threads = [threading.Thread(target=churn, args=(s.mnt, told, stop))
                       for _ in range(2)]
            for t in threads:
                t.start()
            time.sleep(rng.uniform(0.2, 1.5))
            cut = time.monotonic()
            check("xfs_io", "-x", "-c", "shutdown", disk.dir)
            stop.set()
            for t in threads:
                t.join(60)
            s.kill()
            run("umount", "-l", s.mnt)
            disk.umount()
            disk.mount()
            s.mount()
            for name, contents in told.items():
                try:
                    found = sha(get(name))
                except FileNotFoundError:
                    found = None
                may = possible(contents, cut)
                assert found in may, name
                acknowledged += contents[-1][0] == found and len(may) == 1
            for name in os.listdir(s.mnt):
                os.unlink(f"{s.mnt}/{name}")
            s.umount()
            check(CKPTFS, "gc", s.store)
        s.fsck()
    print(f"cut: {args.cuts} cuts, {acknowledged} acknowledged files kept")


TESTS = {"full": test_full, "small": test_small, "cut": test_cut}


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--cuts", type=int, default=10)
    ap.add_argument("name", nargs="*", choices=[[], *TESTS])
    args = ap.parse_args()
    why = store_place.why_not()
    if not why and subprocess.run(["losetup", "-f"],
                                  capture_output=True).returncode:
        why = "needs a loop device"
    if why:
        print(f"skipped: {why}")
        return 77
    print(f"SEED={SEED}")
    for name in args.name or TESTS:
        TESTS[name](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
