#!/usr/bin/env python3
"""Make the directories that GPT-NeoX itself writes (tests/data/neox.tar.xz).

  make_neox.py make OUT [PART OF A NAME ...]   every case, or those
  make_neox.py losses [PART ...]    is that of step 1 equal at any topology?
  make_neox.py train OUT [--steps N] [--fp32] NAME NAME ...
                      real steps from one state, at several topologies: do
                      they end in one state, too?
  make_neox.py resume OUT [PART ...]    NeoX loads each where it was made and
                      trains on; losses and state are noted
  make_neox.py pack OUT    neox.tar.xz and neox.json, beside this program
  make_neox.py check OUT [PART ...]    rebuild the state from the files; OUT
                      may be neox.tar.xz
  make_neox.py load [--steps N] [--key K=V] NAME:DIR ...
                      NeoX, at NAME's topology, loads DIR and trains on

--src DIR has the sources (WRITERS says which, README.md how to get them); make
leaves out the cases whose writer is not there.
"""
import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import neox_cases  # noqa: E402

# GPT-NeoX, DeepSpeed if not the installed one, and apex; by name and commit
WRITERS = {
    "deepspeed": ("gpt-neox-ea7aefd8", None, None),
    "deeperspeed": ("gpt-neox-ea7aefd8", "DeeperSpeed-91d1c55b", None),
    "apex": ("gpt-neox-ea7aefd8", None, "apex-6424da3b"),
    "old-gqa": ("gpt-neox-59a5236d", None, None),
    "neox2": ("gpt-neox-6edf2418", "DeeperSpeed-457850dc", None),
    "neox1": ("gpt-neox-71df4d50", "DeeperSpeed-eb7f5cff", None),
}
TARBALL = os.path.join(HERE, "neox.tar.xz")
MANIFEST = os.path.join(HERE, "neox.json")


def run(case, out, what, steps, save=None, load=None, extra=None,
        timeout=600):
    """The reports of the ranks; raises RankError."""
    import neox_rank
    from oracle import framework
    conf = tempfile.mkdtemp(prefix="ckptfs-neox-")
    try:
        neox_rank.write_yaml(case, os.path.join(conf, "neox.yml"), steps,
                             save, load, extra)
        return framework.run(case.world(), neox_rank.run, case, conf, out,
                             what, timeout=timeout)
    finally:
        shutil.rmtree(conf)


def chosen(args):
    return [c for c in neox_cases.every()
            if (not args.parts or any(p in c.name() for p in args.parts))
            and (not args.writer or c.model.writer == args.writer)]


def make(case, out):
    """The framework's copies of its own scripts do not stay."""
    target = os.path.join(out, case.name())
    shutil.rmtree(target, ignore_errors=True)
    reports = run(case, out, "train" if case.model.real else "synth",
                  neox_cases.STEPS, save=case.name())
    for script in ("zero_to_fp32.py", "zero_to_torch.py"):
        if os.path.exists(os.path.join(target, script)):
            os.unlink(os.path.join(target, script))
    return reports[0]


def cmd_make(args):
    from oracle.framework import RankError
    failed = 0
    os.makedirs(args.out, exist_ok=True)
    for case in chosen(args):
        start = time.monotonic()
        try:
            r = make(case, args.out)
        except RankError as err:
            print("FAILED", case.name(), err, flush=True)
            failed += 1
            continue
        print(f"ok {case.name()} {r['optimizer']}, losses",
              *(f"{x:.7f}" for x in r["losses"]),
              f"{time.monotonic() - start:.0f} s", flush=True)
    return failed


