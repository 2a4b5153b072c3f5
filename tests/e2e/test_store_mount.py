"""A store's mount itself: where, how often, and how it ends.

See store_mounted.py.
"""
import contextlib
import errno
import mmap
import os
import signal
import sys

from mount_place import MIB, fails, main, read
from store_mounted import create, mounted
from store_place import CKPTFS, check, run


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


def test_statfs():
    with mounted() as (_, mnt):
        st = os.statvfs(mnt)
        assert st.f_blocks and st.f_bavail and st.f_namemax == 255
        assert st.f_flag & os.ST_NOSUID and not st.f_flag & os.ST_RDONLY
        assert b"ckptfs" in read("/proc/self/mounts")


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


if __name__ == "__main__":
    sys.exit(main(globals()))
