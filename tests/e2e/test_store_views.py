"""Views of what was saved into a mounted store, read and written.

See store_mounted.py.
"""
import errno
import os
import random
import sys

from mount_place import SEED, cut, fails, main, read
from store_mounted import create, mounted
from store_place import check, store


def step(top, name, shards):
    os.mkdir(f"{top}/{name}")
    for i, data in enumerate(shards):
        create(f"{top}/{name}/shard_{i}_of_{len(shards)}.bin", data)


def shards_of(where, n):
    return [read(f"{where}/shard_{i}_of_{n}.bin") for i in range(n)]


def test_views():
    state = random.Random(SEED).randbytes(200001)
    with mounted() as (s, mnt):
        run_dir = f"{mnt}/run"
        os.mkdir(run_dir)
        step(run_dir, "step1", cut(state, 2))
        create(f"{run_dir}/latest", b"step1")
        create(f"{run_dir}/notes.txt", b"notes")
        view = f"{run_dir}/@dp3"
        assert shards_of(f"{view}/step1", 3) == cut(state, 3)
        assert read(f"{view}/latest") == b"step1"
        # What is the run's own is the same file, with the same pages.
        assert os.stat(f"{view}/notes.txt").st_ino == \
            os.stat(f"{run_dir}/notes.txt").st_ino
        with open(f"{view}/notes.txt", "r+b") as f:
            f.write(b"NOTES")
        assert read(f"{run_dir}/notes.txt") == b"NOTES"
        # Made names are read-only.
        made = f"{view}/step1/shard_0_of_3.bin"
        fails(errno.EROFS, os.open, made, os.O_WRONLY)
        fails(errno.EROFS, os.unlink, made)
        fails(errno.EROFS, os.truncate, made, 0)
        fails(errno.EROFS, create, f"{view}/step1/new")
        fails(errno.EROFS, os.rename, f"{view}/step1", f"{view}/step2")
        fails((errno.EPERM, errno.EROFS), os.rmdir, view)
        fails((errno.EPERM, errno.EROFS), os.rename, view, f"{mnt}/x")
        assert shards_of(f"{view}/step1", 3) == cut(state, 3)
        assert shards_of(f"{run_dir}/step1/@dp4", 4) == cut(state, 4)
        check("cp", "-r", f"{view}/step1", f"{mnt}/copy")
        assert shards_of(f"{mnt}/copy", 3) == cut(state, 3)
        # A real name wins.
        os.mkdir(f"{mnt}/real")
        os.mkdir(f"{mnt}/real/d")
        os.rename(f"{mnt}/real/d", f"{mnt}/real/@dp3")
        assert os.stat(f"{mnt}/real/@dp3").st_ino < 1 << 63
        check("rm", "-r", run_dir)
        assert sorted(os.listdir(mnt)) == ["copy", "real"]


