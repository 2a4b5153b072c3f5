"""Who may do what with a store: read-only, another's, root's.

See cli_place.py.
"""
import errno
import os
import shutil
import subprocess
import sys
import time

from cli_place import CKPTFS, ROOT, STEP, has_fuse, main, run
from cli_store import Place, equal, kill_daemon, put, tree


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
        if has_fuse():
            # the last that wrote died: what it left is read as it is
            with p.mounted() as m:
                put(f"{m}/more", "x" * 5000)
                sync(m)
                put(f"{m}/maybe", "y" * 5000)
                kill_daemon(m)
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


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def tree_of_mount(p):
    with p.mounted() as m:
        return tree(f"{m}/run")


def test_a_run_is_no_source():
    """A store is mounted whole; who names a part is told what to do."""
    if not has_fuse():
        return print("    (needs FUSE)")
    with Place() as p:
        run("import", p.store, p.run)
        for inside in ("run", f"run/{STEP}", "nothing", "packs"):
            run("mount", f"{p.store}/{inside}", p.mnt, status=1)
            assert f"ckptfs mount {p.store} {p.mnt}, and it is " \
                f"{p.mnt}/{inside}\n" in run.stderr, run.stderr
            assert not os.path.ismount(p.mnt)
        for same in (p.store, f"{p.store}/", f"{p.store}/."):
            run("mount", same, p.mnt)
            assert os.path.isdir(f"{p.mnt}/run/{STEP}")
            run("umount", p.mnt)


def test_pointer_read_only():
    """After a crash -o ro tells of a pointer that it may not set right."""
    if not has_fuse():
        return print("    (needs FUSE)")
    with Place() as p:
        log = f"{p.top}/log"
        with p.mounted() as m:
            shutil.copytree(p.run, f"{m}/run")
            shutil.copytree(f"{p.run}/{STEP}", f"{m}/run/global_step3")
            part, = [n for n in os.listdir(f"{m}/run/{STEP}")
                     if n.startswith("bf16_zero_pp_rank_0_")]
            os.unlink(f"{m}/run/{STEP}/{part}")
            for name, last in (("step3_universal", "optimizer_state.pt"),
                               ("step5_universal", "tmp")):
                os.makedirs(f"{m}/run/{name}/zero")
                for file in "mp_rank_00_model_states.pt", f"zero/{last}":
                    with open(f"{m}/run/{name}/{file}", "w") as f:
                        f.write("x")
            with open(f"{m}/run/latest_universal", "w") as f:
                f.write("step5_universal")
            sync(m)
            kill_daemon(m)
        for options in (f"ro,log={log}", f"log={log}"):
            run("mount", "-o", options, p.store, p.mnt)
            names, universal = (open(f"{p.mnt}/run/{n}").read().strip()
                                for n in ("latest", "latest_universal"))
            run("umount", p.mnt)
            with open(log, encoding="utf-8") as f:
                said = f.read()
            os.unlink(log)
            if options[:2] == "ro":
                assert names == STEP, names
                assert f"names {STEP}, which is not whole" in said, said
                assert "load global_step3" in said, said
                assert universal == "step5_universal", universal
                assert "load step3_universal" in said, said
            else:
                assert names == "global_step3", names
                assert "it is set to global_step3" in said, said
                assert universal == "step3_universal", universal
                assert "it is set to step3_universal" in said, said


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


if __name__ == "__main__":
    sys.exit(main(globals()))
