"""One rank of Megatron-DeepSpeed on a CPU: its own arguments, model, optimizer
groups, pipeline steps and save_checkpoint(), with the logical state set.

No source is edited.  Replaced are what neox_cpu.py replaces, packages that are
imported and not used here, fused kernels (torch's arithmetic in their place)
and the data set; the random generators are GPT-NeoX's stand-ins.
"""
import json
import os
import re
import sys
import types

import torch
import torch.nn.functional as F

import neox_cpu
import neox_rank
from neox_state import DTYPES, cut, value, whole_shape

RULES = (
    ("word_embeddings.weight", "vocab"),
    ("lm_head.weight", "vocab"),
    ("self_attention.query_key_value", "rows"),
    ("self_attention.dense.weight", "columns"),
    ("mlp.dense_h_to_4h", "up"),
    ("mlp.dense_4h_to_h.weight", "columns"),
)


def canonical(name):
    """By layer as today's pipelines count them, whatever it is called."""
    found = re.match(r"language_model\.encoder\.layers\.(\d+)\.", name)
    if found:
        return f"{int(found[1]) + 2}.{name[found.end():]}"
    for text, layer in (("tied_modules.embed.", "1."),
                        ("language_model.embedding.", "1."),
                        ("language_model.encoder.final_layernorm.", "6."),
                        ("language_model.output_layer.", "7.lm_head.")):
        name = name.replace(text, layer)
    return name


def shard(case, name, kind, shape, t):
    """What rank t has: as in neox_state.py, by these rules."""
    rest = name.split(".", 1)[1]
    how = next((how for text, how in RULES if rest.startswith(text)), "same")
    parts = None
    if how == "up":
        how = "halves" if case.gated else "rows"
    if rest.startswith("self_attention.query") and case.fork == "deepspeedai":
        how, parts = "parts", (case.hidden,) * 3
    full = whole_shape(how, shape, case.tp)
    if how == "vocab":
        x = torch.zeros(full)
        x[:case.vocab] = value(name, kind, [case.vocab] + full[1:])
    else:
        x = value(name, kind, full)
    return cut(how, parts, x, case.tp, t)


# ---- in the place of what is not there ----

