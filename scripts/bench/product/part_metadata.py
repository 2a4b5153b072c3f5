"""Small files made, listed and removed: a store beside ext4 and bare FUSE."""
import json
import os
import shutil
import signal
import subprocess
import time

from .machine import Mount, device_of, median
from .store import command, fresh, init

FILES = 100000
PHASES = {"create": "made", "list": "listed", "remove": "removed"}


def metabench(cfg, top, threads, size, *more):
    out = command(f"{cfg.work}/bin/metabench", "-t", threads, "-n", FILES,
                  "-s", size, *more, top)
    return json.loads(out)


def in_store(cfg, threads, size):
    store = init(cfg)
    with Mount(cfg, store) as m:
        before = m.cpu()
        got = metabench(cfg, m.dir, threads, size)
        got["cpu"] = (m.cpu() - before) / FILES
        got["peak"] = m.peak()
    shutil.rmtree(store)
    return got


def in_ext4(cfg, threads, size):
    top = fresh(f"{cfg.work}/plain")
    os.mkdir(top)
    try:
        return metabench(cfg, top, threads, size)
    finally:
        shutil.rmtree(top)


def in_null(cfg, threads, size):
    """What the kernel's round trips take when the server keeps nothing."""
    top = f"{cfg.work}/null"
    os.makedirs(top, exist_ok=True)
    server = subprocess.Popen([f"{cfg.work}/bin/null_meta", "-f", top])
    try:
        while not device_of(top):
            if server.poll() is not None:
                raise SystemExit("null_meta did not come up")
            time.sleep(0.01)
        return metabench(cfg, top, threads, size, "-L")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def measure(cfg, table):
    for threads in (1, 4):
        for size in (0, 1024):
            runs = {"ext4": [], "null": [], "store": []}
            for _ in range(cfg.runs):
                runs["ext4"].append(in_ext4(cfg, threads, size))
                runs["null"].append(in_null(cfg, threads, size))
                runs["store"].append(in_store(cfg, threads, size))

            def mid(key, field, runs=runs):
                return median([r[field] for r in runs[key]])
            what = f"{FILES} files of {size} bytes, threads: {threads}"
            for phase, done in PHASES.items():
                table.add(f"{what}: {done} per second, ext4",
                          mid("ext4", phase), mid("store", phase), digits=0,
                          target=">= 10000" if phase == "create" else "")
                if phase != "list":
                    table.add("  against a FUSE server that keeps nothing",
                              mid("null", phase), mid("store", phase),
                              digits=0)
            table.add("  daemon's CPU a file (all three), peak memory",
                      f"{mid('store', 'cpu') * 1e6:.0f} us",
                      f"{mid('store', 'peak') / 1e6:.0f} MB")
