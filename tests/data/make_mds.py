#!/usr/bin/env python3
"""Make the directories that Megatron-DeepSpeed itself writes (mds.tar.xz).

  make_mds.py --src SRC make OUT [PART OF A NAME ...]
  make_mds.py --src SRC load NAME:DIR ...
                      Megatron-DeepSpeed, at NAME's topology, loads the run
                      DIR, says what is not the logical state, and trains on
  make_mds.py pack OUT    mds.tar.xz and mds.json, beside this program

SRC has the trees that README.md names.
"""
import argparse
import dataclasses
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

WRITERS = {"bigscience": "bigscience-8387ae17",
           "deepspeedai": "deepspeedai-4efb479d",
           "deepspeedai-old": "deepspeedai-6acc370a"}
APEX = "apex-6424da3b"
LEFT_OUT = ("zero_to_fp32.py", "zero_to_torch.py")


@dataclasses.dataclass
class Case:
    model_name: str
    fork: str
    prec: str
    tp: int
    pp: int
    dp: int
    options: dict
    flags: tuple
    cls: str = "z1"
    vocab: int = 61
    divisor: int = 16
    layers: int = 4
    hidden: int = 16
    heads: int = 4

    @property
    def gated(self):
        return "swiglu" in self.flags

    def world(self):
        return self.tp * max(self.pp, 1) * self.dp

    def stage(self):
        return int(self.cls[1:])

    def name(self):
        return (f"{self.model_name}_tp{self.tp}-pp{self.pp}-dp{self.dp}"
                + (f"-{self.cls}" if self.cls != "z1" else ""))


MODELS = {
    "bloom": ("bigscience", "bf16",
              {"position_embedding_type": "alibi",
               "pp_partition_method": "type:transformer|embedding"},
              ("embed_layernorm",),
              "tp1-pp1-dp2 tp2-pp1-dp1 tp1-pp2-dp2 tp2-pp2-dp2 tp1-pp3-dp1"),
    "llama2": ("deepspeedai", "bf16",
               {"normalization": "rmsnorm", "ffn_hidden_size": 48},
               ("swiglu",
                "untie_embeddings_and_output_weights",
                "disable_bias_linear", "no_position_embedding"),
               "tp1-pp1-dp2 tp2-pp1-dp1 tp1-pp2-dp2 tp2-pp2-dp2 tp1-pp4-dp1"),
    "gqa": ("deepspeedai-old", "bf16",
            {"normalization": "rmsnorm", "ffn_hidden_size": 48,
             "num_key_value_heads": 2},
            ("swiglu", "use_rotary_position_embeddings",
             "untie_embeddings_and_output_weights",
             "disable_bias_linear", "no_position_embedding"),
            "tp1-pp1-dp1 tp2-pp2-dp1 tp2-pp1-dp2 tp1-pp0-dp2-z2 "
            "tp2-pp0-dp1 tp1-pp0-dp1"),
    "gpt": ("deepspeedai", "fp16", {}, (),
            "tp1-pp1-dp2 tp2-pp2-dp1"),
}


def every():
    for name, (fork, prec, options, flags, tops) in MODELS.items():
        for top in tops.split():
            kw = {}
            for item in top.split("-"):
                if item[2:].isdigit() and item[:2] in ("tp", "pp", "dp"):
                    kw[item[:2]] = int(item[2:])
                else:
                    kw["cls"] = item
            yield Case(name, fork, prec, options=options, flags=flags, **kw)


def trees(src, case):
    return os.path.join(src, WRITERS[case.fork]), os.path.join(src, APEX)


def one(args, case, out, load=None):
    """In this process: it can import one tree only."""
    import mds_rank
    mds_rank.import_megatron(*trees(args.src, case))
    from oracle import framework
    try:
        return framework.run(case.world(), mds_rank.run, case, out, load,
                             timeout=300)
    except framework.RankError as err:
        print("FAILED", case.name(), err, flush=True)
        return None


def cmd_make(args):
    failed = 0
    for case in every():
        if args.names and not any(x in case.name() for x in args.names):
            continue
        if os.fork():
            failed += os.wait()[1] != 0
            continue
        target = os.path.join(args.out, case.name())
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        start = time.monotonic()
        done = one(args, case, target)
        if done:
            print("ok", case.name(), *done[0]["losses"],
                  f"{time.monotonic() - start:.0f} s", flush=True)
        sys.stdout.flush()
        os._exit(not done)
    return failed


def cmd_load(args):
    failed = 0
    for pair in args.pairs:
        name, _, path = pair.partition(":")
        case = next(c for c in every() if c.name() == name)
        if os.fork():
            failed += os.wait()[1] != 0
            continue
        with tempfile.TemporaryDirectory(prefix="ckptfs-mds-") as tmp:
            done = one(args, case, tmp, os.path.abspath(path))
        wrong = sorted({w for r in done or () for w in r["wrong"]})
        if done:
            print("loaded", name, path, "iteration", done[0]["iteration"],
                  len(wrong), "have other values", *wrong[:4], "- losses",
                  *done[0]["losses"], flush=True)
        sys.stdout.flush()
        os._exit(not done or bool(wrong))
    return failed


def cmd_pack(args):
    """The same directories always give the same bytes."""
    def plain(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return None if os.path.basename(info.name) in LEFT_OUT else info

    manifest = {}
    with tarfile.open(os.path.join(HERE, "mds.tar.xz"), "w:xz",
                      preset=9) as tar:
        for case in every():
            tar.add(os.path.join(args.out, case.name(), "run"), case.name(),
                    filter=plain)
            manifest[case.name()] = {
                "model": case.model_name, "writer": WRITERS[case.fork],
                "tp": case.tp, "pp": case.pp, "dp": case.dp,
                "class": case.cls, "precision": case.prec, "vocab": case.vocab}
    with open(os.path.join(HERE, "mds.json"), "w") as f:
        lines = [f"{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}"
                 for name, entry in manifest.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


def main():
    ap = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--src", default=".", type=os.path.abspath)
    sub = ap.add_subparsers(dest="verb", required=True)
    for verb in ("make", "pack"):
        p = sub.add_parser(verb)
        p.add_argument("out", type=os.path.abspath)
        p.add_argument("names", nargs="*")
    sub.add_parser("load").add_argument("pairs", nargs="+")
    args = ap.parse_args()
    return globals()[f"cmd_{args.verb}"](args)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
