"""Known models: names, shapes, how ranks share them, and marks.

Marks are elements at the borders of what ranks hold, each with a number of its
own.  The same model at two topologies is one logical state.  named_step.py
writes it.
"""
import collections
import copy
import struct

import torch

from sparse_torch import numel

STATES = ("exp_avg", "exp_avg_sq")
TP_SIZES = (1, 2, 4)

Topology = collections.namedtuple("Topology", "tp pp dp")
# rule: whole, rows, columns, vocabulary, bias (the ranks' sum), or the rows of
# the parts that ranks share each
Param = collections.namedtuple("Param", "layer name shape rule decays buffer",
                               defaults=(True, False))


class Neox:
    """GPT-NeoX's layers.  @bias: of linear layers, the row-parallel ones
    partial (gpt_j_residual); without it gated and with @kv key heads."""

    partial = True

    def __init__(self, layers, hidden, heads, kv, ff, vocabulary, divisor,
                 cls, bias, cases):
        self.n, self.h, self.heads, self.kv, self.ff = \
            layers, hidden, heads, kv, ff
        self.vocabulary, self.divisor, self.cls = vocabulary, divisor, cls
        self.bias = bias
        self.params = list(self._params())
        self._mark(cases)

    def _norm(self, layer, name):
        if self.bias:
            yield Param(layer, f"{name}.weight", (self.h,), "whole", False)
            yield Param(layer, f"{name}.bias", (self.h,), "whole", False)
        else:
            yield Param(layer, f"{name}.scale", (self.h,), "whole", False)

    def _linear(self, layer, name, rows, columns, rule):
        yield Param(layer, f"{name}.weight", (rows, columns), rule)
        if self.bias:
            yield Param(layer, f"{name}.bias", (rows,),
                        rule if rule != "columns" else
                        "bias" if self.partial else "whole", False)

    def _block(self, i):
        h, key = self.h, self.h // self.heads * self.kv
        yield from self._norm(i, "input_layernorm")
        yield from self._linear(i, "attention.query_key_value", h + 2 * key, h,
                                "rows" if self.bias else (h, key, key))
        if self.bias:
            yield Param(i, "attention.rotary_emb.inv_freq",
                        (self.h // self.heads // 8,), "whole", False, True)
        yield from self._linear(i, "attention.dense", h, h, "columns")
        yield from self._norm(i, "post_attention_layernorm")
        if self.bias:
            yield from self._linear(i, "mlp.linear1", self.ff, h, "rows")
        else:
            yield from self._linear(i, "mlp.linear1", 2 * self.ff, h,
                                    (self.ff, self.ff))
        yield from self._linear(i, "mlp.linear2", h, self.ff, "columns")

    def _params(self):
        rows = (self.vocabulary, self.h)
        yield Param(0, "word_embeddings.weight", rows, "vocabulary")
        for i in range(self.n):
            yield from self._block(i + 2)
        yield from self._norm(self.n + 3, "norm")
        yield Param(self.n + 4, "final_linear.weight", rows, "vocabulary")

    def padded(self, tp):
        step = self.divisor * tp
        return -(-self.vocabulary // step) * step

    def boundaries(self, pp):
        """type:transformer|mlp matches the blocks and the two functions
        around them; the first stages get what is over."""
        each, more = divmod(self.n + 2, pp)
        out, at = [0], 1
        for s in range(pp - 1):
            at += each + (s < more)
            out.append(at)
        return out + [self.n + 5]

    def told(self, tree, top):
        """What model states have of the model, in the tree's own keys."""
        tree["args"] = dict(
            tree["args"], num_layers=self.n, hidden_size=self.h,
            num_attention_heads=self.heads, max_position_embeddings=2048,
            make_vocab_size_divisible_by=self.divisor,
            padded_vocab_size=self.padded(top.tp), model_parallel_size=top.tp)

    # how ranks share a parameter

    def local_shape(self, p, tp):
        if p.rule in ("whole", "bias"):
            return p.shape
        if p.rule == "columns":
            return p.shape[0], p.shape[1] // tp
        rows = self.padded(tp) if p.rule == "vocabulary" else p.shape[0]
        return (rows // tp, *p.shape[1:])

    def _parts(self, p, tp):
        """(first row in all, first row in a rank, rows of a rank) of what is
        cut by rows."""
        if p.rule == "vocabulary":
            return [(0, 0, self.padded(tp) // tp)]
        parts, at = [], 0
        for rows in p.rule if isinstance(p.rule, tuple) else (p.shape[0],):
            parts.append((at, at // tp, rows // tp))
            at += rows
        return parts

    def to_all(self, p, tp, t, index):
        """The place in the whole parameter of an element of rank @t."""
        if p.rule in ("whole", "bias"):
            return index
        if p.rule == "columns":
            row, column = divmod(index, p.shape[1] // tp)
            return row * p.shape[1] + t * (p.shape[1] // tp) + column
        width = numel(p.shape[1:])
        row, column = divmod(index, width)
        for first, here, rows in self._parts(p, tp):
            if here <= row < here + rows:
                row = first + t * rows + row - here
                return row * width + column if row < p.shape[0] else None
        raise IndexError(index)

    def to_rank(self, p, tp, index):
        """(rank, place there), of each rank that has the element."""
        if p.rule in ("whole", "bias"):
            return [(t, index) for t in range(tp)]
        if p.rule == "columns":
            width = p.shape[1] // tp
            row, column = divmod(index, p.shape[1])
            return [(column // width, row * width + column % width)]
        width = numel(p.shape[1:])
        row, column = divmod(index, width)
        for first, here, rows in reversed(self._parts(p, tp)):
            if row >= first:
                t, row = divmod(row - first, rows)
                return [(t, (here + row) * width + column)]
        raise IndexError(index)

    # marks

    def _borders(self, p):
        """Ends of what ranks hold, of each part."""
        for tp in TP_SIZES:
            local = self.local_shape(p, tp)
            ends = [0, numel(local) - 1]
            if p.rule == "columns":
                ends += [local[1] - 1, local[1]]
            elif p.rule not in ("whole", "bias"):
                width = numel(p.shape[1:])
                for _, here, rows in self._parts(p, tp):
                    ends += [here * width, (here + rows) * width - 1]
            for t in range(tp):
                for end in ends:
                    at = self.to_all(p, tp, t, end)
                    if at is not None:
                        yield at

    def _mark(self, cases):
        places = {p: set() for p in self.params}
        full = {0, 2, 2 + self.n // 2, self.n + 1, self.n + 3, self.n + 4}
        for p in self.params:
            places[p] |= {0, numel(p.shape) - 1}
            if p.layer in full and not p.buffer:
                places[p] |= set(self._borders(p))
        for top in cases:
            self._mark_partitions(top, places)
        self.marks, count = {}, 0
        for p, where in places.items():
            for index in sorted(where):
                count += 1
                self.marks.setdefault(p, {})[index] = count

    def _mark_partitions(self, top, places):
        for stage in range(max(top.pp, 1)):
            for group in self.groups(top, stage):
                flat = Flat(self, top, group)
                for r in range(1, top.dp):
                    for at in (r * flat.part - 1, r * flat.part):
                        p, index = flat.find(at)
                        where = p and self.to_all(p, top.tp, top.tp - 1, index)
                        if where is not None:
                            places[p].add(where)

    def value(self, p, role, count, tp):
        """The bytes of a mark."""
        if p.rule == "bias" and role in ("weight", "master"):
            whole = 4.0 * (count % 500 + 1)
            return struct.pack("<e" if role == "weight" else "<f", whole / tp)
        if role == "weight":
            return struct.pack("<H", count % 30000 + 256)
        kind = ("master", *STATES).index(role)
        return struct.pack("<f", float(count * 4 + kind))

    def local_marks(self, p, top, t, role):
        out = {}
        for index, count in self.marks[p].items():
            for rank, place in self.to_rank(p, top.tp, index):
                if rank == t:
                    out[place] = self.value(p, role, count, top.tp)
        return out

    # what a step has

    def stage(self, top, stage):
        if not top.pp:
            return self.params
        cut = self.boundaries(top.pp)
        return [p for p in self.params
                if cut[stage] <= p.layer < cut[stage + 1]]

    def groups(self, top, stage):
        trained = [p for p in self.stage(top, stage) if not p.buffer]
        return ([p for p in trained if p.decays],
                [p for p in trained if not p.decays])

    @staticmethod
    def full_name(p, top):
        return f"{'' if top.pp else 'sequential.'}{p.layer}.{p.name}"


class Flat:
    """One group's parameters end to end, padded and cut into ranks."""

    def __init__(self, model, top, group):
        self.spans, at = [], 0
        for p in group:
            n = numel(model.local_shape(p, top.tp))
            self.spans.append((p, at, at + n))
            at += n
        self.total = at
        self.all = -(-at // (2 * top.dp)) * 2 * top.dp
        self.part = self.all // top.dp

    def find(self, at):
        for p, first, end in self.spans:
            if first <= at < end:
                return p, at - first
        return None, 0


class Bloom(Neox):
    """Megatron-DeepSpeed's layers as BLOOM has them: embeddings with a norm,
    tied to the head; row-parallel biases that are the same on all ranks."""

    partial = False

    def __init__(self, padded_to, **kw):
        self.padded_to = padded_to
        super().__init__(bias=True, **kw)

    def padded(self, tp):
        return self.padded_to

    def _block(self, i):
        yield from self._norm(i, "input_layernorm")
        yield from self._linear(i, "self_attention.query_key_value",
                                3 * self.h, self.h, "rows")
        yield from self._linear(i, "self_attention.dense", self.h, self.h,
                                "columns")
        yield from self._norm(i, "post_attention_layernorm")
        yield from self._linear(i, "mlp.dense_h_to_4h", self.ff, self.h,
                                "rows")
        yield from self._linear(i, "mlp.dense_4h_to_h", self.h, self.ff,
                                "columns")

    def _params(self):
        yield Param(1, "word_embeddings.weight", (self.vocabulary, self.h),
                    "vocabulary")
        yield from self._norm(1, "word_embeddings.norm")
        for i in range(self.n):
            yield from self._block(i + 3)
        for name in ("weight", "bias"):
            yield Param(self.n + 4, name, (self.h,), "whole", False)

    def boundaries(self, pp):
        """type:transformer|embedding, where it divides: the embeddings and
        the head count as a block each."""
        each, more = divmod(self.n + 2, pp)
        assert not more
        return [0] + [each * s + 2 for s in range(1, pp)] + [self.n + 7]

    def stage(self, top, stage):
        here = super().stage(top, stage)
        if stage and stage + 1 == top.pp:
            here = self.params[:1] + here  # the head
        return here

    def groups(self, top, stage):
        """What decays is given to Adam in two halves."""
        decays, others = super().groups(top, stage)
        half = len(decays) // 2
        return decays[:half], decays[half:], others

    @staticmethod
    def full_name(p, top):
        return f"tied_modules.embed.{p.name}" if p.layer == 1 \
            else f"{p.layer}.{p.name}"

    def told(self, tree, top):
        args = tree["args"] = copy.copy(tree["args"])
        args.__dict__.update(
            num_layers=self.n, hidden_size=self.h, ffn_hidden_size=self.ff,
            num_attention_heads=self.heads, kv_channels=self.h // self.heads,
            make_vocab_size_divisible_by=self.divisor,
            pad_vocab_size_to=self.padded_to, padded_vocab_size=self.padded_to,
            pp_partition_method="type:transformer|embedding",
            tensor_model_parallel_size=top.tp,
            pipeline_model_parallel_size=top.pp)
        tree["checkpoint_info"] = {"padded_vocab_size": self.padded_to,
                                   "original_vocab_size": self.vocabulary}


def bloom(cases, **kw):
    """176 B parameters, 2.5 TB of them and their state."""
    return Bloom(**{**dict(
        layers=70, hidden=14336, heads=112, kv=112, ff=57344,
        vocabulary=250680, padded_to=250880, divisor=128,
        cls=torch.BFloat16Storage, cases=cases), **kw})


def hubble(cases, **kw):
    """8 B parameters, shaped as Llama's."""
    return Neox(**{**dict(
        layers=36, hidden=4096, heads=32, kv=8, ff=14336, vocabulary=50280,
        divisor=128, cls=torch.BFloat16Storage, bias=False, cases=cases),
        **kw})


def pythia(cases, **kw):
    """6.9 B parameters, trained with two tensor-parallel ranks."""
    return Neox(**{**dict(
        layers=32, hidden=4096, heads=32, kv=32, ff=16384, vocabulary=50277,
        divisor=128, cls=torch.HalfStorage, bias=True, cases=cases), **kw})
