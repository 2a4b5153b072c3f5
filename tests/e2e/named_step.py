"""Steps of known models (named_models.py) at any topology.

What is no tensor is taken from a small step that the framework wrote; payloads
are holes but for the marks, so a view of one must be the other.
"""
import collections
import copy
import os

import torch
from deepspeed.utils.tensor_fragment import fragment_address

from named_models import STATES, Flat
from sparse_torch import Storage, Tensor, load, numel, of, save


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
        model = first("mp_rank_00", ".pt")
        self.prefix = "bf16_" if os.path.exists(
            f"{step}/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt") else ""
        optim = first(f"{self.prefix}zero_pp_rank_0_mp_rank_00", ".pt")
        model["module"] = None
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
        s = Storage(torch.FloatStorage, flat.part, self.fill)
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
