"""Put the logical state of model.py into a live DeepSpeed engine.

Nothing here computes a layout: where a parameter lies is read off the
framework's own objects, as addresses in its flat buffers.  That works in
every release; selfcheck.py reads back through the framework's getters.
"""
import argparse
import random

import numpy as np
import torch

from .config import TAG
from .model import value

STEP = 7
MOMENTS = ("exp_avg", "exp_avg_sq")


def client_state():
    """What trainers add: counters, RNG states, a Namespace, odd containers."""
    torch.manual_seed(5)
    return {
        "iteration": STEP,
        "rng_state": torch.get_rng_state(),
        "np_rng": np.random.RandomState(3).get_state(),
        "py_rng": random.Random(9).getstate(),
        "args": argparse.Namespace(hidden=5, dtype=torch.bfloat16, lr=1e-2),
        "tokens_seen": 10 ** 12,
        "metrics": {"loss": [1.5, float("nan")], "best": None, 3: (True, b"x")},
        "ema": torch.arange(6, dtype=torch.float64).reshape(2, 3).t(),
    }


def _trainable(engine):
    return [(n, p) for n, p in engine.module.named_parameters()
            if p.requires_grad]


def _offset(part, whole):
    """Where the framework put the tensor in its flat buffer, in elements."""
    at = part.data_ptr() - whole.data_ptr()
    assert 0 <= at <= (whole.numel() - part.numel()) * whole.element_size()
    return at // whole.element_size()


def _set_flat(engine, lp_groups, lp_flats, masters, dp_groups):
    """Stages 1 and 2, BF16_Optimizer: by each parameter's address in its flat
    16-bit group, of which the master is one partition.

    The framework's own setters go by its fragment mapping, which is wrong
    under round robin; addresses never are.
    """
    base = engine.optimizer.optimizer
    names = {id(p): n for n, p in _trainable(engine)}
    for lps, flat, master, dp in zip(lp_groups, lp_flats, masters, dp_groups):
        start = torch.distributed.get_rank(dp) * master.numel()
        for kind in ("fp32",) + MOMENTS:
            whole = torch.zeros(flat.numel())
            for p in lps:
                val = value(names[id(p)], kind, p.shape)
                at = _offset(p.data, flat)
                whole[at:at + p.numel()] = val.flatten()
                if kind == "fp32":
                    p.data.copy_(val)
            into = master.data if kind == "fp32" else base.state[master][kind]
            into.copy_(whole[start:][:master.numel()])


def _set_stage3(engine, rank, world):
    """By each slice's address in the flat 16-bit partition of its sub-group.

    The tail past the parameter's end is arbitrary in real files; here it is
    junk that nobody may take for a value.
    """
    opt = engine.optimizer
    names = {id(p): n for n, p in _trainable(engine)}
    for lps, flat, master in zip(opt.fp16_groups,
                                 opt.fp16_partitioned_groups_flat,
                                 opt.fp32_partitioned_groups_flat):
        for kind in ("fp32",) + MOMENTS:
            into = master.data if kind == "fp32" \
                else opt.optimizer.state[master][kind]
            for p in lps:
                at, n = _offset(p.ds_tensor, flat), p.ds_tensor.numel()
                val = value(names[id(p)], kind, p.ds_shape).flatten()
                mine = val[rank * n:][:n]
                into[at:at + n] = 77.0
                into[at:at + mine.numel()] = mine


def _set_stage0(engine):
    opt = engine.optimizer
    names = {id(p): n for n, p in _trainable(engine)}
    base = getattr(opt, "optimizer", opt)
    if hasattr(opt, "fp32_groups_flat"):
        pairs = _fused_pairs(opt, base)
    elif hasattr(opt, "fp32_groups"):
        pairs = [(lp, hp.data, base.state[hp])
                 for lps, hps in zip(opt.fp16_groups, opt.fp32_groups)
                 for lp, hp in zip(lps, hps)]
    else:
        pairs = [(p, p.data, opt.state[p])
                 for g in opt.param_groups for p in g["params"]]
    for lp, hp, state in pairs:
        val = value(names[id(lp)], "fp32", lp.shape)
        hp.copy_(val.view_as(hp))
        lp.data.copy_(val)
        for kind in MOMENTS:
            moment = value(names[id(lp)], kind, lp.shape)
            state[kind].copy_(moment.view_as(state[kind]))


def _fused_pairs(opt, base):
    for g, flat in enumerate(opt.fp32_groups_flat):
        state = base.state[flat]
        for lp in opt.fp16_groups[g]:
            buf = opt.fp16_groups_flat[g]
            at = (lp.data.data_ptr() - buf.data_ptr()) // buf.element_size()
            part = slice(at, at + lp.numel())
            yield lp, flat.data[part], {k: state[k][part] for k in MOMENTS}


def _set_steps(engine):
    """One step was taken; the state says it was the seventh."""
    opt = engine.optimizer
    base = getattr(opt, "optimizer", opt)
    for state in base.state.values():
        if torch.is_tensor(state.get("step")):
            state["step"].fill_(STEP)
        elif "step" in state:
            state["step"] = STEP
    for holder in ("loss_scaler", "loss_scale_config"):
        scale = getattr(opt, holder, None)
        if hasattr(scale, "cur_iter"):
            scale.cur_iter = STEP
    for i, group in enumerate(base.param_groups):
        group["lr"] = 0.001 * (i + 1)
        if group.get("step"):  # FusedAdam's only counter before 0.9
            group["step"] = STEP
    if engine.lr_scheduler:
        engine.lr_scheduler.last_batch_iteration = STEP - 1
    engine.global_steps = STEP
    engine.global_samples = STEP * engine.train_batch_size()
    engine.micro_steps = STEP * engine.gradient_accumulation_steps()


def set_all(cfg, engine, rank, world):
    opt = engine.optimizer
    with torch.no_grad():
        if hasattr(opt, "bit16_groups_flat"):
            _set_flat(engine, opt.bit16_groups, opt.bit16_groups_flat,
                      opt.single_partition_of_fp32_groups,
                      opt.real_dp_process_group)
        elif hasattr(opt, "bf16_groups_flat"):
            _set_flat(engine, opt.bf16_groups, opt.bf16_groups_flat,
                      opt.fp32_groups_flat_partition,
                      opt.real_dp_process_group)
        elif cfg.stage() == 3:
            _set_stage3(engine, rank, world)
        else:
            _set_stage0(engine)
    _set_steps(engine)


def save(cfg, engine, run_dir, tag=TAG):
    engine.save_checkpoint(run_dir, tag=tag, client_state=client_state())
