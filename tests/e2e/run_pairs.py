#!/usr/bin/env python3
"""Views against what DeepSpeed itself wrote, pairwise over all options.

For each pair the framework writes one logical state at the source's and at
the target's topology; the view of the source must equal the target.

  run_pairs.py            the subset that CI runs (marked in PAIRS.md)
  run_pairs.py --all      every pair
  run_pairs.py --mount    read through a mount instead of `ckptfs export`
  run_pairs.py --table    also write PAIRS.md with the results
  run_pairs.py --random 50 [--seed 1]    pairs drawn at random instead
"""
import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from oracle import compare, pairs, product, truth  # noqa: E402
from oracle.config import TAG  # noqa: E402
import neox_table  # noqa: E402

CI_EVERY = 3  # every third pair and all the extra ones


def in_ci(number, total):
    return number % CI_EVERY == 1 or number > total - len(pairs.EXTRA_SOURCES)


def view_of(source, view, work, mnt, number):
    """The step directory of the view; raises Refused."""
    if mnt:
        step = os.path.join(mnt, source, view, TAG)
        try:
            os.listdir(step)
        except OSError as err:
            raise product.Refused(str(err)) from err
        return step
    out = os.path.join(work, f"view{number}")
    product.export(os.path.join(work, "runs", source, view), out)
    return os.path.join(out, TAG)


def check(number, s, t, work, mnt):
    """('ok' | 'refused' | 'FAILED', details)"""
    runs = os.path.join(work, "runs")
    truth.make(s, runs)
    want = os.path.join(truth.make(t, runs), TAG)
    refusal = pairs.why_refused(s, t)
    try:
        got = view_of(s.name(), pairs.view_name(s, t), work, mnt, number)
    except product.Refused as err:
        if refusal:
            return "refused", [refusal]
        return "FAILED", [f"refused: {err}"]
    if refusal:
        return "FAILED", [f"should have been refused: {refusal}"]
    lines = compare.compare_dirs(want, got)
    with open(os.path.join(os.path.dirname(got), "latest")) as f:
        latest = f.read().strip()
    if latest != TAG:
        lines.append(f"latest says {latest!r}")
    if not mnt:
        shutil.rmtree(os.path.dirname(got))
    return ("FAILED" if lines else "ok"), lines


def run(todo, work, use_mount):
    """[(number, result, details)]"""
    out = []
    runs = os.path.join(work, "runs")
    os.makedirs(runs, exist_ok=True)
    with contextlib.ExitStack() as stack:
        mnt = None
        if use_mount:
            mnt = stack.enter_context(
                product.mounted(runs, os.path.join(work, "mnt")))
        for number, s, t in todo:
            try:
                result, lines = check(number, s, t, work, mnt)
            except Exception as err:  # one broken pair must not hide others
                result, lines = "FAILED", [f"{type(err).__name__}: {err}"]
            print(f"{result:8} {number:3} {s.name()} "
                  f"{pairs.view_name(s, t)} = {t.topology_name()}",
                  flush=True)
            if result == "FAILED":
                for line in lines[:12]:
                    print("         ", line)
            out.append((number, result, lines))
    return out


def write_table(everything, results, how):
    done = {n: (r, d) for n, r, d in results}
    counts = [r for _, r, _ in results]
    _, neox = neox_table.parts()
    with open(neox_table.PAIRS, "w") as f:
        f.write(pairs.table_head(len(everything), how, counts))
        for number, s, t in everything:
            result, lines = done.get(number, ("not run", []))
            note = lines[0] if lines and result != "ok" else ""
            note = note[:100].replace("|", "/")
            f.write(f"| {number} | {'x' if in_ci(number, len(everything)) else ''}"
                    f" | {s.model_name()} | {s.topology_name()} |"
                    f" `{pairs.view_name(s, t)}` | {t.topology_name()} |"
                    f" {result}{': ' if note else ''}{note} |\n")
        f.write(neox)


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--all", action="store_true", help="every pair")
    ap.add_argument("--mount", action="store_true")
    ap.add_argument("--table", action="store_true", help="write PAIRS.md")
    ap.add_argument("--random", type=int, metavar="N")
    ap.add_argument("--seed", type=int)
    ap.add_argument("--only", help="numbers, or a part of a name")
    ap.add_argument("--work", help="keep and reuse the directories here")
    args = ap.parse_args()
    why = product.why_fuse_is_missing() if args.mount else None
    if why:
        print(f"skipped: {why}\n0 passed, 0 failed, 1 skipped")
        return 0
    everything = [(i, s, t)
                  for i, (s, t) in enumerate(pairs.all_pairs(), 1)]
    todo = [p for p in everything if args.all or in_ci(p[0], len(everything))]
    if args.random:
        seed = int(time.time()) if args.seed is None else args.seed
        print(f"seed {seed}")
        everything = todo = [(i, s, t) for i, (s, t) in enumerate(
            pairs.random_pairs(args.random, seed), 1)]
    if args.only:
        todo = [(i, s, t) for i, s, t in everything
                if str(i) in args.only.split(",")
                or args.only in f"{s.name()} {t.name()}"]
    start = time.monotonic()
    work = args.work or tempfile.mkdtemp(prefix="ckptfs-pairs-")
    try:
        results = run(todo, os.path.abspath(work), args.mount)
    finally:
        if not args.work:
            shutil.rmtree(work)
    if args.table:
        write_table(everything, results,
                    "a mount" if args.mount else "`ckptfs export`")
    failed = sum(r == "FAILED" for _, r, _ in results)
    refused = sum(r == "refused" for _, r, _ in results)
    print(f"{len(results) - failed} passed, {failed} failed "
          f"({refused} refused as they must be) "
          f"in {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
