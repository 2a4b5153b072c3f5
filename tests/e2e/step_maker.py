"""Writes steps as DeepSpeed's ZeRO stage 1 does, without torch: bf16 weights
that are their fp32 master rounded, master and moments flat over the ranks.
Values are random, so that nothing but the weights can be saved twice over.
"""
import array
import collections
import contextlib
import io
import os
import pickle
import sys
import types
import zipfile

SHAPES = {"embed.weight": (600, 300), "norm.weight": (300,),
          "mlp.weight": (500, 420)}
TYPES = {"f": ("FloatStorage", 4), "H": ("BFloat16Storage", 2)}


class Tensor:
    def __init__(self, code, values, shape):
        self.code, self.shape = code, tuple(shape)
        self.values = array.array(code, values)


class Fragment:
    """deepspeed.utils.tensor_fragment.fragment_address"""


def _module(name, **members):
    module = types.ModuleType(name)
    for key, value in members.items():
        value.__module__, value.__qualname__ = name, key
        setattr(module, key, value)
    return module


def _rebuild(*_):
    pass


STORAGES = {code: type(name, (), {}) for code, (name, _) in TYPES.items()}
MODULES = {m.__name__: m for m in (
    _module("torch", **{s.__name__: s for s in STORAGES.values()}),
    _module("torch._utils", _rebuild_tensor_v2=_rebuild),
    _module("deepspeed"), _module("deepspeed.utils"),
    _module("deepspeed.utils.tensor_fragment", fragment_address=Fragment))}


class _Storage:
    def __init__(self, key, tensor):
        self.key, self.tensor = key, tensor


class _Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        return ("storage", STORAGES[obj.tensor.code], obj.key, "cpu",
                len(obj.tensor.values))

    def reducer_override(self, obj):
        if not isinstance(obj, Tensor):
            return NotImplemented
        strides, n = [], 1
        for size in reversed(obj.shape):
            strides.insert(0, n)
            n *= size
        storage = _Storage(str(len(self.storages)), obj)
        self.storages.append(storage)
        return (_rebuild, (storage, 0, obj.shape, tuple(strides), False,
                           collections.OrderedDict()))


@contextlib.contextmanager
def _fakes():
    had = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        yield
    finally:
        for name, module in had.items():
            if module:
                sys.modules[name] = module
            else:
                del sys.modules[name]


def _write(path, tree):
    top = os.path.basename(path)[:-3]
    text = io.BytesIO()
    with _fakes():
        pickler = _Pickler(text)
        pickler.dump(tree)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as z:
        z.writestr(f"{top}/data.pkl", text.getvalue())
        z.writestr(f"{top}/byteorder", b"little")
        for s in pickler.storages:
            z.writestr(f"{top}/data/{s.key}", s.tensor.values.tobytes())
        z.writestr(f"{top}/version", b"3\n")


def _floats(rng, n):
    """Bits of finite numbers."""
    return [v & 0xbfffffff for v in array.array("I", rng.randbytes(4 * n))]


def _bf16(bits):
    return [(v + 0x7fff + (v >> 16 & 1)) >> 16 for v in bits]


def _tensor(bits):
    t = Tensor("f", [], (len(bits),))
    t.values.frombytes(array.array("I", bits).tobytes())
    return t


def _slices(rank, part):
    out, at = collections.OrderedDict(), 0
    for name, shape in SHAPES.items():
        n = 1
        for size in shape:
            n *= size
        begin, end = max(at, rank * part), min(at + n, (rank + 1) * part)
        if begin < end:
            fragment = Fragment()
            fragment.__dict__.update(numel=end - begin,
                                     start=begin - rank * part)
            out[name] = fragment
        at += n
    return out


def make(path, rng, steps=7, ranks=2, rounded=True):
    """The step at @path; @rounded False: weights that are not the master's."""
    os.makedirs(path)
    sizes = [shape[0] * (shape[1] if len(shape) > 1 else 1)
             for shape in SHAPES.values()]
    part = -(-sum(sizes) // ranks)
    flat = [_floats(rng, sum(sizes)) for _ in range(3)]
    module, at = collections.OrderedDict(), 0
    for (name, shape), n in zip(SHAPES.items(), sizes):
        bits = flat[0][at:at + n] if rounded else _floats(rng, n)
        module[name] = Tensor("H", _bf16(bits), shape)
        at += n
    config = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True},
              "zero_optimization": {"stage": 1}}
    _write(f"{path}/mp_rank_00_model_states.pt", {
        "module": module, "buffer_names": [], "optimizer": None,
        "param_shapes": [collections.OrderedDict(SHAPES)],
        "frozen_param_shapes": None, "frozen_param_fragments": None,
        "shared_params": {}, "global_steps": steps, "skipped_steps": 0,
        "dp_world_size": ranks, "mp_world_size": 1, "ds_config": config,
        "ds_version": "0.16.5"})
    for rank in range(ranks):
        mine = [_tensor((v + [0] * (part * ranks - len(v)))
                        [rank * part:(rank + 1) * part]) for v in flat]
        padding = part * ranks - sum(sizes) if rank == ranks - 1 else 0
        _write(f"{path}/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", {
            "optimizer_state_dict": {
                "loss_scaler": None, "overflow": False, "clip_grad": 0.0,
                "base_optimizer_state": {
                    "state": {0: {"step": Tensor("f", [steps], ()),
                                  "exp_avg": mine[1],
                                  "exp_avg_sq": mine[2]}},
                    "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99),
                                      "eps": 1e-8, "weight_decay": 0.0,
                                      "params": [0]}]},
                "single_partition_of_fp32_groups": [mine[0]],
                "zero_stage": 1, "group_paddings": [padding],
                "partition_count": [ranks], "ds_version": "0.16.5",
                "param_slice_mappings": [_slices(rank, part)]},
            "ds_config": config, "ds_version": "0.16.5"})
