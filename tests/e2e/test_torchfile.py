#!/usr/bin/env python3
"""Files of the real torch.save, read and written back by torch_rewrite, must
load as the same objects: types, dtypes, strides, element bits, sharing.

    test_torchfile.py PATH/TO/torch_rewrite [-k NAME]

The random graphs take their seed from $CFS_SEED.
"""
import argparse
import collections
import enum
import io
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import types
import warnings
import zipfile

try:
    import numpy
    import torch
except ImportError as missing:
    # the interpreter that scripts/install-deps.sh prepares, if it is there
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    venv = os.environ.get("CKPTFS_VENV", f"{cache}/ckptfs/venv")
    python = f"{venv}/bin/python"
    if not sys.prefix.startswith(venv) and os.access(python, os.X_OK):
        os.execv(python, [python, *sys.argv])
    print(f"skipped: {missing}")
    sys.exit(77)

warnings.filterwarnings("ignore")


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Plain:
    """Pickled by NEWOBJ and BUILD."""

    def __init__(self, **items):
        self.__dict__.update(items)


class Slots:
    __slots__ = ("a", "b")


class Outer:
    class Inner(Plain):
        pass


class Lists(list):
    pass


class Dicts(dict):
    pass


class Keyword:
    """Pickled by NEWOBJ_EX from protocol 4 on."""

    def __new__(cls, *, a, b=2):
        self = super().__new__(cls)
        self.a, self.b = a, b
        return self

    def __getnewargs_ex__(self):
        return (), {"a": self.a, "b": self.b}


def named(**items):
    return argparse.Namespace(**items)


def views():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    return {"base": base, "row": base[1], "column": base[:, 2],
            "transposed": base.t(), "again": base, "part": base[1:3, 2:5],
            "flat": base.view(-1), "none": base[4:]}


def module():
    torch.manual_seed(7)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    net.add_module("tied", torch.nn.Linear(3, 5))
    net.tied.weight = net[0].weight
    return net


def optimizer():
    net = module()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    (net[:2](torch.ones(4, 3)) + net.tied(torch.ones(4, 3))).sum().backward()
    opt.step()
    return {"model": net.state_dict(), "optimizer": opt.state_dict(),
            "step": 17, "rng": torch.get_rng_state()}


def recursive_list():
    out = [1]
    out.append(out)
    return out


def recursive_dict():
    out = {"name": "x"}
    out["self"] = (out, [out])
    return out


def recursive_object():
    a, b = Plain(), Plain()
    a.peer, b.peer = b, a
    a.own = (a, {"b": b})
    return [a, b, a]


def recursive_tuple():
    inner = []
    out = (inner, 2, 3, 4, 5)
    inner.append(out)
    inner.append((inner,))
    return out


def every_dtype():
    out = {}
    for name in ("float64", "float32", "float16", "bfloat16", "int64",
                 "int32", "int16", "int8", "uint8", "uint16", "uint32",
                 "uint64", "bool", "complex64", "complex128",
                 "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
                 "float8_e5m2fnuz"):
        dtype = getattr(torch, name, None)
        if dtype is not None:
            raw = torch.arange(48, dtype=torch.uint8) % 2
            out[name] = raw.view(dtype)
    return out


def with_state():
    t = torch.ones(3)
    t.note = {"why": "python attribute"}
    p = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)
    p.tensor_model_parallel = True
    return [t, p, torch.nn.Parameter(torch.zeros(3))]


def quantised():
    return {"per_tensor": torch.quantize_per_tensor(
                torch.arange(6.0), 0.5, 3, torch.quint8),
            "per_channel": torch.quantize_per_channel(
                torch.arange(6.0).reshape(2, 3), torch.tensor([0.5, 1.0]),
                torch.tensor([0, 1]), 0, torch.qint8)}


def sparse():
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    return {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr()}


