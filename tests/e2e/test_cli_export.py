"""Views of the golden steps, exported.  See cli_place.py."""
import os
import pty
import shutil
import subprocess
import sys

from cli_place import CKPTFS, STEP, Place, main, run, run_json


def files_under(top):
    return {os.path.relpath(f"{d}/{n}", top) for d, _, names in os.walk(top)
            for n in names}


def test_export_run():
    with Place() as p:
        out = f"{p.top}/out"
        j = run_json("export", f"{p.run}/@dp3", out)
        assert j["steps"] == [STEP] and j["files_kept"] == 0
        have = files_under(out) - {".ckptfs-export.json"}
        assert j["files_written"] == len(have)
        assert {n for n in have if n.startswith(STEP)} == {
            f"{STEP}/mp_rank_00_model_states.pt",
            *(f"{STEP}/bf16_zero_pp_rank_{r}_mp_rank_00_optim_states.pt"
              for r in range(3))}
        assert open(f"{out}/latest").read() == STEP
        run("diff", p.run, out)
        assert run_json("ls", out)["steps"][0]["dp"] == 3
        # the same bytes whoever asks
        run("export", f"{p.run}/@dp3/{STEP}", f"{p.top}/step")
        for n in os.listdir(f"{out}/{STEP}"):
            assert open(f"{out}/{STEP}/{n}", "rb").read() == \
                open(f"{p.top}/step/{n}", "rb").read()


def test_export_all_and_step():
    with Place() as p:
        shutil.copytree(p.step, f"{p.run}/global_step9")
        shutil.copytree(p.step, f"{p.run}/global_step11")
        os.unlink(f"{p.run}/global_step11/mp_rank_00_model_states.pt")
        p1 = subprocess.run([CKPTFS, "export", f"{p.run}/@dp2", "--all",
                             f"{p.top}/all"], capture_output=True, text=True)
        assert p1.returncode == 0 and "global_step11" in p1.stderr, p1
        assert {n.split("/")[0] for n in files_under(f"{p.top}/all")
                if "/" in n} == {STEP, "global_step9"}
        assert open(f"{p.top}/all/latest").read() == STEP
        run("export", f"{p.run}/@dp2", f"{p.top}/one", "--step",
            "global_step9")
        assert open(f"{p.top}/one/latest").read() == "global_step9"
        run("export", f"{p.run}/@dp2", f"{p.top}/bad", "--step",
            "global_step11", status=1)
        assert "not a whole step" in run.stderr
        run("export", f"{p.run}/@dp2", f"{p.top}/bad", "--step", "x", status=1)
        # a further step into the same directory
        run("export", f"{p.run}/@dp2", f"{p.top}/one", "--step", STEP,
            "--resume")
        assert open(f"{p.top}/one/latest").read() == STEP
        assert os.path.isdir(f"{p.top}/one/global_step9")


def test_export_not_whole_latest():
    with Place() as p:
        shutil.copytree(p.step, f"{p.run}/global_step9")
        os.unlink(f"{p.run}/global_step9/mp_rank_00_model_states.pt")
        open(f"{p.run}/latest", "w").write("global_step9")
        r = subprocess.run([CKPTFS, "export", f"{p.run}/@dp2",
                            f"{p.top}/out"], capture_output=True, text=True)
        assert r.returncode == 0 and r.stderr.count("\n") == 1, r
        assert "latest names global_step9" in r.stderr, r.stderr
        assert "mp_rank_00_model_states" in r.stderr, r.stderr
        assert f"{STEP} is shown" in r.stderr, r.stderr
        assert open(f"{p.top}/out/latest").read() == STEP
        run("export", p.run, f"{p.top}/plain", status=1)
        assert "global_step9" in run.stderr and "not a whole" in run.stderr


def test_replaced_latest_is_said():
    with Place() as p:
        view = f"{p.run}/@dp2"
        for n, verb in enumerate((["show"], ["check"], ["ls"],
                                  ["view", "explain"], ["diff", p.step],
                                  ["export"])):
            for absent in (True, False):
                shutil.rmtree(f"{p.run}/global_step9", ignore_errors=True)
                if not absent:
                    shutil.copytree(p.step, f"{p.run}/global_step9")
                    os.unlink(f"{p.run}/global_step9/"
                              "mp_rank_00_model_states.pt")
                open(f"{p.run}/latest", "w").write("global_step9")
                more = [f"{p.top}/out{n}{absent}"] if verb == ["export"] \
                    else []
                run(*verb, view, *more)
                assert run.stderr.count("\n") == 1, (verb, run.stderr)
                assert "latest names global_step9" in run.stderr
                assert ("not there" if absent else "mp_rank_00_model") in \
                    run.stderr
                assert f"{STEP} is shown" in run.stderr
                run(*verb, f"{view}/{STEP}" if verb != ["ls"] else p.run,
                    *[f"{m}b" for m in more])
                assert run.stderr == "", run.stderr
        j = run_json("ls", view)
        assert j["latest"] == "global_step9" and j["view_latest"] == STEP


