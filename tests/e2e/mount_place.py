"""What the tests of the mount share: a place with a source and a mountpoint."""
import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

NOBODY = 65534
BIN = os.path.realpath(sys.argv[1]) if len(sys.argv) > 1 else None
SEED = int(os.environ.get("SEED",
                          str(random.SystemRandom().randrange(1 << 32))))
MIB = 1 << 20


def run(*args, **kwargs):
    return subprocess.run(args, text=True, capture_output=True, timeout=60,
                          **kwargs)


def check(*args, **kwargs):
    done = run(*args, **kwargs)
    assert done.returncode == 0, (args, done.returncode, done.stderr)
    return done.stdout


def fails(code, *args):
    """The errno that a call ends with, which must be one of @code."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        result = args[0](*args[1:])
    except OSError as e:
        assert e.errno in codes, (e, args[1:])
        return e.errno
    raise AssertionError(f"{args[1:]} gave {result!r}")


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data, mode=0o644):
    """As trainers do: another file, renamed over."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temp = os.path.join(os.path.dirname(path), ".new")
    with open(temp, "wb") as f:
        f.write(data)
    os.chmod(temp, mode)
    os.rename(temp, path)


def rewrite(path, data):
    """In place, as `r+`."""
    with open(path, "r+b", buffering=0) as f:
        f.write(data)


def make_step(run_dir, name, shards, mode=0o644):
    for i, data in enumerate(shards):
        write(f"{run_dir}/{name}/shard_{i}_of_{len(shards)}.bin", data, mode)


def cut(data, n):
    """What @dpN makes of a step's bytes."""
    each, longer = divmod(len(data), n)
    out, at = [], 0
    for i in range(n):
        size = each + (i < longer)
        out.append(data[at:at + size])
        at += size
    return out


def daemon_of(where):
    return int(os.getxattr(where, "user.ckptfs.pid"))


def is_gone(pid):
    """No process, or one that only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Place:
    """A directory with a source `run` and a mountpoint `mnt`."""

    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-mount-")
        os.chmod(self.top, 0o755)
        self.run = f"{self.top}/run"
        self.mnt = f"{self.top}/mnt"
        self.log = f"{self.top}/log"
        os.mkdir(self.run)
        os.mkdir(self.mnt)
        self.pid = None

    def mount(self, *options):
        opts = ",".join(("log=" + self.log,) + options)
        done = run(BIN, "mount", "-o", opts, self.run, self.mnt)
        assert done.returncode == 0, (done.stderr, self.logged())
        self.pid = daemon_of(self.mnt)
        return self.mnt

    def umount(self):
        check(BIN, "umount", self.mnt)
        assert is_gone(self.pid), "the daemon is still there"
        assert os.listdir(self.mnt) == []
        self.pid = None

    def logged(self):
        return read(self.log).decode() if os.path.exists(self.log) else ""

    def clean(self):
        if os.path.ismount(self.mnt) or self.pid:
            run("umount", "-l", self.mnt)
        shutil.rmtree(self.top)


@contextlib.contextmanager
def place():
    p = Place()
    try:
        yield p
    finally:
        p.clean()


def wait_dead(mnt):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.stat(mnt)
        except OSError as e:
            if e.errno == errno.ENOTCONN:
                return
        time.sleep(0.01)
    raise AssertionError("the mount does not die")


def main(tests):
    """Runs the functions test_* of @tests, or those named behind the binary."""
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        print("needs root and /dev/fuse")
        return 77
    os.umask(0o022)
    print(f"SEED={SEED}")
    reports = tempfile.mkdtemp(prefix="ckptfs-reports-")
    os.chmod(reports, 0o777)
    # A daemon has no stderr: where sanitizers, if built in, complain.
    for variable in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
        os.environ[variable] = ":".join(filter(None, (
            os.environ.get(variable), f"log_path={reports}/{variable}")))
    for name, fn in list(tests.items()):
        if not name.startswith("test_"):
            continue
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        print(name, flush=True)
        fn()
    found = [read(f"{reports}/{name}").decode()
             for name in os.listdir(reports)]
    shutil.rmtree(reports)
    assert not found, "\n".join(found)
    return 0
