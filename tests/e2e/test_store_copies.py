"""Into a store and out of it: import, send, receive.  See cli_place.py."""
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile

from cli_place import CKPTFS, STEP, has_fuse, main, run, run_json, seed
from cli_store import Place, equal, put, tree


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


def test_import_mends():
    """--merge makes a store's copy what the source is, whatever it was."""
    if not has_fuse():
        return print("    (needs FUSE)")
    rng = random.Random(seed())
    with Place() as p:
        src = f"{p.top}/src"
        make_odd_tree(src, rng)
        put(f"{src}/plain", "file")
        os.setxattr(f"{src}/plain", "user.a", b"1")
        os.symlink("somewhere", f"{src}/link2")
        run("import", p.store, src)
        want = tree(src)
        with p.mounted() as m:
            d = f"{m}/src/d"
            same = os.stat(f"{d}/f6")
            with open(f"{d}/f6", "r+b") as f:
                f.seek(2 << 20)
                f.write(b"not what it was")
            os.utime(f"{d}/f6", ns=(same.st_atime_ns, same.st_mtime_ns))
            os.truncate(f"{d}/f5", 1234)
            os.chmod(f"{d}/f4", 0o600)
            os.setxattr(f"{m}/src/plain", "user.a", b"2")
            os.unlink(f"{m}/src/link")
            os.symlink("else/where", f"{m}/src/link")
            os.unlink(f"{m}/src/link2")
            put(f"{m}/src/link2", "a file now")
            os.unlink(f"{d}/f3")
            os.symlink("f4", f"{d}/f3")
            os.unlink(f"{m}/src/fifo")
            put(f"{m}/src/fifo", "a file, too")
            put(f"{m}/src/mine", "it stays")
            os.chmod(f"{d}/empty", 0o700)

        def now():
            with p.mounted() as m:
                found = tree(f"{m}/src")
                assert found.pop("mine")
                assert os.getxattr(f"{m}/src/plain", "user.a") == b"1"
                return found

        run("import", "--merge", p.store, src)
        got = now()
        assert got["d/f6"] != want["d/f6"]
        got["d/f6"] = want["d/f6"]
        equal(got, want)
        done = run_json("import", "--compare", p.store, src)
        # a file, not its other names
        assert done["files_kept"] == done["files"] - 1, done
        equal(now(), want)
        # what cannot be read any more is stored again
        with p.mounted() as m:
            name = os.path.join(f"{p.store}/packs/0000", max(
                os.listdir(f"{p.store}/packs/0000"),
                key=lambda n: os.path.getsize(f"{p.store}/packs/0000/{n}")))
        with open(name, "r+b") as f:
            f.seek(os.path.getsize(name) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0x5a]))
        assert run_json("scrub", p.store, status=1)["damaged"] == 1
        done = run_json("import", "--compare", p.store, src)
        assert done["files_kept"] < done["files"], done
        equal(now(), want)
        run("gc", p.store)
        assert run_json("scrub", p.store)["damaged"] == 0
        # a directory is not removed for a file, nor a file for one
        for name, make in (("plain", os.mkdir), ("d/empty", put)):
            path = f"{src}/{name}"
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)
            make(path)
            run("import", "--merge", p.store, src, status=1)
            assert "remove or rename" in run.stderr, run.stderr
            (os.rmdir if os.path.isdir(path) else os.unlink)(path)


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
        if has_fuse():
            # nothing of a receive is left over for a mount to show, whether
            # it ended well or not
            p.store, store = third, p.store
            with p.mounted() as m:
                assert os.listdir(m) == ["all"]
                for cut, status in ((size // 2, 1), (size, 0)):
                    with open(stream, "rb") as f, \
                            tempfile.TemporaryFile() as g:
                        g.write(f.read(cut))
                        g.seek(0)
                        run("receive", f"{third}/again", status=status,
                            stdin=g)
                    left = {"all"} | ({"again"} if not status else set())
                    assert set(os.listdir(m)) == left, os.listdir(m)
                    assert not os.path.lexists(f"{m}/.ckptfs-removed")
            p.store = store
        run("send", "--to", "exit 3", f"{p.store}/src", status=1)
        if has_fuse():
            p.store, store = other, p.store
            with p.mounted() as m:
                equal(tree(f"{m}/a/src"), want)
                equal(tree(f"{m}/b"), want)
            p.store = store


def test_pins_are_sent():
    with Place() as p:
        p.make_steps(1, 2, 3)
        run("import", p.store, p.run)
        for n in (1, 2, 3):
            run("pin", f"{p.store}/run/global_step{n}")
        if not has_fuse():
            return
        with p.mounted() as m:
            shutil.rmtree(f"{m}/run/global_step1")
            os.rename(f"{m}/run/global_step2", f"{m}/run/global_step20")
            shown = run("pin", m).splitlines()
            assert [s.split(" ")[0] for s in shown] == [
                f"run/global_step{n}" for n in (1, 2, 3)], shown
            assert ["gone" in s for s in shown] == [True, True, False], shown
            # the path is one that is nowhere any more
            run("unpin", f"{m}/run/global_step1")
            run("pin", f"{m}/run/global_step20")
        as_json = run_json("pin", p.store)
        assert as_json["gone"] == ["run/global_step2"], as_json
        pins = [f"run/global_step{n}" for n in (2, 20, 3)]
        assert as_json["pins"] == pins, as_json
        others = [f"{p.top}/{i}" for i in range(3)]
        for other in others:
            run("init", other)
        # a run under another name, a step alone, a whole store from a file
        run("send", "--to", f"'{CKPTFS}' receive '{others[0]}/a/b'",
            f"{p.store}/run")
        assert run_json("pin", others[0])["pins"] == [
            "a/b/global_step20", "a/b/global_step3"]
        run("send", "--to", f"'{CKPTFS}' receive '{others[1]}/s'",
            f"{p.store}/run/global_step3")
        assert run("pin", others[1]) == "s\n"
        with tempfile.TemporaryFile() as f:
            subprocess.run([CKPTFS, "send", p.store], stdout=f, check=True)
            f.seek(0)
            run("receive", f"{others[2]}/all", stdin=f)
            assert run_json("pin", others[2])["pins"] == [
                "all/run/global_step20", "all/run/global_step3"]
            # one whose path is too long there is told of, and all the rest
            # is there
            f.seek(0)
            deep = "/".join(["x" * 100] * 3)
            run("receive", f"{others[2]}/{deep}", stdin=f)
            assert "too long to be pinned" in run.stderr, run.stderr
        run("diff", f"{others[2]}/{deep}/run", f"{p.store}/run")
        run("prune", "--keep-last", "1", f"{others[0]}/a/b")
        assert {s["name"] for s in run_json("ls", f"{others[0]}/a/b")
                ["steps"]} >= {"global_step3", "global_step20"}
        run("unpin", f"{p.store}/run/global_step2")
        assert not run_json("pin", p.store)["gone"]


def copied(found, top="."):
    """What an export keeps of tree(): not owners, nor a file's other names,
    nor what directories are but there."""
    prefix = "" if top == "." else top + "/"
    kept = {}
    for rel, what in found.items():
        if rel == "." or not (rel + "/").startswith(prefix) or rel == top:
            continue
        if stat.S_ISFIFO(what[0]):
            continue
        kind = what[:1]
        if stat.S_ISREG(what[0]):
            kind = [what[0], (what[1] & 0o777) | 0o600, what[4], what[5]]
        elif stat.S_ISLNK(what[0]):
            kind = [what[0], what[-1]]
        kept[rel[len(prefix):]] = kind
    return kept


def exported(top):
    found = copied(tree(top))
    assert found.pop(".ckptfs-export.json")
    return found


def test_export_anything():
    """Whatever a store holds comes out of it again, and --resume knows it."""
    rng = random.Random(seed())
    old = os.umask(0)
    with Place() as p:
        src = f"{p.top}/src"
        make_odd_tree(src, rng)
        put(f"{src}/d/{'n' * 255}", "a long name")
        put(f"{src}/p/latest", "none of a step")
        put(f"{p.run}/notes/loss.txt", "3.14")
        run("import", p.store, src, p.run)
        want = tree(src)

        def check(store, out):
            run("export", f"{store}/src", f"{out}1")
            assert "fifo left out" in run.stderr, run.stderr
            equal(exported(f"{out}1"), copied(want))
            # holes stay holes
            assert os.stat(f"{out}1/d/holes").st_blocks * 512 < 8 << 20
            run("export", f"{store}/src/d", f"{out}2")
            equal(exported(f"{out}2"), copied(want, "d"))
            run("export", f"{store}/src/d/f5", f"{out}3")
            assert exported(f"{out}3") == {"f5": copied(want)["d/f5"]}
            run("export", f"{store}/src/link", f"{out}4")
            assert exported(f"{out}4")["link"] == copied(want)["link"]
            run("export", f"{store}/src/fifo", f"{out}9", status=1)
            # a run whole, with what no export of steps takes; the store
            run("export", "--tree", f"{store}/run", f"{out}5")
            equal(exported(f"{out}5"), copied(tree(p.run)))
            got = run_json("export", store, f"{out}6")
            assert got["steps"] == ["."], got
            assert exported(f"{out}6").keys() >= {"run/notes/loss.txt",
                                                   "src/d/f5"}
            # of a view: every step, and a file that is made as it is read
            run("export", "--tree", f"{store}/run/@dp4", f"{out}7")
            assert "notes/loss.txt" in exported(f"{out}7")
            name = "bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt"
            run("export", f"{store}/run/@dp4/{STEP}/{name}", f"{out}8")
            with open(f"{out}7/{STEP}/{name}", "rb") as f, \
                    open(f"{out}8/{name}", "rb") as g:
                assert f.read() == g.read()
            # again: pointers alone; one is gone: that one; another tree: no
            assert run_json("export", "--resume", f"{store}/src",
                            f"{out}1")["files_written"] == 1
            os.unlink(f"{out}1/d/f6")
            assert run_json("export", "--resume", f"{store}/src",
                            f"{out}1")["files_written"] == 2
            equal(exported(f"{out}1"), copied(want))
            run("export", f"{store}/src/d", f"{out}2", status=1)
            run("export", "--resume", f"{store}/src/d/empty", f"{out}2",
                status=1)

        check(p.store, f"{p.top}/out")
        if has_fuse():
            with p.mounted() as m:
                check(m, f"{p.top}/mounted")
                check(p.store, f"{p.top}/beside")
                put(f"{m}/src/d/f1", "changed")
                run("export", "--resume", f"{m}/src/d", f"{p.top}/mounted2",
                    status=1)
        # elsewhere there is cp(1), and a slip would copy much
        run("export", f"{src}/d", f"{p.top}/no", status=1)
        assert "--tree" in run.stderr
        run("export", "--tree", f"{src}/d", f"{p.top}/yes")
        equal(exported(f"{p.top}/yes"), copied(want, "d"))
        for args in (["--tree", "--all"], ["--all", "--step", STEP]):
            run("export", *args, f"{p.store}/run", f"{p.top}/no", status=2)
        run("export", "--all", f"{p.store}/src", f"{p.top}/no", status=1)
        assert not os.path.exists(f"{p.top}/no")
    os.umask(old)


if __name__ == "__main__":
    sys.exit(main(globals()))
