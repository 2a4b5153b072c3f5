"""What torch.save() would write, with storages taken where they lie.

torch.save() into a file object is as good for CPU memory, but copies CUDA
storages to pageable memory first, one after another, and takes a CRC of every
byte unless a global switch says otherwise.  Here a storage goes by its pointer
(on the current stream, if the file object takes tensors), so one way serves
both.  The layout is that of torch 2.7 and later: readers that compute where
storages lie, rather than look, find them.

CRCs of the small records are real; those of storages are 0, as torch writes
them with its CRC computation off: no reader of torch looks at them.
"""
import collections
import ctypes
import hashlib
import io
import os
import pickle
import struct
import sys
import zlib

import torch

ALIGNMENT = 64
LIMIT = 0xFFFFFFFF


class _Zip:
    """Writes records at aligned places; all sizes are known beforehand."""

    def __init__(self, out, prefix):
        self._out, self._prefix = out, prefix
        self._at = 0
        self._central = []
        self._pending = b""  # not yet written, so that small parts go together

    def _emit(self, data):
        self._pending += data
        self._at += len(data)

    def _flush(self):
        if self._pending:
            self._out.write(self._pending)
        self._pending = b""

    def _local(self, name, size, big):
        extra = b""
        if big:
            fields = b""
            if size >= LIMIT:
                fields += struct.pack("<QQ", size, 0)
            if self._at >= LIMIT:
                fields += struct.pack("<Q", self._at)
            extra = struct.pack("<HH", 1, len(fields)) + fields
        start = self._at + 30 + len(name) + len(extra) + 4
        pad = -start % ALIGNMENT
        extra += struct.pack("<2sH", b"FB", pad) + b"Z" * pad
        flags = 0x0808 if size else 0x0800
        return struct.pack("<4s5H3L2H", b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0,
                           len(name), len(extra)) + name + extra

    def add(self, name, size, crc, write):
        """write(out) writes `size` bytes, after all that came before."""
        name = f"{self._prefix}/{name}".encode()
        offset, big = self._at, size >= LIMIT or self._at >= LIMIT
        self._emit(self._local(name, size, big))
        if size:
            if isinstance(write, bytes):
                self._emit(write)
            else:
                self._flush()
                write(self._out)
                self._at += size
            self._emit(struct.pack("<4sL" + ("QQ" if big else "LL"),
                                   b"PK\7\x08", crc, size, size))
        self._central.append((name, size, crc, offset))

    def add_bytes(self, name, data):
        self.add(name, len(data), zlib.crc32(data), data)

    def _entry(self, name, size, crc, offset):
        fields = b""
        if size >= LIMIT:
            fields += struct.pack("<QQ", size, size)
        if offset >= LIMIT:
            fields += struct.pack("<Q", offset)
        extra = struct.pack("<HH", 1, len(fields)) + fields if fields else b""
        shown = min(size, LIMIT)
        return struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 0, 0, 0x0808 if size else 0x0800, 0, 0,
            0, crc, shown, shown, len(name), len(extra), 0, 0, 0, 0,
            min(offset, LIMIT)) + name + extra

    def finish(self):
        start, n = self._at, len(self._central)
        for entry in self._central:
            self._emit(self._entry(*entry))
        size, end = self._at - start, self._at
        self._emit(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 0x031E, 45, 0, 0,
                               n, n, size, start))
        self._emit(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        self._emit(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, min(n, 0xFFFF),
                               min(n, 0xFFFF), min(size, LIMIT),
                               min(start, LIMIT), 0))
        self._flush()


class _Storages:
    """The storages met while pickling, in that order."""

    def __init__(self, location):
        self._location = location
        self._keys = {}
        self._dtypes = {}
        self.found = []

    def _typed(self, obj):
        if isinstance(obj, torch.storage.TypedStorage):
            return (obj._untyped_storage, obj.dtype, obj._size(),
                    getattr(torch, obj._pickle_storage_type()))
        kind = torch.serialization.normalize_storage_type(type(obj))
        return obj, torch.uint8, obj.nbytes(), kind

    def persistent_id(self, obj):
        if isinstance(obj, Blob):
            self.found.append(obj.tensor)
            return ("storage", obj.kind, "0", self._location, obj.numel)
        if not (isinstance(obj, torch.storage.TypedStorage)
                or torch.is_storage(obj)):
            return None
        storage, dtype, numel, kind = self._typed(obj)
        if storage.device.type == "meta":
            raise ValueError("a storage without memory cannot be saved")
        where = storage.data_ptr()
        if where and self._dtypes.setdefault(where, dtype) != dtype:
            raise RuntimeError(
                "one storage is viewed as two dtypes: it cannot be saved, "
                "because loading would tear the views apart")
        key = self._keys.get(storage._cdata)
        if key is None:
            key = self._keys[storage._cdata] = str(len(self._keys))
            self.found.append(storage)
        location = self._location or torch.serialization.location_tag(storage)
        return ("storage", kind, key, location, numel)


