"""What one case of the oracle is: a topology and a model, with a stable name.

The topology (class, dp, round robin, sub-groups, serialization) is what a
view may change.  The model (precision, frozen and tied parameters, groups,
optimizer) is the logical state; two configurations whose model() agrees hold
the same state and may be compared with each other.
"""
import dataclasses

CLASSES = ("z0", "z1", "z2", "z3", "bf16opt")
GLOBAL_BATCH = 120  # divisible by every data-parallel size used here
TAG = "global_step7"


@dataclasses.dataclass(frozen=True)
class Config:
    cls: str
    dp: int
    prec: str = "bf16"
    rr: bool = False
    sub: int = 0
    legacy: bool = False
    elastic: bool = False
    align: bool = False
    frozen: bool = False
    tied: bool = False
    buffers: bool = True
    groups: int = 2
    adam: str = "torch"  # torch.optim.AdamW, or DeepSpeed's FusedAdam
    sched: bool = True
    named: bool = False  # the optimizer gets named parameters
    scale: int = 8  # fp16: the loss scale starts at 2^scale

    def stage(self):
        return {"bf16opt": 1}.get(self.cls) or int(self.cls[1:])

    def topology_items(self):
        return ((self.rr, "rr"), (self.sub, f"sub{self.sub}"),
                (self.legacy, "legacy"), (self.elastic, "elastic"),
                (self.align, "align"))

    def topology_name(self):
        return "-".join([self.cls, f"dp{self.dp}"]
                        + [n for on, n in self.topology_items() if on])

    def model_name(self):
        items = ((self.frozen, "frozen"), (self.tied, "tied"),
                 (not self.buffers, "nobuf"), (self.adam == "fused", "fused"),
                 (not self.sched, "nosched"), (self.named, "named"),
                 (self.scale != 8, f"scale{self.scale}"))
        return "-".join([self.prec, f"g{self.groups}"]
                        + [n for on, n in items if on])

    def name(self):
        return f"{self.model_name()}_{self.topology_name()}"

    def why_invalid(self):
        """None, or why the framework has no such case."""
        if self.cls == "bf16opt" and self.prec != "bf16":
            return "BF16_Optimizer is for bf16 only"
        if self.rr and self.cls != "z2":
            return "round robin is stage 2's"
        if self.sub and self.cls != "z3":
            return "sub-groups are stage 3's"
        if self.elastic and self.cls not in ("z1", "z2"):
            return "only DeepSpeedZeroOptimizer writes elastic files"
        if self.align and self.cls not in ("z1", "z2"):
            return "parameter_alignment is DeepSpeedZeroOptimizer's"
        return None

    def ds_config(self):
        micro = GLOBAL_BATCH // self.dp
        conf = {
            "train_batch_size": GLOBAL_BATCH,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_clipping": 1.0,
            "steps_per_print": 10 ** 9,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": self.stage()},
        }
        zero = conf["zero_optimization"]
        if self.prec == "bf16":
            conf["bf16"] = {"enabled": True}
        elif self.prec == "fp16":
            conf["fp16"] = {"enabled": True, "initial_scale_power": self.scale}
        if self.cls == "bf16opt":
            conf["data_types"] = {"grad_accum_dtype": "fp32"}
        if self.rr:
            zero["round_robin_gradients"] = True
        if self.sub:
            zero["sub_group_size"] = self.sub
        if self.cls in ("z1", "z2"):  # the default was true up to 0.5.9
            zero["elastic_checkpoint"] = self.elastic
        if self.align:
            zero["parameter_alignment"] = True
        if self.legacy:
            conf["checkpoint"] = {"checkpoint_serialization": False}
        if self.sched:
            conf["scheduler"] = {"type": "WarmupDecayLR", "params": {
                "total_num_steps": 1000, "warmup_num_steps": 4,
                "warmup_max_lr": 0.01}}
        return conf


def parse(name):
    """The configuration that name() of it is; raises ValueError."""
    model, _, topo = name.partition("_")
    kw = {}
    prec, *items = model.split("-")
    kw["prec"] = prec
    flags = {"frozen": ("frozen", True), "tied": ("tied", True),
             "nobuf": ("buffers", False), "fused": ("adam", "fused"),
             "nosched": ("sched", False), "named": ("named", True), "rr": ("rr", True),
             "legacy": ("legacy", True), "elastic": ("elastic", True),
             "align": ("align", True)}
    cls, *rest = topo.split("-")
    kw["cls"] = cls
    for item in items + rest:
        if item in flags:
            kw[flags[item][0]] = flags[item][1]
        elif item[0] == "g":
            kw["groups"] = int(item[1:])
        elif item.startswith("dp"):
            kw["dp"] = int(item[2:])
        elif item.startswith("scale"):
            kw["scale"] = int(item[5:])
        elif item.startswith("sub"):
            kw["sub"] = int(item[3:])
        else:
            raise ValueError(f"{name}: what is {item}?")
    return Config(**kw)
