"""The rank client: how long a save holds the trainer, how fast ranks save, and
slices against the files of a view."""
import json
import os
import random
import shutil
import subprocess

from . import part_resume, part_slices
from .machine import HERE, Mount, median, read_rate, warm
from .store import command, fresh, init

GB = 1e9
ROOT = os.path.abspath(f"{HERE}/../../..")


def job(cfg, what, *more):
    env = dict(os.environ, DS_ACCELERATOR="cpu",
               PYTHONPATH=f"{ROOT}/rank_client/python",
               CKPTFS_RANK_LIB=cfg.rank_lib)
    out = subprocess.run(
        [cfg.python, "-W", "ignore", f"{HERE}/rank_job.py", what,
         *map(str, more)], env=env, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"rank_job.py {what} {more}:\n{out.stderr[-3000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def beside(cfg, what, way, run, *more):
    """In a plain directory of the same disk."""
    to = fresh(f"{cfg.work}/rank")
    got = job(cfg, what, "--way", way, "--from", run, "--to", to, *more)
    shutil.rmtree(to)
    return got


def inside(cfg, what, way, run, *more):
    """In a new store; CPU seconds are the daemon's, too."""
    with Mount(cfg, init(cfg)) as m:
        before = m.cpu()
        got = job(cfg, what, "--way", way, "--from", run, "--to",
                  f"{m.dir}/run", *more)
        got["cpu"] += m.cpu() - before
    return got


def stall(cfg, table, run):
    ways = {"torch.save": lambda: beside(cfg, "stall", "torch", run),
            "DeepSpeed's engine": lambda: beside(cfg, "stall", "deepspeed",
                                                 run),
            "DCP async_save": lambda: beside(cfg, "stall", "dcp", run),
            "ring": lambda: inside(cfg, "stall", "ckptfs", run),
            "small ring": lambda: inside(cfg, "stall", "ckptfs", run,
                                         "--ring", 256 << 20)}
    got = {name: [] for name in ways}
    for _ in range(cfg.runs):
        for name in random.sample(list(ways), len(ways)):
            got[name].append(ways[name]())
    mid = {name: {k: median([r[k] for r in rows]) for k in rows[0]}
           for name, rows in got.items()}
    ours = mid["ring"]
    for name in list(ways)[:3]:
        table.add(f"save of {ours['bytes'] / GB:.2f} GB, held: {name} to "
                  "ext4, ring of that size", mid[name]["stall"],
                  ours["stall"], unit=" s")
        table.add("  until durable", mid[name]["durable"], ours["durable"],
                  unit=" s")
    table.add("held, with a ring of 256 MiB: torch.save",
              mid["torch.save"]["stall"], mid["small ring"]["stall"],
              unit=" s")


def ranks(cfg, table, run):
    for n in (1, 2, 4, 8):
        ways = ("torch", "ckptfs")  # torch: through the mount
        got = {way: [] for way in ways}
        for _ in range(cfg.runs):
            for way in random.sample(ways, 2):
                got[way].append(inside(cfg, "ranks", way, run, "--ranks", n))
        rate = {w: median([g["bytes"] / GB / g["durable"] for g in rows])
                for w, rows in got.items()}
        cpu = {w: median([g["cpu"] * GB / g["bytes"] for g in rows])
               for w, rows in got.items()}
        table.add(f"{n} ranks into the store: torch.save through the mount, "
                  "rank client", rate["torch"], rate["ckptfs"],
                  unit=" GB/s")
        table.add("  CPU seconds per GB, all processes", cpu["torch"],
                  cpu["ckptfs"], unit=" s", target="<= 1")


def device(cfg, table, run):
    has = subprocess.run([cfg.python, "-c", "import torch, sys;"
                          "sys.exit(not torch.cuda.is_available())"],
                         capture_output=True)
    if has.returncode:
        print("  device memory: skipped, torch sees no GPU", flush=True)
        return
    with Mount(cfg, init(cfg)) as m:
        got = job(cfg, "device", "--from", run, "--to", f"{m.dir}/run")
    table.add("from device memory: one pinned copy, save held",
              got["bytes"] / GB / got["copy"], got["bytes"] / GB / got["save"],
              unit=" GB/s", target=">= 0.9")


def slices(cfg, table):
    run = part_slices.prepare(cfg)
    store = init(cfg)
    command(cfg.ckptfs, "import", f"{store}/a", run)
    warm(f"{store}/packs")
    view = part_slices.OPTIM.format(0, 0)
    view = f"a/run/{part_slices.STEP}/@tp2-dp1-vocab8192/{view}"
    for axis, (kind, place) in enumerate(part_slices.parts(cfg, store, view)):
        got = {"view": [], "get": []}
        for _ in range(2 * cfg.runs):
            for way in random.sample(list(got), 2):
                with Mount(cfg, store) as m:
                    if way == "view":
                        os.stat(f"{m.dir}/{view}")  # planned
                        got[way].append(read_rate(cfg, [f"{m.dir}/{view}"], 1,
                                                  place)[0])
                        continue
                    g = job(cfg, "get", "--from", f"{m.dir}/a/run",
                            "--tensor", part_slices.KINDS[axis][1], "--axis",
                            axis, "--parts", 2)
                    got[way].append(g["bytes"] / GB / g["seconds"])
        table.add(f"a rank of tp2, {kind}: the view's file, get",
                  median(got["view"]), median(got["get"]), unit=" GB/s",
                  target=">= 1")


def measure(cfg, table):
    run = part_resume.trained(cfg)
    stall(cfg, table, run)
    ranks(cfg, table, run)
    device(cfg, table, run)
    slices(cfg, table)