class Blob:
    """Stands for the storage that a tensor's elements alone would fill."""

    def __init__(self, tensor):
        typed = torch.storage._dtype_to_storage_type_map()
        self.tensor = tensor
        if tensor.dtype in typed:
            self.kind, self.numel = (getattr(torch, typed[tensor.dtype]),
                                     tensor.numel())
        else:
            self.kind, self.numel = torch.UntypedStorage, tensor.nbytes


class _Rebuilt:
    """Pickles as the call that makes a tensor of a Blob."""

    def __init__(self, tensor):
        blob = Blob(tensor)
        self._args = (blob, 0, tuple(tensor.size()), tensor.stride(),
                      tensor.requires_grad, collections.OrderedDict())
        self._call = torch._utils._rebuild_tensor_v2
        if blob.kind is torch.UntypedStorage:
            self._call = torch._utils._rebuild_tensor_v3
            self._args += (tensor.dtype,)

    def __reduce__(self):
        return self._call, self._args


def _bytes_tensor(found):
    """A storage's or contiguous tensor's bytes, as a tensor of uint8."""
    if isinstance(found, torch.Tensor):
        return found.detach().reshape(-1).view(torch.uint8)
    flat = torch.empty(0, dtype=torch.uint8, device=found.device)
    return flat.set_(found)


def _view(tensor):
    """The memory of a CPU tensor of uint8; numpy may be absent."""
    array = (ctypes.c_ubyte * tensor.numel()).from_address(tensor.data_ptr())
    return memoryview(array).cast("B")


class _Copier:
    """Writes a storage into the file object."""

    def __init__(self, tensor, by_pointer):
        self._tensor, self._by_pointer = tensor, by_pointer

    def __call__(self, out):
        if self._by_pointer and self._tensor.device.type in ("cpu", "cuda"):
            out.write(self._tensor)
            return
        host = self._tensor.cpu()
        out.write(_view(host))


def _crc(tensor):
    return zlib.crc32(_view(tensor.cpu())) if tensor.numel() else 0


def _identity(records):
    """Forty digits, the same for the same names, sizes and pickle."""
    text = repr([(name, len(data)) for name, data in records]).encode()
    digest = hashlib.sha256(text + records[0][1]).digest()
    return b"%020d%020d" % struct.unpack("<QQ", digest[:16])


def _write(obj, out, prefix, location, crc):
    buffer, storages = io.BytesIO(), _Storages(location)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return storages.persistent_id(obj)

    Pickler(buffer, protocol=2).dump(obj)
    head = [("data.pkl", buffer.getvalue()), (".format_version", b"1"),
            (".storage_alignment", str(ALIGNMENT).encode()),
            ("byteorder", sys.byteorder.encode())]
    writer = _Zip(out, prefix)
    by_pointer = getattr(out, "takes_tensors", False)
    for name, data in head:
        writer.add_bytes(name, data)
    for key, found in enumerate(storages.found):
        tensor = _bytes_tensor(found)
        writer.add(f"data/{key}", tensor.numel(), _crc(tensor) if crc else 0,
                   _Copier(tensor, by_pointer))
    writer.add_bytes("version", b"3\n")
    writer.add_bytes(".data/serialization_id", _identity(head))
    writer.finish()


def prefix_of(path):
    """What torch calls the archive's directory."""
    return os.path.splitext(os.path.basename(os.fspath(path)))[0] or "archive"


def save(obj, file, *, prefix="archive", location=None, crc=False):
    """torch.save(obj, file) into a path or a file object with write().

    location: what every storage's place is said to be ("cpu"); None: where it
        is
    crc: take the CRC of storages too, for readers other than torch
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, "wb") as out:
            _write(obj, out, prefix_of(file), location, crc)
    else:
        _write(obj, file, prefix, location, crc)


def _is_plain(tensor):
    return (type(tensor) is torch.Tensor and tensor.layout == torch.strided
            and not tensor.is_quantized and tensor.is_contiguous()
            and not tensor.is_conj() and not tensor.is_neg()
            and not torch._utils.get_tensor_metadata(tensor))


def save_tensor(tensor, file, *, prefix="archive", crc=False):
    """A file with one tensor, as if on the CPU, and with no more of its
    storage than its own elements."""
    tensor = tensor.detach()
    if not _is_plain(tensor):
        tensor = tensor.cpu()
        if tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        save(tensor, file, prefix=prefix, crc=crc)
        return
    save(_Rebuilt(tensor), file, prefix=prefix, location="cpu", crc=crc)
