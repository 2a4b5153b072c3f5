"""DeepSpeed's FusedAdam without its CUDA kernel.

The class stays, and with it the form of its state (int steps); only the
arithmetic of multi_tensor_adam is done by torch.
"""
import torch
from deepspeed.ops.adam import fused_adam


class _Kernel:
    @staticmethod
    def multi_tensor_adam(_chunk, _overflow, lists, lr, beta1, beta2, eps,
                          step, adam_w, bias_correction, decay):
        c1 = 1 - beta1 ** step if bias_correction else 1
        c2 = 1 - beta2 ** step if bias_correction else 1
        for g, p, m, v in zip(*lists):
            g, w = g.float(), p.data.float()
            if not adam_w:
                g = g + decay * w
            m.mul_(beta1).add_(g, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            update = (m / c1) / ((v / c2).sqrt() + eps)
            if adam_w:
                update = update + decay * w
            p.data.copy_(w - lr * update)


class _Builder:
    def load(self):
        return _Kernel


def install():
    fused_adam.FusedAdamBuilder = _Builder


def fused(groups, lr):
    return fused_adam.FusedAdam(groups, lr=lr)


def plain(groups, lr):
    return torch.optim.AdamW(groups, lr=lr)
