"""What the tests of the Python rank client share.

    test_rank_X.py PATH/TO/ckptfs PATH/TO/libckptfs_rank.so SOURCE [NAME ...]

They need torch: where this interpreter has none, the one that
scripts/install-deps.sh prepares takes over.  Exits 77 without it, FUSE, root
or the library.
"""
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings

sys.dont_write_bytecode = True
warnings.filterwarnings("ignore")
BIN, LIB, SOURCE = (os.path.realpath(a) for a in sys.argv[1:4])
SEED = int(os.environ.get("SEED",
                          str(random.SystemRandom().randrange(1 << 31))))
os.environ["CKPTFS"] = BIN
os.environ["CKPTFS_RANK_LIB"] = LIB
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
os.environ["OMP_NUM_THREADS"] = "1"
PACKAGE = f"{SOURCE}/rank_client/python"
sys.path.insert(0, PACKAGE)

try:
    import torch
except ImportError as missing:
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    venv = os.environ.get("CKPTFS_VENV", f"{cache}/ckptfs/venv")
    python = f"{venv}/bin/python"
    if not sys.prefix.startswith(venv) and os.access(python, os.X_OK):
        os.execv(python, [python, *sys.argv])
    print(f"skipped: {missing}")
    sys.exit(77)

import store_place  # noqa: E402

torch.set_num_threads(1)


@contextlib.contextmanager
def mounted():
    """A store and where it is mounted, checked in the end."""
    with store_place.store() as s:
        s.mount()
        yield s
        if s.pid:
            s.umount()
        s.fsck()


def _rank(rank, world, tmp, func, args):
    log = os.open(f"{tmp}/log{rank}", os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        import torch.distributed as dist
        dist.init_process_group("gloo", init_method=f"file://{tmp}/store",
                                rank=rank, world_size=world)
        out = func(rank, world, *args)
        torch.save(out, f"{tmp}/out{rank}")
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ranks(world, func, *args, timeout=120, dies=()):
    """func(rank, world, *args) in forked processes of one process group; the
    list of what they return, None of those in `dies`, which must not."""
    tmp = tempfile.mkdtemp(prefix="ckptfs-ranks-")
    sys.stdout.flush()
    pids = {}
    try:
        for rank in range(world):
            pid = os.fork()
            if not pid:
                _rank(rank, world, tmp, func, args)
            pids[pid] = rank
        _wait(pids, tmp, timeout, dies)
        return [None if r in dies else torch.load(f"{tmp}/out{r}")
                for r in range(world)]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(tmp)


def _wait(pids, tmp, timeout, dies):
    end = time.monotonic() + timeout
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            assert time.monotonic() < end, f"ranks {pids} hang"
            time.sleep(0.01)
            continue
        rank = pids.pop(pid, None)
        if rank is not None and bool(status) != (rank in dies):
            with open(f"{tmp}/log{rank}", errors="replace") as f:
                raise AssertionError(f"rank {rank}, status {status}:\n"
                                     + f.read()[-4000:])


def fails(kind, words, func, *args, **kwargs):
    """func() raises such an error, whose text has all of `words`."""
    try:
        func(*args, **kwargs)
    except kind as err:
        for word in words.split():
            assert word in str(err), (word, str(err))
        return err
    raise AssertionError(f"{func} did not fail")


def main(tests, mount=True):
    """Runs the functions test_* of `tests`, or those named."""
    names = sys.argv[4:]
    why = store_place.why_not() if mount else None
    if why is None and not os.path.exists(LIB):
        why = f"{LIB} is not built"
    print(f"SEED={SEED}")
    skipped = 0
    for name, func in list(tests.items()):
        if not name.startswith("test_") or (names and name not in names):
            continue
        if why and not getattr(func, "alone", False):
            skipped += 1
            continue
        print(name, flush=True)
        func()
    if skipped:
        print(f"skipped {skipped}: {why}")
        return 77
    return 0


def alone(func):
    """A test that needs neither the library nor a mount."""
    func.alone = True
    return func
