"""A store's mount as a POSIX filesystem, over the real kernel.

usage: test_store_mount.py CKPTFS_FAKE [TEST ...]

Ordinary programs and system calls against a mounted store, with the format of
tests/fake_format.c for the views.  Exits 77 where there is no FUSE or no root.
"""
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import threading
import time

os.environ["CKPTFS"] = os.path.realpath(sys.argv[1])

from mount_place import MIB, NOBODY, SEED, cut, fails, main, read
from store_place import CKPTFS, check, run, store


@contextlib.contextmanager
def mounted(*options):
    with store() as s:
        s.mount(*options)
        yield s, s.mnt
        if s.pid:
            s.umount()


def create(path, data=b"", mode=0o644):
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def as_user(uid, fn, *args, gid=None):
    """What fn() raises or returns in a process of that user: an errno or 0."""
    pid = os.fork()
    if not pid:
        code = 0
        try:
            os.setgroups([])
            os.setgid(uid if gid is None else gid)
            os.setuid(uid)
            fn(*args)
        except OSError as e:
            code = e.errno
        except BaseException:
            code = 255
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def tree(top):
    """Everything about a tree that a remount must not change."""
    rows = {}
    for where, dirs, files in os.walk(top):
        for name in dirs + files + ["."]:
            path = os.path.join(where, name)
            st = os.lstat(path)
            row = [st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_ino,
                   st.st_mtime_ns, st.st_ctime_ns, st.st_rdev]
            if stat.S_ISREG(st.st_mode):
                row += [st.st_size, hashlib.sha256(read(path)).hexdigest()]
            if stat.S_ISLNK(st.st_mode):
                row.append(os.readlink(path))
            else:
                row += [(n, os.getxattr(path, n)) for n in
                        sorted(os.listxattr(path))]
            rows[os.path.relpath(path, top)] = row
    return rows


# ---- files ----

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


# ---- names ----

def test_names():
    with mounted() as (s, mnt):
        for name in ("a=b", ".dot", "100%", "x" * 255, "ünï", "new\nline",
                     "@notaview"):
            create(f"{mnt}/{name}", name.encode())
            assert read(f"{mnt}/{name}") == name.encode()
        fails(errno.ENAMETOOLONG, create, f"{mnt}/{'x' * 256}")
        fails(errno.EEXIST, os.mkdir, f"{mnt}/a=b")
        fails(errno.ENOENT, os.stat, f"{mnt}/@dp2")
        fails(errno.ENOTDIR, os.stat, f"{mnt}/a=b/c")
        deep = mnt + "/d" * 40
        os.makedirs(deep)
        create(f"{deep}/f", b"deep")
        fails(errno.ENOTEMPTY, os.rmdir, mnt + "/d")
        assert sorted(os.listdir(mnt)) == sorted(
            ["a=b", ".dot", "100%", "x" * 255, "ünï", "new\nline",
             "@notaview", "d"])
        s.umount()
        s.mount()
        assert read(f"{deep}/f") == b"deep"
        check("rm", "-r", f"{mnt}/d")
        # Exclusive creation: one of many wins.
        wins = []

        def try_it():
            with contextlib.suppress(FileExistsError):
                wins.append(os.open(f"{mnt}/lock",
                                    os.O_CREAT | os.O_EXCL | os.O_WRONLY))

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(wins) == 1
        os.close(wins[0])


