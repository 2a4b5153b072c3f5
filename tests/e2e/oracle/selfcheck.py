"""Is the oracle itself right?  Checks that need no ckptfs.

1. the framework loads each directory it wrote here and saves it again: equal;
2. the state in the files is the state asked for (read back by the framework's
   own getters, another path than the one that wrote it);
3. one changed bit anywhere in a tensor is reported by compare.
"""
import os
import random
import shutil
import sys
import tempfile
import zipfile

from . import compare, config, framework, model, state, truth
from .config import TAG

CASES = ("bf16-g2-frozen-tied_z1-dp3", "fp16-g3_z2-dp5-rr",
         "fp32-g2-frozen_z3-dp4-sub12", "bf16-g1-fused_bf16opt-dp2",
         "bf16-g2-tied_z1-dp2-align", "fp16-g2-frozen-tied_z0-dp2",
         "bf16-g2_z1-dp2-legacy")


def _reload(rank, world, cfg, run_dir, out):
    engine = truth.make_engine(cfg)
    path, client = engine.load_checkpoint(run_dir)
    assert path, "nothing was loaded"
    assert client["iteration"] == state.STEP
    check_values(cfg, engine)
    state.save(cfg, engine, out)


def check_values(cfg, engine):
    from deepspeed.utils import (safe_get_full_fp32_param,
                                 safe_get_full_optimizer_state)
    import torch
    if cfg.cls == "z0" or cfg.rr:
        return  # no getters; wrong ones
    opt = engine.optimizer
    if cfg.cls in ("z1", "z2", "bf16opt"):  # loading links nothing
        opt._hp_optimizer_states_linked = False
        opt._lazy_init_hp_params_optimizer_state()
    for name, p in engine.module.named_parameters():
        if not p.requires_grad:
            continue
        shape = p.ds_shape if hasattr(p, "ds_shape") else p.shape
        got = safe_get_full_fp32_param(p)
        assert torch.equal(got, model.value(name, "fp32", shape)), name
        for kind in state.MOMENTS:
            got = safe_get_full_optimizer_state(p, kind)
            want = model.value(name, kind, shape)
            assert torch.equal(got, want), (name, kind)


def flip_one_bit(step_dir, rng):
    """Flips a bit of a random tensor of a random file; says where."""
    name = rng.choice(sorted(n for n in os.listdir(step_dir)
                             if n.endswith(".pt")))
    path = os.path.join(step_dir, name)
    with zipfile.ZipFile(path) as z:
        rec = rng.choice([i for i in z.infolist()
                          if "/data/" in i.filename and i.file_size])
        with open(path, "rb") as f:
            f.seek(rec.header_offset + 26)
            lens = f.read(4)
        start = rec.header_offset + 30 + int.from_bytes(lens[:2], "little") \
            + int.from_bytes(lens[2:], "little")
    with open(path, "r+b") as f:
        f.seek(start)  # element 0: never padding
        byte = f.read(1)[0]
        f.seek(start)
        f.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return f"{name}:{rec.filename}"


def main():
    work = tempfile.mkdtemp(prefix="ckptfs-oracle-")
    failed = passed = 0
    rng = random.Random(4)
    try:
        for name in CASES:
            cfg = config.parse(name)
            assert cfg.name() == name
            lines = check_case(cfg, work, rng)
            print("FAILED" if lines else "ok", name, *lines[:8], sep="\n  "
                  if lines else " ")
            failed += bool(lines)
            passed += not lines
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def check_case(cfg, work, rng):
    run_dir = truth.make(cfg, work)
    again = os.path.join(work, "again")
    framework.run(cfg.dp, _reload, cfg, run_dir, again)
    step = os.path.join(again, TAG)
    lines = compare.compare_dirs(os.path.join(run_dir, TAG), step, tails=False)
    for _ in range(0 if cfg.legacy or lines else 5):
        where = flip_one_bit(step, rng)
        found = compare.compare_dirs(os.path.join(run_dir, TAG), step, tails=False)
        if len(found) != 1:
            lines.append(f"1 bit changed in {where}: {found}")
            break
        shutil.rmtree(again)
        framework.run(cfg.dp, _reload, cfg, run_dir, again)
    shutil.rmtree(again)
    return lines


if __name__ == "__main__":
    sys.exit(main())
