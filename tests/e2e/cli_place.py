"""What the tests of the command line share: the tool, a golden run.

Such a test is run as `test_X.py CKPTFS SOURCE_ROOT [TEST ...]`.  It needs
python alone; what needs root or FUSE is left out where there is none.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback

CKPTFS, ROOT = (os.path.abspath(path) for path in sys.argv[1:3])
GOLDEN = "deepspeed-0.16.5/bf16-g3-fused_z1-dp8"
STEP = "global_step7"


def run(*args, status=0, env=None, stdin=None):
    """Runs the tool; stdout.  On failure stderr must be one line of ours."""
    p = subprocess.run([CKPTFS, *args], capture_output=True, text=True,
                       stdin=stdin, env={**os.environ, **(env or {})},
                       timeout=300)
    assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
    if status and p.stderr:
        assert p.stderr.startswith(f"ckptfs {args[0]}: "), p.stderr
        assert p.stderr.count("\n") == 1, p.stderr
    run.stderr = p.stderr
    return p.stdout


def run_json(*args, **kw):
    return json.loads(run(*args, "--json", **kw))


def has_fuse():
    return os.path.exists("/dev/fuse") and "umount" in run("--help")


class Place:
    """A temporary directory with a writable copy of a golden run."""

    def __init__(self, golden=GOLDEN):
        self.golden = golden

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-cli-")
        os.environ["CKPTFS_CACHE_DIR"] = f"{self.top}/cache"
        self.run = f"{self.top}/run"
        shutil.copytree(f"{ROOT}/tests/data/{self.golden}", self.run)
        self.step = f"{self.run}/{STEP}"
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.top)

    def file(self, start):
        names = [n for n in os.listdir(self.step) if n.startswith(start)]
        assert len(names) == 1, names
        return f"{self.step}/{names[0]}"


def read(path):
    with open(path, "rb") as f:
        return f.read()


def seed():
    value = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print(f"    seed {value}")
    return value


def main(tests):
    """Runs the functions test_* of @tests, or those named; how many failed."""
    if not os.path.isdir(f"{ROOT}/tests/data/{GOLDEN}"):
        print("no golden steps in tests/data")
        return 77
    tests = {n: f for n, f in tests.items() if n.startswith("test_")}
    failed = 0
    for name in sys.argv[3:] or tests:
        print(name, flush=True)
        try:
            tests[name]()
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            traceback.print_exc()
            print(f"{name}: FAILED: {e}")
    return 1 if failed else 0
