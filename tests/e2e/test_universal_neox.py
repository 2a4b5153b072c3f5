#!/usr/bin/env python3
"""@universal of what GPT-NeoX wrote (tests/data/neox.tar.xz).

  load    the view, loaded by the unmodified framework at another topology and
          saved again, is what GPT-NeoX wrote there
  fail    what may be loaded by one tensor-parallel rank alone fails on more
  read    the view, written out, is the source of views that are what GPT-NeoX
          wrote at every other topology of the model
"""
import argparse
import os
import re
import shutil
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import neox_pairs  # noqa: E402
from oracle import compare, framework, product, shapes  # noqa: E402
from test_universal import only_order  # noqa: E402

TARBALL = os.path.join(HERE, "..", "data", "neox.tar.xz")
TAG = "global_step2"
# (source, view, target, its tp, pp, last layer, ranks).  A vocabulary that is
# told has its padding dropped, and what is there instead is zero: so none is,
# or one that needs no padding.
LOADED = (
    ("gpt2-bf16_tp2-pp1-dp2", "universal-pp2", "gpt2-bf16_tp2-pp2-dp1",
     2, 2, 8, 4),
    ("pythia-fp16_tp1-pp1-dp2", "universal-tp2", "pythia-fp16_tp2-pp1-dp1",
     2, 1, 8, 2),
    ("llama-bf16_tp1-pp2-dp1-bf16opt", "universal-tp2-qkvparts",
     "llama-bf16_tp2-pp2-dp2", 2, 2, 8, 8),
    # nothing is cut, so who shares keys need not be told
    ("llama-bf16_tp1-pp2-dp1-bf16opt", "universal-pp1",
     "llama-bf16_tp1-pp1-dp2", 1, 1, 8, 2),
    ("llama-bf16_tp1-pp0-dp2-z3", "universal-pp4", "llama-bf16_tp1-pp4-dp2",
     1, 4, 8, 8),
)
# Into stages that have no pipeline.  That the loader gives all groups of stage 3
# one weight decay is in what is not compared.
LOADED += tuple((source, view, target, 1, 0, 8, 2) for source, view, target in (
    ("llama-bf16_tp1-pp4-dp2", "universal-pp0", "llama-bf16_tp1-pp0-dp2"),
    ("llama-bf16_tp2-pp2-dp2", "universal-tp1-pp0-vocab64-qkvparts",
     "llama-bf16_tp1-pp0-dp2-z3"),
    ("llama-bf16_tp1-pp0-dp2-z2-rr", "universal", "llama-bf16_tp1-pp0-dp2-z3"),
    ("gpt2-bf16_tp2-pp4-dp1", "universal-tp1-pp0-vocab64",
     "gpt2-bf16_tp1-pp0-dp2"),
    ("pythia-fp16_tp1-pp4-dp1", "universal-pp0", "pythia-fp16_tp1-pp0-dp2-z2"),
))
FAIL = (("llama-bf16_tp1-pp2-dp1-bf16opt", "universal-pp2",
         "llama-bf16_tp2-pp2-dp2", 2, 2, 8, 8),)
# (source, its view)
READ = (
    ("llama-bf16_tp2-pp4-dp1", "universal-qkvparts"),
    ("llama-bf16_tp1-pp0-dp2-z2-rr", "universal"),
    ("llama-bf16_tp1-pp0-dp2-z3", "universal"),
    ("llama-bf16_tp4-pp1-dp1", "universal-pp0-qkvparts"),
    ("gpt2-bf16_tp4-pp2-dp1-bf16opt", "universal"),
    ("gpt2-bf16_tp1-pp0-dp2", "universal-pp2"),
    ("gpt2-fp16-odd_tp2-pp2-dp1", "universal-vocab60"),
    ("gpt2-fp16-odd_tp1-pp0-dp1", "universal-vocab60"),
    ("gpt2-fp16-odd_tp1-pp4-dp1", "universal-pp1-vocab60"),
    ("llama-fp16-odd_tp4-pp0-dp2", "universal-vocab60-qkvparts"),
    ("gpt2-fp16-deeper_tp1-pp4-dp1", "universal"),
    ("llama-bf16-oldgqa_tp2-pp2-dp1", "universal-qkvheads"),
)
# Of the job, not of the state: the optimizer that the engine was made with, the
# scheduler, buffers, how modules were numbered, and what differs from rank to
# rank by chance.
JOBS = ("rng", "_metadata", "param_groups", ".lr_scheduler", "buffer_names",
        "ds_id")
