"""What the tests of a store's verbs share: a store, trees to compare."""
import contextlib
import os
import shutil
import stat
import subprocess
import time

import cli_place
import step_maker
from cli_place import CKPTFS, STEP, run


class Place(cli_place.Place):
    """With an empty store beside the golden run, and a mountpoint for it."""

    def __enter__(self):
        super().__enter__()
        self.store = f"{self.top}/store"
        self.mnt = f"{self.top}/mnt"
        os.mkdir(self.mnt)
        run("init", self.store)
        return self

    def __exit__(self, *_):
        if os.path.ismount(self.mnt):
            subprocess.run([CKPTFS, "umount", self.mnt], check=False)
        super().__exit__()

    @contextlib.contextmanager
    def mounted(self):
        run("mount", self.store, self.mnt)
        try:
            yield self.mnt
        finally:
            run("umount", self.mnt)

    def make_steps(self, *numbers):
        for n in numbers:
            shutil.copytree(f"{self.run}/{STEP}", f"{self.run}/global_step{n}")


def tree(top):
    """Everything of a tree that a copy keeps."""
    found, inos = {}, {}
    for path, dirs, files in os.walk(top):
        for name in [""] + dirs + files:
            p = os.path.join(path, name) if name else path
            rel = os.path.relpath(p, top)
            st = os.lstat(p)
            what = [stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode),
                    st.st_uid, st.st_gid, st.st_mtime_ns]
            if stat.S_ISREG(st.st_mode):
                with open(p, "rb") as f:
                    what += [f.read(), st.st_nlink,
                             inos.setdefault(st.st_ino, rel)]
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(p))
            found[rel] = what
    return found


def equal(a, b):
    """So that a difference is named, not printed whole."""
    assert a.keys() == b.keys(), set(a) ^ set(b)
    for rel in a:
        assert a[rel] == b[rel], (rel, [x for x in zip(a[rel], b[rel])
                                        if x[0] != x[1]])


def make_trained(p, rng):
    """Instead of the golden run: steps with weights worth deriving."""
    shutil.rmtree(p.run)
    step_maker.make(f"{p.run}/{STEP}", rng)
    step_maker.make(f"{p.run}/global_step8", rng, steps=8)
    with open(f"{p.run}/latest", "w", encoding="utf-8") as f:
        f.write("global_step8")
    os.mkdir(f"{p.run}/kept")
    shutil.copyfile(f"{p.run}/{STEP}/mp_rank_00_model_states.pt",
                    f"{p.run}/kept/weights.pt")


def put(path, text="x", at=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    if at:
        os.utime(path, (at, at))


def kill_daemon(mnt):
    """Ends when it is gone: a mount whose daemon still dies is a mount."""
    os.kill(int(os.getxattr(mnt, "user.ckptfs.pid")), 9)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.statvfs(mnt)
        except OSError:
            return
        time.sleep(0.005)
    raise AssertionError("the mount of a dead daemon answers")
