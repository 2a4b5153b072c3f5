#!/usr/bin/env python3
"""Real programs save into a mounted store, the daemon is killed, and what
they load from the next mount is what they saved.

usage: store_clients.py [NAME ...]

Each client is a pair of functions: save(dir, other) writes below dir (in the
mount) and below `other` (an ordinary directory) or returns what it wrote;
load(dir, what) compares. Between them: sync, SIGKILL of the daemon, mount.
"""
import json
import os
import random
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import store_place  # noqa: E402
from store_place import check  # noqa: E402

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
SEED = int(os.environ.get("SEED", str(random.SystemRandom().randrange(1 << 31))))


def same_tree(a, b):
    check("diff", "-r", "--no-dereference", a, b)


def tensors(seed):
    import torch
    g = torch.Generator().manual_seed(seed)
    return {
        "embed": torch.randn(1000, 256, generator=g),
        "half": torch.randn(300, 77, generator=g).to(torch.bfloat16),
        "ints": torch.randint(0, 1000, (12345,), generator=g),
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(3.5),
        "big": torch.randn(1536, 1024, generator=g),
        "zeros": torch.zeros(1 << 20),
    }


def same_tensors(a, b):
    import torch
    assert a.keys() == b.keys()
    for k in a:
        assert a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]), k


# ---- torch.save ----

def save_torch(d, _):
    import torch
    t = tensors(SEED)
    torch.save(t, f"{d}/zip.pt")
    torch.save(t, f"{d}/legacy.pt", _use_new_zipfile_serialization=False)
    with open(f"{d}/object.pt", "wb") as f:
        torch.save(t, f)
    return t


def load_torch(d, t):
    import torch
    for name in ("zip.pt", "legacy.pt", "object.pt"):
        same_tensors(t, torch.load(f"{d}/{name}"))
    same_tensors(t, torch.load(f"{d}/zip.pt", mmap=True))


# ---- torch.distributed.checkpoint ----

def save_dcp(d, _):
    import torch.distributed.checkpoint as dcp
    t = {k: v for k, v in tensors(SEED + 1).items() if v.numel()}
    dcp.save(t, checkpoint_id=f"{d}/dcp", no_dist=True)
    return t


def load_dcp(d, t):
    import torch
    import torch.distributed.checkpoint as dcp
    got = {k: torch.empty_like(v) for k, v in t.items()}
    dcp.load(got, checkpoint_id=f"{d}/dcp", no_dist=True)
    same_tensors(t, got)


# ---- safetensors, numpy ----

def save_safetensors(d, _):
    from safetensors.torch import save_file
    t = tensors(SEED + 2)
    save_file(t, f"{d}/model.safetensors", metadata={"format": "pt"})
    return t


def load_safetensors(d, t):
    from safetensors import safe_open
    from safetensors.torch import load_file
    same_tensors(t, load_file(f"{d}/model.safetensors"))
    with safe_open(f"{d}/model.safetensors", "pt") as f:
        same_tensors({"half": t["half"]}, {"half": f.get_tensor("half")})


def save_numpy(d, _):
    import numpy as np
    a = np.random.default_rng(SEED).standard_normal((513, 257))
    np.save(f"{d}/a.npy", a)
    np.savez(f"{d}/b.npz", a=a, b=np.arange(100000))
    np.savez_compressed(f"{d}/c.npz", a=a)
    m = np.lib.format.open_memmap(f"{d}/m.npy", "w+", dtype="f4",
                                  shape=(1000, 1000))
    m[:] = a[:500, :250].repeat(2, 0).repeat(4, 1)
    m.flush()
    del m
    return a


def load_numpy(d, a):
    import numpy as np
    assert np.array_equal(np.load(f"{d}/a.npy"), a)
    assert np.array_equal(np.load(f"{d}/a.npy", mmap_mode="r"), a)
    with np.load(f"{d}/b.npz") as z:
        assert np.array_equal(z["a"], a)
        assert np.array_equal(z["b"], np.arange(100000))
    with np.load(f"{d}/c.npz") as z:
        assert np.array_equal(z["a"], a)
    m = np.load(f"{d}/m.npy", mmap_mode="r")
    assert np.array_equal(m, a[:500, :250].repeat(2, 0).repeat(4, 1)
                          .astype("f4"))


