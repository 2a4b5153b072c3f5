"""Views of steps that DeeperSpeed 0.3.15 wrote, and what it wrote itself.

No release of today loads its layout of stage 1, so a view has that of 0.5.9
and the files differ.  What they hold must not: every master, moment and weight
by name, the count of steps, and all of the model states that is not about the
layout.
"""
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "data"))

import neox_cases  # noqa: E402
import neox_read  # noqa: E402
from oracle import compare  # noqa: E402

# Of the layout, and compared by content; or a rank's own.
NOT_CLIENT = ("module", "random_rng_state", "np_rng_state", "torch_rng_state",
              "cuda_rng_state", "rng_tracker_states")


def same_state(want, got):
    """Masters and moments over all ranks: {(name, kind): tensor}"""
    lines = [f"{name} {kind}: there and here are {a} and {b}"
             for (name, kind), a, b in
             ((k, k in want, k in got) for k in want.keys() | got.keys())
             if a != b]
    for key in want.keys() & got.keys():
        if not torch.equal(want[key], got[key]):
            lines.append(f"{key[0]} {key[1]}: other values")
    return lines


def same_models(want, got):
    """What each model-parallel rank has beside the optimizer's state."""
    diff = compare.Diff(True, {})
    for m in want.models:
        a, b = ({k: v for k, v in s.models[m][0].items()
                 if k not in NOT_CLIENT} for s in (want, got))
        diff.tree(f"mp_rank_{m:02}:", a, b)
        diff.tree(f"weights of {m}:", want.weights(m), got.weights(m))
    return diff.lines


def today(step):
    """What today's loader asks of stage 1 and 2 in elastic form."""
    for m, ranks in step.optims.items():
        for r, x in ranks.items():
            part = x["optimizer_state_dict"]
            where = f"optimizer of {m}, {r}"
            groups = part["single_partition_of_fp32_groups"]
            if part.get("ds_version") != "0.5.9":
                yield f"{where}: ds_version is {part.get('ds_version')}"
            if part.get("base_optimizer_state_step") != neox_cases.STEPS:
                yield f"{where}: no base_optimizer_state_step"
            if part["partition_count"] != [step.dp] * len(groups):
                yield f"{where}: partition_count {part['partition_count']}"
            for g, shapes in enumerate(x["param_shapes"]):
                total = sum(s.numel() for s in shapes.values())
                size = -(-total // (2 * step.dp)) * 2
                have = max(min(total - r * size, size), 0)
                if len(groups[g]) != have:
                    yield f"{where}: {len(groups[g])} of group {g}"
                if part["group_paddings"][g] != size - have:
                    yield f"{where}: padding of group {g}"
                for kind, x_g in part["base_optimizer_state"][g].items():
                    if kind == "step":
                        if x_g != neox_cases.STEPS:
                            yield f"{where}: step {x_g}"
                    elif len(x_g) != have:
                        yield f"{where}: {kind} of group {g}"


def differences(name, want, got):
    """@want is what the framework wrote at the topology of @name."""
    model = neox_cases.parse(name).model
    names = [sorted(n for n in os.listdir(x) if n.endswith(".pt"))
             for x in (want, got)]
    if names[0] != names[1]:
        return [f"files {names[1]} instead of {names[0]}"]
    want, got = neox_read.Step(want), neox_read.Step(got)
    try:
        return same_state(neox_read.rebuild(want, model),
                          neox_read.rebuild(got, model)) \
            + same_models(want, got) + list(today(got))
    except (neox_read.Wrong, AssertionError, LookupError) as err:
        return [repr(err)]