def numbers():
    return [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -2**31,
            -2**31 - 1, 2**63 - 1, 2**63, -2**63, -2**63 - 1, 2**64, 10**30,
            -10**30, 1 << 2100, -(1 << 2100), 0.0, -0.0, 1e300,
            float("inf"), float("-inf"), float("nan"), True, False, None,
            1j, ..., NotImplemented]


def texts():
    return ["", "a\0b", "naïve", "\N{SNOWMAN}", "\U0001f600", "\ud800",
            "x" * 300, "line\nline\r\\u0041\\", b"", b"abc", bytes(range(256)),
            bytearray(), bytearray(b"\xff\x00"), b"z" * 70000]


CASES = {
    "numbers": numbers,
    "texts": texts,
    "empty": lambda: [(), [], {}, set(), frozenset(),
                      collections.OrderedDict()],
    "nested": lambda: {"a": [{"b": ({"c": [1, 2, (3,)]},)}], 1: 2,
                       (1, "x"): None, None: 3, True: 4, 2.5: 5},
    "many": lambda: {"l": list(range(2501)),
                     "d": {i: str(i) for i in range(3001)},
                     "o": collections.OrderedDict(
                         (str(i), i) for i in range(1001)),
                     "one_more": list(range(1001))},
    "sets": lambda: {"s": {1, 2, 3}, "f": frozenset("ab"), "n": {(1, 2)},
                     "big": set(range(2000))},
    "collections": lambda: [collections.Counter("abca"),
                            collections.defaultdict(list, {"a": [1]}),
                            collections.deque([1, 2], maxlen=5)],
    "shared": lambda: (lambda x, t: [x, x, {"k": x, "t": t}, t, (t, t)])(
        ["shared"], (1, ["in tuple"])),
    "namespace": lambda: named(lr=0.1, layers=[1, 2], sub=named(x=1)),
    "enum": lambda: {"c": Colour.RED, "l": [Colour.BLUE, Colour.RED]},
    "objects": lambda: [Plain(a=1, b=Plain(c=2)), Lists([1, 2, 3]),
                        Dicts(a=1, b=2), Outer.Inner(x=3), Keyword(a=5),
                        pathlib.PurePosixPath("/a/b"), slice(1, 2),
                        range(3), collections.OrderedDict, len],
    "recursive_list": recursive_list,
    "recursive_dict": recursive_dict,
    "recursive_object": recursive_object,
    "recursive_tuple": recursive_tuple,
    "views": views,
    "dtypes": every_dtype,
    "zero_size": lambda: {"a": torch.empty(0), "b": torch.empty(3, 0, 2),
                          "c": torch.tensor(5), "d": torch.ones(4)[4:]},
    "size": lambda: [torch.Size([2, 3]), torch.Size([]), torch.device("cpu"),
                     torch.device("cuda", 1), torch.float32, torch.bfloat16],
    "module": module,
    "state_dict": lambda: module().state_dict(),
    "optimizer": optimizer,
    "parameters": with_state,
    "requires_grad": lambda: [torch.ones(2, requires_grad=True)],
    "conj": lambda: [torch.ones(2, dtype=torch.complex64).conj()],
    "quantised": quantised,
    "sparse": sparse,
    "meta": lambda: [torch.empty(3, 4, device="meta")],
    "storage": lambda: [torch.arange(5).untyped_storage(),
                        torch.arange(5.0).storage()],
    "numpy": lambda: {"a": numpy.arange(12.0).reshape(3, 4),
                      "f": numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
                      "s": numpy.float32(1.5), "o": numpy.array(["a", "bc"]),
                      "e": numpy.empty((0, 3)),
                      "r": numpy.random.RandomState(3).get_state()},
    "large": lambda: {"a": torch.arange(1 << 19, dtype=torch.int32),
                      "b": torch.zeros(5)},
    "records": lambda: {f"p{i}": torch.full((i % 5,), float(i))
                        for i in range(1100)},
}


