"""Where the elements of an array lie: numpy, torch on CPU or CUDA, buffers.

Nothing is copied.  An array with gaps or in another order is refused rather
than made contiguous behind the caller's back: for a shard that would be a
second one in memory, at the moment where memory is shortest.
"""
import ctypes as C
import math
import sys

from . import _lib

DTYPES = {"float32": 1, "float16": 2, "bfloat16": 3, "float64": 4, "int64": 5,
          "int32": 6, "int16": 7, "int8": 8, "uint8": 9, "bool": 10}
NAMES = {code: name for name, code in DTYPES.items()}


class Span:
    """`owner` keeps the memory alive."""
    __slots__ = ("pointer", "size", "memory", "stream", "dtype", "shape",
                 "owner")

    def __init__(self, pointer, size, owner, memory=_lib.HOST, stream=None,
                 dtype="uint8", shape=None):
        self.pointer, self.size, self.owner = pointer, size, owner
        self.memory, self.stream = memory, stream
        self.dtype, self.shape = dtype, shape


class _PyBuffer(C.Structure):
    _fields_ = [("buf", C.c_void_p), ("obj", C.py_object),
                ("len", C.c_ssize_t), ("itemsize", C.c_ssize_t),
                ("readonly", C.c_int), ("ndim", C.c_int),
                ("format", C.c_char_p), ("shape", C.c_void_p),
                ("strides", C.c_void_p), ("suboffsets", C.c_void_p),
                ("internal", C.c_void_p)]


_get_buffer = C.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [C.py_object, C.POINTER(_PyBuffer), C.c_int]
_release_buffer = C.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [C.POINTER(_PyBuffer)]
_WRITABLE = 1  # PyBUF_WRITABLE; PyBUF_SIMPLE is 0


class _Held:
    """A buffer as long as it is used; ctypes itself takes no read-only one."""

    def __init__(self, obj, writable):
        self.view = _PyBuffer()
        self.got = False
        _get_buffer(obj, C.byref(self.view), _WRITABLE if writable else 0)
        self.got = True

    def __del__(self):
        if self.got:
            _release_buffer(C.byref(self.view))


def of_buffer(obj, writable=False):
    """The bytes of anything with the buffer protocol, contiguous."""
    held = _Held(obj, writable)
    return Span(held.view.buf, held.view.len, held)


def is_torch(obj):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def _of_torch(tensor, what):
    import torch
    if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg():
        raise ValueError(f"{what} is no plain dense tensor")
    if not tensor.is_contiguous():
        raise ValueError(f"{what} is not contiguous: pass .contiguous(), "
                         "which is a copy of it")
    size = tensor.numel() * tensor.element_size()
    span = Span(tensor.data_ptr(), size, tensor,
                dtype=str(tensor.dtype).split(".")[1],
                shape=tuple(tensor.shape))
    if tensor.is_cuda:
        stream = torch.cuda.current_stream(tensor.device)
        span.memory, span.stream = _lib.CUDA, stream.cuda_stream
        # The copy may be under way when the caller drops the tensor.
        tensor.detach().record_stream(stream)
    elif tensor.device.type != "cpu":
        raise ValueError(f"{what} is on {tensor.device}: only CPU and CUDA "
                         "memory can be read")
    return span


def _of_numpy(array, what, writable):
    if not array.flags.c_contiguous:
        raise ValueError(f"{what} is not contiguous: pass "
                         "numpy.ascontiguousarray(), which is a copy of it")
    if array.dtype.byteorder == ">":
        raise ValueError(f"{what} is big endian")
    if writable and not array.flags.writeable:
        raise ValueError(f"{what} is read-only")
    return Span(array.ctypes.data, array.nbytes, array,
                dtype=array.dtype.name, shape=tuple(array.shape))


def of_array(obj, what, writable=False):
    """An array's elements; `what` names it in errors."""
    if is_torch(obj):
        span = _of_torch(obj, what)
    elif hasattr(obj, "__array_interface__") and hasattr(obj, "flags"):
        span = _of_numpy(obj, what, writable)
    else:
        raise TypeError(f"{what} is a {type(obj).__name__}, no torch tensor "
                        "or numpy array")
    if span.dtype not in DTYPES:
        raise ValueError(f"{what} has elements of {span.dtype}; known are "
                         + ", ".join(DTYPES))
    return span


def of_any(obj):
    """Bytes to write: an array's, whatever its elements, or a buffer's."""
    if is_torch(obj):
        return _of_torch(obj, "what is written")
    return of_buffer(obj)


def device_of(span):
    """A context in which calls with this memory are made."""
    if span.memory == _lib.CUDA:
        import torch
        return torch.cuda.device(span.owner.device)
    import contextlib
    return contextlib.nullcontext()


def tensor(name, role, dtype, shape, offset=None, extent=None, flat=(0, 0)):
    """A struct cfs_rank_tensor; the strings live in it."""
    shape = [int(n) for n in shape]
    offset = [int(n) for n in offset] if offset is not None \
        else [0] * len(shape)
    extent = [int(n) for n in extent] if extent is not None else shape
    if len(shape) > _lib.DIMS_MAX:
        raise ValueError(f"{name} has {len(shape)} dimensions, at most "
                         f"{_lib.DIMS_MAX} are possible")
    if not len(shape) == len(offset) == len(extent):
        raise ValueError(f"{name}: shape {shape}, offset {offset} and extent "
                         f"{extent} have different numbers of dimensions")
    out = _lib.Tensor(C.sizeof(_lib.Tensor), _lib.text(name, "a name"),
                      _lib.text(role, f"{name}'s role"), DTYPES[dtype],
                      len(shape))
    if min(flat) < 0:
        raise ValueError(f"{name}: flat {flat} is negative")
    for i, (s, o, e) in enumerate(zip(shape, offset, extent)):
        if min(s, o, e) < 0:
            raise ValueError(f"{name}: a size or an offset is negative")
        out.shape[i], out.offset[i], out.extent[i] = s, o, e
    out.flat_start, out.flat_count = flat
    return out


def count(extent):
    return math.prod(extent)
