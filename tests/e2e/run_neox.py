#!/usr/bin/env python3
"""Views of steps that GPT-NeoX itself wrote (tests/data/neox.tar.xz).

All directories of one model hold one logical state.  The view of each at the
topology of each other must be what GPT-NeoX wrote there, or be refused where
the checkpoint does not decide it.

    run_neox.py                 pairs that cover all pairs of topologies' parts
    run_neox.py --all           every pair
    run_neox.py --only SRC TGT  these
"""
import argparse
import itertools
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
sys.path.insert(0, HERE)

import neox_old  # noqa: E402
from oracle import compare, product  # noqa: E402

TAG = "global_step2"
# What a step cannot tell of ranks it did not have: each rank's own generators.
OTHERS_RNG = re.compile(r"rng_state|rng_tracker_states")
# torch's own note of module versions, which layer files do not have.
METADATA = re.compile(r"_metadata")


def manifest():
    with open(os.path.join(DATA, "neox.json")) as f:
        return json.load(f)


def view_name(s, t):
    """What to ask of @s to get @t.  GPT-NeoX 2.0 has a single stage in
    sequence."""
    pp = 0 if t["writer"] == "neox2" and t["pp"] == 1 else t["pp"]
    items = [f"tp{t['tp']}", f"pp{pp}", f"dp{t['dp']}"]
    stage = 1 if t["class"] == "bf16opt" else int(t["class"][1:])
    if s["class"] != t["class"]:
        items.append(f"zero{stage}")
        if t["class"] == "bf16opt":
            items.append("bf16opt")
        elif t["class"] == "z1":
            items.append("zeroopt")
    if stage in (1, 2) and t["class"] != "bf16opt" \
            and s["round_robin"] != t["round_robin"]:
        items.append("rr" if t["round_robin"] else "norr")
    if s["tp"] != t["tp"]:
        items.append(f"vocab{t['vocab']}")
        if t["family"] == "llama":
            items.append("qkvheads" if "oldgqa" in t["model"] else "qkvparts")
        else:
            items.append("biassum" if t["family"] == "pythia" else "biassame")
    return "@" + "-".join(items)


def why_not(s, t):
    """A part of the reason why this view is refused, or None."""
    tp, pp = s["tp"] != t["tp"], s["pp"] != t["pp"]
    if "qknorm" in s["model"] and tp:
        return "query and key norms"
    if "rpe" in s["model"] and (tp or pp):
        return "relative positions"
    return None


def cannot_be_asked(s, t):
    """Of a name alone: these need options of a named view, or are other
    releases' own."""
    return t["partition_method"] != s["partition_method"] \
        or s["align"] != t["align"] or t["writer"] != s["writer"]


def differences(s, t, want, got):
    lines = compare.compare_dirs(want, got)
    lines = getattr(lines, "lines", lines)
    same_ranks = (s["tp"], s["pp"]) == (t["tp"], t["pp"])
    return [x for x in lines
            if not (not same_ranks and OTHERS_RNG.search(x))
            and not (s["pp"] and not t["pp"] and METADATA.search(x))]


def check(root, names, src, tgt):
    """None, or what is wrong."""
    s, t = names[src], names[tgt]
    out = tempfile.mkdtemp(prefix="ckptfs-neox-")
    try:
        done = product.run("export", f"{root}/{src}/{TAG}/{view_name(s, t)}",
                           f"{out}/step")
        why = why_not(s, t)
        if why:
            if done.returncode and why in done.stderr:
                return None
            return f"not refused for {why!r}: {done.stderr.strip()}"
        if done.returncode:
            return done.stderr.strip()
        for name in (".ckptfs-export.json", "latest"):
            if os.path.exists(f"{out}/step/{name}"):
                os.unlink(f"{out}/step/{name}")
        truth = f"{root}/{tgt}/{TAG}"
        lines = neox_old.differences(tgt, truth, f"{out}/step") \
            if t["writer"] == "neox1" \
            else differences(s, t, truth, f"{out}/step")
        return "\n    ".join(lines[:6]) if lines else None
    finally:
        shutil.rmtree(out)


FACTORS = ("family", "precision", "class", "tp", "pp", "dp")


def covering(names, pairs):
    """Pairs until each pair of parts' values that any has was met."""
    def parts(pair):
        s, t = names[pair[0]], names[pair[1]]
        values = [(f"s{k}", s[k]) for k in FACTORS] \
            + [(f"t{k}", t[k]) for k in FACTORS] + [("model", s["model"])]
        return set(itertools.combinations(values, 2))
    left = set().union(*map(parts, pairs))
    out = []
    while left:
        best = max(pairs, key=lambda p: len(parts(p) & left))
        out.append(best)
        left -= parts(best)
    return out


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--only", nargs=2, metavar=("SRC", "TGT"))
    args = ap.parse_args()
    names = manifest()
    pairs = [(a, b) for a, b in itertools.permutations(sorted(names), 2)
             if names[a]["model"] == names[b]["model"]
             and not cannot_be_asked(names[a], names[b])]
    if args.only:
        pairs = [tuple(args.only)]
    elif not args.all:
        pairs = covering(names, pairs)
    root = tempfile.mkdtemp(prefix="ckptfs-neox-")
    bad = refused = 0
    try:
        with tarfile.open(os.path.join(DATA, "neox.tar.xz")) as tar:
            tar.extractall(root, filter="data")
        for src, tgt in pairs:
            wrong = check(root, names, src, tgt)
            name = view_name(names[src], names[tgt])
            if wrong:
                bad += 1
                print(f"FAILED   {src} {name} = {tgt}\n    {wrong}")
            refused += why_not(names[src], names[tgt]) is not None
    finally:
        shutil.rmtree(root)
    print(f"{len(pairs) - bad} passed, {bad} failed ({refused} refused as they "
          "must be)")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
