"""A store by its verbs: made, looked at, pruned, resolved.

See cli_place.py.
"""
import os
import subprocess
import sys
import time

import cli_man
from cli_place import CKPTFS, ROOT, STEP, has_fuse, main, run, run_json
from cli_store import Place, put

VERBS = ("init du stats prune pin unpin gc scrub fsck import send receive "
         "resolve").split()


def test_help_and_man():
    problems = []
    for verb in VERBS:
        page = f"{ROOT}/fs/cli/man/ckptfs-{verb}.1"
        problems += cli_man.compare(CKPTFS, verb, page)
    assert not problems, "\n".join(problems)


def test_usage_errors():
    for args in (["init"], ["init", "a", "b"], ["init", "--sync", "0", "x"],
                 ["init", "--marker", "a/b", "x"], ["du"], ["du", "a", "b"],
                 ["stats"], ["prune", "x"], ["prune", "--keep-last", "0", "x"],
                 ["prune", "--newer-than", "3", "x"],
                 ["prune", "--newer-than", "3q", "x"], ["pin"], ["unpin"],
                 ["gc"], ["scrub"], ["fsck"], ["import", "x"], ["resolve"],
                 ["send"], ["send", "--json", "x"], ["receive"]):
        assert run(*args, status=2) == ""
        assert "--help" in run.stderr
    # what is wrong is said with its name
    for args, words in ((["gc", "--turbo", "x"], "--turbo"),
                        (["prune", "--keep-last"], "--keep-last"),
                        (["prune", "--keep-every", "3x", "y"],
                         "--keep-every '3x': a whole number"),
                        (["init", "--sync", "9999", "x"],
                         "--sync '9999': 1 to 3600"),
                        (["export", "--all", "--tree", "x", "y"], "--tree")):
        assert run(*args, status=2) == ""
        assert words in run.stderr, run.stderr


def test_init():
    with Place() as p:
        run("init", p.store, status=1)
        run("init", p.run, status=1)
        for verb in ("du", "stats", "gc", "scrub", "fsck"):
            assert run(verb, p.run, status=1) == ""
            assert "store" in run.stderr
        assert run_json("init", f"{p.top}/s2", "--marker", "done")
        assert run_json("du", f"{p.top}/s2")["entries"] == []


def test_init_in_a_store():
    with Place() as p:
        for place in (f"{p.store}/sub", f"{p.store}/packs/sub",
                      f"{p.top}/link/sub"):
            if not os.path.islink(f"{p.top}/link"):
                os.symlink(p.store, f"{p.top}/link")
            run("init", place, status=1)
            assert "lies in the store" in run.stderr, run.stderr
            assert not os.path.exists(place)
        for place in ("../s3", f"{p.store}/../s4"):
            done = subprocess.run([CKPTFS, "init", place], cwd=p.store,
                                  check=True, capture_output=True)
            assert done.stdout
        assert run_json("du", f"{p.top}/s3")["entries"] == []
        run("fsck", f"{p.store}/../s4")
        if has_fuse():
            with p.mounted() as m:
                # its root too, which is an empty directory
                for place in (f"{m}/sub", m, f"{m}/.", f"{p.top}/link"):
                    run("init", place, status=1)
                    want = "is a store already" if "link" in place else \
                        "lies in the store"
                    assert want in run.stderr, run.stderr
                    assert os.listdir(m) == []


def test_without_its_description():
    """A store that lost ckptfs.json is no directory of packs to look at."""
    with Place() as p:
        run("import", p.store, p.run)
        os.rename(f"{p.store}/ckptfs.json", f"{p.top}/kept")
        verbs = [["ls", f"{p.store}/run"], ["du", p.store], ["fsck", p.store],
                 ["export", p.store, f"{p.top}/out"], ["init", p.store],
                 ["import", p.store, p.run]]
        if has_fuse():
            verbs += [["mount", p.store, p.mnt],
                      ["mount", "-o", "ro", p.store, p.mnt]]
        for verb in verbs:
            run(*verb, status=1)
            assert run.stderr.count("\n") == 1, run.stderr
            if verb[0] == "init":
                assert "is a store already" in run.stderr, run.stderr
            else:
                assert "ckptfs.json is missing" in run.stderr, run.stderr
                assert "uuid" in run.stderr, run.stderr
        assert not os.path.ismount(p.mnt)
        os.rename(f"{p.top}/kept", f"{p.store}/ckptfs.json")
        run("diff", f"{p.store}/run", p.run)


