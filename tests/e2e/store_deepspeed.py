#!/usr/bin/env python3
"""DeepSpeed trains into a mounted store, is resumed at other sizes with load
and save through the same view path, and the daemon is killed in between.

    ranks   load                save                   step
      2     -                   MNT/run                a
      4     MNT/run/@dp4        MNT/run/@dp4           b (shown native at dp4)
      2     MNT/run/@dp2        MNT/run/@dp2           c (b seen as dp2)

Each leg's losses must be those of one uninterrupted run at 2 ranks, within
what another number of ranks alone causes (see resume.py); each leg that
resumes with zeroed moments would be farther away than allowed, which
resume.py proves.
"""
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import store_place  # noqa: E402
from oracle import config, framework, truth  # noqa: E402
from resume import FLOOR, NOISE, worst  # noqa: E402

LEG = 4  # steps of training between two saves
CASE = "fp32-g2_z1-dp2"


def _train(cfg, engine, rank, world, first, count):
    return [truth.train_step(cfg, engine, s, rank, world)
            for s in range(first, first + count)]


def _whole(rank, world, cfg):
    engine = truth.make_engine(cfg)
    return _train(cfg, engine, rank, world, 0, 3 * LEG)


def _leg(rank, world, cfg, load, save, first):
    engine = truth.make_engine(cfg)
    if load:
        path, client = engine.load_checkpoint(load)
        assert path, f"nothing was loaded from {load}"
        assert client["done"] == first == engine.global_steps
    losses = _train(cfg, engine, rank, world, first, LEG)
    engine.save_checkpoint(save, client_state={"done": first + LEG})
    return losses


def main():
    import dataclasses
    why = store_place.why_not()
    if why:
        print(f"skipped: {why}")
        return 77
    two = config.parse(CASE)
    four = dataclasses.replace(two, dp=4)
    want = framework.run(2, _whole, two)[0]
    noise = worst(want, framework.run(4, _whole, four)[0])
    got = []
    with store_place.store() as s:
        mnt = s.mount()
        os.mkdir(f"{mnt}/run")
        for cfg, load, save, first in (
                (two, None, "run", 0), (four, "run/@dp4", "run/@dp4", LEG),
                (two, "run/@dp2", "run/@dp2", 2 * LEG)):
            got += framework.run(
                cfg.dp, _leg, cfg, load and f"{mnt}/{load}", f"{mnt}/{save}",
                first)[0]
            # Rank 0 closes `latest`, which syncs, maybe before another rank
            # has written its file: those are safe with the next sync.
            store_place.check("sync", "-f", mnt)
            s.kill()
            s.mount()
            tag = f"global_step{first + LEG}"
            with open(f"{mnt}/run/latest") as f:
                assert f.read() == tag
            optim = [n for n in os.listdir(f"{mnt}/run/{tag}")
                     if n.endswith("optim_states.pt")]
            assert len(optim) == cfg.dp, optim
        names = sorted(n for n in os.listdir(f"{mnt}/run")
                       if n.startswith("global_step"))
        want_names = {f"global_step{LEG * i}" for i in (1, 2, 3)}
        assert set(names) == want_names, names
        # A native step shown by a view is the very same file.
        a = os.stat(f"{mnt}/run/global_step{2 * LEG}/mp_rank_00_model_states.pt")
        b = os.stat(f"{mnt}/run/@dp4/global_step{2 * LEG}/"
                    "mp_rank_00_model_states.pt")
        assert (a.st_ino, a.st_mtime_ns) == (b.st_ino, b.st_mtime_ns)
        s.umount()
        s.fsck()
    limit = NOISE * noise + FLOOR[two.prec]
    diff = worst(want, got)
    print(f"{CASE}: 3 legs at 2, 4, 2 ranks: losses differ by {diff:.1e}, "
          f"allowed {limit:.1e}, the sizes alone {noise:.1e}")
    assert diff <= limit
    return 0


if __name__ == "__main__":
    work = tempfile.mkdtemp(prefix="ckptfs-ds-")
    os.chdir(work)  # DeepSpeed leaves a script behind in some releases
    try:
        code = main()
    finally:
        os.chdir("/")
        shutil.rmtree(work)
    sys.exit(code)
