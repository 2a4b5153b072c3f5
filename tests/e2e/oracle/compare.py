"""Compare two step directories as a loader would see them.

Equal means: the same files, and in each the same unpickled tree: types, key
order, dtypes, shapes, strides and the bits of every element.  Not compared:
which tensors share a storage, offsets into storages, bytes of the container,
and the fields of EXCLUDED.  Run as a program it prints each difference:

    python -m oracle.compare WANT GOT
"""
import enum
import os
import struct
import sys
import types

import torch

# Top-level fields, each with the reason why it may differ.
EXCLUDED = {
    "ds_config": "the user's JSON: batch sizes differ with dp; never compared "
                 "with the engine's by a loader",
}
# Python attributes of tensors; compared only where both have them.
OPTIONAL_ATTRS = {
    "ds_id": "stage 3's own numbering of parameters, pickled by accident; no "
             "loader reads it",
}
# The tail of a rank's slice of a stage-3 parameter, past the parameter's end:
# the framework leaves what happens to be there; a view must have zeros.
TAIL_KEYS = ("exp_avg", "exp_avg_sq")
# In the place of a mask: up to 0.5.9 the placeholders of stage 3 had one element
# of uninitialised memory, which today's loader refuses; a view's are empty.
OLD_PLACEHOLDER = object()
MAX_DIFFS = 40


def load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


class Diff:
    def __init__(self, tails, added):
        self.lines = []
        self.tails = tails
        self.added = added
        self.masks = {}

    def add(self, path, text):
        self.lines.append(f"{path}: {text}")

    def tree(self, path, want, got):
        if len(self.lines) >= MAX_DIFFS:
            return
        if type(want) is not type(got):
            self.add(path, f"type {type(want).__name__} expected, "
                           f"is {type(got).__name__} ({str(got)[:60]})")
        elif isinstance(want, torch.Tensor):
            self.tensor(path, want, got)
        elif isinstance(want, dict):
            self.mapping(path, want, got)
        elif isinstance(want, (list, tuple)):
            if len(want) != len(got):
                self.add(path, f"{len(want)} items expected, are {len(got)}: "
                               f"{str(want)[:60]} / {str(got)[:60]}")
                return
            for i, (a, b) in enumerate(zip(want, got)):
                self.tree(f"{path}[{i}]", a, b)
        elif isinstance(want, (set, frozenset)):
            if want != got:
                self.add(path, f"{want} expected, is {got}")
        else:
            self.leaf(path, want, got)

    def mapping(self, path, want, got):
        keys = [k for k in got if k in want or k not in self.added]
        if list(want) != keys:
            self.add(path, f"keys {_keys(want)} expected, are {_keys(got)}")
        for key in got.keys() - want.keys():
            if self.added.get(key) not in (None, got[key]):
                self.add(path, f"{key} is {got[key]}")
        for key in want:
            if key in got and not (self.is_top(path) and key in EXCLUDED):
                self.tree(f"{path}.{key}", want[key], got[key])
        extra = getattr(want, "__dict__", None)
        if extra:
            self.tree(f"{path}.__dict__", extra, vars(got))

    @staticmethod
    def is_top(path):
        return "." not in path

    def tensor(self, path, want, got):
        skip = ()
        if self.masks.get(path.split(":", 1)[1]) is OLD_PLACEHOLDER:
            skip = ("shape",)
            if got.numel():
                self.add(path, "placeholder is not empty")
        for attr in ("dtype", "shape", "requires_grad", "layout"):
            a, b = getattr(want, attr), getattr(got, attr)
            if a != b and attr not in skip:
                self.add(path, f"{attr} {a} expected, is {b}")
        if want.shape != got.shape or want.dtype != got.dtype:
            return
        if want.stride() != got.stride():
            self.add(path, f"stride {want.stride()} expected, "
                           f"is {got.stride()}")
        a, b = ({k: v for k, v in vars(x).items() if k not in OPTIONAL_ATTRS
                 or (k in vars(want) and k in vars(got))}
                for x in (want, got))
        if a or b:
            self.tree(f"{path}.__dict__", a, b)
        self.bits(path, want.detach(), got.detach())

    def bits(self, path, want, got):
        a, b = _bits(want), _bits(got)
        mask = self.masks.get(path.split(":", 1)[1])
        if mask is not None:
            if len(mask) == want.numel():
                tail = got.flatten()[mask]
                if self.tails and tail.count_nonzero():
                    self.add(path, "padding past a parameter's end "
                                   "is not zero")
                a, b = a.clone(), b.clone()
                a[mask], b[mask] = 0, 0
            else:
                self.add(path, f"{want.numel()} elements, by param_shapes "
                               f"{len(mask)}")
        wrong = (a != b).flatten(1).any(1) if a.ndim > 1 else a != b
        if wrong.any():
            at = int(wrong.nonzero()[0])
            self.add(path, f"{int(wrong.sum())} of {want.numel()} elements "
                           f"differ, first [{at}]: "
                           f"{want.flatten()[at].item()!r} expected, is "
                           f"{got.flatten()[at].item()!r}")

    def leaf(self, path, want, got):
        if isinstance(want, enum.Enum):
            same = want is got
        elif isinstance(want, float):
            same = struct.pack("d", want) == struct.pack("d", got)
        elif type(want).__module__ == "numpy":
            same = (want.dtype == got.dtype and want.shape == got.shape
                    and want.tobytes() == got.tobytes())
        elif want is None or isinstance(
                want, (int, str, bytes, torch.dtype, type,
                       types.FunctionType)):
            same = want == got
        elif hasattr(want, "__dict__"):
            self.tree(f"{path}.__dict__", vars(want), vars(got))
            return
        else:
            same = want == got
        if not same:
            self.add(path, f"{str(want)[:80]} expected, is {str(got)[:80]}")


