"""What the files of a step that GPT-NeoX wrote do not decide: refused, and the
reason names what decides it.  See neox_place.py."""
import json
import os
import shutil
import sys
import zipfile

from cli_place import run
from neox_place import STEP, Runs, main

PYTHIA = "pythia-fp16_tp4-pp2-dp1"
LLAMA = "llama-bf16_tp2-pp0-dp2-bf16opt"
PARAM = "gpt2-bf16_tp1-pp4-dp1-bf16opt-param"
ODD = "gpt2-fp16-odd_tp2-pp2-dp1"
SEQPAR = "gpt2-bf16-seqpar_tp2-pp1-dp1"
QKNORM = "gpt2-bf16-qknorm_tp2-pp1-dp1"
RPE = "gpt2-bf16-rpe-real_tp1-pp2-dp1"
RPE_TP = "gpt2-bf16-rpe_tp2-pp0-dp1"
ZERO0 = "pythia-fp16_tp2-pp2-dp1-z0"
BF16_ZERO0 = "gpt2-bf16_tp1-pp2-dp1-z0"


def why(r, run_name, view):
    run("show", f"{r.top}/{run_name}/{STEP}/@{view}", status=1)
    return run.stderr


def shown(r, run_name, view):
    run("show", f"{r.top}/{run_name}/{STEP}/@{view}")


def refused(run_name, view, *words, configs=True):
    with Runs(run_name) as r:
        if not configs:
            shutil.rmtree(f"{r.top}/{run_name}/{STEP}/configs")
        said = why(r, run_name, view)
        for word in words:
            assert word in said, (view, word, said)


def test_biases():
    refused(PYTHIA, "tp1-vocab61", "gpt_j_residual", "@biassum", "@biassame",
            configs=False)


def test_query_heads():
    refused(LLAMA, "tp1-vocab61", "attention.query_key_value", "@qkvparts",
            "@qkvheads")
    with Runs(LLAMA) as r:
        for way in ("qkvparts", "qkvheads"):
            shown(r, LLAMA, f"tp1-vocab61-{way}")


def test_vocabulary():
    refused(ODD, "tp1", "word_embeddings.weight", "@vocabN")
    # one that these rows cannot be of
    refused(ODD, "tp1-vocab20", "a vocabulary of 20")


def test_stages():
    refused(PARAM, "pp2", "--boundaries", "--partition-method", configs=False)


def test_copies_that_differ():
    """Row biases under sequence parallelism: nobody keeps them equal."""
    refused(SEQPAR, "tp1-vocab61-biassame", "attention.dense.bias",
            "ranks 0 and 1", "differ", "--rules")
    # its configuration says that they are no shares
    refused(SEQPAR, "tp1-vocab61-biassum", "gpt_j_residual", "--rules")


def test_other_models():
    """Another size is another model: no option makes one of it."""
    refused(QKNORM, "tp1-vocab61-biassame", "qk_layernorm",
            "query and key norms")
    refused(RPE, "pp1", "attention.rpe.weight", "drift apart")
    refused(RPE, "pp0", "attention.rpe.weight", "drift apart")
    refused(RPE_TP, "tp1-vocab61-biassame", "attention.rpe.weight",
            "relative positions")


def test_rule_that_cannot_be():
    with Runs(PYTHIA) as r:
        rules = f"{r.top}/rules.json"
        with open(rules, "w") as f:
            json.dump({"rules": [{"name": "attention.dense.bias",
                                  "is": "columns"}]}, f)
        r.add(PYTHIA, "cut", "tp1-vocab61", "--rules", rules)
        assert "attention.dense.bias" in why(r, PYTHIA, "cut")


def test_stage0_of_bf16_pipelines():
    refused(PARAM, "zero0", "zero0", "use zero1")
    refused(BF16_ZERO0, "pp1", "zero0", "use zero1")
    with Runs(BF16_ZERO0) as r:
        shown(r, BF16_ZERO0, "zero1-zeroopt-pp1")


def test_stage0_order():
    """Two layers with the same weights: whose moments are whose?"""
    with Runs(ZERO0) as r:
        step = f"{r.top}/{ZERO0}/{STEP}"
        shown(r, ZERO0, "zero1")
        # one file twice: layer 4 is now layer 3's in content
        shutil.copy(f"{step}/layer_03-model_00-model_states.pt",
                    f"{step}/layer_04-model_00-model_states.pt")
        said = why(r, ZERO0, "zero1")
        assert "stage 0" in said and "not certain" in said, said


def of_release(path, version):
    """The file as if that release had written it."""
    with zipfile.ZipFile(path) as old:
        records = [(i, old.read(i)) for i in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for info, data in records:
            if info.filename.endswith("/data.pkl"):
                assert b"0.19.8" in data
                data = data.replace(b"0.19.8", version)
            new.writestr(info.filename, data)


def test_clipping_unknown():
    """Stage 0 stores it, stage 3 does not: a release whose default is not
    known leaves it open."""
    source = "pythia-fp16_tp1-pp0-dp2-z3"
    with Runs(source) as r:
        step = f"{r.top}/{source}/{STEP}"
        shown(r, source, "zero0")
        for name in os.listdir(step):
            if name.endswith(".pt"):
                of_release(f"{step}/{name}", b"0.99.8")
        said = why(r, source, "zero0")
        assert "gradient_clipping" in said and "@zero1" in said, said
        shown(r, source, "zero1-zeroopt")


LAYERS = "llama-bf16_tp2-pp2-dp2"
OLDER = "global_step1"


def test_layer_files_missing():
    """A step that lacks one is not whole: an older one is taken instead."""
    ranks = [f"layer_0{{}}-model_0{t}-model_states.pt" for t in (0, 1)]
    for lost in ([ranks[1].format(3)], [r.format(3) for r in ranks],
                 [r.format(8) for r in ranks]):
        with Runs(LAYERS) as r:
            top = f"{r.top}/{LAYERS}"
            shutil.copytree(f"{top}/{STEP}", f"{top}/{OLDER}")
            assert run("resolve", top) == f"{top}/{STEP}\n"
            for name in lost:
                os.unlink(f"{top}/{STEP}/{name}")
            listed = {line.split()[0].rstrip("/"): line
                      for line in run("ls", top).splitlines() if line}
            assert "incomplete" in listed[STEP], listed
            assert "incomplete" not in listed[OLDER], listed
            assert run("resolve", top) == f"{top}/{OLDER}\n"
            for view in ("dp1", "tp1-vocab61"):
                said = why(r, LAYERS, view)
                assert f"{lost[0]} is missing" in said, said
            run("export", f"{top}/{STEP}/@dp1", f"{r.top}/out", status=1)
            assert f"{lost[0]} is missing" in run.stderr, run.stderr
            assert not os.path.exists(f"{r.top}/out")


def test_layer_file_lacks_a_tensor():
    with Runs(LAYERS) as r:
        path = f"{r.top}/{LAYERS}/{STEP}/layer_03-model_01-model_states.pt"
        with zipfile.ZipFile(path) as old:
            records = [(i, old.read(i)) for i in old.infolist()]
        with zipfile.ZipFile(path, "w") as new:
            for info, data in records:
                new.writestr(info, data.replace(b"mlp.linear1", b"mlp.linear9"))
        said = why(r, LAYERS, "tp1-vocab61")
        assert f"{os.path.basename(path)}: has no mlp.linear1.weight" in said, \
            said


if __name__ == "__main__":
    sys.exit(main(globals()))
