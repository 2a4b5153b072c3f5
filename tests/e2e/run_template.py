#!/usr/bin/env python3
"""Templates filled from steps that GPT-NeoX, or Megatron-DeepSpeed, wrote.

All directories of one model (tests/data/neox.tar.xz) hold one logical state.
Each, with every tensor and counter overwritten, is a template; filled from each
other one it must be what GPT-NeoX wrote there, or be refused where the
checkpoint does not decide it.

    run_template.py                 pairs that cover all pairs of topologies'
                                    parts
    run_template.py --all           every pair
    run_template.py --only SRC TGT  these
    run_template.py --megatron      every pair of tests/data/mds.tar.xz instead
"""
import argparse
import itertools
import json
import os
import shutil
import sys
import tarfile
import tempfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import neox_pairs  # noqa: E402
import run_mds  # noqa: E402
import run_neox  # noqa: E402
from oracle import compare, product  # noqa: E402

TAG = run_neox.TAG
# What training changes, wherever it is; each gets another value.
COUNTERS = {"iteration", "global_steps", "global_samples", "skipped_steps",
            "num_iters", "step", "cur_iter", "last_overflow_iter"}


def spoil(value, seen, key=None):
    """@value with all that training made replaced, in place where it can.
    Weights stay the rounded masters: without ZeRO that is how they are
    told apart."""
    if isinstance(value, torch.Tensor):
        if value.numel() and value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            with torch.no_grad():
                if value.dtype == torch.uint8:
                    value.fill_(1)
                elif str(key).startswith("exp_avg"):
                    value.fill_(-7)
                else:
                    value.neg_()
        return value
    if isinstance(value, dict):
        for k in value:
            if k not in ("ds_config", "args"):
                value[k] = spoil(value[k], seen, k)
        return value
    if isinstance(value, list):
        value[:] = [spoil(v, seen) for v in value]
        return value
    if hasattr(value, "cur_scale"):
        spoil(vars(value), seen)
        return value
    if key == "cur_scale" and value != 1:
        return 3.0
    if key == "lr":
        return 123.0
    if key in COUNTERS and isinstance(value, int) \
            and not isinstance(value, bool):
        # a 0 in param_groups is DeepSpeed's own and stays one
        return value + 1000 if value or key != "step" else value
    return value


def make_template(saved, out):
    shutil.copytree(saved, out)
    for dirpath, _, names in os.walk(out):
        for name in names:
            if name.endswith(".pt"):
                path = os.path.join(dirpath, name)
                tree = torch.load(path, map_location="cpu",
                                  weights_only=False)
                torch.save(spoil(tree, set()), path)


def items(s, t):
    """What no checkpoint tells of how ranks share a model."""
    if s["tp"] == t["tp"]:
        return []
    if "family" not in t:
        return ["--as", f"vocab{t['vocab']}"]
    out = [f"vocab{t['vocab']}"]
    if t["family"] == "llama":
        out.append("qkvheads" if "oldgqa" in t["model"] else "qkvparts")
    else:
        out.append("biassum" if t["family"] == "pythia" else "biassame")
    return ["--as", "-".join(out)]


def differences(root, tgt, s, t, got):
    if "family" in t:
        return run_neox.differences(root, tgt, s, t, got)
    for name in (".ckptfs-export.json", "latest"):
        if os.path.exists(f"{got}/{name}"):
            os.unlink(f"{got}/{name}")
    lines = compare.compare_dirs(f"{root}/{tgt}/{TAG}", got)
    return [x for x in lines if not run_mds.OF_A_PROCESS.search(x)]


def why_not(s, t):
    if "family" not in t:
        # Megatron-DeepSpeed names parameters of a model without pipeline
        # otherwise
        return "the template does not fit" \
            if bool(s["pp"]) != bool(t["pp"]) else None
    if t["writer"] == "neox1":
        return "is elastic"
    why = neox_pairs.why_not(s, t)
    # by name: what stages have of their own is only in one of both
    return "the template does not fit" \
        if why == "relative positions" and s["tp"] == t["tp"] else why


def check(root, names, src, tgt):
    """None, or what is wrong."""
    s, t = names[src], names[tgt]
    run, out = f"{root}/{src}", tempfile.mkdtemp(prefix="ckptfs-template-")
    like = f"{root}/like/{tgt}"
    try:
        if not os.path.isdir(like):
            make_template(f"{root}/{tgt}/{TAG}", like)
        done = product.run("view", "add", run, "filled", "--like", like,
                           *items(s, t))
        why = why_not(s, t)
        if why:
            if done.returncode and why in done.stderr:
                return None
            return f"not refused for {why!r}: {done.stderr.strip()}"
        if not done.returncode:
            done = product.run("export", f"{run}/@filled/{TAG}", f"{out}/step")
        if done.returncode:
            return done.stderr.strip()
        lines = differences(root, tgt, s, t, f"{out}/step")
        return "\n    ".join(lines[:6]) if lines else None
    finally:
        shutil.rmtree(out)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--only", nargs=2, metavar=("SRC", "TGT"))
    ap.add_argument("--megatron", action="store_true")
    args = ap.parse_args()
    if args.megatron:
        sys.meta_path.insert(0, run_mds.Unpickled())
        with open(os.path.join(neox_pairs.DATA, "mds.json")) as f:
            names = json.load(f)
        pairs = [p for p in itertools.permutations(sorted(names), 2)
                 if names[p[0]]["model"] == names[p[1]]["model"]]
    else:
        names = neox_pairs.manifest()
        pairs = neox_pairs.all_pairs(names)
    if args.only:
        pairs = [tuple(args.only)]
    elif not args.all and not args.megatron:
        pairs = neox_pairs.covering(names, pairs)
    root = tempfile.mkdtemp(prefix="ckptfs-template-")
    os.environ["CKPTFS_CACHE_DIR"] = os.path.join(root, "cache")
    bad = refused = 0
    try:
        with tarfile.open(os.path.join(
                neox_pairs.DATA,
                "mds.tar.xz" if args.megatron else "neox.tar.xz")) as tar:
            tar.extractall(root, filter="data")
        for src, tgt in pairs:
            wrong = check(root, names, src, tgt)
            if wrong:
                bad += 1
                print(f"FAILED   {src} filling {tgt}\n    {wrong}", flush=True)
            refused += why_not(names[src], names[tgt]) is not None
    finally:
        shutil.rmtree(root)
    print(f"{len(pairs) - bad} passed, {bad} failed ({refused} refused as they "
          "must be)")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
