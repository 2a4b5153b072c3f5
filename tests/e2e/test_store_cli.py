"""A store's verbs end to end: by itself, and while it is mounted.

usage: test_store_cli.py CKPTFS SOURCE_ROOT [TEST ...]

Needs python alone; what needs FUSE is left out where it is not.
"""
import contextlib
import errno
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import time

import cli_man
import step_maker

CKPTFS = ROOT = None
STEP = "global_step7"
VERBS = ("init du stats prune pin unpin gc scrub fsck import send receive "
         "resolve").split()


def run(*args, status=0, stdin=None):
    """Runs the tool; stdout.  On failure stderr must be one line of ours."""
    p = subprocess.run([CKPTFS, *args], capture_output=True, text=True,
                       stdin=stdin, timeout=300)
    assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
    if status and p.stderr:
        assert p.stderr.startswith(f"ckptfs {args[0]}: "), p.stderr
        assert p.stderr.count("\n") == 1, p.stderr
    run.stderr = p.stderr
    return p.stdout


def run_json(*args, **kw):
    return json.loads(run(*args, "--json", **kw))


class Place:
    """A temporary directory with a golden run and an empty store."""

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-store-cli-")
        os.environ["CKPTFS_CACHE_DIR"] = f"{self.top}/cache"
        self.run = f"{self.top}/run"
        shutil.copytree(
            f"{ROOT}/tests/data/deepspeed-0.16.5/bf16-g3-fused_z1-dp8",
            self.run)
        self.store = f"{self.top}/store"
        self.mnt = f"{self.top}/mnt"
        os.mkdir(self.mnt)
        run("init", self.store)
        return self

    def __exit__(self, *_):
        if os.path.ismount(self.mnt):
            subprocess.run([CKPTFS, "umount", self.mnt], check=False)
        shutil.rmtree(self.top)

    @contextlib.contextmanager
    def mounted(self):
        run("mount", self.store, self.mnt)
        try:
            yield self.mnt
        finally:
            run("umount", self.mnt)

    def make_steps(self, *numbers):
        for n in numbers:
            shutil.copytree(f"{self.run}/{STEP}", f"{self.run}/global_step{n}")


def has_fuse():
    return os.path.exists("/dev/fuse") and "umount" in run("--help")


def tree(top):
    """Everything of a tree that a copy keeps."""
    found, inos = {}, {}
    for path, dirs, files in os.walk(top):
        for name in [""] + dirs + files:
            p = os.path.join(path, name) if name else path
            rel = os.path.relpath(p, top)
            st = os.lstat(p)
            what = [stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode),
                    st.st_uid, st.st_gid, st.st_mtime_ns]
            if stat.S_ISREG(st.st_mode):
                with open(p, "rb") as f:
                    what += [f.read(), st.st_nlink,
                             inos.setdefault(st.st_ino, rel)]
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(p))
            found[rel] = what
    return found


def equal(a, b):
    """So that a difference is named, not printed whole."""
    assert a.keys() == b.keys(), set(a) ^ set(b)
    for rel in a:
        assert a[rel] == b[rel], (rel, [x for x in zip(a[rel], b[rel])
                                        if x[0] != x[1]])


def make_odd_tree(top, rng):
    """Names, sizes, holes, links and times that copies get wrong."""
    os.makedirs(f"{top}/d/empty")
    for i, size in enumerate((0, 1, 2047, 2048, 2049, 70000, 3 << 20)):
        with open(f"{top}/d/f{i}", "wb") as f:
            f.write(rng.randbytes(size))
    with open(f"{top}/d/holes", "wb") as f:
        f.seek(20 << 20)
        f.write(rng.randbytes(5000))
        f.truncate(50 << 20)
    with open(f"{top}/d/small-holes", "wb") as f:
        for at in range(1 << 16, 8 << 20, 3 << 18):
            f.seek(at)
            f.write(rng.randbytes(100000))
        f.truncate(9 << 20)
    with open(os.fsencode(f"{top}/d/") + b"\xff\nname", "wb") as f:
        f.write(b"x" * 5000)
    os.link(f"{top}/d/f5", f"{top}/other-name")
    os.symlink("d/nowhere", f"{top}/link")
    os.mkfifo(f"{top}/fifo")
    os.chmod(f"{top}/d/f6", 0o4751)
    os.chmod(f"{top}/d/empty", 0o1700)
    os.utime(f"{top}/d/f5", ns=(1234567890123456789, 987654321987654321))
    os.utime(f"{top}/d", ns=(5, 7))


# ---- tests ----


def test_help_and_man():
    problems = []
    for verb in VERBS:
        page = f"{ROOT}/fs/cli/man/ckptfs-{verb}.1"
        problems += cli_man.compare(CKPTFS, verb, page)
    assert not problems, "\n".join(problems)


def test_usage_errors():
    for args in (["init"], ["init", "a", "b"], ["init", "--sync", "0", "x"],
                 ["init", "--marker", "a/b", "x"], ["du"], ["du", "a", "b"],
                 ["stats"], ["prune", "x"], ["prune", "--keep-last", "0", "x"],
                 ["prune", "--newer-than", "3", "x"],
                 ["prune", "--newer-than", "3q", "x"], ["pin"], ["unpin"],
                 ["gc"], ["scrub"], ["fsck"], ["import", "x"], ["resolve"],
                 ["send"], ["send", "--json", "x"], ["receive"]):
        assert run(*args, status=2) == ""
        assert "--help" in run.stderr


def test_init():
    with Place() as p:
        run("init", p.store, status=1)
        run("init", p.run, status=1)
        for verb in ("du", "stats", "gc", "scrub", "fsck"):
            assert run(verb, p.run, status=1) == ""
            assert "store" in run.stderr
        assert run_json("init", f"{p.top}/s2", "--marker", "done")
        assert run_json("du", f"{p.top}/s2")["entries"] == []


