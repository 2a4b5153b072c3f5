#!/usr/bin/env python3
"""The Python rank client over a real mount; see rank_place.py."""
import errno
import io
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from rank_place import (BIN, PACKAGE, SEED, SOURCE, alone, fails, main,
                        mounted, ranks)

import torch

import ckptfs
from ckptfs import _lib, torchfile

MIB = 1 << 20


# ---- what needs no store ----

@alone
def test_structs():
    """Sizes and offsets are those that the header's compiler sees."""
    if not shutil.which("cc"):
        return
    structs = {"comm": _lib.Comm, "progress": _lib.Progress,
               "options": _lib.Options, "tensor": _lib.Tensor,
               "save_options": _lib.SaveOptions}
    lines, want = [], []
    for name, struct in structs.items():
        lines.append(f"sizeof(struct cfs_rank_{name})")
        want.append(_lib.C.sizeof(struct))
        for field, _ in struct._fields_:
            lines.append(f"offsetof(struct cfs_rank_{name}, {field})")
            want.append(getattr(struct, field).offset)
    with tempfile.TemporaryDirectory() as tmp:
        with open(f"{tmp}/a.c", "w") as f:
            f.write("#include <stdio.h>\n#include \"ckptfs/rank.h\"\n"
                    "int main(void) {\n"
                    + "".join(f'printf("%zu\\n", {x});\n' for x in lines)
                    + "}\n")
        subprocess.run(["cc", f"-I{SOURCE}/include", "-o", f"{tmp}/a",
                        f"{tmp}/a.c"], check=True)
        got = subprocess.run([f"{tmp}/a"], check=True, capture_output=True,
                             text=True).stdout
    assert [int(x) for x in got.split()] == want


@alone
def test_import_is_light():
    """`import torch` must not pay for us, nor be able to fail."""
    code = ("import sys, ckptfs._hook as h; h.install(); h.install();"
            "assert not {'torch', 'numpy', 'deepspeed'} & set(sys.modules);"
            "assert sum(type(f) is h._Watch for f in sys.meta_path) == 1")
    subprocess.run([sys.executable, "-c", code], check=True,
                   env=dict(os.environ, PYTHONPATH=PACKAGE))


@alone
def test_pip_installs_it():
    """And then `import torch` finds the hook by itself."""
    with tempfile.TemporaryDirectory() as tmp:
        shutil.copytree(PACKAGE, f"{tmp}/src", ignore=shutil.ignore_patterns(
            "build", "*.egg-info", "__pycache__"))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q",
                        "--no-deps", "--no-index", "--no-build-isolation",
                        "--target", f"{tmp}/site", f"{tmp}/src"], check=True)
        code = ("import sys, torch, ckptfs;"
                f"assert ckptfs.__file__.startswith('{tmp}/site');"
                "assert 'ckptfs._hook' in sys.modules;"
                "assert 'ckptfs.rank' not in sys.modules; ckptfs.Rank")
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp,
                       env=dict(os.environ, PYTHONPATH=f"{tmp}/site"))


# ---- over a mount ----

def read(path):
    with open(path, "rb") as f:
        return f.read()


def test_files():
    rng = random.Random(SEED)
    big = torch.randint(0, 255, (3 * MIB + 17,), dtype=torch.uint8)
    with mounted() as s, ckptfs.Rank(f"{s.mnt}/run") as rank:
        with rank.save("step1", format="files", pointer="latest") as save:
            parts = []
            with save.open_file("a/mixed") as out:
                for _ in range(300):
                    part = rng.randbytes(rng.choice((1, 100, 70000)))
                    parts.append(part)
                    assert out.tell() == sum(map(len, parts[:-1]))
                    assert out.write(rng.choice((bytes, bytearray, memoryview))
                                     (part)) == len(part)
            save.put_file("tensor", big)
            save.put_file("stream", io.BytesIO(big.numpy().tobytes()))
            save.put_file("empty", b"")
            save.put_object("rng", b"1234")
            assert not os.path.exists(f"{s.mnt}/run/step1")
        top = f"{s.mnt}/run/step1"
        assert read(f"{s.mnt}/run/latest") == b"step1"
        assert read(f"{top}/a/mixed") == b"".join(parts)
        assert read(f"{top}/tensor") == read(f"{top}/stream") == \
            big.numpy().tobytes()
        assert read(f"{top}/empty") == b""
        said = subprocess.run([BIN, "ls", f"{s.mnt}/run"], text=True,
                              capture_output=True, check=True).stdout
        assert "step1" in said and "whole, latest" in said, said
        with rank.load() as step:
            assert step.step == "step1"
            assert step.object("rng") == b"1234"
            with step.open("a/mixed") as f:
                assert f.read() == b"".join(parts)
                f.seek(-10, 2)
                assert f.read() == b"".join(parts)[-10:]
            assert not step.exists("absent")
        # Below the store's own directory it is the same run.
        with ckptfs.Rank(f"{s.store}/run") as other, \
                other.load("step1") as step, step.open("tensor") as f:
            assert f.read() == big.numpy().tobytes()


