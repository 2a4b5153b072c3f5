#!/usr/bin/env python3
"""One process, or several ranks, that save a step's state: a line of JSON.

  stall --way WAY --from RUN --to DIR    one rank saves all of RUN's last step
  ranks --way WAY --from RUN --to DIR --ranks N    each of N an equal share
  device --from RUN --to DIR             as stall, from device memory, beside
      the rate of one copy of it to pinned host memory
  get --from RUN --tensor NAME --axis A --parts N  the first of N slices of its
      exp_avg, cut along A, into memory that is there; RUN is in a mount

WAY: torch (torch.save and fsync), deepspeed (its own engine, and fsync), dcp
(async_save), or ckptfs (the rank client; DIR is a run in a mounted store).
"""
import argparse
import glob
import json
import os
import resource
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def tensors(value, out):
    if isinstance(value, torch.Tensor):
        out.append(value)
    elif isinstance(value, dict):
        for v in value.values():
            tensors(v, out)
    elif isinstance(value, (list, tuple)):
        for v in value:
            tensors(v, out)
    return out


def state(run, rank, ranks):
    """A rank's share of all tensors: as ZeRO cuts, a flat part of each."""
    with open(f"{run}/latest") as f:
        step = f.read().strip()
    found = []
    for path in sorted(glob.glob(f"{run}/{step}/*.pt")):
        tensors(torch.load(path, map_location="cpu", weights_only=False,
                           mmap=True), found)
    out = {}
    for i, t in enumerate(found):
        n = -(-t.numel() // ranks)
        part = t.detach().contiguous().view(-1)[rank * n:(rank + 1) * n]
        if part.numel():
            out[f"t{i}"] = part.clone()
    return out


def size_of(tree):
    return sum(t.numel() * t.element_size() for t in tree.values())


def durable(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def group(rank, ranks, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}",
                            rank=rank, world_size=ranks)


class Torch:
    def __init__(self, cfg, rank, size):
        self.path = f"{cfg.to}/rank{rank}.pt"

    def save(self, tree):
        torch.save(tree, self.path)

    def wait(self):
        durable(self.path)

    def close(self):
        pass


class DeepSpeed(Torch):
    def __init__(self, cfg, rank, size):
        super().__init__(cfg, rank, size)
        from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
        self.engine = TorchCheckpointEngine()
        self.engine.zipfile_serialization = True

    def save(self, tree):
        self.engine.save(tree, self.path)


class Dcp:
    def __init__(self, cfg, rank, size):
        self.path = f"{cfg.to}/dcp"

    def save(self, tree):
        import torch.distributed.checkpoint as dcp
        self.future = dcp.async_save(tree, checkpoint_id=self.path)

    def wait(self):
        self.future.result()
        for path in glob.glob(f"{self.path}/*"):
            durable(path)

    def close(self):
        pass


class Ckptfs:
    def __init__(self, cfg, rank, size):
        import ckptfs
        self.name = f"rank{rank}.pt"
        ring = cfg.ring or (size * 11 // 10 + (8 << 20))
        self.rank = ckptfs.Rank(cfg.to, comm="torch" if cfg.ranks > 1
                                else None, ring_bytes=ring)
        self.step = 0

    def save(self, tree):
        from ckptfs import torchfile
        self.step += 1
        self.saving = self.rank.save(f"global_step{self.step}", format="files")
        with self.saving.open_file(self.name) as out:
            torchfile.save(tree, out)
        self.saving.commit()

    def wait(self):
        self.saving.wait()

    def close(self):
        self.rank.close()


WAYS = {"torch": Torch, "deepspeed": DeepSpeed, "dcp": Dcp, "ckptfs": Ckptfs}


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one(rank, cfg, queue):
    torch.set_num_threads(1)
    if cfg.ranks > 1 or cfg.way == "dcp":
        group(rank, cfg.ranks, cfg.port)
    tree = state(getattr(cfg, "from"), rank, cfg.ranks)
    size = size_of(tree)
    way = WAYS[cfg.way](cfg, rank, size)
    if cfg.ranks > 1:
        dist.barrier()
    before, began = cpu(), time.monotonic()
    way.save(tree)
    stalled = time.monotonic()
    way.wait()
    ended = time.monotonic()
    queue.put({"began": began, "stall": stalled - began, "ended": ended,
               "cpu": cpu() - before, "bytes": size})
    way.close()
    if dist.is_initialized():
        dist.destroy_process_group()


def device(cfg):
    """Seconds until the state is out of the device's memory and may be
    changed, and those of a pinned copy of as many bytes."""
    tree = {name: t.cuda() for name, t in
            state(getattr(cfg, "from"), 0, 1).items()}
    size = size_of(tree)
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    way = Ckptfs(cfg, 0, size)
    took = {"copy": [], "save": []}
    for _ in range(4):  # the first one pins the ring
        torch.cuda.synchronize()
        began = time.monotonic()
        pinned.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        took["copy"].append(time.monotonic() - began)
        began = time.monotonic()
        way.save(tree)
        took["save"].append(time.monotonic() - began)
        way.wait()
    way.close()
    return {"copy": min(took["copy"][1:]), "save": min(took["save"][1:]),
            "bytes": size}


def get(cfg):
    import ckptfs
    with ckptfs.Rank(getattr(cfg, "from"), ring_bytes=cfg.ring) as rank:
        step = rank.load()
        shape = list(step.info(cfg.tensor, "exp_avg").shape)
        shape[cfg.axis] //= cfg.parts
        out = torch.zeros(shape)
        before, began = cpu(), time.monotonic()
        step.get(cfg.tensor, "exp_avg", out=out,
                 index=tuple(slice(0, n) for n in shape))
        return {"seconds": time.monotonic() - began, "cpu": cpu() - before,
                "bytes": out.numel() * out.element_size()}


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("what", choices=("stall", "ranks", "device", "get"))
    ap.add_argument("--way", choices=WAYS)
    ap.add_argument("--from", required=True, metavar="RUN")
    ap.add_argument("--to", metavar="DIR")
    ap.add_argument("--tensor")
    ap.add_argument("--axis", type=int)
    ap.add_argument("--parts", type=int)
    ap.add_argument("--ranks", type=int, default=1)
    ap.add_argument("--ring", type=int, default=0,
                    help="bytes; default: all that a rank saves")
    ap.add_argument("--port", type=int, default=29517)
    cfg = ap.parse_args()
    if cfg.what in ("get", "device"):
        print(json.dumps({"get": get, "device": device}[cfg.what](cfg)))
        return
    os.makedirs(cfg.to, exist_ok=True)
    queue = mp.get_context("spawn").Queue()
    mp.spawn(one, (cfg, queue), nprocs=cfg.ranks)
    got = [queue.get() for _ in range(cfg.ranks)]
    print(json.dumps({
        "stall": max(g["stall"] for g in got),
        "durable": max(g["ended"] for g in got) -
        min(g["began"] for g in got),
        "cpu": sum(g["cpu"] for g in got),
        "bytes": sum(g["bytes"] for g in got)}))


if __name__ == "__main__":
    sys.exit(main())
