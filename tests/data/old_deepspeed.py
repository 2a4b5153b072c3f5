"""What old DeepSpeed releases miss in a current torch on a CPU.

Import before deepspeed.  Names that torch and numpy dropped are put back;
releases that speak to torch.cuda directly get a CPU behind it.
"""
import collections
import collections.abc
import importlib.machinery
import logging
import math
import sys
import types

import numpy
import torch
import torch._dynamo  # reads the tables of functions that are replaced below
import torch.distributed.elastic.agent.server.api as elastic_api
from torch.distributed.elastic.utils.distributed import get_socket_with_port


def _module(name, **attrs):
    mod = types.ModuleType(name)
    mod.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(mod).update(attrs)
    sys.modules[name] = mod
    return mod


def dropped_names():
    collections.Mapping = collections.abc.Mapping
    collections.Sequence = collections.abc.Sequence
    torch.Tensor.record_stream = lambda self, _stream: None
    torch._six = _module("torch._six", inf=math.inf,
                         string_classes=(str, bytes))
    _module("intel_extension_for_pytorch", __version__="0",
            _C=types.SimpleNamespace())
    _module("oneccl_bindings_for_pytorch", __version__="0")
    numpy.BUFSIZE = 8192
    for name, val in (("log", logging.getLogger("elastic")),
                      ("_get_socket_with_port", get_socket_with_port)):
        if not hasattr(elastic_api, name):
            setattr(elastic_api, name, val)


class _Event:
    def __init__(self, *_args, **_kw):
        pass

    def record(self, *_args):
        pass

    def query(self):
        return True

    def elapsed_time(self, _other):
        return 0.0

    synchronize = wait = record


class _Stream(_Event):
    wait_stream = wait_event = _Event.record

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        return False


def accelerator_on_cpu():
    """For the releases whose CPU accelerator has no events."""
    from deepspeed.accelerator import get_accelerator
    acc = type(get_accelerator())
    acc.Event = property(lambda self: _Event)
    acc.Stream = property(lambda self: _Stream)
    acc.memory_stats = lambda self, *a: {"num_alloc_retries": 0}
    acc.stream = lambda self, stream: _Stream()
    acc.current_stream = acc.default_stream = lambda self, *a: _Stream()


def cuda_on_cpu():
    """For releases before the accelerator interface (0.8)."""
    cpu = torch.device("cpu")
    cuda = torch.cuda
    cuda.is_available = lambda: False
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: cpu
    cuda.set_device = cuda.synchronize = lambda *a, **k: None
    cuda.empty_cache = lambda: None
    cuda.reset_peak_memory_stats = cuda.reset_max_memory_allocated = \
        cuda.reset_max_memory_cached = lambda *a: None
    for name in ("memory_allocated", "max_memory_allocated",
                 "memory_reserved", "max_memory_reserved", "memory_cached",
                 "max_memory_cached"):
        setattr(cuda, name, lambda *a: 0)
    cuda.memory_stats = lambda *a: {"num_alloc_retries": 0}
    cuda.Stream, cuda.Event = _Stream, _Event
    cuda.stream = lambda s: s
    cuda.current_stream = cuda.default_stream = lambda *a: _Stream()
    cuda.get_rng_state = torch.get_rng_state
    cuda.set_rng_state = torch.set_rng_state
    cuda.is_bf16_supported = lambda: True
    cuda.nvtx.range_push = cuda.nvtx.range_pop = lambda *a: None
    for name in ("ByteTensor", "FloatTensor", "HalfTensor", "BFloat16Tensor",
                 "IntTensor", "LongTensor", "DoubleTensor"):
        setattr(cuda, name, getattr(torch, name))
    torch.Tensor.cuda = lambda self, *a, **k: self
    torch.Tensor.pin_memory = lambda self, *a: self
    torch.nn.Module.cuda = lambda self, *a: self
    _device_arguments(cpu)


def type_names(device):
    """They sort gradients by the text that type() gives."""
    plain = torch.Tensor.type

    def named(self, *args, **kw):
        out = plain(self, *args, **kw)
        return out.replace("torch.", f"torch.{device}.", 1) \
            if isinstance(out, str) else out
    torch.Tensor.type = named


def _device_arguments(cpu):
    """device='cuda' or device=0 of the factories and of to()."""
    def on_cpu(fn):
        def call(*args, **kw):
            if "device" in kw and kw["device"] is not None:
                kw["device"] = cpu
            return fn(*args, **kw)
        return call
    for name in ("empty", "zeros", "ones", "full", "tensor", "arange",
                 "zeros_like", "empty_like", "ones_like"):
        setattr(torch, name, on_cpu(getattr(torch, name)))
    plain = torch.Tensor.to

    def to(self, *args, **kw):
        args = tuple(cpu if isinstance(a, (str, torch.device))
                     and str(a).startswith("cuda") else a for a in args)
        if kw.get("device") is not None:
            kw["device"] = cpu
        return plain(self, *args, **kw)
    torch.Tensor.to = to