def test_wrong_places():
    """One line that names what was named, and what to do."""
    with Place() as p:
        run("import", p.store, p.run)
        inside = f"{p.store}/run/{STEP}"
        for verb in ("gc", "scrub", "fsck", "stats"):
            assert run(verb, inside, status=1) == ""
            assert inside in run.stderr and "name " in run.stderr
        for args in (["du", f"{p.store}/none"], ["send", f"{p.store}/none"],
                     ["pin", f"{p.store}/none"],
                     ["prune", "--keep-last", "1", f"{p.store}/none"],
                     ["export", f"{p.store}/none", f"{p.top}/out"],
                     ["ls", f"{p.store}/none"]):
            assert run(*args, status=1) == ""
            assert run.stderr.count("none") == 1, run.stderr
        for source in (p.store, f"{p.store}/packs", f"{p.store}/."):
            run("import", f"{p.store}/x", source, status=1)
            assert "outside" in run.stderr
        # below what is imported it is passed over
        run("import", f"{p.store}/all", p.top)
        here = run_json("du", f"{p.store}/all/{os.path.basename(p.top)}")
        assert {e["name"] for e in here["entries"]} - {"cache"} == \
            {"mnt", "run"}, here
        assert not os.path.exists(f"{p.top}/out")
        run("fsck", p.store)


def test_du_and_stats():
    with Place() as p:
        p.make_steps(8)
        with open(f"{p.run}/{STEP}/notes", "wb") as f:
            f.write(os.urandom(300000))
        run("import", p.store, p.run)
        du = run_json("du", f"{p.store}/run")
        by = {e["name"]: e for e in du["entries"]}
        size = sum(os.path.getsize(f"{p.run}/{STEP}/{n}")
                   for n in os.listdir(f"{p.run}/{STEP}"))
        assert by[STEP]["apparent_bytes"] == size
        assert 300000 <= by[STEP]["unique_bytes"] < 310000, by
        assert by["global_step8"]["unique_bytes"] < 4096
        assert by["global_step8"]["shared_bytes"] > 4096
        total = du["total"]
        # nothing is outside of the run: all of it would be freed
        assert total["unique_bytes"] == total["stored_bytes"], total
        assert total["unique_bytes"] > sum(
            e["unique_bytes"] for e in du["entries"])
        assert total["stored_bytes"] < by[STEP]["stored_bytes"] + \
            by["global_step8"]["stored_bytes"]
        # what the other step uses as well stays when this one goes
        inside = run_json("du", f"{p.store}/run/global_step8")["total"]
        assert inside["unique_bytes"] == by["global_step8"]["unique_bytes"]
        assert inside["stored_bytes"] == by["global_step8"]["stored_bytes"]
        one = run_json("du", f"{p.store}/run/{STEP}/notes")["entries"]
        assert [e["name"] for e in one] == ["notes"]
        assert one[0]["unique_bytes"] >= 300000
        s = run_json("stats", p.store)
        assert s["steps"] == 2 and s["unreadable_steps"] == 0
        roles = {r["role"]: r for r in s["roles"]}
        assert set(roles) == {"weights", "master", "moments", "other"}
        for key in ("logical_bytes", "unique_bytes", "stored_bytes"):
            assert sum(r[key] for r in roles.values()) == s[key]
        # fp32 master and two moments beside bf16 weights, twice
        assert roles["moments"]["logical_bytes"] == \
            2 * roles["master"]["logical_bytes"]
        assert roles["master"]["logical_bytes"] == \
            2 * roles["weights"]["logical_bytes"]
        assert 1.9 < roles["master"]["dedup_ratio"] <= 2.0
        assert s["logical_bytes"] == total["apparent_bytes"]
        assert run("du", p.store) and run("stats", p.store)


