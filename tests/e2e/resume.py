#!/usr/bin/env python3
"""Resume from views with unmodified DeepSpeed and compare the losses.

Each case trains at one topology, saves, and goes on: the reference.  Then a
fresh engine at another topology loads the view of that run through a mount
and trains the same steps on the same data (a fixed global batch, divided
among the ranks).

How near must the losses be?  Two runs from the same start at the two
topologies, without any checkpoint, differ too: gradients are summed in
another order, and in 16 bits.  That difference is measured in each case
("topology"); the view may differ by no more than NOISE times as much, plus a
floor of rounding.  And the test must be able to fail: resuming with the
moments zeroed ("no moments") must be farther away than allowed.

Stage 0 of DeepSpeed 0.19.8 differs from the other stages by itself: 16-bit
optimizers count a dummy step at their start, and fp16 divides gradients by a
loss scale that it never multiplied by.  So where stage 0 takes part the
topology's noise is measured within the source's class, and with fp16 the loss
scale starts at 1.
"""
import argparse
import dataclasses
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from oracle import config, framework, pairs, product, truth  # noqa: E402

BEFORE, AFTER = 6, 6
FLOOR = {"fp32": 1e-6, "fp16": 5e-5, "bf16": 3e-4}
NOISE = 2
CASES = (
    ("fp32-g2_z1-dp4", "z1-dp2"),
    ("fp32-g3-frozen-tied_z1-dp3", "z3-dp2-sub12"),
    ("fp32-g2-frozen_z2-dp3-rr", "z1-dp5"),
    ("fp32-g2-tied_z3-dp4-sub12", "z2-dp3-rr"),
    ("fp32-g3-fused_z3-dp2", "z3-dp5-sub12"),
    ("fp32-g1-named_z0-dp2", "z1-dp4"),
    ("fp32-g2_z2-dp3", "z0-dp2"),
    ("fp32-g2_z1-dp2-legacy", "z2-dp8"),
    ("fp32-g2_z1-dp2-align", "z1-dp3-align"),
    ("bf16-g2-frozen-tied_bf16opt-dp4", "bf16opt-dp3"),
    ("bf16-g2-fused_bf16opt-dp2", "z3-dp4"),
    ("bf16-g3-tied_z1-dp4", "bf16opt-dp2"),
    ("bf16-g1-fused_z0-dp2", "z1-dp3"),
    ("fp16-g2-frozen_z1-dp2", "z2-dp4-rr"),
    ("fp16-g2-scale0_z0-dp2", "z3-dp3"),
    ("fp16-g1-fused-scale0_z3-dp2", "z0-dp4"),
)
IN_CI = 9  # of CASES, spread evenly


def _losses(cfg, engine, rank, world, steps):
    return [truth.train_step(cfg, engine, s, rank, world) for s in steps]


def _reference(rank, world, cfg, run_dir):
    engine = truth.make_engine(cfg)
    _losses(cfg, engine, rank, world, range(BEFORE))
    if run_dir:
        engine.save_checkpoint(run_dir, client_state={"done": BEFORE})
    return _losses(cfg, engine, rank, world, range(BEFORE, BEFORE + AFTER))


def _resume(rank, world, cfg, load_dir, moments):
    engine = truth.make_engine(cfg)
    path, client = engine.load_checkpoint(load_dir)
    assert path, f"nothing was loaded from {load_dir}"
    assert client["done"] == BEFORE and engine.global_steps == BEFORE
    if not moments:
        opt = engine.optimizer
        for state in getattr(opt, "optimizer", opt).state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name].zero_()
    return _losses(cfg, engine, rank, world, range(BEFORE, BEFORE + AFTER))


def worst(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def same_arithmetic(source, target):
    """A run without checkpoints that shows what the topology alone does."""
    if "z0" in (source.cls, target.cls):
        return dataclasses.replace(source, dp=target.dp)
    return target


def check(source, target, runs, mnt):
    """(line to print, passed)"""
    view = pairs.view_name(source, target)
    run_dir = os.path.join(runs, source.name())
    want = framework.run(source.dp, _reference, source, run_dir)[0]
    native = framework.run(target.dp, _reference,
                           same_arithmetic(source, target), None)[0]
    load = os.path.join(mnt, source.name(), view)
    got = framework.run(target.dp, _resume, target, load, True)[0]
    bad = framework.run(target.dp, _resume, target, load, False)[0]
    noise, diff, power = (worst(want, x) for x in (native, got, bad))
    limit = NOISE * noise + FLOOR[source.prec]
    ok = diff <= limit < power
    why = "" if ok else (" (the test has no power)" if diff <= limit
                         else " (another loss)")
    return (f"{source.name()} {view}: loss {got[0]:.6f} .. {got[-1]:.6f}, "
            f"view {diff:.1e} allowed {limit:.1e}, topology {noise:.1e}, "
            f"no moments {power:.1e}{why}", ok)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--all", action="store_true", help="not only CI's cases")
    ap.add_argument("--only", help="a part of a name")
    args = ap.parse_args()
    why = product.why_fuse_is_missing()
    if why:
        print(f"skipped: {why}\n0 passed, 0 failed, 1 skipped")
        return 0
    cases = [(config.parse(s), config.parse(f"{s.split('_')[0]}_{t}"))
             for s, t in CASES]
    if args.only:
        cases = [c for c in cases if args.only in f"{c[0].name()} "
                 f"{c[1].name()}"]
    elif not args.all:
        cases = [cases[i * len(cases) // IN_CI] for i in range(IN_CI)]
    work = tempfile.mkdtemp(prefix="ckptfs-resume-")
    runs = os.path.join(work, "runs")
    os.mkdir(runs)
    passed = 0
    try:
        with product.mounted(runs, os.path.join(work, "mnt")) as mnt:
            for source, target in cases:
                try:
                    line, ok = check(source, target, runs, mnt)
                except framework.RankError as err:
                    line, ok = f"{source.name()} {target.name()}: {err}", False
                print("ok     " if ok else "FAILED ", line, flush=True)
                passed += ok
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
