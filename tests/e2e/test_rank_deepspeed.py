#!/usr/bin/env python3
"""DeepSpeed trains and saves through our engine, chosen by one line of its
configuration; stock DeepSpeed resumes from the mount, at the same size and at
another, and the other way round.  See rank_place.py.

The losses must be those of one run that nobody interrupted: the very same at
the same size, else as near as resume.py says.
"""
import os
import shutil
import sys
import tempfile

from rank_place import fails, main, mounted

import torch

try:
    import ckptfs._hook
    ckptfs._hook.install()  # as `import torch` does where it is installed
    from oracle import config, framework, truth
    from resume import FLOOR, NOISE, worst
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

CASE = "fp32-g2_z1-dp2"
LEG = 3  # steps of training between two saves


def make(cfg, ours):
    """A DeepSpeed engine; `ours` is the section's value, or None."""
    settings = cfg.ds_config()
    if ours is not None:
        settings["ckptfs"] = ours
    object.__setattr__(cfg, "ds_config", lambda: settings)
    engine = truth.make_engine(cfg)
    name = type(engine.checkpoint_engine).__module__
    assert (name == "ckptfs.deepspeed") == (ours is not None), name
    return engine


def train(cfg, engine, rank, world, first, count):
    return [truth.train_step(cfg, engine, s, rank, world)
            for s in range(first, first + count)]


def _whole(rank, world, cfg):
    return train(cfg, make(cfg, None), rank, world, 0, 3 * LEG)


def _leg(rank, world, cfg, ours, load, save, first):
    engine = make(cfg, ours)
    if load:
        path, client = engine.load_checkpoint(load)
        assert path and client["done"] == first == engine.global_steps
    losses = train(cfg, engine, rank, world, first, LEG)
    if save:
        engine.save_checkpoint(save, client_state={"done": first + LEG})
        tag = f"global_step{first + LEG}"
        assert os.path.exists(f"{save}/{tag}/mp_rank_00_model_states.pt")
        with open(f"{save}/latest") as f:
            assert f.read() == tag
    return losses


def test_resumes():
    import dataclasses
    two = config.parse(CASE)
    one = dataclasses.replace(two, dp=1)
    want = framework.run(2, _whole, two)[0]
    noise = worst(want, framework.run(1, _whole, one)[0])
    with mounted() as s:
        run = f"{s.mnt}/run"
        os.mkdir(run)
        got = framework.run(2, _leg, two, True, None, run, 0)[0]
        a = sorted(os.listdir(f"{run}/global_step{LEG}"))
        a.remove("ckptfs")  # which says that ranks committed it
        resized = framework.run(1, _leg, one, None, f"{run}/@dp1", None,
                                LEG)[0]
        got += framework.run(2, _leg, two, None, run, run, LEG)[0]
        assert a == sorted(os.listdir(f"{run}/global_step{2 * LEG}"))
        # Its own are there, and DeepSpeed's recovery script beside them.
        assert "zero_to_fp32.py" in os.listdir(run)
        got += framework.run(2, _leg, two, {"ring_bytes": 8 << 20}, run,
                             f"{s.mnt}/run", 2 * LEG)[0]
        s.umount()
        s.mount()
        assert sorted(n for n in os.listdir(run) if n[:6] == "global") == \
            [f"global_step{LEG * i}" for i in (1, 2, 3)]
    assert got == want, (got, want)
    limit = NOISE * noise + FLOOR[two.prec]
    assert worst(want[LEG:2 * LEG], resized) <= limit


def _fails(rank, world, cfg, run):
    engine = make(cfg, True)
    train(cfg, engine, rank, world, 0, 1)
    stock = engine.optimizer.state_dict
    if rank == 1:
        engine.optimizer.state_dict = lambda: {"bad": lambda: 0, **stock()}
    try:
        engine.save_checkpoint(run)
    except Exception as err:
        text = str(err)
    else:
        raise AssertionError("a save that failed on one rank succeeded")
    assert not os.path.exists(f"{run}/global_step1")
    assert not os.path.exists(f"{run}/latest")
    engine.optimizer.state_dict = stock
    torch.distributed.barrier()
    engine.save_checkpoint(run)
    assert os.path.exists(f"{run}/global_step1")
    # Once more into the same tag, as stock DeepSpeed can.
    engine.save_checkpoint(run, client_state={"again": 1})
    assert engine.load_checkpoint(run)[1]["again"] == 1
    # A file beside the steps, by the mount; no step comes of it.
    engine.save_16bit_model(f"{run}/weights")
    torch.distributed.barrier()  # DeepSpeed has none there
    assert os.listdir(f"{run}/weights") == ["pytorch_model.bin"]
    # Not the pointer, if it is not asked for.
    engine.save_checkpoint(run, tag="other", save_latest=False)
    with open(f"{run}/latest") as f:
        assert f.read() == "global_step1"
    return text


def test_fails_for_all():
    with mounted() as s:
        run = f"{s.mnt}/run"
        os.mkdir(run)
        a, b = framework.run(2, _fails, config.parse(CASE), run)
        assert "lambda" in a and "lambda" in b, (a, b)
        assert os.path.isdir(f"{run}/other")


def _outside(rank, world, cfg, where):
    engine = make(cfg, True)
    return str(fails(OSError, "no mounted store", engine.save_checkpoint,
                     where))


def test_refuses_ordinary_directories():
    where = tempfile.mkdtemp(prefix="ckptfs-ds-")
    try:
        framework.run(2, _outside, config.parse(CASE), where)
        assert os.listdir(where) == []
    finally:
        shutil.rmtree(where)


def _later(rank, world, cfg, run):
    engine = make(cfg, {"async": True})
    train(cfg, engine, rank, world, 0, 1)
    engine.save_checkpoint(run)
    before = os.path.exists(f"{run}/global_step1")
    train(cfg, engine, rank, world, 1, 1)
    assert not before and os.path.exists(f"{run}/global_step1")
    with open(f"{run}/latest") as f:
        assert f.read() == "global_step1"
    engine.save_checkpoint(run)
    engine.destroy()
    assert os.path.exists(f"{run}/global_step2")


def test_later():
    with mounted() as s:
        os.mkdir(f"{s.mnt}/run")
        framework.run(2, _later, config.parse(CASE), f"{s.mnt}/run")
        with open(f"{s.mnt}/run/latest") as f:
            assert f.read() == "global_step2"


if __name__ == "__main__":
    work = tempfile.mkdtemp(prefix="ckptfs-ds-")
    os.chdir(work)  # DeepSpeed leaves a script behind in some releases
    try:
        code = main(globals())
    finally:
        os.chdir("/")
        shutil.rmtree(work)
    sys.exit(code)
