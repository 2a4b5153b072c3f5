"""Pairs of steps that GPT-NeoX wrote of one logical state: what to ask of one
to get the other, why that must be refused, and what of a file another step
cannot know.  The steps: tests/data/neox.json."""
import itertools
import json
import os
import re

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def manifest():
    with open(os.path.join(DATA, "neox.json")) as f:
        return json.load(f)


def all_pairs(names):
    return [(a, b) for a, b in itertools.permutations(sorted(names), 2)
            if names[a]["model"] == names[b]["model"]]


def stages(of):
    """Of its pipeline, 0: it has none.  GPT-NeoX 2.0 has a single stage in
    sequence."""
    return 0 if of["writer"] == "neox2" and of["pp"] == 1 else of["pp"]


def request(s, t):
    """What to ask of @s to get @t."""
    items = [f"tp{t['tp']}", f"pp{stages(t)}", f"dp{t['dp']}"]
    stage = 1 if t["class"] == "bf16opt" else int(t["class"][1:])
    if s["class"] != t["class"]:
        items.append(f"zero{stage}")
        if t["class"] == "bf16opt":
            items.append("bf16opt")
        elif t["class"] == "z1":
            items.append("zeroopt")
    if t["class"] in ("z1", "z2") and s["round_robin"] != t["round_robin"]:
        items.append("rr" if t["round_robin"] else "norr")
    if s["tp"] != t["tp"]:
        items.append(f"vocab{t['vocab']}")
        if t["family"] == "llama":
            items.append("qkvheads" if "oldgqa" in t["model"] else "qkvparts")
        else:
            items.append("biassum" if t["family"] == "pythia" else "biassame")
    return "-".join(items)


def options(s, t):
    """What only a named view can say."""
    if stages(t) and s["partition_method"] != t["partition_method"]:
        return ["--partition-method", t["partition_method"]]
    return []


def why_not(s, t):
    """A part of the reason why this view is refused, or None."""
    tp, pp = s["tp"] != t["tp"], s["pp"] != t["pp"]
    if t["class"] == "z0" and t["precision"] == "bf16" and t["pp"]:
        return "cannot load again"
    if "qknorm" in s["model"] and tp:
        return "query and key norms"
    if "rpe" in s["model"] and (tp or pp):
        return "relative positions"
    return None


# Differences that are right, each with when and why.
KNOWN = (
    (re.compile(r"rng_state|rng_tracker_states"),
     lambda s, t: (s["tp"], s["pp"]) != (t["tp"], t["pp"]),
     "every rank has generators of its own, and a step lacks those of ranks "
     "it did not have"),
    (re.compile(r"\.module\.__dict__: keys \['_metadata'\] expected"),
     lambda s, t: stages(s) and not stages(t),
     "torch's note of module versions is not in layer files"),
    (re.compile(r"fp32_flat_groups\[\d+\]\.__dict__\.ds_id: "),
     lambda s, t: t["class"] == "z3" and s["class"] != "z3",
     "the number a parameter got in the writing process; no loader reads it"),
    (re.compile(r"checkpoint_validation_logits: type Tensor expected, is "
                r"NoneType"),
     lambda s, t: s["tp"] != t["tp"],
     "what the model made of a text is rounded otherwise at another tensor "
     "size; a loader does not compare what is None"),
)


def known(s, t, line):
    return any(what.search(line) and when(s, t) for what, when, _ in KNOWN)


FACTORS = ("family", "precision", "class", "tp", "pp", "dp")


def covering(names, pairs):
    """Pairs until each pair of parts' values that any has was met."""
    def parts(pair):
        s, t = names[pair[0]], names[pair[1]]
        values = [(f"s{k}", s[k]) for k in FACTORS] \
            + [(f"t{k}", t[k]) for k in FACTORS] + [("model", s["model"])]
        return frozenset(itertools.combinations(values, 2))
    have = {pair: parts(pair) for pair in pairs}
    left = set().union(*have.values())
    out = []
    while left:
        best = max(pairs, key=lambda p: len(have[p] & left))
        out.append(best)
        left -= have[best]
    return out
