"""The mount end to end, with the format of tests/fake_format.c.

usage: test_mount.py CKPTFS_FAKE [TEST ...]

Everything is done by ordinary programs and system calls against a mounted
directory.  Exits 77 where there is no FUSE or no root.
"""
import errno
import mmap
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time

from mount_place import (BIN, MIB, NOBODY, SEED, check, cut, daemon_of, fails,
                         is_gone, main, make_step, place, read, run, wait_dead,
                         write)


# ---- the source as it is ----

def random_tree(rng, top, depth=0):
    for i in range(rng.randrange(3, 7)):
        name = rng.choice(["f", "with space", "ünï", "x" * 200, "-dash", "@at",
                           "q'\"uote", "new\nline"]) + str(i)
        path = f"{top}/{name}"
        kind = rng.randrange(8 if depth < 3 else 5)
        if kind < 4:
            with open(path, "wb") as f:
                f.truncate(rng.choice([0, 0, 5000, 3 * MIB]))
                f.write(rng.randbytes(rng.choice([0, 1, 4096, 70000])))
            os.chmod(path, rng.choice([0o644, 0o600, 0o755, 0o444, 0o4755]))
            if rng.random() < 0.2:
                os.link(path, f"{path}.hard")
        elif kind == 4:
            os.symlink(rng.choice(["f0", "../x", "/nowhere", "a/b/c"]), path)
        else:
            os.mkdir(path)
            random_tree(rng, path, depth + 1)
            os.chmod(path, rng.choice([0o755, 0o700, 0o1777]))
        if not os.path.islink(path):
            os.utime(path, ns=(rng.randrange(1 << 60), rng.randrange(1 << 60)))


def attributes(top):
    out = check("find", top, "-printf",
                r"%P\0%y %m %U %G %n %T@ %l \0%s\0%D:%i\n\0")
    rows = {}
    for row in out.split("\n\0")[:-1]:
        name, facts, size, ino = row.split("\0")
        rows[name] = (facts, "" if facts[0] == "d" else size, ino)
    return rows


def test_passthrough():
    with place() as p:
        random_tree(random.Random(SEED), p.run)
        mnt = p.mount()
        check("diff", "-r", "--no-dereference", p.run, mnt)
        ours, real = attributes(mnt), attributes(p.run)
        assert {n: r[:2] for n, r in ours.items()} == \
            {n: r[:2] for n, r in real.items()}
        # Hard links stay hard links, all else has a number of its own.
        assert len({r[2] for r in ours.values()}) == \
            len({r[2] for r in real.values()})
        check("cp", "-a", mnt, f"{p.top}/copy")
        check("diff", "-r", "--no-dereference", p.run, f"{p.top}/copy")
        copied = attributes(f"{p.top}/copy")
        assert {n: r[0] for n, r in copied.items()} == \
            {n: r[0] for n, r in real.items()}
        fails(errno.EROFS, open, f"{mnt}/new", "w")
        fails(errno.EROFS, os.mkdir, f"{mnt}/new")
        st, real = os.statvfs(mnt), os.statvfs(p.run)
        assert st.f_blocks == real.f_blocks
        p.umount()


def test_big_directory():
    with place() as p:
        names = {f"{i:05d}-{'n' * (i % 90)}" for i in range(5000)}
        for name in names:
            os.close(os.open(f"{p.run}/{name}", os.O_CREAT | os.O_WRONLY))
        mnt = p.mount()
        assert set(os.listdir(mnt)) == names
        # A listing under way sees each name that stays, once.
        seen = []
        with os.scandir(mnt) as entries:
            for i, entry in enumerate(entries):
                seen.append(entry.name)
                if i < 1000:
                    os.unlink(f"{p.run}/{entry.name}")
        assert len(seen) == len(set(seen)) == 5000
        assert set(os.listdir(mnt)) == names - set(seen[:1000])
        p.umount()


# ---- views ----