# ---- transformers' Trainer ----

def save_trainer(d, other):
    import torch
    import transformers
    torch.manual_seed(SEED)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=64, n_layer=2, n_head=2, vocab_size=128, n_positions=32))
    data = [{"input_ids": torch.arange(16) + i, "labels": torch.arange(16) + i}
            for i in range(32)]
    args = transformers.TrainingArguments(
        output_dir=f"{d}/trainer", max_steps=6, save_steps=2,
        save_total_limit=2, per_device_train_batch_size=4, report_to=[],
        disable_tqdm=True, logging_strategy="no", use_cpu=True)
    trainer = transformers.Trainer(model, args, train_dataset=data)
    trainer.train()
    check("cp", "-a", f"{d}/trainer", f"{other}/trainer")
    return {"copy": f"{other}/trainer",
            "state": {k: v.clone() for k, v in model.state_dict().items()},
            "data": data, "args": args}


def load_trainer(d, what):
    import transformers
    steps = sorted(n for n in os.listdir(f"{d}/trainer")
                   if n.startswith("checkpoint-"))
    assert steps == ["checkpoint-4", "checkpoint-6"], steps
    same_tree(what["copy"], f"{d}/trainer")
    model = transformers.GPT2LMHeadModel.from_pretrained(
        f"{d}/trainer/checkpoint-6")
    same_tensors(what["state"], dict(model.state_dict()))
    what["args"].max_steps = 8
    what["args"].output_dir = f"{d}/trainer"
    trainer = transformers.Trainer(model, what["args"],
                                   train_dataset=what["data"])
    trainer.train(resume_from_checkpoint=True)
    assert os.path.exists(f"{d}/trainer/checkpoint-8/optimizer.pt")
    with open(f"{d}/trainer/checkpoint-8/trainer_state.json") as f:
        assert json.load(f)["global_step"] == 8


# ---- TensorStore ----

def ts_specs(d):
    yield {"driver": "zarr3", "kvstore": f"file://{d}/z3/"}
    yield {"driver": "zarr", "kvstore": f"file://{d}/z2/"}
    yield {"driver": "zarr3", "kvstore": f"file://{d}/ocdbt/|ocdbt:a/"}


def save_tensorstore(d, _):
    import numpy as np
    import tensorstore as ts
    a = np.random.default_rng(SEED).standard_normal((700, 300)) \
        .astype("float32")
    for spec in ts_specs(d):
        t = ts.open(spec, create=True, dtype=ts.float32,
                    shape=a.shape).result()
        t.write(a).result()
        t[100:200] = a[100:200] * 2
    return a


def load_tensorstore(d, a):
    import numpy as np
    import tensorstore as ts
    a = a.copy()
    a[100:200] *= 2
    for spec in ts_specs(d):
        got = ts.open(spec).result().read().result()
        assert np.array_equal(got, a), spec


# ---- ordinary tools ----

def make_tree(top):
    rng = random.Random(SEED)
    for i in range(40):
        d = f"{top}/d{i % 7}/e{i % 3}"
        os.makedirs(d, exist_ok=True)
        with open(f"{d}/f{i}", "wb") as f:
            f.write(rng.randbytes(rng.choice([0, 1, 2048, 2049, 70000,
                                              3 << 20])))
        os.chmod(f"{d}/f{i}", rng.choice([0o644, 0o600, 0o4755]))
        os.utime(f"{d}/f{i}", ns=(rng.randrange(1 << 60),
                                  rng.randrange(1 << 60)))
    os.link(f"{top}/d0/e0/f0", f"{top}/hard")
    os.symlink("d0/e0", f"{top}/soft")
    with open(f"{top}/sparse", "wb") as f:
        f.seek(5 << 20)
        f.write(b"end")
    os.setxattr(f"{top}/hard", "user.note", b"kept")
    # Old times for all: rsync leaves those that are of the same second.
    for d, dirs, files in os.walk(top, topdown=False):
        for name in dirs + files + ["."]:
            if name == "." or not os.path.isfile(f"{d}/{name}"):
                os.utime(f"{d}/{name}", follow_symlinks=False,
                         ns=(rng.randrange(1 << 60), rng.randrange(1 << 60)))


