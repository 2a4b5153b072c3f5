"""Read a step of GPT-NeoX by what is known of its layout, and judge it.

Independent of the code that set the state: that wrote where the optimizer's
flat buffers are, this goes by file names, param_shapes and rules.
"""
import collections
import os
import re
import zlib

import torch

from neox_state import DTYPES, KINDS, MOMENTS, canonical, merge, rule, whole

MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
OPTIM = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)"
                   r"_optim_states\.pt")
LAYER = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")


class Wrong(Exception):
    pass


def expect(ok, text):
    if not ok:
        raise Wrong(text)


class Step:
    """The files: models[m][r], optims[m][r], layers[t][i]."""

    def __init__(self, path):
        self.models, self.optims, self.layers = (
            collections.defaultdict(dict) for _ in range(3))
        for name in sorted(os.listdir(path)):
            for regex, into in ((MODEL, self.models), (OPTIM, self.optims),
                                (LAYER, self.layers)):
                found = regex.fullmatch(name)
                if found:
                    a, b = (int(x or 0) for x in found.groups())
                    into[b][a] = torch.load(os.path.join(path, name),
                                            weights_only=False)
        first = self.models[0][0]
        self.tp = first["args"]["model_parallel_size"]
        self.dp = first["dp_world_size"]
        expect(first["mp_world_size"] == len(self.models), "mp_world_size")
        expect(all(len(x) == self.dp for x in self.optims.values()),
               "a file for each of dp")

    def weights(self, m):
        """Name: tensor of mp rank m; with layer files, those of its t."""
        module = self.models[m][0]["module"]
        if module is not None:
            return {canonical(n): x for n, x in module.items()}
        out = {}
        for i, layer in self.layers[m % self.tp].items():
            for n, x in layer.items():
                out.setdefault(canonical(f"{i}.{n}"), x)
        return out


def is_norm_or_bias(name):
    return name.endswith(".bias") or re.search(r"norm\.[a-z]+$", name)


