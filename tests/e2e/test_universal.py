#!/usr/bin/env python3
"""@universal: what DeepSpeed's own converter makes, and what its loader loads.

  converter  every file of ds_to_universal's, for sources that it accepts
  loader     the view, loaded by the unmodified framework into other stages and
             sizes and saved again, is what the framework writes there
  pipeline   the view of a real pipeline, loaded by an engine of other sizes
  mount      the same files and directories in a mount
  reader     views of a universal checkpoint on disk, made by either, are what
             the framework writes at their topology
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from oracle import compare, config, framework, product, shapes, \
    truth  # noqa: E402
from oracle.config import TAG  # noqa: E402

CONVERTED = (
    "bf16-g2_z1-dp4", "fp16-g3-fused_z2-dp3", "fp32-g1_z1-dp2",
    "bf16-g2-frozen_bf16opt-dp3", "bf16-g2-tied_z1-dp2", "fp16-g2_z3-dp2",
)
# (source, targets): the converter gets round robin wrong and refuses stage 0.
LOADED = (
    ("bf16-g2_z1-dp4", ("z1-dp2", "z2-dp3", "bf16opt-dp3")),
    ("bf16-g1_z2-dp3-rr", ("z1-dp2", "z3-dp2")),
    ("fp16-g1_z3-dp2", ("z2-dp3", "z3-dp3")),
    ("bf16-g2-tied_bf16opt-dp3", ("z1-dp1", "z2-dp4")),
    ("fp16-g2-fused_z1-dp2", ("z2-dp3",)),
    ("fp16-g1_z0-dp2", ("z1-dp3", "z3-dp2")),
)
# (source, target, made by the converter)
READ = (
    ("bf16-g2_z1-dp4", "z1-dp3", True), ("bf16-g2_z1-dp4", "z3-dp2", False),
    ("fp16-g1_z3-dp2", "z2-dp3-rr", True),
    ("fp16-g1_z3-dp2", "z3-dp3-sub12", False),
    ("bf16-g2-frozen_bf16opt-dp3", "bf16opt-dp2", True),
    ("bf16-g2-frozen-tied_z3-dp2", "z1-dp2", False),
    ("bf16-g1_z2-dp3-rr", "z1-dp2", False),
    ("fp16-g2-fused_z1-dp2", "z2-dp3", True),
)
DATA = os.path.join(HERE, "..", "data", "pipeline")
PIPELINE_TAG = "global_step2"
PIPELINES = (("pp2-dp1", "pp2-dp2", 4), ("pp2-dp2", "pp2-dp1", 2))
# Beside the converter's: what other stages read, of any source.
ADDED = {"optimizer_state_dict": None, "loss_scaler": None,
         "dynamic_loss_scale": None, "overflow": None, "zero_stage": None}
# It copies these keys of one class, which its loaders do not read.
UNREAD = ("param_alignment_paddings", "fp32_flat_groups",
          "ds_zero_partition_groups")
# The engine's own, yet handed out as if they were the user's.
HANDED_OUT = ("checkpoint_parallel_dimensions", "frozen_param_shapes",
              "frozen_param_fragments")


def relative(top):
    return sorted(os.path.relpath(os.path.join(d, f), top)
                  for d, _, files in os.walk(top) for f in files)


def common_only(want, got):
    """optimizer_state.pt, less what each has for itself."""
    for key in UNREAD:
        want.pop(key, None)
    if "optimizer_state_dict" in want:  # of stage 3: all states, one is read
        inner = want["optimizer_state_dict"]
        inner["state"] = {0: {"step": inner["state"][0]["step"]}}
        for group, own in zip(inner["param_groups"], want["param_groups"]):
            assert group == own
        want["param_groups"] = got["param_groups"]
        inner["param_groups"] = got["optimizer_state_dict"]["param_groups"]
        want["zero_stage"] = got["zero_stage"]
        want["partition_count"] = got["partition_count"]
    keys = [k for k in got if k in want]
    return {k: want[k] for k in keys} | want, {k: got[k] for k in keys}


def take_uncut(want, got):
    """A parameter that no rule names.  The converter says cat_dim 0 of it, which
    one rank loads as well, but by which two would cut rows that may be both's;
    the view says that it is one piece.  What is wrong with that, or None."""
    if want.pop("cat_dim", None) != 0:
        return "the converter knows a rule"
    shares = got.pop("sub_param_shape", None)
    if shares is None:
        return "not one piece"
    if (shares.partition_dim, shares.shape) != (
            0, ((1,), want["param"].numel())):
        return f"one piece as {shares.partition_dim}, {shares.shape}"
    return None


def compare_zero(want_dir, got_dir, bare):
    """Lines that say what differs below zero/."""
    diff = compare.Diff(True, ADDED)
    want, got = relative(want_dir), relative(got_dir)
    for name in sorted(set(want) | set(got)):
        if name not in got:
            # buffers, and a tied parameter's other name: never loaded
            if relative(os.path.join(want_dir, os.path.dirname(name))) \
                    != ["fp32.pt"]:
                diff.lines.append(f"{name}: missing")
            continue
        if name not in want:
            if not (bare and name.endswith("/step.pt")):
                diff.lines.append(f"{name}: unexpected")
            continue
        a = compare.load(os.path.join(want_dir, name))
        b = compare.load(os.path.join(got_dir, name))
        if name == "optimizer_state.pt":
            a, b = common_only(a, b)
        elif bare:
            b = b["param"].reshape(-1)
        elif isinstance(a, dict) and "cat_dim" in a:
            wrong = take_uncut(a, b)
            if wrong:
                diff.lines.append(f"{name}: {wrong}")
        diff.tree(f"{name[:-3]}:", a, b)
    return diff.lines


def convert(name, run, work):
    """What ds_to_universal makes of a run; the step's directory."""
    want = os.path.join(work, "converted", name, TAG)
    if os.path.isdir(want):
        return want
    os.makedirs(os.path.dirname(want))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m",
         "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state",
         "--num_extract_workers", "1", "--num_merge_workers", "1",
         "--input_folder", os.path.join(run, TAG), "--output_folder", want],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return want


