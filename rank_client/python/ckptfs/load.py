"""A step open for reading: slices of its tensors, its objects and files."""
import ctypes as C
import errno
import io
import sys
from typing import NamedTuple, Tuple

from . import _lib, _memory

BUFFER = 256 << 10


class TensorInfo(NamedTuple):
    name: str
    role: str
    dtype: str
    shape: Tuple[int, ...]


class Load:
    def __init__(self, rank, handle):
        self.rank, self._handle = rank, handle
        self._tensors = None
        self.step = rank._lib.cfs_rank_load_step(handle).decode()

    @property
    def handle(self):
        if self._handle is None or self.rank._handle is None:
            raise ValueError(f"{self.step} is closed")
        return self._handle

    def list(self):
        """A TensorInfo of every tensor, in the step's order."""
        if self._tensors is None:
            out = []

            def add(_, pointer):
                t = pointer.contents
                out.append(TensorInfo(
                    t.name.decode(), t.role.decode(),
                    _memory.NAMES.get(t.dtype, str(t.dtype)),
                    tuple(t.shape[:t.ndim])))
                return 0

            callback = _lib.LIST(add)
            with self.rank.lock:
                _lib.call("list", self.handle, callback, None)
            self._tensors = out
        return list(self._tensors)

    def info(self, name, role="weight"):
        for tensor in self.list():
            if (tensor.name, tensor.role) == (name, role):
                return tensor
        raise KeyError(f"{self.step} has no {role} {name}")

    def get(self, name, role="weight", *, index=None, flat=None, dtype=None,
            out=None):
        """A tensor, or the slice `index` (slices of step 1) of it.

        flat: (start, count) of that box's elements, in a row
        dtype: "float32" …; other than what was saved where both are floating
            point
        out: a contiguous torch or numpy array to fill, in CPU or CUDA memory
            (there for work put on the current stream from now on); without
            it a new one is returned: torch's where torch is imported, else
            numpy's
        """
        info = self.info(name, role)
        offset, extent = _box(info, index)
        shape = extent if flat is None else (flat[1],)
        if out is None:
            out = _new(shape, dtype or info.dtype)
        span = _memory.of_array(out, "out", writable=True)
        if _memory.count(span.shape) != _memory.count(shape):
            raise ValueError(f"out has the shape {span.shape}, the slice of "
                             f"{name} has {tuple(shape)}")
        if not span.size:
            return out
        struct = _memory.tensor(name, role, span.dtype, info.shape, offset,
                                extent, flat or (0, 0))
        with self.rank.lock, _memory.device_of(span):
            _lib.call("get", self.handle, C.byref(struct), span.pointer,
                      span.memory, span.stream)
        return out

    def object(self, name):
        """The bytes that put_object() put."""
        data, size = C.c_void_p(), C.c_size_t()
        with self.rank.lock:
            _lib.call("get_object", self.handle,
                      _lib.text(name, "an object"), C.byref(data),
                      C.byref(size))
        try:
            return C.string_at(data, size.value)
        finally:
            _free(data)

    def open(self, name):
        """A file of the step, as a seekable binary file object."""
        return io.BufferedReader(ReadFile(self, name), BUFFER)

    def exists(self, name):
        try:
            ReadFile(self, name)
        except _lib.CkptfsError as err:
            if err.errno != errno.ENOENT:
                raise
            return False
        return True

    def close(self):
        with self.rank.lock:
            handle, self._handle = self._handle, None
            if handle is not None and self.rank._handle is not None:
                self.rank._lib.cfs_rank_load_close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            self.rank.forget(self._handle)


class ReadFile(io.RawIOBase):
    def __init__(self, load, name):
        super().__init__()
        self._load, self.name, self._at = load, name, 0
        size = C.c_uint64()
        with load.rank.lock:
            _lib.call("file_size", load.handle, _lib.text(name, "a file"),
                      C.byref(size))
        self.size = size.value

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=io.SEEK_SET):
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise ValueError("negative seek position")
        self._at = at
        return at

    def tell(self):
        return self._at

    def readinto(self, buffer):
        span = _memory.of_any(buffer) if _memory.is_torch(buffer) \
            else _memory.of_buffer(buffer, writable=True)
        count = max(0, min(span.size, self.size - self._at))
        if count:
            with self._load.rank.lock, _memory.device_of(span):
                _lib.call("file_read", self._load.handle, self.name.encode(),
                          self._at, count, span.pointer, span.memory,
                          span.stream)
        self._at += count
        return count


def _free(pointer):
    free = C.CDLL(None).free
    free.argtypes, free.restype = [C.c_void_p], None
    free(pointer)


def _box(info, index):
    """offset and extent of the slices `index`."""
    if index is None:
        return [0] * len(info.shape), list(info.shape)
    if not isinstance(index, tuple):
        index = (index,)
    if len(index) > len(info.shape):
        raise IndexError(f"{info.name} has {len(info.shape)} dimensions, not "
                         f"{len(index)}")
    offset, extent = [], []
    for i, n in enumerate(info.shape):
        one = index[i] if i < len(index) else slice(None)
        if not isinstance(one, slice) or one.step not in (None, 1):
            raise IndexError(f"{info.name}: {one!r} is no slice of step 1")
        start, stop, _ = one.indices(n)
        offset.append(start)
        extent.append(max(0, stop - start))
    return offset, extent


def _new(shape, dtype):
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype))
    import numpy
    if dtype == "bfloat16":
        raise ValueError("numpy has no bfloat16: import torch, or ask for "
                         "dtype=\"float32\"")
    return numpy.empty(tuple(shape), dtype=dtype)
