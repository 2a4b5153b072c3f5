#!/usr/bin/env python3
"""Make the golden directories of old DeepSpeed releases (deepspeed-VERSION/).

Each release is installed beside the current one (no dependencies, no compiled
parts), runs on CPU, and writes the oracle's logical state at two topologies:

  make_golden.py [--work DIR] [VERSION ...]

Needs the Python environment of tests/e2e/requirements.txt and PyPI.
"""
import argparse
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]

PYDANTIC1 = "pydantic==1.10.26"  # 0.8 to 0.10 do not work with version 2
# version: model, its topologies
CASES = {
    # stages 1 and 2 were always elastic then, whatever the option said
    "0.5.9": (("fp16-g2-tied-fused_", "z1-dp3-elastic z1-dp2-elastic"),
              ("fp16-g2-fused_", "z2-dp3-rr-elastic z2-dp2-elastic"),
              ("fp32-g2_", "z3-dp2-sub12 z3-dp3")),
    "0.7.7": (("fp16-g2-tied_", "z1-dp3 z1-dp2"),
              ("bf16-g2_", "z0-dp3 z0-dp2"),
              ("fp16-g2-fused_", "z3-dp2-sub12 z3-dp3")),
    "0.9.5": (("fp16-g2-frozen-tied_", "z1-dp3 z2-dp2-rr"),
              ("bf16-g3_", "z0-dp3 z0-dp2"),  # 1 and fp32 sums: cannot save
              ("bf16-g2-frozen_", "z3-dp2-sub12 z3-dp3")),
    "0.12.6": (("bf16-g3-tied_", "z1-dp3 z1-dp8"),
               ("bf16-g2_", "bf16opt-dp3 z2-dp2"),
               ("fp16-g2-frozen_", "z3-dp2-sub12 z1-dp3")),
    "0.14.4": (("bf16-g3-fused_", "z1-dp3 z1-dp8"),
               ("fp16-g2-frozen-tied_", "z2-dp3-rr z3-dp2"),
               ("bf16-g2_", "z0-dp2 z0-dp3")),
    "0.16.5": (("bf16-g3-fused_", "z1-dp3 z1-dp8"),
               ("bf16-g2-frozen-tied_", "bf16opt-dp3 z3-dp2-sub12")),
}


def names(version):
    return [model + topo for model, topos in CASES[version]
            for topo in topos.split()]


def worker(version, out):
    """In the process that has this release on its path."""
    import old_deepspeed
    old_deepspeed.dropped_names()
    if minor(version) < 14:
        old_deepspeed.type_names("cpu" if minor(version) >= 8 else "cuda")
    if minor(version) < 8:
        old_deepspeed.cuda_on_cpu()
    elif minor(version) < 12:
        old_deepspeed.accelerator_on_cpu()
    from oracle import framework, state, truth
    from oracle.config import parse
    assert framework.deepspeed.__version__ == version, \
        framework.deepspeed.__file__
    # today's collectives check for gradients where those of the time did not
    engine = framework.deepspeed.runtime.engine.DeepSpeedEngine
    engine.step = framework.torch.no_grad()(engine.step)
    state.client_state = lambda: {"iteration": state.STEP}  # small files
    failed = 0
    for name in names(version):
        try:
            run_dir = truth.make(parse(name), out)
            for script in ("zero_to_fp32.py", "zero_to_torch.py"):
                if os.path.exists(os.path.join(run_dir, script)):
                    os.unlink(os.path.join(run_dir, script))
            print(version, name, "written")
        except framework.RankError as err:
            print(version, name, "FAILED", err)
            failed += 1
    return failed


def install(requirement, target):
    if os.path.isdir(target):
        return
    env = dict(os.environ, DS_BUILD_OPS="0")
    if "deepspeed" in requirement:
        pydantic = os.path.join(os.path.dirname(target), "pydantic1")
        if uses_pydantic1(requirement.split("==")[1]):
            env["PYTHONPATH"] = pydantic
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps",
                    "--no-build-isolation", "--target", target, requirement],
                   env=env, check=True)


def minor(version):
    return int(version.split(".")[1])


def uses_pydantic1(version):
    return minor(version) <= 10


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("versions", nargs="*", default=list(CASES))
    ap.add_argument("--work", default="/tmp/ckptfs-golden")
    ap.add_argument("--worker", metavar="OUT", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.worker:
        return worker(args.versions[0], args.worker)
    os.makedirs(args.work, exist_ok=True)
    install(PYDANTIC1, os.path.join(args.work, "pydantic1"))
    failed = 0
    for version in args.versions:
        target = os.path.join(args.work, f"ds-{version}")
        install(f"deepspeed=={version}", target)
        path = [target]
        if uses_pydantic1(version):
            path.append(os.path.join(args.work, "pydantic1"))
        out = os.path.join(HERE, f"deepspeed-{version}")
        shutil.rmtree(out, ignore_errors=True)
        os.mkdir(out)
        env = dict(os.environ, PYTHONPATH=":".join(path),
                   PYTHONWARNINGS="ignore")
        failed += subprocess.run([sys.executable, __file__, "--worker", out,
                                  version], env=env).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
