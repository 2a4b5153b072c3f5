#!/usr/bin/env python3
"""Write a DeepSpeed step of a large model as sparse files.

    synthetic.py OUT [--ranks 64] [--tensors 10000] [--stage 1|3]

Names, pickles and sizes are those of a real step (70 G parameters by default);
payloads are holes, so a terabyte of checkpoint takes some megabytes of disk.
Used to measure planning, which reads pickles only.
"""
import argparse
import collections
import io
import os
import pickle
import struct
import zlib

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

ITEM = {torch.FloatStorage: 4, torch.BFloat16Storage: 2}


class Storage:
    def __init__(self, cls, numel):
        self.cls, self.numel = cls, numel


class Tensor:
    """Pickles as torch would pickle a contiguous tensor over `storage`."""

    def __init__(self, storage, offset, shape, grad=False):
        self.storage, self.offset, self.shape, self.grad = storage, offset, shape, grad

    def __reduce__(self):
        stride, run = [], 1
        for n in reversed(self.shape):
            stride.insert(0, run)
            run *= n
        return torch._utils._rebuild_tensor_v2, (
            self.storage, self.offset, tuple(self.shape), tuple(stride),
            self.grad, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, out):
        super().__init__(out, protocol=2)
        self.keys = {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = self.keys.setdefault(obj, str(len(self.keys)))
        return ("storage", obj.cls, key, "cpu", obj.numel)


class Archive:
    """A stored zip as torch 2.6 lays it out, with holes for payloads."""

    def __init__(self, path):
        self.f = open(path, "wb")
        self.prefix = os.path.basename(path).rsplit(".", 1)[0]
        self.directory = []

    def add(self, name, size, data=None):
        name = f"{self.prefix}/{name}".encode()
        at = self.f.tell()
        big, far = size >= 0xFFFFFFFF, at >= 0xFFFFFFFF
        extra = b""
        if big or far:
            body = (struct.pack("<QQ", size, 0) if big else b"") + (
                struct.pack("<Q", at) if far else b"")
            extra = struct.pack("<HH", 1, len(body)) + body
        pad = -(at + 30 + len(name) + 4 + len(extra)) % 64
        extra += b"FB" + struct.pack("<H", pad) + b"Z" * pad
        flags = 0x808 if size else 0x800
        self.f.write(struct.pack("<4sHHHIIIIHH", b"PK\3\4", 0, flags, 0, 0, 0, 0, 0,
                                 len(name), len(extra)) + name + extra)
        crc = 0
        if data is None:
            self.f.seek(size, os.SEEK_CUR)
        else:
            crc = zlib.crc32(data)
            self.f.write(data)
        if size:
            self.f.write(b"PK\7\10" + struct.pack("<I", crc) + struct.pack(
                "<QQ" if big or far else "<II", size, size))
        self.directory.append((name, flags, crc, size, at))

    def close(self):
        start = self.f.tell()
        for name, flags, crc, size, at in self.directory:
            body = (struct.pack("<QQ", size, size) if size >= 0xFFFFFFFF else b"") + (
                struct.pack("<Q", at) if at >= 0xFFFFFFFF else b"")
            extra = struct.pack("<HH", 1, len(body)) + body if body else b""
            small = min(size, 0xFFFFFFFF)
            self.f.write(struct.pack(
                "<4sHHHHIIIIHHHHHII", b"PK\1\2", 0, 0, flags, 0, 0, crc, small, small,
                len(name), len(extra), 0, 0, 0, 0, min(at, 0xFFFFFFFF)) + name + extra)
        end, n = self.f.tell(), len(self.directory)
        self.f.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x031E, 45, 0, 0, n, n,
                                 end - start, start))
        self.f.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        self.f.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, min(n, 0xFFFF),
                                 min(n, 0xFFFF), min(end - start, 0xFFFFFFFF),
                                 min(start, 0xFFFFFFFF), 0))
        self.f.close()


def save(path, obj):
    out = io.BytesIO()
    p = Pickler(out)
    p.dump(obj)
    a = Archive(path)
    a.add("data.pkl", out.tell(), out.getvalue())
    a.add("byteorder", 6, b"little")
    for storage, key in p.keys.items():
        a.add(f"data/{key}", storage.numel * ITEM[storage.cls])
    a.add("version", 2, b"3\n")
    a.close()


def shapes(tensors):
    for i in range(tensors):
        yield (f"model.layers.{i // 8}.part{i % 8}.weight",
               (2000, 7000) if i % 8 < 4 else (2048,))


def numel(shape):
    n = 1
    for s in shape:
        n *= s
    return n


