#!/usr/bin/env python3
"""Known models with their real names and shapes, through a mount.

Payloads are holes with numbers at the borders of what ranks hold (see
named_step.py): steps of 100 GB that take some MB.  Every file of a view must
be what the same model's step at that topology has, in all that is no tensor
and in the elements at and around the numbers.

    test_named_cases.py          Hubble 8B, Pythia 6.9B
    test_named_cases.py --all    and BLOOM 176B, 2.5 TB in 720 files
    test_named_cases.py CASE ...
"""
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import named_models  # noqa: E402
import named_step  # noqa: E402
from named_models import Topology  # noqa: E402
from named_step import Template, Writer  # noqa: E402
from run_mds import Unpickled  # noqa: E402

DATA = f"{HERE}/../data"
STEP = "global_step1000"
# small steps that the framework wrote: archive, directory
TEMPLATES = {"hubble": ("neox", "llama-bf16_tp1-pp0-dp2"),
             "pythia": ("neox", "pythia-fp16_tp2-pp1-dp1"),
             "bloom": ("mds", "bloom_tp2-pp2-dp2")}
# source, then (view, topology)
CASES = {
    "hubble": (Topology(1, 0, 64), [
        ("@dp32", Topology(1, 0, 32)),
        ("@dp8", Topology(1, 0, 8)),
        ("@tp2-pp4-dp2-vocab50280-qkvparts", Topology(2, 4, 2))]),
    "pythia": (Topology(2, 1, 4), [
        ("@tp1-dp2-vocab50277", Topology(1, 1, 2)),
        ("@tp1-pp0-dp3-vocab50277", Topology(1, 0, 3)),
        ("@tp4-pp1-dp1-vocab50277", Topology(4, 1, 1)),
        ("@pp2-dp2", Topology(2, 2, 2))]),
    "bloom": (Topology(4, 12, 8), [
        ("@dp4", Topology(4, 12, 4)),
        ("@tp8-pp4-dp2", Topology(8, 4, 2))]),
}


def name_classes():
    """The stand-ins for Megatron's own are saved under their names."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "megatron":
            for member in vars(module).values():
                if isinstance(member, type):
                    member.__module__ = name


def product(*args, status=0):
    p = subprocess.run([os.environ["CKPTFS"], *args], capture_output=True,
                       text=True, stdin=subprocess.DEVNULL)
    assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
    return p.stdout


class Place:
    def __init__(self, case):
        self.case = case

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-named-")
        try:
            self.make()
        except BaseException:
            shutil.rmtree(self.top)
            raise
        return self

    def make(self):
        self.run, self.mnt = f"{self.top}/run", f"{self.top}/mnt"
        os.mkdir(self.mnt)
        os.environ["CKPTFS_CACHE_DIR"] = f"{self.top}/cache"
        archive, name = TEMPLATES[self.case]
        with tarfile.open(f"{DATA}/{archive}.tar.xz") as tar:
            tar.extractall(self.top, [m for m in tar if
                                      m.name.split("/")[0] == name],
                           filter="data")
        self.template = Template(f"{self.top}/{name}/global_step2")
        name_classes()
        source, views = CASES[self.case]
        self.model = getattr(named_models, self.case)(
            [source] + [t for _, t in views])
        Writer(self.model, self.template, source).write(f"{self.run}/{STEP}")
        product("mount", self.run, self.mnt)

    def __exit__(self, *_):
        for _ in range(50):
            if not subprocess.run([os.environ["CKPTFS"], "umount", self.mnt],
                                  capture_output=True).returncode:
                break
            time.sleep(0.1)
        shutil.rmtree(self.top)


def view(place, source, name, top):
    """What is wrong with the view."""
    where, bad = f"{place.mnt}/{STEP}/{name}", []
    files = {"latest"} if name else set()
    if place.template.config:
        files.add("configs")
    for file, tree in Writer(place.model, place.template, top,
                             saved=source).files():
        files.add(file)
        if os.path.exists(f"{where}/{file}"):
            bad += [f"{file}{x}" for x in
                    named_step.same(f"{where}/{file}", tree)]
        else:
            bad.append(f"{file} is missing")
    return bad + [f"{f} is too much" for f in
                  sorted(set(os.listdir(where)) - files)]


def keeps_batch(place, source, name, top):
    """check --against: the accumulation that keeps the global batch."""
    step = f"{place.run}/{STEP}/{name}"
    keeps = 4 * 4 * source.dp // 4 // top.dp
    config = f"{place.top}/new.json"
    bad = []
    for steps, status in ((keeps, 0), (2 * keeps, 1)):
        with open(config, "w") as f:
            json.dump({"train_micro_batch_size_per_gpu": 4,
                       "gradient_accumulation_steps": steps,
                       "zero_optimization": {"stage": 1},
                       "bf16": {"enabled": True}}, f)
        text = product("check", step, "--against", config, status=status)
        if (f"{keeps} keeps it" in text) != (status == 1):
            bad.append(f"accumulation {steps}: {text}")
    if 4 * keeps * top.dp != 1024:
        bad.append(f"the global batch is {4 * keeps * top.dp}")
    return bad


def run_case(case):
    bad = []
    source, views = CASES[case]
    began = time.monotonic()
    with Place(case) as place:
        for name, top in [("", source)] + views:
            named_step.same.elements = 0
            wrong = view(place, source, name, top)
            if case == "hubble":
                wrong += keeps_batch(place, source, name, top)
            print(f"{case} {name or 'itself'}: {named_step.same.elements} "
                  f"elements, {len(wrong)} differences")
            bad += wrong
        size = subprocess.run(["du", "-sk", place.run], capture_output=True,
                              text=True).stdout.split()[0]
    print(f"{case}: {int(size) >> 10} MiB of disk, "
          f"{time.monotonic() - began:.1f} s")
    for line in bad[:20]:
        print("   ", line)
    return bool(bad)


def main():
    if not os.path.exists("/dev/fuse"):
        print("no /dev/fuse")
        return 77
    sys.meta_path.insert(0, Unpickled())
    cases = sys.argv[1:] or ["hubble", "pythia"]
    return max(run_case(c) for c in (CASES if cases == ["--all"] else cases))


if __name__ == "__main__":
    sys.exit(main())
