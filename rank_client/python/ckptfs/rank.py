"""A rank's connection to a store, and a step being saved.

Collective calls, made by all ranks in the same order: Rank(), save(),
commit().  One thread at a time uses a Rank and all that was made of it; a lock
sees to that.
"""
import collections
import ctypes as C
import os
import threading
import time

from . import _lib, _memory
from . import comm as comm_module
from .load import Load
from .writer import WriteFile


class Rank:
    """Connects all ranks of a job to the run that they save to.

    path: its directory, in a mount or below the store's own
    comm: who the ranks are; see ckptfs.comm.of()
    ring_bytes: shared memory between this process and the daemon (256 MiB,
        at most 64 GiB); as large as what is saved, it hides all of the daemon's work
    timeout: seconds that a collective call waits for ranks that do not come
    progress: True for a bar on rank 0, or a callable (what, done, total)
    """

    def __init__(self, path, comm=None, *, ring_bytes=0, timeout=0,
                 progress=None):
        self._handle = None
        self.path = os.fspath(path)
        self.comm = comm_module.of(comm)
        self.lock = threading.RLock()
        self._forgotten = collections.deque()
        if progress is True:
            from .progress import bar
            progress = bar() if self.comm.rank == 0 else None
        self._progress = progress
        self._open(ring_bytes, timeout)

    def _open(self, ring_bytes, timeout):
        lib = _lib.lib()
        struct, failed = comm_module.struct(self.comm)
        options = _lib.Options(C.sizeof(_lib.Options), None, ring_bytes,
                               timeout)
        if self.comm.size > 1:
            options.comm = C.pointer(struct)
        if self._progress:
            options.progress = self._kept = _lib.PROGRESS(self._report)
        try:
            self._handle = _lib.opened("open", os.fsencode(self.path),
                                       C.byref(options))
        except _lib.CkptfsError as err:
            if failed:
                raise err from failed[0]
            raise
        self._lib = lib

    def _report(self, _, progress):
        p = progress.contents
        self._progress(p.what.decode(), p.done_bytes, p.total_bytes)

    @property
    def shows_progress(self):
        return bool(self._progress)

    def end_progress(self):
        if hasattr(self._progress, "close"):
            self._progress.close()

    @property
    def handle(self):
        if self._handle is None:
            raise ValueError(f"the connection to {self.path} is closed")
        return self._handle

    def save(self, step, *, format, dp=0, tp=0, pp=0, zero_stage=0,
             pointer=None, replace=False):
        """Begins to save the step `step`, a name; a Save.  Collective.

        format: "deepspeed" (for dp, tp, pp, zero_stage), "universal",
            "safetensors" or "files" (only what open_file() writes)
        pointer: the run's file that is to name the step; None: the format's
            own, "": none
        replace: a step of this name goes when this one comes
        """
        options = _lib.SaveOptions(
            C.sizeof(_lib.SaveOptions), _lib.text(format, "the format"), dp, tp,
            pp, zero_stage, None if pointer is None
            else _lib.text(pointer, "the pointer"),
            int(replace))
        with self.lock:
            self._close_forgotten()
            handle = _lib.opened("save_begin", self.handle,
                                 _lib.text(step, "the step"),
                                 C.byref(options))
        return Save(self, handle, step)

    def load(self, step=None):
        """Opens a step for reading; None: the one to resume from.  A Load,
        not collective; the step stays as it is, also while it is removed."""
        with self.lock:
            self._close_forgotten()
            handle = _lib.opened("load_open", self.handle,
                                 None if step is None
                                 else _lib.text(step, "the step"))
        return Load(self, handle)

    def forget(self, handle):
        """Closes a Load's handle that nobody has any more; now, or where that
        might be in the midst of another call, before the next."""
        self._forgotten.append(handle)
        if self.lock._is_owned() or not self.lock.acquire(blocking=False):
            return
        try:
            self._close_forgotten()
        finally:
            self.lock.release()

    def _close_forgotten(self):
        while self._forgotten:
            handle = self._forgotten.popleft()
            if self._handle is not None:
                self._lib.cfs_rank_load_close(handle)

    def close(self):
        with self.lock:
            self._forgotten.clear()  # they end with the rank
            handle, self._handle = self._handle, None
            if handle is not None:
                self._lib.cfs_rank_close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            self.close()


