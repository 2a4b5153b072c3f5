"""Saving a trained step into the mount, and what saving it again adds."""
import os
import shutil
import subprocess
import time

from . import part_resume
from .machine import Mount, median, tree_size, warm
from .store import Cost, command, fresh, init, stored, sync_disk

GB = 1e9


def copy(cfg, source, target):
    """As a trainer writes: whole files, sequentially, 1 MiB a write; then
    durable. Two processes, like two ranks."""
    files = sorted((os.path.join(d, f) for d, _, fs in os.walk(source)
                    for f in fs), key=os.path.getsize, reverse=True)
    for d, _, _ in os.walk(source):
        os.makedirs(os.path.join(target, os.path.relpath(d, source)),
                    exist_ok=True)
    lanes = [files[i::2] for i in range(2)]
    script = ('for f; do dd if="$S/$f" of="$T/$f" bs=1M status=none '
              '|| exit 1; done')
    procs = [subprocess.Popen(
        ["sh", "-c", script, "sh", *[os.path.relpath(f, source)
                                     for f in lane]],
        env=dict(os.environ, S=source, T=target)) for lane in lanes]
    if any(p.wait() for p in procs):
        raise SystemExit("the copy failed")
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def save(cfg, run):
    """One save into a fresh store: seconds, CPU seconds, share stored."""
    store = init(cfg)
    with Mount(cfg, store) as m:
        began, before = time.monotonic(), m.cpu()
        with Cost() as client:
            copy(cfg, run, f"{m.dir}/run")
        seconds = time.monotonic() - began
        cpu = m.cpu() - before + client.cpu
        peak = m.peak()
    return {"seconds": seconds, "cpu": cpu, "stored": stored(store),
            "peak": peak}


def eight_writers(cfg):
    """The daemon's peak memory while eight files of noise come at once."""
    store = init(cfg)
    with Mount(cfg, store) as m:
        procs = [subprocess.Popen(
            ["dd", "if=/dev/urandom", f"of={m.dir}/f{i}", "bs=1M",
             "count=256", "conv=fsync", "status=none"]) for i in range(8)]
        if any(p.wait() for p in procs):
            raise SystemExit("a writer failed")
        return m.peak()


def plain(cfg, run):
    target = fresh(f"{cfg.work}/plain")
    began = time.monotonic()
    with Cost() as cost:
        copy(cfg, run, target)
        sync_disk(target)
    seconds = time.monotonic() - began
    shutil.rmtree(target)
    return {"seconds": seconds, "cpu": cost.cpu}


def again(cfg, table, run):
    """New bytes in the packs: same state, other size, a copy of the step."""
    other = f"{cfg.work}/other"
    fresh(other)
    command(cfg.ckptfs, "export", f"{run}/@dp{cfg.dp}", other)
    store = init(cfg)
    size = tree_size(run)
    with Mount(cfg, store) as m:
        copy(cfg, run, f"{m.dir}/a")
        first = stored(store)
        copy(cfg, run, f"{m.dir}/b")
        second = stored(store)
        copy(cfg, other, f"{m.dir}/c")
        third = stored(store)
    with Mount(cfg, store) as m:
        began = time.monotonic()
        command("cp", "-r", f"{m.dir}/a", f"{m.dir}/d")
        seconds = time.monotonic() - began
        fourth = stored(store)
        command("cmp", *[f"{m.dir}/{x}/{largest(run)}" for x in "ad"])
    table.add("same state saved again: new bytes", size, second - first,
              digits=0, target="none (metadata only)")
    table.add(f"the state at dp{cfg.dp}: new bytes", size, third - second,
              digits=0, target="<= 0.05")
    table.add("cp -r of the step in the mount: seconds for 10 GB",
              "", seconds / size * 10 * GB, digits=2, target="< 1")
    table.add("  new bytes", size, fourth - third, digits=0)


def largest(run):
    files = [os.path.join(d, f) for d, _, fs in os.walk(run) for f in fs]
    return os.path.relpath(max(files, key=os.path.getsize), run)


def measure(cfg, table):
    run = part_resume.trained(cfg)
    size = tree_size(run)
    rows = {"plain": [], "store": []}
    warm(run)
    for _ in range(cfg.runs):
        rows["plain"].append(plain(cfg, run))
        rows["store"].append(save(cfg, run))

    def mid(key, field):
        return median([r[field] for r in rows[key]])
    share = mid("store", "stored") / size
    rate = size / GB / mid("store", "seconds")
    disk = size / GB / mid("plain", "seconds")
    cores = len(os.sched_getaffinity(0))
    bound = min(disk / share, cores * 0.6)
    table.add("save to durable: dd to ext4 + sync beside the mount",
              disk, rate, unit=" GB/s")
    table.add("  against min(disk / share stored, cores x 0.6 GB/s)",
              bound, rate, unit=" GB/s", target=">= 0.85")
    table.add("  CPU seconds per GB, all processes",
              mid("plain", "cpu") * GB / size, mid("store", "cpu") * GB / size,
              unit=" s", target="<= 1.8 s")
    table.add("  share stored", "", share)
    table.add("  daemon's peak memory", "", mid("store", "peak") / 1e6,
              unit=" MB", digits=0)
    table.add("  with 8 writers of 256 MiB (VmHWM)", "",
              eight_writers(cfg) / 1e6, unit=" MB", digits=0,
              target="< 805 MB")
    again(cfg, table, run)
