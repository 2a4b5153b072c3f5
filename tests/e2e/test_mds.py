#!/usr/bin/env python3
"""Megatron-DeepSpeed's steps, altered: what is refused, and what decides it.

  drift      copies that ranks let go apart: refused, or their mean
  patterns   what the checkpoint says against what is known of the family
  order      how queries, keys and values lie
  names      a model without pipeline has others
  plain      names of no layer, buffers and extra states
  trees      a module of dictionaries, as a universal checkpoint
  converter  every file of ds_to_universal's, of a step and of a view
"""
import argparse
import contextlib
import json
import os
import shutil
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import torch  # noqa: E402

import run_mds  # noqa: E402
from oracle import product  # noqa: E402
from oracle.compare import load  # noqa: E402

TAG = run_mds.TAG


class Work:
    def __init__(self, top):
        self.top = top
        os.environ["CKPTFS_CACHE_DIR"] = f"{top}/cache"
        with tarfile.open(os.path.join(run_mds.DATA, "mds.tar.xz")) as tar:
            tar.extractall(f"{top}/runs", filter="data")

    def copy(self, name):
        run = tempfile.mkdtemp(dir=self.top)
        shutil.copytree(f"{self.top}/runs/{name}", run, dirs_exist_ok=True)
        return run

    def edit(self, run, name, change):
        path = f"{run}/{TAG}/{name}"
        state = load(path)
        change(state)
        torch.save(state, path)

    def export(self, run, view):
        out = tempfile.mkdtemp(dir=self.top)
        done = product.run("export", f"{run}/{TAG}/{view}", f"{out}/{TAG}")
        assert done.returncode == 0, done.stderr
        os.unlink(f"{out}/{TAG}/latest")
        return f"{out}/{TAG}"

    def refused(self, run, view, *words):
        done = product.run("ls", f"{run}/{TAG}/{view}")
        assert done.returncode == 1, (view, done.stdout)
        for word in words:
            assert word in done.stderr, (word, done.stderr)


def fp32(state):
    return state["optimizer_state_dict"]["single_partition_of_fp32_groups"]


def drift(w):
    run = w.copy("bloom_tp2-pp1-dp1")
    name = "bf16_zero_pp_rank_0_mp_rank_0{}_optim_states.pt"

    def change(state):  # the norm behind the embedding comes first
        fp32(state)[2].data[0] += 1

    before = fp32(load(f"{run}/{TAG}/{name.format(1)}"))[2][0].item()
    w.edit(run, name.format(1), change)
    param = "tied_modules.embed.word_embeddings.norm.weight"
    w.refused(run, "@tp1", param, "differ")
    rules = f"{w.top}/rules.json"
    with open(rules, "w") as f:
        json.dump({"rules": [{"name": "*norm.*", "is": "mean"}]}, f)
    done = product.run("view", "add", run, "mean", "--as", "tp1", "--rules",
                       rules)
    assert done.returncode == 0, done.stderr
    step = w.export(run, "@mean")
    got = fp32(load(f"{step}/{name.format(0)}"))[2][0].item()
    assert abs(got - before - 0.5) < 1e-6, (got, before)
    weight = load(f"{step}/layer_01-model_00-model_states.pt")[
        "word_embeddings.norm.weight"]
    assert weight[0] == torch.tensor(got).bfloat16(), (weight[0], got)


def patterns(w):
    run = w.copy("gqa_tp2-pp1-dp2")

    def add(key, pattern):
        def change(state):
            state["universal_checkpoint_info"].setdefault(key, []).append(
                pattern)
        for m in (0, 1):
            w.edit(run, f"mp_rank_0{m}_model_states.pt", change)

    row = "parameter_with_row_parallelism_patterns"
    add(row, r"\d+.self_attention.query_key_value.weight")
    w.refused(run, "@tp1", "2.self_attention.query_key_value.weight", row,
              "Megatron-DeepSpeed", "--rules")
    # not asked where sizes stay
    w.export(run, "@pp2")
    run = w.copy("gqa_tp2-pp1-dp2")
    add(row, r"(?:a)")
    w.refused(run, "@tp1", row, "(?:a)")
    run = w.copy("gqa_tp2-pp1-dp2")
    add("affine_map", "x")
    w.refused(run, "@tp1", "affine_map")


def order(w):
    run = w.copy("llama2_tp2-pp1-dp1")

    def older(state):
        state["checkpoint_version"] = 1.0

    def sequence(state):
        del state["args"].ds_sequence_parallel_fpdt
        state["args"].ds_sequence_parallel_size = 2

    def keys(state):
        state["args"].num_key_value_heads = 2

    for change, words in ((older, ["checkpoint_version"]),
                          (sequence, ["@qkvparts", "@qkvheads"]),
                          (keys, ["@qkvparts", "@qkvheads"])):
        run = w.copy("llama2_tp2-pp1-dp1")
        w.edit(run, "mp_rank_00_model_states.pt", change)
        w.refused(run, "@tp1", "query_key_value", *words)
        w.export(run, "@tp1-qkvparts")


def names(w):
    run = f"{w.top}/runs/gpt_tp1-pp1-dp2"
    w.refused(run, "@pp0", "Megatron-DeepSpeed", "pp0")
    # four heads
    w.refused(run, "@tp8", "4 heads")