class Graph:
    """Random objects that share parts and hold themselves."""

    def __init__(self, seed):
        self.random, self.pool = random.Random(seed), []

    def leaf(self):
        r = self.random
        return r.choice([
            lambda: r.randrange(-2**70, 2**70), lambda: r.randrange(300),
            r.random, lambda: "".join(r.choices("a\u00e9\u2603\n\0", k=5)),
            lambda: r.randbytes(r.randrange(6)), lambda: None, lambda: True,
            lambda: bytearray(b"xy"), lambda: Colour.RED,
            lambda: torch.arange(r.randrange(5)).float(),
            lambda: frozenset([1, r.randrange(9)]),
            lambda: {1, "a", r.randrange(5), (1, 2)}])()

    def make(self, depth):
        r = self.random
        if self.pool and r.random() < 0.25:
            return r.choice(self.pool)
        if not depth or r.random() < 0.2:
            out = self.leaf()
        elif r.random() < 0.2:
            out = tuple(self.make(depth - 1) for _ in range(r.randrange(5)))
        else:
            return self.fill(depth - 1)
        self.pool.append(out)
        return out

    def fill(self, depth):
        kind = self.random.choice([list, dict, Plain, Lists, Dicts,
                                   collections.OrderedDict])
        out = kind()
        self.pool.append(out)
        for i in range(self.random.randrange(5)):
            value = self.make(depth)
            if isinstance(out, list):
                out.append(value)
            elif isinstance(out, dict):
                out[self.random.choice([i, str(i), (i, "t")])] = value
            if isinstance(out, (Plain, Lists, Dicts)):
                setattr(out, f"a{i}", self.make(depth))
        return out


def random_graphs(tool, directory):
    seed = int(os.environ.get("CFS_SEED", random.randrange(2**31)))
    print(f"random graphs: CFS_SEED={seed}")
    chooser = random.Random(seed)
    for i in range(60):
        source, target = directory / "random.pt", directory / "rewritten.pt"
        kwargs = chooser.choice([
            {}, {"pickle_protocol": 3}, {"pickle_protocol": 4},
            {"pickle_protocol": 5},
            {"_use_new_zipfile_serialization": False}])
        torch.save(Graph(seed + i).make(6), source, **kwargs)
        rewrite(tool, source, target)
        Comparison().same(load(source, weights_only=False),
                          load(target, weights_only=False), f"graph {i}")


class Mismatch(Exception):
    pass


