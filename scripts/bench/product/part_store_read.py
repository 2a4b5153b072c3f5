"""Reading what a store holds: against a null server, and at random."""
import os
import random
import time

from . import part_resume
from .machine import Mount, NullMount, median, read_rate, warm
from .part_read import PAIRS
from .store import command, init

RANDOM_READS = 2000


def rates(cfg, store, name):
    """Pairs of sequential reads in new mounts; packs in the page cache."""
    got = []
    for _ in range(PAIRS * cfg.runs):
        with Mount(cfg, store) as m:
            path = f"{m.dir}/{name}"
            size = os.stat(path).st_size
            with NullMount(cfg, size, 1, m.read_ahead_kb()) as n:
                pair = [("store", [path]), ("null", n.files)]
                random.shuffle(pair)
                rate = {k: read_rate(cfg, p, 1)[0] for k, p in pair}
        got.append((rate["store"], rate["null"]))
    return got


def misses(cfg, store, name):
    """Latencies of 4 KiB reads at random places, each of a cold page."""
    with Mount(cfg, store) as m:
        fd = os.open(f"{m.dir}/{name}", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        pages = os.fstat(fd).st_size // 4096
        took = []
        for page in random.sample(range(pages), min(pages, RANDOM_READS)):
            began = time.perf_counter()
            os.pread(fd, 4096, page * 4096)
            took.append(time.perf_counter() - began)
        os.close(fd)
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


def measure(cfg, table):
    run = part_resume.trained(cfg)
    raw = f"{cfg.work}/raw"
    if not os.path.exists(raw):
        os.mkdir(raw)
        with open(f"{raw}/f", "wb") as f:
            for _ in range(512):
                f.write(os.urandom(1 << 20))
    optim = max((os.path.join(d, f) for d, _, fs in os.walk(run) for f in fs
                 if "optim" in f), key=os.path.getsize)
    for what, source, name, target in (
            ("compressed", run, os.path.relpath(optim, run), ">= 0.70"),
            ("raw", raw, "f", ">= 0.85")):
        store = init(cfg)
        command(cfg.ckptfs, "import", f"{store}/a", source)
        warm(f"{store}/packs")
        got = rates(cfg, store, f"a/{os.path.basename(source)}/{name}")
        table.add(f"sequential, {what}: null_fuse, store",
                  median([n for _, n in got]), median([s for s, _ in got]),
                  unit=" GB/s", ratio=median([s / n for s, n in got]),
                  target=target)
        mid, tail = misses(cfg, store, f"a/{os.path.basename(source)}/{name}")
        table.add(f"  random 4 KiB misses, {what}: median, p99",
                  f"{mid * 1e3:.3f} ms", f"{tail * 1e3:.3f} ms",
                  target="p99 < 1 ms")