BUFFER = re.compile(r"'[^']*attention\.rotary_[^']*', ")  # of a real model
# Not in a universal checkpoint; and what the modules of a job were numbered.
NOT_THERE = ("rng", "_metadata", "ds_id")


def unpack(work, *names):
    top = os.path.join(work, "neox")
    todo = [n for n in names if not os.path.isdir(os.path.join(top, n))]
    if todo:
        with tarfile.open(TARBALL) as tar:
            tar.extractall(top, [m for m in tar
                                 if m.name.split("/")[0] in todo])
    return [os.path.join(top, n) for n in names]


def state_only(lines, others):
    """Names and order of files and keys do not matter to a loader by name."""
    return [line for line in lines
            if not only_order(BUFFER.sub("", line))
            and not any(other in line for other in others)
            and not line.startswith("files missing ['configs']")]


def show(source, view, target, work):
    """(what the view shows, what the target is, where to save)"""
    run, want = unpack(work, source, target)
    out, saved = (os.path.join(work, n) for n in ("shown", "saved"))
    for top in (out, saved):
        shutil.rmtree(top, ignore_errors=True)
    product.export(os.path.join(run, "@" + view), out)
    return out, os.path.join(want, TAG), saved


def load(source, view, target, tp, pp, last, world, work):
    out, want, saved = show(source, view, target, work)
    framework.run(world, shapes.load_and_save, want, tp, pp, last,
                  "type:transformer|mlp", out, saved, TAG)
    return state_only(compare.compare_dirs(want, os.path.join(saved, TAG)),
                      JOBS)


def fail(source, view, target, tp, pp, last, world, work):
    out, want, saved = show(source, view, target, work)
    try:
        framework.run(world, shapes.load_and_save, want, tp, pp, last,
                      "type:transformer|mlp", out, saved, TAG)
    except framework.RankError as err:
        return [] if "IndexError" in str(err) else [str(err)]
    return ["loads"]


def request(t):
    """All that a target's topology is; nothing is taken from the source."""
    items = [f"tp{t['tp']}", f"pp{t['pp']}", f"dp{t['dp']}"]
    if t["class"] == "bf16opt":
        items += ["zero1", "bf16opt"]
    else:
        items.append(f"zero{t['class'][1:]}")
        items += ["zeroopt"] * (t["class"] == "z1")
        if t["class"] in ("z1", "z2"):
            items.append("rr" if t["round_robin"] else "norr")
    items.append(f"vocab{60 if t['vocab'] == 60 else t['padded_vocab']}")
    if t["family"] == "llama":
        items.append("qkvheads" if "oldgqa" in t["model"] else "qkvparts")
    if t["family"] == "gpt2":
        items.append("biassame")
    return "@" + "-".join(items)


def read(source, view, work):
    """Every other directory of the model, as views of one on disk."""
    known = neox_pairs.manifest()
    s = known[source]
    # stage 3 does not save it, nor does GPT-NeoX's configuration there
    clip = "'clip_grad', " if s["class"] == "z3" else "no such key"
    targets = [name for name, t in known.items() if t["model"] == s["model"]
               and t["class"] != "z0" and not neox_pairs.options(s, t)
               and t["align"] == s["align"]]
    out, _, made = show(source, view, source, work)
    lines = []
    for target, path in zip(targets, unpack(work, *targets)):
        shutil.rmtree(made, ignore_errors=True)
        try:
            product.export(os.path.join(out, request(known[target])), made)
        except product.Refused as why:
            lines.append(f"{target}: {why}")
            continue
        lines += [f"{target}: {line}" for line in state_only(
            [line.replace(clip, "") for line in compare.compare_dirs(
                os.path.join(path, TAG), os.path.join(made, TAG))],
            NOT_THERE)]
    return lines


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--only", help="a part of a name", default="")
    args = ap.parse_args()
    cases = [(load, c) for c in LOADED] + [(fail, c) for c in FAIL] \
        + [(read, c) for c in READ]
    cases = [c for c in cases if args.only in
             " ".join([c[0].__name__, *c[1][:3]])]
    work = tempfile.mkdtemp(prefix="ckptfs-universal-")
    passed = 0
    try:
        for check, params in cases:
            try:
                lines = check(*params, work)
            except (framework.RankError, product.Refused) as err:
                lines = [str(err)]
            print("FAILED " if lines else "ok     ", check.__name__,
                  *params[:3], flush=True)
            for line in lines[:8]:
                print("       ", line[:1500])
            passed += not lines
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
