"""What the tests of a mounted store share.

They are run as `test_store_X.py CKPTFS_FAKE [TEST ...]`: ordinary programs and
system calls over the real kernel, the views with the format of
tests/fake_format.c.  Exits 77 where there is no FUSE or no root.
"""
import contextlib
import hashlib
import os
import stat
import sys

os.environ["CKPTFS"] = os.path.realpath(sys.argv[1])

from mount_place import read
from store_place import store


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
