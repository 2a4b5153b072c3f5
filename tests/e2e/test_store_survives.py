"""What is in a store after umount, kill -9, and damage.

See store_mounted.py.
"""
import contextlib
import ctypes
import errno
import os
import random
import signal
import struct
import subprocess
import sys
import time

from mount_place import MIB, SEED, fails, main, read
from store_mounted import create, mounted, tree
from store_place import check, run, store


def test_remount_keeps_all():
    with mounted() as (s, mnt):
        rng = random.Random(SEED)
        os.chmod(mnt, 0o751)
        for i in range(6):
            os.makedirs(f"{mnt}/d{i}/sub")
            for j in range(6):
                p = create(f"{mnt}/d{i}/f{j}", rng.randbytes(
                    rng.choice([0, 1, 2000, 2049, 100000, 3 * MIB])),
                    rng.choice([0o644, 0o600, 0o4755]))
                os.setxattr(p, "user.n", str(j).encode())
            os.symlink(f"../d{i}/f0", f"{mnt}/d{i}/sub/s")
            os.link(f"{mnt}/d{i}/f1", f"{mnt}/d{i}/sub/hard")
            os.utime(f"{mnt}/d{i}/f2", ns=(1, 1))
        before = tree(mnt)
        s.umount()
        s.mount()
        assert tree(mnt) == before


def _keep_connection(pid):
    """Our own descriptor of the daemon's connection to the kernel, as a
    thread that is stuck in there has one."""
    pidfd = os.pidfd_open(pid)
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/fuse":
                libc = ctypes.CDLL(None, use_errno=True)
                kept = libc.syscall(438, pidfd, int(fd), 0)  # pidfd_getfd
                assert kept >= 0, os.strerror(ctypes.get_errno())
                yield kept
    finally:
        os.close(pidfd)


