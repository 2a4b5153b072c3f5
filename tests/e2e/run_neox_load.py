#!/usr/bin/env python3
"""Unmodified GPT-NeoX resumes from views of other topologies.

All directories of one model in tests/data/neox.tar.xz hold one logical state.
A view of each, in a mount, is loaded by GPT-NeoX at the topology shown, which
trains two steps on.  What it finds must be the state, and the losses must have
the bits of those that it has after loading what it wrote itself at that
topology.  With the moments zeroed it must have others: the test has power.
Some are loaded as universal checkpoints (@universal), by the same job.

    run_neox_load.py --src DIR          the rows of tests/data/README.md, some
                                        universal checkpoints, and pairs that
                                        cover all pairs of topologies' parts
    run_neox_load.py --src DIR --rows | --universal     those only
    run_neox_load.py --src DIR --only SRC TGT     these, or parts of the names

DIR has GPT-NeoX's sources and its DeepSpeeds, as tests/data/README.md says.
"""
import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
sys.path[:0] = [HERE, DATA]

import make_neox  # noqa: E402
import neox_cases  # noqa: E402
import neox_pairs  # noqa: E402
from oracle import product  # noqa: E402

STEPS = 2
# Rows of the table: (directory, what loads it).  "by" is who loads, where that
# is not who wrote.
ROWS = (
    ("llama-bf16_tp1-pp1-dp2", "tp1-pp1-dp1"),
    ("pythia-fp16_tp1-pp4-dp1", "tp1-pp2-dp1"),
    ("pythia-fp16_tp2-pp2-dp1-uniform", "tp2-pp2-dp1"),
    ("gpt2-bf16_tp1-pp1-dp1-bf16opt", "tp1-pp2-dp1-bf16opt"),
    ("gpt2-bf16_tp1-pp4-dp1-bf16opt-param", "tp1-pp1-dp1-bf16opt"),
    ("gpt2-bf16_tp1-pp4-dp1-bf16opt-param", "tp1-pp2-dp1-bf16opt"),
    ("gpt2-bf16_tp1-pp2-dp2-bf16opt-uniform", "tp1-pp2-dp2-bf16opt"),
    ("gpt2-fp16-deeper_tp1-pp4-dp1", "tp1-pp2-dp1"),
    ("llama-bf16-deeper_tp1-pp2-dp2", "tp1-pp1-dp2"),
    ("llama-bf16_tp1-pp0-dp2", "tp1-pp1-dp2"),
    ("llama-bf16_tp1-pp1-dp2", "tp1-pp0-dp2"),
    ("llama-bf16_tp4-pp0-dp2", "tp1-pp0-dp2"),
    ("llama-bf16_tp4-pp0-dp2", "tp2-pp0-dp2"),
    ("llama-bf16_tp1-pp0-dp2", "tp2-pp0-dp2"),
    ("pythia-fp16_tp1-pp0-dp1", "tp2-pp0-dp1"),
    ("pythia-fp16_tp1-pp1-dp2", "tp2-pp1-dp2"),
    ("pythia-fp16_tp2-pp1-dp1", "tp1-pp1-dp1"),
    ("gpt2-fp16-odd_tp1-pp0-dp1", "tp2-pp0-dp1"),
    ("llama-bf16_tp1-pp0-dp2", "tp1-pp0-dp2-z3"),
    ("llama-bf16_tp1-pp0-dp2-z2-rr", "tp1-pp0-dp2"),
    ("gpt2-bf16_tp1-pp2-dp1-z0", "tp1-pp2-dp1"),
    ("llama-bf16_tp1-pp0-dp2", "tp1-pp0-dp2-z2"),
    ("llama-bf16_tp1-pp0-dp2", "tp1-pp0-dp2-bf16opt"),
    ("llama-bf16-deeper_tp1-pp2-dp2", "tp1-pp4-dp1", "by", "deepspeed"),
    ("llama-bf16_tp1-pp4-dp2", "tp1-pp2-dp2", "by", "deeperspeed"),
)
# Views are in the form that DeepSpeed writes since 0.3.17, and DeeperSpeed 0.3.15
# does not read: GPT-NeoX 2.0 does, but for a single stage, which it has in
# sequence, and buckets of 1000 elements, with which its training fails.
LOADERS = {"neox1": "neox2"}
# Loaded as universal checkpoints: what the view is called says what job loads.
UNIVERSAL = (
    ("llama-bf16_tp1-pp2-dp1-bf16opt", "tp1-pp4-dp1", "universal-pp4"),
    ("llama-bf16_tp1-pp0-dp2-z2-rr", "tp1-pp1-dp2", "universal-pp1"),
    ("llama-bf16_tp1-pp4-dp2", "tp1-pp0-dp2-z2", "universal-pp0"),
    # its loader gives all groups of stage 3 one weight decay: here all have
    ("pythia-bf16-wd0_tp1-pp2-dp1", "tp1-pp0-dp2-z3", "universal-pp0"),
    ("pythia-bf16-wd0_tp4-pp1-dp1", "tp1-pp0-dp1-z3",
     "universal-tp1-pp0-vocab64"),
    ("llama-bf16_tp2-pp2-dp2", "tp4-pp1-dp1", "universal-tp4-pp1-qkvparts"),
    ("llama-bf16_tp1-pp0-dp2-z3", "tp2-pp0-dp1", "universal-tp2-qkvparts"),
    ("pythia-bf16-wd0_tp4-pp1-dp1", "tp1-pp2-dp1",
     "universal-tp1-pp2-vocab64"),
    ("pythia-bf16-wd0_tp1-pp0-dp2", "tp4-pp1-dp1", "universal-tp4-pp1"),
    ("gpt2-bf16_tp2-pp4-dp1", "tp1-pp2-dp2-bf16opt",
     "universal-tp1-pp2-vocab64"),
    ("gpt2-bf16_tp4-pp0-dp1", "tp2-pp1-dp2", "universal-tp2-pp1-vocab64"),
    ("gpt2-fp16-odd_tp1-pp4-dp1", "tp4-pp0-dp1",
     "universal-tp4-pp0-vocab60"),
    ("pythia-fp16-apex_tp2-pp2-dp1", "tp2-pp1-dp1", "universal-pp1", "by",
     "deepspeed"),
    ("pythia-fp16-apex_tp1-pp0-dp1", "tp1-pp0-dp1", "universal", "by",
     "deepspeed"),
)


