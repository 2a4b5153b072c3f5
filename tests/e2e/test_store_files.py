"""Files of a mounted store: reading and writing, in every way there is.

See store_mounted.py.
"""
import errno
import hashlib
import mmap
import os
import random
import sys
import threading

from mount_place import MIB, SEED, fails, main, read
from store_mounted import create, mounted
from store_place import check


def test_read_write():
    rng = random.Random(SEED)
    with mounted() as (_, mnt):
        path = f"{mnt}/file"
        want = bytearray()
        with open(path, "w+b", buffering=0) as f:
            for _ in range(300):
                kind = rng.randrange(6)
                at = rng.randrange(len(want) + 20000)
                if kind < 3:
                    data = rng.randbytes(rng.choice([1, 100, 4096, 70000]))
                    f.seek(at)
                    f.write(data)
                    want += bytes(max(0, at - len(want)))
                    want[at:at + len(data)] = data
                elif kind == 3:
                    f.truncate(at)
                    want = want[:at] + bytes(max(0, at - len(want)))
                elif kind == 4:
                    n = rng.randrange(100000)
                    assert os.pread(f.fileno(), n, at) == want[at:at + n]
                else:
                    os.fsync(f.fileno())
            assert os.fstat(f.fileno()).st_size == len(want)
        assert read(path) == want
        # Two handles, one past the page cache.
        with open(path, "r+b", buffering=0) as a:
            assert a.read() == want
            b = os.open(path, os.O_WRONLY)
            os.pwrite(b, b"seen", 10)
            assert os.pread(a.fileno(), 4, 10) == b"seen"
            a.seek(12)
            a.write(b"too")
            os.close(b)
        want[10:15] = b"setoo"
        assert read(path) == want