def facts(top):
    out = check("find", top, "-printf", r"%P %y %m %U %G %n %T@ %l\n")
    lines = [line for line in out.splitlines() if line[:2] != " d"]
    return sorted(lines)


def save_tools(d, other):
    make_tree(f"{other}/src") if os.makedirs(f"{other}/src") is None else None
    check("cp", "-a", f"{other}/src", f"{d}/cp")
    check("cp", "-a", f"{d}/cp", f"{d}/cp2")
    check("rsync", "-aHX", f"{other}/src/", f"{d}/rsync/")
    check("tar", "-C", other, "--format=posix", "-cf", f"{d}/src.tar",
          "src")
    check("tar", "-C", d, "-xpf", f"{d}/src.tar")
    return f"{other}/src"


def load_tools(d, src):
    for name in ("cp", "cp2", "rsync", "src"):
        same_tree(src, f"{d}/{name}")
        odd = set(facts(src)) ^ set(facts(f"{d}/{name}"))
        assert not odd, (name, sorted(odd)[:6])
    assert os.getxattr(f"{d}/cp/hard", "user.note") == b"kept"
    check("rsync", "-aHX", f"{src}/", f"{d}/rsync/")
    changed = check("rsync", "-aHXni", f"{src}/", f"{d}/rsync/")
    assert changed == "", changed


def save_git(d, other):
    src = f"{other}/repo"
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")
    check("git", "init", "-q", src)
    make_tree(f"{src}/tree") if os.makedirs(f"{src}/tree") is None else None
    check(*git, "-C", src, "add", "-A")
    check(*git, "-C", src, "commit", "-qm", "one")
    check("git", "clone", "-q", "--no-hardlinks", src, f"{d}/clone")
    check("git", "-C", f"{d}/clone", "gc", "-q")
    return src


def load_git(d, src):
    git = ("git", "-c", f"safe.directory={d}/clone", "-C", f"{d}/clone")
    check(*git, "fsck", "--full")
    assert check(*git, "status", "--porcelain") == ""
    assert check(*git, "rev-parse", "HEAD^{tree}") == \
        check("git", "-C", src, "rev-parse", "HEAD^{tree}")


CLIENTS = {name[5:]: (fn, globals()["load_" + name[5:]])
           for name, fn in list(globals().items()) if name.startswith("save_")}
NEEDS = {"tools": "rsync", "git": "git"}


def missing(name):
    return name in NEEDS and not shutil.which(NEEDS[name])


def main():
    why = store_place.why_not()
    if why:
        print(f"skipped: {why}")
        return 77
    print(f"SEED={SEED}")
    names = sys.argv[1:] or list(CLIENTS)
    absent = [NEEDS[name] for name in names if missing(name)]
    if absent:
        print(f"not installed: {', '.join(absent)} (scripts/install-deps.sh)")
        return 1
    with store_place.store() as s:
        s.mount()
        saved = {}
        for name in names:
            began = time.monotonic()
            os.makedirs(f"{s.mnt}/{name}")
            os.makedirs(f"{s.top}/other/{name}")
            saved[name] = CLIENTS[name][0](f"{s.mnt}/{name}", f"{s.top}/other/{name}")
            print(f"{name}: saved ({time.monotonic() - began:.1f} s)",
                  flush=True)
        fd = os.open(s.mnt, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        s.kill()
        s.mount()
        for name, what in saved.items():
            CLIENTS[name][1](f"{s.mnt}/{name}", what)
            print(f"{name}: equal", flush=True)
        s.umount()
        s.fsck()
    return 0


if __name__ == "__main__":
    sys.exit(main())
