"""The verbs that look, over the golden steps: ls, show, view; and help.

See cli_place.py.
"""
import json
import os
import shutil
import subprocess
import sys
import zipfile

import cli_man
from cli_golden import element_at, tensors
from cli_place import CKPTFS, ROOT, STEP, Place, main, run, run_json


# ---- help ----

def test_help_and_man_pages():
    listing = run("--help")
    verbs = [line.split()[0] for line in listing.splitlines()
             if line.startswith("  ")]
    assert {"ls", "show", "view", "export", "diff", "check"} <= set(verbs)
    assert all(len(line) <= 80 for line in listing.splitlines())
    problems = []
    for verb in verbs:
        page = f"{ROOT}/fs/cli/man/ckptfs-{verb}.1"
        problems += cli_man.compare(CKPTFS, verb, page)
    assert not problems, "\n".join(problems)
    main = open(f"{ROOT}/fs/cli/man/ckptfs.1", encoding="utf-8").read()
    for verb in verbs:
        assert f"ckptfs-{verb} (1)" in main, verb


def test_usage_errors():
    for args in (["ls"], ["ls", "a", "b"], ["show"], ["diff", "a"],
                 ["check"], ["export", "a"], ["view"], ["view", "nonsense"],
                 ["view", "add", "run"], ["ls", "--nonsense", "x"],
                 ["view", "add", "run", "x", "--dp", "0"],
                 ["view", "add", "run", "x", "--as", "dpx"],
                 ["view", "add", "r", "x", "--dp", "3", "--as", "dp4"],
                 ["view", "add", "r", "x", "--dp", "3", "--dp", "4"],
                 ["view", "add", "r", "x", "--bf16-optimizer",
                  "--zero-optimizer"],
                 ["view", "add", "r", "x", "--as", "bf16opt-zero3"],
                 ["view", "add", "r", "x", "--as", "bf16opt", "--zero", "2"],
                 ["view", "add", "r", ".", "--dp", "3"],
                 ["view", "add", "r", "@..", "--dp", "3"],
                 ["view", "add", "r", "latest", "--dp", "3"],
                 ["export", "a", "b", "--all", "--step", "c"],
                 ["diff", "a", "b", "--role"]):
        assert run(*args, status=2) == ""
        assert "--help" in run.stderr


def test_no_such_thing():
    with Place() as p:
        for path in (f"{p.top}/nothing", f"{p.run}/nothing",
                     f"{p.run}/@dp2/nothing", f"{p.run}/latest/x"):
            for verb in ("ls", "show", "check"):
                out = run(verb, path, status=2 if verb == "check" else 1)
                assert out == "", out
                assert path in run.stderr, run.stderr
        run("ls", p.top, status=1)
        assert "not a run" in run.stderr


# ---- ls ----

def test_ls():
    with Place() as p:
        j = run_json("ls", p.run)
        assert j["latest"] == STEP and j["view_latest"] == STEP
        (s,) = j["steps"]
        assert s["name"] == STEP and s["complete"] and s["latest"]
        assert (s["dp"], s["mp"], s["zero_stage"]) == (8, 1, 1)
        assert s["optimizer"] == "DeepSpeedZeroOptimizer"
        assert s["dtype"] == "bf16" and s["writer_version"] == "0.16.5"
        assert s["problem"] is None and s["global_steps"] == 7
        size = sum(os.path.getsize(f"{p.step}/{n}")
                   for n in os.listdir(p.step))
        assert s["size_bytes"] == size
        assert "whole, latest" in run("ls", p.run)
        (v,) = run_json("ls", f"{p.run}/@dp3-zero2")["steps"]
        assert (v["dp"], v["zero_stage"]) == (3, 2)


def test_ls_incomplete():
    with Place() as p:
        shutil.copytree(p.step, f"{p.run}/global_step9")
        gone = [n for n in os.listdir(f"{p.run}/global_step9")
                if "pp_rank_5_" in n][0]
        os.unlink(f"{p.run}/global_step9/{gone}")
        open(f"{p.run}/latest", "w").write("global_step9\n")
        os.makedirs(f"{p.run}/wandb")
        j = run_json("ls", p.run)
        assert [s["name"] for s in j["steps"]] == [STEP, "global_step9"]
        assert j["latest"] == "global_step9" and j["view_latest"] == STEP
        s = j["steps"][1]
        assert not s["complete"] and s["latest"] and gone in s["problem"]
        out = run("ls", p.run)
        assert gone in out and f"views show {STEP}" in out, out


# ---- show ----

