#!/usr/bin/env python3
"""Resume from views of a pipeline with unmodified DeepSpeed.

As in resume.py: a pipeline trains, saves, and goes on, which is the reference.
Then one of a single stage loads the view in a mount and trains the same steps
on the same data.  Its losses may differ from the reference by little more than
those of two runs without checkpoints do, and must by more when the moments are
zeroed.  The embedding is tied at both ends.
"""
import itertools
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "data")]

import torch  # noqa: E402
from make_pipeline import Block, Embedding, head, loss  # noqa: E402
from oracle import framework, product  # noqa: E402

BEFORE, AFTER = 6, 6
FLOOR, NOISE = 3e-4, 2
LAYERS, GLOBAL_BATCH = 7, 4
# (stages, ranks of data, optimizer) of the source and of the target, and what
# is asked for.  One stage: of layers of no known model nothing tells which of
# several has the tied embedding.
CASES = (
    ((2, 1, "bf16opt"), (1, 1, "bf16opt"), "pp1"),
    ((3, 1, "zero"), (1, 2, "bf16opt"), "pp1-dp2-bf16opt"),
    ((2, 2, "zero"), (1, 1, "zero"), "pp1-dp1"),
)


def engine(shape):
    import deepspeed
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
    stages, dp, optimizer = shape
    torch.manual_seed(1)
    tied = [TiedLayerSpec("embed", Embedding),
            TiedLayerSpec("embed", Embedding, forward_fn=head)]
    net = PipelineModule(
        tied[:1] + [LayerSpec(Block) for _ in range(LAYERS - 2)] + tied[1:],
        num_stages=stages, loss_fn=loss, partition_method="uniform",
        seed_layers=True)  # the same weights whatever the stages
    config = {"train_batch_size": GLOBAL_BATCH,
              "train_micro_batch_size_per_gpu": 1,
              "gradient_accumulation_steps": GLOBAL_BATCH // dp,
              "bf16": {"enabled": True},
              "zero_optimization": {"stage": 1},
              "zero_allow_untested_optimizer": True}
    if optimizer == "bf16opt":
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    made, *_ = deepspeed.initialize(
        model=net, config=config, dist_init_required=False,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-2))
    return made


def batches(made, first):
    """Every rank's share of batch first, first + 1, ..."""
    dp, rank = made.grid.data_parallel_size, made.grid.get_data_parallel_id()
    for step in itertools.count(first):
        gen = torch.Generator().manual_seed(step)
        all_of_it = torch.randn(GLOBAL_BATCH, 1, 7, generator=gen)
        for x in all_of_it[rank::dp].bfloat16():
            yield x, x


def losses(made, first):
    data = batches(made, first)
    return [float(made.train_batch(data)) for _ in range(AFTER)]


def reference(rank, world, shape, run_dir):
    made = engine(shape)
    data = batches(made, 0)
    for _ in range(BEFORE):
        made.train_batch(data)
    if run_dir:
        made.save_checkpoint(run_dir)
    return losses(made, BEFORE)


def resume(rank, world, shape, load_dir, moments):
    made = engine(shape)
    path, _ = made.load_checkpoint(load_dir)
    assert path and made.global_steps == BEFORE, (path, made.global_steps)
    if not moments:
        for state in made.optimizer.optimizer.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name].zero_()
    return losses(made, BEFORE)


def worst(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


def check(number, case, work, mnt):
    """(line to print, passed)"""
    source, target, request = case
    run_dir = os.path.join(work, "runs", str(number))
    want = framework.run(source[0] * source[1], reference, source, run_dir)[0]
    world = target[0] * target[1]
    native = framework.run(world, reference, target, None)[0]
    load = os.path.join(mnt, str(number), "@" + request)
    done = product.run("view", "explain", f"{load}/global_step{BEFORE}")
    if done.returncode:
        return f"{request}: {done.stderr.strip()}", False
    got = framework.run(world, resume, target, load, True)[0]
    bad = framework.run(world, resume, target, load, False)[0]
    noise, diff, power = (worst(want, x) for x in (native, got, bad))
    limit = NOISE * noise + FLOOR
    return (f"pp{source[0]}-dp{source[1]} {source[2]} as {request}: loss "
            f"{got[0]:.6f} .. {got[-1]:.6f}, view {diff:.1e} allowed "
            f"{limit:.1e}, no moments {power:.1e}", diff <= limit < power)


def main():
    why = product.why_fuse_is_missing()
    if why:
        print(f"skipped: {why}")
        return 77
    work = tempfile.mkdtemp(prefix="ckptfs-resume-")
    os.mkdir(os.path.join(work, "runs"))
    passed = 0
    try:
        with product.mounted(os.path.join(work, "runs"),
                             os.path.join(work, "mnt")) as mnt:
            for number, case in enumerate(CASES):
                try:
                    line, ok = check(number, case, work, mnt)
                except framework.RankError as err:
                    line, ok = f"{case}: {err}", False
                print("ok     " if ok else "FAILED ", line, flush=True)
                passed += ok
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {len(CASES) - passed} failed")
    return 0 if passed == len(CASES) else 1


if __name__ == "__main__":
    sys.exit(main())