class AnyName(types.ModuleType):
    """A package that is imported from and not used."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def layer_norm_kernel():
    def forward(x, shape, weight, bias, eps):
        x32 = x.float()
        mean = x32.mean(-1, keepdim=True)
        inv = torch.rsqrt(x32.var(-1, unbiased=False, keepdim=True) + eps)
        return F.layer_norm(x, tuple(shape), weight, bias, eps), mean, inv

    def backward(grad, _mean, _inv, x, shape, weight, bias, eps):
        with torch.enable_grad():
            args = [a.detach().requires_grad_() for a in (x, weight, bias)]
            out = F.layer_norm(args[0], tuple(shape), *args[1:], eps)
            return torch.autograd.grad(out, args, grad)

    neox_cpu._stand_in("fused_mix_prec_layer_norm_cuda",
                       forward_affine=forward, backward_affine=backward)


def apex(tree):
    """apex's FusedAdam over torch's arithmetic; of the rest names alone."""
    neox_cpu.apex_form(tree)
    amp = sys.modules["amp_C"]
    amp.multi_tensor_l2norm = amp.multi_tensor_scale = None
    neox_cpu._stand_in("apex.multi_tensor_apply", multi_tensor_applier=None)
    sys.modules["apex.optimizers"].FusedSGD = torch.optim.SGD
    neox_cpu._stand_in("torch._six", inf=float("inf"),
                       container_abcs=None, string_classes=str)


def import_megatron(tree, apex_tree):
    from oracle import framework  # noqa: F401  imports and patches DeepSpeed
    for name in ("regex", "six", "codecarbon", "sentencepiece", "wandb",
                 "transformers", "torchvision", "PIL", "timm", "faiss",
                 "flask", "flask_restful", "nltk"):
        sys.modules[name] = AnyName(name)
    sys.modules["torchvision.transforms"] = AnyName("torchvision.transforms")
    sys.modules["megatron.model.vision.knn_monitor"] = AnyName("knn_monitor")
    import numpy
    for name, kind in (("float", float), ("bool", bool), ("int", int)):
        if name not in vars(numpy):
            setattr(numpy, name, kind)
    try:
        import deepspeed.compression.compress  # noqa: F401
    except ImportError:  # gone since 0.19
        name = "deepspeed.compression.compress"
        sys.modules[name] = AnyName(name)
    apex(apex_tree)
    torch.optim.Optimizer._accelerator_graph_capture_health_check = (
        lambda self: None)
    layer_norm_kernel()
    sys.path.insert(0, tree)
    generator = neox_cpu.DeviceGenerator()
    neox_cpu.deepspeed_calls(generator)
    neox_cpu.cuda_calls(generator)
    import megatron.training
    try:
        import megatron.core.tensor_parallel.random as random
    except ImportError:
        import megatron.mpu.random as random
    random._set_cuda_rng_state = generator.set
    initialize = megatron.training.deepspeed.initialize

    def once_configured(**kw):
        """Releases of today want no path beside the dictionary."""
        kw["args"].deepspeed_config = None
        return initialize(**kw)

    megatron.training.deepspeed.initialize = once_configured
    transformer = sys.modules["megatron.model.transformer"]
    attend = transformer.CoreAttention.forward if hasattr(
        transformer, "CoreAttention") else None

    def attend_in_order(self, query, key, value, *args, **kw):
        """What the newest passes to it on a GPU goes elsewhere."""
        return attend(self, query.contiguous(), key.contiguous(),
                      value.contiguous(), *args, **kw)

    if attend:
        transformer.CoreAttention.forward = attend_in_order
    assert os.path.realpath(sys.modules["megatron"].__file__).startswith(
        os.path.realpath(tree))


# ---- a run ----

CONFIG = "ds_config.json"


def arguments(case):
    """The command line."""
    words = dict(
        tensor_model_parallel_size=case.tp,
        pipeline_model_parallel_size=max(case.pp, 1),
        num_layers=case.layers, hidden_size=case.hidden,
        num_attention_heads=case.heads, seq_length=16,
        max_position_embeddings=16, micro_batch_size=2, global_batch_size=4,
        train_iters=4, lr=1e-3, min_lr=1e-4, lr_decay_style="cosine",
        weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.95, clip_grad=1.0,
        make_vocab_size_divisible_by=case.divisor, attention_dropout=0.0,
        hidden_dropout=0.0, distributed_backend="gloo", save="run",
        save_interval=1000, zero_stage=case.stage(), vocab_file="vocab.json",
        merge_file="merges.txt", data_path="tokens", **dict(case.options))
    flags = ["deepspeed", "no_masked_softmax_fusion", "no_bias_gelu_fusion",
             "no_bias_dropout_fusion"] + list(case.flags)
    if case.fork != "bigscience":
        flags.append("no_gradient_accumulation_fusion")
    if not case.pp:
        flags.append("no_pipeline_parallel")
    if case.prec != "fp32":
        flags.append(case.prec)
    argv = ["--deepspeed_config", CONFIG]
    for key, word in words.items():
        argv += ["--" + key.replace("_", "-"), str(word)]
    return argv + ["--" + f.replace("_", "-") for f in flags]


def ds_config(case):
    conf = {"train_micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": 2 // case.dp,
            "train_batch_size": 4, "gradient_clipping": 1.0,
            "zero_optimization": {"stage": case.stage(),
                                  "reduce_bucket_size": 500000},
            "zero_allow_untested_optimizer": True, "steps_per_print": 10 ** 6}
    if case.prec == "bf16":
        conf["bf16"] = {"enabled": True}
    elif case.prec == "fp16":
        conf["fp16"] = {"enabled": True, "initial_scale_power": 8}
    return conf


class Run(neox_rank.Run):
    def __init__(self, case, engine, t):
        self.case, self.engine, self.t = case, engine, t
        case.model = types.SimpleNamespace(prec=case.prec)
        self.named = [(canonical(n), p)
                      for n, p in engine.module.named_parameters()]
        self.names = {id(p): n for n, p in self.named}

    def want(self, p, kind):
        shape = getattr(p, "ds_shape", p.shape)
        return shard(self.case, self.names[id(p)], kind, shape, self.t)


class Rows:
    """Batches, on the first and the last stage."""

    def __init__(self, vocab):
        self.gen = torch.Generator().manual_seed(11)
        self.vocab = vocab

    def __next__(self):
        return {"text": torch.randint(0, self.vocab, (2, 17),
                                      generator=self.gen)}


def step(engine, pretrain_gpt, rows):
    """Without a pipeline, what train_step() does of a batch."""
    for _ in range(engine.gradient_accumulation_steps()):
        tokens, labels, mask, attention, positions = pretrain_gpt.get_batch(
            rows)
        out = engine(tokens, positions, attention, labels=labels)
        out = out[0] if isinstance(out, tuple) else out
        loss = (out.float().view(-1) * mask.view(-1)).sum() / mask.sum()
        engine.backward(loss)
        engine.step()
    return loss


def start(case, out, load):
    """What pretrain() does up to the model: arguments and process groups."""
    import megatron.global_vars as global_vars
    import megatron.initialize as initialize
    import megatron.tokenizer.tokenizer as tokenizers
    if torch.distributed.get_rank() == 0:
        with open(os.path.join(out, CONFIG), "w") as f:
            json.dump(ds_config(case), f)
    torch.distributed.barrier()
    sys.argv = ["pretrain_gpt.py"] + arguments(case)
    if load:
        sys.argv += ["--load", load]

    def build(args):
        args.padded_vocab_size = tokenizers._vocab_size_with_padding(
            case.vocab, args)
        return types.SimpleNamespace(vocab_size=case.vocab, eod=0)

    global_vars.build_tokenizer = build
    initialize._compile_dependencies = lambda: None
    initialize.git_ds_info = lambda: None
    initialize.initialize_megatron(allow_no_cuda=True)


def build_model(case):
    """Model, optimizer, scheduler, and the tensor-parallel rank."""
    import megatron.training as training
    import pretrain_gpt
    from megatron import get_args
    if case.fork == "bigscience":
        from megatron import mpu
        kind = []
    else:
        from megatron.core import mpu
        from megatron.core.enums import ModelType
        get_args().deepspeed_config_dict = training._create_ds_config_dict()
        kind = [ModelType.encoder_or_decoder]
    return (*training.setup_model_and_optimizer(
        pretrain_gpt.model_provider, *kind),
        mpu.get_tensor_model_parallel_rank())


def run(_rank, _world, case, out, load=None):
    """Two steps from the state, which is set again and saved; or loads."""
    import megatron.training as training
    import pretrain_gpt
    from megatron import get_args
    os.chdir(out)
    start(case, out, load)
    model, opt, sched, t = build_model(case)
    engine, begin = model[0], get_args().iteration
    state = Run(case, engine, t)
    wrong = state.wrong() if load else []
    if not load:
        state.set_state()
    losses = []
    for _ in range(2):
        rows = Rows(case.vocab)
        losses.append(float(engine.train_batch(data_iter=rows) if case.pp
                            else step(engine, pretrain_gpt, rows)))
    if not load:
        state.set_state()
        assert not state.wrong(), state.wrong()
        training.save_checkpoint(begin + 2, model, opt, sched)
    return {"losses": losses, "wrong": wrong, "iteration": begin}
