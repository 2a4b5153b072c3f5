#!/usr/bin/env python3
"""DeepSpeed's own offline tools over views: zero_to_fp32, ds_to_universal.

They read more of a step than a loader does (file counts, param_shapes,
mappings, ds_config); what they make of a view must be the logical state.
"""
import contextlib
import io
import os
import shutil
import sys
import tempfile
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from oracle import config, framework, model, pairs, product, truth  # noqa: E402
from oracle.config import TAG  # noqa: E402
from oracle.state import MOMENTS  # noqa: E402

import torch  # noqa: E402
from deepspeed.checkpoint import ds_to_universal  # noqa: E402
from deepspeed.utils import zero_to_fp32  # noqa: E402

CASES = (
    ("bf16-g2-frozen-tied_z1-dp4", "z1-dp2"),
    ("fp16-g3-frozen_z3-dp3-sub12", "z2-dp4"),
    ("bf16-g2-tied_z2-dp3-rr", "z3-dp2-sub12"),
    ("bf16-g2-frozen_bf16opt-dp3", "z1-dp5"),
    ("fp32-g2-frozen-tied_z1-dp2", "z3-dp4"),
)


def trainable(cfg):
    return {n: p.shape for n, p in model.Net(cfg).named_parameters()
            if p.requires_grad}


def fp32(cfg, run):
    got = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(run, TAG)
    return [name for name, shape in trainable(cfg).items()
            if not torch.equal(got[name], model.value(name, "fp32", shape))]


def universal(cfg, run, out):
    args = types.SimpleNamespace(
        input_folder=os.path.join(run, TAG), output_folder=out,
        num_extract_workers=1, num_merge_workers=1, keep_temp_folder=False,
        strict=True, inject_missing_state=True)
    ds_to_universal.main(args)
    wrong = []
    for name, shape in trainable(cfg).items():
        for kind in ("fp32",) + MOMENTS:
            got = torch.load(os.path.join(out, "zero", name, f"{kind}.pt"),
                             weights_only=False)
            got = got["param"] if isinstance(got, dict) else got
            want = model.value(name, kind, shape)
            if not torch.equal(got.reshape(shape), want):
                wrong.append(f"{name} {kind}")
    return wrong


def check(source, target, work):
    """{tool: names that are wrong, or the error}"""
    truth.make(source, work)
    view = os.path.join(work, "view")
    product.export(os.path.join(work, source.name(),
                                pairs.view_name(source, target)), view)
    out = {}
    tools = {"zero_to_fp32": lambda: fp32(target, view),
             "ds_to_universal": lambda: universal(
                 target, view, os.path.join(work, "universal"))}
    for name, tool in tools.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()), \
                    contextlib.redirect_stderr(io.StringIO()):
                out[name] = tool()
        except Exception as err:
            out[name] = [f"{type(err).__name__}: {err}"]
    shutil.rmtree(view)
    shutil.rmtree(os.path.join(work, "universal"), ignore_errors=True)
    return out


def main():
    passed = failed = 0
    work = tempfile.mkdtemp(prefix="ckptfs-tools-")
    try:
        for s, t in CASES:
            source = config.parse(s)
            target = config.parse(f"{s.split('_')[0]}_{t}")
            try:
                results = check(source, target, work)
            except (product.Refused, framework.RankError) as err:
                results = {"the view": [str(err)]}
            for tool, wrong in results.items():
                print("FAILED " if wrong else "ok     ", tool, s,
                      pairs.view_name(source, target), *wrong[:4])
                passed += not wrong
                failed += bool(wrong)
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
