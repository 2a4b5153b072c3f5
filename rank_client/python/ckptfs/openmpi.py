"""COMM_WORLD of Open MPI where mpi4py is not installed: by libmpi itself.

Only what a Comm needs.  Handles are addresses of Open MPI's own objects; other
implementations make them otherwise, and are refused for lack of these names.
"""
import atexit
import ctypes as C
import os

from .comm import Comm

LIBRARIES = ("libmpi.so.40", "libmpi.so", "libmpi.so.12")


def started():
    """Whether mpirun started this process."""
    return "OMPI_COMM_WORLD_SIZE" in os.environ


def _load():
    for name in LIBRARIES:
        try:
            # Its plug-ins look for its symbols.
            lib = C.CDLL(name, mode=C.RTLD_GLOBAL)
        except OSError:
            continue
        if hasattr(lib, "ompi_mpi_comm_world"):
            return lib
    raise OSError(2, "neither mpi4py nor Open MPI's libmpi is found")


class OpenMpiComm(Comm):
    def __init__(self):
        self._lib = _load()
        self._world, self._byte, self._int, self._max = (
            C.c_void_p(C.addressof(C.c_byte.in_dll(self._lib, "ompi_mpi_"
                                                   + name)))
            for name in ("comm_world", "byte", "int", "op_max"))
        done = C.c_int()
        self._call("Initialized", C.byref(done))
        if not done.value:
            self._call("Init", None, None)
            atexit.register(self._call, "Finalize")
        self.rank = self._ask("Comm_rank")
        self.size = self._ask("Comm_size")

    def _call(self, name, *args):
        if getattr(self._lib, "MPI_" + name)(*args):
            raise OSError(5, f"MPI_{name} failed")

    def _ask(self, name):
        out = C.c_int()
        self._call(name, self._world, C.byref(out))
        return out.value

    def broadcast(self, buffer):
        self._call("Bcast", buffer, C.c_int(len(buffer)), self._byte,
                   C.c_int(0), self._world)

    def any(self, flag):
        mine, out = C.c_int(bool(flag)), C.c_int()
        self._call("Allreduce", C.byref(mine), C.byref(out), C.c_int(1),
                   self._int, self._max, self._world)
        return bool(out.value)
