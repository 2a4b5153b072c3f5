"""GPT-NeoX on a CPU: what its training path misses there, put in its place.

Import before deepspeed; then import_neox().  No source is edited.  Replaced
are packages that it imports and does not use here, calls of torch.cuda, the
kernel of FusedAdam (not the class), the data set and the tokenizer's size.
"""
import functools
import importlib.machinery
import os
import sys
import types

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "e2e"))


def _stand_in(name, **attrs):
    mod = types.ModuleType(name)
    mod.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(mod).update(attrs)
    sys.modules[name] = mod
    return mod


def unused_packages():
    for name in ("sentencepiece", "tiktoken", "requests"):
        _stand_in(name)
    _stand_in("shortuuid", uuid=lambda: "group")
    _stand_in("wandb", UsageError=Exception)
    _stand_in("tensorboardX", SummaryWriter=None)
    _stand_in("eval_tasks", run_eval_harness=None)
    _stand_in("transformers", **{n: type(n, (), {}) for n in
                                 ("GPT2Tokenizer", "GPT2TokenizerFast")})
    try:
        import pkg_resources  # noqa: F401  gone since setuptools 82
    except ImportError:
        import packaging.version
        _stand_in("pkg_resources", packaging=packaging)


class DeviceGenerator:
    """State of a CUDA generator: 16 bytes, the seed and an offset.

    What is drawn comes from torch's CPU generator.
    """

    def __init__(self):
        self.manual_seed(0)

    def manual_seed(self, seed):
        self.state = torch.tensor([seed, 0]).view(torch.uint8)

    def get(self, *_device):
        return self.state.clone()

    def set(self, state, *_device):
        assert state.numel() == 16, f"{state.numel()} bytes of state"
        self.state = state.clone()


def cuda_calls(generator):
    cuda = torch.cuda
    cpu = torch.device("cpu")
    cuda.device_count = lambda: int(os.environ.get("WORLD_SIZE", "1"))
    cuda.current_device = lambda: cpu
    cuda.set_device = cuda.synchronize = lambda *a: None
    cuda.empty_cache = lambda: None
    for name in ("memory_allocated", "max_memory_allocated",
                 "memory_reserved", "max_memory_reserved"):
        setattr(cuda, name, lambda *a: 0)
    for name in ("ByteTensor", "IntTensor", "LongTensor", "HalfTensor",
                 "BFloat16Tensor", "FloatTensor", "DoubleTensor"):
        setattr(cuda, name, getattr(torch, name))
    cuda.manual_seed = cuda.manual_seed_all = generator.manual_seed
    cuda.get_rng_state = generator.get
    cuda.set_rng_state = generator.set
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *a, **k: self
    torch.Tensor.pin_memory = lambda self, *a, **k: self


def deepspeed_calls(generator):
    """After oracle.framework, which gave DeepSpeed gloo and torch's Adam."""
    import deepspeed.runtime.activation_checkpointing.checkpointing as saving
    from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
    saving._set_cuda_rng_state = generator.set
    if "loss_scale_config" in FP16_Optimizer.__init__.__code__.co_names:
        # NeoX logs an attribute that releases since 0.19 lack
        FP16_Optimizer.cur_scale = property(
            lambda self: self.loss_scale_config.cur_scale)
    try:
        from deepspeed.accelerator import get_accelerator
    except ImportError:  # before 0.8
        return
    acc = get_accelerator()
    acc.is_bf16_supported = lambda: True
    acc.device_name = lambda *_a: "cpu"  # 0.8 has none but CUDA's
    acc.is_available = lambda: True
    acc.get_rng_state = generator.get
    acc.set_rng_state = generator.set
    acc.manual_seed = acc.manual_seed_all = generator.manual_seed


