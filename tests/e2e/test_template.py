"""view add --like: a template's files with a run's state, over steps that
GPT-NeoX wrote.  See neox_place.py; run_template.py has every pair."""
import contextlib
import os
import shutil
import subprocess
import sys
import time
import zipfile

from cli_place import CKPTFS, has_fuse, run, run_json
from neox_place import STEP, Runs, main

SOURCE = "pythia-fp16_tp4-pp2-dp1"
TARGET = "pythia-fp16_tp2-pp1-dp1"
SEQUENCE = "pythia-fp16_tp1-pp0-dp2-z3"
OTHER = "gpt2-fp16-deep_tp1-pp0-dp1"
ODD1 = "llama-fp16-odd_tp1-pp2-dp1"
ODD4 = "llama-fp16-odd_tp4-pp0-dp2"
NORMS = "gpt2-bf16-qknorm_tp1-pp0-dp1"
FP16 = "gpt2-fp16-deeper_tp1-pp0-dp2-z2-rr"
ONE_GROUP = "pythia-bf16-wd0_tp1-pp0-dp2"
APEX = "pythia-fp16-apex_tp1-pp0-dp1"
BF16 = "gpt2-bf16_tp1-pp0-dp2"
AS = ("--as", "vocab61-biassum")


def spoil(step):
    """Every tensor's bytes become others: what is shown is not the
    template's."""
    for name in sorted(os.listdir(step)):
        if not name.endswith(".pt"):
            continue
        with zipfile.ZipFile(f"{step}/{name}") as z:
            entries = [(e.filename, z.read(e)) for e in z.infolist()]
        with zipfile.ZipFile(f"{step}/{name}", "w") as z:
            for entry, data in entries:
                if "/data/" in entry:
                    data = b"\xa5" * len(data)
                z.writestr(entry, data)


class Templates(Runs):
    """Spoiled, each is dummy/NAME/STEP."""

    def __enter__(self):
        super().__enter__()
        for name in self.names:
            shutil.copytree(f"{self.top}/{name}", f"{self.top}/dummy/{name}")
            spoil(f"{self.top}/dummy/{name}/{STEP}")
        return self

    def like(self, name):
        return f"{self.top}/dummy/{name}/{STEP}"

    def fill(self, name, view, like, *options, **kw):
        return run("view", "add", f"{self.top}/{name}", view, "--like", like,
                   *options, **kw)


@contextlib.contextmanager
def mounted(source, mnt):
    os.mkdir(mnt)
    run("mount", source, mnt)
    try:
        yield mnt
    finally:
        for _ in range(100):
            if not subprocess.run([CKPTFS, "umount", mnt],
                                  capture_output=True).returncode:
                break
            time.sleep(0.05)


def same_files(a, b):
    names = sorted(n for n in os.listdir(b) if n.endswith(".pt"))
    assert sorted(n for n in os.listdir(a) if n.endswith(".pt")) == names
    for name in names:
        with open(f"{a}/{name}", "rb") as x, open(f"{b}/{name}", "rb") as y:
            assert x.read() == y.read(), name


def test_filled():
    with Templates(SOURCE, TARGET, SEQUENCE) as r:
        for source, target in ((SOURCE, TARGET), (TARGET, SEQUENCE),
                               (SEQUENCE, SOURCE)):
            said = r.fill(source, "new", r.like(target), *AS)
            assert r.like(target) in said, said
            r.same(source, "new", target)
        # a run's directory stands for its latest step
        with open(f"{r.top}/dummy/{TARGET}/latest", "w") as f:
            f.write(STEP)
        r.fill(SOURCE, "@run", f"{r.top}/dummy/{TARGET}", *AS)
        r.same(SOURCE, "run", TARGET)
        # one of the run's own steps, which is shown as well
        r.fill(TARGET, "self", f"{r.top}/{TARGET}/{STEP}")
        r.same(TARGET, "self", TARGET)
        views = run_json("view", "list", f"{r.top}/{SOURCE}")["views"]
        assert [v["options"]["like"] for v in views] == [r.like(TARGET)] * 2
        j = run_json("view", "explain", f"{r.top}/{SOURCE}/{STEP}/@new")
        assert j["request"]["tp"] == {"value": "2", "origin": "template"}
        assert j["options"]["like"] == r.like(TARGET)
        out = run("show", f"{r.top}/{SOURCE}/{STEP}/@new")
        assert "tp" in out


