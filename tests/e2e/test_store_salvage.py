"""A store whose log is damaged: refused, looked at, brought back; files named.

See cli_place.py.
"""
import errno
import os
import shutil
import struct
import subprocess
import sys

from cli_place import CKPTFS, ROOT, STEP, has_fuse, main, read, run, run_json
from cli_store import Place, kill_daemon


def packs_of(store):
    top = f"{store}/packs/0000"
    return [f"{top}/{name}" for name in sorted(os.listdir(top))]


def flip(path, at, bits=1):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ bits]))


def refused(store):
    for verb in ("stats", "fsck", "scrub"):
        run(verb, store, status=1)
        assert f"`ckptfs fsck --salvage {store}`" in run.stderr, run.stderr
        assert "pack 0000" in run.stderr, run.stderr


def test_newest_head():
    """One byte, and nothing is lost, with the index or without it."""
    for index in (True, False):
        with Place() as p:
            run("import", p.store, p.run)
            shutil.copytree(p.run, f"{p.top}/more/second")
            run("import", p.store, f"{p.top}/more/second")
            newest = packs_of(p.store)[-1]
            flip(newest, 30)
            if not index:
                shutil.rmtree(f"{p.store}/index")
            kept = {path: read(path) for path in packs_of(p.store)}
            refused(p.store)
            run.stderr = ""
            number = os.path.basename(newest).split(".")[0]
            out = run("fsck", "--salvage", p.store, status=1)
            assert f"pack {number}" in out.splitlines()[0], out
            assert "can be had" in out and "--yes" in out, out
            assert {path: read(path) for path in packs_of(p.store)} == kept
            r = run_json("fsck", "--salvage", "--yes", p.store)
            assert r["salvage"]["done"], r
            assert r["salvage"]["group"] == r["salvage"]["known_group"], r
            for path, data in kept.items():
                assert read(path) == data, path
            for name in "run", "second":
                run("diff", f"{p.store}/{name}", p.run)
            assert run_json("scrub", p.store)["lost"] == 0
            run("fsck", "--rebuild-index", p.store)
            run("fsck", "--salvage", p.store)
            run("diff", f"{p.store}/second", p.run)


def test_a_group_is_lost():
    """Without an index, what a damaged group changed is lost: this is told
    until it is acknowledged."""
    with Place() as p:
        run("import", p.store, p.run)
        shutil.copytree(p.run, f"{p.top}/more/second")
        run("import", p.store, f"{p.top}/more/second")
        # the last BATCH of some size
        path, at = [(path, i) for path in packs_of(p.store)
                    for i in find(read(path), b"CFSr\x04")
                    if len_of(read(path), i) > 400][-1]
        flip(path, at + 90)
        shutil.rmtree(f"{p.store}/index")
        refused(p.store)
        r = run_json("fsck", "--salvage", p.store, status=1)["salvage"]
        assert not r["done"] and r["group"] < r["known_group"], r
        assert r["time_ns"] > 1600000000 * 10**9, r
        out = run("fsck", "--salvage", "--yes", p.store, status=1)
        assert "is lost" in out and "opens again" in out, out
        run("diff", f"{p.store}/run", p.run)
        assert [e["name"] for e in run_json("du", p.store)["entries"]] == [
            "run"]
        for verb in "fsck", "scrub":
            assert "went back to group" in run(verb, p.store, status=1)
        run("fsck", "--acknowledge", p.store)
        run("fsck", p.store)
        run("scrub", p.store)
        run("import", p.store, f"{p.top}/more/second")
        run("diff", f"{p.store}/second", p.run)


def find(data, what):
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)


def len_of(data, at):
    return int.from_bytes(data[at + 16:at + 20], "little")


