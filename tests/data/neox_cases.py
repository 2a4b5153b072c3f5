"""The models and topologies of which GPT-NeoX's truth is made.

A model is a logical state: all directories of one model hold the same one.
A topology is what a view may change.  MODEL_TOPOLOGY names a directory, such
as llama-bf16_tp2-pp1-dp2-bf16opt; pp0 is NeoX's sequential model.
"""
import dataclasses

GLOBAL_BATCH = 4
STEPS = 2  # real ones before the state is set; the tag says so
TAG = f"global_step{STEPS}"

FAMILIES = {
    # grouped queries, gated MLP, no biases
    "llama": dict(norm="rmsnorm", pos_emb="rotary", num_attention_heads=8,
                  num_kv_heads=4, activation="swiglu", no_weight_tying=True,
                  use_bias_in_attn_linear=False, use_bias_in_mlp=False,
                  mlp_multiple_of=24),
    # biases of the row-parallel layers are partial
    "pythia": dict(norm="layernorm", pos_emb="rotary", num_attention_heads=4,
                   gpt_j_residual=True, no_weight_tying=True,
                   output_layer_parallelism="column"),
    # learned positions, the embedding tied at both ends of the pipeline
    "gpt2": dict(norm="layernorm", pos_emb="learned", num_attention_heads=4,
                 no_weight_tying=False),
}


@dataclasses.dataclass(frozen=True)
class Model:
    family: str
    prec: str
    options: tuple = ()  # keys of the YAML file
    vocab: int = 61
    divisor: int = 16
    padding: str = "trained"  # or zero
    decay: float = 0.1
    real: bool = False  # the state is what the steps made of it
    drift: str = ""  # copies of what matches this differ then
    same_loss: bool = True  # at every tp
    old_gqa: bool = False  # rows of a head were together, before 2024-11-14
    writer: str = "deepspeed"  # or one of the others in make_neox.py
    layers: int = 4
    hidden: int = 16

    def yaml(self):
        return dict(FAMILIES[self.family], **dict(self.options))

    def __getattr__(self, name):
        keys = {"heads": "num_attention_heads", "kv_heads": "num_kv_heads"}
        if name in keys:
            return self.yaml().get(keys[name])
        raise AttributeError(name)

    @property
    def gated(self):
        return self.yaml().get("activation") == "swiglu"

    @property
    def row_output(self):
        return self.yaml().get("output_layer_parallelism") == "row"

    @property
    def partial_bias(self):
        return bool(self.yaml().get("gpt_j_residual"))


def model(family, prec, options=None, **kw):
    return Model(family, prec, tuple((options or {}).items()), **kw)


OLD_FREQS = {"rotary_save_freqs_buffer": True}
QK_NORM = {"use_qk_layernorm": True}
RPE = {"pos_emb": "rpe", "rpe_num_buckets": 8, "rpe_max_distance": 16}
LOGITS = {"checkpoint_validation_with_forward_pass": True}
ROW_OUTPUT = {"output_layer_parallelism": "row"}
SEQUENCE = {"sequence_parallel": True}
ODD = dict(vocab=60, divisor=7, padding="zero")  # tp 1, 2, 4: 63, 70, 84

DEEP = dict(layers=12, hidden=8)  # where old and new balancing differ