def test_import_and_look():
    with Place() as p:
        run("import", p.store, p.run)
        run("import", p.store, p.run, status=1)
        assert "--merge" in run.stderr
        for path in (f"{p.store}/run", f"{p.store}//run/."):
            steps = run_json("ls", path)["steps"]
            assert [s["name"] for s in steps] == [STEP]
            assert steps[0]["complete"] and steps[0]["latest"]
        run("show", f"{p.store}/run")
        run("check", f"{p.store}/run/{STEP}")
        run("diff", f"{p.store}/run", p.run)
        run("diff", f"{p.store}/run/@dp3", f"{p.store}/run")
        run("export", f"{p.store}/run/@dp2", f"{p.top}/out")
        run("diff", f"{p.top}/out/{STEP}", p.run)
        run("export", f"{p.store}/run", f"{p.top}/copy")
        shutil.rmtree(f"{p.top}/out")
        for path, _, files in os.walk(f"{p.run}/{STEP}"):
            for name in files:
                a = open(f"{path}/{name}", "rb").read()
                b = open(f"{path}/{name}".replace(p.run, f"{p.top}/copy"),
                         "rb").read()
                assert a == b, name
        run("ls", f"{p.store}/nothing", status=1)
        run("fsck", p.store)
        # what the directory of the store holds is not what the store holds
        run("ls", f"{p.store}/packs", status=1)
        assert "no such" in run.stderr


def test_wrong_places():
    """One line that names what was named, and what to do."""
    with Place() as p:
        run("import", p.store, p.run)
        inside = f"{p.store}/run/{STEP}"
        for verb in ("gc", "scrub", "fsck", "stats"):
            assert run(verb, inside, status=1) == ""
            assert inside in run.stderr and "name " in run.stderr
        for args in (["du", f"{p.store}/none"], ["send", f"{p.store}/none"],
                     ["pin", f"{p.store}/none"],
                     ["prune", "--keep-last", "1", f"{p.store}/none"],
                     ["export", f"{p.store}/none", f"{p.top}/out"],
                     ["ls", f"{p.store}/none"]):
            assert run(*args, status=1) == ""
            assert run.stderr.count("none") == 1, run.stderr
        for source in (p.store, f"{p.store}/packs", f"{p.store}/."):
            run("import", f"{p.store}/x", source, status=1)
            assert "outside" in run.stderr
        # below what is imported it is passed over
        run("import", f"{p.store}/all", p.top)
        here = run_json("du", f"{p.store}/all/{os.path.basename(p.top)}")
        assert {e["name"] for e in here["entries"]} - {"cache"} == \
            {"mnt", "run"}, here
        assert not os.path.exists(f"{p.top}/out")
        run("fsck", p.store)


def test_du_and_stats():
    with Place() as p:
        p.make_steps(8)
        with open(f"{p.run}/{STEP}/notes", "wb") as f:
            f.write(os.urandom(300000))
        run("import", p.store, p.run)
        du = run_json("du", f"{p.store}/run")
        by = {e["name"]: e for e in du["entries"]}
        size = sum(os.path.getsize(f"{p.run}/{STEP}/{n}")
                   for n in os.listdir(f"{p.run}/{STEP}"))
        assert by[STEP]["apparent_bytes"] == size
        assert 300000 <= by[STEP]["unique_bytes"] < 310000, by
        assert by["global_step8"]["unique_bytes"] < 4096
        assert by["global_step8"]["shared_bytes"] > 4096
        total = du["total"]
        assert total["stored_bytes"] < by[STEP]["stored_bytes"] + \
            by["global_step8"]["stored_bytes"]
        one = run_json("du", f"{p.store}/run/{STEP}/notes")["entries"]
        assert [e["name"] for e in one] == ["notes"]
        assert one[0]["unique_bytes"] >= 300000
        s = run_json("stats", p.store)
        assert s["steps"] == 2 and s["unreadable_steps"] == 0
        roles = {r["role"]: r for r in s["roles"]}
        assert set(roles) == {"weights", "master", "moments", "other"}
        for key in ("logical_bytes", "unique_bytes", "stored_bytes"):
            assert sum(r[key] for r in roles.values()) == s[key]
        # fp32 master and two moments beside bf16 weights, twice
        assert roles["moments"]["logical_bytes"] == \
            2 * roles["master"]["logical_bytes"]
        assert roles["master"]["logical_bytes"] == \
            2 * roles["weights"]["logical_bytes"]
        assert 1.9 < roles["master"]["dedup_ratio"] <= 2.0
        assert s["logical_bytes"] == total["apparent_bytes"]
        assert run("du", p.store) and run("stats", p.store)


def test_prune():
    with Place() as p:
        p.make_steps(1, 2, 3, 4, 10)
        os.mkdir(f"{p.run}/logs")
        old = time.time() - 86400 * 40
        for step in ("global_step1", "global_step2", "global_step3",
                     "global_step4"):
            for name in os.listdir(f"{p.run}/{step}"):
                os.utime(f"{p.run}/{step}/{name}", (old, old))
            os.utime(f"{p.run}/{step}", (old, old))
        broken = f"{p.run}/global_step3"
        name = next(n for n in os.listdir(broken) if "optim" in n)
        os.remove(f"{broken}/{name}")
        os.utime(broken, (old, old))
        run("import", p.store, p.run)
        run("pin", f"{p.store}/run/global_step1")
        run("pin", f"{p.store}/run/nothing", status=1)
        run("unpin", f"{p.store}/run/global_step2", status=1)
        assert run("pin", p.store) == "run/global_step1\n"

        def pruned(*args):
            r = run_json("prune", *args, f"{p.store}/run")
            assert all(s["reason"] for s in r["steps"])
            return [s["name"] for s in r["steps"] if not s["keep"]]

        assert pruned("--keep-last", "2", "--dry-run") == \
            ["global_step2", "global_step3", "global_step4"]
        assert pruned("--keep-last", "1", "--keep-every", "2",
                      "--dry-run") == ["global_step3"]
        assert pruned("--newer-than", "30d", "--dry-run") == \
            ["global_step2", "global_step3", "global_step4"]
        assert pruned("--newer-than", "1w", "--keep-every", "4") == \
            ["global_step2", "global_step3"]
        left = {e["name"] for e in run_json("du", f"{p.store}/run")["entries"]}
        assert left == {"global_step1", "global_step4", STEP,
                        "global_step10", "latest", "logs"}, left
        run("unpin", f"{p.store}/run/global_step1")
        out = run("prune", "--keep-last", "1", f"{p.store}/run")
        assert "latest names it" in out and "ckptfs gc" in out
        left = {e["name"] for e in run_json("du", f"{p.store}/run")["entries"]}
        assert left == {STEP, "global_step10", "latest", "logs"}, left
        run("prune", "--keep-last", "1", p.store, status=1)
        assert "not a run" in run.stderr
        run("fsck", p.store)


