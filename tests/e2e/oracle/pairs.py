"""Pairs of (source, target) that cover every pair of values of FACTORS.

A deterministic greedy search: for a pair of values that is not covered yet,
take the best of many random valid completions.
"""
import itertools
import random

from .config import CLASSES, Config

DPS = (1, 2, 3, 4, 5, 8)
SUBS = (0, 12, 40)
FACTORS = {
    "s_cls": CLASSES, "s_dp": DPS, "s_rr": (False, True), "s_sub": SUBS,
    "t_cls": CLASSES, "t_dp": DPS, "t_rr": (False, True), "t_sub": SUBS,
    "prec": ("fp32", "fp16", "bf16"), "frozen": (False, True),
    "tied": (False, True), "groups": (1, 2, 3), "adam": ("torch", "fused"),
}
TRIES = 60
MODEL = ("prec", "frozen", "tied", "groups", "adam")
# Beside the covering list: what has no target of its own kind.
EXTRA_SOURCES = (
    ("bf16-g2-frozen-tied_z1-dp4-legacy", "z1-dp3"),
    ("bf16-g2-frozen-tied_z3-dp2-legacy", "z3-dp3-sub12"),
    ("fp16-g2_z0-dp2-legacy", "z0-dp3"),
    ("fp16-g3-fused_z1-dp4-elastic", "z1-dp2-elastic"),
    ("bf16-g2-fused_z2-dp3-elastic", "z2-dp2-elastic"),
    ("bf16-g2-fused_z1-dp4-elastic", "z3-dp2"),
    ("bf16-g2_z1-dp4-elastic", "z1-dp2"),
    ("bf16-g2_z1-dp4-align", "z1-dp3-align"),
    ("fp16-g2-tied_z2-dp2-align", "z2-dp5-align"),
    ("bf16-g2-nobuf-nosched_z1-dp2", "z3-dp4"),
    ("fp32-g2-frozen_z0-dp3", "z0-dp5"),
    ("fp32-g1_z0-dp3", "z0-dp5"),
    ("fp32-g1-named_z0-dp3", "z1-dp2"),
    ("fp32-g1-named_z0-dp3", "z0-dp5"),
)


def split(row):
    """The two configurations of one row."""
    model = {k: row[k] for k in MODEL}
    return [Config(cls=row[f"{side}_cls"], dp=row[f"{side}_dp"],
                   rr=row[f"{side}_rr"], sub=row[f"{side}_sub"], **model)
            for side in "st"]


def valid(row):
    s, t = split(row)
    return not s.why_invalid() and not t.why_invalid() \
        and s.topology_name() != t.topology_name()


def complete(rng, fixed):
    """A random valid row that has the fixed values, or None."""
    for _ in range(40):
        row = {k: fixed.get(k, rng.choice(v)) for k, v in FACTORS.items()}
        for side in "st":
            free = {"rr": False, "sub": 0}
            cls = row[f"{side}_cls"]
            for key, off in free.items():
                name = f"{side}_{key}"
                if name not in fixed and cls != {"rr": "z2",
                                                 "sub": "z3"}[key]:
                    row[name] = off
        if valid(row):
            return row
    return None


def pairs_of(row):
    return {((a, row[a]), (b, row[b]))
            for a, b in itertools.combinations(FACTORS, 2)}


def covering():
    """Rows, and the number of value pairs that no valid row can have."""
    rng = random.Random(20)
    todo = [((a, x), (b, y)) for a, b in itertools.combinations(FACTORS, 2)
            for x in FACTORS[a] for y in FACTORS[b]]
    rng.shuffle(todo)
    open_pairs = dict.fromkeys(todo)
    rows, impossible = [], 0
    for pair in todo:
        if pair not in open_pairs:
            continue
        tries = [r for r in (complete(rng, dict(pair)) for _ in range(TRIES))
                 if r]
        if not tries:
            impossible += 1
            del open_pairs[pair]
            continue
        best = max(tries, key=lambda r: len(pairs_of(r) & open_pairs.keys()))
        rows.append(best)
        for done in pairs_of(best):
            open_pairs.pop(done, None)
    return rows, impossible


def view_name(s, t):
    """The name of the view of s that is t: dp, and what else differs."""
    items = [f"dp{t.dp}"]
    if t.stage() != s.stage():
        items.append(f"zero{t.stage()}")
    if t.cls == "bf16opt" and s.cls != "bf16opt":
        items.append("bf16opt")
    if s.cls == "bf16opt" and t.cls == "z1":
        items.append("zeroopt")
    if t.rr and not s.rr:
        items.append("rr")
    if s.rr and t.cls in ("z1", "z2") and not t.rr:
        items.append("norr")
    if t.cls == "z3" and t.sub != s.sub:
        items.append(f"sub{t.sub or 10 ** 9}")
    return "@" + "-".join(items)


def all_pairs():
    """[(source, target)]: the covering list, then the extra ones."""
    from .config import parse
    rows, _ = covering()
    out = [tuple(split(r)) for r in rows]
    for source, target in EXTRA_SOURCES:
        out.append((parse(source), parse(source.split("_")[0] + "_" + target)))
    return out


def random_pairs(count, seed):
    rng = random.Random(seed)
    rows = (complete(rng, {}) for _ in range(10 * count))
    return [tuple(split(r)) for r in rows if r][:count]


def why_refused(s, t):
    """Why no view of s can be t, or None: refusing is then the right answer."""
    if s.elastic and not t.elastic:
        return "an elastic checkpoint has no param_groups"
    if s.cls == "z0" and s.prec == "fp32" and not s.named:
        # The model has parameters of equal shape, fp32 runs have no masters
        # to compare with, and nothing has names unless the optimizer got them.
        return "stage 0 does not say whose state it is" \
            + (" (a limit: nobody needs to know)" if t.cls == "z0" else "")
    return None


def table_head(total, how, counts):
    return f"""# Views compared with what DeepSpeed wrote

Generated by `tests/e2e/run_pairs.py --all --table`; views read through {how}.
Each row: the framework writes one logical state at the source's and at the
target's topology; the view of the source must equal the target (unpickled
trees, types, dtypes, strides, bits; `oracle/compare.py` lists what is left
out and why).  {total} rows cover every possible pair of values of class, dp,
round robin, sub-groups (each for source and target), precision, frozen, tied,
groups and optimizer, plus other serializations.  x: in CI.

z0 to z3: ZeRO stage; bf16opt: BF16_Optimizer; gN: parameter groups; fused:
DeepSpeed's FusedAdam (else torch AdamW); named: the optimizer got named
parameters; rr: round_robin_gradients; subN: sub_group_size; align:
parameter_alignment.

Last run: {counts.count('ok')} equal, {counts.count('refused')} refused as they
must be, {counts.count('FAILED')} failed.

| # | CI | model | source | view | target | result |
|---|---|---|---|---|---|---|
"""