def test_prune():
    with Place() as p:
        p.make_steps(1, 2, 3, 4, 10)
        os.mkdir(f"{p.run}/logs")
        old = time.time() - 86400 * 40
        for step in ("global_step1", "global_step2", "global_step3",
                     "global_step4"):
            for name in os.listdir(f"{p.run}/{step}"):
                os.utime(f"{p.run}/{step}/{name}", (old, old))
            os.utime(f"{p.run}/{step}", (old, old))
        broken = f"{p.run}/global_step3"
        name = next(n for n in os.listdir(broken) if "optim" in n)
        os.remove(f"{broken}/{name}")
        os.utime(broken, (old, old))
        run("import", p.store, p.run)
        run("pin", f"{p.store}/run/global_step1")
        run("pin", f"{p.store}/run/nothing", status=1)
        run("unpin", f"{p.store}/run/global_step2", status=1)
        assert run("pin", p.store) == "run/global_step1\n"

        def pruned(*args):
            r = run_json("prune", *args, f"{p.store}/run")
            assert all(s["reason"] for s in r["steps"])
            return [s["name"] for s in r["steps"] if not s["keep"]]

        assert pruned("--keep-last", "2", "--dry-run") == \
            ["global_step2", "global_step3", "global_step4"]
        assert pruned("--keep-last", "1", "--keep-every", "2",
                      "--dry-run") == ["global_step3"]
        assert pruned("--newer-than", "30d", "--dry-run") == \
            ["global_step2", "global_step3", "global_step4"]
        assert pruned("--newer-than", "1w", "--keep-every", "4") == \
            ["global_step2", "global_step3"]
        left = {e["name"] for e in run_json("du", f"{p.store}/run")["entries"]}
        assert left == {"global_step1", "global_step4", STEP,
                        "global_step10", "latest", "logs"}, left
        run("unpin", f"{p.store}/run/global_step1")
        out = run("prune", "--keep-last", "1", f"{p.store}/run")
        assert "latest names it" in out and "ckptfs gc" in out
        left = {e["name"] for e in run_json("du", f"{p.store}/run")["entries"]}
        assert left == {STEP, "global_step10", "latest", "logs"}, left
        run("prune", "--keep-last", "1", p.store, status=1)
        assert "not a run" in run.stderr
        run("fsck", p.store)


def test_resolve():
    with Place() as p:
        empty = f"{p.top}/empty"
        os.mkdir(empty)
        assert run("resolve", p.run) == f"{p.run}/{STEP}\n"
        assert run("resolve", "--if-exists", empty) == ""
        assert run("resolve", "--if-exists", f"{p.top}/not-there") == ""
        run("resolve", empty, status=1)
        assert run("resolve", empty, p.run + "/") == f"{p.run}/{STEP}\n"
        assert run("resolve", "--name", p.run, empty) == f"{STEP}\n"
        p.make_steps(3, 9)
        run("import", p.store, p.run)
        name = next(n for n in os.listdir(f"{p.run}/{STEP}") if "optim" in n)
        os.remove(f"{p.run}/{STEP}/{name}")
        assert run("resolve", "--name", p.run) == "global_step3\n"
        os.remove(f"{p.run}/latest")
        assert run_json("resolve", p.run)["step"] == "global_step9"
        s = f"{p.store}/run"
        assert run("resolve", s) == f"{s}/{STEP}\n"
        assert run("resolve", "--if-exists", f"{p.store}/none", s) == \
            f"{s}/{STEP}\n"
        run("resolve", p.store, status=1)