def test_gc_and_scrub():
    with Place() as p:
        with open(f"{p.top}/big", "wb") as f:
            f.write(os.urandom(20 << 20))
        run("import", p.store, p.run, f"{p.top}/big")
        before = run_json("stats", p.store)["store"]["pack_bytes"]
        p.make_steps(9)
        run("import", "--merge", p.store, p.run)
        assert run_json("scrub", p.store)["damaged"] == 0
        dry = run_json("gc", "--dry-run", p.store)
        assert dry["dry_run"] and dry["bytes_freed"] < before // 2
        run("receive", f"{p.store}/x", status=1, stdin=subprocess.DEVNULL)
        # nothing of ours removes a single file, so: by mount or not at all
        if has_fuse():
            with p.mounted() as m:
                os.remove(f"{m}/big")
            freed = run_json("gc", p.store)
            assert freed["bytes_freed"] > 15 << 20, freed
            assert run_json("stats", p.store)["store"]["pack_bytes"] < before
        run("diff", f"{p.store}/run", p.run)
        run("fsck", p.store)
        # a chunk goes bad: found, named, exit 1
        packs = [os.path.join(d, f) for d, _, fs in
                 os.walk(f"{p.store}/packs") for f in fs]
        big = max(packs, key=os.path.getsize)
        with open(big, "r+b") as f:
            data = bytearray(f.read())
            i = data.index(b"CFSr", 200)
            while data[i + 4] != 2:  # a chunk's record
                i = data.index(b"CFSr", i + 4)
            f.seek(i + 72 + 200)
            f.write(bytes([data[i + 72 + 200] ^ 1]))
        r = run_json("scrub", p.store, status=1)
        assert r["damaged"] + r["missing"] >= 1 and r["findings"], r


def weights_stored(store):
    roles = {r["role"]: r for r in run_json("stats", store)["roles"]}
    return roles["weights"]["stored_bytes"]


def make_trained(p, rng):
    """Instead of the golden run: steps with weights worth deriving."""
    shutil.rmtree(p.run)
    step_maker.make(f"{p.run}/{STEP}", rng)
    step_maker.make(f"{p.run}/global_step8", rng, steps=8)
    with open(f"{p.run}/latest", "w", encoding="utf-8") as f:
        f.write("global_step8")
    os.mkdir(f"{p.run}/kept")
    shutil.copyfile(f"{p.run}/{STEP}/mp_rank_00_model_states.pt",
                    f"{p.run}/kept/weights.pt")


def test_derive():
    """gc keeps weights as their rounded master, as long as anyone has them."""
    rng = random.Random(seed())
    with Place() as p:
        make_trained(p, rng)
        step_maker.make(f"{p.run}/other/{STEP}", rng, rounded=False)
        with open(f"{p.run}/other/latest", "w", encoding="utf-8") as f:
            f.write(STEP)
        run("import", p.store, p.run)
        before = weights_stored(p.store)
        assert run_json("gc", "--dry-run", p.store)["dry_run"]
        assert weights_stored(p.store) == before
        # two large tensors a step, of which another step's are no rounded
        # master
        assert run_json("gc", p.store)["derived"] == 4
        after = weights_stored(p.store)
        assert before * 0.3 < after < before * 0.4, (before, after)
        assert run_json("gc", p.store)["derived"] == 0
        for args in ((), ("--rebuild-index",)):
            assert run_json("fsck", *args, p.store)["problems"] == 0
            assert run_json("scrub", p.store)["damaged"] == 0
            assert weights_stored(p.store) == after
            run("diff", f"{p.store}/run/{STEP}", f"{p.run}/{STEP}")
        run("diff", f"{p.store}/run/@dp3", p.run)
        # where they go derived ones go with what they are made of
        other = f"{p.top}/other"
        run("init", other)
        with open(f"{p.top}/stream", "wb") as f:
            subprocess.run([CKPTFS, "send", f"{p.store}/run"], stdout=f,
                           check=True)
        with open(f"{p.top}/stream", "rb") as f:
            run("receive", f"{other}/run", stdin=f)
        run("diff", f"{other}/run/{STEP}", f"{p.run}/{STEP}")
        # the step with the master goes, the weights are in another file
        assert run_json("prune", "--keep-last", "1", "--gc",
                        f"{p.store}/run")["removed"] == 1
        assert run_json("scrub", p.store)["damaged"] == 0
        if has_fuse():
            with p.mounted() as m, open(f"{m}/run/kept/weights.pt", "rb") as f:
                with open(f"{p.run}/kept/weights.pt", "rb") as want:
                    assert f.read() == want.read()
        run("fsck", p.store)


