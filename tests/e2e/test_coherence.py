"""The mount over a source that changes underneath, with the format of
tests/fake_format.c.

usage: test_coherence.py CKPTFS_FAKE [TEST ...]

What is read is whole: one generation of a file or an error, never a mix.
"""
import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading

from mount_place import (MIB, SEED, cut, fails, main, make_step, place, read,
                         rewrite, write)


def generation(g, size=4 * MIB):
    return bytes([g]) * size


def whole_or_stale(fd):
    """Reads all; the bytes read must be of one generation."""
    seen, at = set(), 0
    while True:
        try:
            data = os.pread(fd, 256 << 10, at)
        except OSError as e:
            assert e.errno in (errno.ESTALE, errno.EIO), e
            at += 256 << 10
            if at >= 4 * MIB:
                break
            continue
        if not data:
            break
        seen |= set(data)
        at += len(data)
    assert len(seen) <= 1, f"mixed generations {seen}"


def change_in_place(path, data):
    rewrite(path, data)


def change_with_times_put_back(path, data):
    st = os.stat(path)
    rewrite(path, data)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def change_truncated(path, data):
    with open(path, "wb", buffering=0) as f:
        f.write(data)


def change_renamed(path, data):
    write(path, data)


def change_recreated(path, data):
    os.unlink(path)
    with open(path, "wb", buffering=0) as f:
        f.write(data)


def test_changed_under_open_handles():
    changes = [change_in_place, change_with_times_put_back, change_truncated,
               change_renamed, change_recreated]
    for change in changes:
        for warm in (0, MIB, 4 * MIB):
            with place() as p:
                source = f"{p.run}/step1/shard_0_of_1.bin"
                make_step(p.run, "step1", [generation(1)])
                mnt = p.mount()
                for shown in (f"{mnt}/step1/shard_0_of_1.bin",
                              f"{mnt}/@dp2/step1/shard_0_of_2.bin"):
                    size = os.stat(shown).st_size
                    fd = os.open(shown, os.O_RDONLY)
                    if warm:
                        os.pread(fd, min(warm, size), 0)
                    before = read(source)[0]
                    change(source, generation(before + 1))
                    whole_or_stale(fd)
                    got = read(shown)
                    assert got == generation(before + 1, size), \
                        (change.__name__, warm, set(got))
                    whole_or_stale(fd)
                    os.close(fd)
                p.umount()


MAP_AND_LOOK = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
seen = {m[0]}
print("mapped", flush=True)
sys.stdin.readline()
for at in range(0, len(m), 4096):
    seen.add(m[at])
