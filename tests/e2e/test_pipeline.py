#!/usr/bin/env python3
"""Views of a real DeepSpeed pipeline at another data-parallel size, against
what the framework wrote there (tests/data/make_pipeline.py)."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data", "pipeline")
TAG = "global_step2"


def main():
    ckptfs = os.environ["CKPTFS"]
    bad = 0
    for source, target in (("pp2-dp1", "pp2-dp2"), ("pp2-dp2", "pp2-dp1")):
        with tempfile.TemporaryDirectory() as tmp:
            view = f"{DATA}/{source}/@{target.split('-')[1]}"
            out = os.path.join(tmp, "out")
            subprocess.run([ckptfs, "export", "--quiet", view, out],
                           check=True)
            r = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "oracle.compare",
                 f"{DATA}/{target}/{TAG}", f"{out}/{TAG}"], cwd=HERE,
                stdout=subprocess.PIPE, text=True)
            print(f"{source} as {target}: {r.stdout.strip()}")
            bad |= r.returncode
        check = subprocess.run([ckptfs, "check", f"{DATA}/{source}/{TAG}"],
                               stdout=subprocess.PIPE, text=True)
        bad |= check.returncode
        if check.returncode:
            print(check.stdout)
    return bad


if __name__ == "__main__":
    sys.exit(main())