def test_nothing_of_a_failed_save():
    with mounted() as s, ckptfs.Rank(f"{s.mnt}/run") as rank:
        try:
            with rank.save("step1", format="files") as save:
                save.put_file("a", b"1")
                raise KeyError("mine")
        except KeyError:
            pass
        with rank.save("step2", format="files", pointer="") as save:
            save.put_file("a", b"2")
        save = rank.save("step3", format="files", pointer="")
        with_error = save.open_file("half")
        with_error.write(b"x" * MIB)
        del with_error  # not closed
        fails(ckptfs.CkptfsError, "half", save.__exit__, None, None, None)
        fails(ckptfs.CkptfsError, "step2", rank.save, "step2", format="files")
        assert os.listdir(f"{s.mnt}/run") == ["step2"]
        fails(ckptfs.CkptfsError, "", ckptfs.Rank, s.top + "/nowhere")


def test_forgotten_loads():
    """More than a connection may have open."""
    with mounted() as s, ckptfs.Rank(f"{s.mnt}/run") as rank:
        with rank.save("step1", format="files") as save:
            save.put_file("a", b"1")
        held = []
        err = fails(ckptfs.CkptfsError, "",
                    lambda: [held.append(rank.load()) for _ in range(100)])
        assert err.errno == errno.EMFILE, err
        first = held.pop(0)
        rank.lock.acquire()
        held.clear()
        # As if in the midst of a call: closed before the next.
        assert len(rank._forgotten) > 1
        rank.lock.release()
        for _ in range(100):
            assert rank.load().step == "step1"
        assert not rank._forgotten and first.exists("a")


def test_others_while_one_waits():
    """test() and abort() of a thread, while another is in wait()."""
    with mounted() as s:
        ranks(2, _waits, f"{s.mnt}/run", timeout=60)
        assert not os.path.exists(f"{s.mnt}/run/step1")


def _waits(rank, world, run):
    conn = ckptfs.Rank(run, comm="torch", timeout=600)
    save = conn.save("step1", format="files")
    save.put_file(f"part{rank}", b"1")
    if rank == 1:
        torch.distributed.barrier()  # its commit comes never
        return
    save.commit()
    caught = []

    def wait():
        try:
            save.wait()
        except Exception as err:
            caught.append(err)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    time.sleep(0.2)
    assert thread.is_alive() and not save.test()
    save.abort("tired")
    thread.join()
    assert caught and "ended" in str(caught[0]), caught
    torch.distributed.barrier()


def test_torch_save_into_it():
    obj = {"w": torch.rand(1000, 300), "n": 3}
    with mounted() as s, ckptfs.Rank(f"{s.mnt}/run") as rank:
        with rank.save("step1", format="files") as save:
            for name, write in (("torch", torch.save), ("ours",
                                                        torchfile.save)):
                with save.open_file(f"{name}.pt") as out:
                    write(obj, out)
        for name in ("torch", "ours"):
            for mmap in (False, True):
                got = torch.load(f"{s.mnt}/run/step1/{name}.pt", mmap=mmap)
                assert torch.equal(got["w"], obj["w"]) and got["n"] == 3
                del got  # a mapping keeps the mount in use
        with rank.load("step1") as step, step.open("ours.pt") as f:
            assert torch.equal(torch.load(f)["w"], obj["w"])


