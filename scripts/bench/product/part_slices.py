"""Ranks of a view at other tensor, pipeline and data-parallel sizes, together
and alone, beside native files of the same mount."""
import json
import os
import random

from .machine import Mount, median, neox_step, neox_tool, read_rate, warm
from .store import command, init

STEP = "global_step1000"
OPTIM = "zero_pp_rank_{}_mp_rank_{:02d}_optim_states.pt"
# what ranks share: rows lie together, of columns each row has a piece
KINDS = (("rows", "2.mlp.linear1.weight"), ("columns", "2.mlp.linear2.weight"))


def prepare(cfg):
    return neox_step(cfg, "slices/run", "--model", "wide", "--tp", 1, "--pp",
                     1, "--dp", 4, "--dense")


def native(step, readers):
    """As many of the source's files; they are 800 MB each."""
    return [f"{step}/{OPTIM.format(r, 0)}" for r in range(readers)]


def pair(cfg, source, run, paths, part):
    """Of view and native files, each in a new mount: GB/s, and CPU seconds
    of the daemon and the readers for a GB."""
    got, readers = {}, len(paths)
    for key in random.sample(("view", "native"), 2):
        with Mount(cfg, source) as m:
            files = [f"{m.dir}/{p}" for p in paths] if key == "view" \
                else native(f"{m.dir}{run}/{STEP}", readers)
            size = sum(part[1] if part else os.stat(f).st_size
                       for f in files)  # planned, too
            before = m.cpu()
            rate, client = read_rate(cfg, files, readers, part)
            got[key] = rate, 1e9 * (m.cpu() - before + client) / size
    return got


def row(cfg, table, source, run, what, paths, target, part=None):
    got = [pair(cfg, source, run, paths, part) for _ in range(2 * cfg.runs)]
    for i, name, unit, goal in ((0, what, " GB/s", target),
                                (1, "  CPU per GB", " s", "")):
        view, rival = ([g[k][i] for g in got] for k in ("view", "native"))
        table.add(name, median(rival), median(view), unit=unit, target=goal,
                  ratio=median([v / n for v, n in zip(view, rival)]))


def parts(cfg, source, path):
    """Where each kind's moment lies in a view's file."""
    with Mount(cfg, source) as m:
        at = json.loads(neox_tool(cfg, "where", f"{m.dir}/{path}", "exp_avg",
                               *[name for _, name in KINDS]))
    return [(kind, at[name]) for kind, name in KINDS]


def rows(cfg, table, source, run, where):
    """@run: of the source in the mount, "" or "/NAME"."""
    step = f"{run}/{STEP}".lstrip("/")
    for tp in (2, 4):
        view = f"{step}/@tp{tp}-dp1-vocab8192"
        files = [f"{view}/{OPTIM.format(0, t)}" for t in range(tp)]
        kinds = [("optimizer files", None)] + parts(cfg, source, files[0])
        for kind, part in kinds:
            row(cfg, table, source, run,
                f"{where}, tp{tp}: {tp} readers together, {kind}", files,
                ">= 0.50", part)
            row(cfg, table, source, run,
                f"{where}, tp{tp}: one reader, {kind}", files[:1],
                f">= {1.5 / tp:.2f}", part)
    for what, view, files in (
            ("pipeline @pp2, 2 readers", "@pp2-dp2", [(0, 0), (1, 0)]),
            ("data-parallel @dp2, 2 readers", "@dp2", [(0, 0), (1, 0)])):
        row(cfg, table, source, run, f"{where}, {what}",
            [f"{step}/{view}/{OPTIM.format(*f)}" for f in files], ">= 0.80")


def measure(cfg, table):
    run = prepare(cfg)
    warm(run)
    rows(cfg, table, run, "", "directory")
    store = init(cfg, "slices/store")
    command(cfg.ckptfs, "import", f"{store}/a", run)
    warm(f"{store}/packs")
    rows(cfg, table, store, "/a/run", "store")
