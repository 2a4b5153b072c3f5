"""The verbs end to end, over the golden steps in tests/data.

usage: test_cli.py CKPTFS SOURCE_ROOT [TEST ...]

Needs neither torch nor FUSE; what needs either is left out where it is not.
"""
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

import cli_man

CKPTFS = ROOT = None
GOLDEN = "deepspeed-0.16.5/bf16-g3-fused_z1-dp8"
STEP = "global_step7"


def run(*args, status=0, env=None):
    """Runs the tool; stdout.  On failure stderr must be one line of ours."""
    p = subprocess.run([CKPTFS, *args], capture_output=True, text=True,
                       env={**os.environ, **(env or {})})
    assert p.returncode == status, (args, p.returncode, p.stdout, p.stderr)
    if status and p.stderr:
        assert p.stderr.startswith(f"ckptfs {args[0]}: "), p.stderr
        assert p.stderr.count("\n") == 1, p.stderr
    run.stderr = p.stderr
    return p.stdout


def run_json(*args, **kw):
    return json.loads(run(*args, "--json", **kw))


class Place:
    """A temporary directory with a writable copy of a golden run."""

    def __init__(self, golden=GOLDEN):
        self.golden = golden

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="ckptfs-cli-")
        os.environ["CKPTFS_CACHE_DIR"] = f"{self.top}/cache"
        self.run = f"{self.top}/run"
        shutil.copytree(f"{ROOT}/tests/data/{self.golden}", self.run)
        self.step = f"{self.run}/{STEP}"
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.top)

    def file(self, start):
        names = [n for n in os.listdir(self.step) if n.startswith(start)]
        assert len(names) == 1, names
        return f"{self.step}/{names[0]}"


def golden_runs():
    top = f"{ROOT}/tests/data"
    for version in sorted(os.listdir(top)):
        if version.startswith("deepspeed-"):
            for name in sorted(os.listdir(f"{top}/{version}")):
                if os.path.exists(f"{top}/{version}/{name}/latest"):
                    yield version, name


def tensors(path):
    return {t["path"]: t for t in run_json("show", path)["tensors"]}


SIZE = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8, "f64": 8, "u8": 1}


def element_at(path, tensor, index):
    """Where element @index of a contiguous tensor lies in the file."""
    t = tensors(path)[tensor]
    with zipfile.ZipFile(path) as z:
        info = [i for i in z.infolist()
                if i.filename.endswith(f"/data/{t['storage']}")][0]
        assert info.compress_type == zipfile.ZIP_STORED
    with open(path, "rb") as f:
        f.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", f.read(4))
    data = info.header_offset + 30 + name + extra
    return data + SIZE[t["dtype"]] * (t["storage_offset"] + index)


def patch(path, tensor, index, raw):
    off = element_at(path, tensor, index)
    with open(path, "r+b") as f:
        f.seek(off)
        f.write(raw)


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
        for name, word in (("@zero3-bf16opt", "BF16"), ("@tp2", "tp"),
                           ("@dp0", "dp"), ("@nonsense", "nonsense")):
            out = run("view", "explain", f"{p.run}/{name}", "--json", status=1)
            j = json.loads(out)
            assert j["possible"] is False and word in j["reason"], j
            assert j["reason"] in run.stderr
            run("export", f"{p.run}/{name}", f"{p.top}/out", status=1)
            assert not os.path.exists(f"{p.top}/out")


# ---- export ----

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


def test_ls_unreadable():
    with Place() as p:
        with open(p.file("bf16_zero_pp_rank_3"), "r+b") as f:
            f.seek(64)
            f.write(bytes(200))
        out = run("ls", p.run)
        assert "unreadable, latest" in out, out
        assert out.count(f"{STEP}: ") == 1, out
        assert run_json("ls", p.run)["steps"][0]["status"] == "unreadable"


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


# ---- diff ----