sys.exit(3 if len(seen) > 1 else 0)
"""


def test_changed_under_mmap():
    for change in (change_in_place, change_truncated, change_renamed):
        with place() as p:
            source = f"{p.run}/step1/shard_0_of_1.bin"
            make_step(p.run, "step1", [generation(1)])
            mnt = p.mount()
            for shown in (f"{mnt}/step1/shard_0_of_1.bin",
                          f"{mnt}/@dp2/step1/shard_0_of_2.bin"):
                child = subprocess.Popen(
                    [sys.executable, "-c", MAP_AND_LOOK, shown], text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert child.stdout.readline() == "mapped\n"
                change(source, generation(2))
                assert read(shown) == generation(2, os.stat(shown).st_size)
                child.communicate("go\n", timeout=60)
                assert child.returncode in (0, -signal.SIGBUS), \
                    (change.__name__, child.returncode)
                change_in_place(source, generation(1))
            p.umount()


def test_truncated_under_open_handle():
    with place() as p:
        source = f"{p.run}/step1/shard_0_of_1.bin"
        make_step(p.run, "step1", [generation(1)])
        mnt = p.mount()
        shown = f"{mnt}/@dp2/step1/shard_1_of_2.bin"
        fd = os.open(shown, os.O_RDONLY)
        os.truncate(source, MIB)
        fails((errno.EIO, errno.ESTALE), os.pread, fd, MIB, MIB)
        os.close(fd)
        assert len(read(shown)) == MIB // 2
        p.umount()


def test_names_follow():
    with place() as p:
        make_step(p.run, "step1", [b"abcd", b"efgh"])
        write(f"{p.run}/latest", b"step1")
        mnt = p.mount()
        view = f"{mnt}/@dp3"
        for i in range(2, 40):
            fails(errno.ENOENT, os.stat, f"{view}/step{i}")
            make_step(p.run, f"step{i}", [b"%04d" % i, b"5678"])
            assert read(f"{view}/latest") == b"step%d" % (i - 1)
            change = rewrite if i % 2 and i > 10 else write
            change(f"{p.run}/latest", b"step%d" % i)
            assert read(f"{view}/latest") == b"step%d" % i
            assert read(f"{mnt}/latest") == b"step%d" % i
            assert read(f"{view}/step{i}/shard_0_of_3.bin") == \
                (b"%04d" % i)[:3]
            assert f"step{i}" in os.listdir(view)
        # A pointer that runs ahead of its step.
        make_step(p.run, "step40", [b"0123", b"4567"])
        os.unlink(f"{p.run}/step40/shard_1_of_2.bin")
        write(f"{p.run}/latest", b"step40")
        assert read(f"{view}/latest") == b"step39"
        assert read(f"{mnt}/latest") == b"step40"
        assert "step40" in p.logged()
        write(f"{p.run}/step40/shard_1_of_2.bin", b"4567")
        assert read(f"{view}/latest") == b"step40"
        # Renamed and back.
        os.rename(f"{p.run}/step5", f"{p.run}/gone")
        fails(errno.ENOENT, os.stat, f"{view}/step5")
        assert read(f"{view}/gone/shard_0_of_3.bin") == b"000"
        p.umount()


def test_deleted_while_open():
    with place() as p:
        make_step(p.run, "step1", [generation(1), generation(1)])
        mnt = p.mount()
        shown = f"{mnt}/@dp1/step1/shard_0_of_1.bin"
        plain = f"{mnt}/step1/shard_0_of_2.bin"
        fds = [os.open(shown, os.O_RDONLY), os.open(plain, os.O_RDONLY)]
        os.pread(fds[0], 4096, 0)
        shutil.rmtree(f"{p.run}/step1")
        fails(errno.ENOENT, os.stat, f"{mnt}/@dp1/step1")
        fails((errno.ENOENT, errno.ESTALE), os.stat, shown)
        fails(errno.ENOENT, os.stat, plain)
        assert os.pread(fds[0], 4096, 7 * MIB) == generation(1, 4096)
        assert os.fstat(fds[0]).st_size == 8 * MIB
        assert os.pread(fds[1], 4096, 3 * MIB) == generation(1, 4096)
        for fd in fds:
            os.close(fd)
        p.umount()


def test_many_readers():
    """Readers of views while steps come and go and the pointer moves."""
    with place() as p:
        rng = random.Random(SEED)
        data = rng.randbytes(6 * MIB)
        make_step(p.run, "step1", cut(data, 4))
        write(f"{p.run}/latest", b"step1")
        mnt = p.mount()
        stop = threading.Event()
        bad = []

        def guard(fn):
            def body(*args):
                try:
                    fn(*args)
                except BaseException as e:  # told by the main thread
                    bad.append(e)
                    stop.set()
            return body

        @guard
        def reader(seed):
            own = random.Random(seed)
            for _ in range(60):
                if stop.is_set():
                    return
                dp = own.choice([1, 2, 3, 5, 6])
                i = own.randrange(dp)
                want = cut(data, dp)[i]
                at = own.randrange(len(want))
                with open(f"{mnt}/@dp{dp}/step1/shard_{i}_of_{dp}.bin",
                          "rb") as f:
                    f.seek(at)
                    got = f.read(300000)
                assert got == want[at:at + 300000]

        @guard
        def writer():
            i = 2
            while not stop.is_set():
                make_step(p.run, f"step{i}", [b"abc", b"def"])
                write(f"{p.run}/latest", b"step%d" % i)
                if i > 5:
                    shutil.rmtree(f"{p.run}/step{i - 3}")
                i += 1

        @guard
        def lister():
            while not stop.is_set():
                named = read(f"{mnt}/@dp3/latest").decode()
                assert named.startswith("step")
                for name in os.listdir(f"{mnt}/@dp3"):
                    with contextlib.suppress(OSError):
                        os.listdir(f"{mnt}/@dp3/{name}")
                    with contextlib.suppress(OSError):
                        os.stat(f"{mnt}/{name}")

        readers = [threading.Thread(target=reader, args=(SEED + i,))
                   for i in range(6)]
        others = [threading.Thread(target=writer),
                  threading.Thread(target=lister)]
        for t in readers + others:
            t.start()
        for t in readers:
            t.join()
        stop.set()
        for t in others:
            t.join()
        assert not bad, bad
        p.umount()


if __name__ == "__main__":
    sys.exit(main(globals()))
