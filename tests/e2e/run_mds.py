#!/usr/bin/env python3
"""Views of steps that Megatron-DeepSpeed itself wrote (tests/data/mds.tar.xz).

All directories of one model hold one logical state; the view of each at the
topology of each other must be what Megatron-DeepSpeed wrote there.

    run_mds.py                 every pair
    run_mds.py --only SRC TGT  one
"""
import argparse
import enum
import importlib.abc
import importlib.machinery
import itertools
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import types

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
sys.path.insert(0, HERE)

from oracle import compare, product  # noqa: E402

TAG = "global_step2"
# What a step cannot tell of ranks it did not have, nor a view know of the job:
# generators, which process wrote the file, how the batch is shared out.
OF_A_PROCESS = re.compile(
    r"rng_state|rng_tracker_states|args\.__dict__\.(rank|local_rank|"
    r"world_size|data_parallel_size|deepspeed_config_dict|transformer_"
    r"pipeline_model_parallel_size|consumed_\w+)\b")


class Unpickled(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Megatron's own classes in `args`, which are enumerations."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "megatron":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        class Names(types.ModuleType):
            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                kind = enum.IntEnum(name, [f"value{i}" for i in range(1, 9)],
                                    module=self.__name__)
                setattr(self, name, kind)
                return kind
        return Names(spec.name)

    def exec_module(self, module):
        pass


def view_name(t):
    return f"@tp{t['tp']}-pp{t['pp']}-dp{t['dp']}"


def check(root, names, src, tgt):
    """None, or what is wrong."""
    t = names[tgt]
    out = tempfile.mkdtemp(prefix="ckptfs-mds-")
    try:
        done = product.run("export", f"{root}/{src}/{TAG}/{view_name(t)}",
                           f"{out}/step")
        if done.returncode:
            return done.stderr.strip()
        for name in (".ckptfs-export.json", "latest"):
            if os.path.exists(f"{out}/step/{name}"):
                os.unlink(f"{out}/step/{name}")
        lines = compare.compare_dirs(f"{root}/{tgt}/{TAG}", f"{out}/step")
        lines = [x for x in getattr(lines, "lines", lines)
                 if not OF_A_PROCESS.search(x)]
        return "\n    ".join(lines[:6]) if lines else None
    finally:
        shutil.rmtree(out)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", nargs=2, metavar=("SRC", "TGT"))
    args = ap.parse_args()
    sys.meta_path.insert(0, Unpickled())
    with open(os.path.join(DATA, "mds.json")) as f:
        names = json.load(f)
    pairs = [(a, b) for a, b in itertools.permutations(sorted(names), 2)
             if names[a]["model"] == names[b]["model"]]
    if args.only:
        pairs = [tuple(args.only)]
    root = tempfile.mkdtemp(prefix="ckptfs-mds-")
    bad = 0
    try:
        with tarfile.open(os.path.join(DATA, "mds.tar.xz")) as tar:
            tar.extractall(root, filter="data")
        for src, tgt in pairs:
            wrong = check(root, names, src, tgt)
            if wrong:
                bad += 1
                print(f"FAILED   {src} {view_name(names[tgt])} = {tgt}\n"
                      f"    {wrong}")
    finally:
        shutil.rmtree(root)
    print(f"{len(pairs) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
