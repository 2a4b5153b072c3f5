"""libckptfs_rank.so as ckptfs/rank.h declares it, and nothing more."""
import ctypes as C
import os
import shutil
import threading

SONAMES = ("libckptfs_rank.so.0", "libckptfs_rank.so")
RELEASE = "0.1."
DIMS_MAX = 8
HOST, CUDA = 0, 1


class CkptfsError(OSError):
    """errno, and the reason in words."""


BROADCAST = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_void_p, C.c_size_t)


class Comm(C.Structure):
    _fields_ = [("size", C.c_size_t), ("rank", C.c_uint32),
                ("n_ranks", C.c_uint32), ("broadcast", BROADCAST),
                ("arg", C.c_void_p)]


class Progress(C.Structure):
    _fields_ = [("size", C.c_size_t), ("what", C.c_char_p),
                ("done_bytes", C.c_uint64), ("total_bytes", C.c_uint64)]


PROGRESS = C.CFUNCTYPE(None, C.c_void_p, C.POINTER(Progress))


class Options(C.Structure):
    _fields_ = [("size", C.c_size_t), ("comm", C.POINTER(Comm)),
                ("ring_bytes", C.c_uint64), ("timeout_s", C.c_uint32),
                ("progress", PROGRESS), ("progress_arg", C.c_void_p)]


class Tensor(C.Structure):
    _fields_ = [("size", C.c_size_t), ("name", C.c_char_p),
                ("role", C.c_char_p), ("dtype", C.c_uint32),
                ("ndim", C.c_uint32), ("shape", C.c_uint64 * DIMS_MAX),
                ("offset", C.c_uint64 * DIMS_MAX),
                ("extent", C.c_uint64 * DIMS_MAX),
                ("flat_start", C.c_uint64), ("flat_count", C.c_uint64)]


class SaveOptions(C.Structure):
    _fields_ = [("size", C.c_size_t), ("format", C.c_char_p),
                ("dp", C.c_uint32), ("tp", C.c_uint32), ("pp", C.c_uint32),
                ("zero_stage", C.c_int32), ("pointer", C.c_char_p),
                ("replace", C.c_uint32)]


LIST = C.CFUNCTYPE(C.c_int, C.c_void_p, C.POINTER(Tensor))

# What a C compiler makes of them where pointers have 8 bytes, the only place
# where ckptfs runs.
for _struct, _size in ((Comm, 32), (Progress, 32), (Options, 48),
                       (Tensor, 240), (SaveOptions, 48)):
    assert C.sizeof(_struct) == _size, _struct

_P, _S, _U64 = C.c_void_p, C.c_char_p, C.c_uint64
_OUT = C.POINTER(C.c_void_p)
_FUNCTIONS = {
    "error": (_S,),
    "version": (_S,),
    "open": (C.c_int, _S, C.POINTER(Options), _OUT),
    "close": (None, _P),
    "save_begin": (C.c_int, _P, _S, C.POINTER(SaveOptions), _OUT),
    "put": (C.c_int, _P, C.POINTER(Tensor), _P, C.c_uint32, _P),
    "wait_copied": (C.c_int, _P),
    "put_object": (C.c_int, _P, _S, _P, C.c_size_t),
    "file_begin": (C.c_int, _P, _S, _OUT),
    "file_write": (C.c_int, _P, _P, _U64, C.c_uint32, _P),
    "file_end": (C.c_int, _P),
    "commit": (C.c_int, _P),
    "wait": (C.c_int, _P),
    "test": (C.c_int, _P),
    "abort": (None, _P, _S),
    "load_open": (C.c_int, _P, _S, _OUT),
    "load_close": (None, _P),
    "load_step": (_S, _P),
    "list": (C.c_int, _P, LIST, _P),
    "get": (C.c_int, _P, C.POINTER(Tensor), _P, C.c_uint32, _P),
    "get_object": (C.c_int, _P, _S, _OUT, C.POINTER(C.c_size_t)),
    "file_size": (C.c_int, _P, _S, C.POINTER(_U64)),
    "file_read": (C.c_int, _P, _S, _U64, _U64, _P, C.c_uint32, _P),
}

_lock = threading.Lock()
_loaded = None


def _candidates():
    """Where the library may be, in the order asked: (path, must be it)."""
    named = os.environ.get("CKPTFS_RANK_LIB")
    if named:
        return [(named, True)]
    out = [(name, False) for name in SONAMES]
    program = shutil.which("ckptfs")
    if program:
        prefix = os.path.dirname(os.path.dirname(os.path.realpath(program)))
        for sub in ("lib", "lib64", f"lib/{os.uname().machine}-linux-gnu",
                    "bin"):
            out += [(f"{prefix}/{sub}/{name}", False) for name in SONAMES]
    return out


def _declare(lib):
    for name, (result, *args) in _FUNCTIONS.items():
        function = getattr(lib, "cfs_rank_" + name)
        function.restype, function.argtypes = result, args
    version = lib.cfs_rank_version().decode()
    if not version.startswith(RELEASE):
        raise CkptfsError(
            71, f"{lib._name} is release {version}, this module needs "
            f"{RELEASE}x: install both from one release")
    return lib


def _find():
    why = []
    for path, sure in _candidates():
        try:
            return _declare(C.CDLL(path))
        except CkptfsError:
            raise
        except (OSError, AttributeError) as err:
            if sure or os.path.exists(path):
                why.append(f"{path}: {err}")
    raise CkptfsError(
        2, "libckptfs_rank.so is not found: install ckptfs, or say where it "
        "is by CKPTFS_RANK_LIB" + "".join(f" ({w})" for w in why))


def lib():
    """The library, loaded once."""
    global _loaded
    with _lock:
        if _loaded is None:
            _loaded = _find()
        return _loaded


def text(value, what):
    """Bytes for C, where a NUL would end them: two names might become one."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a {type(value).__name__}, not a string")
    if "\0" in value:
        raise ValueError(f"{what} {value!r} has a NUL in it")
    return value.encode()


def check(code):
    """Raises what this thread's last call said."""
    if code < 0:
        text = lib().cfs_rank_error().decode(errors="replace")
        raise CkptfsError(-code, text or os.strerror(-code))
    return code


def call(name, *args):
    return check(getattr(lib(), "cfs_rank_" + name)(*args))


def opened(name, *args):
    """A call whose last argument is a handle that it makes."""
    out = C.c_void_p()
    call(name, *args, C.byref(out))
    return out
