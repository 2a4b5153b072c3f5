#!/usr/bin/env python3
"""Write a step of GPT-NeoX for the benchmarks, or find tensors in one.

    neox_step.py make OUT --model NAME --tp N --pp N --dp N [--dense]
    neox_step.py where FILE STATE NAME...
    neox_step.py equal UNIVERSAL UNIVERSAL

A step has real names and pickles (tests/e2e/named_step.py); its payloads are
holes, or normally distributed numbers with --dense.  `wide` has 268 M
parameters in one block, 3.7 GB; `small` 84 M, 1.2 GB; `hubble` is Hubble 8B.  `where` prints JSON:
offset and length of each named parameter's part of an optimizer state in an
optimizer file.  `equal` compares the tensors of two universal checkpoints.
"""
import argparse
import json
import os
import sys
import tarfile
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, f"{ROOT}/tests/e2e")
sys.dont_write_bytecode = True

import torch  # noqa: E402

import named_models  # noqa: E402
import named_step  # noqa: E402
from sparse_torch import ITEM, load  # noqa: E402

WIDE = {"layers": 1, "hidden": 4096, "heads": 32, "kv": 32, "ff": 16384,
        "vocabulary": 8192}
SMALL = dict(WIDE, hidden=2048, heads=16, kv=16, ff=8192)
MODELS = {"wide": lambda cases: named_models.pythia(cases, **WIDE),
          "small": lambda cases: named_models.pythia(cases, **SMALL),
          "hubble": named_models.hubble}
TEMPLATES = {"wide": "pythia-fp16_tp2-pp1-dp1",
             "small": "pythia-fp16_tp2-pp1-dp1",
             "hubble": "llama-bf16_tp1-pp0-dp2"}


def template(name):
    with tempfile.TemporaryDirectory() as tmp:
        with tarfile.open(f"{ROOT}/tests/data/neox.tar.xz") as tar:
            tar.extractall(tmp, [m for m in tar
                                 if m.name.split("/")[0] == name],
                           filter="data")
        return named_step.Template(f"{tmp}/{name}/global_step2")


def numbers(size):
    n = -(-size // 4)
    return torch.randn(n).mul_(0.02).view(torch.uint8).numpy().tobytes()[:size]


def make(args):
    top = named_models.Topology(args.tp, args.pp, args.dp)
    model = MODELS[args.model]([top])
    if args.dense:
        torch.manual_seed(1)
        model.marks = {p: {} for p in model.marks}
    named_step.Writer(model, template(TEMPLATES[args.model]), top,
                        fill=numbers if args.dense else None).write(
        f"{args.out}/global_step1000")


def where(args):
    inner = load(args.file)["optimizer_state_dict"]
    out = {}
    for g, pieces in enumerate(inner["param_slice_mappings"]):
        tensor = inner["base_optimizer_state"]["state"][g][args.state]
        item = ITEM[tensor.storage.cls]
        for name, piece in pieces.items():
            if name in args.name:
                out[name] = (tensor.storage.at + item * (
                    tensor.offset + piece.start), item * piece.numel)
    print(json.dumps(out))


def equal(args):
    """How many elements; buffers, which only a converter writes, aside."""
    a, b = (f"{x}/zero" for x in (args.a, args.b))
    elements = 0
    for name in sorted(os.listdir(a)):
        if not os.path.isdir(f"{b}/{name}"):
            assert not os.path.exists(f"{a}/{name}/exp_avg.pt"), name
            continue
        assert sorted(os.listdir(f"{a}/{name}")) == \
            sorted(os.listdir(f"{b}/{name}")), name
        for state in ("fp32", "exp_avg", "exp_avg_sq"):
            x, y = (torch.load(f"{d}/{name}/{state}.pt",
                               weights_only=False)["param"] for d in (a, b))
            assert torch.equal(x, y), (name, state)
            elements += x.numel()
    print(elements)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = ap.add_subparsers(required=True)
    a = verbs.add_parser("make")
    a.add_argument("out")
    a.add_argument("--model", choices=tuple(TEMPLATES), required=True)
    for size in ("tp", "pp", "dp"):
        a.add_argument(f"--{size}", type=int, required=True)
    a.add_argument("--dense", action="store_true")
    a.set_defaults(run=make)
    a = verbs.add_parser("where")
    for word in ("file", "state"):
        a.add_argument(word)
    a.add_argument("name", nargs="+")
    a.set_defaults(run=where)
    a = verbs.add_parser("equal")
    for word in ("a", "b"):
        a.add_argument(word)
    a.set_defaults(run=equal)
    args = ap.parse_args()
    args.run(args)


main()
