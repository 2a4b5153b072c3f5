#!/usr/bin/env python3
"""Files that the Python rank client writes in torch.save()'s place; no store is
needed.  See rank_place.py."""
import io
import os
import sys
import tempfile

from rank_place import alone, fails, main

import torch

from ckptfs import torchfile

MIB = 1 << 20


def objects():
    base = torch.arange(1000, dtype=torch.float32)
    yield {"a": base, "view": base[10:20], "matrix": base.view(50, 20).t(),
           "half": torch.ones(3, 5, dtype=torch.bfloat16),
           "none": torch.zeros(0), "one": torch.tensor(3.5),
           "f8": torch.zeros(7, dtype=torch.float8_e4m3fn),
           "u16": torch.arange(3, dtype=torch.int32).to(torch.uint16),
           "conj": torch.view_as_complex(torch.rand(3, 2)).conj(),
           "parameter": torch.nn.Parameter(torch.rand(3, 4).t()),
           "plain": [1, 2.5, "x", None]}
    yield torch.nn.Linear(3, 4).state_dict()
    yield torch.rand(70000)
    yield {"nothing": ()}


def same_but_identity(want, got):
    """The digits of the record that nobody reads, and its CRC, are ours."""
    assert len(want) == len(got)
    at = want.index(b".data/serialization_id")
    odd = [i for i, (a, b) in enumerate(zip(want, got)) if a != b]
    assert len(odd) <= 40 + 8 and odd[0] > at, odd


@alone
def test_torchfile_is_torch_save():
    """Byte for byte, where the CRCs of storages are asked for."""
    for obj in objects():
        want, got = io.BytesIO(), io.BytesIO()
        torch.save(obj, want)
        torchfile.save(obj, got, crc=True)
        same_but_identity(want.getvalue(), got.getvalue())
    for tensor in (torch.rand(7, 5), torch.tensor(3), torch.rand(5, 3).t(),
                   torch.zeros(0, 4), torch.zeros(3, dtype=torch.float8_e5m2)):
        want, got = io.BytesIO(), io.BytesIO()
        torch.save(tensor, want)
        torchfile.save_tensor(tensor, got, crc=True)
        same_but_identity(want.getvalue(), got.getvalue())


@alone
def test_torchfile_loads():
    base = torch.arange(1000, dtype=torch.float32)
    obj = {"a": base, "view": base[10:20], "matrix": base.view(50, 20).t()}
    with tempfile.TemporaryDirectory() as tmp:
        path = f"{tmp}/some.model.pt"
        torchfile.save(obj, path)
        for options in ({}, {"weights_only": False}, {"mmap": True}):
            got = torch.load(path, **options)
            assert all(torch.equal(got[k], obj[k]) for k in obj)
            assert got["view"].storage_offset() == 10
            assert got["matrix"].stride() == (1, 20)
            got["a"][15] = -1
            assert got["view"][5] == -1, "the storage is no longer shared"
        # Only its own elements, not what else is in the storage.
        torchfile.save_tensor(base[10:20], path)
        assert os.path.getsize(path) < 2000
        assert torch.equal(torch.load(path), base[10:20])


@alone
def test_torchfile_refuses():
    out = io.BytesIO()
    base = torch.zeros(8)
    fails(RuntimeError, "two dtypes", torchfile.save,
          [base, base.view(torch.int32)], out)
    assert out.getvalue() == b""


class Layout(io.RawIOBase):
    """The small parts of a file, and where the large ones are."""

    def __init__(self):
        self.small, self.large, self.at = bytearray(), [], 0

    def write(self, data):
        data = memoryview(data)
        if data.nbytes > MIB:
            self.large.append((self.at, data.nbytes))
        else:
            self.small += data.cast("B")
        self.at += data.nbytes
        return data.nbytes


@alone
def test_torchfile_beyond_4_gib():
    """Never touched memory, so none is used; CRCs are off in both."""
    obj = {"a": torch.empty(2**32 + 64, dtype=torch.uint8),
           "b": torch.zeros(3), "c": torch.ones(5)}
    want, got = Layout(), Layout()
    old = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    torch.save(obj, want)
    torch.serialization.set_crc32_options(old)
    torchfile.save(obj, got)
    assert (want.at, want.large) == (got.at, got.large)
    # 40 digits; CRCs of six small records, twice each
    odd = sum(a != b for a, b in zip(want.small, got.small))
    assert odd <= 40 + 6 * 8, odd


if __name__ == "__main__":
    sys.exit(main(globals()))