def convert(step, out):
    from deepspeed.checkpoint import ds_to_universal
    args = argparse.Namespace(
        input_folder=step, output_folder=out, num_extract_workers=1,
        num_merge_workers=1, keep_temp_folder=False, strict=True,
        inject_missing_state=False)
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), \
            contextlib.redirect_stderr(null):
        ds_to_universal.main(args)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def converter(w):
    """Of a step; and of a view of one rank as two, which must have the lists
    that one rank has not."""
    runs = f"{w.top}/runs"
    for step, source in (
            (f"{runs}/gqa_tp2-pp2-dp1/{TAG}", "gqa_tp2-pp2-dp1"),
            (w.export(f"{runs}/gqa_tp1-pp1-dp1", "@tp2-pp2"),
             "gqa_tp2-pp2-dp1")):
        want = tempfile.mkdtemp(dir=w.top)
        convert(step, f"{want}/uc")
        got = w.export(f"{w.top}/runs/{source}", "@universal")
        files = 0
        for top, _, names_ in os.walk(f"{want}/uc/zero"):
            for name in names_:
                path = os.path.relpath(os.path.join(top, name),
                                       f"{want}/uc")
                if path == "zero/optimizer_state.pt":
                    continue
                assert same(load(f"{want}/uc/{path}"), load(f"{got}/{path}")), \
                    (source, path)
                files += 1
        assert files == 27 * 4, files


def trees(w):
    """Without a pipeline, whose module the converter cannot read: the same
    universal checkpoint of one rank and of two."""
    one, two = (w.export(f"{w.top}/runs/gqa_{x}", "@universal")
                for x in ("tp1-pp0-dp1", "tp2-pp0-dp1"))
    files = 0
    for top, _, names_ in os.walk(f"{one}/zero"):
        for name in names_:
            path = os.path.relpath(os.path.join(top, name), one)
            if path != "zero/optimizer_state.pt":
                assert same(load(f"{one}/{path}"), load(f"{two}/{path}")), path
                files += 1
    assert files == 27 * 4, files


def plain_rank(t, mask):
    """Model states and optimizer state of rank @t of 2: a model whose names are
    of no layer, in stage 1."""
    shared = torch.arange(4.0)
    params = {"up.weight": torch.arange(8.0).reshape(2, 4) + 100 * t,
              "norm.weight": shared}
    flat = torch.cat([v.reshape(-1) for v in params.values()])
    module = {k: v.bfloat16() for k, v in params.items()}
    module["alias.weight"] = module["norm.weight"]
    module.update({"mask": mask, "extra._extra_state": {"version": 1}})
    states = {
        "module": module, "buffer_names": ["mask"], "optimizer": None,
        "param_shapes": [{k: v.shape for k, v in params.items()}],
        "frozen_param_shapes": None, "frozen_param_fragments": None,
        "shared_params": {} if t else {"alias.weight": "norm.weight"},
        "dp_world_size": 1, "mp_world_size": 2, "ds_version": "0.16.5",
        "skipped_steps": 0, "global_steps": 2, "global_samples": 2,
        "ds_config": {"zero_optimization": {"stage": 1},
                      "bf16": {"enabled": True}},
        "universal_checkpoint_info": {
            "universal_checkpoint_version": 0.2,
            "tp_replicated_parameter_patterns": [r"norm\..*"],
            "parameter_with_row_parallelism_patterns": []}}
    optim = {
        "base_optimizer_state": {
            "state": {0: {"step": torch.tensor(2.0), "exp_avg": flat + 1000,
                          "exp_avg_sq": flat + 5000}},
            "param_groups": [{"lr": 0.1, "params": [0]}]},
        "single_partition_of_fp32_groups": [flat.clone()],
        "dynamic_loss_scale": False, "overflow": False, "clip_grad": 1.0,
        "zero_stage": 1, "group_paddings": [0], "partition_count": [1],
        "ds_version": "0.16.5"}
    return states, {"optimizer_state_dict": optim, "ds_config": {},
                    "ds_version": "0.16.5"}


def save_plain(w, masks):
    run = tempfile.mkdtemp(dir=w.top)
    os.mkdir(f"{run}/{TAG}")
    for t, mask in enumerate(masks):
        states, optim = plain_rank(t, mask)
        torch.save(states, f"{run}/{TAG}/mp_rank_0{t}_model_states.pt")
        torch.save(optim, f"{run}/{TAG}/bf16_zero_pp_rank_0_mp_rank_0{t}"
                   "_optim_states.pt")
    return run


def plain(w):
    """Names of no layer, a buffer and an extra state: all of them stay."""
    run = save_plain(w, (torch.ones(3), torch.ones(3)))
    module = load(f"{w.export(run, '@tp1')}/mp_rank_00_model_states.pt")[
        "module"]
    have = [plain_rank(t, torch.ones(3))[0]["module"] for t in range(2)]
    assert list(module) == list(have[0]), list(module)
    assert torch.equal(module["up.weight"],
                       torch.cat([m["up.weight"] for m in have]))
    for name in ("norm.weight", "alias.weight", "mask"):
        assert torch.equal(module[name], have[0][name]), name
    assert module["extra._extra_state"] == {"version": 1}

    run = save_plain(w, (torch.ones(3), torch.zeros(3)))
    w.refused(run, "@tp1", "mask", "ranks 0 and 1", "--rules")

    run = save_plain(w, (torch.ones(3), torch.ones(3)))
    for t in range(2):
        w.edit(run, f"mp_rank_0{t}_model_states.pt",
               lambda s: s["module"].pop("up.weight"))
    w.refused(run, "@tp1", "up.weight")


def main():
    sys.meta_path.insert(0, run_mds.Unpickled())
    top = tempfile.mkdtemp(prefix="ckptfs-mds-")
    try:
        w = Work(top)
        for test in (drift, patterns, order, names, plain, trees,
                     converter):
            test(w)
            print("ok", test.__name__, flush=True)
    finally:
        shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
