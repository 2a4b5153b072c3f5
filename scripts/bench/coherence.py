#!/usr/bin/env python3
"""coherence.py BUILD_DIR [--size BYTES] [--rounds N] [--torture SECONDS]

Which choices of a FUSE server keep readers coherent while another process
changes the files underneath? Every word of a file names the content it
belongs to, so a reader knows old from new from a mixture. Each cell is the
worst that happened in all rounds:

  new, old     one whole content, the size reported equal to what was read
  ESTALE, EIO, SIGBUS, ENOENT   refused: safe
  MIX          words of both, or padding
  SIZE         one content, but cut short, or stat and data disagree
"""
import argparse
import errno
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time

POLICIES = {
    "inode t=60 keep": ["--node=inode", "--keep=always", "--attr-timeout=60",
                        "--entry-timeout=60"],
    "inode t=1 plain": ["--node=inode", "--keep=never", "--attr-timeout=1",
                        "--entry-timeout=1"],
    "inode t=0 plain": ["--node=inode", "--keep=never"],
    "inode t=0 plain autoinval": ["--node=inode", "--keep=never",
                                  "--auto-inval"],
    "inode t=0 keep-if-same": ["--node=inode", "--keep=unchanged"],
    "  + check": ["--node=inode", "--keep=unchanged", "--check"],
    "  + check + notify": ["--node=inode", "--keep=unchanged", "--check",
                           "--notify"],
    "  + check + settle": ["--node=inode", "--keep=unchanged", "--check",
                           "--settle"],
    "version keep": ["--node=version", "--keep=always", "--attr-timeout=60"],
    "version keep check": ["--node=version", "--keep=always",
                           "--attr-timeout=60", "--check"],
    "version keep check settle": ["--node=version", "--keep=always",
                                  "--attr-timeout=60", "--check", "--settle"],
    "version direct check settle": ["--node=version", "--keep=always",
                                    "--attr-timeout=60", "--check",
                                    "--settle", "--direct"],
}
WORSE = ["new", "old", "ENOENT", "ESTALE", "EIO", "SIGBUS", "SIZE", "MIX"]


