"""DeepSpeed on CPU over gloo: imported once, ranks forked for each case."""
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback

os.environ["DS_ACCELERATOR"] = "cpu"
os.environ.setdefault("LOCAL_SIZE", "1")
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
os.environ["DS_IGNORE_CUDA_DETECTION"] = "1"
os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "ERROR")

import torch  # noqa: E402
import deepspeed  # noqa: E402
try:
    from deepspeed.accelerator import get_accelerator  # noqa: E402
except ImportError:  # before 0.8
    get_accelerator = None

from . import adam_kernel  # noqa: E402


def _patch():
    if get_accelerator:
        acc = get_accelerator()
        acc._communication_backend_name = "gloo"
        acc.is_fp16_supported = lambda: True
        acc.supported_dtypes = lambda: [torch.float, torch.half,
                                        torch.bfloat16]
    # else an extension is compiled for shared-memory collectives
    mod = sys.modules.get("deepspeed.comm.torch")
    if hasattr(mod, "build_shm_op"):
        mod.build_shm_op = lambda: None
    adam_kernel.install()
    torch.set_num_threads(1)
    # What the first use would import, in every rank: seconds each.
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
    try:
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    except ImportError:
        pass


_patch()


def _child(rank, world, store, log, result, func, args):
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank),
                      WORLD_SIZE=str(world), LOCAL_SIZE=str(world),
                      LOCAL_WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT="29500")
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank,
            world_size=world)
        deepspeed.init_distributed(dist_backend="gloo")
        out = func(rank, world, *args)
        torch.distributed.barrier()
        with open(result, "wb") as f:
            pickle.dump(out, f)
        code = 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class RankError(Exception):
    """A rank failed; the text is the end of its log."""


def run(world, func, *args, timeout=180):
    """func(rank, world, *args) in forked ranks; the list of their results.

    The first failure ends the other ranks, which would wait for it for ever.
    """
    tmp = tempfile.mkdtemp(prefix="ckptfs-ranks-")
    sys.stdout.flush()
    sys.stderr.flush()
    pids = {}
    try:
        for rank in range(world):
            pid = os.fork()
            if pid == 0:
                _child(rank, world, f"{tmp}/store", f"{tmp}/log{rank}",
                       f"{tmp}/out{rank}", func, args)
            pids[pid] = rank
        _wait_all(pids, tmp, timeout)
        out = []
        for rank in range(world):
            with open(f"{tmp}/out{rank}", "rb") as f:
                out.append(pickle.load(f))
        return out
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(tmp, ignore_errors=True)


def _wait_all(pids, tmp, timeout):
    end = time.monotonic() + timeout
    while pids:
        done = [(p, s) for p, s in
                (os.waitpid(p, os.WNOHANG) for p in pids) if p]
        ranks = [(pids.pop(pid), status) for pid, status in done]
        for rank, status in ranks:
            if status:
                with open(f"{tmp}/log{rank}", errors="replace") as f:
                    raise RankError(f"rank {rank} failed:\n"
                                    + f.read()[-4000:])
        if time.monotonic() > end:
            raise RankError(f"ranks {sorted(pids.values())} hang")
        if not done:
            time.sleep(0.01)
