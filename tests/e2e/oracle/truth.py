"""Directories written by the framework itself: one state, any topology."""
import os
import shutil

from . import framework, model, state
from .config import TAG


def make_engine(cfg):
    import deepspeed
    from . import adam_kernel
    net = model.build(cfg)
    groups = model.param_groups(cfg, net)
    make = adam_kernel.fused if cfg.adam == "fused" else adam_kernel.plain
    # DeepSpeed takes over the initial value of each group's learning rate
    engine, *_ = deepspeed.initialize(
        model=net, optimizer=make(groups, 0.01), config=cfg.ds_config(),
        dist_init_required=False)
    return engine


def train_step(cfg, engine, step, rank, world):
    """One step on the step's global batch; the loss over all of it."""
    import torch
    loss = engine(*model.batch(step, rank, world))
    engine.backward(loss)
    engine.step()
    total = loss.detach().double()
    torch.distributed.all_reduce(total)
    return total.item() / world


def _save_state(rank, world, cfg, run_dir):
    engine = make_engine(cfg)
    train_step(cfg, engine, 0, rank, world)
    assert engine.skipped_steps == 0, "the step overflowed"
    state.set_all(cfg, engine, rank, world)
    state.save(cfg, engine, run_dir)


def make(cfg, work):
    """The run directory of cfg under work, made once; returns its path."""
    run_dir = os.path.join(work, cfg.name())
    if os.path.isdir(run_dir):
        return run_dir
    why = cfg.why_invalid()
    if why:
        raise ValueError(f"{cfg.name()}: {why}")
    tmp = run_dir + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    os.makedirs(tmp)
    framework.run(cfg.dp, _save_state, cfg, tmp)
    assert os.path.isdir(os.path.join(tmp, TAG))
    os.rename(tmp, run_dir)
    return run_dir


def main():
    import argparse
    import time
    from . import config
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("work", help="directory for the run directories")
    ap.add_argument("names", nargs="+", help="such as bf16-g2_z1-dp4")
    args = ap.parse_args()
    for name in args.names:
        start = time.monotonic()
        try:
            print(make(config.parse(name), args.work),
                  f"{time.monotonic() - start:.1f} s", flush=True)
        except framework.RankError as err:
            print(name, "FAILED", err, flush=True)


if __name__ == "__main__":
    main()
