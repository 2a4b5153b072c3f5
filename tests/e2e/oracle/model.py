"""A tiny model of odd shapes, and the values of its logical state.

Every value depends on the parameter's name and the state's kind alone, so
that any topology holds the same state.
"""
import zlib

import torch
from torch import nn

from .config import GLOBAL_BATCH

DTYPES = {"fp32": torch.float32, "fp16": torch.float16,
          "bf16": torch.bfloat16}


class Net(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.emb = nn.Embedding(7, 5)
        self.l1 = nn.Linear(5, 3)
        self.kernel = nn.Parameter(torch.zeros(2, 3, 5))
        self.ln = nn.LayerNorm(5)
        if cfg.frozen:
            self.adapter = nn.Linear(5, 5)
            self.adapter.requires_grad_(False)
        self.gain = nn.Parameter(torch.zeros(1))
        self.head = nn.Linear(5, 7, bias=False)
        if cfg.tied:
            self.head.weight = self.emb.weight
        if cfg.buffers:
            self.register_buffer("scale", torch.full((3, 2), 0.3))
            self.register_buffer("seen", torch.arange(5))
            self.register_buffer("scratch", torch.ones(2), persistent=False)

    def forward(self, tokens, target):
        x = self.emb(tokens)
        h = torch.tanh(self.l1(x)).unsqueeze(1)
        x = self.ln(x + torch.matmul(h, self.kernel.sum(0)).squeeze(1))
        if hasattr(self, "adapter"):
            x = x + self.adapter(x)
        logits = self.head(x * self.gain)
        return nn.functional.cross_entropy(logits.float(), target)


def value(name, kind, shape):
    """fp32 values with all mantissa bits in use, seeded by name and kind."""
    gen = torch.Generator().manual_seed(zlib.crc32(f"{name}/{kind}".encode()))
    x = torch.randn(tuple(shape), generator=gen)
    return {"fp32": x * 0.4, "exp_avg": x * 1e-3,
            "exp_avg_sq": x * x * 1e-6 + 1e-9}[kind]


def build(cfg):
    net = Net(cfg)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(value(name, "fp32", p.shape))
    return net


def param_groups(cfg, net):
    """One, two (weight decay or not) or three groups (the last of 1 element)."""
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    if cfg.groups == 1:
        return [{"params": named if cfg.named else [p for _, p in named],
                 "weight_decay": 0.01}]
    tiny = [p for n, p in named if n == "gain"] if cfg.groups == 3 else []
    rest = [(n, p) for n, p in named if not (tiny and n == "gain")]
    out = [{"params": [p for _, p in rest if p.ndim > 1], "name": "decay",
            "weight_decay": 0.01},
           {"params": [p for _, p in rest if p.ndim <= 1], "name": "plain",
            "weight_decay": 0.0}]
    if tiny:
        out.append({"params": tiny, "name": "tiny", "weight_decay": 0.0,
                    "lr_mult": 0.5})
    return out


def batch(step, rank, dp):
    """This rank's part of the global batch of a step: the same data over all."""
    gen = torch.Generator().manual_seed(1000 + step)
    tokens = torch.randint(0, 7, (GLOBAL_BATCH,), generator=gen)
    target = (tokens * 3 + 1) % 7
    per = GLOBAL_BATCH // dp
    return tokens[rank * per:][:per], target[rank * per:][:per]
