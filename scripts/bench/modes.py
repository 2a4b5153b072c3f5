#!/usr/bin/env python3
"""modes.py BUILD_DIR [--user NAME] [--runs N] [--only WORD]

Measures what a FUSE server can reach on this machine, mode by mode: the null
server from memory beside the same server reading a page-cache-warm file.
Root mounts get their read-ahead raised through /sys/class/bdi; the others
run as an ordinary user, who cannot. Medians of N runs (default 5), GB/s.
"""
import argparse
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SIZE = 512  # MiB, of each file
FILES = 4


class Server:
    """A mounted null_fuse; `ra` is read_ahead_kb (root only), None leaves it."""

    def __init__(self, build, options, user=None, ra=None):
        self.dir = tempfile.mkdtemp(prefix="nullfuse.")
        self.prefix = []
        if user:
            os.chown(self.dir, user, user)
            self.prefix = ["setpriv", f"--reuid={user}", f"--regid={user}",
                           "--clear-groups"]
        self.err = tempfile.TemporaryFile("w+")
        self.proc = subprocess.Popen(
            self.prefix + [f"{build}/null_fuse", "-f", f"--size={SIZE}",
                           f"--files={FILES}"] + options + [self.dir],
            stderr=self.err)
        for _ in range(100):
            if os.path.ismount(self.dir) or self.mounted():
                break
            time.sleep(0.05)
        else:
            raise SystemExit("the mount did not come up")
        if ra:
            dev = self.device()
            with open(f"/sys/class/bdi/{dev}/read_ahead_kb", "w") as f:
                f.write(str(ra))

    def device(self):
        with open("/proc/self/mountinfo") as f:
            for line in f:
                if line.split()[4] == self.dir:
                    return line.split()[2]
        return None

    def mounted(self):
        return self.device() is not None

    def bench(self, build, args, readers):
        paths = [f"{self.dir}/f{i}" for i in range(FILES)]
        out = subprocess.run(
            self.prefix + [f"{build}/readbench"] + args +
            ["-n", str(readers)] + paths, capture_output=True, text=True)
        if out.returncode:
            return None, out.stderr.strip()
        return float(out.stdout), None

    def close(self):
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait()
        self.err.seek(0)
        stats = self.err.read().strip().splitlines()
        os.rmdir(self.dir)
        return stats[-1] if stats else ""


