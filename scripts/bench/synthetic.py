#!/usr/bin/env python3
"""Write a DeepSpeed step of a large model as sparse files.

    synthetic.py OUT [--ranks 64] [--tensors 10000] [--stage 1|3]

Names, pickles and sizes are those of a real step (70 G parameters by default);
payloads are holes, so a terabyte of checkpoint takes some megabytes of disk.
Used to measure planning, which reads pickles only.
"""
import argparse
import collections
import os
import sys

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../../tests/e2e")
sys.dont_write_bytecode = True

from sparse_torch import Storage, Tensor, numel, save  # noqa: E402


def shapes(tensors):
    for i in range(tensors):
        yield (f"model.layers.{i // 8}.part{i % 8}.weight",
               (2000, 7000) if i % 8 < 4 else (2048,))


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
