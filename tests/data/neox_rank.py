"""One rank of GPT-NeoX's pretrain(), with the logical state set in it.

Where a parameter's state lies is read off the optimizer's own buffers, as in
tests/e2e/oracle/state.py; nothing here computes a layout.
"""
import os

import torch
import yaml

import neox_cpu
from neox_cases import STEPS
from neox_state import DTYPES, MOMENTS, canonical, shard


def _offset(part, buf):
    at = (part.data_ptr() - buf.data_ptr()) // buf.element_size()
    assert 0 <= at <= buf.numel() - part.numel()
    return at


def _overlap(live, at, n, start):
    """The part of [at, at + n) of a flat buffer that live, which begins there
    at start, holds: a slice of live, and where it begins in the parameter."""
    a, b = max(at, start), min(at + n, start + live.numel())
    return (live[a - start:b - start], a - at) if a < b else (None, 0)


def _partitioned(opt, lp_groups, flats, masters):
    for lps, flat, master, group in zip(lp_groups, flats, masters,
                                        opt.real_dp_process_group):
        start = torch.distributed.get_rank(group) * master.numel()
        live = {"fp32": master.data, **opt.optimizer.state.get(master, {})}
        for p in lps:
            for kind in ("fp32",) + MOMENTS:
                if kind in live:
                    part, at = _overlap(live[kind], _offset(p.data, flat),
                                        p.numel(), start)
                    if part is not None:
                        yield p, kind, part, at


def _intervals(opt):
    """Stage 1 of 0.3.15: rank r has parts r, r + dp, ... of a group."""
    rank = torch.distributed.get_rank(opt.dp_process_group)
    for g, (lps, flat) in enumerate(zip(opt.fp16_groups,
                                        opt.fp16_groups_flat)):
        parts = zip(opt.parallel_sub_partitioned_fp16_groups[g][rank],
                    opt.local_sub_partitions_of_fp32_groups[g])
        for low, master in parts:
            start = _offset(low, flat)
            live = {"fp32": master.data, **opt.optimizer.state[master]}
            for p in lps:
                for kind in ("fp32",) + MOMENTS:
                    if kind in live:
                        part, at = _overlap(live[kind], _offset(p.data, flat),
                                            p.numel(), start)
                        if part is not None:
                            yield p, kind, part, at


def _stage3(opt):
    rank = torch.distributed.get_rank()
    for lps, flat, master in zip(opt.fp16_groups,
                                 opt.fp16_partitioned_groups_flat,
                                 opt.fp32_partitioned_groups_flat):
        live = {"fp32": master.data, **opt.optimizer.state.get(master, {})}
        for p in lps:
            n = p.ds_tensor.numel()
            at, mine = _offset(p.ds_tensor, flat), p.ds_numel - rank * n
            for kind in ("fp32",) + MOMENTS:
                if kind in live and mine > 0:
                    yield p, kind, live[kind][at:][:min(n, mine)], rank * n


def _whole(opt):
    """Stage 0: every rank has all."""
    base = getattr(opt, "optimizer", opt)
    if hasattr(opt, "fp32_groups_flat"):
        pairs = [(p, flat.data, base.state.get(flat, {}), _offset(p.data, buf))
                 for lps, buf, flat in zip(opt.fp16_groups,
                                           opt.fp16_groups_flat,
                                           opt.fp32_groups_flat) for p in lps]
    else:
        pairs = [(p, p.data.flatten(), base.state.get(p, {}), 0)
                 for g in base.param_groups for p in g["params"]]
    for p, hp, state, at in pairs:
        yield p, "fp32", hp[at:at + p.numel()], 0
        for kind in MOMENTS:
            if kind in state:
                yield p, kind, state[kind].flatten()[at:at + p.numel()], 0


def pieces(engine):
    """(parameter, kind, live part of its state, where that begins in it)"""
    opt = engine.optimizer
    if hasattr(opt, "bit16_groups_flat"):
        return _partitioned(opt, opt.bit16_groups, opt.bit16_groups_flat,
                            opt.single_partition_of_fp32_groups)
    if hasattr(opt, "bf16_groups_flat"):
        return _partitioned(opt, opt.bf16_groups, opt.bf16_groups_flat,
                            opt.fp32_groups_flat_partition)
    if hasattr(opt, "local_sub_partitions_of_fp32_groups"):
        return _intervals(opt)
    if hasattr(opt, "single_partition_of_fp32_groups"):  # stage 2 of 0.3.15
        opt.real_dp_process_group = [opt.dp_process_group] * len(
            opt.fp16_groups)
        return _partitioned(opt, opt.fp16_groups, opt.fp16_groups_flat,
                            opt.single_partition_of_fp32_groups)
    if hasattr(opt, "fp32_partitioned_groups_flat"):
        return _stage3(opt)
    return _whole(opt)