def test_derive_in_background():
    if not has_fuse():
        return print("    (no FUSE)")
    rng = random.Random(seed())
    with Place() as p:
        make_trained(p, rng)
        run("mount", "-o", "derive=0", p.store, p.mnt)
        shutil.copytree(p.run, f"{p.mnt}/run")
        run("umount", p.mnt)
        before = weights_stored(p.store)
        for again in range(2):
            run("mount", "-o", "derive=1", p.store, p.mnt)
            if not again:
                deadline = time.monotonic() + 120
                while weights_stored(p.mnt) > before / 10:
                    assert time.monotonic() < deadline, "nothing is derived"
                    time.sleep(0.3)
            for path, _, files in os.walk(p.run):
                for name in files:
                    with open(f"{path}/{name}", "rb") as f:
                        want = f.read()
                    there = f"{path}/{name}".replace(p.run, f"{p.mnt}/run")
                    with open(there, "rb") as f:
                        assert f.read() == want, there
            assert run_json("scrub", p.store)["damaged"] == 0
            run("gc", p.mnt)
            run("umount", p.mnt)
        assert weights_stored(p.store) < before / 10
        run("fsck", p.store)


def test_index_rebuilt():
    with Place() as p:
        run("import", p.store, p.run)
        run("fsck", "--rebuild-index", p.store)
        shutil.rmtree(f"{p.store}/index")
        assert run_json("fsck", p.store)["problems"] == 0
        run("diff", f"{p.store}/run", p.run)


def test_import_keeps_all():
    rng = random.Random(seed())
    with Place() as p:
        src = f"{p.top}/src"
        make_odd_tree(src, rng)
        want = tree(src)
        run("import", p.store, src)
        run("import", f"{p.store}/deep/er", f"{src}/.")
        done = run_json("import", "--merge", p.store, src)
        assert done["files_kept"] == done["files"], done
        # what changed is replaced, what is new comes, the rest stays
        with open(f"{src}/d/f5", "r+b") as f:
            f.write(b"other")
        os.remove(f"{src}/fifo")
        if has_fuse():
            with p.mounted() as m:
                equal(tree(f"{m}/src"), want)
                # of SOURCE/. what is in it, not itself
                deep = tree(f"{m}/deep/er")
                del deep["."]
                equal(deep, {k: v for k, v in want.items() if k != "."})
                with open(f"{m}/src/d/holes", "rb") as f:
                    assert os.lseek(f.fileno(), 0, os.SEEK_DATA) == 20 << 20
                    assert os.lseek(f.fileno(), 20 << 20, os.SEEK_HOLE) \
                        < 21 << 20
        done = run_json("import", "--merge", p.store, src)
        assert done["files_kept"] == done["files"] - 1, done
        run("fsck", p.store)
        # a directory where a file is
        os.remove(f"{src}/d/f1")
        os.mkdir(f"{src}/d/f1")
        run("import", "--merge", p.store, src, status=1)
        run("import", p.store, f"{p.top}/nothing", status=1)


