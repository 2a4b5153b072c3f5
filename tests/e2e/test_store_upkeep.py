"""A store kept in order: gc, scrub, fsck, derived weights.

See cli_place.py.
"""
import os
import random
import shutil
import subprocess
import sys
import time

import step_maker
from cli_place import CKPTFS, STEP, has_fuse, main, read, run, run_json, seed
from cli_store import Place, make_trained


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
        assert r["files"] and r["findings"][-1].startswith("file run/"), r
        assert os.path.exists(f"{p.top}/{r['findings'][-1].split()[1]}"), r


def weights_stored(store):
    roles = {r["role"]: r for r in run_json("stats", store)["roles"]}
    return roles["weights"]["stored_bytes"]


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


if __name__ == "__main__":
    sys.exit(main(globals()))