def test_diff_topologies():
    same = {}
    for version, name in golden_runs():
        if "elastic" not in name:
            same.setdefault((version, name.split("_")[0]), []).append(name)
    pairs = 0
    for (version, _), names in same.items():
        for other in names[1:]:
            run("diff", f"{ROOT}/tests/data/{version}/{names[0]}",
                f"{ROOT}/tests/data/{version}/{other}")
            pairs += 1
    assert pairs >= 5, pairs


def test_diff_views():
    with Place() as p:
        for name in ("dp1", "dp3-zero2", "zero3", "dp5-zero3-sub12",
                     "bf16opt-dp2", "zero2-rr-dp4"):
            out = run("diff", p.run, f"{p.run}/@{name}")
            assert "tensors equal" in out
            j = run_json("diff", f"{p.run}/@{name}", f"{p.step}/@dp3")
            assert j["equal"], j


def test_diff_finds():
    with Place() as p:
        b = f"{p.top}/b"
        shutil.copytree(p.run, b)
        opt = f"{b}/{STEP}/" + os.path.basename(p.file(
            "bf16_zero_pp_rank_0"))
        name = "optimizer_state_dict/single_partition_of_fp32_groups/0"
        at = element_at(opt, name, 1)
        with open(opt, "rb") as f:
            f.seek(at)
            (old,) = struct.unpack("<f", f.read(4))
        patch(opt, name, 1, struct.pack("<f", old + 2.0))
        j = run_json("diff", p.run, b, status=1)
        assert not j["equal"] and j["tensors_different"] == 1
        (t,) = j["tensors"]
        assert t["role"] == "master" and t["kind"] == "values"
        assert t["different"] == 1
        assert abs(t["max_abs"] - 2.0) < 1e-6
        assert 0 < t["relative_norm"] < 100
        assert run("diff", "--quiet", p.run, b, status=1) == ""
        assert run("diff", p.run, b, "--role", "exp_avg")
        j = run_json("diff", f"{p.run}/@dp3", f"{b}/@dp5", status=1)
        assert [u["name"] for u in j["tensors"]] == [t["name"]]
        # files, by path; NaN equals NaN
        a_file = p.file("bf16_zero_pp_rank_0")
        (u,) = run_json("diff", a_file, opt, status=1)["tensors"]
        assert u["name"] == name and u["first"] == 1
        for f in (a_file, opt):
            patch(f, name, 1, struct.pack("<f", float("nan")))
        run("diff", a_file, opt)
        patch(opt, name, 1, struct.pack("<f", 0.0))
        (u,) = run_json("diff", a_file, opt, status=1)["tensors"]
        assert u["max_abs"] == "inf"


def test_diff_one_sided():
    a = f"{ROOT}/tests/data/{GOLDEN}"
    j = run_json("diff", a, f"{ROOT}/tests/data/deepspeed-0.16.5/"
                 "bf16-g2-frozen-tied_bf16opt-dp3", status=1)
    kinds = {t["kind"] for t in j["tensors"]}
    assert kinds & {"only_a", "only_b", "values", "shape"}
    with Place() as p:
        run("diff", p.run, f"{p.top}/nothing", status=2)
        run("diff", p.run, p.file("mp_rank_00_model"), status=2)
        run("diff", p.run, f"{p.run}/@tp2", status=2)


def test_diff_says_what_it_left_out():
    with Place() as p:
        j = run_json("diff", p.step, f"{p.run}/@dp3")
        assert j["equal"] and j["values_not_compared"] > 3, j
        assert f"{j['values_not_compared']} other values" in run(
            "diff", p.step, f"{p.run}/@dp3")
        model = p.file("mp_rank_00_model")
        assert run_json("diff", model, model)["values_not_compared"] == 0