def old_release(minor):
    """DeepSpeed before 0.14, as in make_golden.py."""
    import old_deepspeed
    if 8 <= minor <= 10:
        import pydantic.v1
        sys.modules["pydantic"] = pydantic.v1
    old_deepspeed.dropped_names()
    torch.jit.script = lambda fn, *_a, **_k: fn
    torch.load = functools.partial(torch.load, weights_only=False)
    old_deepspeed.type_names("cpu" if minor >= 9 else "cuda")
    if minor < 9:
        old_deepspeed.cuda_on_cpu()
        from deepspeed.ops.op_builder import UtilsBuilder
        UtilsBuilder.load = lambda self, **_k: types.SimpleNamespace(
            flatten=torch._utils._flatten_dense_tensors,
            unflatten=torch._utils._unflatten_dense_tensors)
    elif minor < 12:
        old_deepspeed.accelerator_on_cpu()


def installed_info(tree):
    """What setup.py writes: a tree has version 0.0.0 without it, which its own
    loader refuses."""
    with open(os.path.join(tree, "version.txt")) as f:
        version = f.read().strip()
    _stand_in("deepspeed.git_version_info_installed", version=version,
              git_hash="unknown", git_branch="unknown", installed_ops={},
              compatible_ops={}, accelerator_name="cpu", torch_info={
                  "version": "0.0", "bf16_support": False,
                  "cuda_version": "0.0", "nccl_version": "0.0",
                  "hip_version": "0.0"})
    return int(version.split(".")[1])


class Tokens(torch.utils.data.Dataset):
    """Samples of random tokens, always the same ones."""

    def __init__(self, seq, vocab, count=512):
        gen = torch.Generator().manual_seed(11)
        self.rows = torch.randint(0, vocab, (count, seq + 1),
                                  generator=gen).numpy()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"text": self.rows[i]}


def tokenizer(vocab):
    class Tokenizer:
        vocab_size, eod, eod_id = vocab, 0, 0

        def __init__(self, *_args, **_kw):
            pass
    return Tokenizer


def apex_form(tree):
    """apex's FusedAdam over torch's arithmetic; none of its other parts."""
    def adam(*args):
        from oracle import adam_kernel
        return adam_kernel._Kernel.multi_tensor_adam(*args)

    _stand_in("amp_C", multi_tensor_adam=adam,
              multi_tensor_adam_capturable=None,
              multi_tensor_adam_capturable_master=None)
    _stand_in("apex").__path__ = [os.path.join(tree, "apex")]
    optimizers = _stand_in("apex.optimizers")
    optimizers.__path__ = [os.path.join(tree, "apex", "optimizers")]
    sys.modules["apex"].optimizers = optimizers
    from apex.optimizers import fused_adam
    fused_adam.torch = _CpuTensors()
    optimizers.FusedAdam = fused_adam.FusedAdam


class _CpuTensors:
    """torch, whose tensors are on the CPU whatever is asked for."""

    def __getattr__(self, name):
        return getattr(torch, name)

    @staticmethod
    def tensor(*args, **kw):
        return torch.tensor(*args, **dict(kw, device="cpu"))


def import_neox(tree, deepspeed_tree=None, apex_tree=None):
    """GPT-NeoX, over the installed DeepSpeed or a tree of it."""
    unused_packages()
    if deepspeed_tree:
        sys.path.insert(0, deepspeed_tree)
        minor = installed_info(deepspeed_tree)
        if minor < 14:
            old_release(minor)
    if apex_tree:
        apex_form(apex_tree)
    sys.path.insert(0, tree)
    from oracle import framework  # noqa: F401  imports and patches DeepSpeed
    generator = DeviceGenerator()
    deepspeed_calls(generator)
    cuda_calls(generator)
    import megatron.training as training
    import megatron.data.data_utils as data
    assert os.path.realpath(training.__file__).startswith(
        os.path.realpath(tree)), training.__file__
    data.compile_helper = lambda: None
    start = training.initialize_megatron
    training.initialize_megatron = lambda neox_args: start(
        neox_args=neox_args, allow_no_cuda=True)