def _keys(mapping):
    return [str(k)[:30] for k in mapping]


def _bits(t):
    """The elements as integers: NaN equals itself, -0 is not 0."""
    t = t.contiguous().flatten()
    if t.dtype == torch.bool or t.is_complex():
        return t
    return t.view({1: torch.uint8, 2: torch.int16, 4: torch.int32,
                   8: torch.int64}[t.element_size()])


def _slices(shapes, rank, world):
    """True where a stage-3 flat tensor of this rank is past a parameter."""
    mask = []
    for shape in shapes.values():
        n = shape.numel()
        size = -(-n // world)
        mask += [rank * size + i >= n for i in range(size)]
    return torch.tensor(mask, dtype=torch.bool)


def stage3_masks(step_dir):
    """{file: {path in its tree: mask}} for the padding of stage 3."""
    out = {}
    for name in os.listdir(step_dir):
        head, mp, tail = name.partition("_mp_rank_")
        if not (head.startswith("zero_pp_rank_")
                and tail.endswith("model_states.pt")):
            continue
        rank = int(head.rsplit("_", 1)[1])
        sd = load(os.path.join(step_dir, name))
        world = sd["dp_world_size"]
        model = out.setdefault(name, {})
        for key, t in (sd.get("frozen_param_fragments") or {}).items():
            shape = sd["frozen_param_shapes"][key]
            mask = _slices({key: shape}, rank, world)
            if t.numel() == len(mask):
                model[f".frozen_param_fragments.{key}"] = mask
        masks = {}
        optim = f"{mp}{tail}".replace("model_states", "optim_states")
        optim = [f"{prefix}{head}{optim}" for prefix in ("", "bf16_")]
        shapes_of = sd
        if "param_shapes" not in sd:  # 0.5.9
            shapes_of = load(os.path.join(step_dir, optim[0]))
        for i, shapes in enumerate(shapes_of["param_shapes"]):
            for key in shapes:
                if "param_shapes" not in sd and sd["module"][key].numel() == 1:
                    model[f".module.{key}"] = OLD_PLACEHOLDER
            mask = _slices(shapes, rank, world)
            inner = ".optimizer_state_dict"
            masks[f"{inner}.fp32_flat_groups[{i}]"] = mask
            for key in TAIL_KEYS:
                masks[f"{inner}.optimizer_state_dict.state.{i}.{key}"] = mask
        for other in optim:
            out[other] = masks
    return out


def compare_dirs(want, got, tails=True, added={}):
    """The differences between two step directories, as lines of text.

    tails: got is a view, whose stage-3 padding must be zero.
    added: keys of dicts that got may have beside want's, with their values
    (None: any).
    """
    diff = Diff(tails, added)
    a, b = sorted(os.listdir(want)), sorted(os.listdir(got))
    if a != b:
        missing = [n for n in a if n not in b]
        extra = [n for n in b if n not in a]
        diff.lines.append(f"files missing {missing}, unexpected {extra}")
    masks = stage3_masks(want)
    for name in a:
        if name not in b or not name.endswith(".pt"):
            continue
        diff.masks = masks.get(name, {})
        try:
            tree = load(os.path.join(got, name))
        except Exception as err:  # whatever a loader would have met
            diff.lines.append(f"{name}: cannot be loaded: "
                              f"{type(err).__name__}: {str(err)[:300]}")
            continue
        diff.tree(f"{name[:-3]}:", load(os.path.join(want, name)), tree)
    return diff.lines


def main():
    lines = compare_dirs(sys.argv[1], sys.argv[2])
    for line in lines:
        print(line)
    print(f"{len(lines)} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