# model: (what it is, its topologies)
MODELS = {
    "llama-bf16": (model("llama", "bf16"), """
        tp1-pp0-dp1 tp1-pp0-dp2 tp1-pp0-dp2-z2-rr tp1-pp0-dp2-z3
        tp2-pp0-dp1-align tp4-pp0-dp2 tp2-pp0-dp2-bf16opt tp1-pp1-dp2
        tp1-pp2-dp1-bf16opt tp2-pp2-dp2 tp4-pp1-dp1 tp1-pp4-dp2
        tp2-pp4-dp1 tp4-pp2-dp1-bf16opt-param tp2-pp2-dp1-uniform"""),
    "pythia-fp16": (model("pythia", "fp16", OLD_FREQS), """
        tp2-pp1-dp1 tp1-pp0-dp1 tp1-pp0-dp2-z2 tp1-pp1-dp2 tp2-pp0-dp2
        tp4-pp0-dp1 tp2-pp2-dp1-uniform tp1-pp2-dp2-param tp4-pp1-dp2
        tp4-pp2-dp1 tp1-pp4-dp1 tp2-pp4-dp1-param tp1-pp0-dp2-z0
        tp2-pp2-dp1-z0 tp4-pp1-dp1-z0 tp1-pp0-dp2-z3"""),
    "gpt2-bf16": (model("gpt2", "bf16"), """
        tp1-pp0-dp1-bf16opt tp1-pp0-dp2 tp1-pp1-dp1-bf16opt
        tp1-pp2-dp2-bf16opt-uniform tp2-pp2-dp1 tp2-pp1-dp2 tp4-pp0-dp1
        tp2-pp4-dp1 tp1-pp4-dp1-bf16opt-param
        tp4-pp2-dp1-bf16opt tp1-pp2-dp1-z0"""),
    "gpt2-fp16-odd": (model("gpt2", "fp16", **ODD), """
        tp1-pp0-dp1 tp2-pp2-dp1 tp4-pp1-dp1 tp1-pp4-dp1"""),
    "llama-fp16-odd": (model("llama", "fp16", **ODD), """
        tp1-pp2-dp1 tp2-pp0-dp1 tp4-pp0-dp2"""),
    "pythia-bf16-wd0": (model("pythia", "bf16", decay=0.0), """
        tp1-pp0-dp2 tp2-pp2-dp1-bf16opt tp4-pp1-dp1 tp1-pp2-dp1"""),
    "gpt2-fp16-deeper": (model("gpt2", "fp16", writer="deeperspeed"), """
        tp1-pp0-dp2-z2-rr tp2-pp2-dp1 tp4-pp1-dp1 tp1-pp4-dp1"""),
    "llama-bf16-deeper": (model("llama", "bf16", writer="deeperspeed"), """
        tp1-pp0-dp1 tp2-pp2-dp1-bf16opt tp4-pp0-dp2 tp1-pp2-dp2"""),
    "pythia-fp16-apex": (model("pythia", "fp16", writer="apex"), """
        tp1-pp0-dp1 tp2-pp2-dp1"""),
    "gpt2-fp16-deep": (model("gpt2", "fp16", **DEEP), """
        tp1-pp0-dp1 tp1-pp4-dp1 tp2-pp4-dp1"""),
    "gpt2-fp16-neox2": (model("gpt2", "fp16", writer="neox2", **DEEP), """
        tp1-pp0-dp2 tp1-pp4-dp1 tp2-pp1-dp2 tp1-pp2-dp1-param"""),
    "pythia-fp16-neox1": (model("pythia", "fp16", writer="neox1"), """
        tp1-pp0-dp1 tp1-pp0-dp2-b3000 tp1-pp0-dp2-z2 tp2-pp1-dp1
        tp2-pp0-dp2 tp1-pp2-dp2-b3000 tp2-pp2-dp1-b1000"""),
    # the default up to 2023-05-02, and broken
    "pythia-fp16-neox1-row": (model("pythia", "fp16", ROW_OUTPUT,
                                    writer="neox1", same_loss=False),
                              "tp1-pp1-dp1 tp2-pp1-dp1"),
    "gpt2-bf16-alibi": (model("gpt2", "bf16", {"pos_emb": "alibi"}), """
        tp2-pp0-dp1 tp4-pp2-dp1"""),
    # fails unless there is one micro-batch
    "gpt2-bf16-logits": (model("gpt2", "bf16", LOGITS), """
        tp1-pp1-dp2 tp1-pp2-dp2 tp2-pp1-dp2"""),
    # what a view at another tp or pp may not be right about
    "gpt2-bf16-qknorm": (model("gpt2", "bf16", QK_NORM, same_loss=False), """
        tp1-pp0-dp1 tp2-pp1-dp1 tp2-pp2-dp1"""),
    "gpt2-bf16-seqpar": (model(
        "gpt2", "bf16", SEQUENCE, real=True,
        drift=r"(attention\.dense|mlp\.linear2)\.bias"), "tp2-pp1-dp1"),
    "gpt2-bf16-rpe": (model("gpt2", "bf16", RPE, same_loss=False), """
        tp1-pp0-dp1 tp2-pp0-dp1"""),
    "gpt2-bf16-rpe-real": (model(
        "gpt2", "bf16", RPE, real=True, same_loss=False,
        drift=r"attention\.rpe\."), "tp1-pp2-dp1"),
    # position embeddings of the last stage get no gradient, and drift
    "gpt2-bf16-real": (model("gpt2", "bf16", real=True,
                             drift=r"position_embeddings"), "tp1-pp2-dp1"),
    "llama-bf16-oldgqa": (model("llama", "bf16", old_gqa=True,
                                writer="old-gqa"), """
        tp1-pp0-dp1 tp2-pp0-dp1 tp2-pp2-dp1"""),
}
METHODS = {"param": "parameters", "uniform": "uniform"}


