"""What the parts about the store share: stores, rivals, what a run cost."""
import os
import resource
import shutil
import subprocess
import time

from .machine import tree_size


class Cost:
    """Wall and CPU seconds of child processes started inside."""

    def __enter__(self):
        self.before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.began = time.monotonic()
        return self

    def __exit__(self, *exc):
        self.seconds = time.monotonic() - self.began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime - self.before.ru_utime + \
            after.ru_stime - self.before.ru_stime


def command(*args, env=None):
    done = subprocess.run([str(a) for a in args], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, **(env or {})))
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, args))}: {done.stderr[-2000:]}")
    return done.stdout


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    return path


def init(cfg, name="store"):
    where = fresh(f"{cfg.work}/{name}")
    command(cfg.ckptfs, "init", where)
    return where


def stored(store):
    """Bytes of the packs on disk."""
    return tree_size(f"{store}/packs")


def sync_disk(path):
    """Everything of this filesystem, as a backup that must be durable."""
    subprocess.run(["sync", "-f", path], check=True)
