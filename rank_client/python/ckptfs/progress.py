"""A progress bar: tqdm's where it is installed, else a line on a terminal.

How much there is to save is known only bit by bit, so the bar's end moves.
"""
import sys


class _Line:
    """One line, written again and again; nothing where nobody looks."""

    def __init__(self):
        self._shown = False

    def __call__(self, what, done, total):
        if not sys.stderr.isatty():
            return
        sys.stderr.write(f"\r{what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB")
        sys.stderr.flush()
        self._shown = True

    def close(self):
        if self._shown:
            sys.stderr.write("\n")
        self._shown = False


class _Tqdm:
    def __init__(self, tqdm):
        self._tqdm, self._bar = tqdm, None

    def __call__(self, what, done, total):
        if self._bar is None:
            self._bar = self._tqdm(total=total, desc=what, unit="B",
                                   unit_scale=True, disable=None)
        self._bar.total = total
        self._bar.update(max(0, done - self._bar.n))

    def close(self):
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def bar():
    """For Rank(progress=…): called with "save" or "load", bytes done, bytes
    in all so far; close() when a save has ended."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line()
    return _Tqdm(tqdm)
