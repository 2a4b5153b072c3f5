"""@universal of a sequential GPT-NeoX step, beside ds_to_universal."""
import os
import time

from . import part_resume
from .machine import (Mount, median, neox_step, neox_tool, tree_size,
                      warm)

GB = 1e9


def files(view):
    return sorted(os.path.join(d, f) for d, _, fs in os.walk(view)
                  for f in fs)


def read_all(paths):
    for path in paths:
        with open(path, "rb", buffering=0) as f:
            while f.read(1 << 20):
                pass


def one(cfg, run):
    """Planning: until the names are there; then the first byte of a
    parameter, then all bytes."""
    out = {}
    with Mount(cfg, run) as m:
        zero = f"{m.dir}/@universal/global_step1000/zero"
        began = time.monotonic()
        names = sorted(os.listdir(zero))
        out["plan"] = time.monotonic() - began
        which = next(n for n in names if "linear2.weight" in n)
        began = time.monotonic()
        with open(f"{zero}/{which}/exp_avg.pt", "rb", buffering=0) as f:
            size = os.fstat(f.fileno()).st_size
            os.pread(f.fileno(), 1, size // 2)
        out["first"] = time.monotonic() - began
        began = time.monotonic()
        read_all(files(f"{m.dir}/@universal"))
        out["all"] = time.monotonic() - began
        out["peak"] = m.peak()
        out["kept"], out["written"] = tree_size(m.cache), m.written()
    return out


def measure(cfg, table):
    run = neox_step(cfg, "sequential", "--model", "small", "--tp", 1, "--pp",
                    0, "--dp", 4, "--dense")
    size = tree_size(run)
    rival, ours = [], []
    for _ in range(cfg.runs):
        warm(run)
        rival.append(part_resume.convert(cfg, run))
        warm(run)
        ours.append(one(cfg, run))

    with Mount(cfg, run) as m:
        same = int(neox_tool(
            cfg, "equal", f"{cfg.work}/universal/global_step1000_universal",
            f"{m.dir}/@universal/global_step1000"))

    def add(what, key, mine, unit, scale=1.0, **options):
        table.add(what, median([x[key] for x in rival]) / scale,
                  median([x[mine] for x in ours]) / scale, unit=unit,
                  **options)
    table.add("bytes of the step", size / GB, size / GB, unit=" GB")
    add("until the view is planned", "seconds", "plan", " s", digits=3)
    add("first byte of a parameter after that", "seconds", "first", " s",
        digits=4, target="< 0.05 s")
    add("all bytes of the universal checkpoint read", "seconds", "all", " s")
    table.add("elements of both, equal", "-", f"{same / 1e6:.0f} M")
    add("bytes kept on disk", "kept", "kept", " GB", GB, target="0",
        digits=6)
    add("bytes written on the way", "written", "written", " GB", GB,
        digits=6)
    add("peak memory, converter / daemon (VmHWM)", "peak", "peak", " MB", 1e6,
        digits=0)