def cmd_losses(args):
    """In fp32, where only the order of additions may differ.

    Not of GPT-NeoX 1.0: its ZeRO is for 16 bits only, and without it its
    pipelines have another loss.
    """
    failed, first = 0, {}
    for case in chosen(args):
        model, limit = case.model, 1e-4
        if model.writer != "neox1":
            model, limit = dataclasses.replace(model, prec="fp32"), 1e-6
        plain = dataclasses.replace(case, model=model, cls="z1")
        key = (case.model_name, case.padded_vocab())
        loss = run(plain, tempfile.gettempdir(), "train", 1)[0]["losses"][0]
        diff = loss - first.setdefault(key, loss)
        same = abs(diff) < limit or not model.same_loss
        failed += not same
        print("ok    " if same else "FAILED", case.name(), f"{loss:.8f}",
              f"{diff:.1e}", flush=True)
    return failed


def cmd_check(args):
    import neox_read
    failed, seen = 0, {}
    if os.path.isfile(args.out):
        with tempfile.TemporaryDirectory() as tmp:
            with tarfile.open(args.out) as tar:
                tar.extractall(tmp, filter="data")
            args.out = tmp
            return cmd_check(args)
    for case in chosen(args):
        step = os.path.join(args.out, case.name(), neox_cases.TAG)
        try:
            print("ok    ", case.name(), neox_read.check(step, case, seen))
        except (neox_read.Wrong, AssertionError, LookupError,
                OSError) as err:
            print("FAILED", case.name(), repr(err))
            failed += 1
    return failed


def cmd_train(args):
    """Prints how far masters and moments are from the first ones', in parts
    of the largest element.  Not of biases: the gradients of the keys' are
    rounding only, which Adam makes as large as any, and partial ones learn tp
    times as fast."""
    import neox_read
    failed, first = 0, None
    os.makedirs(args.out, exist_ok=True)
    for name in args.names:
        case = neox_cases.parse(name)
        if args.fp32:
            case = dataclasses.replace(case, model=dataclasses.replace(
                case.model, prec="fp32"))
        target = os.path.join(args.out, name)
        shutil.rmtree(target, ignore_errors=True)
        losses = run(case, args.out, "train", args.steps,
                     save=name)[0]["losses"]
        step = neox_read.Step(os.path.join(target,
                                           f"global_step{args.steps}"))
        state = neox_read.rebuild(step, case.model)
        first = first or state
        far = max((float((x - first[key]).abs().max()
                         / first[key].abs().max()), key)
                  for key, x in state.items() if not key[0].endswith("bias"))
        failed += args.fp32 and far[0] > 1e-5
        print(f"{name}: {far[0]:.1e} {' '.join(far[1])}, losses",
              *(f"{x:.7f}" for x in losses), flush=True)
    return failed


def load(case, path, steps, extra=None, what="load"):
    """What NeoX makes of a directory, at case's topology."""
    import neox_read
    from oracle.framework import RankError
    try:
        reports = run(case, tempfile.gettempdir(), what,
                      neox_cases.STEPS + steps, load=os.path.abspath(path),
                      extra=extra)
    except RankError as err:
        return {"error": str(err).rstrip().splitlines()[-1].strip()}
    wrong = sorted({w for r in reports for w in r["wrong"]})
    return {"iteration": reports[0]["iteration"],
            "losses": reports[0]["losses"],
            "crc": None if case.model.real
            else f"{neox_read.digest(case.model, reports):08x}",
            "other_values": [] if case.model.real else wrong}


def show(name, path, found):
    if "error" in found:
        print(f"FAILED {name} loads {path}: {found['error']}", flush=True)
        return
    wrong = found["other_values"]
    print(f"loaded {name} loads {path}: iteration {found['iteration']}, "
          f"{len(wrong)} have other values", *wrong[:4], "- losses",
          *(f"{x:.7f}" for x in found["losses"]),
          f"crc {found['crc']}", flush=True)


def cmd_load(args):
    failed = 0
    extra = {k: json.loads(v) for k, v in (x.split("=", 1)
                                           for x in args.key)}
    for pair in args.pairs:
        name, _, path = pair.partition(":")
        found = load(neox_cases.parse(name), path, args.steps, extra)
        show(name, path, found)
        failed += "error" in found
    return failed


