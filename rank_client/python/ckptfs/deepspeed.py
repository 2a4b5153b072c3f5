"""DeepSpeed's checkpoint engine over a mounted store: one line of its
configuration, and a step is there with `latest` for all ranks or for none.

    "ckptfs": true          or {"ring_bytes": …, "timeout": …, "async": true}

save_checkpoint()'s directory is a run in the mount.  What happens in it:

    create(tag)            remembers what is to be saved
    makedirs(run/tag)      begins the step, on all ranks; no directory is made
    save(state, run/tag/…) a file of the step, straight from memory
    commit()               the step and `latest` appear, or an error on all
    `latest`               written by DeepSpeed once more, with the same words

The step begins at makedirs() and not at create(), because save_16bit_model()
creates and commits too, but writes one file beside the steps: such files go
through the mount, as do those that DeepSpeed writes by itself.  makedirs() may
not raise there, DeepSpeed would take no notice: the next call does.

"async": save_checkpoint() returns when all is in shared memory; the step
appears at the next step of the optimizer, or at engine.destroy(), which then
has to be called at the end.
"""
import errno
import os

import torch
from deepspeed.runtime.checkpoint_engine import checkpoint_engine as base

from . import _hook, torchfile
from ._lib import CkptfsError
from .session import Session, in_mount

NAME = "CkptfsCheckpointEngine"
OPTIONS = {"ring_bytes", "timeout", "progress", "async"}


def _comm():
    import torch.distributed as dist
    if dist.is_available() and dist.is_initialized():
        from .comm import TorchComm
        return TorchComm()
    return None


def _options(config):
    options = dict(_hook.section(config) or {})
    unknown = set(options) - OPTIONS
    if unknown:
        raise ValueError(f"\"ckptfs\": unknown option {sorted(unknown)[0]}; "
                         f"known are {', '.join(sorted(OPTIONS))}")
    checkpoint = getattr(config, "checkpoint_config", None) or {}
    if checkpoint.get("writer") is not None:
        raise ValueError("the configuration chooses two checkpoint engines: "
                         "\"ckptfs\" and \"checkpoint\": {\"writer\": …}")
    return options


def _mounted(run):
    if not in_mount(run):
        raise CkptfsError(
            errno.EINVAL, f"{run} is in no mounted store: DeepSpeed writes "
            "files of its own there, so it has to be a mount's path")


class CheckpointEngine(base.CheckpointEngine):
    def __init__(self, config_params=None):
        super().__init__(config_params)
        self.name = NAME
        options = _options(config_params)
        self._async = bool(options.pop("async", False))
        self._session = Session(_comm, **options)
        self._info, self._dir = None, None
        self._save, self._failed = None, None

    # ---- saving ----

    def create(self, info):
        if self._save is not None and self._async:
            self.commit(self._info)
        self._end("another save began before this was committed")
        self._info = info
        self._dir = os.path.abspath(os.path.join(info.save_dir,
                                                 str(info.tag)))

    def makedirs(self, path, exist_ok=False):
        path = os.path.abspath(path)
        if self._dir and path == self._dir:
            if self._save is None and self._failed is None:
                self._begin()
        elif not self._inside(path):
            os.makedirs(path, exist_ok=exist_ok)

    def _inside(self, path):
        return self._dir is not None and \
            os.path.abspath(path).startswith(self._dir + os.sep)

    def _begin(self):
        own = self._info.save_latest and os.path.dirname(self._dir) == \
            os.path.abspath(self._info.save_dir)
        try:
            self._save = self._session.begin(
                self._dir, pointer="latest" if own else "", overwrite=True,
                owned=lambda name: name.endswith(".pt"), check=_mounted)
        except Exception as err:
            self._failed = err

    def save(self, state_dict, path):
        self._raise_failed()
        if self._save is None or not self._inside(path):
            torch.save(state_dict, path)
            return
        name = os.path.relpath(os.path.abspath(path), self._dir)
        try:
            with self._save.open_file(name) as out:
                torchfile.save(state_dict, out,
                               prefix=torchfile.prefix_of(path))
        except BaseException as err:
            self._end(f"{type(err).__name__}: {err}")
            raise

    def commit(self, info):
        self._raise_failed()
        save, self._save = self._save, None
        self._info, self._dir = None, None
        if save is None:
            return True
        try:
            save.commit()
            save.wait()
        except BaseException as err:
            save.abort(str(err))  # nothing where wait() has ended it
            self._session.close()
            raise
        return True

    def _raise_failed(self):
        failed, self._failed = self._failed, None
        if failed is not None:
            self._end(str(failed))
            raise failed

    def _end(self, reason):
        """Forgets what was begun and not committed."""
        save, self._save = self._save, None
        self._info, self._dir, self._failed = None, None, None
        if save is not None:
            save.abort(reason)
            self._session.close()

    # ---- the two ways of committing ----

    def is_decoupled(self):
        return self._async

    def get_commit_info(self):
        pending = self._save is not None or self._failed is not None
        return self._info if self._async and pending else None

    def cleanup(self):
        try:
            if self._async and self.get_commit_info() is not None:
                self.commit(self._info)
        finally:
            self._end("the engine was destroyed")
            self._session.close()

    # ---- loading ----

    def load(self, path, map_location=None):
        return torch.load(path, map_location=map_location, weights_only=False)


def _install():
    from deepspeed.runtime import checkpoint_engine
    if not hasattr(checkpoint_engine, _hook.FUNCTION):
        raise ImportError("this DeepSpeed has no create_checkpoint_engine(): "
                          "ckptfs.deepspeed needs 0.17 or later")
    _hook.install()


_install()