def test_rename():
    with mounted() as (_, mnt):
        # Over an existing name, the source open for writing.
        create(f"{mnt}/b", b"old")
        with open(f"{mnt}/a", "wb", buffering=0) as f:
            f.write(b"one ")
            ino = os.fstat(f.fileno()).st_ino
            os.rename(f"{mnt}/a", f"{mnt}/b")
            f.write(b"two")
        assert read(f"{mnt}/b") == b"one two"
        assert os.stat(f"{mnt}/b").st_ino == ino
        # A name always stands for one whole file.
        stop, bad = threading.Event(), []

        def reader():
            while not stop.is_set():
                got = read(f"{mnt}/p")
                if got not in (b"x" * 5000, b"y" * 5000):
                    bad.append(got[:20])

        create(f"{mnt}/p", b"x" * 5000)
        t = threading.Thread(target=reader)
        t.start()
        for i in range(200):
            create(f"{mnt}/p.tmp", (b"x", b"y")[i & 1] * 5000)
            os.rename(f"{mnt}/p.tmp", f"{mnt}/p")
        stop.set()
        t.join()
        assert not bad, bad[:3]
        # Directories, not empty, from one parent to another.
        os.makedirs(f"{mnt}/d/sub")
        os.makedirs(f"{mnt}/e")
        create(f"{mnt}/d/sub/f", b"f")
        os.rename(f"{mnt}/d/sub", f"{mnt}/e/sub2")
        assert read(f"{mnt}/e/sub2/f") == b"f"
        assert os.stat(f"{mnt}/d").st_nlink == 2
        assert os.stat(f"{mnt}/e").st_nlink == 3
        assert os.stat(f"{mnt}/e/sub2/..").st_ino == os.stat(f"{mnt}/e").st_ino
        fails(errno.EINVAL, os.rename, f"{mnt}/e", f"{mnt}/e/sub2/x")
        fails(errno.ENOTEMPTY, os.rename, f"{mnt}/d", f"{mnt}/e")
        os.rename(f"{mnt}/e/sub2", f"{mnt}/d/sub3")
        os.rename(f"{mnt}/d", f"{mnt}/e")
        assert read(f"{mnt}/e/sub3/f") == b"f"
        fails(errno.EISDIR, os.rename, f"{mnt}/b", f"{mnt}/e")
        fails(errno.ENOTDIR, os.rename, f"{mnt}/e", f"{mnt}/b")
        # Two names of one file: nothing happens.
        os.link(f"{mnt}/b", f"{mnt}/c")
        os.rename(f"{mnt}/b", f"{mnt}/c")
        assert os.path.exists(f"{mnt}/b") and os.path.exists(f"{mnt}/c")


