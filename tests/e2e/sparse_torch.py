"""Files as torch.save makes them, of tensors that are mostly holes.

A file of many gigabytes takes some kilobytes of disk.  Chosen elements have
bytes (`Storage.marks`).  load() reads such a file, or what a view makes of it,
back into the same objects without reading payloads.
"""
import collections
import io
import os
import pickle
import struct
import zipfile
import zlib

import torch

ITEM = {torch.FloatStorage: 4, torch.BFloat16Storage: 2, torch.HalfStorage: 2,
        torch.ByteStorage: 1, torch.LongStorage: 8}


class Storage:
    """@marks: bytes of elements by index.  @fill: a function of a length that
    gives all the bytes, a piece at a time, instead of a hole."""

    def __init__(self, cls, numel, fill=None):
        self.cls, self.numel, self.marks, self.fill = cls, numel, {}, fill
        self.at = None  # where in the file that load() read

    @property
    def size(self):
        return self.numel * ITEM[self.cls]


class Tensor:
    """Pickles as torch would pickle a contiguous tensor over `storage`."""

    def __init__(self, storage, offset, shape, grad=False):
        self.storage, self.offset = storage, offset
        self.shape, self.grad = tuple(shape), grad

    @property
    def numel(self):
        return numel(self.shape)

    @property
    def stride(self):
        stride, run = [], 1
        for n in reversed(self.shape):
            stride.insert(0, run)
            run *= n
        return tuple(stride)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (
            self.storage, self.offset, self.shape, self.stride,
            self.grad, collections.OrderedDict())


def numel(shape):
    n = 1
    for s in shape:
        n *= s
    return n


def of(tensor):
    """A real tensor of few elements as one of ours, its bytes as marks."""
    cls = {torch.float32: torch.FloatStorage, torch.uint8: torch.ByteStorage,
           torch.float16: torch.HalfStorage, torch.int64: torch.LongStorage,
           torch.bfloat16: torch.BFloat16Storage}[tensor.dtype]
    raw = bytes(tensor.detach().contiguous().flatten().view(
        torch.uint8).tolist())
    s = Storage(cls, tensor.numel())
    n = ITEM[cls]
    s.marks = {i: raw[i * n:i * n + n] for i in range(s.numel)}
    return Tensor(s, 0, tensor.shape, tensor.requires_grad)


class Pickler(pickle.Pickler):
    def __init__(self, out):
        super().__init__(out, protocol=2)
        self.keys = {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        key = self.keys.setdefault(obj, str(len(self.keys)))
        return ("storage", obj.cls, key, "cpu", obj.numel)


class Archive:
    """A stored zip as torch 2.6 lays it out, with holes for payloads."""

    def __init__(self, path):
        self.f = open(path, "wb")
        self.prefix = os.path.basename(path).rsplit(".", 1)[0]
        self.directory = []

    def payload(self, storage):
        at, item = self.f.tell(), ITEM[storage.cls]
        if storage.fill:
            left = storage.size
            while left:
                piece = storage.fill(min(left, 16 << 20))
                self.f.write(piece)
                left -= len(piece)
        for index, raw in storage.marks.items():
            self.f.seek(at + index * item)
            self.f.write(raw)
        self.f.seek(at + storage.size)

    def add(self, name, size, data=None):
        """@data: bytes, or a Storage."""
        name = f"{self.prefix}/{name}".encode()
        at = self.f.tell()
        big, far = size >= 0xFFFFFFFF, at >= 0xFFFFFFFF
        extra = b""
        if big or far:
            body = (struct.pack("<QQ", size, 0) if big else b"") + (
                struct.pack("<Q", at) if far else b"")
            extra = struct.pack("<HH", 1, len(body)) + body
        pad = -(at + 30 + len(name) + 4 + len(extra)) % 64
        extra += b"FB" + struct.pack("<H", pad) + b"Z" * pad
        flags = 0x808 if size else 0x800
        self.f.write(struct.pack("<4sHHHIIIIHH", b"PK\3\4", 0, flags, 0, 0, 0,
                                 0, 0, len(name), len(extra)) + name + extra)
        crc = 0
        if isinstance(data, Storage):
            self.payload(data)
        else:
            crc = zlib.crc32(data)
            self.f.write(data)
        if size:
            self.f.write(b"PK\7\10" + struct.pack("<I", crc) + struct.pack(
                "<QQ" if big or far else "<II", size, size))
        self.directory.append((name, flags, crc, size, at))

    def close(self):
        start = self.f.tell()
        for name, flags, crc, size, at in self.directory:
            body = struct.pack("<QQ", size, size) if size >= 0xFFFFFFFF else b""
            if at >= 0xFFFFFFFF:
                body += struct.pack("<Q", at)
            extra = struct.pack("<HH", 1, len(body)) + body if body else b""
            small = min(size, 0xFFFFFFFF)
            self.f.write(struct.pack(
                "<4sHHHHIIIIHHHHHII", b"PK\1\2", 0, 0, flags, 0, 0, crc, small,
                small, len(name), len(extra), 0, 0, 0, 0,
                min(at, 0xFFFFFFFF)) + name + extra)
        end, n = self.f.tell(), len(self.directory)
        self.f.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x031E, 45, 0,
                                 0, n, n, end - start, start))
        self.f.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        self.f.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, min(n, 0xFFFF),
                                 min(n, 0xFFFF), min(end - start, 0xFFFFFFFF),
                                 min(start, 0xFFFFFFFF), 0))
        self.f.close()


def save(path, obj):
    out = io.BytesIO()
    p = Pickler(out)
    p.dump(obj)
    a = Archive(path)
    a.add("data.pkl", out.tell(), out.getvalue())
    a.add("byteorder", 6, b"little")
    for storage, key in p.keys.items():
        a.add(f"data/{key}", storage.size, storage)
    a.add("version", 2, b"3\n")
    a.close()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, places):
        super().__init__(file)
        self.places, self.storages = places, {}

    def persistent_load(self, pid):
        _, cls, key, _, count = pid
        if key not in self.storages:
            s = self.storages[key] = Storage(cls, count)
            s.at = self.places.get(key)
        return self.storages[key]

    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return _rebuild
        return super().find_class(module, name)


def _rebuild(storage, offset, shape, stride, grad, _hooks, *_):
    t = Tensor(storage, offset, shape, grad)
    if stride != t.stride and numel(shape) > 1:
        raise ValueError(f"stride {stride} of {shape}")
    return t


def load(path):
    """The tree, its storages with `at`; tensors are never read."""
    with zipfile.ZipFile(path) as z, open(path, "rb") as f:
        places = {}
        for i in z.infolist():
            # a hole's central entry has the size, its place is in the local
            f.seek(i.header_offset + 26)
            name, extra = struct.unpack("<HH", f.read(4))
            at = i.header_offset + 30 + name + extra
            head, _, key = i.filename.partition("/data/")
            if key:
                places[key] = at
            if i.filename.endswith("/data.pkl"):
                f.seek(at)
                text = f.read(i.file_size)
        return _Unpickler(io.BytesIO(text), places).load()
