#!/usr/bin/env python3
"""torch.distributed.checkpoint through the plug-in and through the stock
classes, at several world sizes; see rank_place.py."""
import hashlib
import os
import subprocess
import sys

from rank_place import PACKAGE, SEED, alone, fails, main, mounted, ranks

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.tensor  # noqa: F401: once, not in every rank

from ckptfs.dcp import StorageReader, StorageWriter


def state(world, filled):
    """Rows, columns, replicas, plain tensors and no tensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    mesh = init_device_mesh("cpu", (world,))
    g = torch.Generator().manual_seed(SEED % 1000)

    def tensor(*shape):
        return torch.rand(*shape, generator=g) if filled \
            else torch.zeros(*shape)

    return {
        "model": {
            "rows": distribute_tensor(tensor(7, 5), mesh, [Shard(0)]),
            "columns": distribute_tensor(tensor(6, 9), mesh, [Shard(1)]),
            "same": distribute_tensor(tensor(4), mesh, [Replicate()]),
            "large": distribute_tensor(tensor(1000, 700), mesh, [Shard(0)])},
        "half": tensor(300, 3).to(torch.bfloat16),
        "none": tensor(0, 3),
        "epoch": 3 if filled else 0,
        "list": [1, {"a": 2.5}] if filled else [0, {"a": 0}]}


def whole(tree):
    """Every leaf, gathered: what must be equal at any world size."""
    if isinstance(tree, dict):
        return {k: whole(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [whole(v) for v in tree]
    if hasattr(tree, "full_tensor"):
        tree = tree.full_tensor()
    if not isinstance(tree, torch.Tensor):
        return tree
    data = tree.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return list(tree.shape), hashlib.sha256(data).hexdigest()


class Broken(dcp.DefaultSavePlanner):
    """One rank alone cannot give its data."""

    def resolve_data(self, item):
        if dist.get_rank() == 1:
            raise RuntimeError("no data")
        return super().resolve_data(item)


class Unplanned(dcp.DefaultSavePlanner):
    def create_local_plan(self):
        if dist.get_rank() == 1:
            raise RuntimeError("no plan")
        return super().create_local_plan()


def _save(rank, world, run):
    mine = state(world, True)
    writer = StorageWriter(f"{run}/step1", pointer="latest")
    dcp.save(mine, storage_writer=writer)
    assert os.path.exists(f"{run}/step1/.metadata")
    dcp.save(mine, checkpoint_id=f"{run}/stock")
    for planner, why in ((Broken, "no data"), (Unplanned, "no plan")):
        fails(dcp.api.CheckpointException, why, dcp.save, mine,
              storage_writer=writer, planner=planner(),
              checkpoint_id=f"{run}/never")
        assert not os.path.exists(f"{run}/never")
    # The same writer, after it failed; over a step that is there.
    dcp.save(mine, storage_writer=writer, checkpoint_id=f"{run}/step2")
    dcp.save(mine, storage_writer=writer, checkpoint_id=f"{run}/step2")
    # Not what somebody else keeps there.
    with open(f"{run}/step2/notes-{rank}", "w"):
        dist.barrier()
    fails(dcp.api.CheckpointException, "notes-0", dcp.save, mine,
          storage_writer=writer, checkpoint_id=f"{run}/step2")
    group = dist.new_group(backend="gloo")
    other = StorageWriter(f"{run}/later", process_group=group)
    dcp.async_save(mine, storage_writer=other, process_group=group).result()
    assert os.path.exists(f"{run}/later/.metadata")
    return whole(mine)


def _load(rank, world, paths):
    out = []
    for path in paths:
        mine = state(world, False)
        dcp.load(mine, storage_reader=StorageReader(path))
        out.append(whole(mine))
        if os.path.isdir(path):  # not below the store's own directory
            mine = state(world, False)
            dcp.load(mine, storage_reader=dcp.FileSystemReader(path))
            out.append(whole(mine))
    return out


def test_world_sizes():
    with mounted() as s:
        run = f"{s.mnt}/run"
        os.mkdir(run)
        want, same = ranks(2, _save, run)
        assert want == same
        with open(f"{run}/latest") as f:
            assert f.read() == "step2"
        assert sorted(os.listdir(run)) == ["later", "latest", "step1",
                                           "step2", "stock"]
        for name in os.listdir(f"{run}/stock"):
            if name != ".metadata":  # which has the path and a random number
                assert os.path.getsize(f"{run}/stock/{name}") == \
                    os.path.getsize(f"{run}/step1/{name}")
        paths = [f"{run}/{n}" for n in ("step1", "step2", "later", "stock")]
        paths.append(f"{s.store}/run/step1")
        for world in (1, 3):
            for got in ranks(world, _load, paths):
                assert all(g == want for g in got)


def _alone(rank, world, path):
    mine = {"a": torch.arange(10.), "b": 3}
    dcp.save(mine, storage_writer=StorageWriter(path, no_dist=True),
             no_dist=True)
    got = {"a": torch.zeros(10), "b": 0}
    dcp.load(got, storage_reader=StorageReader(path), no_dist=True)
    return got["a"].tolist() == mine["a"].tolist() and got["b"] == 3


def test_one_process():
    with mounted() as s:
        os.mkdir(f"{s.mnt}/run")
        assert ranks(1, _alone, f"{s.mnt}/run/step1") == [True]


OLD = """
import torch.distributed.checkpoint as dcp
if {signature}:
    dcp.save = lambda state_dict, *, storage_writer: None
else:
    del dcp.filesystem.CURRENT_DCP_VERSION
try:
    import ckptfs.dcp
except ImportError as err:
    assert "2.9" in str(err), err
else:
    raise AssertionError("imported")
"""


@alone
def test_refuses_old_torch():
    for signature in (True, False):
        subprocess.run([sys.executable, "-c", OLD.format(signature=signature)],
                       check=True, env=dict(os.environ, PYTHONPATH=PACKAGE))


if __name__ == "__main__":
    sys.exit(main(globals()))
