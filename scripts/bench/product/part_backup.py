"""`ckptfs import` of a trained step, beside restic, borg and casync."""
import os
import shutil

from . import part_resume
from .machine import median, tree_size, warm
from .store import Cost, command, fresh, init, stored, sync_disk

GB = 1e9


def ours(cfg, run, where):
    store = init(cfg)
    with Cost() as cost:
        command(cfg.ckptfs, "import", f"{store}/run", run)
    return cost, stored(store)


def ours_derived(cfg, run, where):
    store = init(cfg)
    with Cost() as cost:
        command(cfg.ckptfs, "import", f"{store}/run", run)
        command(cfg.ckptfs, "gc", store)
    return cost, stored(store)


def restic(cfg, run, where):
    env = {"RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": f"{where}.cache"}
    command("restic", "init", "-r", where, env=env)
    with Cost() as cost:
        command("restic", "-r", where, "backup", run, env=env)
        sync_disk(cfg.work)
    shutil.rmtree(f"{where}.cache")
    return cost, tree_size(where)


def borg(how):
    def run_borg(cfg, run, where):
        env = {"BORG_BASE_DIR": f"{where}.base"}
        command("borg", "init", "-e", "none", where, env=env)
        with Cost() as cost:
            command("borg", "create", "-C", how, f"{where}::a", run, env=env)
            sync_disk(cfg.work)
        shutil.rmtree(f"{where}.base")
        return cost, tree_size(where)
    return run_borg


def casync(cfg, run, where):
    os.makedirs(where)
    with Cost() as cost:
        command("casync", "make", f"--store={where}/chunks.castr",
                f"{where}/a.caidx", run)
        sync_disk(cfg.work)
    return cost, tree_size(where)


TOOLS = {"restic": restic, "borg lz4": borg("lz4"),
         "borg zstd,1": borg("zstd,1"), "casync": casync}


def measure(cfg, table):
    run = part_resume.trained(cfg)
    size = tree_size(run)
    warm(run)
    tools = {"ckptfs": ours, "ckptfs, derived": ours_derived}
    for name, tool in TOOLS.items():
        if shutil.which(name.split()[0]):
            tools[name] = tool
        else:
            print(f"  {name} is not installed: left out")
    got = {name: [] for name in tools}
    for _ in range(cfg.runs):
        for name, tool in tools.items():
            where = fresh(f"{cfg.work}/rival")
            cost, kept = tool(cfg, run, where)
            got[name].append((cost.seconds, cost.cpu, kept))
            fresh(where)

    def mid(name, i):
        return median([g[i] for g in got[name]])
    for name in tools:
        if name == "ckptfs":
            continue
        mine = "ckptfs, derived" if "derived" in name else "ckptfs"
        if name == mine:
            table.add("ckptfs with derived bf16 and gc: ratio", "",
                      size / mid(name, 2), target=">= 1.30", digits=3)
            table.add("  CPU seconds per GB", "", mid(name, 1) * GB / size,
                      unit=" s")
            continue
        table.add(f"{name}: rate", size / GB / mid(name, 0),
                  size / GB / mid(mine, 0), unit=" GB/s",
                  target=">= 3 of the fastest")
        table.add("  CPU seconds per GB", mid(name, 1) * GB / size,
                  mid(mine, 1) * GB / size, unit=" s",
                  target="<= 0.5" if "borg" in name else "")
        table.add("  ratio", size / mid(name, 2), size / mid(mine, 2),
                  digits=3, target="> 1")
