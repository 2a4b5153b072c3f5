"""Names and attributes in a mounted store: directories, links, owners, locks.

See store_mounted.py.
"""
import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
import threading
import time

from mount_place import NOBODY, fails, main, read
from store_mounted import as_user, create, mounted
from store_place import check


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


if __name__ == "__main__":
    sys.exit(main(globals()))