def test_diff_role_and_sides():
    with Place() as p:
        run("diff", "--role", "master", p.step, p.step)
        run("diff", "--role", "nosuch", p.step, p.step, status=2)
        assert "exp_avg_sq" in run.stderr and "master" in run.stderr
        assert run.stderr.count("exp_avg_sq") == 1
        lost = f"{p.top}/nosuch"
        run("diff", lost, p.step, status=2)
        assert f"A: {lost}" in run.stderr, run.stderr
        run("diff", p.step, lost, status=2)
        assert f"B: {lost}" in run.stderr, run.stderr


# ---- check ----

def sections_of(j):
    return {c["name"]: c for c in j["checks"]}


def test_check_golden():
    n = 0
    for version, name in golden_runs():
        j = run_json("check", "--crc", f"{ROOT}/tests/data/{version}/{name}")
        assert j["ok"], j
        n += 1
    assert n >= 20, n
    with Place() as p:
        for view in ("dp1", "dp3-zero2-rr", "zero3", "bf16opt-dp2"):
            assert run_json("check", f"{p.run}/@{view}")["ok"]


def test_check_weights_and_values():
    with Place() as p:
        model = p.file("mp_rank_00_model")
        name = [t for t in tensors(model) if t.startswith("module/")
                and t.endswith("weight")][0]
        patch(model, name, 2, b"\x80\x3f")  # 1.0
        j = run_json("check", p.step, status=1)
        (problem,) = sections_of(j)["weights"]["problems"]
        assert problem["object"] == name[len("module/"):]
        assert problem["problem"].startswith("1 of ")
        patch(model, name, 2, b"\xc0\x7f")  # NaN
        patch(model, name, 3, b"\x80\x7f")  # inf
        s = sections_of(run_json("check", "--crc", p.step, status=1))
        assert s["values"]["weight_nan"] == 1
        assert s["values"]["weight_inf"] == 1
        assert s["values"]["master_nan"] == 0
        assert s["files"]["status"] == "WRONG"
        assert "CRC" in s["files"]["problems"][0]["problem"]
        assert "WRONG" in run("check", p.step, status=1)
        assert run("check", "--quiet", p.step, status=1) == ""


def test_check_padding():
    with Place() as p:
        last = p.file("bf16_zero_pp_rank_7")
        values = {v["path"]: v["value"]
                  for v in run_json("show", last)["values"]}
        pads = json.loads(values["optimizer_state_dict/group_paddings"])
        group = max(range(len(pads)), key=lambda g: pads[g])
        assert pads[group] > 0
        name = f"optimizer_state_dict/base_optimizer_state/state/{group}/" \
            "exp_avg_sq"
        n = tensors(last)[name]["shape"][0]
        assert sections_of(run_json("check", p.step))["padding"]["elements"]
        patch(last, name, n - 1, struct.pack("<f", 0.5))
        s = sections_of(run_json("check", p.step, status=1))["padding"]
        assert s["status"] == "WRONG" and name in s["problems"][0]["problem"]


def test_check_says_what_it_left_out():
    with Place() as p:
        assert "--crc" in run("check", p.step)
        assert "not compared" not in run("check", "--crc", p.step)


def test_check_missing_and_cut():
    with Place() as p:
        path = p.file("bf16_zero_pp_rank_4")
        whole = open(path, "rb").read()
        os.unlink(path)
        j = run_json("check", p.step, status=1)
        assert not j["ok"]
        assert os.path.basename(path) in json.dumps(j)
        open(path, "wb").write(whole[:len(whole) // 2])
        j = run_json("check", p.step, status=1)
        assert os.path.basename(path) in json.dumps(j)


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


def main():
    global CKPTFS, ROOT
    CKPTFS, ROOT = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    if not os.path.isdir(f"{ROOT}/tests/data/{GOLDEN}"):
        print("no golden steps in tests/data")
        sys.exit(77)
    tests = {n: f for n, f in globals().items() if n.startswith("test_")}
    for name in sys.argv[3:] or tests:
        print(name, flush=True)
        tests[name]()


if __name__ == "__main__":
    main()