def show(name, run, work):
    """What @universal of a run shows, written out; its directory."""
    got = os.path.join(work, "shown", name)
    if not os.path.isdir(got):
        product.export(os.path.join(run, "@universal"), got)
    return got


def converter(name, work):
    cfg = config.parse(name)
    run = truth.make(cfg, os.path.join(work, "runs"))
    want = convert(name, run, work)
    got = show(name, run, work)
    lines = compare_zero(os.path.join(want, "zero"),
                         os.path.join(got, TAG, "zero"), cfg.cls == "z3")
    for pointer in ("latest", "latest_universal"):
        with open(os.path.join(got, pointer)) as f:
            if f.read() != TAG:
                lines.append(f"{pointer} does not say {TAG}")
    return lines


class Universal:
    """A configuration whose engine loads universal checkpoints."""

    def __init__(self, cfg):
        self.cfg = cfg

    def __getattr__(self, name):
        return getattr(self.cfg, name)

    def ds_config(self):
        conf = self.cfg.ds_config()
        conf["checkpoint"] = {"load_universal": True}
        return conf


def only_order(line):
    """The loader puts states in the order of a set and of a directory."""
    want, sep, got = line.partition("] expected, are [")
    if not sep or ": keys [" not in want:
        return False
    return sorted(want.split(": keys [")[1].split(", ")) == \
        sorted(got.rstrip("]").split(", "))


def _load_and_save(rank, world, cfg, load_dir, save_dir):
    engine = truth.make_engine(Universal(cfg))
    path, client = engine.load_checkpoint(load_dir)
    assert path, f"nothing was loaded from {load_dir}"
    for key in HANDED_OUT:
        client.pop(key)
    engine.save_checkpoint(save_dir, tag=TAG, client_state=client)


def loader(source, target, work):
    src = config.parse(source)
    dst = config.parse(f"{source.split('_')[0]}_{target}")
    run = truth.make(src, os.path.join(work, "runs"))
    want = truth.make(dst, os.path.join(work, "runs"))
    shown = show(source, run, work)
    saved = os.path.join(work, "saved", dst.name())
    framework.run(dst.dp, _load_and_save, dst, shown, saved)
    lines = compare.compare_dirs(os.path.join(want, TAG),
                                 os.path.join(saved, TAG), tails=False)
    shutil.rmtree(saved)
    return [line for line in lines if not only_order(line)]


def pipeline(source, target, world, work):
    out = os.path.join(work, "pipeline")
    saved = os.path.join(work, "saved", "pipeline")
    want = os.path.join(DATA, target, PIPELINE_TAG)
    shutil.rmtree(out, ignore_errors=True)
    product.export(os.path.join(DATA, source, "@universal"), out)
    framework.run(world, shapes.load_and_save, want, 1, 2, 4, "uniform", out,
                  saved, PIPELINE_TAG)
    lines = compare.compare_dirs(want, os.path.join(saved, PIPELINE_TAG))
    shutil.rmtree(saved)
    return [line for line in lines if not only_order(line)]