def content(tag, size):
    return (b"%07d\n" % tag * (size // 8 + 1))[:size]


def write_at(path, data, size_change=True):
    """In place, one write(), as a program that keeps the inode does."""
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, 0)
    if size_change:
        os.ftruncate(fd, len(data))
    os.close(fd)


class Change:
    """The ways another process changes a file; each returns new content."""

    def __init__(self, size):
        self.size = size

    def inplace(self, path, tag):
        data = content(tag, self.size)
        write_at(path, data)
        return data

    def inplace_utime(self, path, tag):
        st = os.stat(path)
        data = self.inplace(path, tag)
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
        return data

    def shrink(self, path, tag):
        data = content(tag, self.size // 2)
        with open(path, "wb") as f:
            f.write(data)
        return data

    def grow(self, path, tag):
        data = content(tag, self.size * 3 // 2)
        write_at(path, data)
        return data

    def rename(self, path, tag):
        data = content(tag, self.size)
        with open(path + ".tmp", "wb") as f:
            f.write(data)
        os.rename(path + ".tmp", path)
        return data

    def recreate(self, path, tag):
        os.unlink(path)
        data = content(tag, self.size)
        with open(path, "wb") as f:
            f.write(data)
        return data

    def delete(self, path, _tag):
        os.unlink(path)
        return None


CHANGES = ["inplace", "inplace_utime", "shrink", "grow", "rename", "recreate",
           "delete"]


def judge(data, size, old, new):
    if data == new and size == len(data):
        return "new"
    if data == old and size == len(data):
        return "old"
    tags = {data[i:i + 8] for i in range(0, len(data) - 7, 8)}
    return "MIX" if len(tags) > 1 else "SIZE"


def read_fd(fd, start=0):
    parts, off = [], start
    while True:
        part = os.pread(fd, 1 << 20, off)
        if not part:
            return b"".join(parts)
        parts.append(part)
        off += len(part)


def reopen(path, old, change):
    """Read all, let it change, stat and read all again by path."""
    with open(path, "rb") as f:
        f.read()
    new = change()
    size = os.stat(path).st_size
    fd = os.open(path, os.O_RDONLY)
    try:
        return judge(read_fd(fd), size, old, new)
    finally:
        os.close(fd)


def handle(path, old, change, warm=False, other=False):
    """One handle read half before and half after the change; `warm`: all
    of it was in the page cache; `other`: somebody opens it in between."""
    fd = os.open(path, os.O_RDONLY)
    try:
        half = len(old) // 2
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        first = read_fd(fd)[:half] if warm else os.pread(fd, half, 0)
        new = change()
        if other:
            try:
                with open(path, "rb") as f:
                    f.read()
            except OSError:
                pass
        rest = read_fd(fd, half)
        return judge(first + rest, os.fstat(fd).st_size, old, new)
    finally:
        os.close(fd)


def mapped(path, old, change, warm=False, other=False):
    """The same through mmap, in a child, which SIGBUS may end."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = "EIO"
        try:
            fd = os.open(path, os.O_RDONLY)
            m = mmap.mmap(fd, len(old), mmap.MAP_PRIVATE, mmap.PROT_READ)
            m.madvise(mmap.MADV_RANDOM)
            half = len(old) // 2
            first = m[:half]
            if warm:
                m[half:]
            new = change()
            if other:
                try:
                    with open(path, "rb") as f:
                        f.read()
                except OSError:
                    pass
            data = first + m[half:]
            # A map cannot change its size: judge bytes alone.
            if new is not None and data == new[:len(data)]:
                verdict = "new"
            else:
                verdict = judge(data, len(data), old, new)
        except OSError as e:
            verdict = errno.errorcode[e.errno]
        finally:
            os.write(w, verdict.encode())
            os._exit(0)
    os.close(w)
    out = os.read(r, 64).decode()
    os.close(r)
    _, status = os.waitpid(pid, 0)
    return "SIGBUS" if os.WIFSIGNALED(status) else out


ACTIONS = {
    "reopen": reopen,
    "handle": handle,
    "handle+open": lambda *a: handle(*a, other=True),
    "handle warm": lambda *a: handle(*a, warm=True),
    "handle warm+open": lambda *a: handle(*a, warm=True, other=True),
    "mmap": mapped,
    "mmap+open": lambda *a: mapped(*a, other=True),
    "mmap warm+open": lambda *a: mapped(*a, warm=True, other=True),
}


class Mount:
    def __init__(self, build, options):
        self.src = tempfile.mkdtemp(prefix="coherence-src.")
        self.dir = tempfile.mkdtemp(prefix="coherence-mnt.")
        self.proc = subprocess.Popen(
            [f"{build}/coherence_fuse", "-f", f"--source={self.src}"] +
            options + [self.dir])
        for _ in range(100):
            if os.path.ismount(self.dir):
                return
            time.sleep(0.05)
        raise SystemExit("the mount did not come up")

    def close(self):
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait()
        for name in os.listdir(self.src):
            os.unlink(f"{self.src}/{name}")
        os.rmdir(self.src)
        os.rmdir(self.dir)


def trial(mount, action, how, size, tag):
    name = f"f{tag}"
    src, old = f"{mount.src}/{name}", content(tag, size)
    with open(src, "wb") as f:
        f.write(old)
    changer = Change(size)
    try:
        return action(f"{mount.dir}/{name}", old,
                      lambda: getattr(changer, how)(src, tag + 1))
    except OSError as e:
        return errno.errorcode[e.errno]


def torture(mount, how, size, seconds):
    """A writer that never stops against a reader by path; `latest` changes
    its length when renamed over. Counts what the reader saw."""
    path, seen = f"{mount.dir}/latest", {}
    done = mmap.mmap(-1, 8)  # the last content that is whole, for freshness

    def publish(tag):
        done[:8] = tag.to_bytes(8, "little")

    def length(tag):  # in place, length and bytes cannot change as one
        return size - 8 * (tag % 7) if how == "rename" else size

    def put(tag):
        data = content(tag, length(tag))
        if how == "rename":
            with open(f"{mount.src}/new", "wb") as f:
                f.write(data)
            os.rename(f"{mount.src}/new", f"{mount.src}/latest")
        else:
            write_at(f"{mount.src}/latest", data)
        publish(tag)

    with open(f"{mount.src}/latest", "wb") as f:
        f.write(content(0, size))
    pid = os.fork()
    if pid == 0:
        end, tag = time.time() + seconds, 0
        while time.time() < end:
            tag += 1
            put(tag)
            time.sleep(0.002 if tag % 8 else 0.05)
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        least = int.from_bytes(done[:8], "little")
        try:
            with open(path, "rb", buffering=0) as f:
                n, data = os.fstat(f.fileno()).st_size, read_fd(f.fileno())
            words = {data[i:i + 8] for i in range(0, len(data), 8)}
            tag = int(words.pop().strip(b"\0\n") or b"0")
            if words:
                verdict = "MIX"
            elif n != len(data) or n != length(tag):
                verdict = "SIZE"
            else:
                verdict = "whole" if tag >= least else "STALE"
        except OSError as e:
            verdict = errno.errorcode[e.errno]
        seen[verdict] = seen.get(verdict, 0) + 1
    return seen


def run_torture(build, only, seconds):
    for policy, options in POLICIES.items():
        if only not in policy:
            continue
        for how in ("rename", "inplace"):
            mount = Mount(build, options)
            try:
                print(f"{policy:28} {how:8}",
                      torture(mount, how, 65536, seconds), flush=True)
            finally:
                mount.close()


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("build")
    p.add_argument("--size", type=int, default=(2 << 20) + 24)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", default="")
    p.add_argument("--torture", type=float, metavar="SECONDS")
    args = p.parse_args()
    if args.torture:
        return run_torture(args.build, args.only, args.torture)
    tag = 1000
    for policy, options in POLICIES.items():
        if args.only not in policy:
            continue
        print(f"\n{policy}")
        print(f"{'':18}" + "".join(f"{c:>14}" for c in CHANGES))
        mount = Mount(args.build, options)
        try:
            for name, action in ACTIONS.items():
                row = []
                for how in CHANGES:
                    got = set()
                    for _ in range(args.rounds):
                        tag += 2
                        got.add(trial(mount, action, how, args.size, tag))
                    row.append(max(got, key=lambda v: WORSE.index(v)
                                   if v in WORSE else 99))
                print(f"{name:18}" + "".join(f"{c:>14}" for c in row),
                      flush=True)
        finally:
            mount.close()


if __name__ == "__main__":
    sys.exit(main())
