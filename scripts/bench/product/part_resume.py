"""Resume at another dp: ds_to_universal and its load, against a view."""
import os
import shutil
import subprocess
import time

from .machine import MemoryWatch, Mount, job, median, tag_of, tree_size, warm

GB = 1e9


def trained(cfg):
    """The run with the trained step."""
    run = f"{cfg.work}/runs/dp{cfg.source_dp}"
    if not os.path.exists(f"{run}/latest"):
        print("training", flush=True)
        job(cfg, "train", "--ranks", cfg.source_dp, "--out", run)
    return run


def prepare(cfg):
    """The trained step, and the same state at the target as DeepSpeed saves
    it after loading the universal checkpoint."""
    run = trained(cfg)
    native = f"{cfg.work}/runs/dp{cfg.dp}"
    if not os.path.exists(f"{native}/latest"):
        print("saving the same state natively at the target", flush=True)
        convert(cfg, run)
        job(cfg, "load", "--ranks", cfg.dp, "--from", f"{cfg.work}/universal",
            "--universal", "--save", native)
    return run, native


def convert(cfg, run):
    """DeepSpeed's converter: seconds, bytes kept, bytes written, memory."""
    out = f"{cfg.work}/universal"
    shutil.rmtree(out, ignore_errors=True)
    tag = tag_of(run)
    env = dict(os.environ, DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    began = time.monotonic()
    with open(f"{cfg.work}/ds_to_universal.log", "w") as log:
        proc = subprocess.Popen(
            [cfg.python, "-W", "ignore", "-m",
             "deepspeed.checkpoint.ds_to_universal", "--input_folder",
             f"{run}/{tag}", "--output_folder", f"{out}/{tag}_universal",
             "--inject_missing_state"], env=env, stdout=log, stderr=log)
        with MemoryWatch(proc.pid) as memory:
            _, status, usage = os.wait4(proc.pid, 0)
            ended = time.monotonic()
        proc.returncode = status
    if status:
        raise SystemExit("ds_to_universal failed: see ds_to_universal.log")
    return {"seconds": ended - began, "kept": tree_size(out),
            "written": usage.ru_oublock * 512, "peak": memory.peak}


def one_rival(cfg, run, digest):
    c = convert(cfg, run)
    load = job(cfg, "load", "--ranks", cfg.dp, "--from",
               f"{cfg.work}/universal", "--universal", *digest)
    return {"first": c["seconds"], "convert": c["seconds"],
            "load": load["seconds"], "total": c["seconds"] + load["seconds"],
            "kept": c["kept"], "written": c["written"], "peak": c["peak"],
            "load_peak": load["peak"], "digest": load["digest"]}


def one_ours(cfg, run, digest):
    with Mount(cfg, run) as m:
        view = f"{m.dir}/@dp{cfg.dp}"
        name = f"{view}/{tag_of(run)}/" \
            f"bf16_zero_pp_rank_{cfg.dp - 1}_mp_rank_00_optim_states.pt"
        fd = os.open(name, os.O_RDONLY)
        os.pread(fd, 1, os.fstat(fd).st_size // 2)
        first = time.monotonic() - m.began
        os.close(fd)
    with Mount(cfg, run) as m:
        load = job(cfg, "load", "--ranks", cfg.dp, "--from",
                   f"{m.dir}/@dp{cfg.dp}", *digest, watch=[m.pid])
        return {"first": first, "load": load["seconds"],
                "total": m.seconds + load["seconds"],
                "kept": tree_size(m.cache), "written": m.written(),
                "peak": m.peak(), "load_peak": load["peak"],
                "digest": load["digest"]}


def resume_rows(cfg, table, run):
    rival, ours = [], []
    for i in range(cfg.runs):
        warm(run)
        digest = [] if i else ["--digest"]
        rival.append(one_rival(cfg, run, digest))
        warm(run)
        ours.append(one_ours(cfg, run, digest))

    def both(key, scale=1.0):
        return (median([r[key] for r in rival]) / scale,
                median([o[key] for o in ours]) / scale)
    same = rival[0]["digest"] == ours[0]["digest"]
    table.add("first byte of a rank's file", *both("first"), unit=" s",
              digits=3)
    table.add(f"converted or mounted, and loaded by {cfg.dp} ranks",
              *both("total"), unit=" s")
    table.add("load_checkpoint() alone", *both("load"), unit=" s")
    table.add("bytes kept on disk", *both("kept", GB), unit=" GB",
              target="0", digits=6)
    table.add("bytes written on the way", *both("written", GB), unit=" GB",
              digits=6)
    table.add("peak memory, converter / daemon (VmHWM)", *both("peak", 1e6),
              unit=" MB", digits=0)
    table.add("peak memory while loading, all ranks and daemon",
              *both("load_peak", 1e6), unit=" MB", digits=0)
    table.add("masters, moments and weights after loading",
              f"crc {rival[0]['digest']:08x}", "the same" if same
              else f"crc {ours[0]['digest']:08x}: DIFFERENT", target="same")
    if not same:
        raise SystemExit("the view and the universal checkpoint differ")


def torch_load_rows(cfg, table, run, native):
    """Every file through torch.load, one process, one after the other."""
    def files(directory):
        step = f"{directory}/{tag_of(directory)}"
        return [f"{step}/{n}" for n in sorted(os.listdir(step))
                if n.endswith(".pt")]

    times = {"source": [], "native": [], "passed": [], "view": []}
    runs = f"{cfg.work}/runs"
    for _ in range(cfg.runs):
        warm(run, native)
        times["source"].append(
            job(cfg, "torch-load", *files(run))["seconds"])
        times["native"].append(
            job(cfg, "torch-load", *files(native))["seconds"])
        for key, path in (("passed", f"/{os.path.basename(native)}"),
                          ("view", f"/{os.path.basename(run)}/@dp{cfg.dp}")):
            with Mount(cfg, runs) as m:
                times[key].append(
                    job(cfg, "torch-load", *files(m.dir + path))["seconds"])
    t = {k: median(v) for k, v in times.items()}
    table.add(f"torch.load of all files: native dp{cfg.source_dp} on disk",
              t["source"], t["view"], unit=" s")
    table.add(f"torch.load of all files: native dp{cfg.dp} on disk",
              t["native"], t["view"], unit=" s")
    table.add(f"torch.load of all files: native dp{cfg.dp} in the mount",
              t["passed"], t["view"], unit=" s")


def measure(cfg, table):
    run, native = prepare(cfg)
    if "resume" in cfg.parts:
        resume_rows(cfg, table, run)
    if "torch-load" in cfg.parts:
        torch_load_rows(cfg, table, run, native)