class Run:
    """What hooks of one rank's run know of it."""

    def __init__(self, case, engine):
        from megatron import mpu
        self.case, self.engine = case, engine
        self.t = mpu.get_model_parallel_rank()
        self.named = [(canonical(n), p)
                      for n, p in engine.module.named_parameters()]
        self.names = {id(p): n for n, p in self.named}

    def want(self, p, kind):
        shape = getattr(p, "ds_shape", p.shape)
        return shard(self.case.model, self.names[id(p)], kind, shape,
                     self.case.tp, self.t)

    def set_state(self):
        with torch.no_grad():
            for p, kind, live, at in pieces(self.engine):
                live.copy_(self.want(p, kind).flatten()[at:][:live.numel()])
            for _, p in self.named:
                self._set_weight(p)

    def set_step(self):
        """16-bit optimizers without ZeRO count one before the first."""
        opt = self.engine.optimizer
        for state in getattr(opt, "optimizer", opt).state.values():
            if "step" in state:
                state["step"] = STEPS

    def _set_weight(self, p):
        if not hasattr(p, "ds_tensor"):
            p.data.copy_(self.want(p, "fp32"))
            return
        n, rank = p.ds_tensor.numel(), torch.distributed.get_rank()
        mine = self.want(p, "fp32").flatten()[rank * n:][:n]
        p.ds_tensor.data[:mine.numel()].copy_(mine)

    def forget(self):
        """Zero the moments: a resumption that must be told from a right one."""
        with torch.no_grad():
            for _, kind, live, _ in pieces(self.engine):
                if kind in MOMENTS:
                    live.zero_()

    def state(self):
        """{(name, kind): [(first element, bytes)]} of this rank, the weights
        as kind "weight"."""
        out = {}
        for p, kind, live, at in pieces(self.engine):
            out.setdefault((self.names[id(p)], kind), []).append(
                (at, live.detach().clone()))
        if not hasattr(self.named[0][1], "ds_tensor"):
            for n, p in self.named:
                out[n, "weight"] = [(0, p.detach().flatten().clone())]
        return out

    def wrong(self):
        """Names of what is not the logical state."""
        out = []
        for (name, kind), parts in self.state().items():
            p = next(p for n, p in self.named if n == name)
            want = self.want(p, kind.replace("weight", "fp32")).flatten()
            if kind == "weight":
                want = want.to(DTYPES[self.case.model.prec])
            out += [f"{name} {kind}" for at, x in parts
                    if not torch.equal(x, want[at:][:x.numel()])]
        return out


def write_yaml(case, path, steps, save=None, load=None, extra=None):
    conf = dict(case.yaml(steps), **(extra or {}))
    if save:
        conf["save"] = save
    if load:
        conf["load"] = load
    with open(path, "w") as f:
        yaml.safe_dump(conf, f)


def run(rank, _world, case, conf_dir, out_dir, what):
    """In a forked rank: pretrain() by conf_dir/neox.yml, in out_dir.

    what: synth - the state is set before the steps and before saving;
          train - only before them; load - nothing is set; forget - the
          same, and then moments are zeroed.
    Returns the losses; after loading also this rank's state, and the names
    that differ from the logical state.
    """
    import megatron.data.data_utils as data
    import megatron.tokenizer.tokenizer as tokenizer
    import megatron.training as training
    from megatron.neox_arguments import NeoXArgs
    os.chdir(out_dir)
    model, report = case.model, {"losses": [], "wrong": []}
    tokenizer.CharLevelTokenizer = neox_cpu.tokenizer(model.vocab)
    data.build_train_valid_test_datasets = lambda **kw: (
        neox_cpu.Tokens(16, model.vocab), None, None)
    step, setup = training.train_step, training.setup_model_and_optimizer
    save, runs = training.save_checkpoint, []

    def counted_step(*args, **kw):
        out = step(*args, **kw)
        report["losses"].append(float(out[0]["lm_loss"]))
        return out

    def after_setup(*args, **kw):
        out = setup(*args, **kw)
        runs.append(Run(case, out[0]))
        if what in ("load", "forget"):
            report["wrong"] = runs[0].wrong()
            report["iteration"] = kw["neox_args"].iteration
            report.update(state=runs[0].state(), t=runs[0].t, shapes={
                n: getattr(p, "ds_shape", p.shape)
                for n, p in runs[0].named})
            if what == "forget":
                runs[0].forget()
        else:
            runs[0].set_state()
        report["optimizer"] = type(out[1]).__name__
        # on a GPU nothing is drawn from it while a model is made
        torch.manual_seed(kw["neox_args"].seed)
        return out

    def before_saving(**kw):
        if what == "synth":
            runs[0].set_state()
            runs[0].set_step()
            assert not runs[0].wrong(), runs[0].wrong()
        return save(**kw)

    training.train_step = counted_step
    training.setup_model_and_optimizer = after_setup
    training.save_checkpoint = before_saving
    args = NeoXArgs.from_ymls([os.path.join(conf_dir, "neox.yml")])
    args.configure_distributed_args()
    args.build_tokenizer()
    report["padded_vocab"] = args.padded_vocab_size
    training.pretrain(neox_args=args)
    return report