def test_mount_ends_what_a_killed_daemon_keeps_waiting():
    with mounted() as (s, mnt):
        fd = os.open(create(f"{mnt}/f", b"kept"), os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        before = tree(mnt)
        kept = list(_keep_connection(s.pid))
        assert kept
        os.kill(s.pid, signal.SIGKILL)
        s.wait_gone()
        # Nobody answers, and nobody tells it so.
        asks = subprocess.Popen(["stat", f"{mnt}/nothing"],
                                stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        assert asks.poll() is None
        s.mount()
        assert asks.wait(timeout=30)
        for fd in kept:
            os.close(fd)
        assert tree(mnt) == before


def test_kill_after_fsync():
    with mounted() as (s, mnt):
        rng = random.Random(SEED)
        os.mkdir(f"{mnt}/d")
        for i in range(5):
            create(f"{mnt}/d/{i}", rng.randbytes(rng.randrange(4 * MIB)))
        fd = os.open(f"{mnt}/d/0", os.O_RDWR)
        os.ftruncate(fd, 1000)
        os.fsync(fd)
        os.close(fd)
        before = tree(mnt)
        for round_ in range(3):
            s.kill()
            fails((errno.ENOTCONN, errno.ECONNABORTED), os.statvfs, mnt)
            s.mount()  # detaches the dead mount by itself
            assert tree(mnt) == before, round_
        # A directory's fsync is as good.
        create(f"{mnt}/d/new", b"new")
        fd = os.open(f"{mnt}/d", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        s.kill()
        s.mount()
        assert read(f"{mnt}/d/new") == b"new"
        # A completion marker: closing it is enough.
        create(f"{mnt}/d/data", b"z" * MIB)
        create(f"{mnt}/latest", b"step1")
        s.kill()
        s.mount()
        assert read(f"{mnt}/latest") == b"step1"
        assert read(f"{mnt}/d/data") == b"z" * MIB
        # Renamed into place, too.
        create(f"{mnt}/d/data2", b"z" * MIB)
        create(f"{mnt}/latest.tmp", b"step2")
        os.rename(f"{mnt}/latest.tmp", f"{mnt}/latest")
        s.kill()
        s.mount()
        assert read(f"{mnt}/latest") == b"step2"
        assert read(f"{mnt}/d/data2") == b"z" * MIB


def test_markers_found_by_listing():
    """`ls` may tell the kernel of a marker; nothing looks it up after that.
    What was closed before it is as durable, if emptied first, too."""
    with mounted() as (s, mnt):
        create(f"{mnt}/data", b"0")
        create(f"{mnt}/latest", b"step0")
        for i in range(1, 31):
            s.kill()
            s.mount()
            assert read(f"{mnt}/latest") == b"step%d" % (i - 1)
            assert read(f"{mnt}/data") == b"%d" % (i - 1)
            s.umount()
            s.mount()
            assert len(os.listdir(mnt)) == 2
            for e in os.scandir(mnt):
                e.stat()
            with open(f"{mnt}/data", "wb", buffering=0) as f:
                f.write(b"%d" % i)
            with open(f"{mnt}/latest", "wb", buffering=0) as f:
                f.write(b"step%d" % i)


def test_marker_renamed_while_open():
    """What is written to a marker after it got its name, and then closed."""
    with mounted() as (s, mnt):
        for call in (os.rename, os.link):
            create(f"{mnt}/data", b"d" * MIB)
            with open(f"{mnt}/tmp", "wb", buffering=0) as f:
                f.write(b"first ")
                call(f"{mnt}/tmp", f"{mnt}/latest")
                f.write(b"second")
            s.kill()
            s.mount()
            assert read(f"{mnt}/latest") == b"first second"
            assert read(f"{mnt}/data") == b"d" * MIB
            for name in os.listdir(mnt):
                os.unlink(f"{mnt}/{name}")


def test_synced_by_the_clock():
    """Nobody calls fsync: `init --sync` says after how long it is kept."""
    data = random.Random(SEED).randbytes(3 * MIB)
    with store("--sync", "1") as s:
        mnt = s.mount()
        os.mkdir(f"{mnt}/d")
        f = open(f"{mnt}/d/open", "wb", buffering=0)
        f.write(data)
        create(f"{mnt}/d/closed", data[:70000])
        time.sleep(4)
        s.kill()
        with contextlib.suppress(OSError):
            f.close()
        s.mount()
        assert read(f"{mnt}/d/open") == data
        assert read(f"{mnt}/d/closed") == data[:70000]
        s.umount()


def handle(path):
    """What name_to_handle_at(2) tells: number and generation, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    raw = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    where = ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), raw, ctypes.byref(where),
                              0):
        assert ctypes.get_errno() in (errno.EOPNOTSUPP, errno.ENOSYS)
        return None
    size, kind = struct.unpack("Ii", raw[:8])
    return kind, raw[8:8 + size]


def test_numbers_stay():
    """Inode numbers and generations, over umount and kill; a new file has
    none that was another's before."""
    with mounted() as (s, mnt):
        for i in range(5):
            os.makedirs(f"{mnt}/d{i}/sub")
            create(f"{mnt}/d{i}/f", b"x" * 5000 * i)
            os.symlink("f", f"{mnt}/d{i}/s")
            os.mkfifo(f"{mnt}/d{i}/sub/p")
        os.link(f"{mnt}/d0/f", f"{mnt}/d1/hard")

        def numbers():
            return {os.path.join(d, n): (
                        os.lstat(os.path.join(d, n)).st_ino,
                        handle(os.path.join(d, n)))
                    for d, dirs, files in os.walk(mnt)
                    for n in dirs + files + ["."]}

        def known(before):
            return {(ino, h) for ino, h in before.values()}

        before = numbers()
        assert len(known(before)) == len(before) - 1 - 10, "of one inode"
        used = known(before)
        for i in range(4):
            fd = os.open(mnt, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            if i & 1:
                s.umount()
            else:
                s.kill()
            s.mount()
            assert numbers() == before, i
            # Renamed it is the same, removed and made again it is not.
            os.rename(f"{mnt}/d0/f", f"{mnt}/d0/g")
            os.rename(f"{mnt}/d0/g", f"{mnt}/d0/f")
            assert numbers() == before, i
            os.unlink(f"{mnt}/d2/f")
            create(f"{mnt}/d2/f", b"new")
            before = numbers()
            new = before[f"{mnt}/d2/f"]
            assert new not in used, new
            used.add(new)


def packs_with(s, part):
    """(file, offset) of each place in the store with these bytes."""
    for d, _, files in os.walk(s.store):
        for name in files:
            at = read(f"{d}/{name}").find(part)
            if at >= 0:
                yield f"{d}/{name}", at


def test_damaged_chunk():
    """Never wrong bytes; saving the same ones again mends it."""
    rng = random.Random(SEED)
    data, other = rng.randbytes(300000), rng.randbytes(300000)
    with mounted() as (s, mnt):
        create(f"{mnt}/bad", data)
        create(f"{mnt}/good", other)
        s.umount()
        (pack, at), = packs_with(s, data[1000:1032])
        with open(pack, "r+b") as f:
            f.seek(at + 7)
            f.write(bytes([data[1007] ^ 1]))
        s.mount()
        done = run("cat", f"{mnt}/bad")
        assert done.returncode and os.strerror(errno.EIO) in done.stderr, done
        fails(errno.EIO, read, f"{mnt}/bad")
        said = s.logged()
        number = os.path.basename(pack).split(".")[0]
        assert "chunk" in said and f"pack {number}" in said and \
            "is damaged" in said, said
        assert "file bad cannot be read" in said, said
        assert read(f"{mnt}/good") == other
        create(f"{mnt}/again", data)
        s.umount()
        s.mount()
        assert read(f"{mnt}/again") == data
        assert read(f"{mnt}/bad") == data
        assert read(f"{mnt}/good") == other


def test_kill_after_overwriting():
    """What was written over the end of a stream, and then a new stream."""
    rng = random.Random(SEED)
    with mounted() as (s, mnt):
        path = f"{mnt}/f"
        want = bytearray(600000)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        for at, n in (50000, 100000), (0, 300000), (400000, 131072):
            want[at:at + n] = rng.randbytes(n)
            assert os.pwrite(fd, want[at:at + n], at) == n
            os.fsync(fd)
        for _ in range(40):
            n = rng.choice([1, 5000, 70000, 200000])
            at = rng.randrange(len(want) - n)
            if rng.randrange(4):
                want[at:at + n] = rng.randbytes(n)
                assert os.pwrite(fd, want[at:at + n], at) == n
            else:
                os.ftruncate(fd, at)
                want[at:] = bytes(len(want) - at)
            if rng.randrange(2):
                os.fsync(fd)
        os.ftruncate(fd, len(want))
        os.fsync(fd)
        s.kill()
        with contextlib.suppress(OSError):
            os.close(fd)
        s.mount()
        assert read(path) == want


def test_kill_while_writing():
    """What was synced is there; what was not is a prefix of what was done."""
    with mounted() as (s, mnt):
        for round_ in range(3):
            child = subprocess.Popen(
                [sys.executable, "-c", """
import os, sys
i = 0
while True:
    with open(f"{sys.argv[1]}/{i:06}", "wb") as f:
        f.write(bytes([i % 251]) * 50000)
        f.flush()
        if i % 10 == 0:
            os.fsync(f.fileno())
            print(i, flush=True)
    i += 1
""", f"{mnt}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(8):
                line = child.stdout.readline()
            s.kill()
            rest = child.stdout.read()
            child.wait()
            acked = int((rest.split() or [line])[-1])
            s.mount()
            names = sorted(os.listdir(mnt))
            assert names == [f"{i:06}" for i in range(len(names))], names
            assert len(names) > acked
            for i in range(acked + 1):
                assert read(f"{mnt}/{i:06}") == bytes([i % 251]) * 50000, i
            check("find", mnt, "-mindepth", 1, "-delete")


if __name__ == "__main__":
    sys.exit(main(globals()))