def test_newest_pack_lost():
    """Nothing in the log tells of it, but the index does, and what was noted
    when the store was closed."""
    for cut in (False, True):
        for index in (True, False):
            with Place() as p:
                run("import", p.store, p.run)
                with open(f"{p.run}/added", "w", encoding="utf-8") as f:
                    f.write("x")
                run("import", "--merge", p.store, p.run)
                newest = packs_of(p.store)[-1]
                if cut:
                    os.truncate(newest, 150)
                else:
                    os.unlink(newest)
                if not index:
                    shutil.rmtree(f"{p.store}/index")
                p1 = subprocess.run([CKPTFS, "stats", p.store], check=True,
                                    capture_output=True, text=True)
                assert "is not there" in p1.stderr, p1
                for verb in "fsck", "scrub", "fsck":
                    out = run(verb, p.store, status=1)
                    assert "is lost" in out, out
                run("fsck", "--acknowledge", p.store)
                run("scrub", p.store)


def test_pack_missing():
    """A pack that no one needs to open it: scrub and fsck name what it held."""
    with Place() as p:
        with open(f"{p.top}/big", "wb") as f:
            f.write(os.urandom(70 << 20))
        run("import", p.store, f"{p.top}/big", p.run)
        first = packs_of(p.store)[0]
        os.unlink(first)
        r = run_json("fsck", p.store, status=1)
        assert r["problems"] > 10 and r["files"] >= 1, r
        assert "file big is affected" in r["findings"], r["findings"][-3:]
        r = run_json("scrub", p.store, status=1)
        assert r["missing"] > 10 and r["files"] >= 1, r
        assert "file big is affected" in r["findings"], r["findings"][-3:]
        assert any("pack 0000/00000001" in x and "the pack is missing" in x
                   for x in r["findings"]), r["findings"][:3]


def test_pack_missing_and_salvage():
    """What the index has leads to packs that are gone: that is told."""
    with Place() as p:
        run("import", p.store, p.run)
        run("gc", p.store)
        with open(f"{p.top}/added", "wb") as f:
            f.write(os.urandom(3 << 20))
        run("import", p.store, f"{p.top}/added")
        with open(f"{p.top}/last", "w", encoding="utf-8") as f:
            f.write("x")
        run("import", p.store, f"{p.top}/last")
        os.unlink(next(path for path in reversed(packs_of(p.store))
                       if os.path.getsize(path) > 3 << 20))
        flip(packs_of(p.store)[-1], 30)
        for yes in ([], ["--yes"]):
            r = run_json("fsck", "--salvage", *yes, p.store, status=1)
            assert r["salvage"]["from_index"], r
            assert "file added is affected" in r["findings"], r
            assert "file last is affected" not in r["findings"], r
        for verb in "fsck", "scrub":
            found = run_json(verb, p.store, status=1)["findings"]
            assert "file added is affected" in found, found
        run("diff", f"{p.store}/run", p.run)


def test_index_has_it_alone():
    """Then no moment of salvage is without it: the new index takes the old
    one's place at once, or as it must where that cannot be."""
    lib = os.path.join(os.path.dirname(CKPTFS), "libfault_calls.so")
    if not os.path.exists(lib):
        return print("    (no libfault_calls.so)")
    with Place() as p:
        run("import", p.store, p.run)
        shutil.copytree(p.run, f"{p.top}/second")
        run("import", p.store, f"{p.top}/second")
        for pack in packs_of(p.store):  # all that tells of names
            for at in list(find(read(pack), b"CFSr\x04")):
                flip(pack, at + 74)
        flip(packs_of(p.store)[-1], 30)
        for error in (0, errno.EIO, errno.EINVAL):
            store = f"{p.top}/{error}"
            shutil.copytree(p.store, store)
            page = f"{p.top}/page"
            with open(page, "wb") as f:  # as fault_calls.c has it
                f.write(struct.pack("6I", 256, 1, 1, error, 0, 0))
            done = subprocess.run(
                [CKPTFS, "fsck", "--salvage", "--yes", store], check=False,
                capture_output=True, text=True,
                env={**os.environ, "LD_PRELOAD": lib, "CFS_FAULT_PAGE": page,
                     "CFS_FAULT_DIR": store})
            assert struct.unpack("6I", read(page))[5] == 1, done
            assert done.returncode == {0: -9, errno.EIO: 1}.get(error, 0), done
            if done.returncode:
                refused(store)
                r = run_json("fsck", "--salvage", "--yes", store)
                assert r["salvage"]["from_index"], r
            assert not os.path.exists(f"{store}/index.new")
            run("fsck", "--rebuild-index", store)
            for name in "run", "second":
                run("diff", f"{store}/{name}", p.run)