def test_views():
    rng = random.Random(SEED)
    with place() as p:
        shards = [rng.randbytes(rng.randrange(1, 3 * MIB)) for _ in range(3)]
        make_step(p.run, "step1", shards)
        make_step(p.run, "step2", [b"ab", b"c"])
        write(f"{p.run}/step2/notes", b"n")
        write(f"{p.run}/latest", b"step2")
        mnt = p.mount()
        whole = b"".join(shards)
        for dp in (1, 2, 3, 4, 7):
            view = f"{mnt}/@dp{dp}"
            assert sorted(os.listdir(view)) == ["latest", "step1", "step2"]
            assert read(f"{view}/latest") == b"step2"
            files = sorted(os.listdir(f"{view}/step1"))
            assert files == sorted(f"shard_{i}_of_{dp}.bin"
                                   for i in range(dp))
            for i, want in enumerate(shards if dp == 3 else cut(whole, dp)):
                path = f"{view}/step1/shard_{i}_of_{dp}.bin"
                assert os.stat(path).st_size == len(want), (dp, i)
                with open(path, "rb") as f, \
                        mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED,
                                  mmap.PROT_READ) as m:
                    assert m[:] == want
                assert read(path) == want
                if dp != 3:
                    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
        inside = f"{mnt}/step2/@dp3"
        assert read(f"{inside}/latest") == b"."
        assert read(f"{inside}/./shard_2_of_3.bin") == b"c"
        assert read(f"{inside}/notes") == b"n"
        assert check("cat", f"{mnt}/@dp=3/step2/shard_0_of_3.bin") == "a"
        # What is refused says why, and in the log with words.
        fails(errno.EINVAL, os.stat, f"{mnt}/@turbo")
        fails(errno.ENOTSUP, os.stat, f"{mnt}/@zero3/step1")
        fails(errno.EINVAL, os.stat, f"{mnt}/@dp3/@dp2")
        fails(errno.EINVAL, os.stat, f"{mnt}/@dp9/step2")
        fails(errno.ENOENT, os.stat, f"{mnt}/@dp3/step9")
        for word in ("turbo", "no other stage", "fewer bytes"):
            assert word in p.logged(), p.logged()
        check("ls", "-laR", mnt)
        p.umount()


def test_root_view():
    with place() as p:
        make_step(p.run, "step1", [b"abcd", b"ef"])
        write(f"{p.run}/latest", b"step1")
        mnt = p.mount("view=@dp3")
        assert read(f"{mnt}/latest") == b"step1"
        assert read(f"{mnt}/step1/shard_2_of_3.bin") == b"ef"
        make_step(p.run, "step2", [b"xyz"])
        assert read(f"{mnt}/step2/shard_1_of_3.bin") == b"y"
        p.umount()


def test_root_view_refused():
    with place() as p:
        def refused(words, view, source=p.run):
            done = run(BIN, "mount", "-o", f"view={view}", source, p.mnt)
            assert done.returncode == 1, done
            assert words in done.stderr and done.stderr.count("\n") == 1, done
            assert done.stderr.startswith("ckptfs mount: "), done
            assert not os.path.ismount(p.mnt)

        # An empty directory may become a run.
        p.mount("view=@dp3")
        p.umount()
        make_step(p.run, "step1", [b"abcd", b"ef"])
        make_step(f"{p.top}/runs/run1", "step1", [b"ab"])
        refused("not a run", "@dp3", f"{p.top}/runs")
        refused("no other stage", "@zero3")
        # The step that `latest` names counts, if it is whole.
        make_step(p.run, "step2", [b"a", b"b"])
        refused("step2: ", "@dp4")
        write(f"{p.run}/latest", b"step1")
        mnt = p.mount("view=@dp4")
        assert read(f"{mnt}/step1/shard_3_of_4.bin") == b"f"
        p.umount()


def test_xattrs():
    with place() as p:
        make_step(p.run, "step1", [b"abcd", b"efgh"])
        plain = f"{p.run}/step1/shard_0_of_2.bin"
        mnt = p.mount()
        made = f"{mnt}/@dp1/step1/shard_0_of_1.bin"
        facts = {n: os.getxattr(made, n).decode() for n in os.listxattr(made)}
        assert facts["user.ckptfs.view"] == "@dp1"
        assert facts["user.ckptfs.source"] == "step1"
        assert facts["user.ckptfs.segments"] == "range: 2 (8 bytes)"
        assert "dp=1" in facts["user.ckptfs.topology"]
        assert "dp=2" in facts["user.ckptfs.saved_topology"]
        fails(errno.ENODATA, os.getxattr, made, "user.nothing")
        fails(errno.ENODATA, os.getxattr, f"{mnt}/step1", "user.nothing")
        try:
            os.setxattr(plain, "user.mine", b"value")
        except OSError:
            pass  # this filesystem has none
        else:
            assert os.getxattr(f"{mnt}/step1/shard_0_of_2.bin",
                               "user.mine") == b"value"
        p.umount()


