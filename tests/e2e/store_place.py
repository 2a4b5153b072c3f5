"""A store with a mountpoint beside it, for the tests over the real mount."""
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time

CKPTFS = os.environ.get("CKPTFS") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "../../build/release/bin/ckptfs")


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], text=True,
                          capture_output=True, timeout=300, **kwargs)


def check(*args, **kwargs):
    done = run(*args, **kwargs)
    assert done.returncode == 0, (args, done.returncode,
                                  done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


class Store:
    """`store` is the directory of the store, `mnt` where it is mounted."""

    def __init__(self, top, init=()):
        self.top = top
        self.store = f"{top}/store"
        self.mnt = f"{top}/mnt"
        self.log = f"{top}/log"
        self.pid = None
        os.mkdir(self.mnt)
        check(CKPTFS, "init", *init, self.store)

    def try_mount(self, *options, env=None):
        """What the command said; it may have refused."""
        opts = ",".join((f"log={self.log}",) + options)
        done = run(CKPTFS, "mount", "-o", opts, self.store, self.mnt,
                   env=dict(os.environ, **(env or {})))
        if done.returncode == 0:
            self.pid = int(os.getxattr(self.mnt, "user.ckptfs.pid"))
        return done

    def mount(self, *options, env=None):
        done = self.try_mount(*options, env=env)
        assert done.returncode == 0, (done.stderr, self.logged())
        return self.mnt

    def umount(self):
        check(CKPTFS, "umount", self.mnt)
        self.wait_gone()

    def kill(self):
        """As the kernel's OOM killer does: no goodbye."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        self.wait_gone()
        self._force(pid)
        # Its other threads may hold the connection a moment longer.
        for _ in range(2000):
            try:
                os.statvfs(self.mnt)
            except OSError:
                return
            time.sleep(0.005)
        raise AssertionError("the mount of a dead daemon answers")

    def _force(self, pid):
        """A thread that told the kernel of a change waits for a directory
        which a request holds that nobody will answer any more; neither ends
        but by force."""
        for _ in range(400):
            try:
                if len(os.listdir(f"/proc/{pid}/task")) <= 1:
                    return
            except FileNotFoundError:
                return
            time.sleep(0.005)
        print("a killed daemon's thread is stuck in the kernel: umount -f")
        run("umount", "-f", self.mnt)  # busy, but ends its requests

    def wait_gone(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with open(f"/proc/{self.pid}/stat") as f:
                    if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                        break
            except FileNotFoundError:
                break
            time.sleep(0.005)
        else:
            raise AssertionError(f"the daemon {self.pid} does not end")
        self.pid = None

    def fsck(self):
        check(CKPTFS, "fsck", self.store)

    def logged(self):
        if not os.path.exists(self.log):
            return ""
        with open(self.log) as f:
            return f.read()

    def clean(self):
        if self.pid:
            run("umount", "-l", self.mnt)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        elif not os.path.exists(self.mnt) or os.path.ismount(self.mnt):
            run("umount", "-l", self.mnt)
        shutil.rmtree(self.top)


@contextlib.contextmanager
def store(*init, top=None):
    where = tempfile.mkdtemp(prefix="ckptfs-store-", dir=top)
    os.chmod(where, 0o755)
    s = None
    try:
        s = Store(where, init)
        yield s
    except BaseException:
        if s:
            print("daemon's log:\n" + s.logged()[-4000:])
        raise
    finally:
        if s:
            s.clean()
        else:
            shutil.rmtree(where)


def why_not():
    """Why these tests cannot run here, or None."""
    if os.geteuid():
        return "needs root"
    if not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    return None
