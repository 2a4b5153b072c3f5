"""A model that has just the parameters a step's directory names: a pipeline, or
layers in sequence.

Nothing is computed with it: the framework's own engine at that topology loads
a checkpoint and saves it again.  Layers are numbered as in the directory, and
those of GPT-NeoX cut into stages as its own are: their classes are called so
that the partition method finds them.
"""
import os

import torch
from torch import nn

from .compare import load

CLIENT = ("iteration", "args", "random_rng_state", "np_rng_state",
          "torch_rng_state", "cuda_rng_state", "rng_tracker_states")


class Layer(nn.Module):
    """Parameters by dotted name."""

    def __init__(self, shapes):
        super().__init__()
        for name, shape in shapes.items():
            *path, last = name.split(".")
            at = self
            for part in path:
                if not hasattr(at, part):
                    at.add_module(part, nn.Module())
                at = getattr(at, part)
            at.register_parameter(last, nn.Parameter(torch.zeros(*shape)))

    def forward(self, x):
        return x


class Transformer(Layer):
    pass


def _pre_transformer_block(x):
    return x


def _post_transformer_block(x):
    return x


def _states(step_dir):
    names = sorted(n for n in os.listdir(step_dir)
                   if n.endswith("_model_states.pt") and "mp_rank_" in n)
    return [load(os.path.join(step_dir, n)) for n in names]


def _by_layer(states):
    """({layer: {name: shape}}, {name: shape} of what is tied)"""
    layers, tied = {}, {}
    for sd in states:
        for name, shape in [x for g in sd["param_shapes"] for x in g.items()]:
            head, _, rest = name.partition(".")
            if head == "tied_modules":
                tied[rest.partition(".")[2]] = shape
            else:
                layers.setdefault(int(head), {})[rest] = shape
    return layers, tied


def _specs(states, last, stages):
    from deepspeed.pipe import LayerSpec, TiedLayerSpec
    layers, tied = _by_layer(states)
    n = last + 1
    neox = any("attention.dense.weight" in v for v in layers.values())
    out = []
    for i in range(n):
        if tied and i in (0, n - 1):
            out.append(TiedLayerSpec(
                "embed", Layer, tied, tied_weight_attr=list(tied),
                forward_fn=(lambda module, x: x) if i else None))
        elif i in layers:
            block = neox and 1 < i < n - 3
            out.append(LayerSpec(Transformer if block else Layer, layers[i]))
        else:
            out.append(_pre_transformer_block if i == 1
                       else _post_transformer_block)
    return out


def engine(step_dir, world, tp, pp, last, method):
    """The engine that saved step_dir would be like this one, and universal."""
    from deepspeed.pipe import PipelineModule
    from deepspeed.runtime.pipe.topology import PipeDataParallelTopology, \
        PipeModelDataParallelTopology
    states = _states(step_dir)
    dp = world // tp // pp
    if any("-model_00-" in n for n in os.listdir(step_dir)):
        topo = PipeModelDataParallelTopology(num_pp=pp, num_mp=tp, num_dp=dp)
    else:
        topo = PipeDataParallelTopology(num_pp=pp, num_dp=dp)
    net = PipelineModule(_specs(states, last, pp), topology=topo,
                         loss_fn=lambda a, b: (a - b).sum(),
                         partition_method=method)
    grid = net.mpu()
    own = states[grid.get_pipe_parallel_rank() * tp
                 + grid.get_slice_parallel_rank()]
    return _initialize(net, own)


def sequence(step_dir):
    """The same without a pipeline."""
    own = _states(step_dir)[0]
    shapes = {n: s for g in own["param_shapes"] for n, s in g.items()}
    return _initialize(Layer(shapes), own)


def _initialize(net, own):
    import deepspeed
    params = dict(net.named_parameters())
    groups = [{"params": [params[n] for n in g]} for g in own["param_shapes"]]
    config = {k: v for k, v in own["ds_config"].items()
              if k in ("fp16", "bf16", "zero_optimization", "data_types",
                       "gradient_clipping", "train_micro_batch_size_per_gpu")}
    config["checkpoint"] = {"load_universal": True}
    config["zero_allow_untested_optimizer"] = True
    made, *_ = deepspeed.initialize(
        model=net, config=config, optimizer=torch.optim.AdamW(groups, lr=1e-2),
        dist_init_required=False)
    return made


def load_and_save(rank, world, step_dir, tp, pp, last, method, view, out, tag):
    made = engine(step_dir, world, tp, pp, last, method) if pp \
        else sequence(step_dir)
    path, client = made.load_checkpoint(view)
    assert path, f"nothing was loaded from {view}"
    made.save_checkpoint(out, tag=tag, client_state={
        k: v for k, v in client.items() if k in CLIENT})
