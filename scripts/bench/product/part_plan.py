"""Planning steps of 64 ranks: 10,000 tensors as @dp32, a pipeline as others."""
import os
import subprocess
import sys
import time

from .machine import BENCH, Mount, median, neox_step

OPTIM = "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"


def prepare(cfg, stage):
    run = f"{cfg.work}/synthetic{stage}"
    if not os.path.exists(f"{run}/latest"):
        print(f"writing the synthetic step of stage {stage}", flush=True)
        subprocess.run([cfg.python, "-W", "ignore", f"{BENCH}/synthetic.py",
                        run, "--stage", str(stage)], check=True,
                       stdout=sys.stderr,
                       env=dict(os.environ, DS_ACCELERATOR="cpu"))
    return run


def first_byte(path):
    """Seconds to open and to have one byte of the middle, where data is."""
    began = time.monotonic()
    fd = os.open(path, os.O_RDONLY)
    os.pread(fd, 1, 0)
    os.pread(fd, 1, os.fstat(fd).st_size // 2)
    seconds = time.monotonic() - began
    os.close(fd)
    return seconds


def one(cfg, run, stage):
    step = "@dp32/global_step1000"
    model = "zero_pp_rank_7_mp_rank_00_model_states.pt" if stage == 3 \
        else "mp_rank_00_model_states.pt"
    out = {}
    with Mount(cfg, run) as m:
        view = f"{m.dir}/{step}"
        before = m.cpu()
        out["first"] = first_byte(f"{view}/{OPTIM.format(7)}")
        out["first_cpu"] = m.cpu() - before
        before = m.cpu()
        out["next"] = first_byte(f"{view}/{OPTIM.format(20)}")
        out["next_cpu"] = m.cpu() - before
        out["model"] = first_byte(f"{view}/{model}")
        began = time.monotonic()
        subprocess.run(["ls", "-l", view], check=True,
                       stdout=subprocess.DEVNULL)
        out["list"] = time.monotonic() - began
        out["peak"] = m.peak() / 2**20
    with Mount(cfg, run) as m:
        out["fresh_model"] = first_byte(f"{m.dir}/{step}/{model}")
    with Mount(cfg, run) as m:
        began = time.monotonic()
        subprocess.run(["ls", "-l", f"{m.dir}/{step}"], check=True,
                       stdout=subprocess.DEVNULL)
        out["fresh_list"] = time.monotonic() - began
        out["list_peak"] = m.peak() / 2**20
    return out


def pipeline(cfg, run, view, name):
    out = {}
    with Mount(cfg, run) as m:
        step = f"{m.dir}/global_step1000/{view}"
        out["first"] = first_byte(f"{step}/{name}")
        began = time.monotonic()
        subprocess.run(["ls", "-l", step], check=True,
                       stdout=subprocess.DEVNULL)
        out["list"] = time.monotonic() - began
        out["peak"] = m.peak() / 2**20
    return out


def pipeline_rows(cfg, table):
    """Hubble 8B as 2 tensor-parallel ranks, 4 stages, 8 data-parallel."""
    run = neox_step(cfg, "hubble", "--model", "hubble", "--tp", 2, "--pp", 4,
                    "--dp", 8)
    cut = "-vocab50280-qkvparts"
    for view, r, m in (("@dp4", 3, 5), ("@pp2-dp16", 15, 3),
                       (f"@tp4-pp2-dp8{cut}", 7, 5),
                       (f"@tp1-pp0-dp32{cut}", 31, 0)):
        name = f"bf16_zero_pp_rank_{r}_mp_rank_{m:02d}_optim_states.pt"
        pipeline(cfg, run, view, name)
        runs = [pipeline(cfg, run, view, name) for _ in range(cfg.runs)]
        for what, key, unit, target, digits in (
                ("first byte of an optimizer file", "first", " s", "< 1 s", 3),
                ("  then ls -l of the step", "list", " s", "", 3),
                ("  daemon VmHWM after these", "peak", " MiB", "< 256 MiB",
                 0)):
            table.add(f"Hubble tp2-pp4-dp8 {view}: {what}", "-",
                      median([x[key] for x in runs]), unit=unit,
                      target=target, digits=digits)


def measure(cfg, table):
    pipeline_rows(cfg, table)
    for stage in (1, 3):
        run = prepare(cfg, stage)
        one(cfg, run, stage)  # pickles into the page cache
        runs = [one(cfg, run, stage) for _ in range(cfg.runs)]

        def add(what, key, unit, target, digits=3):
            table.add(f"stage {stage}: {what}", "-",
                      median([r[key] for r in runs]), unit=unit,
                      target=target, digits=digits)
        add("never seen, first byte of an optimizer file", "first", " s",
            "< 1 s")
        add("  daemon CPU", "first_cpu", " s", "")
        add("another optimizer file of the same mount", "next", " s",
            "< 0.05 s")
        add("  daemon CPU", "next_cpu", " s", "")
        add("model file of the same mount", "model", " s", "")
        add("never seen, first byte of a model file", "fresh_model", " s",
            "< 1 s")
        add("ls -l of the view step, files known", "list", " s", "")
        add("ls -l of the view step, never seen", "fresh_list", " s", "")
        add("daemon VmHWM after these", "peak", " MiB", "< 256 MiB", 0)
        add("daemon VmHWM after ls -l alone", "list_peak", " MiB",
            "< 256 MiB", 0)
