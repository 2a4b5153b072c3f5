"""The commit of a save by 2,816 ranks of 500 tensors: planning and metadata."""
import json
import os
import shutil
import subprocess

from .machine import median
from .store import command, fresh

CASES = (("files", "slices", "one file a rank"),
         ("universal", "slices", "a piece of each tensor a rank"),
         ("deepspeed", "slices", "a piece of each tensor a rank"),
         ("deepspeed", "partition", "a ZeRO partition a rank"))
PHASES = (("group", "puts to tensors"),
          ("sync", "made durable"))


def bench(cfg):
    """Where the product was built; it is part of no default build."""
    bin_dir = os.path.dirname(os.path.abspath(cfg.ckptfs))
    subprocess.run(["cmake", "--build", os.path.dirname(bin_dir), "--target",
                    "commitbench"], check=True, stdout=subprocess.DEVNULL)
    return f"{bin_dir}/commitbench"


def case(cfg, table, program, kind, layout, words):
    got = []
    for _ in range(cfg.runs):
        store = fresh(f"{cfg.work}/commit")
        got.append(json.loads(command(program, store, kind, "layout", layout)))
        shutil.rmtree(store)
    mid = {k: median([g[k] for g in got]) for k, v in got[0].items()
           if not isinstance(v, str)}
    table.add(f"commit as {kind}, {words}: {mid['puts']:.0f} puts", "",
              mid["commit"], unit=" s", target="<= 1 s")
    table.add("  CPU", "", mid["cpu"], unit=" s")
    for key, what in PHASES:
        table.add(f"  {what}", "", mid[key], unit=" s")


def measure(cfg, table):
    program = bench(cfg)
    for kind, layout, words in CASES:
        case(cfg, table, program, kind, layout, words)