@dataclasses.dataclass
class Load:
    source: str
    target: str
    by: str  # the writer that loads
    universal: str = ""  # the view

    def extra(self):
        return {"checkpoint": {"load_universal": True}} if self.universal \
            else None


def entry(name, known):
    """What a view of it, or the one of another, is asked for by."""
    return known.get(name) or make_neox.describe(neox_cases.parse(name), None,
                                                 None)


def written(cases, known, universal):
    out = []
    for source, target, *more in cases:
        view = more.pop(0) if universal else ""
        by = more[1] if more else known[source]["writer"]
        out.append(Load(source, f"{source.split('_')[0]}_{target}", by, view))
    return out


def loads(args, known):
    rows = written(ROWS, known, False)
    universal = written(UNIVERSAL, known, True)
    if args.rows or args.universal:
        return rows * args.rows + universal * args.universal
    out = rows + universal
    able = [(a, b) for a, b in neox_pairs.all_pairs(known)
            if not neox_pairs.why_not(known[a], known[b])
            and "losses" in known[b]["resumed"]
            and not (known[b]["writer"] == "neox1"
                     and (known[b]["pp"] == 1 or b.endswith("-b1000")))]
    if not args.only:
        able = neox_pairs.covering(known, able)
    out += [Load(a, b, LOADERS.get(known[a]["writer"], known[a]["writer"]))
            for a, b in able]
    if args.only:
        src, tgt = args.only
        out = [x for x in out if src in x.source and tgt in x.target]
    return out


