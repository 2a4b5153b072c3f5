"""check --against: what would clash on resuming.  See neox_place.py."""
import json
import sys

from cli_place import run, run_json
from neox_place import STEP, Runs, main

GPT2 = "gpt2-bf16_tp2-pp4-dp1"
PYTHIA = "pythia-fp16_tp4-pp2-dp1"
NEOX2 = "gpt2-fp16-neox2_tp2-pp1-dp2"  # a single stage, which lies in sequence


def found(path, config, status):
    j = json.loads(run("check", path, "--against", config, "--json",
                       status=status))
    return {c["name"]: {p["object"]: p["problem"] for p in c["problems"]}
            for c in j["checks"]}


def test_own_configuration():
    with Runs(GPT2, PYTHIA, NEOX2) as r:
        for name in GPT2, PYTHIA, NEOX2:
            step = f"{r.top}/{name}/{STEP}"
            j = found(step, f"{step}/configs/neox.yml", 0)
            assert set(j) == {"model", "scheduler", "layout", "batch"}, j


def test_clashes():
    with Runs(GPT2) as r:
        step = f"{r.top}/{GPT2}/{STEP}"
        own, new = f"{step}/configs/neox.yml", f"{r.top}/new.yml"
        text = open(own).read()
        for old, to, section, key, words in (
                ("num_layers: 4", "num-layers: 6", "model", "num_layers",
                 ("4", "6")),
                ("model_parallel_size: 2\n", "", "model",
                 "model_parallel_size", ("2", "1")),
                ("min_lr: 0.0001", "min_lr: 0.0002", "scheduler", "min_lr",
                 ("0.0001", "0.0002")),
                ("cosine", "constant", "scheduler", "lr_decay_style",
                 ("cosine", "constant")),
                ("pipe_parallel_size: 4", "pipe_parallel_size: 2", "layout",
                 "pipe_parallel_size", ("4", "2")),
                ("stage: 1", "stage: 3", "layout", "zero_optimization.stage",
                 ("1", "3"))):
            assert old in text, old
            open(new, "w").write(text.replace(old, to))
            j = found(step, new, 1)
            assert sum(map(len, j.values())) == 1, (old, j)
            for word in words:
                assert word in j[section][key], (old, j)
        # the saved one is taken, or not looked at
        open(new, "w").write(text.replace("cosine", "constant") +
                             "override_lr_scheduler: true\n")
        found(step, new, 0)
        # 1 and 2 load each other
        open(new, "w").write(text.replace("stage: 1", "stage: 2"))
        found(step, new, 0)


def test_batch():
    with Runs(GPT2) as r:
        step, new = f"{r.top}/{GPT2}/{STEP}", f"{r.top}/ds.json"
        batch = run_json("check", step, "--against",
                         f"{step}/configs/neox.yml")["checks"][-1]
        assert batch["global_batch"] == 4

        def with_batch(view, status, **config):
            open(new, "w").write(json.dumps({
                **config, "bf16": {"enabled": True},
                "zero_optimization": {"stage": 1}}))
            return found(step + view, new, status)["batch"]

        micro, steps = ("train_micro_batch_size_per_gpu",
                        "gradient_accumulation_steps")
        with_batch("", 0, **{micro: 2, steps: 2})
        with_batch("", 0, **{micro: 4})
        j = with_batch("", 1, **{micro: 2, steps: 8})
        assert ": 2 keeps it" in j[steps], j
        j = with_batch("", 1, **{micro: 3, steps: 1})
        assert "cannot make" in j[micro], j
        with_batch("", 1, train_batch_size=8)
        # other ranks, the same batch
        with_batch("/@dp2", 0, **{micro: 2, steps: 1})
        j = with_batch("/@dp2", 1, **{micro: 1, steps: 1})
        assert ": 2 keeps it" in j[steps], j
        j = with_batch("/@dp2", 1, train_batch_size=4,
                       **{micro: 1, steps: 1})
        assert "2" in j["data-parallel ranks"], j
        # sizes that follow have to come out even
        j = with_batch("/@dp3", 1, train_batch_size=4)
        assert "divide" in j["data-parallel ranks"], j
        with_batch("/@dp2", 0, train_batch_size=4)
        j = with_batch("/@dp2", 1, train_batch_size=4, **{micro: 4})
        assert "cannot make" in j[micro] and ": 2 can" in j[micro], j
        j = with_batch("/@dp2", 1, train_batch_size=4, **{steps: 4})
        assert ": 2 can" in j[steps], j
        # GPT-NeoX accumulates once where nothing says otherwise
        text = open(f"{step}/configs/neox.yml").read()
        line, = [x for x in text.splitlines() if x.startswith(steps)]
        open(new, "w").write(text.replace(line, "train_batch_size: 4"))
        j = found(step, new, 1)["batch"]
        assert ": 2 keeps it" in j[steps], j


def test_what_is_not_said():
    with Runs(GPT2) as r:
        step, new = f"{r.top}/{GPT2}/{STEP}", f"{r.top}/ds.json"
        open(new, "w").write(json.dumps({"train_batch_size": 4}))
        j = found(step, new, 1)["layout"]
        assert "which is 0" in j["zero_optimization.stage"], j
        assert "f32" in j["precision"], j
        # a launcher says it later
        open(new, "w").write(json.dumps({
            "train_batch_size": "auto", "bf16": {"enabled": "auto"},
            "zero_optimization": {"stage": 1}}))
        found(step, new, 0)
        # bf16, as it was said once
        text = open(f"{step}/configs/neox.yml").read()
        assert "precision: bfloat16\n" in text
        open(new, "w").write(
            text.replace("precision: bfloat16\n", "").replace(
                "bf16:\n  enabled: true\n",
                "fp16:\n  enabled: true\n  type: bfloat16\n"))
        found(step, new, 0)


def test_several_files():
    """What GPT-NeoX is given together is one configuration."""
    with Runs(GPT2) as r:
        step, a, b = f"{r.top}/{GPT2}/{STEP}", f"{r.top}/a", f"{r.top}/b"
        lines = open(f"{step}/configs/neox.yml").read().splitlines(True)
        theirs = [x for x in lines if x.startswith("tokenizer_type")]
        open(a, "w").write("".join(x for x in lines if x not in theirs))
        open(b, "w").write("".join(theirs))
        assert "tokenizer_type" in found(step, a, 1)["model"]
        run("check", step, "--against", a, "--against", b)
        run("check", step, "--against", b, "--against", a)
        run("check", step, "--against", a, "--against", a, status=2)
        assert "is in a file before it" in run.stderr, run.stderr


def test_universal():
    with Runs(GPT2) as r:
        step = f"{r.top}/{GPT2}/{STEP}"
        own = f"{step}/configs/neox.yml"
        j = found(f"{step}/@universal", own, 0)
        assert j["layout"] == {}, j
        run("export", f"{step}/@universal", f"{r.top}/disk")
        found(f"{r.top}/disk", own, 0)
        run("check", f"{step}/@universal")
        run("check", f"{r.top}/disk")


def test_refused():
    with Runs(GPT2) as r:
        step, new = f"{r.top}/{GPT2}/{STEP}", f"{r.top}/new.yml"
        for text, words in (("a: 1\nb: c: d\n", "line 2"),
                            ("[1]", "no configuration")):
            open(new, "w").write(text)
            run("check", step, "--against", new, status=2)
            assert words in run.stderr and new in run.stderr, run.stderr
        run("check", step, "--against", f"{r.top}/none", status=2)
        assert "No such file" in run.stderr


if __name__ == "__main__":
    sys.exit(main(globals()))
