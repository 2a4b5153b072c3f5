#!/usr/bin/env python3
"""Ranks of a tensor-parallel view that read at the same time, over a directory
and over a store: their bytes, and what the daemon read for them.

A byte of a directory is read once by each rank that has it, and each has it
once.  What a store holds is decoded once for all ranks together, although each
has a piece of every row of a row-parallel weight.
"""
import concurrent.futures
import filecmp
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import torch  # noqa: E402

import named_models  # noqa: E402
from named_models import Topology  # noqa: E402
from named_step import Template, Writer  # noqa: E402

CKPTFS = os.environ["CKPTFS"]
STEP, TP = "global_step1000", 4
VIEW = f"@tp{TP}-dp1-vocab2048"
TEMPLATE = "pythia-fp16_tp2-pp1-dp1"
SMALL = {"layers": 2, "hidden": 768, "heads": 8, "kv": 8, "ff": 3072,
         "vocabulary": 2048}


def product(*args):
    p = subprocess.run([CKPTFS, *args], capture_output=True, text=True,
                       stdin=subprocess.DEVNULL)
    assert p.returncode == 0, (args, p.returncode, p.stderr)


class Mount:
    def __init__(self, source, where):
        self.where = where
        os.makedirs(where, exist_ok=True)
        product("mount", source, where)
        self.pid = int(os.getxattr(where, "user.ckptfs.pid"))

    def __enter__(self):
        return self

    def read(self):
        """Bytes that the daemon has asked for with read calls."""
        with open(f"/proc/{self.pid}/io") as f:
            return int(f.readline().split()[1])

    def __exit__(self, *_):
        for _ in range(50):
            if not subprocess.run([CKPTFS, "umount", self.where],
                                  capture_output=True).returncode:
                break
            time.sleep(0.1)


def numbers(size):
    return torch.randn(-(-size // 4)).mul_(0.02).view(
        torch.uint8).numpy().tobytes()[:size]


def make(top):
    with tarfile.open(f"{HERE}/../data/neox.tar.xz") as tar:
        tar.extractall(top, [m for m in tar
                             if m.name.split("/")[0] == TEMPLATE],
                       filter="data")
    source = Topology(1, 1, 2)
    model = named_models.pythia([source], **SMALL)
    model.marks = {p: {} for p in model.marks}
    torch.manual_seed(1)
    Writer(model, Template(f"{top}/{TEMPLATE}/global_step2"), source,
           fill=numbers).write(f"{top}/run/{STEP}")


def copy_all(step, out):
    """Every rank its own files, all ranks at once: bytes of them."""
    os.mkdir(out)
    names = [f"zero_pp_rank_0_mp_rank_{t:02d}_optim_states.pt"
             for t in range(TP)]
    for name in names:
        os.stat(f"{step}/{name}")  # planned

    def one(name):
        with open(f"{step}/{name}", "rb", buffering=0) as f, \
                open(f"{out}/{name}", "wb") as to:
            while piece := f.read(1 << 20):
                to.write(piece)
    with concurrent.futures.ThreadPoolExecutor(TP) as pool:
        list(pool.map(one, names))
    return sum(os.path.getsize(f"{out}/{n}") for n in names)


def check(top, source, step, most):
    with Mount(source, f"{top}/mnt") as m:
        where = f"{m.where}/{step}/{VIEW}"
        os.listdir(where)
        before = m.read()
        total = copy_all(where, f"{top}/got")
        read = m.read() - before
    wrong = filecmp.cmpfiles(f"{top}/got", f"{top}/want",
                             os.listdir(f"{top}/got"), shallow=False)
    assert not wrong[1] and not wrong[2], wrong
    assert read < most(total), f"{read} bytes read for {total}"
    print(f"{step}: {total} bytes shown, {read} read")
    shutil.rmtree(f"{top}/got")


def main():
    if not os.path.exists("/dev/fuse"):
        print("no /dev/fuse")
        return 77
    top = tempfile.mkdtemp(prefix="ckptfs-slices-")
    os.environ["CKPTFS_CACHE_DIR"] = f"{top}/cache"
    try:
        make(top)
        product("export", f"{top}/run/{STEP}/{VIEW}", f"{top}/want")
        check(top, f"{top}/run", STEP, lambda total: 1.05 * total)
        product("init", f"{top}/store")
        product("import", f"{top}/store/a", f"{top}/run")
        packs = sum(os.path.getsize(os.path.join(d, f))
                    for d, _, fs in os.walk(f"{top}/store/packs")
                    for f in fs)
        check(top, f"{top}/store", f"a/run/{STEP}", lambda _: 1.1 * packs)
    finally:
        shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
