#!/usr/bin/env python3
"""Views of steps that old DeepSpeed releases wrote (tests/data).

tests/data/deepspeed-VERSION/MODEL_TOPOLOGY/ are directories that the release
itself wrote; those of one model hold one logical state.  The view of each, at
the topology of each other one, must equal it, and today's DeepSpeed must load
it and find the state.
"""
import argparse
import itertools
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
sys.path.insert(0, HERE)

from oracle import compare, config, framework, pairs  # noqa: E402
from oracle import product, selfcheck, truth  # noqa: E402
from oracle.config import TAG  # noqa: E402
from oracle.state import STEP  # noqa: E402


def cases():
    """[(version, source, target)]"""
    out = []
    for version in sorted(os.listdir(DATA)):
        if not version.startswith("deepspeed-"):
            continue
        names = sorted(os.listdir(os.path.join(DATA, version)))
        for a, b in itertools.permutations(names, 2):
            s, t = config.parse(a), config.parse(b)
            if s.model_name() == t.model_name():
                out.append((version, s, t))
    return out


def as_written(version, cfg):
    """The class as that release has it: bf16 without ZeRO was
    BF16_Optimizer's up to 0.18.4."""
    if cfg.cls == "z0" and cfg.prec == "bf16":
        return config.dataclasses.replace(cfg, cls="bf16opt")
    return cfg


# Elastic files of 0.5.9 do not say how many steps were taken, nor how much
# padding was cut off; today's loader asks for both, so a view has them.
ADDED_TO_ELASTIC = {"step": STEP, "base_optimizer_state_step": STEP,
                    "group_paddings": None}


def load(rank, world, cfg, run_dir):
    """In a rank of today's release: the state of the view, by its getters."""
    engine = truth.make_engine(cfg)
    path, client = engine.load_checkpoint(run_dir)
    assert path and client["iteration"] == STEP
    assert engine.global_steps == STEP
    selfcheck.check_values(cfg, engine)


def check(version, s, t, work):
    old = os.path.join(DATA, version)
    view = pairs.view_name(as_written(version, s), as_written(version, t))
    out = os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    try:
        product.export(os.path.join(old, s.name(), view), out)
    except product.Refused as err:
        why = pairs.why_refused(s, t)
        return view, "refused" if why else "FAILED", [why or f"refused: {err}"]
    want = os.path.join(old, t.name(), TAG)
    lines = compare.compare_dirs(want, os.path.join(out, TAG),
                                 added=ADDED_TO_ELASTIC if s.elastic else {})
    try:
        framework.run(t.dp, load, as_written(version, t), out)
    except framework.RankError as err:
        lines.append(f"today's release cannot load it: {err}")
    return view, "FAILED" if lines else "ok", lines


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--only", help="a part of a version or name")
    args = ap.parse_args()
    passed = failed = 0
    work = tempfile.mkdtemp(prefix="ckptfs-golden-")
    try:
        for version, s, t in cases():
            if args.only and args.only not in f"{version} {s.name()}":
                continue
            try:
                view, result, lines = check(version, s, t, work)
            except Exception as err:  # one broken case must not hide others
                view, result, lines = "", "FAILED", [f"{err}"]
            print(f"{result:8} {version} {s.name()} {view}"
                  f" = {t.topology_name()}")
            if result == "FAILED":
                for line in lines[:8]:
                    print("         ", line)
            failed += result == "FAILED"
            passed += result != "FAILED"
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
