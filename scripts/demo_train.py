#!/usr/bin/env python3
"""Train a small language model with DeepSpeed ZeRO-1 on a few CPU processes.

An ordinary DeepSpeed program: it knows nothing of ckptfs.  It learns to
predict the next byte of a text; the batch of a step is the same however many
ranks share it, so that losses of different rank counts can be compared.

  demo_train.py --ranks 4 --steps 20 --save run1
  demo_train.py --ranks 2 --steps 10 --load run1/@dp2
"""
import argparse
import os
import sys
import tempfile

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "ERROR")

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torch._dynamo  # noqa: E402, F401  imported once, not by every rank
import deepspeed  # noqa: E402
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: E402, F401

HERE = os.path.dirname(os.path.abspath(__file__))
GLOBAL_BATCH = 120  # divides by 1, 2, 3, 4, 5, 6, 8, 10, 12, ...
LENGTH, WIDTH, LAYERS = 32, 96, 2


class Block(nn.Module):
    """Pre-norm transformer block with causal attention."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 4, -1)).unbind(2)
        att = F.scaled_dot_product_attention(
            *(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        x = x + self.out(att.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(256, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, x, target):
        h = self.tokens(x) + self.places.weight
        logits = self.norm(self.blocks(h)) @ self.tokens.weight.T
        return F.cross_entropy(logits.float().flatten(0, 1), target.flatten())


def batch(text, step, rank, ranks):
    """This rank's share of the step's batch."""
    gen = torch.Generator().manual_seed(step)
    starts = torch.randint(len(text) - LENGTH, (GLOBAL_BATCH,), generator=gen)
    share = GLOBAL_BATCH // ranks
    rows = torch.stack([text[s:s + LENGTH + 1]
                        for s in starts[rank * share:][:share]])
    return rows[:, :-1], rows[:, 1:]


def start_engine(ranks):
    torch.manual_seed(0)
    model = Model()
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1},
         {"params": plain, "weight_decay": 0.0}], lr=2e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config={
        "train_batch_size": GLOBAL_BATCH,
        "train_micro_batch_size_per_gpu": GLOBAL_BATCH // ranks,
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": 1},
    })
    return engine


def train(rank, ranks, args, rendezvous):
    # DeepSpeed prints much; only this program's own lines shall be seen.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(f"{rendezvous}.log{rank}", os.O_WRONLY | os.O_CREAT), 1)
    torch.set_num_threads(1)
    # Else DeepSpeed compiles an extension for shared-memory collectives.
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(ranks), LOCAL_SIZE=str(ranks),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank,
        world_size=ranks)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    engine = start_engine(ranks)
    if args.load:
        path, _ = engine.load_checkpoint(args.load)
        if path is None:
            raise SystemExit(f"no checkpoint in {args.load}")
    with open(args.text, "rb") as f:
        text = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).long()
    for _ in range(args.steps):
        step = engine.global_steps
        loss = engine(*batch(text, step, rank, ranks))
        engine.backward(loss)
        engine.step()
        total = loss.detach().float()
        torch.distributed.all_reduce(total)
        if rank == 0:
            print(f"step {step + 1:3}  loss {total.item() / ranks:.4f}",
                  file=out)
    if args.save:
        engine.save_checkpoint(args.save)
    torch.distributed.destroy_process_group()


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ranks", type=int, default=4)
    ap.add_argument("--steps", type=int, default=10)
    ap.add_argument("--save", metavar="DIR", help="save at the end")
    ap.add_argument("--load", metavar="DIR", help="go on from here")
    ap.add_argument("--text", default=os.path.join(HERE, "..", "README.md"))
    args = ap.parse_args()
    if GLOBAL_BATCH % args.ranks:
        ap.error(f"--ranks must divide {GLOBAL_BATCH}")
    with tempfile.TemporaryDirectory(prefix="ckptfs-demo-") as tmp:
        torch.multiprocessing.start_processes(
            train, (args.ranks, args, os.path.join(tmp, "ranks")),
            nprocs=args.ranks, start_method="fork")


if __name__ == "__main__":
    main()