class Comparison:
    """Walks both objects at once; each pair of objects once."""

    def __init__(self):
        self.pairs, self.keep = set(), []
        self.left, self.right = {}, {}

    def must(self, ok, path, what):
        if not ok:
            raise Mismatch(f"{path}: {what}")

    def same(self, a, b, path="root"):
        self.must(type(a) is type(b), path, f"{type(a)} became {type(b)}")
        if (id(a), id(b)) in self.pairs:
            return
        self.pairs.add((id(a), id(b)))
        self.keep.append((a, b))
        if isinstance(a, torch.Tensor):
            self.tensor(a, b, path)
        elif isinstance(a, (torch.UntypedStorage, torch.TypedStorage)):
            self.must(a.tolist() == b.tolist(), path, "storages differ")
        elif isinstance(a, numpy.ndarray):
            self.must(a.dtype == b.dtype and a.strides == b.strides
                      and a.tobytes() == b.tobytes(), path, "arrays differ")
        elif isinstance(a, dict):
            self.items(list(a.items()), list(b.items()), path)
            self.state(a, b, path)
        elif isinstance(a, (list, tuple)):
            self.sharing(a, b, path)
            self.items(a, b, path)
            self.state(a, b, path)
        elif isinstance(a, (set, frozenset)):
            self.items(sorted(a, key=repr), sorted(b, key=repr), path)
        elif isinstance(a, float):
            self.must(struct.pack("d", a) == struct.pack("d", b), path,
                      f"{a} became {b}")
        elif isinstance(a, (type, enum.Enum, types.BuiltinFunctionType)):
            self.must(a is b, path, f"{a} became {b}")
        elif hasattr(a, "__dict__"):
            self.sharing(a, b, path)
            self.state(a, b, path)
        else:
            self.must(a == b, path, f"{a!r} became {b!r}")

    def state(self, a, b, path):
        self.same(getattr(a, "__dict__", None), getattr(b, "__dict__", None),
                  path + ".__dict__")

    def items(self, a, b, path):
        self.must(len(a) == len(b), path, f"length {len(a)}, now {len(b)}")
        for i, (x, y) in enumerate(zip(a, b)):
            self.same(x, y, f"{path}[{i}]")

    def sharing(self, a, b, path):
        if isinstance(a, tuple) and not a:
            return
        self.must(self.left.setdefault(id(a), id(b)) == id(b), path,
                  "one object became two")
        self.must(self.right.setdefault(id(b), id(a)) == id(a), path,
                  "two objects became one")

    def tensor(self, a, b, path):
        for name in ("dtype", "shape", "layout", "requires_grad", "device",
                     "is_quantized", "is_sparse"):
            x, y = getattr(a, name), getattr(b, name)
            self.must(x == y, path, f"{name} {x} became {y}")
        self.must(a.is_conj() == b.is_conj(), path, "conj")
        self.same(a.__dict__, b.__dict__, path + ".__dict__")
        if a.device.type == "meta":
            return
        if a.is_sparse:
            a, b = a.coalesce(), b.coalesce()
            self.same(a.indices(), b.indices(), path)
            self.same(a.values(), b.values(), path)
            return
        if a.layout != torch.strided:
            self.same(a.to_dense(), b.to_dense(), path)
            return
        self.must(a.stride() == b.stride(), path, "strides")
        self.must(a.storage_offset() == b.storage_offset(), path, "offset")
        x, y = a.untyped_storage(), b.untyped_storage()
        if x.nbytes():
            self.must(self.left.setdefault(("s", x.data_ptr()), y.data_ptr())
                      == y.data_ptr(), path, "one storage became two")
        if ("c", x.data_ptr(), y.data_ptr()) in self.pairs:
            return
        self.pairs.add(("c", x.data_ptr(), y.data_ptr()))
        self.must(torch.equal(raw(x), raw(y)), path, "bytes differ")


def raw(storage):
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def load(path, **kwargs):
    return torch.load(path, map_location=None, **kwargs)


def loads(path, **kwargs):
    try:
        load(path, **kwargs)
        return True
    except Exception:
        return False


def check_layout(path):
    """The records of torch 2.1 to 2.6, aligned, their CRCs real."""
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
        if bad:
            raise Mismatch(f"{path}: CRC of {bad}")
        names = [i.filename for i in archive.infolist()]
        inner = [n.split("/", 1)[1] for n in names]
        keys = [f"data/{i}" for i in range(len(inner) - 4)]
        if inner != ["data.pkl", "byteorder", *keys, "version",
                     ".data/serialization_id"]:
            raise Mismatch(f"{path}: records {names[:20]}")
        with open(path, "rb") as f:
            for info in archive.infolist():
                f.seek(info.header_offset + 26)
                name, extra = struct.unpack("<HH", f.read(4))
                if (info.header_offset + 30 + name + extra) % 64:
                    raise Mismatch(f"{path}: {info.filename} is not aligned")


def rewrite(tool, source, target, *options):
    done = subprocess.run([tool, *options, str(source), str(target)],
                          capture_output=True, text=True)
    if done.returncode:
        raise Mismatch(done.stderr.strip())