def test_send_receive():
    rng = random.Random(seed())
    with Place() as p:
        src = f"{p.top}/src"
        make_odd_tree(src, rng)
        shutil.copyfile(f"{src}/d/f6", f"{src}/d/f6-again")
        want = tree(src)
        run("import", p.store, src, p.run)
        other = f"{p.top}/other store"
        run("init", other)
        to = f"'{CKPTFS}' receive '{other}/a/src'"
        first = run_json("send", "--to", to, f"{p.store}/src")
        assert first["chunks_sent"] > 0
        again = run_json("send", "--to", to.replace("a/src", "b"),
                         f"{p.store}/src")
        assert again["chunks_sent"] == 0, again
        assert again["chunks_known"] > 0
        assert again["bytes_sent"] < 64 << 10
        # it is there already: both sides say so
        bad = subprocess.run([CKPTFS, "send", "--to", to, f"{p.store}/src"],
                             capture_output=True, text=True)
        assert bad.returncode == 1 and "there already" in bad.stderr
        stream = f"{p.top}/stream"
        with open(stream, "wb") as f:
            subprocess.run([CKPTFS, "send", p.store], stdout=f, check=True)
        third = f"{p.top}/third"
        run("init", third)
        with open(stream, "rb") as f:
            got = run_json("receive", f"{third}/all", stdin=f)
        assert got["files"] == 11 + 10, got
        run("diff", f"{third}/all/run", p.run)
        size = os.path.getsize(stream)
        for cut in (0, 3, 16, size // 2, size - 1):
            with open(stream, "rb") as f, tempfile.TemporaryFile() as g:
                g.write(f.read(cut))
                g.seek(0)
                run("receive", f"{third}/cut", status=1, stdin=g)
        assert [e["name"] for e in run_json("du", third)["entries"]] == ["all"]
        run("fsck", third)
        run("send", "--to", "exit 3", f"{p.store}/src", status=1)
        if has_fuse():
            p.store, store = other, p.store
            with p.mounted() as m:
                equal(tree(f"{m}/a/src"), want)
                equal(tree(f"{m}/b"), want)
            p.store = store


def test_resolve():
    with Place() as p:
        empty = f"{p.top}/empty"
        os.mkdir(empty)
        assert run("resolve", p.run) == f"{p.run}/{STEP}\n"
        assert run("resolve", "--if-exists", empty) == ""
        assert run("resolve", "--if-exists", f"{p.top}/not-there") == ""
        run("resolve", empty, status=1)
        assert run("resolve", empty, p.run + "/") == f"{p.run}/{STEP}\n"
        assert run("resolve", "--name", p.run, empty) == f"{STEP}\n"
        p.make_steps(3, 9)
        run("import", p.store, p.run)
        name = next(n for n in os.listdir(f"{p.run}/{STEP}") if "optim" in n)
        os.remove(f"{p.run}/{STEP}/{name}")
        assert run("resolve", "--name", p.run) == "global_step3\n"
        os.remove(f"{p.run}/latest")
        assert run_json("resolve", p.run)["step"] == "global_step9"
        s = f"{p.store}/run"
        assert run("resolve", s) == f"{s}/{STEP}\n"
        assert run("resolve", "--if-exists", f"{p.store}/none", s) == \
            f"{s}/{STEP}\n"
        run("resolve", p.store, status=1)


def put(path, text="x", at=None):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    if at:
        os.utime(path, (at, at))


def make_layouts(top):
    """Runs as other trainers leave them; of each the newest is not whole."""
    old = time.time() - 86400 * 9
    for n, tag in enumerate(("b", "step_30", "step_20", "step_10")):
        put(f"{top}/nxd/{tag}/checkpoint", "1", old + n * 100)
        put(f"{top}/nxd/{tag}/model/dp_rank_00_tp_rank_00_pp_rank_00.pt")
        if n < 3:
            put(f"{top}/nxd/{tag}/done", "1", old + n * 100 + 50)
    for n in (100, 200, 300):
        for rank in range(2):
            put(f"{top}/megatron/iter_{n:07d}/mp_rank_0{rank}/"
                "model_optim_rng.pt")
        put(f"{top}/mcore/iter_{n:07d}/.metadata")
        put(f"{top}/mcore/iter_{n:07d}/metadata.json", "{}")
        put(f"{top}/mcore/iter_{n:07d}/__0_0.distcp")
    os.remove(f"{top}/megatron/iter_0000200/mp_rank_01/model_optim_rng.pt")
    put(f"{top}/megatron/latest_checkpointed_iteration.txt", "200")
    put(f"{top}/mcore/latest_checkpointed_iteration.txt", "200\n")
    for n in (5, 60, 7):
        for i in (1, 2):
            put(f"{top}/trainer/checkpoint-{n}/model-0000{i}-of-00002"
                ".safetensors")
        put(f"{top}/trainer/checkpoint-{n}/trainer_state.json", "{}")
    put(f"{top}/trainer/runs/events")
    os.remove(f"{top}/trainer/checkpoint-60/model-00002-of-00002.safetensors")
    for n in (10, 9, 11):
        put(f"{top}/levanter/step-{n}/manifest.ocdbt")
        if n < 11:
            put(f"{top}/levanter/step-{n}/metadata.json", "{}")
        put(f"{top}/dcp/{n}/__0_0.distcp")
        if n < 11:
            put(f"{top}/dcp/{n}/.metadata")
    return {"nxd": "step_20", "megatron": "iter_0000100",
            "mcore": "iter_0000200", "trainer": "checkpoint-7",
            "levanter": "step-10", "dcp": "10"}


def test_other_trainers():
    """Whole or not by each trainer's own rule, and what keep-last keeps."""
    with Place() as p:
        top = f"{p.top}/runs"
        want = make_layouts(top)
        run("import", p.store, f"{top}/.")
        for name, step in want.items():
            assert run("resolve", "--name", f"{top}/{name}") == f"{step}\n"
            assert run("resolve", "--name", f"{p.store}/{name}") == f"{step}\n"
        # a result directory that has nothing yet comes first
        os.mkdir(f"{top}/results")
        assert run("resolve", "--if-exists", f"{top}/results",
                   f"{top}/nxd") == f"{top}/nxd/step_20\n"
        put(f"{top}/results/step_1/checkpoint")
        put(f"{top}/results/step_1/model/x")
        assert run("resolve", "--if-exists", f"{top}/results") == ""
        put(f"{top}/results/step_1/done")
        assert run("resolve", f"{top}/results", f"{top}/nxd") == \
            f"{top}/results/step_1\n"
        gone = {"nxd": ["b", "step_30"], "megatron": [],
                "mcore": ["iter_0000100"],
                "trainer": ["checkpoint-5"], "levanter": ["step-9"],
                "dcp": ["9"]}
        for name, steps in gone.items():
            r = run_json("prune", "--keep-last", "1", f"{p.store}/{name}")
            assert [s["name"] for s in r["steps"] if not s["keep"]] == steps, r
            assert r["removed"] == len(steps)
            assert run("resolve", "--name", f"{p.store}/{name}") == \
                f"{want[name]}\n"
        run("prune", "--keep-last", "1", f"{p.store}/trainer/runs", status=1)
        run("fsck", p.store)


def test_mounted():
    """All verbs while the store is mounted, by both of its names."""
    if not has_fuse():
        return print("    (no FUSE)")
    with Place() as p:
        run("import", p.store, p.run)
        with p.mounted() as m:
            run("import", f"{p.store}/more", p.run)
            assert sorted(os.listdir(f"{m}/more/run")) == [STEP, "latest"]
            equal(tree(f"{m}/more/run"), tree(p.run))
            for name in (p.store, m):
                assert run_json("du", f"{name}/run")["total"]["files"] == 10
                assert run_json("stats", name)["steps"] == 2
                assert run("resolve", f"{name}/run") == f"{name}/run/{STEP}\n"
                assert run_json("fsck", name)["problems"] == 0
                assert run_json("scrub", name)["damaged"] == 0
                run("gc", name)
            run("ls", f"{m}/run")
            run("diff", f"{m}/run/@dp2", f"{m}/more/run")
            for verb in (["ls"], ["check"], ["show"], ["view", "explain"]):
                at = "run" if verb == ["ls"] else f"run/{STEP}"
                # the paths they print aside
                assert run(*verb, f"{p.store}/{at}").count("\n") == \
                    run(*verb, f"{m}/{at}").count("\n"), verb
            run("diff", f"{p.store}/run/@dp2", f"{m}/run")
            run("export", "--quiet", f"{p.store}/run/@dp2", f"{p.top}/out")
            run("diff", f"{p.top}/out", f"{m}/run")
            run("fsck", "--rebuild-index", p.store, status=1)
            for n in (1, 2, 3):
                shutil.copytree(f"{m}/run/{STEP}", f"{m}/run/global_step{n}")
            run("pin", f"{m}/run/global_step1")
            # one that goes is read on by who has it open
            name = sorted(os.listdir(f"{m}/run/global_step2"))[0]
            want = open(f"{p.run}/{STEP}/{name}", "rb").read()
            os.stat(f"{m}/run/global_step2/{name}")
            with open(f"{m}/run/global_step2/{name}", "rb") as f:
                r = run_json("prune", "--keep-last", "1", "--gc",
                             f"{p.store}/run")
                assert r["removed"] == 2 and "gc" in r, r
                assert sorted(os.listdir(f"{m}/run")) == \
                    ["global_step1", STEP, "latest"]
                assert not os.path.exists(f"{m}/run/global_step2")
                assert f.read() == want
            to = f"'{CKPTFS}' receive '{m}/sent'"
            other = f"{p.top}/other"
            run("init", other)
            run("import", other, p.run)
            assert run_json("send", "--to", to, f"{other}/run")["chunks_sent"] \
                == 0
            equal(tree(f"{m}/sent"), tree(p.run))
            run("send", "--to", f"'{CKPTFS}' receive '{other}/back'",
                f"{p.store}/sent")
            assert os.listdir(f"{p.store}").count("control") == 1
        assert "control" not in os.listdir(p.store)
        run("fsck", p.store)
        run("diff", f"{p.store}/sent", p.run)


def test_churn():
    """A moment of store_churn.py; by itself it goes on for longer."""
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(
        [sys.executable, f"{here}/store_churn.py", "--seconds", "8",
         "--kills", "2"], env={**os.environ, "CKPTFS": CKPTFS}, check=False)
    assert done.returncode in (0, 77), done.returncode


def read(path):
    with open(path, "rb") as f:
        return f.read()


def test_prune_with_views_open():
    """A view's file that is open is read on, and is gone by its name."""
    if not has_fuse():
        return print("    (no FUSE)")
    rng = random.Random(seed())
    with Place() as p:
        make_trained(p, rng)
        run("import", p.store, p.run)
        name = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
        run("export", f"{p.run}/{STEP}/@dp3", f"{p.top}/out")
        # not read by the mount, whose pages would be there for ever
        want = read(next(f"{d}/{name}" for d, _, files in
                         os.walk(f"{p.top}/out") if name in files))
        with p.mounted() as m:
            old = f"{m}/run/@dp3/{STEP}"
            assert len(want) > 1 << 20
            with open(f"{old}/{name}", "rb", buffering=0) as f, \
                    open(f"{m}/run/{STEP}/{name}", "rb", buffering=0) as g:
                first = f.read(1000)
                r = run_json("prune", "--keep-last", "1", "--gc",
                             f"{m}/run")
                assert r["removed"] == 1
                assert first + f.read() == want
                assert g.read() == read(f"{p.run}/{STEP}/{name}")
            for path in (f"{old}/{name}", old, f"{m}/run/{STEP}"):
                assert not os.path.exists(path), path
            assert STEP not in os.listdir(f"{m}/run/@dp3")
            run("diff", f"{m}/run/@dp3", f"{p.run}/global_step8")
            # nobody has it open any more: the next one gives its room back
            assert run_json("gc", m)["bytes_freed"] > 1 << 20
            run("fsck", m)


def test_rebuild_keeps_what_works():
    """An index that a damaged log cannot make again is not given up."""
    with Place() as p:
        run("import", p.store, p.run)
        pack = f"{p.store}/packs/0000/00000001.pack"
        data = bytearray(read(pack))
        at = data.find(b"CFSr\x04")  # a BATCH record
        assert at > 0
        data[at + 90] ^= 1
        with open(pack, "wb") as f:
            f.write(data)
        run("fsck", "--rebuild-index", p.store, status=1)
        assert "stays as it was" in run.stderr, run.stderr
        run("fsck", p.store)
        run("scrub", p.store, status=1)  # and leaves that part behind
        run("fsck", "--rebuild-index", p.store)
        run("diff", f"{p.store}/run", p.run)
        assert sorted(os.listdir(p.store)) == [
            "ckptfs.json", "index", "lock", "packs", "refs"]


def test_one_writable_mount():
    if not has_fuse():
        return print("    (no FUSE)")
    with Place() as p:
        second = f"{p.top}/second"
        os.mkdir(second)
        with p.mounted() as m:
            for options in ([], ["-o", "ro"]):
                run("mount", *options, p.store, second, status=1)
                assert m in run.stderr and "in use" in run.stderr
            assert not os.path.ismount(second)
            run("stats", m)
        run("mount", p.store, second)
        run("umount", second)


def kill_daemon(mnt):
    """Ends when it is gone: a mount whose daemon still dies is a mount."""
    os.kill(int(os.getxattr(mnt, "user.ckptfs.pid")), 9)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.statvfs(mnt)
        except OSError:
            return
        time.sleep(0.005)
    raise AssertionError("the mount of a dead daemon answers")


def test_pointer_after_a_kill():
    """`latest` was written before all ranks had: it goes back to what is
    whole."""
    if not has_fuse():
        return print("    (no FUSE)")
    rng = random.Random(seed())
    with Place() as p:
        make_trained(p, rng)
        names = sorted(os.listdir(f"{p.run}/{STEP}"))
        run("mount", p.store, p.mnt)
        top = f"{p.mnt}/run"
        shutil.copytree(f"{p.run}/{STEP}", f"{top}/{STEP}")
        put(f"{top}/latest", STEP)
        for attempt in range(3):
            step = f"{top}/global_step8"
            shutil.rmtree(step, ignore_errors=True)
            os.mkdir(step)
            for name in names[:attempt]:
                shutil.copyfile(f"{p.run}/global_step8/{name}",
                                f"{step}/{name}")
            with open(f"{step}/{names[attempt]}", "wb") as late:
                late.write(read(f"{p.run}/global_step8/{names[attempt]}")
                           [:100000])
                put(f"{top}/latest", "global_step8")
                kill_daemon(p.mnt)
                with contextlib.suppress(OSError):
                    late.close()
            log = f"{p.top}/log{attempt}"
            run("mount", "-o", f"log={log}", p.store, p.mnt)
            assert read(f"{top}/latest") == STEP.encode()
            said = read(log).decode()
            assert "run/latest named global_step8" in said and STEP in said, \
                said
            assert run("resolve", "--name", top) == f"{STEP}\n"
            for name in names:
                assert read(f"{top}/{STEP}/{name}") == \
                    read(f"{p.run}/{STEP}/{name}"), name
            run("diff", f"{top}/@dp3/{STEP}", f"{p.run}/{STEP}")
        # whole: it stays
        shutil.rmtree(f"{top}/global_step8")
        shutil.copytree(f"{p.run}/global_step8", f"{top}/global_step8")
        put(f"{top}/latest", "global_step8")
        kill_daemon(p.mnt)
        run("mount", p.store, p.mnt)
        assert read(f"{top}/latest") == b"global_step8"
        run("diff", top, f"{p.run}/global_step8")
        run("umount", p.mnt)
        run("fsck", p.store)


def test_two_names_of_steps():
    """Whoever is asked for the newest whole step: one that is named like what
    `latest` names comes before one that is only of a higher number."""
    if not has_fuse():
        return print("    (no FUSE)")
    with Place() as p:
        run("mount", p.store, p.mnt)
        top = f"{p.mnt}/run"
        for name in ("global_step3", "global_step9", "epoch7"):
            shutil.copytree(f"{p.run}/{STEP}", f"{top}/{name}")
        os.remove(next(f"{top}/global_step9/{n}" for n in
                       os.listdir(f"{top}/global_step9") if "optim" in n))
        put(f"{top}/latest", "global_step9")

        def all_say():
            assert read(f"{top}/@dp2/latest").decode() == "global_step3"
            for where in (top, f"{p.store}/run"):
                assert run("resolve", "--name", where) == "global_step3\n"
            assert run_json("ls", top)["view_latest"] == "global_step3"

        all_say()
        kill_daemon(p.mnt)
        run("mount", p.store, p.mnt)
        assert read(f"{top}/latest") == b"global_step3"
        all_say()
        run("umount", p.mnt)
        assert run("resolve", "--name", f"{p.store}/run") == "global_step3\n"


def test_only_the_owner():
    if os.geteuid() != 0 or not has_fuse():
        return print("    (needs root and FUSE)")
    with Place() as p:
        os.chmod(p.top, 0o755)
        os.chmod(p.store, 0o755)
        with p.mounted():
            done = subprocess.run(
                [CKPTFS, "du", p.store], capture_output=True, text=True,
                user=65534, group=65534, extra_groups=[],
                env={**os.environ, "HOME": p.top})
            assert done.returncode == 1 and "owner" in done.stderr, done
            assert done.stderr.count("\n") == 1, done.stderr
            # an owner imports what the owner may read, no more
            os.chown(p.store, 65534, 65534)
        with p.mounted():
            secret = f"{p.top}/secret"
            with open(secret, "w", encoding="utf-8") as f:
                f.write("x")
            os.chmod(secret, 0o600)
            for source, status in ((secret, 1), (p.run, 0)):
                done = subprocess.run(
                    [CKPTFS, "import", p.store, source], text=True,
                    capture_output=True, user=65534, group=65534,
                    extra_groups=[], env={**os.environ, "HOME": p.top})
                assert done.returncode == status, (source, done)
            assert os.stat(f"{p.mnt}/run/{STEP}").st_uid == 65534


def everything(top):
    """What a store is, to the last byte, but for a socket's coming and going."""
    found = tree(top)
    return {k: v for k, v in found.items() if k != "control"}


def asker(p, **who):
    """run() for bytes, with nothing on stdin, maybe as somebody else."""
    def ask(*args, status=0):
        done = subprocess.run(
            [CKPTFS, *args], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=300, env={**os.environ, "HOME": p.top}, **who)
        err = done.stderr.decode()
        assert done.returncode == status, (args, done.returncode, err)
        assert err.count("\n") == bool(status), (args, err)
        return done.stdout.decode(errors="replace")
    return ask


def only_reads(store, out, ask):
    """All that looks works, all that changes is refused, in one line."""
    run_in = f"{store}/run"
    assert f"{STEP}" in ask("ls", run_in)
    assert ask("du", run_in) and ask("stats", store)
    assert "0 problems" in ask("fsck", store)
    assert "0 damaged" in ask("scrub", store)
    assert ask("resolve", "--name", run_in) == f"{STEP}\n"
    assert "stage 1" in ask("show", f"{run_in}/{STEP}")
    assert "equal" in ask("diff", run_in, f"{run_in}/@dp4")
    ask("check", run_in)
    assert ask("pin", store) == "run/" + STEP + "\n"
    ask("gc", "--dry-run", store)
    ask("prune", "--dry-run", "--keep-last", "1", run_in)
    ask("export", run_in, out)
    with open(f"{out}/latest", encoding="utf-8") as f:
        assert f.read() == STEP
    ask("send", run_in)
    for args in (["gc", store], ["prune", "--keep-last", "1", run_in],
                 ["pin", f"{run_in}/{STEP}"], ["unpin", f"{run_in}/{STEP}"],
                 ["import", store, f"{ROOT}/README.md"],
                 ["receive", f"{store}/new"],
                 ["fsck", "--rebuild-index", store]):
        ask(*args, status=1)


def fill_and_pin(p):
    run("import", p.store, p.run)
    run("pin", f"{p.store}/run/{STEP}")


def test_read_only_filesystem():
    if os.geteuid() != 0:
        return print("    (needs root)")
    with Place() as p:
        fill_and_pin(p)
        before = everything(p.store)
        ro = f"{p.top}/ro"
        os.mkdir(ro)
        done = subprocess.run(f"mount --bind {p.store} {ro} && "
                              f"mount -o remount,bind,ro {ro}", shell=True,
                              capture_output=True, text=True)
        try:
            if done.returncode:
                return print(f"    (cannot be made: {done.stderr.strip()})")
            ask = asker(p)
            only_reads(ro, f"{p.top}/out", ask)
            if has_fuse():
                err = run("mount", ro, p.mnt, status=1) or run.stderr
                assert "-o ro" in err, err
                run("mount", "-o", "ro", ro, p.mnt)
                equal(tree(f"{p.mnt}/run"), tree(p.run))
                only_reads(ro, f"{p.top}/out2", ask)
                run("du", p.mnt)
                # who could write waits for those who read
                run("gc", p.store, status=1)
                assert "only read it" in run.stderr, run.stderr
                run("umount", p.mnt)
            equal(before, everything(p.store))
        finally:
            subprocess.run(["umount", ro], check=False, capture_output=True)
        run("gc", p.store)


def test_somebody_elses_store():
    """One may read what one may read, and leaves nothing there."""
    if os.geteuid() != 0:
        return print("    (needs root)")
    with Place() as p:
        fill_and_pin(p)
        os.chmod(p.top, 0o755)
        os.makedirs(f"{p.top}/theirs")
        os.chmod(f"{p.top}/theirs", 0o777)
        ask = asker(p, user=65534, group=65534, extra_groups=[])
        ask("du", p.store, status=1)
        subprocess.run(["chmod", "-R", "a+rX", p.store], check=True)
        before = everything(p.store)
        only_reads(p.store, f"{p.top}/theirs/out", ask)
        os.unlink(f"{p.store}/lock")
        ask("du", p.store)  # one that was never opened has none
        for name in ("lock", "."):
            del before[name]
        after = everything(p.store)
        del after["."]
        equal(before, after)


def test_mounted_read_only():
    """-o ro: verbs do not change what the mount must not, nor does time."""
    if not has_fuse():
        return print("    (needs FUSE)")
    with Place() as p:
        with p.mounted() as m:
            shutil.copytree(p.run, f"{m}/run")
            sync(m)
            # the last that writes dies, so that opening has to recover
            kill_daemon(m)
        run("pin", f"{p.store}/run/{STEP}")
        with p.mounted() as m:
            put(f"{m}/more", "x" * 5000)
            sync(m)
            kill_daemon(m)
        packs = tree(f"{p.store}/packs")
        run("mount", "-o", "ro", p.store, p.mnt)
        before = tree(f"{p.mnt}/run")
        for args in (["gc", p.store], ["prune", "--keep-last", "1",
                                       f"{p.mnt}/run"],
                     ["pin", f"{p.mnt}/run/{STEP}"],
                     ["unpin", f"{p.store}/run/{STEP}"],
                     ["import", p.store, f"{ROOT}/README.md"]):
            run(*args, status=1)
            assert "read-only" in run.stderr, run.stderr
            assert run.stderr.count("\n") == 1
        assert run("pin", p.mnt) == f"run/{STEP}\n"
        run("du", p.mnt), run("stats", p.store), run("fsck", p.store)
        try:
            with open(f"{p.mnt}/new", "wb"):
                assert False, "made on a read-only mount"
        except OSError as e:
            assert e.errno == errno.EROFS, e
        time.sleep(6)  # past the clock's sync
        equal(before, tree(f"{p.mnt}/run"))
        run("umount", p.mnt)
        equal(packs, tree(f"{p.store}/packs"))
        equal(tree(p.run), tree_of_mount(p))


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def tree_of_mount(p):
    with p.mounted() as m:
        return tree(f"{m}/run")


def test_root_leaves_it_the_owners():
    """What root does to somebody's store must not lock that one out."""
    if os.geteuid() != 0:
        return print("    (needs root)")
    with Place() as p:
        os.chmod(p.top, 0o755)
        for path, dirs, files in os.walk(p.store):
            for name in [""] + dirs + files:
                os.chown(os.path.join(path, name), 65534, 65534)
        for args in (["import", p.store, p.run],
                     ["fsck", "--rebuild-index", p.store],
                     ["gc", p.store], ["import", f"{p.store}/b", p.run],
                     ["stats", p.store]):
            run(*args)
            for path, dirs, files in os.walk(p.store):
                for name in [""] + dirs + files:
                    st = os.lstat(os.path.join(path, name))
                    assert (st.st_uid, st.st_gid) == (65534, 65534), \
                        (args, path, name)
            done = subprocess.run(
                [CKPTFS, "gc", p.store], text=True, capture_output=True,
                user=65534, group=65534, extra_groups=[],
                env={**os.environ, "HOME": p.top})
            assert done.returncode == 0, done
        if has_fuse():
            with p.mounted() as m:
                put(f"{m}/file", "x" * 100000)
        done = subprocess.run(
            [CKPTFS, "scrub", p.store], text=True, capture_output=True,
            user=65534, group=65534, extra_groups=[],
            env={**os.environ, "HOME": p.top})
        assert done.returncode == 0, done


def seed():
    value = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print(f"    seed {value}")
    return value


def main():
    global CKPTFS, ROOT
    CKPTFS, ROOT = sys.argv[1], sys.argv[2]
    tests = {k: v for k, v in globals().items() if k.startswith("test_")}
    failed = 0
    for name in sys.argv[3:] or tests:
        try:
            print(name, flush=True)
            tests[name]()
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            import traceback
            traceback.print_exc()
            print(f"{name}: FAILED: {e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