def state():
    g = torch.Generator().manual_seed(SEED % 1000)
    out = {}
    for name, shape in (("wte.weight", (50, 16)), ("ln.bias", (16,))):
        master = torch.rand(shape, generator=g)
        out[name] = {"weight": master.to(torch.bfloat16), "master": master,
                     "exp_avg": torch.rand(shape, generator=g),
                     "exp_avg_sq": torch.rand(shape, generator=g)}
    return out


def _save_flat(rank, world, path):
    with ckptfs.Rank(path, comm="torch") as conn:
        with conn.save("global_step3", format="universal") as save:
            for name, roles in state().items():
                save.put(name, roles["weight"])  # by every rank the same
                n = roles["master"].numel()
                start, end = n * rank // world, n * (rank + 1) // world
                for role in ("master", "exp_avg", "exp_avg_sq"):
                    piece = roles[role].reshape(-1)[start:end]
                    save.put(name, piece, role=role, flat=start,
                             shape=roles[role].shape)
            if rank == 0:
                save.put_object("user", b"mine")
                save.put_object("param_groups", pickle.dumps(
                    [{"params": list(state()), "lr": 0.1, "step": 3}]))
    return os.path.exists(f"{path}/global_step3")


def test_tensors():
    """Flat shards of three ranks, read as boxes by one."""
    with mounted() as s:
        path = f"{s.mnt}/run"
        assert all(ranks(3, _save_flat, path))
        with ckptfs.Rank(path) as rank, rank.load("global_step3") as step:
            want = state()
            found = {(t.name, t.role): t for t in step.list()}
            for name, roles in want.items():
                for role in ("master", "exp_avg", "exp_avg_sq"):
                    assert found[name, role].shape == roles[role].shape
                    assert torch.equal(step.get(name, role), roles[role])
            m = want["wte.weight"]["exp_avg"]
            box = (slice(7, 30), slice(3, 9))
            assert torch.equal(step.get("wte.weight", "exp_avg", index=box),
                               m[box])
            flat = step.get("wte.weight", "exp_avg", index=box, flat=(5, 20))
            assert torch.equal(flat, m[box].reshape(-1)[5:25])
            half = step.get("wte.weight", "master", dtype="bfloat16")
            assert torch.equal(half, want["wte.weight"]["weight"])
            import numpy
            out = numpy.empty((50, 16), numpy.float32)
            step.get("wte.weight", "exp_avg", out=out)
            assert (out == m.numpy()).all()
            assert step.object("user") == b"mine"
            fails(KeyError, "absent", step.get, "absent")
            fails(ValueError, "shape", step.get, "ln.bias", "master",
                  out=torch.empty(3))


def _save_deepspeed(rank, world, path):
    with ckptfs.Rank(path, comm="torch") as conn:
        with conn.save("global_step4", format="deepspeed", dp=3,
                       zero_stage=1) as save:
            if rank == 0:
                save.put_object("param_groups", pickle.dumps(
                    [{"params": list(state()), "lr": 0.1, "step": 4}]))
            for name, roles in state().items():
                for role, tensor in roles.items():
                    # Rows, by the ranks in turn.
                    n = len(tensor)
                    start, end = n * rank // world, n * (rank + 1) // world
                    save.put(name, tensor[start:end], role=role,
                             shape=tensor.shape,
                             offset=(start,) + (0,) * (tensor.dim() - 1))


def test_deepspeed_files():
    """Boxes of two ranks become DeepSpeed's files for three."""
    with mounted() as s:
        path = f"{s.mnt}/run"
        ranks(2, _save_deepspeed, path)
        assert read(f"{path}/latest") == b"global_step4"
        names = os.listdir(f"{path}/global_step4")
        assert "mp_rank_00_model_states.pt" in names
        assert sum(n.endswith("optim_states.pt") for n in names) == 3, names
        with ckptfs.Rank(path) as rank, rank.load() as step:
            for name, roles in state().items():
                for role, tensor in roles.items():
                    assert torch.equal(step.get(name, role), tensor), \
                        (name, role)