def test_show_step():
    with Place() as p:
        j = run_json("show", p.step, "--params")
        assert j["dp"] == 8 and j["zero_stage"] == 1
        b = j["batch"]
        assert b["micro"] * b["accumulation"] * b["dp"] == b["train"]
        assert b["consistent"]
        (params,) = j["parameters"]
        assert params["parameters"] == len(j["parameter_list"])
        assert params["elements"] == sum(q["elements"]
                                         for q in j["parameter_list"])
        assert set(params["roles"]) == {"weight", "master", "exp_avg",
                                        "exp_avg_sq"}
        assert sum(g["parameters"] for g in j["groups"]) == \
            params["parameters"] - params["frozen"]
        assert len(j["groups"]) == 3
        assert {"lr", "betas", "weight_decay"} <= \
            set(j["groups"][0]["hyper_parameters"])
        assert {f["name"] for f in j["files"]} == set(os.listdir(p.step))
        assert run_json("show", p.run)["dp"] == 8
        v = run_json("show", f"{p.run}/@dp3")
        assert v["dp"] == 3
        assert v["parameters"][0]["elements"] == params["elements"]
        text = run("show", p.step)
        assert "x dp 8 =" in text


def test_show_file():
    with Place() as p:
        path = p.file("mp_rank_00_model")
        j = run_json("show", path)
        with zipfile.ZipFile(path) as z:
            assert [r["name"] for r in j["records"]] == z.namelist()
            for r, i in zip(j["records"], z.infolist()):
                assert r["header_offset"] == i.header_offset
                assert r["bytes"] == i.file_size and r["crc32"] == i.CRC
        names = {t["path"] for t in j["tensors"]}
        for q in run_json("show", p.step, "--params")["parameter_list"]:
            assert f"module/{q['name']}" in names
        values = {v["path"]: v["value"] for v in j["values"]}
        assert values["dp_world_size"] == "8"
        assert values["ds_version"] == "'0.16.5'"
        assert "dp_world_size = 8" in run("show", path, "--all")
        shown = f"{p.run}/@dp3/{STEP}/{os.path.basename(path)}"
        values = {v["path"]: v["value"]
                  for v in run_json("show", shown)["values"]}
        assert values["dp_world_size"] == "3"


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_show_executes_nothing():
    import pickle
    with Place() as p:
        trap, path = f"{p.top}/sprung", f"{p.top}/evil.pt"
        with zipfile.ZipFile(path, "w") as z:
            z.writestr("evil/data.pkl",
                       pickle.dumps({"a\x1b[2J": Evil(trap),
                                     "\ud800": 1}, protocol=2))
            z.writestr("evil/version", "3\n")
        out = run("show", path)
        assert "mkdir" in out and "\x1b" not in out, out
        j = run_json("show", path)  # also what is no UTF-8 is valid JSON
        assert any("mkdir" in v["value"] for v in j["values"])
        assert not os.path.exists(trap)


