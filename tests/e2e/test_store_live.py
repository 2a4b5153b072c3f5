"""A store's verbs while it is mounted, and after its daemon was killed.

See cli_place.py.
"""
import contextlib
import os
import random
import shutil
import subprocess
import sys

from cli_place import CKPTFS, STEP, has_fuse, main, read, run, run_json, seed
from cli_store import Place, equal, kill_daemon, make_trained, put, tree


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


if __name__ == "__main__":
    sys.exit(main(globals()))
