"""Named views with options, over steps that GPT-NeoX wrote: which stages a
pipeline gets, by whose rules parameters are cut.  See neox_place.py."""
import json
import os
import shutil
import sys

from cli_place import run, run_json
from neox_place import STEP, Runs, main

TYPE = "gpt2-bf16_tp2-pp4-dp1"
PARAM = "gpt2-bf16_tp1-pp4-dp1-bf16opt-param"
PYTHIA = "pythia-fp16_tp4-pp2-dp1"


def test_methods():
    with Runs(TYPE, PARAM) as r:
        r.add(TYPE, "p", "tp1-dp1-bf16opt-vocab61", "--partition-method",
              "parameters")
        r.same(TYPE, "p", PARAM)
        # its own configuration says so
        r.add(PARAM, "same", "tp2-zeroopt-vocab61")
        r.add(PARAM, "t", "tp2-zeroopt-vocab61", "--partition-method",
              "type:transformer|mlp")
        r.same(PARAM, "t", TYPE)
        j = run_json("view", "explain", f"{r.top}/{PARAM}/{STEP}/@t")
        assert j["options"] == {"partition_method": "type:transformer|mlp"}
        assert j["request"]["tp"] == {"value": "2", "origin": "request"}
        same = {f["name"]: f for f in run_json(
            "view", "explain", f"{r.top}/{PARAM}/{STEP}/@same")["files"]}
        assert same.keys() == {f["name"]: f for f in j["files"]}.keys()
        assert same != {f["name"]: f for f in j["files"]}


def test_boundaries():
    with Runs(TYPE, PARAM) as r:
        # the source's own number of stages, begun elsewhere
        r.add(PARAM, "b", "zeroopt-tp2-vocab61", "--boundaries", "0,3,5,6,9")
        r.same(PARAM, "b", TYPE)
        r.add(PARAM, "same", "tp1", "--boundaries", "0,3,5,6,9")
        j = run_json("view", "explain", f"{r.top}/{PARAM}/{STEP}/@same")
        assert not j["as_saved"]
        r.add(PARAM, "few", "pp2", "--boundaries", "0,3,5,6,9")
        assert "5 numbers, and 2 stages have 3" in r.refused(PARAM, "few")
        r.add(PARAM, "far", "pp2", "--boundaries", "0,4,12")
        assert "the last 9" in r.refused(PARAM, "far")
        r.add(PARAM, "none", "pp0", "--boundaries", "0,9")
        assert "are for pipelines" in r.refused(PARAM, "none")


def test_contradiction():
    with Runs(PARAM, TYPE) as r:
        step = f"{r.top}/{PARAM}/{STEP}"
        shutil.rmtree(f"{step}/configs")
        said = r.refused(PARAM, "pp2")
        assert "--partition-method" in said and "--boundaries" in said, said
        r.add(PARAM, "p", "pp2", "--partition-method", "parameters")
        run("show", f"{step}/@p")
        run("show", f"{step}/@pp0")  # asks nothing of stages
        # one that explains them
        shutil.rmtree(f"{r.top}/{TYPE}/{STEP}/configs")
        run("show", f"{r.top}/{TYPE}/{STEP}/@pp2")


def test_biases():
    """The configuration tells, rules overrule it, else it is asked."""
    with Runs(PYTHIA) as r:
        step = f"{r.top}/{PYTHIA}/{STEP}"
        run("export", f"{step}/@tp1-vocab61", f"{r.top}/config")
        run("export", f"{step}/@tp1-vocab61-biassum", f"{r.top}/sum")
        assert "gpt_j_residual" in r.refused(PYTHIA, "tp1-vocab61-biassame")
        rules = f"{r.top}/rules.json"
        with open(rules, "w") as f:
            json.dump({"rules": [
                {"name": "attention.dens.bias", "is": "same"}]}, f)
        r.add(PYTHIA, "typo", "tp1-vocab61", "--rules", rules)
        assert "rules[0]: no parameter is called attention.dens.bias" \
            in r.refused(PYTHIA, "typo")
        with open(rules, "w") as f:
            json.dump({"rules": [
                {"name": "attention.dense.bias", "is": "same"},
                {"name": "mlp.linear2.bias", "is": "same"}]}, f)
        r.add(PYTHIA, "alike", "tp1-vocab61", "--rules", rules)
        run("export", f"{step}/@alike", f"{r.top}/same")
        run("diff", f"{r.top}/config", f"{r.top}/sum")
        run("diff", f"{r.top}/config", f"{r.top}/same", status=1)
        config = f"{step}/configs/neox.yml"
        text = open(config).read()
        open(config, "w").write(text.replace("gpt_j_residual: true",
                                             "gpt-j-residual: false"))
        run("export", f"{step}/@tp1-vocab61", f"{r.top}/changed")
        run("diff", f"{r.top}/changed", f"{r.top}/same")
        open(f"{step}/configs/more.yml", "w").write("gpt_j_residual: true\n")
        assert "@biassum or @biassame" in r.refused(PYTHIA, "tp1-vocab61")
        shutil.rmtree(f"{step}/configs")
        assert "@biassum or @biassame" in r.refused(PYTHIA, "tp1-vocab61")


def test_rules():
    with Runs(PYTHIA) as r:
        step = f"{r.top}/{PYTHIA}/{STEP}"
        rules = f"{r.top}/rules.json"
        shutil.rmtree(f"{step}/configs")
        open(rules, "w").write(json.dumps({"rules": [
            {"name": "attention.dense.bias", "is": "sum"},
            {"name": "mlp.linear2.bias", "is": "sum"}]}))
        r.add(PYTHIA, "sum", "tp1-vocab61", "--rules", rules)
        os.unlink(rules)  # the registry has what it says
        run("export", f"{step}/@sum", f"{r.top}/rules")
        run("export", f"{step}/@tp1-vocab61-biassum", f"{r.top}/named")
        run("diff", f"{r.top}/rules", f"{r.top}/named")
        views = run_json("view", "list", f"{r.top}/{PYTHIA}")["views"]
        assert [v["options"]["rules"][1]["is"] for v in views
                if v["name"] == "sum"] == ["sum"]


def test_bad_files():
    with Runs(PYTHIA) as r:
        rules = f"{r.top}/rules.json"
        for text, words in (
                ('{"rules": [\n{"name": "a" "is": "rows"}]}', "line 2"),
                ('{"rules": [{"name": "a", "is": "cut"}]}', '"is"'),
                ('{"rule": []}', "rules"), ("", "line 1")):
            open(rules, "w").write(text)
            r.add(PYTHIA, "x", "tp1", "--rules", rules, status=1)
            assert words in run.stderr and rules in run.stderr, run.stderr
        r.add(PYTHIA, "x", "tp1", "--rules", f"{r.top}/none", status=1)
        assert "No such file" in run.stderr
        for option, value in (("--boundaries", "0,x"),
                              ("--boundaries", "4,9"),
                              ("--partition-method", "profile"),
                              ("--partition-generation", "0.12")):
            r.add(PYTHIA, "x", "pp2", option, value, status=1)
        assert run_json("view", "list", f"{r.top}/{PYTHIA}")["views"] == []


if __name__ == "__main__":
    sys.exit(main(globals()))
