#!/usr/bin/env python3
"""Files made of slices that ranks put, without a daemon: puts_files writes them.

  loader       a universal checkpoint, loaded by the unmodified framework into
               other stages and sizes and saved again, is what the framework
               writes there
  reader       views of it are what the framework writes at their topology
  safetensors  the official library reads the files, and they hold what was put

$PUTS_FILES names the program.
"""
import argparse
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

try:
    from oracle import compare, config, framework, model, product, \
        truth  # noqa: E402
    from oracle.config import TAG  # noqa: E402
    import torch  # noqa: E402
    import test_universal  # noqa: E402
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

RANKS = 3
STEP = 7
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16",
         torch.int64: "i64"}
LOADED = (
    ("bf16-g2_z1-dp2", ("z1-dp3", "z2-dp2", "bf16opt-dp2")),
    # in stage 3 the loader gives all groups what the first one has
    ("bf16-g1_z1-dp2", ("z3-dp2",)),
    ("fp16-g2-frozen_z2-dp2", ("z1-dp2", "z2-dp3")),
    ("bf16-g2-tied_z1-dp2", ("z1-dp1",)),
    # the loader fails where a rank has no parameter of a group
    ("fp32-g3_z1-dp2", ("z2-dp1",)),
)
READ = (
    ("bf16-g2_z1-dp2", ("z1-dp3", "z2-dp4", "z3-dp2", "bf16opt-dp3")),
    ("bf16-g2-frozen_z1-dp2", ("z1-dp1", "z3-dp3-sub12")),
    ("bf16-g2-tied_z1-dp2", ("z1-dp3", "z3-dp2")),
    ("fp16-g2-frozen_z2-dp2", ("z3-dp3", "z1-dp2")),
    ("fp32-g3_z1-dp2", ("z2-dp3", "z0-dp2")),
)
# Model states have these of themselves.
MADE = ("module", "buffer_names", "optimizer", "param_shapes",
        "frozen_param_shapes", "frozen_param_fragments", "dp_world_size",
        "mp_world_size", "ds_config", "ds_version",
        "checkpoint_parallel_dimensions")


