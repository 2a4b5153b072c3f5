"""The program under test: views written out by export, or read in a mount."""
import contextlib
import os
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.abspath(__file__)))))


class Refused(Exception):
    """ckptfs said no; the text is its reason."""


def binary():
    return os.environ.get("CKPTFS",
                          os.path.join(ROOT, "build/release/bin/ckptfs"))


def run(*args, timeout=120):
    """The result of `ckptfs args…`; a death by signal is never a refusal."""
    res = subprocess.run([binary(), *args], capture_output=True, text=True,
                         timeout=timeout, stdin=subprocess.DEVNULL)
    if res.returncode < 0 or res.returncode > 125:
        raise RuntimeError(f"ckptfs {args[0]} died ({res.returncode}): "
                           f"{res.stderr[-2000:]}")
    return res


def export(view_path, out):
    res = run("export", view_path, out)
    if res.returncode:
        raise Refused(" ".join(res.stderr.split())[:400])


def why_fuse_is_missing():
    """None, or the reason why nothing can be mounted here."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    return None


def _mounted(path):
    with open("/proc/self/mountinfo") as f:
        return any(line.split()[4] == os.path.realpath(path) for line in f)


@contextlib.contextmanager
def mounted(source, mnt):
    """A mount of source at mnt; unmounting leaves neither mount nor process."""
    os.makedirs(mnt, exist_ok=True)
    # Its log goes to a file: a pipe would be held open by the daemon.
    log = mnt.rstrip("/") + ".log"
    with open(log, "w") as out:
        res = subprocess.run([binary(), "mount", source, mnt], stdout=out,
                             stderr=subprocess.STDOUT, timeout=60,
                             stdin=subprocess.DEVNULL)
    if res.returncode:
        with open(log) as f:
            raise RuntimeError(f"mount failed: {f.read()[-2000:]}")
    try:
        yield mnt
    finally:
        res = run("umount", mnt)
        end = time.monotonic() + 20
        while (_mounted(mnt) or daemons(mnt)) and time.monotonic() < end:
            time.sleep(0.05)
        if res.returncode or _mounted(mnt):
            raise RuntimeError(f"umount {mnt} failed: {res.stderr[-500:]}")
        if daemons(mnt):
            raise RuntimeError(f"the daemon of {mnt} is left over")
        os.rmdir(mnt)
        os.unlink(log)


def daemons(mnt):
    """Processes whose command line names the mount point."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = f.read().split(b"\0")
        except OSError:
            continue
        if argv and b"ckptfs" in os.path.basename(argv[0]) \
                and os.fsencode(mnt) in argv:
            found.append(int(pid))
    return found