def cmd_resume(args):
    """Notes what each directory gives where it was made: what a view of
    another one, loaded there, must give, too."""
    notes = os.path.join(args.out, "resume.json")
    try:
        with open(notes) as f:
            known = json.load(f)
    except OSError:
        known = {}
    for case in chosen(args):
        path = os.path.join(args.out, case.name())
        known[case.name()] = load(case, path, neox_cases.STEPS)
        show(case.name(), "itself", known[case.name()])
    with open(notes, "w") as f:
        json.dump(known, f)
    return 0


def describe(case, path, resumed):
    """One entry of the manifest; path may be None."""
    version = None
    for name in sorted(os.listdir(path) if path else ()):
        if name.endswith("_model_states.pt") and "mp_rank_" in name:
            import torch
            version = torch.load(os.path.join(path, name),
                                 weights_only=False).get("ds_version")
            break
    m = case.model
    return {"model": case.model_name, "family": m.family, "tp": case.tp,
            "pp": case.pp, "dp": case.dp, "precision": m.prec,
            "class": case.cls, "round_robin": case.rr, "align": case.align,
            "partition_method": case.method, "vocab": m.vocab,
            "padded_vocab": case.padded_vocab(), "padding": m.padding,
            "weight_decay": m.decay, "real_steps": m.real,
            "drift": m.drift, "options": dict(m.options),
            "writer": m.writer, "ds_version": version, "resumed": resumed}


def cmd_pack(args):
    """The same directories always give the same bytes."""
    manifest = {}
    with open(os.path.join(args.out, "resume.json")) as f:
        resumed = json.load(f)

    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with tarfile.open(TARBALL, "w:xz", preset=9) as tar:
        for case in chosen(args):
            path = os.path.join(args.out, case.name())
            tar.add(path, case.name(), filter=plain)
            manifest[case.name()] = describe(
                case, os.path.join(path, neox_cases.TAG),
                resumed[case.name()])
    with open(MANIFEST, "w") as f:
        lines = [f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}"
                 for name, entry in manifest.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(manifest)} directories, {os.path.getsize(TARBALL)} bytes")
    return 0


def sources(args, writer):
    return [name and os.path.join(args.src, name) for name in WRITERS[writer]]


def by_each_writer(args):
    """A process can import one of each package only."""
    failed = 0
    for writer in WRITERS:
        missing = [x for x in sources(args, writer)
                   if x and not os.path.isdir(x)]
        if missing:
            print(f"left out: {writer}, for want of", *missing)
            continue
        failed += subprocess.run([sys.executable, *sys.argv, "--writer",
                                  writer]).returncode
    return failed


def arguments():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--src", metavar="DIR", type=os.path.abspath, default=".")
    sub = ap.add_subparsers(dest="verb", required=True)
    for verb in ("make", "check", "train", "resume", "pack", "losses",
                 "load"):
        p = sub.add_parser(verb)
        p.add_argument("--writer", choices=WRITERS)
        if verb not in ("losses", "load"):
            p.add_argument("out", type=os.path.abspath)
        if verb in ("train", "load"):
            p.add_argument("--steps", type=int, default=3)
        if verb == "train":
            p.add_argument("--fp32", action="store_true")
            p.add_argument("names", nargs="+", metavar="NAME")
        elif verb == "load":
            p.add_argument("--key", metavar="KEY=JSON", action="append",
                           default=[], help="of the YAML file")
            p.add_argument("pairs", nargs="+", metavar="NAME:DIR")
        else:
            p.add_argument("parts", nargs="*")
    return ap.parse_args()


def main():
    args = arguments()
    if args.verb in ("make", "resume", "losses") and not args.writer:
        return by_each_writer(args)
    if args.verb in ("make", "train", "resume", "losses", "load"):
        import neox_cpu
        args.writer = args.writer or "deepspeed"
        neox_cpu.import_neox(*sources(args, args.writer))
    return globals()[f"cmd_{args.verb}"](args)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