def _files(top):
    out = {}
    for name in relative(top):
        with open(os.path.join(top, name), "rb") as f:
            out[name] = f.read()
    return out


def mount(name, work):
    """In a mount: the same bytes, directories that are directories."""
    run = truth.make(config.parse(name), os.path.join(work, "runs"))
    want = _files(os.path.join(show(name, run, work), TAG))
    lines = []
    with product.mounted(run, os.path.join(work, "mnt")) as mnt:
        for step in (f"@universal/{TAG}", f"{TAG}/@universal"):
            top = os.path.join(mnt, step)
            got = _files(top)
            if step.startswith(TAG):
                for pointer in ("latest", "latest_universal"):
                    if got.pop(pointer) != b".":
                        lines.append(f"{step}/{pointer} is not '.'")
            if got != want:
                lines.append(f"{step}: other files than exported")
            dirs = [d for d, _, _ in os.walk(top)]
            if len({os.stat(d).st_ino for d in dirs}) != len(dirs):
                lines.append(f"{step}: directories share a number")
            listed = {e.name: e.is_dir() for e in os.scandir(
                os.path.join(top, "zero"))}
            if listed.pop("optimizer_state.pt") or not all(listed.values()):
                lines.append(f"{step}/zero: kinds of {listed}")
            for absent in ("zero/none", "zero/gain/none.pt", "zero/gai",
                           "zero/gain/fp32.pt/x", "zero/@dp2"):
                if os.path.exists(os.path.join(top, absent)):
                    lines.append(f"{step}/{absent} is there")
        names = os.listdir(os.path.join(mnt, "@universal"))
        if "latest_universal" not in names \
                or "latest_universal" in os.listdir(mnt):
            lines.append(f"latest_universal: {names}")
    return lines


def view_name(dst):
    """All that a target's topology is; nothing is taken from the source."""
    items = [f"dp{dst.dp}"]
    if dst.cls == "bf16opt":
        items.append("bf16opt")
    else:
        items += [f"zero{dst.stage()}"] + (["zeroopt"] if dst.cls == "z1"
                                           else [])
    return "-".join(items + [n for on, n in dst.topology_items() if on])


def reader(source, target, converted, work):
    src = config.parse(source)
    dst = config.parse(f"{source.split('_')[0]}_{target}")
    run = truth.make(src, os.path.join(work, "runs"))
    want = truth.make(dst, os.path.join(work, "runs"))
    step = convert(source, run, work) if converted \
        else os.path.join(show(source, run, work), TAG)
    out = os.path.join(work, "read")
    shutil.rmtree(out, ignore_errors=True)
    product.export(os.path.join(os.path.dirname(step),
                                "@" + view_name(dst)), out)
    lines = compare.compare_dirs(os.path.join(want, TAG),
                                 os.path.join(out, TAG))
    with open(os.path.join(out, "latest")) as f:
        if f.read() != TAG:
            lines.append("latest does not say " + TAG)
    return lines


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--only", help="a part of a name", default="")
    ap.add_argument("--work", help="a directory to keep what was made")
    args = ap.parse_args()
    work = args.work or tempfile.mkdtemp(prefix="ckptfs-universal-")
    cases = [("converter", name, (name,)) for name in CONVERTED]
    cases += [("loader", f"{s} {t}", (s, t)) for s, ts in LOADED for t in ts]
    cases += [("reader", f"{s} {t} {'converted' if c else 'exported'}",
               (s, t, c)) for s, t, c in READ]
    if not product.why_fuse_is_missing():
        cases.append(("mount", CONVERTED[0], (CONVERTED[0],)))
    cases += [("pipeline", f"{p[0]} {p[1]}", p) for p in PIPELINES]
    cases = [c for c in cases if args.only in f"{c[0]} {c[1]}"]
    passed = 0
    try:
        for name in ("runs", "shown"):
            os.makedirs(os.path.join(work, name), exist_ok=True)
        for kind, name, params in cases:
            try:
                lines = globals()[kind](*params, work)
            except (framework.RankError, product.Refused) as err:
                lines = [str(err)]
            print("FAILED " if lines else "ok     ", kind, name, flush=True)
            for line in lines[:8]:
                print("       ", line[:3000])
            passed += not lines
    finally:
        if not args.work:
            shutil.rmtree(work)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