# ---- who may ----

def as_nobody(*args):
    return run("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}",
               "--clear-groups", *args)


def test_allow_other():
    with place() as p:
        make_step(p.run, "open", [b"ab", b"cd"])
        make_step(p.run, "shut", [b"ab", b"cd"], mode=0o600)
        make_step(p.run, "half", [b"ab", b"cd"])
        os.chmod(f"{p.run}/half/shard_1_of_2.bin", 0o600)
        mnt = p.mount()
        assert as_nobody("ls", mnt).returncode != 0
        p.umount()
        mnt = p.mount("allow_other")
        assert as_nobody("ls", mnt).returncode == 0
        assert as_nobody("cat", f"{mnt}/@dp1/open/shard_0_of_1.bin") \
            .stdout == "abcd"
        for name in ("shut", "half"):
            shown = f"{mnt}/@dp1/{name}/shard_0_of_1.bin"
            assert read(shown) == b"abcd"
            assert as_nobody("cat", shown).returncode != 0
        assert as_nobody("cat", f"{mnt}/shut/shard_0_of_2.bin").returncode != 0
        os.chown(f"{p.run}/half/shard_1_of_2.bin", 1234, 1234)
        # An open sees it at once, a look-up of the step within a second.
        fails(errno.EACCES, open, f"{mnt}/@dp1/half/shard_0_of_1.bin")
        fails(errno.EACCES, os.stat, f"{mnt}/@dp1/half")
        os.chmod(f"{p.run}/open", 0o700)
        time.sleep(0.2)  # directories' attributes are believed for 0.1 s
        assert as_nobody("ls", f"{mnt}/@dp1/open").returncode != 0
        p.umount()


def user_part(top):
    """Runs as an ordinary user, in a mount namespace of its own."""
    source, mnt = f"{top}/run", f"{top}/mnt"
    check(BIN, "mount", "-o", f"log={top}/log.user", source, mnt)
    pid = daemon_of(mnt)
    assert os.stat(f"/proc/{pid}").st_uid == NOBODY
    assert read(f"{mnt}/@dp3/step1/shard_0_of_3.bin") == b"ab"
    fails(errno.EACCES, open, f"{mnt}/secret")
    done = run(BIN, "mount", source, mnt)
    assert done.returncode == 1 and "already" in done.stderr, done
    fd = os.open(f"{mnt}/step1/shard_0_of_2.bin", os.O_RDONLY)
    done = run(BIN, "umount", mnt)
    assert done.returncode == 1 and done.stderr, done
    os.close(fd)
    check(BIN, "umount", mnt)
    assert is_gone(pid)
    # A dead one is detached by its owner, too.
    check(BIN, "mount", "-o", f"log={top}/log.user", source, mnt)
    os.kill(daemon_of(mnt), signal.SIGKILL)
    wait_dead(mnt)
    check(BIN, "mount", "-o", f"log={top}/log.user", source, mnt)
    check(BIN, "umount", mnt)
    assert not os.path.ismount(mnt)


def test_ordinary_user():
    with place() as p:
        make_step(p.run, "step1", [b"abc", b"de"])
        write(f"{p.run}/secret", b"s", 0o600)
        for path in (p.top, p.mnt):
            os.chown(path, NOBODY, NOBODY)
        os.mknod(f"{p.top}/fuse", stat.S_IFCHR | 0o666, os.makedev(10, 229))
        os.chmod(f"{p.top}/fuse", 0o666)
        script = f"""
            mount --bind {p.top}/fuse /dev/fuse &&
            exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \
                {sys.executable} {__file__} {BIN} --user-part {p.top}"""
        done = run("unshare", "-m", "sh", "-c", script)
        assert done.returncode == 0, done.stderr


# ---- mounting ----

def test_dead_mount():
    with place() as p:
        write(f"{p.run}/a", b"a")
        p.mount()
        os.kill(p.pid, signal.SIGKILL)
        wait_dead(p.mnt)
        mnt = p.mount()
        assert read(f"{mnt}/a") == b"a"
        p.umount()
        # umount of a dead one.
        p.mount()
        os.kill(p.pid, signal.SIGKILL)
        wait_dead(p.mnt)
        p.umount()


