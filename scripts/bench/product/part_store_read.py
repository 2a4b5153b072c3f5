"""Reading what a store holds: against a null server, and at random."""
import json
import os
import random

from . import part_resume
from .machine import Mount, NullMount, median, read_rate, warm
from .part_read import PAIRS
from .store import command, init

RANDOM_READS = 4000


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


def misses(cfg, store, name, threads):
    """Median and p99 of 4 KiB reads at random places, each of a cold page,
    in microseconds."""
    with Mount(cfg, store) as m:
        return json.loads(command(
            f"{cfg.work}/bin/missbench", "-t", threads, "-n", RANDOM_READS,
            f"{m.dir}/{name}"))


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
        for threads in (1, len(os.sched_getaffinity(0))):
            got = misses(cfg, store, f"a/{os.path.basename(source)}/{name}",
                         threads)
            table.add(f"  random 4 KiB misses, {what}, threads: {threads}: "
                      "median, p99", f"{got['p50']} us", f"{got['p99']} us",
                      target="p99 < 1000 us")