def _readme(rank, world, path):
    """The example of README.md as it stands, but for the run."""
    with open(f"{PACKAGE}/README.md") as f:
        text = f.read().split("## Tensors by name\n")[1]
    lines = [line for line in text.split("\n`comm`")[0].splitlines()
             if not line or line.startswith("    ")]
    whole = {name: torch.rand(50257, 8, generator=torch.Generator()
                              .manual_seed(i))
             for i, name in enumerate(("master", "m", "v"))}
    n = whole["m"].numel() // world
    start = rank * n
    names = {name: t.view(-1)[start:start + n] for name, t in whole.items()}
    names.update(start=start, weight=whole["master"].to(torch.bfloat16))
    exec("\n".join(line[4:] for line in lines)
         .replace("/mnt/ckpt/run1", path), names)
    names["rank"].close()
    return torch.equal(names["rows"], whole["m"][:128])


def test_readme():
    with mounted() as s:
        assert ranks(2, _readme, f"{s.mnt}/run") == [True, True]
        assert len(os.listdir(f"{s.mnt}/run/@dp3/global_step8")) > 3


def test_refused_arrays():
    with mounted() as s, ckptfs.Rank(f"{s.mnt}/run") as rank:
        save = rank.save("step1", format="safetensors")
        fails(ValueError, "contiguous", save.put, "w", torch.rand(3, 4).t())
        fails(ValueError, "complex64", save.put, "w",
              torch.zeros(2, dtype=torch.complex64))
        fails(TypeError, "list", save.put, "w", [1, 2])
        fails(ckptfs.CkptfsError, "w", save.put, "w", torch.rand(3),
              shape=(3,), offset=(1,))
        for name in ("a\0b", "\0"):
            fails(ValueError, "NUL", save.put, name, torch.rand(3))
            fails(ValueError, "NUL", save.open_file, name)
            fails(ValueError, "NUL", save.put_object, name, b"x")
        fails(TypeError, "int", save.put, 8, torch.rand(3))
        fails(ValueError, "negative", save.put, "w", torch.rand(3), shape=(9,),
              flat=-1)
        save.abort()
        assert not os.path.exists(f"{s.mnt}/run/step1")


def _disagree(rank, world, path):
    conn = ckptfs.Rank(path, comm="torch")
    err = fails(ckptfs.CkptfsError, "step0 step1", conn.save, f"step{rank}",
                format="files")
    return err.errno, err.strerror


def _one_dies(rank, world, path):
    conn = ckptfs.Rank(path, comm="torch")
    save = conn.save("step1", format="files", pointer="latest")
    save.put_file(f"part{rank}", b"x" * MIB)
    if rank == 1:
        os._exit(9)
    save.commit()
    err = fails(ckptfs.CkptfsError, "1", save.wait)
    return err.errno, err.strerror


def test_all_ranks_or_none():
    with mounted() as s:
        path = f"{s.mnt}/run"
        a, b = ranks(2, _disagree, path)
        assert a == b
        a, _, c = ranks(3, _one_dies, path, dies=(1,))
        assert a == c
        assert not os.path.exists(f"{path}/step1")
        assert not os.path.exists(f"{path}/latest")


def _restarted(rank, world, s):
    from ckptfs.comm import TorchComm
    from ckptfs.session import Session
    session = Session(TorchComm)
    run = f"{s.mnt}/run"
    for step in range(4):
        save = session.begin(f"{run}/step{step}", pointer="", overwrite=False,
                             owned=None)
        save.put_file(f"part{rank}", bytes([step]))
        save.commit()
        save.wait()
        torch.distributed.barrier()
        if rank == step == 1:
            s.kill()
            s.mount()
        if rank == 0 and step == 2:
            session.close()
        torch.distributed.barrier()
    session.close()


def test_daemon_restarted():
    """Between saves, and a connection closed by one rank alone: the plug-ins
    go on."""
    with mounted() as s:
        ranks(2, _restarted, s)
        s.pid = int(os.getxattr(s.mnt, "user.ckptfs.pid"))
        assert sorted(os.listdir(f"{s.mnt}/run")) == [
            f"step{i}" for i in range(4)]
        assert read(f"{s.mnt}/run/step2/part1") == b"\2"


