"""What the plug-ins have in common: a run's connection kept between saves.

Some ranks may have lost theirs: after a save that failed there, or because the
daemon was restarted, which the first call afterwards finds out, on some ranks
or on all.  They agree on it, connect anew together and go on, so that it does
not cost a step.
"""
import errno
import os

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

    def begin(self, run, step, *, overwrite, owned, **options):
        """Rank.save(), of files.  Collective.

        A step that is there is replaced as a whole, so only where all that is
        in it is the framework's, which owned(name) tells.
        """
        path = os.path.join(run, step)
        alien = _alien(path, owned) if overwrite else None
        options.update(format="files", replace=bool(
            overwrite and alien is None and in_mount(run)))
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
        if self._comm is None:
            self._comm = comm_module.of(self._make_comm())
        old = not self._comm.any(self._rank is None or self._rank.path != run)
        if not old:
            self._connect(run)
        save, failed = None, None
        try:
            save = self._rank.save(step, **options)
        except OSError as err:
            failed = err
        lost = failed is not None and failed.errno in GONE
        if old and self._comm.any(lost):
            if save is not None:
                save.abort("the connection of another rank has ended")
            self._connect(run)
            return self._rank.save(step, **options)
        if failed:
            raise failed
        return save

    def close(self):
        """Not collective: what is open of it fails for the others."""
        rank, self._rank = self._rank, None
        if rank is not None:
            rank.close()


# What every step has that ranks committed.
_MARK = ("ckptfs", "step.json")


def _is_mark(path, name):
    return name == _MARK[0] and \
        os.listdir(os.path.join(path, name)) == [_MARK[1]]


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
            point = left.split()[4].encode().decode("unicode_escape")
            if (path + "/").startswith(point.rstrip("/") + "/") and \
                    len(point) >= len(best):
                best, kind = point, right.split()[0]
    return kind == "fuse.ckptfs"