def save(view, name, shards):
    """As a trainer saves: the pointer last, every file opened by its path."""
    os.makedirs(f"{view}/{name}", exist_ok=True)
    for i, data in enumerate(shards):
        with open(f"{view}/{name}/shard_{i}_of_{len(shards)}.bin", "wb") as f:
            f.write(data[:len(data) // 2])
            os.stat(f"{view}/{name}")
            f.write(data[len(data) // 2:])
    with open(f"{view}/latest", "w") as f:
        f.write(name)


def test_save_through_a_view():
    rng = random.Random(SEED)
    with mounted() as (s, mnt):
        run_dir = f"{mnt}/run"
        os.mkdir(run_dir)
        one = rng.randbytes(100003)
        save(run_dir, "step1", cut(one, 2))
        view = f"{run_dir}/@dp3"
        assert shards_of(f"{view}/step1", 3) == cut(one, 3)
        # Resumed at another size: loads and saves by the same path.
        for n in range(2, 6):
            state = rng.randbytes(100000 + n)
            save(view, f"step{n}", cut(state, 3))
            assert read(f"{run_dir}/latest") == f"step{n}".encode()
            assert read(f"{view}/latest") == f"step{n}".encode()
            assert shards_of(f"{run_dir}/step{n}", 3) == cut(state, 3)
            assert shards_of(f"{view}/step{n}", 3) == cut(state, 3)
            assert shards_of(f"{run_dir}/@dp2/step{n}", 2) == cut(state, 2)
        # Saved once more, in place; and by renaming the pointer over.
        again = rng.randbytes(100005)
        save(view, "step5", cut(again, 3))
        assert shards_of(f"{run_dir}/step5", 3) == cut(again, 3)
        create(f"{view}/latest.tmp", b"step4")
        os.rename(f"{view}/latest.tmp", f"{view}/latest")
        assert read(f"{run_dir}/latest") == b"step4"
        assert read(f"{view}/latest") == b"step4"
        with open(f"{view}/latest", "a") as f:
            f.write("\n")
        assert read(f"{run_dir}/latest") == b"step4\n"
        # While the kernel has both directories' names, each sees the other's.
        for a, b in ((view, run_dir), (run_dir, view)):
            for i in range(50):
                create(f"{a}/x", b"x")
                assert read(f"{b}/x") == b"x"
                os.rename(f"{a}/x", f"{a}/y")
                assert not os.path.exists(f"{b}/x")
                assert read(f"{b}/y") == b"x"
                os.unlink(f"{a}/y")
                assert not os.path.exists(f"{b}/y"), (a, i)
                os.mkdir(f"{a}/dir")
                create(f"{a}/dir/f", b"f")
                assert read(f"{b}/dir/f") == b"f"
                os.unlink(f"{b}/dir/f")
                os.rmdir(f"{b}/dir")
                assert not os.path.exists(f"{a}/dir")
        os.rename(f"{run_dir}/latest", f"{view}/renamed")
        assert read(f"{run_dir}/renamed") == b"step4\n"
        # Removing a step that was saved through the view works through it.
        check("rm", "-r", f"{view}/step5")
        assert not os.path.exists(f"{run_dir}/step5")
        s.umount()
        s.mount()
        assert shards_of(f"{view}/step4", 3) == shards_of(
            f"{run_dir}/step4", 3)


def test_pointer_names_what_is_not_whole():
    with mounted() as (s, mnt):
        run_dir, view = f"{mnt}/run", f"{mnt}/run/@dp2"
        os.mkdir(run_dir)
        save(run_dir, "step1", cut(b"a" * 1000, 4))
        os.mkdir(f"{run_dir}/step2")
        create(f"{run_dir}/step2/shard_0_of_4.bin", b"half")
        create(f"{run_dir}/latest", b"step2")
        assert read(f"{view}/latest") == b"step1"
        # Writing there is writing to the run's own.
        with open(f"{view}/latest", "w") as f:
            f.write("step1 ")
        assert read(f"{run_dir}/latest") == b"step1 "


def test_no_directory_called_as_a_view():
    """It would stand before the view for ever."""
    with mounted() as (_, mnt):
        fails(errno.EINVAL, os.mkdir, f"{mnt}/@dp2")
        os.mkdir(f"{mnt}/run")
        fails(errno.EINVAL, os.makedirs, f"{mnt}/run/@dp4-zero1/global_step1")
        os.mkdir(f"{mnt}/@scope")
        os.mkdir(f"{mnt}/a@dp2")
        assert sorted(os.listdir(mnt)) == ["@scope", "a@dp2", "run"]


def test_root_view():
    state = random.Random(SEED).randbytes(5000)
    with store() as s:
        s.mount()
        step(s.mnt, "step1", cut(state, 4))
        create(f"{s.mnt}/latest", b"step1")
        s.umount()
        mnt = s.mount("view=@dp2")
        assert shards_of(f"{mnt}/step1", 2) == cut(state, 2)
        save(mnt, "step2", cut(state[::-1], 2))
        s.umount()
        s.mount()
        assert read(f"{mnt}/latest") == b"step2"
        assert shards_of(f"{mnt}/step2", 2) == cut(state[::-1], 2)
        s.umount()


if __name__ == "__main__":
    sys.exit(main(globals()))
