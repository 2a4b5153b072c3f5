"""Runs of tests/data/neox.tar.xz, unpacked, and views of them.  See
cli_place.py."""
import os
import shutil
import tarfile
import tempfile

import cli_place
from cli_place import ROOT, run

DATA = f"{ROOT}/tests/data/neox.tar.xz"
STEP = "global_step2"


class Runs:
    """The runs named, in a directory of their own."""

    def __init__(self, *names):
        self.names = names

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-options-")
        os.environ["CKPTFS_CACHE_DIR"] = f"{self.top}/cache"
        with tarfile.open(DATA) as tar:
            tar.extractall(self.top, [m for m in tar if m.name.split("/")[0]
                                      in self.names])
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.top)

    def add(self, name, view, request, *options, **kw):
        return run("view", "add", f"{self.top}/{name}", view, "--as", request,
                   *options, **kw)

    def same(self, name, view, want):
        out = f"{self.top}/out"
        shutil.rmtree(out, ignore_errors=True)
        run("export", f"{self.top}/{name}/{STEP}/@{view}", out)
        run("diff", out, f"{self.top}/{want}/{STEP}")

    def refused(self, name, view):
        run("ls", f"{self.top}/{name}/{STEP}/@{view}", status=1)
        return run.stderr


def main(tests):
    if not os.path.exists(DATA):
        print(f"no {DATA}")
        return 77
    return cli_place.main(tests)
