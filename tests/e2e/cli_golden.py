"""The golden steps, and where an element of a file in one of them lies."""
import os
import struct
import zipfile

from cli_place import ROOT, run_json

SIZE = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8, "f64": 8, "u8": 1}


def golden_runs():
    top = f"{ROOT}/tests/data"
    for version in sorted(os.listdir(top)):
        if version.startswith("deepspeed-"):
            for name in sorted(os.listdir(f"{top}/{version}")):
                if os.path.exists(f"{top}/{version}/{name}/latest"):
                    yield version, name


def tensors(path):
    return {t["path"]: t for t in run_json("show", path)["tensors"]}


def element_at(path, tensor, index):
    """Where element @index of a contiguous tensor lies in the file."""
    t = tensors(path)[tensor]
    with zipfile.ZipFile(path) as z:
        info = [i for i in z.infolist()
                if i.filename.endswith(f"/data/{t['storage']}")][0]
        assert info.compress_type == zipfile.ZIP_STORED
    with open(path, "rb") as f:
        f.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", f.read(4))
    data = info.header_offset + 30 + name + extra
    return data + SIZE[t["dtype"]] * (t["storage_offset"] + index)


def patch(path, tensor, index, raw):
    off = element_at(path, tensor, index)
    with open(path, "r+b") as f:
        f.seek(off)
        f.write(raw)
