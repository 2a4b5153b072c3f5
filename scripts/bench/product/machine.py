"""Mounts, processes and what they cost: shared by the parts of run."""
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.dirname(HERE)
READY_S = 60


def median(values):
    return statistics.median(values)


def warm(*paths):
    """Put files, or all files of directories, into the page cache."""
    for path in paths:
        names = [path] if os.path.isfile(path) else [
            os.path.join(d, f) for d, _, fs in os.walk(path) for f in fs]
        for name in names:
            with open(name, "rb", buffering=0) as f:
                while f.read(1 << 22):
                    pass


def tree_size(path):
    return sum(os.lstat(os.path.join(d, f)).st_size
               for d, _, fs in os.walk(path) for f in fs)


def tag_of(run):
    with open(f"{run}/latest") as f:
        return f.read().strip()


def proc_field(pid, name, file="status"):
    """A number of /proc/PID/FILE; kB of status are returned as bytes."""
    with open(f"/proc/{pid}/{file}") as f:
        for line in f:
            key, _, value = line.partition(":")
            if key == name:
                words = value.split()
                return int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    raise KeyError(name)


def cpu_seconds(pid):
    """Of all threads that still run, by the scheduler's clock."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def device_of(mountpoint):
    with open("/proc/self/mountinfo") as f:
        for line in f:
            fields = line.split()
            if fields[4] == mountpoint:
                return fields[2]
    return None


class Mount:
    """`ckptfs mount SOURCE DIR` as a user gives it; .began is before it."""

    def __init__(self, cfg, source):
        self.cfg = cfg
        self.dir = f"{cfg.work}/mnt"
        os.makedirs(self.dir, exist_ok=True)
        self.cache = f"{cfg.work}/cache"
        shutil.rmtree(self.cache, ignore_errors=True)
        self.env = dict(os.environ, CKPTFS_CACHE_DIR=self.cache)
        self.began = time.monotonic()
        subprocess.run([cfg.ckptfs, "mount", source, self.dir], check=True,
                       env=self.env, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
        self.seconds = time.monotonic() - self.began
        self.pid = int(os.getxattr(self.dir, "user.ckptfs.pid"))

    def __enter__(self):
        return self

    def read_ahead_kb(self):
        with open(f"/sys/class/bdi/{device_of(self.dir)}/read_ahead_kb") as f:
            return int(f.read())

    def cpu(self):
        return cpu_seconds(self.pid)

    def peak(self):
        return proc_field(self.pid, "VmHWM")

    def written(self):
        """Bytes the daemon gave to the disk, and what its cache holds."""
        return proc_field(self.pid, "write_bytes", "io")

    def __exit__(self, *exc):
        for _ in range(50):
            if not subprocess.run([self.cfg.ckptfs, "umount", self.dir],
                                  env=self.env, capture_output=True
                                  ).returncode:
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{self.dir} cannot be unmounted")
        for _ in range(100):  # until the daemon has gone
            if not os.path.exists(f"/proc/{self.pid}"):
                break
            time.sleep(0.02)


class NullMount:
    """null_fuse with the options of the real mount."""

    def __init__(self, cfg, size, files, read_ahead_kb):
        self.dir = f"{cfg.work}/null"
        os.makedirs(self.dir, exist_ok=True)
        self.proc = subprocess.Popen(
            [f"{cfg.work}/bin/null_fuse", "-f", f"--size={size >> 20}",
             f"--files={files}", "--mode=keep", "--quiet", "--threads=16",
             "--entry-timeout=0", "--attr-timeout=3600", "--clone-fd",
             self.dir], stderr=subprocess.DEVNULL)
        end = time.monotonic() + READY_S
        while not device_of(self.dir):
            if time.monotonic() > end:
                raise SystemExit("null_fuse did not come up")
            time.sleep(0.01)
        self.files = [f"{self.dir}/f{i}" for i in range(files)]
        os.stat(self.files[0])
        try:
            with open(f"/sys/class/bdi/{device_of(self.dir)}/read_ahead_kb",
                      "w") as f:
                f.write(str(read_ahead_kb))
        except OSError:
            pass  # an ordinary user: then the real mount has not either

    def __enter__(self):
        return self

    def cpu(self):
        return cpu_seconds(self.proc.pid)

    def __exit__(self, *exc):
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait()


class MemoryWatch:
    """Peak of the memory that belongs to process trees, sampled.

    What pages belong to (anonymous and shared memory, each page counted once
    however many processes share it after a fork), without the page cache.
    """

    def __init__(self, *pids):
        self.pids, self.peak, self.stop = pids, 0, threading.Event()
        self.thread = threading.Thread(target=self.loop, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop.set()
        self.thread.join()

    def tree(self):
        todo, seen = list(self.pids), []
        while todo:
            pid = todo.pop()
            seen.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children") as f:
                        todo += map(int, f.read().split())
            except OSError:
                pass
        return seen

    def loop(self):
        while not self.stop.wait(0.1):
            total = 0
            for pid in self.tree():
                try:
                    total += proc_field(pid, "Pss_Anon", "smaps_rollup") + \
                        proc_field(pid, "Pss_Shmem", "smaps_rollup")
                except (OSError, KeyError):
                    pass
            self.peak = max(self.peak, total)


def job(cfg, *args, watch=()):
    """ds_job.py: its line of JSON, with "peak" of it and the watched pids."""
    proc = subprocess.Popen(
        [cfg.python, "-W", "ignore", f"{HERE}/ds_job.py", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with MemoryWatch(proc.pid, *watch) as memory:
        out, err = proc.communicate()
    if proc.returncode:
        raise SystemExit(f"ds_job.py {args[0]} failed:\n{err[-4000:]}")
    result = json.loads(out.strip().splitlines()[-1])
    result["peak"] = memory.peak
    return result


def neox_tool(cfg, *args):
    """neox_step.py: what it prints."""
    return subprocess.run(
        [cfg.python, "-W", "ignore", f"{BENCH}/neox_step.py",
         *map(str, args)], check=True, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ, DS_ACCELERATOR="cpu")).stdout


def neox_step(cfg, name, *options):
    """The run of that name in the work directory, made if it is not there."""
    run = f"{cfg.work}/{name}"
    if not os.path.exists(f"{run}/latest"):
        print(f"writing {name}", flush=True)
        shutil.rmtree(run, ignore_errors=True)
        neox_tool(cfg, "make", run, *options)
    return run


def read_rate(cfg, paths, readers, part=None):
    """GB/s of `readers` processes, each reading its own path or `part`
    (offset, length) of it, and the CPU seconds that they took."""
    which = ["-o", str(part[0]), "-l", str(part[1])] if part else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([f"{cfg.work}/bin/readbench", "-n", str(readers),
                          *which, *paths], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"readbench: {out.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(out.stdout), after.ru_utime - before.ru_utime + \
        after.ru_stime - before.ru_stime


class Table:
    """Rows of: what, the rival's value, ours, ours / rival, the target."""

    def __init__(self):
        self.rows = []

    def add(self, what, rival, ours, unit="", target="", ratio=None,
            digits=2):
        def text(v):
            return v if isinstance(v, str) else f"{v:.{digits}f}{unit}"
        if ratio is None and not isinstance(rival, str) and rival:
            ratio = ours / rival
        row = (what, text(rival), text(ours),
               "" if ratio is None else f"{ratio:.2f}", target)
        self.rows.append(row)
        print("  " + " | ".join(row), flush=True)

    def markdown(self, title):
        head = ("", "rival", "ckptfs", "ckptfs / rival", "target")
        rows = [head] + self.rows
        wide = [max(len(r[i]) for r in rows) for i in range(5)]
        lines = [f"### {title}", ""]
        for n, row in enumerate(rows):
            lines.append("| " + " | ".join(
                c.ljust(w) for c, w in zip(row, wide)) + " |")
            if not n:
                lines.append("|" + "|".join("-" * (w + 2) for w in wide) + "|")
        return "\n".join(lines)