def groups_without_shapes(step, m):
    """Stage 0 has no param_shapes: a stage of the pipeline takes layers until
    the sizes of its groups are reached."""
    flats = step.models[m][0]["optimizer"]["fp32_groups_flat"]
    weights = step.weights(m)
    buffers = {n for x in step.models.values()
               for n in map(canonical, x[0]["buffer_names"])}
    names = [n for n in weights if n not in buffers]
    begin = 0
    for before in range(m // step.tp):  # elements of the stages before
        opt = step.models[before * step.tp][0]["optimizer"]
        todo = sum(x.numel() for x in opt["fp32_groups_flat"])
        while todo:
            todo -= weights[names[begin]].numel()
            begin += 1
    groups, left = [[], []], sum(x.numel() for x in flats)
    for n in names[begin:]:
        if not left:
            break
        groups[bool(is_norm_or_bias(n))].append((n, weights[n].shape))
        left -= weights[n].numel()
    return groups


def groups_by_mappings(step, m):
    parts = step.optims[m][0]["optimizer_state_dict"]["param_slice_mappings"]
    expect(step.dp == 1, "mappings of one rank only")
    weights = step.weights(m)
    return [[(canonical(n), weights[canonical(n)].shape) for n in g]
            for g in parts]


def groups_of(step, m):
    """[[(name, shape)]] in flat order."""
    shapes = step.models[m][0]["param_shapes"]
    if shapes is not None:
        return [[(canonical(n), s) for n, s in g.items()] for g in shapes]
    if step.optims:
        return groups_by_mappings(step, m)
    return groups_without_shapes(step, m)


def split(flat, group, pads=None):
    """{name: tensor} of a flat group; what is left must be zero."""
    out, at = {}, 0
    for k, (name, shape) in enumerate(group):
        out[name] = flat[at:at + shape.numel()].view(shape)
        at += shape.numel() + (pads[k] if pads else 0)
    expect(at <= flat.numel(), "a group is short")
    expect(not flat[at:].count_nonzero(), "padding is not zero")
    return out


def contiguous_state(step, m):
    """Stages 1 and 2, BF16_Optimizer: equal pieces of each group."""
    parts = [step.optims[m][r]["optimizer_state_dict"]
             for r in range(step.dp)]
    out = {}
    for g, group in enumerate(groups_of(step, m)):
        size = len(parts[0]["base_optimizer_state"]["state"][g]["exp_avg"])
        pads = parts[0].get("param_alignment_paddings")
        elements = sum(s.numel() for _, s in group) \
            + (sum(pads[g]) if pads else 0)
        unit = 2 * step.dp
        expect(size * step.dp == -(-elements // unit) * unit, "alignment")
        for kind in KINDS:
            flat = []
            for part in parts:
                x = part["single_partition_of_fp32_groups"][g] \
                    if kind == "fp32" \
                    else part["base_optimizer_state"]["state"][g][kind]
                x = x.detach()
                flat.append(torch.cat([x, x.new_zeros(size - len(x))]))
            values = split(torch.cat(flat), group, pads and pads[g])
            out.update({(n, kind): x for n, x in values.items()})
    return out


def groups_by_rule(step, m):
    """0.3.15 has the shapes of all groups in one, 0.5.9 a list of them."""
    shapes = step.optims[m][0]["param_shapes"]
    if isinstance(shapes, list):
        return [[(canonical(n), s) for n, s in g.items()] for g in shapes]
    groups = [[], []]
    for n, s in shapes.items():
        groups[bool(is_norm_or_bias(n))].append((canonical(n), s))
    return groups


def old_stage1_state(step, m):
    """0.3.15: rank r has pieces r, r + dp, ... of equal size, the last ones
    cut where the elements end."""
    parts = [step.optims[m][r]["optimizer_state_dict"]
             for r in range(step.dp)]
    out = {}
    for g, group in enumerate(groups_by_rule(step, m)):
        pieces = len(parts[0]["local_sub_partitions_of_fp32_groups"][g])
        for kind in KINDS:
            flat = [(part["local_sub_partitions_of_fp32_groups"][g][i].detach()
                     if kind == "fp32"
                     else part["base_optimizer_state"][g][i][kind])
                    for i in range(pieces) for part in parts]
            size = len(flat[0])
            full = sum(s.numel() for _, s in group) // size
            expect(all(len(x) == size for x in flat[:full])
                   and not any(len(x) for x in flat[full + 1:]),
                   "pieces in another order")
            values = split(torch.cat(flat), group)
            out.update({(n, kind): x for n, x in values.items()})
    return out


def old_stage2_state(step, m):
    """Also of stage 1 and 2 in elastic form."""
    parts = [step.optims[m][r]["optimizer_state_dict"]
             for r in range(step.dp)]
    out = {}
    for g, group in enumerate(groups_by_rule(step, m)):
        for kind in KINDS:
            flat = [part["single_partition_of_fp32_groups"][g].detach()
                    if kind == "fp32"
                    else part["base_optimizer_state"][g][kind]
                    for part in parts]
            values = split(torch.cat(flat), group)
            out.update({(n, kind): x for n, x in values.items()})
    return out


def stage3_state(step, m):
    """Equal pieces of each parameter, in sub-groups."""
    out = collections.defaultdict(list)
    for r in range(step.dp):
        part = step.optims[m][r]["optimizer_state_dict"]
        for g, group in enumerate(groups_of(step, m)):
            state = part["optimizer_state_dict"]["state"][g]
            at = 0
            for name, shape in group:
                n = -(-shape.numel() // step.dp)
                for kind in KINDS:
                    x = part["fp32_flat_groups"][g] if kind == "fp32" \
                        else state[kind]
                    out[name, kind].append(x.detach()[at:at + n])
                at += n
    shapes = dict(x for group in groups_of(step, m) for x in group)
    return {key: torch.cat(x)[:shapes[key[0]].numel()].view(shapes[key[0]])
            for key, x in out.items()}


def whole_state(step, m):
    opt = step.models[m][0]["optimizer"]
    out = {}
    for g, group in enumerate(groups_of(step, m)):
        state = opt["optimizer_state_dict"]["state"][g]
        for kind in KINDS:
            x = opt["fp32_groups_flat"][g] if kind == "fp32" else state[kind]
            out.update({(n, kind): t
                        for n, t in split(x.detach(), group).items()})
    return out


def state_of(step, m):
    if not step.optims:
        return whole_state(step, m)
    part = step.optims[m][0]["optimizer_state_dict"]
    if "local_sub_partitions_of_fp32_groups" in part:
        return old_stage1_state(step, m)
    if "param_shapes" in step.optims[m][0]:
        return old_stage2_state(step, m)
    if "fp32_flat_groups" in part:
        return stage3_state(step, m)
    return contiguous_state(step, m)


def shards_of(step, model):
    """{(name, kind): {t: [copy of each stage that has it]}}; also checks the
    16-bit weights, which are the masters' casts."""
    out = collections.defaultdict(lambda: collections.defaultdict(list))
    for m in sorted(step.models):
        state, weights = state_of(step, m), step.weights(m)
        for (name, kind), x in state.items():
            out[name, kind][m % step.tp].append(x)
            first = len(out[name, kind][m % step.tp]) == 1
            if kind == "fp32" and first and weights[name].numel():
                expect(torch.equal(weights[name], x.to(DTYPES[model.prec])),
                       f"{name}: the weight is not the master's cast")
    return out


def copies_that_differ(step, model):
    """Of what should be equal over t or the stages."""
    out = set()
    for (name, _), by_t in shards_of(step, model).items():
        copies = [x for c in by_t.values() for x in c]
        if rule(model, name)[0] not in ("same", "sum"):
            copies = []
        for have in list(by_t.values()) + [copies]:
            out |= {name for x in have[1:] if not torch.equal(x, have[0])}
    return sorted(out)


def rebuild(step, model):
    """{(name, kind): tensor over all ranks}"""
    out = {}
    for (name, kind), by_t in shards_of(step, model).items():
        for have in by_t.values():
            for x in have[1:]:
                expect(torch.equal(x, have[0]),
                       f"{name} {kind}: the stages' copies differ")
        expect(sorted(by_t) == list(range(step.tp)), f"{name}: ranks missing")
        shards = [by_t[t][0] for t in sorted(by_t)]
        out[name, kind] = merge(model, name, shards, shared=kind == "fp32")
    return out


def buffers(step, model, parameters):
    """{name: tensor over all ranks}"""
    shards = [step.weights(t) for t in range(step.tp)]
    if "buffer_names" in step.models[0][0]:
        names = {canonical(n) for x in step.models.values()
                 for n in x[0]["buffer_names"]}
    else:  # before 0.4.2
        names = shards[0].keys() - parameters
    return {n: merge(model, n, [x[n] for x in shards]) for n in names}


def check(path, case, seen):
    """Raises Wrong unless the files hold the state asked for; seen has shapes
    and buffers of other topologies."""
    step, model = Step(path), case.model
    drift = copies_that_differ(step, model)
    if model.real:
        strange = [n for n in drift if not re.search(model.drift, n)]
        expect(not strange, f"copies differ: {strange}")
        expect(bool(drift) == bool(model.drift), "nothing drifted")
        return f"drifted: {', '.join(drift)}"
    state = rebuild(step, model)
    for (name, kind), x in state.items():
        want = whole(model, name, kind, list(x.shape))
        expect(torch.equal(x, want), f"{name} {kind}: other values")
        if rule(model, name)[0] == "vocab":
            expect(len(x) == case.padded_vocab(), f"{name}: {len(x)} rows")
            x = x[:model.vocab]
        expect(x.shape == seen.setdefault((case.model_name, name), x.shape),
               f"{name}: not the shape of other topologies")
    names = {n for n, _ in state}
    for name, x in buffers(step, model, names).items():
        expect(torch.equal(x, seen.setdefault((case.model_name, name), x)),
               f"{name}: not the buffer of other topologies")
    expect(len(state) == len(names) * len(KINDS), "not all kinds")
    return f"{len(names)} parameters"


def assemble(model, reports):
    """The same from what the ranks report of their live state."""
    shards = collections.defaultdict(dict)
    for r in reports:
        for (name, kind), parts in r["state"].items():
            shape = r["shapes"][name]
            x = shards[name, kind].setdefault(
                r["t"], torch.zeros(shape.numel(), dtype=parts[0][1].dtype))
            for at, part in parts:
                x[at:at + part.numel()] = part
            r["shapes"][name] = shape
    out = {}
    for (name, kind), by_t in shards.items():
        shape = next(r["shapes"][name] for r in reports
                     if name in r["shapes"])
        x = merge(model, name, [by_t[t].view(shape) for t in sorted(by_t)],
                  shared=kind not in MOMENTS)
        if rule(model, name)[0] == "vocab":
            x = x[:model.vocab]
        out[name, kind] = x
    return out


def digest(model, reports):
    """A CRC of masters and moments that does not depend on the topology."""
    total = 0
    for key, x in sorted(assemble(model, reports).items()):
        if key[1] in KINDS:
            total = zlib.crc32(str(key).encode(), total)
            total = zlib.crc32(x.contiguous().numpy().tobytes(), total)
    return total
