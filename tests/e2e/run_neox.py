#!/usr/bin/env python3
"""Views of steps that GPT-NeoX itself wrote (tests/data/neox.tar.xz).

All directories of one model hold one logical state.  The view of each at the
topology of each other must be what GPT-NeoX wrote there, or be refused where
the checkpoint does not decide it.

    run_neox.py                 pairs that cover all pairs of topologies' parts
    run_neox.py --all           every pair (a long run)
    run_neox.py --only SRC TGT  these
    run_neox.py --model NAME    every pair of one model
    run_neox.py --table         also write what came out into PAIRS.md
"""
import argparse
import concurrent.futures
import functools
import os
import shutil
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from oracle import compare, product  # noqa: E402
import neox_old  # noqa: E402
import neox_pairs  # noqa: E402
import neox_table  # noqa: E402

TAG = "global_step2"
DIFFS = 6  # that are shown of a pair


def view_of(root, src, s, t):
    """The name of the view; one with options is given a name first."""
    asked, options = neox_pairs.request(s, t), neox_pairs.options(s, t)
    if not options:
        return f"@{asked}"
    name = "named-" + asked.replace("zero", "z").replace("vocab", "v") \
        + "".join(c for c in options[1] if c.isalpha())
    done = product.run("view", "add", f"{root}/{src}", name, "--as", asked,
                       *options)
    if done.returncode:
        raise product.Refused(done.stderr.strip())
    return f"@{name}"


def differences(root, tgt, s, t, got):
    for name in (".ckptfs-export.json", "latest"):
        if os.path.exists(f"{got}/{name}"):
            os.unlink(f"{got}/{name}")
    truth = f"{root}/{tgt}/{TAG}"
    if t["writer"] == "neox1":
        return neox_old.differences(tgt, truth, got)
    lines = compare.compare_dirs(truth, got)
    return [x for x in lines if not neox_pairs.known(s, t, x)]


def check(root, names, pair):
    """("ok" | "refused" | "FAILED", lines)"""
    src, tgt = pair
    s, t = names[src], names[tgt]
    out = tempfile.mkdtemp(prefix="view-", dir=root)
    why = neox_pairs.why_not(s, t)
    try:
        product.export(f"{root}/{src}/{TAG}/{view_of(root, src, s, t)}",
                       f"{out}/step")
    except product.Refused as err:
        if why and why in str(err):
            return "refused", [why]
        return "FAILED", [str(err)]
    else:
        if why:
            return "FAILED", [f"not refused: {why}"]
        lines = differences(root, tgt, s, t, f"{out}/step")
        return ("FAILED", lines[:DIFFS]) if lines else ("ok", [])
    finally:
        shutil.rmtree(out)


def run(pairs, names, jobs):
    """{pair: result}; what fails is printed as it is found."""
    root = tempfile.mkdtemp(prefix="ckptfs-neox-")
    os.environ["CKPTFS_CACHE_DIR"] = f"{root}/registry"
    # the target's files are read again and again
    plain = compare.load
    kept = functools.lru_cache(64)(plain)
    compare.load = lambda path: (plain if "/view-" in path else kept)(path)
    results = {}
    try:
        with tarfile.open(os.path.join(neox_pairs.DATA,
                                       "neox.tar.xz")) as tar:
            tar.extractall(root, filter="data")
        with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
            done = pool.map(functools.partial(check, root, names), pairs,
                            chunksize=8)
            for pair, (result, lines) in zip(pairs, done):
                results[pair] = result, lines
                if result == "FAILED":
                    name = neox_pairs.request(*(names[p] for p in pair))
                    print(f"FAILED   {pair[0]} @{name} = {pair[1]}",
                          *lines, sep="\n    ", flush=True)
    finally:
        shutil.rmtree(root)
    return results


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--only", nargs=2, metavar=("SRC", "TGT"))
    ap.add_argument("--model")
    ap.add_argument("--table", action="store_true")
    ap.add_argument("--jobs", type=int, default=os.cpu_count())
    args = ap.parse_args()
    names = neox_pairs.manifest()
    everything = neox_pairs.all_pairs(names)
    if args.only:
        pairs = [tuple(args.only)]
    elif args.model:
        pairs = [p for p in everything if names[p[0]]["model"] == args.model]
    elif args.all:
        pairs = everything
    else:
        pairs = neox_pairs.covering(names, everything)
    pairs.sort(key=lambda p: (p[1], p[0]))
    start = time.monotonic()
    results = run(pairs, names, args.jobs)
    if args.table:
        neox_table.write(names, neox_pairs.covering(names, everything),
                         results)
    bad = sum(r == "FAILED" for r, _ in results.values())
    refused = sum(r == "refused" for r, _ in results.values())
    print(f"{len(results) - bad} passed, {bad} failed ({refused} refused as "
          f"they must be) in {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