def test_large_streams():
    rng = random.Random(SEED)
    with mounted() as (s, mnt):
        data = rng.randbytes(40 * MIB)
        with open(f"{mnt}/a", "wb", buffering=0) as f:
            assert f.write(data) == len(data)
            f.write(b"tail")
        sums = {}

        def writer(i):
            part = data[i * MIB:] + data[:i * MIB]
            create(f"{mnt}/w{i}", part)
            sums[i] = hashlib.sha256(part).digest()

        threads = [threading.Thread(target=writer, args=(i,))
                   for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        s.umount()
        s.mount()
        assert read(f"{mnt}/a") == data + b"tail"
        for i, want in sums.items():
            assert hashlib.sha256(read(f"{mnt}/w{i}")).digest() == want


def test_append():
    with mounted() as (_, mnt):
        path = create(f"{mnt}/log", b"0")
        a = os.open(path, os.O_WRONLY | os.O_APPEND)
        b = os.open(path, os.O_RDWR | os.O_APPEND)
        for i in range(200):
            os.write(a if i & 1 else b, f"{i},".encode())
        os.close(a)
        os.close(b)
        assert read(path) == b"0" + "".join(f"{i}," for i in
                                            range(200)).encode()


def test_direct():
    size = 1 << 20
    with mounted() as (_, mnt):
        buf = mmap.mmap(-1, size)
        buf[:] = random.Random(SEED).randbytes(size)
        fd = os.open(f"{mnt}/d", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        assert os.pwritev(fd, [buf], 0) == size
        assert os.pwritev(fd, [buf], size) == size
        back = mmap.mmap(-1, size)
        assert os.preadv(fd, [back], size) == size
        assert back[:] == buf[:]
        # The tail, unaligned, through another descriptor; then direct again.
        with open(f"{mnt}/d", "ab") as f:
            f.write(b"tail")
        os.close(fd)
        assert read(f"{mnt}/d") == buf[:] * 2 + b"tail"


def test_mmap():
    with mounted() as (_, mnt):
        data = random.Random(SEED).randbytes(3 * MIB + 77)
        path = create(f"{mnt}/m", data)
        with open(path, "r+b") as f:
            with mmap.mmap(f.fileno(), 0) as m:
                assert m[:] == data
                m[MIB:MIB + 5] = b"hello"
                m.flush()
                assert os.pread(f.fileno(), 5, MIB) == b"hello"
                # A write is seen through the mapping.
                os.pwrite(f.fileno(), b"there", 2 * MIB)
                assert m[2 * MIB:2 * MIB + 5] == b"there"
                fd = os.open(path, os.O_WRONLY)
                os.pwrite(fd, b"direct", 100)
                os.close(fd)
                assert m[100:106] == b"direct"
        with open(path, "rb") as f:
            with mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE) as m:
                m[0] = 1
                assert m[MIB:MIB + 5] == b"hello"
        want = bytearray(data)
        want[100:106] = b"direct"
        want[MIB:MIB + 5] = b"hello"
        want[2 * MIB:2 * MIB + 5] = b"there"
        assert read(path) == want
        # Written through a mapping after the descriptor was closed.
        fd = os.open(path, os.O_RDWR)
        m = mmap.mmap(fd, 0)
        os.close(fd)
        m[-4:] = b"last"
        m.close()
        assert read(path)[-4:] == b"last"


def test_holes():
    with mounted() as (s, mnt):
        fd = os.open(f"{mnt}/h", os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 64 * MIB)
        os.pwrite(fd, b"x" * 8192, 32 * MIB)
        assert os.pread(fd, 10, 0) == bytes(10)
        assert os.lseek(fd, 0, os.SEEK_DATA) <= 32 * MIB
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert os.lseek(fd, 32 * MIB, os.SEEK_HOLE) >= 32 * MIB + 8192
        fails(errno.ENXIO, os.lseek, fd, 64 * MIB, os.SEEK_DATA)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks * 512 < 8 * MIB
        os.close(fd)
        # A hole that was punched reads as zeros; the size stays.
        data = b"y" * (3 * MIB)
        create(f"{mnt}/p", data)
        check("fallocate", "--punch-hole", "-o", MIB, "-l", MIB, f"{mnt}/p")
        assert read(f"{mnt}/p") == data[:MIB] + bytes(MIB) + data[:MIB]
        check("fallocate", "-l", 5 * MIB, f"{mnt}/p")
        assert os.path.getsize(f"{mnt}/p") == 5 * MIB
        check("fallocate", "--keep-size", "-l", 9 * MIB, f"{mnt}/p")
        assert os.path.getsize(f"{mnt}/p") == 5 * MIB
        s.umount()
        s.mount()
        want = data[:MIB] + bytes(MIB) + data[:MIB] + bytes(2 * MIB)
        assert read(f"{mnt}/p") == want
        assert hashlib.sha256(read(f"{mnt}/h")).digest() == hashlib.sha256(
            bytes(32 * MIB) + b"x" * 8192 + bytes(32 * MIB - 8192)).digest()


def test_copy_file_range():
    data = random.Random(SEED).randbytes(9 * MIB + 123)
    with mounted() as (_, mnt):
        create(f"{mnt}/from", data)
        a = os.open(f"{mnt}/from", os.O_RDONLY)
        b = os.open(f"{mnt}/to", os.O_RDWR | os.O_CREAT)
        done = 0
        while done < len(data):
            n = os.copy_file_range(a, b, len(data) - done, done, done)
            assert n > 0
            done += n
        assert os.copy_file_range(a, b, 10, len(data), 0) == 0
        assert read(f"{mnt}/to") == data
        # Odd offsets, over what is there.
        assert os.copy_file_range(a, b, 100001, 12345, 777) == 100001
        want = bytearray(data)
        want[777:777 + 100001] = data[12345:12345 + 100001]
        assert read(f"{mnt}/to") == want
        os.close(a)
        os.close(b)
        check("cp", "--sparse=never", f"{mnt}/to", f"{mnt}/again")
        assert read(f"{mnt}/again") == want


def test_orphan():
    with mounted() as (s, mnt):
        fd = os.open(create(f"{mnt}/gone", b"a" * 100000), os.O_RDWR)
        os.unlink(f"{mnt}/gone")
        assert os.fstat(fd).st_nlink == 0
        os.pwrite(fd, b"b" * 100, 50)
        assert os.pread(fd, 200, 0) == b"a" * 50 + b"b" * 100 + b"a" * 50
        os.ftruncate(fd, 200000)
        assert os.fstat(fd).st_size == 200000
        # The name may be used again.
        create(f"{mnt}/gone", b"other")
        assert os.pread(fd, 3, 0) == b"aaa"
        # Replaced while open, too.
        create(f"{mnt}/new", b"new")
        other = os.open(f"{mnt}/gone", os.O_RDONLY)
        os.rename(f"{mnt}/new", f"{mnt}/gone")
        assert os.read(other, 10) == b"other"
        os.close(other)
        os.close(fd)
        # And a directory that somebody stands in.
        os.mkdir(f"{mnt}/dir")
        d = os.open(f"{mnt}/dir", os.O_RDONLY)
        os.rmdir(f"{mnt}/dir")
        fails(errno.ENOENT, lambda: os.open("x", os.O_CREAT | os.O_RDWR,
                                            dir_fd=d))
        os.close(d)


def test_many_small_files():
    """Closed and small: kept by a sync, gone when removed, in any number."""
    count, threads = 2000, 4
    with mounted() as (s, mnt):
        def each(do):
            runs = [threading.Thread(target=lambda i=i: [
                do(f"{mnt}/d{i}/{k}", b"%d of %d" % (k, i) * (k % 300))
                for k in range(count)]) for i in range(threads)]
            for t in runs:
                t.start()
            for t in runs:
                t.join()

        def make(path, data):
            with open(path, "xb", buffering=0) as f:
                if data:
                    f.write(data)

        def same(path, data):
            if read(path) != data:
                wrong.append(path)

        wrong = []
        for i in range(threads):
            os.mkdir(f"{mnt}/d{i}")
        each(make)
        each(same)
        fd = os.open(mnt, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        s.kill()
        s.mount()
        each(same)
        assert not wrong, wrong[:5]
        for i in range(threads):
            with os.scandir(f"{mnt}/d{i}") as listed:
                sizes = {e.name: e.stat().st_size for e in listed}
            assert sizes == {str(k): len(b"%d of %d" % (k, i)) * (k % 300)
                             for k in range(count)}
        each(lambda path, _: os.unlink(path))
        for i in range(threads):
            os.rmdir(f"{mnt}/d{i}")
        assert os.listdir(mnt) == []
        s.umount()
        s.mount()
        assert os.listdir(mnt) == []


if __name__ == "__main__":
    sys.exit(main(globals()))