def test_show_not_torch():
    with Place() as p:
        for name, content in (("text", b"hello\n" * 100), ("empty", b""),
                              ("zip", b"PK\5\6" + bytes(18))):
            path = f"{p.top}/{name}"
            open(path, "wb").write(content)
            run("show", path, status=1)
            assert path in run.stderr
        whole = open(p.file("mp_rank_00_model"), "rb").read()
        for cut in (1, 100, len(whole) // 2, len(whole) - 1):
            open(f"{p.top}/cut.pt", "wb").write(whole[:cut])
            run("show", f"{p.top}/cut.pt", status=1)


# ---- view ----

def test_view_names():
    with Place() as p:
        assert run_json("view", "list", p.run)["views"] == []
        run("view", "add", p.run, "small", "--as", "dp2-zero2")
        run("view", "add", p.run, "@big", "--dp", "16", "--sub-group-size",
            "12", "--zero", "3")
        views = {v["name"]: v["request"]
                 for v in run_json("view", "list", p.run)["views"]}
        assert views == {"small": "dp2-zero2", "big": "dp16-zero3-sub12"}
        assert "@small" in run("view", "list", p.run)
        assert run_json("show", f"{p.run}/@small")["zero_stage"] == 2
        assert run_json("show", f"{p.step}/@small")["dp"] == 2
        run("view", "add", p.run, "small", "--dp", "5", "--as", "dp5")
        assert run_json("show", f"{p.run}/@small")["dp"] == 5
        run("view", "rm", p.run, "small")
        run("show", f"{p.run}/@small", status=1)
        run("view", "rm", p.run, "small", status=1)
        run("view", "add", p.run, "dp3", "--dp", "4", status=1)
        run("view", "add", p.run, "a/b", "--dp", "4", status=1)
        run("view", "add", p.step, "x", "--dp", "4", status=1)
        assert os.listdir(p.run) == os.listdir(
            f"{ROOT}/tests/data/{p.golden}")


def test_explain_step():
    with Place() as p:
        j = run_json("view", "explain", f"{p.run}/@dp3-norr")
        assert j["possible"] and not j["as_saved"]
        assert j["saved"]["dp"] == 8 and j["shown"]["dp"] == 3
        assert j["request"]["dp"] == {"value": "3", "origin": "request"}
        assert j["request"]["zero"] == {"value": "1", "origin": "source"}
        assert j["request"]["round_robin"]["origin"] == "request"
        for f in j["files"]:
            assert f["bytes"] == f["range_bytes"] + f["gather_bytes"] + \
                f["cast_bytes"] + f["linear_bytes"] + f["zero_bytes"] + \
                f["literal_bytes"], f
        assert j["total"]["bytes"] == sum(f["bytes"] for f in j["files"])
        assert j["total"]["cast_bytes"] == 0
        text = run("view", "explain", f"{p.run}/@dp3-norr")
        assert "request" in text and "total" in text
        assert run_json("view", "explain", f"{p.run}/@dp8")["as_saved"]


def bytes_of_pieces(run_path, pieces):
    out = b""
    for piece in pieces:
        if piece["how"] == "zero":
            out += bytes(piece["length"])
            continue
        assert piece["how"] == "range", piece
        with open(f"{run_path}/{piece['file']}", "rb") as f:
            f.seek(piece["offset"])
            out += f.read(piece["length"])
    return out


def test_explain_is_true():
    """The ranges explain names hold the bytes that export writes."""
    with Place() as p:
        run("export", f"{p.run}/@dp3", f"{p.top}/out")
        seen = 0
        for name in os.listdir(f"{p.top}/out/{STEP}"):
            path = f"{p.top}/out/{STEP}/{name}"
            j = run_json("view", "explain", f"{p.run}/@dp3/{STEP}/{name}")
            assert j["bytes"] == os.path.getsize(path)
            written = open(path, "rb").read()
            contiguous = {n: t["contiguous"] for n, t in tensors(path).items()}
            for t in j["tensors"]:
                if not t["bytes"] or not contiguous[t["name"]]:
                    continue
                want = bytes_of_pieces(p.run, t["pieces"])
                at = element_at(path, t["name"], 0)
                assert len(want) == t["bytes"], t
                assert written[at:at + len(want)] == want, t
                seen += 1
        assert seen > 20


def test_explain_refusals():
    with Place() as p:
        for name, word in (("@zero3-bf16opt", "BF16"), ("@tp2", "kernel"),
                           ("@dp0", "dp"), ("@nonsense", "nonsense")):
            out = run("view", "explain", f"{p.run}/{name}", "--json", status=1)
            j = json.loads(out)
            assert j["possible"] is False and word in j["reason"], j
            assert j["reason"] in run.stderr
            run("export", f"{p.run}/{name}", f"{p.top}/out", status=1)
            assert not os.path.exists(f"{p.top}/out")


def test_ls_unreadable():
    with Place() as p:
        with open(p.file("bf16_zero_pp_rank_3"), "r+b") as f:
            f.seek(64)
            f.write(bytes(200))
        out = run("ls", p.run)
        assert "unreadable, latest" in out, out
        assert out.count(f"{STEP}: ") == 1, out
        assert run_json("ls", p.run)["steps"][0]["status"] == "unreadable"


def test_live_mount():
    """explain and names through a mount, where there can be one."""
    with Place() as p:
        mnt = f"{p.top}/mnt"
        os.mkdir(mnt)
        if not os.path.exists("/dev/fuse") or subprocess.run(
                [CKPTFS, "mount", p.run, mnt],
                stderr=subprocess.DEVNULL).returncode:
            return
        try:
            j = run_json("view", "explain", f"{mnt}/@dp3")
            assert j["shown"]["dp"] == 3
            run("view", "explain", f"{mnt}/@zero3-bf16opt", status=1)
            run("view", "add", mnt, "mine", "--dp", "2")
            assert len(os.listdir(f"{mnt}/@mine/{STEP}")) == 3
            run("diff", f"{mnt}/@mine", p.run)
            run("export", f"{mnt}/@mine", f"{p.top}/out")
            for n in os.listdir(f"{mnt}/@mine/{STEP}"):
                assert open(f"{mnt}/@mine/{STEP}/{n}", "rb").read() == \
                    open(f"{p.top}/out/{STEP}/{n}", "rb").read()
        finally:
            subprocess.run([CKPTFS, "umount", mnt], check=True)


if __name__ == "__main__":
    sys.exit(main(globals()))