@dataclasses.dataclass(frozen=True)
class Case:
    model_name: str
    model: Model
    tp: int
    pp: int
    dp: int
    cls: str = "z1"
    rr: bool = False
    align: bool = False
    bucket: int = 500000  # 0.3.15 cuts the state by its size
    method: str = "type:transformer|mlp"

    def world(self):
        return self.tp * max(self.pp, 1) * self.dp

    def stage(self):
        return 1 if self.cls == "bf16opt" else int(self.cls[1:])

    def topology(self):
        items = [n for n, m in METHODS.items() if m == self.method]
        return "-".join(
            [f"tp{self.tp}-pp{self.pp}-dp{self.dp}"]
            + [self.cls] * (self.cls != "z1") + ["rr"] * self.rr
            + ["align"] * self.align
            + [f"b{self.bucket}"] * (self.bucket != 500000) + items)

    def name(self):
        return f"{self.model_name}_{self.topology()}"

    def padded_vocab(self):
        unit = self.model.divisor * self.tp
        return -(-self.model.vocab // unit) * unit

    def yaml(self, steps):
        m = self.model
        zero = {"stage": self.stage(), "allgather_partitions": True,
                "allgather_bucket_size": 500000, "overlap_comm": False,
                "reduce_scatter": True, "reduce_bucket_size": self.bucket,
                "contiguous_gradients": True}
        if self.rr:
            zero["round_robin_gradients"] = True
        if self.align:
            zero["parameter_alignment"] = True
        out = {
            "pipe_parallel_size": self.pp, "model_parallel_size": self.tp,
            "pipe_partition_method": self.method,
            "num_layers": m.layers, "hidden_size": m.hidden,
            "seq_length": 16, "max_position_embeddings": 16,
            "make_vocab_size_divisible_by": m.divisor,
            "init_method": "normal",
            "optimizer": {"type": "Adam", "params": {
                "lr": 0.001, "betas": [0.9, 0.95], "eps": 1e-8}},
            "zero_optimization": zero, "weight_decay": m.decay,
            "train_micro_batch_size_per_gpu": 2,
            "gradient_accumulation_steps": GLOBAL_BATCH // 2 // self.dp,
            "gradient_clipping": 1.0,
            "hidden_dropout": 0.0, "attention_dropout": 0.0,
            "scaled_upper_triang_masked_softmax_fusion": False,
            "bias_gelu_fusion": False,
            "train_iters": steps, "lr_decay_iters": 20,
            "lr_decay_style": "cosine", "warmup": 0.1, "min_lr": 0.0001,
            "checkpoint_factor": 10 ** 6, "eval_interval": 10 ** 6,
            "eval_iters": 0, "log_interval": 1, "steps_per_print": 10 ** 6,
            "distributed_backend": "gloo", "num_workers": 0, "seed": 1234,
            "tokenizer_type": "CharLevelTokenizer", "data_path": "tokens",
            "wall_clock_breakdown": False, "use_wandb": False,
        }
        if m.prec == "fp16":
            out["fp16"] = {"enabled": True, "loss_scale": 0,
                           "loss_scale_window": 1000, "hysteresis": 2,
                           "initial_scale_power": 8, "min_loss_scale": 1}
        elif m.prec == "bf16":
            out["precision"] = "bfloat16"
            out["bf16"] = {"enabled": True}
            out["fp32_allreduce"] = True
        if self.cls == "bf16opt":
            out["data_types"] = {"grad_accum_dtype": "fp32"}
        return dict(out, **m.yaml())


def parse(name):
    """The case that name() of it is."""
    model_name, _, topology = name.partition("_")
    m, _ = MODELS[model_name]
    kw = {}
    for item in topology.split("-"):
        if item[:2] in ("tp", "pp", "dp"):
            kw[item[:2]] = int(item[2:])
        elif item in METHODS:
            kw["method"] = METHODS[item]
        elif item in ("rr", "align"):
            kw[item] = True
        elif item[0] == "b" and item[1:].isdigit():
            kw["bucket"] = int(item[1:])
        elif item in ("z0", "z1", "z2", "z3", "bf16opt"):
            kw["cls"] = item
        else:
            raise ValueError(f"{name}: what is {item}?")
    return Case(model_name, m, **kw)


def every():
    return [parse(f"{name}_{topology}") for name, (_, text) in MODELS.items()
            for topology in text.split()]