def test_refusals():
    with place() as p:
        os.makedirs(f"{p.run}/deep/er")

        def refused(code, words, *args):
            done = run(BIN, *args)
            assert done.returncode == code, (args, done)
            assert words in done.stderr, (args, done.stderr)
            assert done.stdout == ""

        refused(1, "lies in", "mount", p.run, f"{p.run}/deep")
        refused(1, "lies in", "mount", f"{p.run}/deep/er", f"{p.run}/deep")
        refused(1, "lies in", "mount", p.run, p.run)
        refused(1, "No such file", "mount", f"{p.top}/none", p.mnt)
        refused(1, "No such file", "mount", p.run, f"{p.top}/none")
        refused(2, "'turbo'", "mount", "-o", "ro,turbo", p.run, p.mnt)
        refused(2, "'cache'", "mount", "-o", "cache=lots", p.run, p.mnt)
        refused(2, "crc=", "mount", "-o", "crc=maybe", p.run, p.mnt)
        refused(2, "usage", "mount", p.run)
        refused(2, "ckptfs mount --help", "mount")
        refused(2, "'rw'", "mount", "-o", "rw", p.run, p.mnt)
        refused(2, "ckptfs mount: option '--turbo'", "mount", "--turbo")
        refused(2, "ckptfs umount: no option '-x'", "umount", "-x", p.mnt)
        refused(1, "dpx", "mount", "-o", "view=@dpx", p.run, p.mnt)
        refused(1, "no ckptfs mount", "umount", p.mnt)
        refused(2, "usage", "umount")
        refused(2, "ckptfs umount --help", "umount")
        refused(2, "no verb", "turbo")
        write(f"{p.top}/file", b"f")
        refused(1, "not a directory", "mount", f"{p.top}/file", p.mnt)
        refused(1, "not a directory", "mount", p.run, f"{p.top}/file")
        mnt = p.mount("cache=16M", "ro", "nofail", "noauto", "_netdev",
                      "x-systemd.automount", "noexec")
        refused(1, "already", "mount", p.run, mnt)
        with open("/proc/self/mountinfo") as f:
            line = next(x for x in f if f" {mnt} " in x)
        assert " - fuse.ckptfs " in line
        for word in ("ro", "nosuid", "nodev", "noexec"):
            assert word in line.split()[5].split(","), line
        write(f"{p.run}/a", b"a")
        fd = os.open(f"{mnt}/a", os.O_RDONLY)
        refused(1, "in use", "umount", mnt)
        os.close(fd)
        done = as_nobody(BIN, "umount", mnt)
        assert done.returncode == 1, done
        assert done.stderr == f"ckptfs umount: {mnt}: user 0 mounted it; " \
            "only that user and root may unmount it\n", done
        p.umount()


def test_odd_paths():
    with place() as p:
        source = f"{p.top}/with, comma\\ and space"
        mnt = f"{p.top}/mo unt"
        os.mkdir(source)
        os.mkdir(mnt)
        write(f"{source}/a", b"a")
        os.symlink(source, f"{p.top}/link")
        check(BIN, "mount", "-o", f"log={p.log}", "link", "mo unt",
              cwd=p.top)
        assert read(f"{mnt}/a") == b"a"
        pid = daemon_of(mnt)
        check(BIN, "umount", mnt + "/")
        assert is_gone(pid)


def test_foreground():
    for how in (signal.SIGTERM, signal.SIGINT):
        with place() as p:
            write(f"{p.run}/a", b"a")
            daemon = subprocess.Popen([BIN, "mount", "-f", p.run, p.mnt],
                                      stderr=subprocess.PIPE, text=True)
            while not os.path.ismount(p.mnt):
                assert daemon.poll() is None, daemon.stderr.read()
                time.sleep(0.01)
            assert read(f"{p.mnt}/a") == b"a"
            fails(errno.EINVAL, os.stat, f"{p.mnt}/@dp2") \
                if os.path.exists(f"{p.run}/latest") else None
            daemon.send_signal(how)
            _, said = daemon.communicate(timeout=60)
            assert daemon.returncode == 0, said
            assert not os.path.ismount(p.mnt)