def test_mounted():
    if not has_fuse():
        return
    with Templates(SOURCE, TARGET) as r:
        r.fill(SOURCE, "new", r.like(TARGET), *AS)
        r.same(SOURCE, "new", TARGET)
        with mounted(f"{r.top}/{SOURCE}", f"{r.top}/mnt") as mnt:
            assert sorted(n for n in os.listdir(f"{mnt}/@new/{STEP}")
                          if n.endswith(".pt")) == \
                sorted(n for n in os.listdir(r.like(TARGET))
                       if n.endswith(".pt"))
            same_files(f"{mnt}/@new/{STEP}", f"{r.top}/out")
            # named where it is mounted
            r.fill(SOURCE, "again", r.like(TARGET), *AS)
            run("view", "add", mnt, "there", "--like", r.like(TARGET), *AS)
            same_files(f"{mnt}/@there/{STEP}", f"{r.top}/out")
            # a template that goes away takes the view with it
            os.rename(f"{r.top}/dummy", f"{r.top}/gone")
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    os.listdir(f"{mnt}/@new/{STEP}")
                    with open(f"{mnt}/@new/{STEP}/"
                              "layer_00-model_00-model_states.pt", "rb") as f:
                        f.read()
                except OSError:
                    break
                time.sleep(0.1)
            else:
                raise AssertionError("still shown")
            os.rename(f"{r.top}/gone", f"{r.top}/dummy")
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    same_files(f"{mnt}/@new/{STEP}", f"{r.top}/out")
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                raise AssertionError("not shown again")


def test_whole_source_mounted():
    """The template lies in the mounted directory itself."""
    if not has_fuse():
        return
    with Templates(SOURCE, TARGET) as r:
        with mounted(r.top, f"{r.top}-mnt") as mnt:
            run("view", "add", f"{mnt}/{SOURCE}", "in", "--like",
                f"{mnt}/dummy/{TARGET}/{STEP}", *AS)
            r.same(SOURCE, "in", TARGET)
            same_files(f"{mnt}/{SOURCE}/@in/{STEP}", f"{r.top}/out")
        os.rmdir(f"{r.top}-mnt")


def test_refused():
    with Templates(SOURCE, TARGET, ODD1, ODD4) as r:
        like = r.like(TARGET)
        r.fill(SOURCE, "new", like, "--dp", "2", status=2)
        r.fill(SOURCE, "new", like, "--as", "zero1", status=2)
        r.fill(SOURCE, "new", like, "--boundaries", "0,9", status=2)
        run("view", "add", f"{r.top}/{SOURCE}", "new", "--as", "dp2",
            "--partial", status=2)
        r.fill(SOURCE, "new", f"{r.top}/none", status=1)
        r.fill(SOURCE, "new", f"{r.top}/{TARGET}/{STEP}/@dp2", status=1)
        assert "a view" in run.stderr, run.stderr
        # which rows are padding is told by no checkpoint
        r.fill(ODD4, "new", r.like(ODD1), "--as", "qkvparts", status=1)
        assert "vocabN" in run.stderr, run.stderr
        r.fill(ODD4, "odd", r.like(ODD1), "--as", "vocab60-qkvparts")
        r.same(ODD4, "odd", ODD1)
        r.fill(ODD4, "new", r.like(ODD1), "--as", "vocab64-qkvparts",
               status=1)
        # more rows than there were
        r.fill(ODD1, "more", r.like(ODD4), "--as", "qkvparts")
        r.same(ODD1, "more", ODD4)
        run("ls", f"{r.top}/{SOURCE}/@new", status=1)
        assert not run_json("view", "list", f"{r.top}/{SOURCE}")["views"]
        run("export", f"{r.top}/{ODD1}/{STEP}/@universal-tp1",
            f"{r.top}/uc")
        r.fill(SOURCE, "new", f"{r.top}/uc", status=1)
        assert "@universal" in run.stderr, run.stderr


def test_changed():
    with Templates(SOURCE, TARGET) as r:
        like = r.like(TARGET)
        r.fill(SOURCE, "new", like, *AS)
        file = f"{like}/mp_rank_00_model_states.pt"
        st = os.stat(file)
        os.utime(file, ns=(st.st_atime_ns, st.st_mtime_ns + 10**9))
        assert "no longer as it was" in r.refused(SOURCE, "new")
        os.utime(file, ns=(st.st_atime_ns, st.st_mtime_ns))
        r.same(SOURCE, "new", TARGET)
        os.unlink(file)
        said = r.refused(SOURCE, "new")
        assert "template" in said, said
        shutil.rmtree(like)
        said = r.refused(SOURCE, "new")
        assert "template" in said and like in said, said


def only_in(a, b):
    """Names of tensors that `diff` finds in one alone or finds different."""
    p = subprocess.run([CKPTFS, "diff", "--json", a, b], text=True,
                       capture_output=True)
    assert p.returncode in (0, 1), p
    return p.stdout


