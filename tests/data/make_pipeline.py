#!/usr/bin/env python3
"""Golden steps of a real DeepSpeed pipeline, in tests/data/pipeline.

  make_pipeline.py train DIR               pp 2, dp 1: train two steps, save
  make_pipeline.py resave DIR --load RUN   pp 2, dp 2: load RUN, save it again

pp2-dp1 was trained; pp2-dp2 is what the framework wrote on four ranks after it
had loaded the view pp2-dp1/@dp2.  The layout of both is the framework's own,
so they hold one state only if the view was right in every element.
"""
import argparse
import os

import torch
import torch.multiprocessing as mp
import torch.nn as nn

TAG = "global_step2"


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 5))

    def forward(self, x):
        return x @ self.weight


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 5)
        self.ln = nn.LayerNorm(5)

    def forward(self, x):
        return self.ln(x + torch.tanh(self.fc(x)))


def head(module, x):
    return x @ module.weight.t()


def loss(out, want):
    return ((out - want) ** 2).mean()


def batches():
    gen = torch.Generator().manual_seed(3)
    while True:
        x = torch.randn(2, 7, generator=gen).bfloat16()
        yield x, x


def work(rank, world, out, load):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT="29577", DS_ACCELERATOR="cpu",
                      GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1",
                      DS_IGNORE_CUDA_DETECTION="1")
    import deepspeed
    import deepspeed.comm.torch as comm
    from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec

    comm.build_shm_op = lambda: None  # else it compiles an extension
    acc = deepspeed.accelerator.get_accelerator()
    acc._communication_backend_name = "gloo"
    deepspeed.init_distributed("gloo")
    torch.manual_seed(1)
    net = PipelineModule(
        [TiedLayerSpec("embed", Embedding), LayerSpec(Block),
         LayerSpec(Block), LayerSpec(Block),
         TiedLayerSpec("embed", Embedding, forward_fn=head)],
        num_stages=2, loss_fn=loss, partition_method="uniform")
    config = {"train_batch_size": 2 * world,
              "train_micro_batch_size_per_gpu": 2,
              "bf16": {"enabled": True},
              "data_types": {"grad_accum_dtype": "fp32"},
              "zero_optimization": {"stage": 1},
              "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(
        model=net, config=config,
        optimizer=torch.optim.AdamW(net.parameters(), lr=1e-2))
    if load:
        path, _ = engine.load_checkpoint(load)
        assert path, f"{load}: nothing loaded"
    else:
        data = batches()
        for _ in range(2):
            engine.train_batch(data)
    engine.save_checkpoint(out, tag=TAG)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "resave"])
    parser.add_argument("dir")
    parser.add_argument("--load")
    args = parser.parse_args()
    world = 2 if args.what == "train" else 4
    mp.spawn(work, (world, os.path.abspath(args.dir), args.load),
             nprocs=world)
    for name in os.listdir(args.dir):  # copies of the framework's scripts
        if name.endswith(".py"):
            os.remove(os.path.join(args.dir, name))


if __name__ == "__main__":
    main()