def cases(user):
    """(group, name, server options, uid, read_ahead_kb, client args)"""
    base = ["--threads=4"]
    cold = ["-d"]
    root = [("128", None, "--readahead=131072"),
            ("1M", 1024, "--readahead=1048576"),
            ("4M", 4096, "--readahead=4194304")]
    for ra_name, ra, neg in root:
        for mode in ("keep", "plain"):
            yield ("cold", f"root {mode} ra={ra_name}",
                   base + [f"--mode={mode}", neg], None, ra, cold)
    yield ("cold", "root direct 1M reads", base + ["--mode=direct"], None,
           None, [])
    yield ("cold", "root direct 128K reads", base + ["--mode=direct"], None,
           None, ["-b", "131072"])
    yield ("cold", "root direct 16M reads", base + ["--mode=direct"], None,
           None, ["-b", "16777216"])
    for neg, block in (("1048576", "1048576"), ("1048576", "131072")):
        yield ("cold", f"user keep, {int(block) >> 10}K reads",
               base + ["--mode=keep", f"--readahead={neg}"], user, None,
               cold + ["-b", block])
    yield ("cold", "user direct, 1M reads", base + ["--mode=direct"], user,
           None, [])
    yield ("hot", "root keep, in page cache", base + ["--mode=keep"], None,
           1024, [])
    for neg in ("131072", "1048576", "4194304"):
        yield ("user", f"user keep negotiated={neg}",
               base + ["--mode=keep", f"--readahead={neg}"], user, None, cold)
    for adv in ("seq", "willneed", "random"):
        yield ("user", f"user keep fadvise={adv}",
               base + ["--mode=keep"], user, None, cold + ["-a", adv])
    yield ("user", "user keep 16M reads", base + ["--mode=keep"], user, None,
           cold + ["-b", "16777216"])
    yield ("user", "user direct 1M reads", base + ["--mode=direct"], user,
           None, [])
    for how in ("mmap", "populate", "shared"):
        for who, uid, ra in (("root ra=1M", None, 1024),
                             ("root ra=4M", None, 4096),
                             ("user", user, None)):
            yield ("mmap", f"{who} keep {how}",
                   base + ["--mode=keep", "--readahead=4194304"], uid, ra,
                   cold + ["-m", how])
    for adv in ("seq", "willneed"):
        yield ("mmap", f"user keep mmap madvise={adv}", base +
               ["--mode=keep"], user, None, cold + ["-m", "mmap", "-a", adv])
    for how in ("mmap", "shared"):
        yield ("mmap", f"user direct {how}", base + ["--mode=direct"], user,
               None, ["-m", how])
    for reply in ("iov", "data"):
        for extra in ([], ["--splice"]):
            for mode in ("keep", "direct"):
                yield ("reply", f"root {mode} ra=1M {reply} " +
                       " ".join(extra), base + [f"--mode={mode}",
                       f"--reply={reply}"] + extra, None, 1024, cold)
    for t in (1, 2, 4, 8):
        for clone in ([], ["--clone-fd"]):
            for mode in ("keep", "direct"):
                yield ("threads", f"root {mode} ra=1M threads={t} " +
                       " ".join(clone), [f"--threads={t}", f"--mode={mode}"]
                       + clone, None, 1024, cold)
    yield ("attr", "root keep ra=1M attr=0", base + ["--mode=keep",
           "--attr-timeout=0", "--entry-timeout=0"], None, 1024, cold)
    yield ("attr", "root keep ra=1M attr=0 auto-inval", base + ["--mode=keep",
           "--attr-timeout=0", "--entry-timeout=0", "--auto-inval"], None,
           1024, cold)
    for block in ("4096", "131072", "1048576"):
        for a in (["--attr-timeout=60", "--auto-inval"],
                  ["--attr-timeout=0"], ["--attr-timeout=0", "--auto-inval"]):
            yield ("attr", f"hot {block} " + " ".join(a), base +
                   ["--mode=keep", "--entry-timeout=0"] + a, None, 1024,
                   ["-b", block])
    yield ("attr", "root keep ra=1M no async", base + ["--mode=keep",
           "--no-async"], None, 1024, cold)


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clients_cpu():
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def measure(args, kinds, uid, ra, client, readers):
    """One row: the kinds of server mounted side by side and run in turn, so
    that what else the machine does hits both. Rates, CPU seconds per GB of
    server and client, and the median of the pairwise ratios."""
    servers = [Server(args.build, k, uid, ra) for k in kinds]
    rates = [[] for _ in kinds]
    cpu = [[0.0, 0.0] for _ in kinds]
    err = None
    for i in range(args.runs + 1):
        for k, server in enumerate(servers):
            before = cpu_of(server.proc.pid), clients_cpu()
            rate, err = server.bench(args.build, client, readers)
            if err:
                break
            if i == 0:
                continue  # page tables, caches
            rates[k].append(rate)
            cpu[k][0] += cpu_of(server.proc.pid) - before[0]
            cpu[k][1] += clients_cpu() - before[1]
        if err:
            break
    stats = [s.close() for s in servers][0]
    if err:
        return err
    gb = args.runs * readers * SIZE * 1048576e-9
    out = []
    for k in range(len(kinds)):
        out.append(f"{statistics.median(rates[k]):5.2f} max "
                   f"{max(rates[k]):5.2f} cpu {cpu[k][0] / gb:4.2f}+"
                   f"{cpu[k][1] / gb:4.2f}")
    if len(kinds) > 1:
        ratio = statistics.median(b / a for a, b in zip(*rates))
        out.append(f"ratio {ratio:4.2f}")
    return " | ".join(out + [stats.split("size:")[-1].strip()])


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("build")
    p.add_argument("--user", type=int, default=65534)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--only", default="")
    p.add_argument("--source", help="a real file of 1 GiB, page-cache warm")
    p.add_argument("--readers", type=lambda s: [int(x) for x in s.split(",")],
                   default=[1, 2, 4])
    args = p.parse_args()
    if args.source:
        with open(args.source, "rb") as f:
            while f.read(1 << 24):
                pass
    for group, name, options, uid, ra, client in cases(args.user):
        if args.only and group not in args.only.split(","):
            continue
        kinds = [options]
        if args.source and group in ("cold", "user", "mmap", "user2"):
            kinds.append(options + [f"--source={args.source}"])
        for readers in args.readers:
            row = measure(args, kinds, uid, ra, client, readers)
            print(f"{name:38} n={readers} | {row} | "
                  f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