def test_mount_helper():
    """mount(8) and fstab, with the helper laid over /sbin."""
    with place() as p:
        make_step(p.run, "step1", [b"abc", b"de"])
        os.mkdir(f"{p.top}/sbin")
        os.symlink(BIN, f"{p.top}/sbin/mount.fuse.ckptfs")
        direct = f"{p.top}/sbin/mount.fuse.ckptfs"
        check(direct, p.run, p.mnt, "-o", f"rw,noatime,log={p.log}")
        assert read(f"{p.mnt}/@dp3/step1/shard_0_of_3.bin") == b"ab"
        p.pid = daemon_of(p.mnt)
        p.umount()
        # As mount.fuse3 would run it.
        check(BIN, p.run, p.mnt, "-o", f"rw,dev,suid,log={p.log}")
        p.pid = daemon_of(p.mnt)
        p.umount()
        write(f"{p.top}/fstab",
              f"{p.run} {p.mnt} fuse.ckptfs noauto,nofail,view=@dp3,"
              f"x-test.y=1,log={p.log} 0 0\n".encode())
        sbin = os.path.realpath("/sbin")
        lay = (f"mount -t overlay -o lowerdir={p.top}/sbin:{sbin} overlay "
               f"{sbin} || exit 77\n")
        script = lay + f"""
            set -e
            mount -t fuse.ckptfs {p.run} {p.mnt} -o log={p.log},view=@dp3
            test "$(cat {p.mnt}/step1/shard_0_of_3.bin)" = ab
            umount {p.mnt}
            mount -T {p.top}/fstab {p.mnt}
            test "$(cat {p.mnt}/step1/shard_1_of_3.bin)" = cd
            umount {p.mnt}
            ! mount -t fuse.ckptfs {p.run} {p.mnt} -o turbo=1
        """
        done = run("unshare", "-m", "bash", "-c", script)
        if done.returncode == 77:
            print("  (no overlay: mount(8) itself is not tried)")
            return
        assert done.returncode == 0, (done.stderr, p.logged())
        assert "turbo" in done.stderr


def test_helper_install():
    """The link for mount(8) stays under a prefix of one's own."""
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)),
                          "../../fs/cli/mount_helper.cmake")
    with place() as p:
        def install(prefix, where=""):
            said = run("cmake", f"-Ddir={where}", "-Dprogram=bin/ckptfs",
                       f"-DCMAKE_INSTALL_PREFIX={prefix}", "-P", script,
                       env={**os.environ, "DESTDIR": f"{p.top}/dest"})
            assert said.returncode == 0, said
            link = said.stdout.removeprefix("-- Installing: ").strip()
            assert link.startswith(f"{p.top}/dest/"), said
            assert os.readlink(link) == f"{prefix}/bin/ckptfs"
            return link.removeprefix(f"{p.top}/dest")

        name = "mount.fuse.ckptfs"
        assert install("/opt/x") == f"/opt/x/sbin/{name}"
        assert install("/usr/local") == install("/usr") == f"/sbin/{name}"
        assert install("/opt/x", "/lib/h") == f"/lib/h/{name}"


def test_help():
    for args in (["--help"], ["mount", "--help"], ["umount", "--help"]):
        out = check(BIN, *args)
        assert out and max(len(line) for line in out.splitlines()) <= 80
    assert check(BIN, "--version").startswith("ckptfs ")
    # Each option of a help text is in the manual, and the other way round.
    pages = os.path.join(os.path.dirname(os.path.realpath(__file__)),
                         "../../fs/cli/man")
    option = r"(?<![\w-])--?[a-z][a-z_]*|(?<!\w)(?:view|crc|cache|log)=" \
             r"|allow_other|direct_io"
    for verb in ("mount", "umount"):
        page = read(f"{pages}/ckptfs-{verb}.1").decode()
        page = page[page.index(".SH OPTIONS"):page.index(".SH EXIT")]
        page = page.split(".SH VIEWS")[0].replace("\\-", "-")
        in_page = set(re.findall(option, page))
        in_help = set(re.findall(option, check(BIN, verb, "--help")))
        in_help -= {"-m"}
        assert in_page == in_help, (verb, in_page ^ in_help)


if __name__ == "__main__":
    if sys.argv[2:3] == ["--user-part"]:
        user_part(sys.argv[3])
    else:
        sys.exit(main(globals()))