class Puts:
    """A directory that puts_files reads."""

    def __init__(self, top, dp=1, zero=1):
        self.top = top
        os.makedirs(os.path.join(top, "objects"))
        self.lines = [f"{STEP} {dp} {zero}"]
        self.parts = [io.BytesIO() for _ in range(RANKS)]

    def slice(self, name, role, whole, rank, offset, extent, flat=None):
        part = self.parts[rank]
        box = whole[tuple(slice(o, o + e) for o, e in zip(offset, extent))]
        box = box.contiguous().view(-1)
        start, count = flat or (0, box.numel())
        at = part.tell()
        part.write(box[start:start + count].view(torch.uint8).numpy()
                   .tobytes() if count else b"")
        self.lines.append(" ".join(map(str, [
            name, role, NAMES[whole.dtype], rank, at, start, count, whole.ndim,
            *whole.shape, *offset, *extent])))

    def whole(self, name, role, t, rank=0):
        self.slice(name, role, t, rank, [0] * t.ndim, list(t.shape))

    def flat(self, name, role, t):
        """As ZeRO cuts it."""
        per = -(-t.numel() // RANKS)
        for rank in range(RANKS):
            start = min(rank * per, t.numel())
            count = min(per, t.numel() - start)
            if count:
                self.slice(name, role, t, rank, [0] * t.ndim, list(t.shape),
                           (start, count))

    def cut(self, name, role, t, dim):
        """As tensor parallelism cuts it."""
        size = t.shape[dim]
        at = [size * r // RANKS for r in range(RANKS + 1)]
        for rank in range(RANKS):
            if at[rank] == at[rank + 1]:
                continue
            offset, extent = [0] * t.ndim, list(t.shape)
            offset[dim], extent[dim] = at[rank], at[rank + 1] - at[rank]
            self.slice(name, role, t, rank, offset, extent)

    def object(self, name, value):
        with open(os.path.join(self.top, "objects", name), "wb") as f:
            pickle.dump(value, f)

    def files(self, form, out):
        with open(os.path.join(self.top, "puts"), "w") as f:
            f.write("\n".join(self.lines) + "\n")
        for rank, part in enumerate(self.parts):
            with open(os.path.join(self.top, f"part-{rank}"), "wb") as f:
                f.write(part.getvalue())
        os.makedirs(out)
        res = subprocess.run([os.environ["PUTS_FILES"], form,
                              os.path.abspath(self.top), out],
                             capture_output=True, text=True)
        if res.returncode:
            raise product.Refused(res.stderr)


def put_state(cfg, run, top):
    """The oracle's logical state, cut without regard to how it was saved."""
    step = os.path.join(run, TAG)
    states = compare.load(os.path.join(step, "mp_rank_00_model_states.pt"))
    optim = compare.load(os.path.join(step, next(
        n for n in sorted(os.listdir(step)) if "zero_pp_rank_0" in n)))
    inner = optim["optimizer_state_dict"]
    puts = Puts(top, states["dp_world_size"], cfg.stage())
    for i, (name, t) in enumerate(states["module"].items()):
        role = "buffer" if name in states["buffer_names"] else "weight"
        if name in states["shared_params"]:
            continue  # told, not put
        # the module's order is that of rank 0
        if t.ndim and i % 2 and t.shape[-1] >= RANKS:
            puts.cut(name, role, t, t.ndim - 1)
        else:
            puts.whole(name, role, t)
    for group in states["param_shapes"]:
        for name, shape in group.items():
            for kind, role in (("fp32", "master"), ("exp_avg", "exp_avg"),
                               ("exp_avg_sq", "exp_avg_sq")):
                puts.flat(name, role, model.value(name, kind, shape))
            puts.whole(name, "step", torch.tensor(float(STEP)))
    groups = [dict(g, params=list(names)) for g, names in zip(
        inner["base_optimizer_state"]["param_groups"], states["param_shapes"])]
    puts.object("param_groups", groups)
    puts.object("ds_config", states["ds_config"])
    puts.object("client_state",
                {k: v for k, v in states.items() if k not in MADE})
    puts.object("optimizer_state", {
        k: inner[k] for k in ("loss_scaler", "dynamic_loss_scale", "overflow",
                              "clip_grad") if k in inner})
    return puts


def shown(source, work):
    """The run whose step was made of puts."""
    run = os.path.join(work, "put", source)
    if not os.path.isdir(run):
        cfg = config.parse(source)
        saved = truth.make(cfg, os.path.join(work, "runs"))
        puts = put_state(cfg, saved, os.path.join(work, "in", source))
        puts.files("universal", os.path.join(run, TAG))
        for pointer in ("latest", "latest_universal"):
            with open(os.path.join(run, pointer), "w") as f:
                f.write(TAG)
    return run


def loader(source, target, work):
    dst = config.parse(f"{source.split('_')[0]}_{target}")
    want = truth.make(dst, os.path.join(work, "runs"))
    saved = os.path.join(work, "saved", dst.name())
    framework.run(dst.dp, test_universal._load_and_save, dst,
                  shown(source, work), saved)
    lines = compare.compare_dirs(os.path.join(want, TAG),
                                 os.path.join(saved, TAG), tails=False)
    shutil.rmtree(saved)
    return [line for line in lines if not test_universal.only_order(line)]


def is_put(line):
    """Not torch's note of the module's versions, which is no tensor."""
    return not line.endswith(
        ".module.__dict__: keys ['_metadata'] expected, are []")


def reader(source, target, work):
    dst = config.parse(f"{source.split('_')[0]}_{target}")
    want = truth.make(dst, os.path.join(work, "runs"))
    out = os.path.join(work, "read")
    shutil.rmtree(out, ignore_errors=True)
    product.export(os.path.join(shown(source, work),
                                "@" + test_universal.view_name(dst)), out)
    lines = compare.compare_dirs(os.path.join(want, TAG),
                                 os.path.join(out, TAG))
    return [line for line in lines if is_put(line)]


def safetensors(_name, work):
    from safetensors import safe_open
    lines = []
    puts = Puts(os.path.join(work, "in", "safetensors"))
    gen = torch.Generator().manual_seed(1)
    want = {"a.weight": torch.randn(9, 6, generator=gen).bfloat16(),
            "a.scale": torch.randn((), generator=gen),
            "b.weight": torch.randn(64, 96, generator=gen),
            "seen": torch.arange(5)}
    states = {"a.weight.exp_avg": torch.randn(9, 6, generator=gen),
              "a.weight.step": torch.tensor(3.0)}
    puts.cut("a.weight", "weight", want["a.weight"], 0)
    puts.whole("a.scale", "weight", want["a.scale"])
    puts.cut("b.weight", "weight", want["b.weight"], 1)
    puts.whole("seen", "buffer", want["seen"], 2)
    puts.flat("a.weight", "exp_avg", states["a.weight.exp_avg"])
    puts.whole("a.weight", "step", states["a.weight.step"])
    out = os.path.join(work, "st", TAG)
    puts.files("safetensors", out)
    for name, tensors in (("model", want), ("optimizer", states)):
        path = os.path.join(out, f"{name}.safetensors")
        with open(path, "rb") as f:
            length, = struct.unpack("<Q", f.read(8))
        if (length + 8) % 4096:
            lines.append(f"{name}: data at {length + 8}")
        with safe_open(path, "pt") as f:
            if f.metadata() != {"format": "pt"}:
                lines.append(f"{name}: {f.metadata()}")
            if sorted(f.keys()) != sorted(tensors):
                lines.append(f"{name}: {sorted(f.keys())}")
            for key in tensors:
                got = f.get_tensor(key)
                if got.dtype != tensors[key].dtype \
                        or not torch.equal(got, tensors[key]):
                    lines.append(f"{name}: {key} differs")
    return lines


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--only", help="a part of a name", default="")
    args = ap.parse_args()
    os.environ.setdefault("PUTS_FILES", os.path.join(
        product.ROOT, "build/release/bin/puts_files"))
    work = tempfile.mkdtemp(prefix="ckptfs-puts-")
    cases = [("safetensors", "", ("",))]
    cases += [("loader", f"{s} {t}", (s, t)) for s, ts in LOADED for t in ts]
    cases += [("reader", f"{s} {t}", (s, t)) for s, ts in READ for t in ts]
    cases = [c for c in cases if args.only in f"{c[0]} {c[1]}"]
    passed = 0
    try:
        os.makedirs(os.path.join(work, "runs"))
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
        shutil.rmtree(work)
    print(f"{passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