def make_layouts(top):
    """Runs as other trainers leave them; of each the newest is not whole."""
    old = time.time() - 86400 * 9
    for n, tag in enumerate(("b", "step_30", "step_20", "step_10")):
        put(f"{top}/nxd/{tag}/checkpoint", "1", old + n * 100)
        put(f"{top}/nxd/{tag}/model/dp_rank_00_tp_rank_00_pp_rank_00.pt")
        if n < 3:
            put(f"{top}/nxd/{tag}/done", "1", old + n * 100 + 50)
    for n in (100, 200, 300):
        for rank in range(2):
            put(f"{top}/megatron/iter_{n:07d}/mp_rank_0{rank}/"
                "model_optim_rng.pt")
        put(f"{top}/mcore/iter_{n:07d}/.metadata")
        put(f"{top}/mcore/iter_{n:07d}/metadata.json", "{}")
        put(f"{top}/mcore/iter_{n:07d}/__0_0.distcp")
    os.remove(f"{top}/megatron/iter_0000200/mp_rank_01/model_optim_rng.pt")
    put(f"{top}/megatron/latest_checkpointed_iteration.txt", "200")
    put(f"{top}/mcore/latest_checkpointed_iteration.txt", "200\n")
    for n in (5, 60, 7):
        for i in (1, 2):
            put(f"{top}/trainer/checkpoint-{n}/model-0000{i}-of-00002"
                ".safetensors")
        put(f"{top}/trainer/checkpoint-{n}/trainer_state.json", "{}")
    put(f"{top}/trainer/runs/events")
    os.remove(f"{top}/trainer/checkpoint-60/model-00002-of-00002.safetensors")
    for n in (10, 9, 11):
        put(f"{top}/levanter/step-{n}/manifest.ocdbt")
        if n < 11:
            put(f"{top}/levanter/step-{n}/metadata.json", "{}")
        put(f"{top}/dcp/{n}/__0_0.distcp")
        if n < 11:
            put(f"{top}/dcp/{n}/.metadata")
    return {"nxd": "step_20", "megatron": "iter_0000100",
            "mcore": "iter_0000200", "trainer": "checkpoint-7",
            "levanter": "step-10", "dcp": "10"}


def test_other_trainers():
    """Whole or not by each trainer's own rule, and what keep-last keeps."""
    with Place() as p:
        top = f"{p.top}/runs"
        want = make_layouts(top)
        run("import", p.store, f"{top}/.")
        for name, step in want.items():
            assert run("resolve", "--name", f"{top}/{name}") == f"{step}\n"
            assert run("resolve", "--name", f"{p.store}/{name}") == f"{step}\n"
        # a result directory that has nothing yet comes first
        os.mkdir(f"{top}/results")
        assert run("resolve", "--if-exists", f"{top}/results",
                   f"{top}/nxd") == f"{top}/nxd/step_20\n"
        put(f"{top}/results/step_1/checkpoint")
        put(f"{top}/results/step_1/model/x")
        assert run("resolve", "--if-exists", f"{top}/results") == ""
        put(f"{top}/results/step_1/done")
        assert run("resolve", f"{top}/results", f"{top}/nxd") == \
            f"{top}/results/step_1\n"
        gone = {"nxd": ["b", "step_30"], "megatron": [],
                "mcore": ["iter_0000100"],
                "trainer": ["checkpoint-5"], "levanter": ["step-9"],
                "dcp": ["9"]}
        for name, steps in gone.items():
            r = run_json("prune", "--keep-last", "1", f"{p.store}/{name}")
            assert [s["name"] for s in r["steps"] if not s["keep"]] == steps, r
            assert r["removed"] == len(steps)
            assert run("resolve", "--name", f"{p.store}/{name}") == \
                f"{want[name]}\n"
        run("prune", "--keep-last", "1", f"{p.store}/trainer/runs", status=1)
        run("fsck", p.store)


if __name__ == "__main__":
    sys.exit(main(globals()))
