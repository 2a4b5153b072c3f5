"""torch.distributed.checkpoint into a store, with one commit for all ranks.

    dcp.save(state, storage_writer=ckptfs.dcp.StorageWriter(path))
    dcp.load(state, storage_reader=ckptfs.dcp.StorageReader(path))

path is the step's directory, in a mount or below the store's own.  The files
are FileSystemWriter's, and FileSystemReader loads them from the mount.

What DCP calls, and what of it is collective here:

    all ranks     write_data()  begin, write, and say "commit" without waiting
    coordinator   finish()      write .metadata, say "commit", wait

Planning may fail on one rank alone, so nothing before write_data() may wait
for the others; and there every rank comes, or none.  A rank that fails in it
aborts the save for all.  The coordinator knows how the commit ended before DCP
tells anybody, so the others need not ask: their handle of it is ended by the
next save, which then need not wait.
"""
import contextlib
import inspect
import os
import pickle
import queue

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.planner import WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from . import torchfile
from .rank import Rank
from .session import Session, split

if "use_collectives" not in inspect.signature(dcp.save).parameters or \
        not hasattr(filesystem, "CURRENT_DCP_VERSION"):
    raise ImportError("this torch's distributed checkpoints are of an older "
                      "form: ckptfs.dcp needs torch 2.9 or later")

METADATA = ".metadata"


class _Missing:
    """Where the stock writer would look at and make directories: a step is
    made by its commit."""

    def init_path(self, path):
        return os.fspath(path)

    def concat_path(self, path, suffix):
        return os.path.join(path, suffix)

    def mkdir(self, path):
        pass

    def exists(self, path):
        return False

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id):
        return filesystem.FileSystem.validate_checkpoint_id(checkpoint_id)


class StorageWriter(filesystem.FileSystemWriter):
    """process_group: that of dcp.save(); None is the default one
    no_dist: as for dcp.save(): this process saves alone
    pointer: the run's file that is to name the step; "": none
    overwrite: a step of this name is replaced, else refused; always refused
        where it has files that are not DCP's, and below the store's directory
    More options are Rank()'s; single_file_per_rank is FileSystemWriter's.
    """

    def __init__(self, path, *, process_group=None, no_dist=False,
                 single_file_per_rank=True, overwrite=True, pointer="",
                 **options):
        super().__init__(path, single_file_per_rank=single_file_per_rank,
                         sync_files=False, overwrite=overwrite)
        self.fs = _Missing()
        self.path = os.fspath(path)
        self._group, self._no_dist = process_group, no_dist
        self._pointer, self._options = pointer, options
        self._is_coordinator = True
        self._forget()

    def _forget(self):
        self._session = Session(self._comm, **self._options)
        self._save, self._committed = None, None

    def __getstate__(self):
        state = dict(self.__dict__)
        del state["_session"], state["_save"], state["_committed"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def _comm(self):
        if self._no_dist or not dist.is_available() or \
                not dist.is_initialized():
            return None
        from .comm import TorchComm
        return TorchComm(self._group)

    def set_up_storage_writer(self, is_coordinator, *args, **kwargs):
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        self._is_coordinator = is_coordinator

    def _end(self, reason):
        save, self._save = self._save, None
        if save is not None:
            save.abort(reason)
        save, self._committed = self._committed, None
        if save is not None:
            with contextlib.suppress(OSError):  # DCP has told how it ended
                save.wait()

    def write_data(self, plan, planner):
        self._end("another save began")
        self._save = self._session.begin(
            self.path, pointer=self._pointer, overwrite=self.overwrite,
            owned=_own)
        try:
            done = super().write_data(plan, planner)
            if self.use_collectives and not self._is_coordinator:
                self._save.commit()
                self._committed, self._save = self._save, None
            return done
        except BaseException as err:
            self._fail(err)
            raise

    def _fail(self, err):
        self._end(f"{type(err).__name__}: {err}")
        self._session.close()

    def _write_data(self, planner, file_queue):
        results = []
        with contextlib.suppress(queue.Empty):
            while True:
                path, key, items = file_queue.get_nowait()
                with self._save.open_file(key) as out:
                    results += [_write_item(out, planner, item, key)
                                for item in _bytes_first(items)]
        done = Future()
        done.set_result(results)
        return done

    def finish(self, metadata, results):
        try:
            metadata.version = filesystem.CURRENT_DCP_VERSION
            metadata.storage_data = {w.index: w.storage_data
                                     for rank in results for w in rank}
            metadata.storage_meta = self.storage_meta()
            alone = not self.use_collectives and self.rank is not None
            name = f"__{self.rank}{METADATA}" if alone else METADATA
            self._save.put_file(name, pickle.dumps(metadata))
            self._save.commit()
            save, self._save = self._save, None
            save.wait()
        except BaseException as err:
            self._fail(err)
            raise

    def close(self):
        """Ends the connection to the daemon; the next save makes one."""
        self._end("the writer was closed")
        self._session.close()


def _own(name):
    return name.endswith((METADATA, filesystem.DEFAULT_SUFFIX))


def _bytes_first(items):
    return sorted(items, key=lambda i: i.type != WriteItemType.BYTE_IO)


def _write_item(out, planner, item, key):
    start = out.tell()
    data = planner.resolve_data(item)
    if item.type == WriteItemType.BYTE_IO:
        out.write(data.getbuffer())
    else:
        torchfile.save_tensor(data, out)
    size = out.tell() - start
    return WriteResult(index=item.index, size_in_bytes=size,
                       storage_data=filesystem._StorageInfo(key, start, size))


class _StepFiles(_Missing):
    """Files of the step at `path`, opened when the first is asked for."""

    def __init__(self, options):
        self._options = options
        self._rank, self._load, self._path = None, None, None

    def _open(self, path):
        if self._path != path:
            self.close()
            run, step = split(path)
            self._rank = Rank(run, **self._options)
            self._load = self._rank.load(step)
            self._path = path
        return self._load

    @contextlib.contextmanager
    def create_stream(self, path, mode):
        top, name = os.path.split(path)
        with self._open(top).open(name) as stream:
            yield stream

    def close(self):
        rank, self._rank, self._load, self._path = self._rank, None, None, None
        if rank is not None:
            rank.close()


class StorageReader(filesystem.FileSystemReader):
    """Reads through the daemon, not through the mount.  Nothing of it is
    collective.  Options are Rank()'s."""

    def __init__(self, path, **options):
        super().__init__(path)
        self._options = options
        self.fs = _StepFiles(options)
        self.path = os.fspath(path)

    def reset(self, checkpoint_id=None):
        self.fs.close()  # the step may be another one by now
        super().reset(checkpoint_id)

    def read_data(self, plan, planner):
        try:
            return super().read_data(plan, planner)
        finally:
            self.fs.close()

    def __getstate__(self):
        state = dict(self.__dict__)
        del state["fs"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.fs = _StepFiles(self._options)
