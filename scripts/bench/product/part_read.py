"""Sequential reads of view files: against a null server, against files."""
import os
import random

from . import part_resume
from .machine import Mount, NullMount, median, read_rate, tag_of, warm

READERS = (1, 2, 4)
PAIRS = 4  # a run: they are short, and other load moves them


def optimizer_files(step):
    return sorted(f"{step}/{n}" for n in os.listdir(step) if "optim" in n)


def null_rows(cfg, table, run):
    """Both servers are mounted anew for each figure, so that nothing is in
    the page cache of the mounts; what lies underneath is warm."""
    step = f"@dp{cfg.dp}/{tag_of(run)}"
    warm(run)
    for readers in READERS:
        rates = {"null": [], "view": []}
        cpu = {"null": [], "view": []}
        for _ in range(PAIRS * cfg.runs):
            with Mount(cfg, run) as m:
                files = optimizer_files(f"{m.dir}/{step}")[:readers]
                size = os.stat(files[0]).st_size
                with NullMount(cfg, size, readers, m.read_ahead_kb()) as n:
                    pair = [("view", m, files), ("null", n, n.files)]
                    random.shuffle(pair)  # other load hits both alike
                    for key, server, paths in pair:
                        before = server.cpu()
                        rate, client = read_rate(cfg, paths, readers)
                        used = server.cpu() - before + client
                        rates[key].append(rate)
                        cpu[key].append(used / readers / size)
        ratio = median([v / n for v, n in zip(rates["view"], rates["null"])])
        table.add(f"sequential, {readers} reader(s), null_fuse beside view",
                  median(rates["null"]), median(rates["view"]), unit=" GB/s",
                  ratio=ratio, target=">= 0.70")
        table.add("  the best of each", max(rates["null"]),
                  max(rates["view"]), unit=" GB/s")
        table.add("  CPU per GB, server and readers",
                  1e9 * median(cpu["null"]), 1e9 * median(cpu["view"]),
                  unit=" s")


def ranks_row(cfg, table, run, native):
    """All ranks at once, each its own optimizer file: the view's, and the
    native files of that topology, which have as many bytes."""
    seconds = {"native": [], "view": []}
    paths = {"native": f"{os.path.basename(native)}/{tag_of(native)}",
             "view": f"{os.path.basename(run)}/@dp{cfg.dp}/{tag_of(run)}"}
    warm(run, native)
    for _ in range(2 * cfg.runs):
        for key, path in random.sample(list(paths.items()), 2):
            with Mount(cfg, f"{cfg.work}/runs") as m:
                files = optimizer_files(f"{m.dir}/{path}")
                total = sum(os.stat(f).st_size for f in files)
                rate, _ = read_rate(cfg, files, len(files))
                seconds[key].append(total / rate / 1e9)
    ratio = median([v / n for v, n in zip(seconds["view"],
                                          seconds["native"])])
    table.add(f"{cfg.dp} ranks at once: native files in the mount, and view",
              median(seconds["native"]), median(seconds["view"]), unit=" s",
              ratio=ratio, target="<= 1.20")


def measure(cfg, table):
    run, native = part_resume.prepare(cfg)
    null_rows(cfg, table, run)
    ranks_row(cfg, table, run, native)
