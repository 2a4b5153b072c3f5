"""What the plug-ins have in common: a run's connection kept between saves.

Some ranks may have lost theirs: after a save that failed there, or because the
daemon was restarted, which the first call afterwards finds out, on some ranks
or on all.  They agree on it, connect anew together and go on, so that it does
not cost a step.
"""
import errno
import os
import re

from . import _lib
from . import comm as comm_module
from ._lib import CkptfsError
from .rank import Rank

GONE = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESTALE)
VIEW_INODES = 1 << 63  # a view's directories are numbered from here


class Session:
    """comm: a callable that makes the communicator when it is needed."""

    def __init__(self, comm, **options):
        self._make_comm, self._options = comm, options
        self._comm, self._rank = None, None

    def _connect(self, run):
        self.close()
        self._rank = Rank(run, self._comm, **self._options)

    def begin(self, path, *, overwrite, owned, check=None, **options):
        """Rank.save() of the step whose directory is `path`, of files.
        Collective, also where it fails on one rank alone.

        A step that is there is replaced as a whole, so only where all that is
        in it is the framework's, which owned(name) tells.  check(run) raises
        where the framework cannot save there.
        """
        if self._comm is None:
            self._comm = comm_module.of(self._make_comm())
        run = step = alien = failed = None
        try:
            run, step, alien = _look(path, owned if overwrite else None)
            if check is not None:
                check(run)
            options.update(format="files", replace=bool(
                overwrite and alien is None and in_mount(run)))
        except Exception as err:  # the others wait for an answer
            failed = err
        if self._comm.any(failed is not None):
            raise failed or CkptfsError(
                errno.ECANCELED, f"{path}: another rank could not begin to "
                "save; its own error says why")
        try:
            return self._begin(run, step, options)
        except CkptfsError as err:
            if err.errno != errno.EEXIST or alien is None:
                raise
            raise CkptfsError(
                err.errno, f"{path} is there, with {alien}, which the "
                "framework did not write; a step is replaced as a whole: move "
                "that file, or save elsewhere") from err

    def _begin(self, run, step, options):
        rank = self._rank
        old = not self._comm.any(rank is None or rank.path != run)
        if not old:
            self._connect(run)
        save, failed = self._try(step, options)
        if old and self._comm.any(_gone(failed)):
            if save is not None:
                save.abort("the connection of another rank has ended")
            self._connect(run)
            save, failed = self._try(step, options)
        if failed is not None:
            raise failed
        return save

    def _try(self, step, options):
        """(Rank.save(), None) or (None, why not)."""
        try:
            return self._rank.save(step, **options), None
        except Exception as err:
            if not isinstance(err, CkptfsError):
                self._rank.close()  # the daemon waits for this rank
            return None, err

    def close(self):
        """Not collective: what is open of it fails for the others."""
        rank, self._rank = self._rank, None
        if rank is not None:
            rank.close()


def _gone(failed):
    return failed is not None and (not isinstance(failed, CkptfsError)
                                   or failed.errno in GONE)


def _look(path, owned):
    """(run, step, alien name) of a path, and all else that can fail before
    the ranks wait for each other."""
    _lib.lib()
    run, step = split(path)
    os.fsencode(run)
    _lib.text(step, "the step")
    return run, step, _alien(path, owned) if owned is not None else None


# What every step has that ranks committed.
_MARK = ("ckptfs", "step.json")


def _is_mark(path, name):
    path = os.path.join(path, name)
    return name == _MARK[0] and os.path.isdir(path) and \
        os.listdir(path) == [_MARK[1]]


def _alien(path, owned):
    """The first name in a directory that is not the framework's, or None.
    Every rank sees the same; where not, they disagree about `replace`, which
    begin() tells them all."""
    try:
        return next((n for n in sorted(os.listdir(path))
                     if not owned(n) and not _is_mark(path, n)), None)
    except (FileNotFoundError, NotADirectoryError):
        return None


def split(path):
    """(run, step) of a step's directory.  What is saved by the path of a view
    of a run goes to the run."""
    run, step = os.path.split(os.path.abspath(path))
    if not step:
        raise ValueError(f"{path} is no directory of a step")
    above, last = os.path.split(run)
    if last.startswith("@") and os.path.isdir(run) and \
            os.stat(run).st_ino >= VIEW_INODES:
        run = above
    return run, step


def in_mount(path):
    """Whether the path lies in a mounted store, by the kernel's table."""
    path = os.path.realpath(path)
    best, kind = "", ""
    with open("/proc/self/mountinfo") as table:
        for line in table:
            left, right = line.split(" - ", 1)
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)),
                           left.split()[4])
            if (path + "/").startswith(point.rstrip("/") + "/") and \
                    len(point) >= len(best):
                best, kind = point, right.split()[0]
    return kind == "fuse.ckptfs"