def test_odd_latest():
    with Place() as p:
        for n, text in enumerate(("", "../x\n", None)):
            os.unlink(f"{p.run}/latest")
            if text is None:
                os.mkdir(f"{p.run}/latest")
            else:
                open(f"{p.run}/latest", "w").write(text)
            assert STEP in run("ls", p.run)
            assert p.run in run.stderr and run.stderr.count("\n") == 1
            j = run_json("ls", p.run)
            assert j["latest"] is None and j["steps"][0]["complete"]
            run("show", p.run, status=1)
            assert p.run in run.stderr and "latest" in run.stderr
            run("export", "--all", f"{p.run}/@dp2", f"{p.top}/all{n}")
            assert os.listdir(f"{p.top}/all{n}/{STEP}")


def test_export_plain():
    with Place() as p:
        run("export", p.run, f"{p.top}/copy")
        for n in os.listdir(p.step):
            assert open(f"{p.step}/{n}", "rb").read() == \
                open(f"{p.top}/copy/{STEP}/{n}", "rb").read()
        run("export", p.step, f"{p.top}/copy2")
        assert set(os.listdir(p.step)) < set(os.listdir(f"{p.top}/copy2"))


def test_export_resume():
    with Place() as p:
        view, out = f"{p.run}/@dp3", f"{p.top}/out"
        run("export", view, out)
        run("export", view, out, status=1)
        assert "--resume" in run.stderr
        assert run_json("export", view, out, "--resume")["files_kept"] >= 4
        lost = f"{out}/{STEP}/mp_rank_00_model_states.pt"
        whole = open(lost, "rb").read()
        os.unlink(lost)
        os.unlink(f"{out}/latest")
        part = f"{out}/{STEP}/.mp_rank_00_model_states.pt.ckptfs-part"
        open(part, "wb").write(b"left behind")
        j = run_json("export", view, out, "--resume")
        assert j["files_written"] == 2, j
        assert open(lost, "rb").read() == whole and not os.path.exists(part)
        # something else has the name of one of its files
        open(lost, "wb").write(b"mine")
        run("export", view, out, "--resume", status=1)
        assert open(lost, "rb").read() == b"mine" and lost in run.stderr
        assert "damaged (4 bytes of" in run.stderr, run.stderr
        os.unlink(lost)
        run("export", f"{p.run}/@dp2", out, "--resume", status=1)
        assert "@dp3" in run.stderr
        # a changed source is not mixed in
        src = p.file("mp_rank_00_model")
        data = open(src, "rb").read()
        os.unlink(src)
        open(src, "wb").write(data)
        run("export", view, out, "--resume", status=1)
        assert STEP in run.stderr and "changed" in run.stderr
        assert not os.path.exists(lost)


def test_export_never_into_the_source():
    with Place() as p:
        before = files_under(p.run)
        for view in (p.run, f"{p.run}/@dp3", p.step, f"{p.step}/@dp3",
                     f"{p.run}/@dp3/{STEP}"):
            for out in (p.run, f"{p.run}/", f"{p.run}/out", f"{p.step}/out",
                        f"{p.top}/cache/../run/out"):
                os.makedirs(f"{p.top}/cache", exist_ok=True)
                run("export", view, out, status=1)
                assert "never written" in run.stderr, run.stderr
        assert files_under(p.run) == before
        assert "out" not in os.listdir(p.run)
        run("export", f"{p.step}/@dp3", f"{p.top}/run-dp3")


def test_export_overwrites_nothing():
    with Place() as p:
        open(f"{p.run}/zero_to_fp32.py", "w").write("print()\n")
        for name in ("latest", f"{STEP}/other", "zero_to_fp32.py"):
            out = f"{p.top}/out"
            os.makedirs(os.path.dirname(f"{out}/{name}"))
            open(f"{out}/{name}", "w").write("mine")
            run("export", f"{p.run}/@dp3", out, status=1)
            assert files_under(out) == {name}, files_under(out)
            assert open(f"{out}/{name}").read() == "mine"
            shutil.rmtree(out)
        os.mkdir(f"{p.top}/full")
        open(f"{p.top}/full/x", "w").close()
        run("export", f"{p.step}/@dp3", f"{p.top}/full", status=1)
        assert os.listdir(f"{p.top}/full") == ["x"]
        run("export", f"{p.run}/@dp3", f"{p.top}/full/x", status=1)


def test_export_full_disk():
    if os.geteuid() != 0:
        return
    with Place() as p:
        out = f"{p.top}/small"
        os.mkdir(out)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs",
                           out], stderr=subprocess.DEVNULL).returncode:
            return
        try:
            run("export", f"{p.run}/@dp3", f"{out}/x", status=1)
            assert "No space left" in run.stderr and "--resume" in run.stderr
            assert "latest" not in os.listdir(f"{out}/x")
            assert not [n for n in files_under(out) if "part" in n]
            subprocess.run(["mount", "-o", "remount,size=8m", out],
                           check=True)
            run("export", f"{p.run}/@dp3", f"{out}/x", "--resume")
            run("diff", "--quiet", p.run, f"{out}/x")
        finally:
            subprocess.run(["umount", out], check=True)


def test_export_progress_bar():
    with Place() as p:
        lead, follow = pty.openpty()
        r = subprocess.run([CKPTFS, "export", f"{p.run}/@dp3",
                            f"{p.top}/out"], stderr=follow,
                           stdout=subprocess.DEVNULL)
        os.close(follow)
        shown = os.read(lead, 65536).decode()
        os.close(lead)
        assert r.returncode == 0 and "%" in shown and "left" in shown, shown


if __name__ == "__main__":
    sys.exit(main(globals()))
