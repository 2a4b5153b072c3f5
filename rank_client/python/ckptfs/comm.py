"""Who the ranks are: torch.distributed (torchrun), MPI (mpirun), or one.

The library only ever asks for a broadcast from rank 0 while it connects, and
the plug-ins for an "any of us?"; both are collective.
"""
import ctypes as C
import errno
import sys

from . import _lib


class Comm:
    """One process by itself; the others override all of it."""
    rank, size = 0, 1

    def broadcast(self, buffer):
        """Rank 0's bytes of a writable ctypes array become everyone's."""

    def any(self, flag):
        """Whether it is true on some rank.  Collective."""
        return bool(flag)


class TorchComm(Comm):
    """A process group with gloo, MPI or NCCL; None is the default one."""

    def __init__(self, group=None):
        import torch
        import torch.distributed as dist
        if not dist.is_initialized():
            raise ValueError("torch.distributed is not initialised: call "
                             "init_process_group() first")
        self._torch, self._dist, self._group = torch, dist, group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("this process is not in the process group")
        self._root = dist.get_global_rank(group, 0) if group is not None else 0
        self._device = self._choose_device()

    def _choose_device(self):
        """NCCL takes device memory only."""
        config = str(self._dist.get_backend_config(self._group))
        if "cpu:" in config or "cuda:" not in config:
            return self._torch.device("cpu")
        return self._torch.device("cuda", self._torch.cuda.current_device())

    def broadcast(self, buffer):
        host = self._torch.frombuffer(buffer, dtype=self._torch.uint8)
        sent = host.to(self._device)
        self._dist.broadcast(sent, self._root, group=self._group)
        if sent is not host:
            host.copy_(sent)

    def any(self, flag):
        sum_of = self._torch.tensor([int(bool(flag))], dtype=self._torch.int32,
                                    device=self._device)
        self._dist.all_reduce(sum_of, group=self._group)
        return bool(sum_of.item())


class MpiComm(Comm):
    """An mpi4py communicator."""

    def __init__(self, comm):
        from mpi4py import MPI
        self._mpi, self._comm = MPI, comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def broadcast(self, buffer):
        self._comm.Bcast([memoryview(buffer), self._mpi.BYTE], root=0)

    def any(self, flag):
        return bool(self._comm.allreduce(int(bool(flag)), op=self._mpi.SUM))


def _mpi_world():
    try:
        from mpi4py import MPI
    except ImportError:
        from .openmpi import OpenMpiComm
        return OpenMpiComm()
    return MpiComm(MPI.COMM_WORLD)


def of(comm):
    """What Rank() takes: None (alone), "torch" (the default process group),
    "mpi" (COMM_WORLD), a process group, an mpi4py communicator, a Comm."""
    if comm is None:
        return Comm()
    if isinstance(comm, Comm):
        return comm
    if isinstance(comm, str) and comm == "torch":
        return TorchComm()
    if isinstance(comm, str) and comm == "mpi":
        return _mpi_world()
    if "torch" in sys.modules:
        import torch.distributed as dist
        if dist.is_available() and isinstance(comm, dist.ProcessGroup):
            return TorchComm(comm)
    if hasattr(comm, "Bcast") and hasattr(comm, "Get_rank"):
        return MpiComm(comm)
    raise TypeError(f"{comm!r} is no communicator: pass None, \"torch\", "
                    "\"mpi\", a torch process group or an mpi4py communicator")


def struct(comm):
    """The struct for cfs_rank_open(), and what keeps it alive.  An exception
    of the communicator is left in the second's list."""
    failed = []

    def broadcast(_, data, length):
        try:
            if length:
                comm.broadcast((C.c_ubyte * length).from_address(data))
            return 0
        except BaseException as err:  # cannot pass through C
            failed.append(err)
            return -errno.EIO

    callback = _lib.BROADCAST(broadcast)
    return _lib.Comm(C.sizeof(_lib.Comm), comm.rank, comm.size, callback,
                     None), failed
