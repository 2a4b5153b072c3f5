"""Save a training step from all ranks straight into a ckptfs store.

    rank = ckptfs.Rank("/mnt/ckpt/run1", comm="torch")
    with rank.save("global_step8", format="deepspeed", dp=4) as save:
        save.put("wte.weight", shard, role="master", shape=(512, 64), flat=0)

Importing this module imports nothing but itself; `ckptfs.deepspeed` and
`ckptfs.dcp` plug it into the frameworks.
"""
__version__ = "0.1.0"
__all__ = ["CkptfsError", "Load", "Rank", "Save", "TensorInfo"]

_WHERE = {"CkptfsError": "_lib", "Rank": "rank", "Save": "rank",
          "Load": "load", "TensorInfo": "load"}


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module 'ckptfs' has no attribute '{name}'")
    import importlib
    return getattr(importlib.import_module("." + _WHERE[name], __name__), name)