def _begin_fails(rank, world, run):
    """One rank's error that is none of the daemon's."""
    from ckptfs import session as module
    from ckptfs.comm import TorchComm
    session = module.Session(TorchComm)

    def begin(step):
        return session.begin(f"{run}/{step}", pointer="", overwrite=True,
                             owned=lambda name: True)

    def saves(step):
        save = begin(step)
        save.put_file(f"part{rank}", b"1")
        save.commit()
        save.wait()

    def unreadable(path, owned):
        raise PermissionError(13, "unreadable")

    stock = module._alien
    for _ in range(2):  # without a connection, and with one
        if rank == 1:
            module._alien = unreadable
            fails(PermissionError, "unreadable", begin, "step1")
            module._alien = stock
        else:
            fails(ckptfs.CkptfsError, "another rank", begin, "step1")
        saves("step1")
    if rank == 1:
        session._rank.close()
    saves("step2")
    err = fails(Exception, "", session.begin, f"{run}/step3", overwrite=True,
                pointer="\udcff" if rank == 1 else "",
                owned=lambda name: True)
    assert isinstance(err, UnicodeEncodeError if rank == 1
                      else ckptfs.CkptfsError), err
    saves("step4")
    session.close()


@alone
def test_what_a_framework_replaces():
    """The mark of a committed step does not hinder it, anything else does."""
    from ckptfs.session import _alien

    def alien():
        return _alien(tmp, lambda name: name.endswith(".pt"))

    with tempfile.TemporaryDirectory() as tmp:
        open(f"{tmp}/a.pt", "w").close()
        assert alien() is None
        open(f"{tmp}/ckptfs", "w").close()
        assert alien() == "ckptfs"
        os.unlink(f"{tmp}/ckptfs")
        os.mkdir(f"{tmp}/ckptfs")
        open(f"{tmp}/ckptfs/step.json", "w").close()
        assert alien() is None
        open(f"{tmp}/ckptfs/rng", "w").close()
        assert alien() == "ckptfs"


def test_begin_fails_on_one():
    """The others hear of it, and all go on."""
    with mounted() as s:
        ranks(2, _begin_fails, f"{s.mnt}/run", timeout=40)
        assert sorted(os.listdir(f"{s.mnt}/run")) == ["step1", "step2",
                                                      "step4"]


LAUNCHED = """
import sys, ckptfs
kind, path = sys.argv[1:]
if kind == "torch":
    import torch.distributed as dist
    dist.init_process_group("gloo")
with ckptfs.Rank(path, comm=kind) as rank:
    assert rank.comm.size == 2
    assert rank.comm.any(rank.comm.rank == 1) and not rank.comm.any(False)
    with rank.save(kind, format="files", pointer="") as save:
        save.put_file(f"part{rank.comm.rank}", b"1")
"""


def test_launchers():
    """torchrun, and mpirun where there is one."""
    with mounted() as s:
        program = f"{s.top}/program.py"
        with open(program, "w") as f:
            f.write(LAUNCHED)
        commands = {"torch": [sys.executable, "-m", "torch.distributed.run",
                              "--nproc-per-node=2", "--standalone"]}
        if shutil.which("mpirun"):
            commands["mpi"] = ["mpirun", "--allow-run-as-root",
                               "--oversubscribe", "-n", "2", sys.executable]
        for kind, command in commands.items():
            done = subprocess.run(
                [*command, program, kind, f"{s.mnt}/run"], text=True,
                capture_output=True, timeout=120,
                env=dict(os.environ, PYTHONPATH=PACKAGE))
            assert done.returncode == 0, done.stderr[-3000:]
            assert sorted(os.listdir(f"{s.mnt}/run/{kind}")) == [
                "ckptfs", "part0", "part1"]


def test_progress():
    seen = []
    with mounted() as s, ckptfs.Rank(
            f"{s.mnt}/run", progress=lambda *a: seen.append(a)) as rank:
        with rank.save("step1", format="files") as save:
            save.put_file("a", bytes(5 * MIB))
    assert seen and seen[-1] == ("save", 5 * MIB, 5 * MIB), seen


if __name__ == "__main__":
    sys.exit(main(globals()))