def test_links():
    with mounted() as (s, mnt):
        create(f"{mnt}/a", b"shared")
        os.mkdir(f"{mnt}/d")
        os.link(f"{mnt}/a", f"{mnt}/d/b")
        a, b = os.stat(f"{mnt}/a"), os.stat(f"{mnt}/d/b")
        assert a.st_ino == b.st_ino and a.st_nlink == b.st_nlink == 2
        with open(f"{mnt}/d/b", "ab") as f:
            f.write(b" more")
        assert read(f"{mnt}/a") == b"shared more"
        os.unlink(f"{mnt}/a")
        assert os.stat(f"{mnt}/d/b").st_nlink == 1
        fails((errno.EPERM,), os.link, f"{mnt}/d", f"{mnt}/e")
        os.symlink("d/b", f"{mnt}/s")
        os.symlink("x" * 4000, f"{mnt}/long")
        os.symlink("nowhere", f"{mnt}/broken")
        s.umount()
        s.mount()
        assert read(f"{mnt}/s") == b"shared more"
        assert os.readlink(f"{mnt}/long") == "x" * 4000
        assert os.lstat(f"{mnt}/s").st_size == 3
        fails(errno.ENOENT, read, f"{mnt}/broken")
        os.mkfifo(f"{mnt}/fifo")
        assert stat.S_ISFIFO(os.stat(f"{mnt}/fifo").st_mode)
        os.mknod(f"{mnt}/node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        assert os.stat(f"{mnt}/node").st_rdev == os.makedev(1, 3)


def test_big_directory():
    with mounted() as (s, mnt):
        os.mkdir(f"{mnt}/d")
        names = [f"file-{i:05}" for i in range(5000)]
        for name in names:
            create(f"{mnt}/d/{name}")
        assert sorted(os.listdir(f"{mnt}/d")) == names
        # Removing while listing loses and repeats nothing.
        seen = []
        with os.scandir(f"{mnt}/d") as entries:
            for e in entries:
                seen.append(e.name)
                os.unlink(e.path)
        assert sorted(seen) == names
        assert os.listdir(f"{mnt}/d") == []
        # Many tearing down one tree together: ENOENT is normal, no more.
        for i in range(400):
            create(f"{mnt}/d/{i}")
        bad = []

        def tear():
            for name in os.listdir(f"{mnt}/d"):
                try:
                    os.unlink(f"{mnt}/d/{name}")
                except FileNotFoundError:
                    pass
                except OSError as e:
                    bad.append(e)

        threads = [threading.Thread(target=tear) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not bad
        os.rmdir(f"{mnt}/d")


# ---- attributes ----

def test_times():
    with mounted() as (s, mnt):
        path = create(f"{mnt}/f", b"x")
        os.utime(path, ns=(1234567890123456789, 987654321987654321))
        before = os.stat(path)
        assert before.st_mtime_ns == 987654321987654321
        assert before.st_atime_ns == 1234567890123456789
        # Not by rename, chmod, open, close; by writing and truncating.
        os.rename(path, f"{mnt}/g")
        path = f"{mnt}/g"
        os.chmod(path, 0o600)
        os.close(os.open(path, os.O_RDWR))
        now = os.stat(path)
        assert now.st_mtime_ns == before.st_mtime_ns
        assert now.st_ctime_ns > before.st_ctime_ns
        last = now
        for change in (lambda: os.truncate(path, 5),
                       lambda: create(path, b"yy"),
                       lambda: os.chmod(path, 0o640),
                       lambda: os.link(path, path + "2"),
                       lambda: os.unlink(path + "2")):
            change()
            now = os.stat(path)
            assert now.st_ctime_ns > last.st_ctime_ns
            last = now
        assert last.st_mtime_ns > 10**18
        os.utime(path)
        assert abs(os.stat(path).st_mtime - time.time()) < 60
        os.utime(path, ns=(-5 * 10**9, -1))
        assert os.stat(path).st_mtime_ns == -1
        # A directory's move with its names.
        d = os.stat(mnt).st_mtime_ns
        create(f"{mnt}/new")
        assert os.stat(mnt).st_mtime_ns > d
        st = os.stat(path)
        s.umount()
        s.mount()
        again = os.stat(path)
        assert again.st_ino == st.st_ino
        assert again.st_mtime_ns == st.st_mtime_ns
        assert again.st_ctime_ns == st.st_ctime_ns


def test_owners():
    with mounted("allow_other") as (_, mnt):
        os.chmod(mnt, 0o777)
        assert as_user(NOBODY, create, f"{mnt}/n", b"mine") == 0
        st = os.stat(f"{mnt}/n")
        assert (st.st_uid, st.st_gid) == (NOBODY, NOBODY)
        create(f"{mnt}/r", b"root's", 0o600)
        assert as_user(NOBODY, read, f"{mnt}/r") == errno.EACCES
        assert as_user(NOBODY, os.chmod, f"{mnt}/r", 0o666) == errno.EPERM
        assert as_user(NOBODY, os.chown, f"{mnt}/n", 1, 1) == errno.EPERM
        # A set-group-ID directory hands its group and the bit down.
        os.mkdir(f"{mnt}/g")
        os.chown(f"{mnt}/g", 0, 4321)
        os.chmod(f"{mnt}/g", 0o2777)
        assert as_user(NOBODY, create, f"{mnt}/g/f") == 0
        assert as_user(NOBODY, os.mkdir, f"{mnt}/g/d") == 0
        assert os.stat(f"{mnt}/g/f").st_gid == 4321
        assert os.stat(f"{mnt}/g/d").st_gid == 4321
        assert os.stat(f"{mnt}/g/d").st_mode & stat.S_ISGID
        # Sticky: only owners remove.
        os.mkdir(f"{mnt}/t")
        os.chmod(f"{mnt}/t", 0o1777)
        create(f"{mnt}/t/f")
        assert as_user(NOBODY, os.unlink, f"{mnt}/t/f") == errno.EPERM
        # Writing by another takes set-user-ID away.
        create(f"{mnt}/suid", b"#!", 0o4777)
        for flags in (os.O_WRONLY, os.O_RDWR):
            os.chmod(f"{mnt}/suid", 0o6777)

            def scribble():
                fd = os.open(f"{mnt}/suid", flags)
                os.write(fd, b"x")
                os.close(fd)

            assert as_user(NOBODY, scribble) == 0
            assert os.stat(f"{mnt}/suid").st_mode & 0o7777 == 0o777
        # The umask of who creates.
        os.umask(0o027)
        os.close(os.open(f"{mnt}/u", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(f"{mnt}/ud", 0o777)
        os.umask(0o022)
        assert os.stat(f"{mnt}/u").st_mode & 0o777 == 0o640
        assert os.stat(f"{mnt}/ud").st_mode & 0o777 == 0o750


def test_xattrs():
    with mounted() as (s, mnt):
        path = create(f"{mnt}/f", b"x")
        os.setxattr(path, "user.a", b"1")
        os.setxattr(path, "user.big", b"v" * 60000)
        os.setxattr(path, "trusted.t", b"t")
        os.setxattr(path, "user.empty", b"")
        fails(errno.EEXIST, lambda: os.setxattr(path, "user.a", b"2",
                                                os.XATTR_CREATE))
        fails(errno.ENODATA, lambda: os.setxattr(path, "user.no", b"2",
                                                 os.XATTR_REPLACE))
        fails(errno.ENODATA, os.getxattr, path, "user.no")
        fails(errno.ENODATA, os.removexattr, path, "user.no")
        s.umount()
        s.mount()
        assert os.getxattr(path, "user.a") == b"1"
        assert os.getxattr(path, "user.big") == b"v" * 60000
        assert os.getxattr(path, "user.empty") == b""
        assert sorted(os.listxattr(path)) == ["trusted.t", "user.a",
                                              "user.big", "user.empty"]
        os.removexattr(path, "user.a")
        assert "user.a" not in os.listxattr(path)
        os.mkdir(f"{mnt}/d")
        os.setxattr(f"{mnt}/d", "user.d", b"dir")
        assert os.getxattr(f"{mnt}/d", "user.d") == b"dir"


def test_statfs():
    with mounted() as (_, mnt):
        st = os.statvfs(mnt)
        assert st.f_blocks and st.f_bavail and st.f_namemax == 255
        assert st.f_flag & os.ST_NOSUID and not st.f_flag & os.ST_RDONLY
        assert b"ckptfs" in read("/proc/self/mounts")


def test_locks():
    """flock, POSIX and open-file-description locks, between processes."""
    def other(path, how):
        pid = os.fork()
        if not pid:
            code = 0
            try:
                f = open(path, "r+b")
                how(f)
            except OSError as e:
                code = e.errno
            os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def flock(f):
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def posix(f):
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)

    def ofd(f):
        fcntl.fcntl(f, fcntl.F_OFD_SETLK,
                    struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 5, 10, 0))

    with mounted() as (_, mnt):
        path = create(f"{mnt}/lock", b"x" * 100)
        for how, clash in ((flock, flock), (posix, ofd), (ofd, posix)):
            with open(path, "r+b") as f:
                how(f)
                assert other(path, clash) == errno.EAGAIN, how
            assert other(path, clash) == 0, how


# ---- what survives ----

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


def test_sigterm():
    """Unmounts and writes everything, also while files are open."""
    with mounted() as (s, mnt):
        data = b"q" * 300000
        create(f"{mnt}/a", data)
        f = open(f"{mnt}/open", "w+b")
        f.write(data)
        f.flush()
        m = mmap.mmap(f.fileno(), 0)
        m[:6] = b"mapped"
        os.kill(s.pid, signal.SIGTERM)
        s.wait_gone()
        m.close()
        with contextlib.suppress(OSError):
            f.close()
        s.mount()
        assert read(f"{mnt}/a") == data
        assert read(f"{mnt}/open") == b"mapped" + data[6:]


# ---- mounting ----

def test_mounting():
    with mounted() as (s, mnt):
        other = f"{s.top}/other"
        os.mkdir(other)
        done = run(CKPTFS, "mount", s.store, other)
        assert done.returncode == 1, done
        assert "in use" in done.stderr and mnt in done.stderr, done.stderr
        s.umount()
        inside = f"{s.store}/x"
        os.mkdir(inside)
        done = run(CKPTFS, "mount", s.store, inside)
        assert done.returncode == 1 and "lies in" in done.stderr, done
        os.rmdir(inside)
        done = run(CKPTFS, "mount", s.store, s.top)
        assert done.returncode == 1 and "lies in" in done.stderr, done
        # Plain umount, and at once again.
        for i in range(3):
            s.mount()
            create(f"{mnt}/{i}", b"x" * MIB)
            check("umount", mnt)
        s.mount("rw")
        assert sorted(os.listdir(mnt)) == ["0", "1", "2"]
        s.umount()
        s.mount("ro")
        fails(errno.EROFS, create, f"{mnt}/no")
        assert read(f"{mnt}/0") == b"x" * MIB


# ---- views ----

def step(top, name, shards):
    os.mkdir(f"{top}/{name}")
    for i, data in enumerate(shards):
        create(f"{top}/{name}/shard_{i}_of_{len(shards)}.bin", data)


def shards_of(where, n):
    return [read(f"{where}/shard_{i}_of_{n}.bin") for i in range(n)]


def test_views():
    state = random.Random(SEED).randbytes(200001)
    with mounted() as (s, mnt):
        run_dir = f"{mnt}/run"
        os.mkdir(run_dir)
        step(run_dir, "step1", cut(state, 2))
        create(f"{run_dir}/latest", b"step1")
        create(f"{run_dir}/notes.txt", b"notes")
        view = f"{run_dir}/@dp3"
        assert shards_of(f"{view}/step1", 3) == cut(state, 3)
        assert read(f"{view}/latest") == b"step1"
        # What is the run's own is the same file, with the same pages.
        assert os.stat(f"{view}/notes.txt").st_ino == \
            os.stat(f"{run_dir}/notes.txt").st_ino
        with open(f"{view}/notes.txt", "r+b") as f:
            f.write(b"NOTES")
        assert read(f"{run_dir}/notes.txt") == b"NOTES"
        # Made names are read-only.
        made = f"{view}/step1/shard_0_of_3.bin"
        fails(errno.EROFS, os.open, made, os.O_WRONLY)
        fails(errno.EROFS, os.unlink, made)
        fails(errno.EROFS, os.truncate, made, 0)
        fails(errno.EROFS, create, f"{view}/step1/new")
        fails(errno.EROFS, os.rename, f"{view}/step1", f"{view}/step2")
        fails((errno.EPERM, errno.EROFS), os.rmdir, view)
        fails((errno.EPERM, errno.EROFS), os.rename, view, f"{mnt}/x")
        assert shards_of(f"{view}/step1", 3) == cut(state, 3)
        assert shards_of(f"{run_dir}/step1/@dp4", 4) == cut(state, 4)
        check("cp", "-r", f"{view}/step1", f"{mnt}/copy")
        assert shards_of(f"{mnt}/copy", 3) == cut(state, 3)
        # A real name wins.
        os.mkdir(f"{mnt}/real")
        os.mkdir(f"{mnt}/real/d")
        os.rename(f"{mnt}/real/d", f"{mnt}/real/@dp3")
        assert os.stat(f"{mnt}/real/@dp3").st_ino < 1 << 63
        check("rm", "-r", run_dir)
        assert sorted(os.listdir(mnt)) == ["copy", "real"]


def save(view, name, shards):
    """As a trainer saves: the pointer last, every file opened by its path."""
    os.makedirs(f"{view}/{name}", exist_ok=True)
    for i, data in enumerate(shards):
        with open(f"{view}/{name}/shard_{i}_of_{len(shards)}.bin", "wb") as f:
            f.write(data[:len(data) // 2])
            os.stat(f"{view}/{name}")
            f.write(data[len(data) // 2:])
    with open(f"{view}/latest", "w") as f:
        f.write(name)


def test_save_through_a_view():
    rng = random.Random(SEED)
    with mounted() as (s, mnt):
        run_dir = f"{mnt}/run"
        os.mkdir(run_dir)
        one = rng.randbytes(100003)
        save(run_dir, "step1", cut(one, 2))
        view = f"{run_dir}/@dp3"
        assert shards_of(f"{view}/step1", 3) == cut(one, 3)
        # Resumed at another size: loads and saves by the same path.
        for n in range(2, 6):
            state = rng.randbytes(100000 + n)
            save(view, f"step{n}", cut(state, 3))
            assert read(f"{run_dir}/latest") == f"step{n}".encode()
            assert read(f"{view}/latest") == f"step{n}".encode()
            assert shards_of(f"{run_dir}/step{n}", 3) == cut(state, 3)
            assert shards_of(f"{view}/step{n}", 3) == cut(state, 3)
            assert shards_of(f"{run_dir}/@dp2/step{n}", 2) == cut(state, 2)
        # Saved once more, in place; and by renaming the pointer over.
        again = rng.randbytes(100005)
        save(view, "step5", cut(again, 3))
        assert shards_of(f"{run_dir}/step5", 3) == cut(again, 3)
        create(f"{view}/latest.tmp", b"step4")
        os.rename(f"{view}/latest.tmp", f"{view}/latest")
        assert read(f"{run_dir}/latest") == b"step4"
        assert read(f"{view}/latest") == b"step4"
        with open(f"{view}/latest", "a") as f:
            f.write("\n")
        assert read(f"{run_dir}/latest") == b"step4\n"
        # While the kernel has both directories' names, each sees the other's.
        for a, b in ((view, run_dir), (run_dir, view)):
            for i in range(50):
                create(f"{a}/x", b"x")
                assert read(f"{b}/x") == b"x"
                os.rename(f"{a}/x", f"{a}/y")
                assert not os.path.exists(f"{b}/x")
                assert read(f"{b}/y") == b"x"
                os.unlink(f"{a}/y")
                assert not os.path.exists(f"{b}/y"), (a, i)
                os.mkdir(f"{a}/dir")
                create(f"{a}/dir/f", b"f")
                assert read(f"{b}/dir/f") == b"f"
                os.unlink(f"{b}/dir/f")
                os.rmdir(f"{b}/dir")
                assert not os.path.exists(f"{a}/dir")
        os.rename(f"{run_dir}/latest", f"{view}/renamed")
        assert read(f"{run_dir}/renamed") == b"step4\n"
        # Removing a step that was saved through the view works through it.
        check("rm", "-r", f"{view}/step5")
        assert not os.path.exists(f"{run_dir}/step5")
        s.umount()
        s.mount()
        assert shards_of(f"{view}/step4", 3) == shards_of(
            f"{run_dir}/step4", 3)


def test_pointer_names_what_is_not_whole():
    with mounted() as (s, mnt):
        run_dir, view = f"{mnt}/run", f"{mnt}/run/@dp2"
        os.mkdir(run_dir)
        save(run_dir, "step1", cut(b"a" * 1000, 4))
        os.mkdir(f"{run_dir}/step2")
        create(f"{run_dir}/step2/shard_0_of_4.bin", b"half")
        create(f"{run_dir}/latest", b"step2")
        assert read(f"{view}/latest") == b"step1"
        # Writing there is writing to the run's own.
        with open(f"{view}/latest", "w") as f:
            f.write("step1 ")
        assert read(f"{run_dir}/latest") == b"step1 "


def test_no_directory_called_as_a_view():
    """It would stand before the view for ever."""
    with mounted() as (_, mnt):
        fails(errno.EINVAL, os.mkdir, f"{mnt}/@dp2")
        os.mkdir(f"{mnt}/run")
        fails(errno.EINVAL, os.makedirs, f"{mnt}/run/@dp4-zero1/global_step1")
        os.mkdir(f"{mnt}/@scope")
        os.mkdir(f"{mnt}/a@dp2")
        assert sorted(os.listdir(mnt)) == ["@scope", "a@dp2", "run"]


def test_root_view():
    state = random.Random(SEED).randbytes(5000)
    with store() as s:
        s.mount()
        step(s.mnt, "step1", cut(state, 4))
        create(f"{s.mnt}/latest", b"step1")
        s.umount()
        mnt = s.mount("view=@dp2")
        assert shards_of(f"{mnt}/step1", 2) == cut(state, 2)
        save(mnt, "step2", cut(state[::-1], 2))
        s.umount()
        s.mount()
        assert read(f"{mnt}/latest") == b"step2"
        assert shards_of(f"{mnt}/step2", 2) == cut(state[::-1], 2)
        s.umount()


if __name__ == "__main__":
    sys.exit(main(globals()))
