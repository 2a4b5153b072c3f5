"""Steps of known models, with their names and shapes, at any topology.

What is no tensor is taken from a small step that GPT-NeoX wrote; payloads are
holes but for marks: elements at the borders of what ranks hold, each with a
number of its own.  The same model at two topologies is one logical state, so
a view of one must be the other.
"""
import collections
import copy
import os
import struct

import torch
from deepspeed.utils.tensor_fragment import fragment_address

from sparse_torch import Storage, Tensor, load, numel, of, save

FLOAT, STATES = torch.FloatStorage, ("exp_avg", "exp_avg_sq")
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
                 cls, bias, cases, order_seed=0):
        self.n, self.h, self.heads, self.kv, self.ff = \
            layers, hidden, heads, kv, ff
        self.vocabulary, self.divisor, self.cls = vocabulary, divisor, cls
        self.bias = bias
        self.params = list(self._params())
        self._mark(cases, order_seed)

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

    def _mark(self, cases, seed):
        places = {p: set() for p in self.params}
        full = {0, 2, 2 + self.n // 2, self.n + 1, self.n + 3, self.n + 4}
        for p in self.params:
            places[p] |= {0, numel(p.shape) - 1}
            if p.layer in full and not p.buffer:
                places[p] |= set(self._borders(p))
        for top in cases:
            self._mark_partitions(top, places)
        self.marks, count = {}, seed
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


def _values(tree):
    """A template's small real tensors as ours."""
    if torch.is_tensor(tree):
        return of(tree)
    if isinstance(tree, dict):
        return type(tree)((k, _values(v)) for k, v in tree.items())
    if isinstance(tree, list):
        return [_values(v) for v in tree]
    return tree


class Template:
    """What a small step of GPT-NeoX has beside its tensors."""

    def __init__(self, step):
        def first(start, end):
            name = min(n for n in os.listdir(step)
                       if n.startswith(start) and n.endswith(end))
            return torch.load(f"{step}/{name}", weights_only=False)
        model, optim = first("mp_rank_00", ".pt"), None
        self.prefix = "bf16_" if os.path.exists(
            f"{step}/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt") else ""
        optim = first(f"{self.prefix}zero_pp_rank_0_mp_rank_00", ".pt")
        for d in (model, optim):
            d["module"] = None
        del optim["module"]
        inner = optim["optimizer_state_dict"]
        self.step = next(iter(inner["base_optimizer_state"]["state"].values())
                         ).get("step")
        inner["base_optimizer_state"]["state"] = {}
        inner["single_partition_of_fp32_groups"] = []
        self.model, self.optim = _values(model), optim
        self.config = None
        if os.path.exists(f"{step}/configs"):
            with open(f"{step}/configs/neox.yml") as f:
                self.config = f.read()


class Writer:
    """@micro x @steps x the ranks of @saved is the global batch."""

    def __init__(self, model, template, top, saved=None, micro=4, steps=4,
                 fill=None):
        self.m, self.template, self.top = model, template, top
        self.micro, self.steps = micro, steps
        self.batch = micro * steps * (saved or top).dp
        self.fill = fill  # see Storage

    def ds_config(self, config):
        return dict(config, train_batch_size=self.batch,
                    train_micro_batch_size_per_gpu=self.micro,
                    gradient_accumulation_steps=self.steps)

    def files(self):
        """(name, tree) of each file."""
        top = self.top
        for stage in range(max(top.pp, 1)):
            for t in range(top.tp):
                rank = stage * top.tp + t
                yield f"mp_rank_{rank:02d}_model_states.pt", \
                    self.model_states(stage, t)
                for r in range(top.dp):
                    yield (f"{self.template.prefix}zero_pp_rank_{r}_mp_rank_"
                           f"{rank:02d}_optim_states.pt"), \
                        self.optim_states(stage, t, r)
        if top.pp:
            yield from self.layers()

    def layers(self):
        for layer in sorted({p.layer for p in self.m.params}):
            for t in range(self.top.tp):
                tree = collections.OrderedDict()
                for p in self.m.params:
                    if p.layer == layer:
                        tree[p.name] = self.weight(p, t)
                yield f"layer_{layer:02d}-model_{t:02d}-model_states.pt", tree

    def weight(self, p, t):
        shape = self.m.local_shape(p, self.top.tp)
        s = Storage(self.m.cls, numel(shape), self.fill)
        s.marks = self.m.local_marks(p, self.top, t, "weight")
        return Tensor(s, 0, shape)

    def module(self, stage, t):
        """Parameters are views of their group's flat storage."""
        where = {}
        for group in self.m.groups(self.top, stage):
            flat = Flat(self.m, self.top, group)
            s = Storage(self.m.cls, flat.all, self.fill)
            for p, at, _ in flat.spans:
                where[p] = Tensor(s, at, self.m.local_shape(p, self.top.tp))
                for i, raw in self.m.local_marks(p, self.top, t,
                                                 "weight").items():
                    s.marks[at + i] = raw
        return collections.OrderedDict(
            (self.m.full_name(p, self.top), where.get(p) or self.weight(p, t))
            for p in self.m.stage(self.top, stage))

    def model_states(self, stage, t):
        m, top = self.m, self.top
        tree = copy.copy(self.template.model)
        tree["module"] = None if top.pp else self.module(stage, t)
        tree["buffer_names"] = [m.full_name(p, top)
                                for p in m.stage(top, stage) if p.buffer]
        tree["param_shapes"] = [collections.OrderedDict(
            (m.full_name(p, top), torch.Size(m.local_shape(p, top.tp)))
            for p in g) for g in m.groups(top, stage)]
        tree["ds_config"] = self.ds_config(tree["ds_config"])
        tree["global_steps"] = tree["iteration"] = 1000
        tree["global_samples"] = 1000 * self.batch
        tree["dp_world_size"] = top.dp
        tree["mp_world_size"] = top.tp * max(top.pp, 1)
        tree["checkpoint_parallel_dimensions"] = {
            "pp_degree": max(top.pp, 1), "tp_degree": top.tp}
        m.told(tree, top)
        return tree

    def flat_tensor(self, flat, t, r, role):
        s = Storage(FLOAT, flat.part, self.fill)
        lo, hi = r * flat.part, (r + 1) * flat.part
        for p, a, b in flat.spans:
            if a < hi and b > lo:
                for i, raw in self.m.local_marks(p, self.top, t,
                                                 role).items():
                    if lo <= a + i < hi:
                        s.marks[a + i - lo] = raw
        n = max(0, min(flat.total, hi) - lo) if role == "master" else flat.part
        return Tensor(s, 0, (n,), role == "master")

    def optim_states(self, stage, t, r):
        top, m = self.top, self.m
        tree = copy.deepcopy(self.template.optim)
        tree["ds_config"] = self.ds_config(tree["ds_config"])
        inner = tree["optimizer_state_dict"]
        flats = [Flat(m, top, g) for g in m.groups(top, stage)]
        for g, flat in enumerate(flats):
            state = inner["base_optimizer_state"]["state"][g] = {}
            if self.template.step is not None:
                state["step"] = self.template.step
            for k in STATES:
                state[k] = self.flat_tensor(flat, t, r, k)
        inner["single_partition_of_fp32_groups"] = [
            self.flat_tensor(f, t, r, "master") for f in flats]
        inner["group_paddings"] = [
            min(f.part, max(0, (r + 1) * f.part - f.total)) for f in flats]
        inner["param_alignment_paddings"] = [[0] * len(f.spans) for f in flats]
        inner["partition_count"] = [top.dp] * len(flats)
        inner["param_slice_mappings"] = [self.slices(f, r) for f in flats]
        return tree

    def slices(self, flat, r):
        lo, hi = r * flat.part, (r + 1) * flat.part
        return collections.OrderedDict(
            (self.m.full_name(p, self.top),
             fragment_address(numel=min(b, hi) - max(a, lo),
                              start=max(a, lo) - lo))
            for p, a, b in flat.spans if a < hi and b > lo)

    def config(self):
        m, out = self.m, []
        new = {"hidden_size": m.h, "num_layers": m.n,
               "num_attention_heads": m.heads, "num_kv_heads": m.kv,
               "make_vocab_size_divisible_by": m.divisor,
               "max_position_embeddings": 2048, "seq_length": 2048,
               "model_parallel_size": self.top.tp,
               "pipe_parallel_size": self.top.pp,
               "train_micro_batch_size_per_gpu": self.micro,
               "gradient_accumulation_steps": self.steps}
        for line in self.template.config.splitlines():
            key = line.split(":")[0]
            out.append(f"{key}: {new[key]}" if key in new else line)
        return "\n".join(out) + "\n"

    def write(self, step):
        os.makedirs(step)
        for name, tree in self.files():
            save(f"{step}/{name}", tree)
        if self.template.config:
            os.mkdir(f"{step}/configs")
            with open(f"{step}/configs/neox.yml", "w") as f:
                f.write(self.config())
        with open(f"{os.path.dirname(step)}/latest", "w") as f:
            f.write(os.path.basename(step))


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


# comparing

def _around(places):
    """Ranges of these and the elements beside them."""
    runs = []
    for at in sorted(places):
        if runs and at - 1 <= runs[-1][1]:
            runs[-1][1] = at + 2
        else:
            runs.append([at - 1, at + 2])
    return runs


def _same_tensor(path, f, want, got, where):
    if (want.shape, want.storage.cls) != (got.shape, got.storage.cls):
        return [f"{where}: {got.shape} {got.storage.cls.__name__}, not "
                f"{want.shape} {want.storage.cls.__name__}"]
    n, marks, bad = want.numel, want.storage.marks, []
    size = want.storage.size // want.storage.numel if n else 0
    for first, end in _around(i - want.offset for i in marks
                              if want.offset <= i < want.offset + n):
        first, end = max(first, 0), min(end, n)
        f.seek(got.storage.at + (got.offset + first) * size)
        found = f.read((end - first) * size)
        for i in range(first, end):
            raw = marks.get(i + want.offset, bytes(size))
            mine = found[(i - first) * size:][:size]
            if mine != raw:
                bad.append(f"{where}[{i}]: {mine.hex()}, not {raw.hex()}")
        same.elements += end - first
    return bad


def _same(path, f, want, got, where, skip):
    if where in skip:
        return []
    if isinstance(want, Tensor):
        if not isinstance(got, Tensor):
            return [f"{where}: no tensor"]
        return _same_tensor(path, f, want, got, where)
    if isinstance(want, dict) and isinstance(got, dict):
        if list(want) != list(got):
            missing = [k for k in want if k not in got]
            extra = [k for k in got if k not in want]
            return [f"{where}: keys missing {missing[:4]}, "
                    f"too many {extra[:4]}, or another order"]
        return [x for k in want
                for x in _same(path, f, want[k], got[k], f"{where}.{k}", skip)]
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)) \
            and not isinstance(want, torch.Size):
        if len(want) != len(got):
            return [f"{where}: {len(got)} items, not {len(want)}"]
        return [x for i, (a, b) in enumerate(zip(want, got))
                for x in _same(path, f, a, b, f"{where}.{i}", skip)]
    if hasattr(want, "__dict__") and type(want) is type(got):
        return _same(path, f, vars(want), vars(got), where, skip)
    equal = want == got
    if hasattr(equal, "all"):
        equal = equal.all()
    return [] if equal and type(want) is type(got) \
        else [f"{where}: {got!r:.80}, not {want!r:.80}"]


def same(path, tree, skip=()):
    """How the file is another one than @tree; the elements at and around
    marks are read."""
    got = load(path)
    with open(path, "rb", buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return _same(path, f, tree, got, "", skip)


same.elements = 0
