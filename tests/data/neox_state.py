"""The logical state of a GPT-NeoX model, and the part a rank has of it.

A parameter goes by its place in the list of layers and its name there, such as
2.attention.dense.weight, whatever the topology calls it.  Its values depend on
that name and the kind of state alone.
"""
import re
import zlib

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("fp32",) + MOMENTS
DTYPES = {"fp32": torch.float32, "fp16": torch.float16,
          "bf16": torch.bfloat16}
# How tensor parallelism cuts a parameter.  rows, columns: dimension 0, 1;
# vocab: rows, of which the last are padding; parts: each part of the rows by
# itself; sum: every rank adds its own, so each has its share of the value.
RULES = (
    (r"word_embeddings\.weight", "vocab"),
    (r"final_linear\.weight", "output"),
    (r"position_embeddings\.weight", "same"),
    (r"((input|post_attention)_layernorm|norm)\.(weight|bias|scale)", "same"),
    (r"attention\.qk_layernorm\.(weight|bias)", "rows"),
    (r"attention\.query_key_value\.(weight|bias)", "qkv"),
    (r"(attention\.dense|mlp\.linear2|attention\.rpe)\.weight", "columns"),
    (r"(attention\.dense|mlp\.linear2)\.bias", "row bias"),
    (r"mlp\.linear1\.(weight|bias)", "up"),
    # up to GPT-NeoX 2
    (r"mlp\.dense_h_to_4h\.(weight|bias)", "up"),
    (r"mlp\.dense_4h_to_h\.weight", "columns"),
    (r"mlp\.dense_4h_to_h\.bias", "row bias"),
    (r"attention\.rotary_emb\.inv_freq", "same"),
    (r"attention\.alibi_embed\.slopes", "rows"),
)


def canonical(name):
    name = re.sub(r"^tied_modules\.embed\.", "0.",
                  name.removeprefix("sequential."))
    # one module, of all the layers that a stage has
    return re.sub(r"^\d+\.attention\.rpe\.", "2.attention.rpe.", name)


def rule(model, name):
    """How name is cut, and the sizes of its parts if it has any."""
    layer, _, rest = name.partition(".")
    assert layer.isdigit(), name
    how = next(how for text, how in RULES if re.fullmatch(text, rest))
    if how == "qkv":
        if not model.kv_heads or model.old_gqa:
            return "rows", None
        head = model.hidden // model.heads
        return "parts", (model.hidden, model.kv_heads * head,
                         model.kv_heads * head)
    if how == "up":
        return ("halves", None) if model.gated else ("rows", None)
    if how == "output":
        return ("columns" if model.row_output else "vocab"), None
    if how == "row bias":
        return ("sum" if model.partial_bias else "same"), None
    return how, None


def whole_shape(how, shape, tp):
    shape = list(shape)
    if how in ("rows", "vocab", "parts", "halves"):
        shape[0] *= tp
    elif how == "columns":
        shape[1] *= tp
    return shape


def value(name, kind, shape):
    """fp32 values with all bits of the mantissa in use."""
    gen = torch.Generator().manual_seed(zlib.crc32(f"{name}/{kind}".encode()))
    x = torch.randn(tuple(shape), generator=gen)
    if kind == "exp_avg":
        return x * 1e-3
    if kind == "exp_avg_sq":
        return x * x * 1e-6 + 1e-9
    if "norm" in name:
        return x * 0.1 + (not name.endswith("bias"))
    return x * (0.05 if name.endswith("bias") else 0.15)


def whole(model, name, kind, shape):
    """The value of a parameter, over all ranks; shape has the padding."""
    if rule(model, name)[0] != "vocab" or model.padding == "trained":
        return value(name, kind, shape)
    x = torch.zeros(shape)
    x[:model.vocab] = value(name, kind, [model.vocab] + shape[1:])
    return x


def cut(how, parts, x, tp, t):
    if how in ("same", "sum"):
        return x
    if how == "columns":
        return x.chunk(tp, 1)[t]
    if how == "halves":
        parts = (len(x) // 2,) * 2
    return torch.cat([p.chunk(tp)[t] for p in x.split(parts or len(x))])


def shard(model, name, kind, shape, tp, t):
    """What rank t of tp has, in fp32; shape is that of its part."""
    how, parts = rule(model, name)
    x = whole(model, name, kind, whole_shape(how, shape, tp))
    x = cut(how, parts, x, tp, t)
    if how == "sum" and kind == "fp32":
        x = x / tp
    assert x.shape == shape, (name, how, x.shape, shape)
    return x


def merge(model, name, shards, shared=True):
    """The whole of what the ranks have.  shared: a sum's shares are of one
    value (weights, not moments, which are equal copies)."""
    how, parts = rule(model, name)
    first = shards[0]
    if how in ("same", "sum"):
        for x in shards[1:]:
            assert torch.equal(x, first), f"{name}: copies differ"
        return first * len(shards) if how == "sum" and shared else first
    if how == "columns":
        return torch.cat(shards, 1)
    if how == "halves":
        parts = (len(first) * len(shards) // 2,) * 2
    if not parts:
        return torch.cat(shards)
    sizes = [n // len(shards) for n in parts]
    return torch.cat([p for ps in zip(*(x.split(sizes) for x in shards))
                      for p in ps])
