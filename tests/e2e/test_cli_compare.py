"""The golden steps compared: diff and check.  See cli_place.py."""
import json
import os
import shutil
import struct
import sys

from cli_golden import element_at, golden_runs, patch, tensors
from cli_place import GOLDEN, ROOT, STEP, Place, main, run, run_json


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


if __name__ == "__main__":
    sys.exit(main(globals()))