def check(tool, source, directory):
    target = directory / "rewritten.pt"
    rewrite(tool, source, target)
    first = target.read_bytes()
    Comparison().same(load(source, weights_only=False),
                      load(target, weights_only=False))
    if loads(source, weights_only=True):
        Comparison().same(load(source, weights_only=True),
                          load(target, weights_only=True))
    Comparison().same(load(source, weights_only=False),
                      load(target, weights_only=False, mmap=True))
    rewrite(tool, source, target, "--crc")
    check_layout(target)
    rewrite(tool, source, target)
    if target.read_bytes() != first:
        raise Mismatch("the same input gave other bytes")
    # what was written is read again, and nothing is lost on the way
    again = directory / "again.pt"
    rewrite(tool, target, again)
    Comparison().same(load(target, weights_only=False),
                      load(again, weights_only=False))


def variants(name):
    yield "zip", {}
    yield "protocol4", {"pickle_protocol": 4}
    yield "protocol5", {"pickle_protocol": 5}
    # what torch cannot load from its own legacy files is left out
    if name not in ("conj", "meta", "dtypes", "storage"):
        yield "legacy", {"_use_new_zipfile_serialization": False}
        yield "legacy4", {"_use_new_zipfile_serialization": False,
                          "pickle_protocol": 4}


def refusals(tool, directory):
    """Files of other kinds are refused by name."""
    def expect(text, data, name):
        source = directory / name
        source.write_bytes(data)
        done = subprocess.run([tool, source, directory / "x"],
                              capture_output=True, text=True)
        if done.returncode != 1 or text not in done.stderr:
            raise Mismatch(f"{name}: {done.returncode} {done.stderr}")

    buf = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buf)
    expect("TorchScript", buf.getvalue(), "jit.pt")
    buf = io.BytesIO()
    torch.save({"a": torch.arange(100.0)}, buf)
    whole = buf.getvalue()
    expect("no end record", whole[:-1], "cut.pt")
    expect("not a file of torch.save", b"x" + whole, "shifted.pt")
    expect("not a file of torch.save", b"hello", "text.pt")
    expect("empty", b"", "empty.pt")
    buf = io.BytesIO()
    torch.save({"a": torch.arange(100.0)}, buf,
               _use_new_zipfile_serialization=False)
    expect("truncated", buf.getvalue()[:-1], "legacy_cut.pt")
    expect("the stream ends", buf.getvalue()[:200], "legacy_head.pt")


def compressed(tool, directory):
    """An archive that Python's zipfile made anew, its pickle deflated."""
    source, other = directory / "plain.pt", directory / "zipfile.pt"
    obj = {"a": torch.arange(10), "b": ["x"] * 50}
    torch.save(obj, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(other, "w") as new:
        for info in reversed(old.infolist()):
            kind = (zipfile.ZIP_DEFLATED if info.filename.endswith(".pkl")
                    else zipfile.ZIP_STORED)
            new.writestr(info.filename, old.read(info), compress_type=kind)
    check(tool, other, directory)


def main():
    tool = os.path.abspath(sys.argv[1])
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    failed = count = 0
    with tempfile.TemporaryDirectory(prefix="cfs-torchfile-") as tmp:
        directory = pathlib.Path(tmp)
        jobs = [("refusals", lambda: refusals(tool, directory)),
                ("compressed", lambda: compressed(tool, directory)),
                ("random", lambda: random_graphs(tool, directory))]
        for name, make in CASES.items():
            for variant, kwargs in variants(name):
                def job(make=make, kwargs=kwargs, variant=variant, name=name):
                    source = directory / "source.pt"
                    try:
                        torch.save(make(), source, **kwargs)
                    except Exception as error:
                        print(f"note  {name}/{variant}: torch cannot save "
                              f"it: {str(error)[:60]}")
                        return
                    check(tool, source, directory)
                jobs.append((f"{name}/{variant}", job))
        for name, job in jobs:
            if only not in name:
                continue
            count += 1
            try:
                job()
            except Mismatch as error:
                failed += 1
                print(f"FAIL  {name}: {error}")
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {type(error).__name__}: {error}")
    print(f"{count} cases, {failed} failed")
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main())