class Place:
    """Directories of one model's writer, a mount of them, and what is known
    of their targets."""

    def __init__(self, top, known, writer):
        self.runs, self.mnt = f"{top}/runs", f"{top}/mnt"
        self.made, self.known, self.writer = f"{top}/made", known, writer
        self.native, self.views = {}, 0
        os.environ["CKPTFS_CACHE_DIR"] = f"{top}/cache"
        os.mkdir(self.made)

    def unpack(self, names):
        with tarfile.open(make_neox.TARBALL) as tar:
            tar.extractall(self.runs, [m for m in tar if m.name.split("/")[0]
                                       in names], filter="data")

    def want(self, x):
        """(what loading the framework's own gives, the same less moments)

        How the optimizer counted is the writer's own: what another one is to
        load is compared with the plain load of the source, where it was."""
        writer = self.known[x.source]["writer"]
        like = writer not in (self.writer, "neox1") and not x.universal
        target = x.source if like else x.target
        if target not in self.native:
            case = neox_cases.parse(target)
            path = os.path.join(self.runs, target)
            if target == x.target and \
                    self.known.get(target, {}).get("writer") != self.writer:
                make_neox.make(case, self.made)
                path = os.path.join(self.made, target)
            self.native[target] = [
                make_neox.load(case, path, STEPS, what=what)
                for what in ("load", "forget")]
        return self.native[target]

    def view(self, x):
        if x.universal:
            return f"{self.mnt}/{x.source}/@{x.universal}"
        s, t = entry(x.source, self.known), entry(x.target, self.known)
        name, options = neox_pairs.request(s, t), neox_pairs.options(s, t)
        if not options:
            return f"{self.mnt}/{x.source}/@{name}"
        self.views += 1
        done = product.run("view", "add", f"{self.runs}/{x.source}",
                           f"v{self.views}", "--as", name, *options)
        assert not done.returncode, done.stderr
        return f"{self.mnt}/{x.source}/@v{self.views}"

    def check(self, x):
        """(passed, what to say)"""
        path = self.view(x)
        done = product.run("view", "explain", f"{path}/{neox_cases.TAG}")
        if done.returncode:
            return False, done.stderr.strip()
        want, forgot = self.want(x)
        got = make_neox.load(neox_cases.parse(x.target), path, STEPS,
                             x.extra())
        for what, found in (("natively", want), ("less moments", forgot),
                            ("the view", got)):
            if "error" in found:
                return False, f"{what}: {found['error']}"
        losses = " ".join(f"{n:.7f}" for n in got["losses"])
        if x.universal:  # has what the end of a pipeline tied and does not load
            got["other_values"] = want["other_values"] if set(
                got["other_values"]) <= set(want["other_values"]) else got
        if got != want:
            return False, f"{losses}, natively {want}, the view {got}"
        off = max(abs(a - b) for a, b in zip(forgot["losses"], got["losses"]))
        return off > 0, f"losses {losses}, without moments {off:.0e} off"


def one_writer(args, todo, known):
    import neox_cpu
    neox_cpu.import_neox(*make_neox.sources(args, args.writer))
    from oracle.framework import RankError
    top = tempfile.mkdtemp(prefix="ckptfs-neox-load-")
    bad = 0
    try:
        place = Place(top, known, args.writer)
        place.unpack({name for x in todo for name in (x.source, x.target)})
        with product.mounted(place.runs, place.mnt):
            for x in todo:
                try:
                    ok, said = place.check(x)
                except RankError as err:
                    ok, said = False, str(err).strip().splitlines()[-1]
                bad += not ok
                print("ok     " if ok else "FAILED ", x.source, "as",
                      *([f"@{x.universal} by"] if x.universal else []),
                      f"{x.target.split('_')[1]}: {said}", flush=True)
    finally:
        shutil.rmtree(top)
    print(f"{args.writer}: {len(todo) - bad} passed, {bad} failed", flush=True)
    return 1 if bad else 0


def why_not(args):
    """None, or the reason why nothing can be loaded here."""
    why = product.why_fuse_is_missing()
    if why:
        return why
    if not args.src:
        return "no --src DIR with GPT-NeoX's sources"
    if not os.path.exists(make_neox.TARBALL):
        return f"no {make_neox.TARBALL}"
    return None


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--src", metavar="DIR", type=os.path.abspath)
    ap.add_argument("--only", nargs=2, metavar=("SRC", "TGT"))
    ap.add_argument("--rows", action="store_true")
    ap.add_argument("--universal", action="store_true")
    ap.add_argument("--writer", choices=make_neox.WRITERS)
    args = ap.parse_args()
    why = why_not(args)
    if why:
        print(f"skipped: {why}")
        return 77
    known = neox_pairs.manifest()
    todo, bad = {}, 0
    for x in loads(args, known):
        todo.setdefault(x.by, []).append(x)
    if args.writer:
        return one_writer(args, todo.get(args.writer, []), known)
    for writer in todo:  # a process can import one of each package only
        missing = [x for x in make_neox.sources(args, writer)
                   if x and not os.path.isdir(x)]
        if missing:
            print(f"left out: {writer}, for want of", *missing)
            continue
        bad |= subprocess.run([sys.executable, "-W", "ignore", *sys.argv,
                               "--writer", writer]).returncode
    return bad


if __name__ == "__main__":
    sys.exit(main())