POLL_MIN, POLL_MAX = 0.0002, 0.02  # seconds


class Save:
    """A step being saved; as a context manager it commits at the end, and
    aborts for all ranks when an exception leaves it."""

    def __init__(self, rank, handle, step):
        self.rank, self._handle, self.step = rank, handle, step

    @property
    def handle(self):
        if self._handle is None or self.rank._handle is None:
            raise ValueError(f"the save of {self.step} has ended")
        return self._handle

    def put(self, name, tensor, *, role="weight", shape=None, offset=None,
            extent=None, flat=None):
        """Adds a slice of the tensor `name`, a torch or numpy array.

        Nothing else said: all of it.  shape and offset: a box of the global
        tensor.  flat: `tensor` is the elements from number `flat` on of the
        flattened box `extent` at `offset` (all of shape where left out), as
        ZeRO cuts.  Not contiguous arrays are refused (ckptfs._memory).
        CPU memory may be changed when this returns, CUDA memory by work put
        on the current stream from now on.
        """
        span = _memory.of_array(tensor, name)
        if shape is None:
            shape = span.shape
        if flat is None:
            piece = (0, 0)
            extent = span.shape if extent is None else extent
            if _memory.count(extent) != _memory.count(span.shape):
                raise ValueError(f"{name}: {span.shape} was passed for the "
                                 f"extent {tuple(extent)}")
        else:
            piece = (flat, _memory.count(span.shape))
            extent = shape if extent is None else extent
            if not piece[1]:
                return  # a shard of nothing; for C, count 0 is everything
        struct = _memory.tensor(name, role, span.dtype, shape, offset, extent,
                                piece)
        with self.rank.lock, _memory.device_of(span):
            _lib.call("put", self.handle, C.byref(struct), span.pointer,
                      span.memory, span.stream)

    def wait_copied(self):
        """Waits until all CUDA memory that was put has been copied."""
        with self.rank.lock:
            _lib.call("wait_copied", self.handle)

    def put_object(self, name, data):
        """Adds bytes under a name: the step has them as ckptfs/NAME."""
        span = _memory.of_buffer(data)
        with self.rank.lock:
            _lib.call("put_object", self.handle,
                      _lib.text(name, "an object"), span.pointer,
                      span.size)

    def open_file(self, name):
        """A new file of the step, as a binary file object to write in order.
        Its write() takes tensors too, CUDA ones by their pointer."""
        with self.rank.lock:
            return WriteFile(self, _lib.opened("file_begin", self.handle,
                                               _lib.text(name, "a file")),
                             name)

    def put_file(self, name, source):
        """A file of the step with the bytes of `source`: a buffer, a tensor
        or a binary file object."""
        with self.open_file(name) as out:
            if not hasattr(source, "readinto"):
                out.write(source)
                return
            block = memoryview(bytearray(4 << 20))
            while n := source.readinto(block):
                out.write(block[:n])

    def commit(self):
        """Begins to make the step; wait() has the result.  Collective."""
        with self.rank.lock:
            _lib.call("commit", self.handle)

    def test(self):
        """Whether wait() would return at once."""
        with self.rank.lock:
            return bool(_lib.call("test", self.handle))

    def wait(self):
        """Returns when the step is there and durable, or raises the same
        error on all ranks, and nothing of it is.  Ends this object.

        Other threads may use test() and abort() meanwhile, but not where
        progress is shown: the waiting call does that."""
        if not self.rank.shows_progress:
            self._poll()
        with self.rank.lock:
            handle, self._handle = self.handle, None
            try:
                _lib.call("wait", handle)
            finally:
                self.rank.end_progress()

    def _poll(self):
        pause = POLL_MIN
        while not self.test():
            time.sleep(pause)
            pause = min(2 * pause, POLL_MAX)

    def abort(self, reason=None):
        """Nothing is saved; the other ranks' commit says `reason`."""
        with self.rank.lock:
            handle, self._handle = self._handle, None
            if handle is not None and self.rank._handle is not None:
                self.rank._lib.cfs_rank_abort(
                    handle, reason.encode() if reason else None)

    def __enter__(self):
        return self

    def __exit__(self, kind, err, _):
        if kind is not None:
            self.abort(f"{kind.__name__}: {err}")
            return
        if self._handle is None:
            return
        try:
            self.commit()
        except BaseException as failed:
            self.abort(str(failed))
            raise
        self.wait()
