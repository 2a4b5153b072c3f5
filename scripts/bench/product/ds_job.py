#!/usr/bin/env python3
"""Real DeepSpeed jobs on CPU ranks, for scripts/bench/run.

    ds_job.py train --ranks 2 --out RUN [--steps 3]
    ds_job.py load --ranks 4 --from DIR [--universal] [--save RUN] [--steps 1]
    ds_job.py torch-load FILE...

The model is a GPT-NeoX of 96 M parameters, bf16 under ZeRO-1. `load` prints
one line of JSON: seconds of load_checkpoint() (slowest rank, all started
together), losses of the steps taken after it, and a digest of all the masters
and moments, to compare ways of loading. `torch-load` reads files one by one.
Imports are done once, before the ranks are forked.
"""
import argparse
import json
import os
import sys
import tempfile
import time
import zlib

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DEEPSPEED_LOG_LEVEL"] = "ERROR"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

BATCH, LENGTH, VOCABULARY = 2, 128, 16384


def import_training():
    global deepspeed, transformers
    import torch._dynamo  # noqa: F401
    import deepspeed
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    import transformers
    from transformers import GPTNeoXForCausalLM  # noqa: F401


def compute_in_fp32():
    """bf16 products are slow on CPUs without AMX or AVX512-BF16."""
    linear, attention = F.linear, F.scaled_dot_product_attention

    def up(t):
        return t.float() if isinstance(t, torch.Tensor) and \
            t.dtype == torch.bfloat16 else t

    def linear32(x, w, b=None):
        return linear(up(x), up(w), up(b)).to(x.dtype)

    def attention32(q, k, v, *args, **kw):
        args = [up(a) for a in args]
        kw = {key: up(a) for key, a in kw.items()}
        return attention(up(q), up(k), up(v), *args, **kw).to(q.dtype)

    F.linear, F.scaled_dot_product_attention = linear32, attention32


def start_engine(universal):
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(
        hidden_size=768, num_hidden_layers=10, num_attention_heads=12,
        intermediate_size=3072, vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH, use_cache=False))
    config = {
        "train_micro_batch_size_per_gpu": BATCH,
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": 1},
    }
    if universal:
        config["checkpoint"] = {"load_universal": True}
    engine, *_ = deepspeed.initialize(
        model=model, config=config,
        optimizer=torch.optim.AdamW(model.parameters(), lr=3e-4))
    return engine


def take_steps(engine, rank, steps):
    losses = []
    for _ in range(steps):
        gen = torch.Generator().manual_seed(1000 * engine.global_steps + rank)
        ids = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=gen)
        loss = engine(input_ids=ids, labels=ids).loss
        engine.backward(loss)
        engine.step()
        losses.append(round(loss.item(), 5))
    return losses


def digest(engine, rank, ranks):
    """crc32 of every parameter's whole master and moments, joined."""
    from deepspeed.utils import (safe_get_full_fp32_param,
                                 safe_get_full_optimizer_state)
    # The moments are linked to parameters in the first step; do it now.
    engine.optimizer._hp_optimizer_states_linked = False
    engine.optimizer._lazy_init_hp_params_optimizer_state()
    crc = 0
    for _, p in engine.module.named_parameters():
        for t in (safe_get_full_fp32_param(p),
                  safe_get_full_optimizer_state(p, "exp_avg"),
                  safe_get_full_optimizer_state(p, "exp_avg_sq")):
            crc = zlib.crc32(t.contiguous().numpy().tobytes(), crc)
        crc = zlib.crc32(p.data.view(torch.int16).numpy().tobytes(), crc)
    return crc


def rank_main(rank, ranks, args, tmp):
    log = os.open(f"{tmp}/log{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    # else an extension is compiled for shared-memory collectives
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(ranks), LOCAL_SIZE=str(ranks),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp}/store", rank=rank,
        world_size=ranks)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    compute_in_fp32()
    engine = start_engine(getattr(args, "universal", False))
    out = {}
    if args.verb == "load":
        torch.distributed.barrier()
        out["began"] = time.monotonic()
        path, _ = engine.load_checkpoint(args.source)
        out["ended"] = time.monotonic()
        if path is None:
            raise SystemExit(f"no checkpoint in {args.source}")
        if args.digest:
            out["digest"] = digest(engine, rank, ranks)
    out["losses"] = take_steps(engine, rank, args.steps)
    if args.out:
        engine.save_checkpoint(args.out)
    torch.distributed.barrier()
    with open(f"{tmp}/out{rank}", "w") as f:
        json.dump(out, f)
    torch.distributed.destroy_process_group()


def run_ranks(args):
    import_training()
    with tempfile.TemporaryDirectory(prefix="ckptfs-bench-") as tmp:
        try:
            torch.multiprocessing.start_processes(
                rank_main, (args.ranks, args, tmp), nprocs=args.ranks,
                start_method="fork")
        except Exception:
            for r in range(args.ranks):
                with open(f"{tmp}/log{r}", errors="replace") as f:
                    sys.stderr.write(f"rank {r}:\n{f.read()[-3000:]}\n")
            raise
        ranks = []
        for r in range(args.ranks):
            with open(f"{tmp}/out{r}") as f:
                ranks.append(json.load(f))
    out = {"losses": ranks[0]["losses"]}
    if args.verb == "load":
        out["seconds"] = max(r["ended"] for r in ranks) - \
            min(r["began"] for r in ranks)
        out["began"] = min(r["began"] for r in ranks)
        out["digest"] = ranks[0].get("digest")
    print(json.dumps(out))


def torch_load(paths):
    import deepspeed  # noqa: F401  the pickles name its classes
    began = time.monotonic()
    for path in paths:
        torch.load(path, map_location="cpu", weights_only=False)
    print(json.dumps({"seconds": time.monotonic() - began}))


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest="verb", required=True)
    p = sub.add_parser("train")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--out", required=True)
    p = sub.add_parser("load")
    p.add_argument("--ranks", type=int, required=True)
    p.add_argument("--from", dest="source", required=True)
    p.add_argument("--universal", action="store_true")
    p.add_argument("--digest", action="store_true")
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--save", dest="out")
    p = sub.add_parser("torch-load")
    p.add_argument("file", nargs="+")
    args = ap.parse_args()
    if args.verb == "torch-load":
        torch_load(args.file)
    else:
        run_ranks(args)


if __name__ == "__main__":
    main()