def test_partial():
    norms = "attention.qk_layernorm"
    with Templates(BF16, NORMS) as r:
        r.fill(BF16, "more", r.like(NORMS), status=1)
        said = run.stderr
        assert "the template does not fit (--partial" in said, said
        assert "8 only in the template (sequential.2." + norms in said, said
        said = r.fill(BF16, "more", r.like(NORMS), "--partial")
        assert "8 only in the template (" in said, said
        run("export", f"{r.top}/{BF16}/{STEP}/@more", f"{r.top}/out")
        # what only the template has is as it has it, the rest is the step's
        said = only_in(f"{r.top}/out", r.like(NORMS))
        assert norms not in said and "word_embeddings" in said, said
        run("export", f"{r.top}/{BF16}/{STEP}/@dp1", f"{r.top}/own")
        said = only_in(f"{r.top}/out", f"{r.top}/own")
        assert norms in said and "word_embeddings" not in said, said
        # and the other way
        r.fill(NORMS, "less", r.like(BF16), status=1)
        assert "8 only in the step (" in run.stderr, run.stderr
        r.fill(NORMS, "less", r.like(BF16), "--partial")
        run("export", f"{r.top}/{NORMS}/{STEP}/@less", f"{r.top}/less")
        run("check", f"{r.top}/less")
        run("show", f"{r.top}/less")
        assert norms not in only_in(f"{r.top}/less", r.like(BF16))
    with Templates(TARGET, OTHER) as r:
        r.fill(TARGET, "other", r.like(OTHER), *AS, status=1)
        assert "of another shape (" in run.stderr, run.stderr
        r.fill(TARGET, "other", r.like(OTHER), *AS, "--partial")


def test_types():
    """fp16 files from a bf16 step: weights are rounded masters."""
    with Templates(BF16, FP16) as r:
        r.fill(BF16, "half", r.like(FP16))
        run("export", f"{r.top}/{BF16}/{STEP}/@half", f"{r.top}/out")
        assert sorted(n for n in os.listdir(f"{r.top}/out")
                      if n.endswith(".pt")) == \
            sorted(n for n in os.listdir(r.like(FP16)) if n.endswith(".pt"))
        run("check", f"{r.top}/out")
        said = only_in(f"{r.top}/out", f"{r.top}/{BF16}/{STEP}")
        assert "master" not in said and "exp_avg" not in said, said
    # one group and its count from two, and the other way
    with Templates(ONE_GROUP, APEX) as r:
        for source, target in ((ONE_GROUP, APEX), (APEX, ONE_GROUP)):
            r.fill(source, "new", r.like(target))
            out = f"{r.top}/{source}-out"
            run("export", f"{r.top}/{source}/{STEP}/@new", out)
            run("check", out)
            said = only_in(out, f"{r.top}/{source}/{STEP}")
            assert "master" not in said and "exp_avg" not in said, said


def test_universal():
    """A universal checkpoint fills templates, too."""
    with Templates(ODD1, ODD4) as r:
        step = f"{r.top}/universal/{STEP}"
        os.mkdir(f"{r.top}/universal")
        run("export", f"{r.top}/{ODD1}/{STEP}/@universal-tp1", step)
        for name in (".ckptfs-export.json", "latest", "latest_universal"):
            if os.path.exists(f"{step}/{name}"):
                os.unlink(f"{step}/{name}")
        for like in (ODD1, ODD4):
            r.fill("universal", "new", r.like(like), "--as", "qkvparts")
            r.same("universal", "new", like)


def test_store():
    if "init" not in run("--help"):
        return
    with Templates(SOURCE, TARGET) as r:
        store = f"{r.top}/store"
        r.fill(SOURCE, "new", r.like(TARGET), *AS)
        r.same(SOURCE, "new", TARGET)
        os.rename(f"{r.top}/out", f"{r.top}/want")
        run("init", store)
        os.rename(f"{r.top}/{SOURCE}", f"{r.top}/run")
        run("import", store, f"{r.top}/run", f"{r.top}/dummy")
        os.rename(f"{r.top}/run", f"{r.top}/{SOURCE}")
        like = f"{store}/dummy/{TARGET}/{STEP}"
        run("view", "add", f"{store}/run", "in", "--like", like, *AS)
        run("export", f"{store}/run/{STEP}/@in", f"{r.top}/out")
        same_files(f"{r.top}/out", f"{r.top}/want")
        # a run of a directory, a template in a store that is not mounted
        r.fill(SOURCE, "far", like, *AS, status=1)
        assert "another store" in run.stderr, run.stderr
        if not has_fuse():
            return
        with mounted(store, f"{r.top}/mnt") as mnt:
            same_files(f"{mnt}/run/@in/{STEP}", f"{r.top}/want")
            shutil.rmtree(f"{r.top}/out")
            run("export", f"{store}/run/{STEP}/@in", f"{r.top}/out")
            same_files(f"{r.top}/out", f"{r.top}/want")
            run("view", "add", f"{mnt}/run", "here", "--like",
                f"{mnt}/dummy/{TARGET}/{STEP}", *AS)
            same_files(f"{mnt}/run/@here/{STEP}", f"{r.top}/want")
            r.fill(SOURCE, "near", f"{mnt}/dummy/{TARGET}/{STEP}", *AS)
            r.same(SOURCE, "near", TARGET)


if __name__ == "__main__":
    sys.exit(main(globals()))