def model_states(params, ranks, stage, module):
    order = collections.OrderedDict((n, torch.Size(s)) for n, s in params)
    return {
        "module": module, "buffer_names": [], "optimizer": None, "param_shapes": [order],
        "frozen_param_shapes": collections.OrderedDict() if stage > 1 else None,
        "shared_params": {},
        "frozen_param_fragments": collections.OrderedDict() if stage > 1 else None,
        "lr_scheduler": None, "data_sampler": None, "random_ltd": None,
        "sparse_tensor_module_names": set(), "skipped_steps": 0, "global_steps": 1000,
        "global_samples": 64000, "dp_world_size": ranks, "mp_world_size": 1,
        "ds_config": {"train_batch_size": ranks, "bf16": {"enabled": True},
                      "zero_optimization": {"stage": stage}},
        "ds_version": "0.19.8",
    }


def zero1(out, params, ranks):
    total = sum(numel(s) for _, s in params)
    aligned = -(-total // (2 * ranks)) * 2 * ranks
    part = aligned // ranks
    flat = Storage(torch.BFloat16Storage, aligned)
    module, at = collections.OrderedDict(), 0
    spans = []
    for name, shape in params:
        module[name] = Tensor(flat, at, shape)
        spans.append((name, at, at + numel(shape)))
        at += numel(shape)
    save(f"{out}/mp_rank_00_model_states.pt", model_states(params, ranks, 1, module))
    for r in range(ranks):
        lo, hi = r * part, (r + 1) * part
        pad = min(part, max(0, hi - total))
        slices = collections.OrderedDict(
            (n, fragment_address(numel=min(b, hi) - max(a, lo), start=max(a, lo) - lo))
            for n, a, b in spans if a < hi and b > lo)
        state = {k: Tensor(Storage(torch.FloatStorage, part), 0, (part,))
                 for k in ("exp_avg", "exp_avg_sq")}
        state = {"step": Tensor(Storage(torch.FloatStorage, 1), 0, ()), **state}
        save(f"{out}/bf16_zero_pp_rank_{r}_mp_rank_00_optim_states.pt", {
            "optimizer_state_dict": {
                "loss_scaler": LossScaler(1.0), "dynamic_loss_scale": False,
                "overflow": False, "clip_grad": 1.0,
                "base_optimizer_state": {"state": {0: state}, "param_groups": [
                    {"lr": 1e-4, "weight_decay": 0.1, "params": [0]}]},
                "single_partition_of_fp32_groups": [
                    Tensor(Storage(torch.FloatStorage, part), 0, (part - pad,), True)],
                "zero_stage": ZeroStageEnum(1), "group_paddings": [pad],
                "param_alignment_paddings": [[0] * len(params)],
                "partition_count": [ranks], "ds_version": "0.19.8",
                "param_slice_mappings": [slices]},
            "ds_config": {}, "ds_version": "0.19.8"})


def zero3(out, params, ranks):
    part = sum(-(-numel(s) // ranks) for _, s in params)
    for r in range(ranks):
        module = collections.OrderedDict(
            (n, Tensor(Storage(torch.BFloat16Storage, 0), 0, (0,))) for n, _ in params)
        save(f"{out}/zero_pp_rank_{r}_mp_rank_00_model_states.pt",
             model_states(params, ranks, 3, module))
        state = {"step": Tensor(Storage(torch.FloatStorage, 1), 0, ()),
                 **{k: Tensor(Storage(torch.FloatStorage, part), 0, (part,))
                    for k in ("exp_avg", "exp_avg_sq")}}
        save(f"{out}/bf16_zero_pp_rank_{r}_mp_rank_00_optim_states.pt", {
            "optimizer_state_dict": {
                "zero_stage": ZeroStageEnum(3), "loss_scaler": LossScaler(1.0),
                "dynamic_loss_scale": False, "overflow": False, "partition_count": ranks,
                "optimizer_state_dict": {"state": {0: state}, "param_groups": [
                    {"lr": 1e-4, "weight_decay": 0.1, "params": [0]}]},
                "fp32_flat_groups": [Tensor(Storage(torch.FloatStorage, part), 0, (part,))]},
            "ds_config": {"zero_optimization": {"stage": 3, "sub_group_size": 10**12}},
            "ds_version": "0.19.8"})


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("out", help="a run's directory; global_step1000 is made in it")
    a.add_argument("--ranks", type=int, default=64)
    a.add_argument("--tensors", type=int, default=10000)
    a.add_argument("--stage", type=int, choices=(1, 3), default=1)
    args = a.parse_args()
    step = f"{args.out}/global_step1000"
    os.makedirs(step)
    params = list(shapes(args.tensors))
    (zero1 if args.stage == 1 else zero3)(step, params, args.ranks)
    with open(f"{args.out}/latest", "w") as f:
        f.write("global_step1000")


main()