def test_only_read():
    """Who may not write is told what can be had, never that it is done."""
    if os.geteuid() != 0:
        return print("    (needs root)")
    with Place() as p:
        run("import", p.store, p.run)
        flip(packs_of(p.store)[-1], 30)
        before = contents(p.store)
        ro = f"{p.top}/ro"
        os.mkdir(ro)
        done = subprocess.run(f"mount --bind {p.store} {ro} && "
                              f"mount -o remount,bind,ro {ro}", shell=True,
                              check=False, capture_output=True, text=True)
        try:
            if done.returncode:
                return print(f"    (cannot be made: {done.stderr.strip()})")
            out = run("fsck", "--salvage", ro, status=1)
            assert "can be had" in out and "nothing was changed" in out, out
            out = run("fsck", "--salvage", "--yes", ro, status=1)
            assert "opens again" not in out, out
            assert f"{ro} may only be read here" in run.stderr, run.stderr
            assert contents(p.store) == before
        finally:
            subprocess.run(["umount", ro], check=False, capture_output=True)
        run("fsck", "--salvage", "--yes", p.store)
        run("diff", f"{p.store}/run", p.run)


def contents(top):
    return {path: read(path) for path in
            (os.path.join(d, f) for d, _, fs in os.walk(top) for f in fs)}


def test_looking():
    """What opens is not written to either by who only looks."""
    with Place() as p:
        run("import", p.store, p.run)
        before = {name: contents(f"{p.store}/{name}")
                  for name in ("packs", "refs")}
        assert "nothing to salvage" in run("fsck", "--salvage", p.store)
        if has_fuse():
            with p.mounted() as m:
                with open(f"{m}/more", "w", encoding="utf-8") as f:
                    f.write("x" * 5000)
                    f.flush()
                    os.fsync(f.fileno())
                kill_daemon(m)
            before = {name: contents(f"{p.store}/{name}") for name in before}
            assert "nothing to salvage" in run("fsck", "--salvage", p.store)
        for name, was in before.items():
            assert contents(f"{p.store}/{name}") == was, name


def test_golden():
    """Any pack's head of the golden store: every file is there again."""
    golden = f"{ROOT}/tests/data/store_v1/store"
    with Place() as p:
        for n in range(len(packs_of(golden))):
            store = f"{p.top}/golden{n}"
            shutil.copytree(golden, store)
            flip(packs_of(store)[n], 9, 64)
            done = subprocess.run([CKPTFS, "fsck", store], check=False,
                                  capture_output=True, text=True)
            if done.returncode:
                assert "--salvage" in done.stderr, done
                r = run_json("fsck", "--salvage", "--yes", store)
                assert r["salvage"]["group"] == r["salvage"]["known_group"], r
            run("fsck", store)
            r = run_json("scrub", store)
            assert r["chunks"] > 4 and not r["missing"] + r["damaged"], r


def test_while_mounted():
    if not has_fuse():
        return print("    (no FUSE)")
    with Place() as p:
        run("import", p.store, p.run)
        with p.mounted() as m:
            run("fsck", "--salvage", p.store, status=1)
            assert "in use" in run.stderr and m in run.stderr, run.stderr
        run("mount", p.store, p.mnt)
        with open(f"{p.mnt}/run/{STEP}/late", "w", encoding="utf-8") as f:
            f.write("late")
            f.flush()
            os.fsync(f.fileno())
        kill_daemon(p.mnt)
        run("umount", p.mnt)
        flip([x for x in packs_of(p.store) if any(read(x)[:116])][-1], 75)
        refused(p.store)
        run("fsck", "--salvage", "--yes", p.store)
        with p.mounted() as m:
            assert read(f"{m}/run/{STEP}/late") == b"late"


def test_options():
    with Place() as p:
        for args in (["--yes"], ["--salvage", "--rebuild-index"],
                     ["--salvage", "--acknowledge"]):
            run("fsck", *args, p.store, status=2)
        assert "nothing to salvage" in run("fsck", "--salvage", p.store)


if __name__ == "__main__":
    sys.exit(main(globals()))
