"""fairseq optimizer ``bridle_adamw``: torch's fused AdamW without weight decay on one-dimensional parameters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor, nn


@dataclass
class BridleAdamWConfig(FairseqDataclass):
    """Options of AdamW."""

    adam_betas: Any = field(default=(0.9, 0.95), metadata={"help": "betas"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon"})
    weight_decay: float = field(
        default=1e-4,
        metadata={"help": "decoupled weight decay of weights and of class and mask tokens; biases and norms have none"},
    )
    lr: List[float] = II("optimization.lr")


@register_optimizer("bridle_adamw", dataclass=BridleAdamWConfig)
class BridleAdamW(FairseqOptimizer):
    """AdamW (arXiv 1711.05101) on a few groups of parameters; fairseq's own Adam updates parameters one by one.

    There are two groups for each ``lr_scale``, a factor on the learning rate for layer-wise decay. Weight decay applies
    to the first one, parameters of two or more dimensions: weights, and class and mask tokens (1 x 1 x D). The factor
    is in the parameter's attribute ``param_group``, which fairseq copies to float32 copies of parameters; the default
    is 1.
    """

    def __init__(self, cfg: BridleAdamWConfig, params: Iterable[nn.Parameter]) -> None:
        super().__init__(cfg)
        params = list(params)
        groups = []
        for scale in sorted({_lr_scale(p) for p in params}, reverse=True):
            alike = [p for p in params if _lr_scale(p) == scale]
            decayed, others = [p for p in alike if p.dim() > 1], [p for p in alike if p.dim() <= 1]
            groups.append({"params": decayed, "weight_decay": cfg.weight_decay, "lr_scale": scale})
            groups.append({"params": others, "weight_decay": 0.0, "lr_scale": scale})
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        self._optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=float(cfg.lr[0]),
            betas=(float(cfg.adam_betas[0]), float(cfg.adam_betas[1])),
            eps=cfg.adam_eps,
            fused=fused,
        )
        self.set_lr(float(cfg.lr[0]))

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of parameters with scale 1, and of the others in proportion."""
        for group in self.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def get_lr(self) -> float:
        """Learning rate of parameters with scale 1."""
        return self.param_groups[0]["lr"] / self.param_groups[0].get("lr_scale", 1.0)

    def multiply_grads(self, c: Tensor | float) -> None:
        """Multiply all gradients by ``c``, a number or a scalar tensor."""
        grads = self._grads()
        if grads:
            torch._foreach_mul_(grads, c.to(grads[0].device) if torch.is_tensor(c) else c)

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Clip the norm of all gradients to ``max_norm`` (0: no clipping), and return the norm before.

        Same as fairseq's, with a few kernels for all parameters instead of two for each.
        """
        grads = self._grads()
        if not grads:
            return torch.tensor(0.0)
        norm = torch.nn.utils.get_total_norm(grads)
        norm = norm if aggregate_norm_fn is None else aggregate_norm_fn(norm)
        if max_norm > 0:
            torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp_(max=1))
        return norm

    def _grads(self) -> list[Tensor]:
        return [p.grad for p in self.params if p.grad is not None]

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """Load the optimizer state; learning rates are those of the configuration."""
        super().load_state_dict(state_dict, optimizer_overrides)
        if optimizer_overrides and "lr" in optimizer_overrides:
            self.set_lr(optimizer_overrides["lr"])

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Options that a resumed run takes from its configuration and not from the checkpoint."""
        return {
            "lr": float(self.cfg.lr[0]),
            "betas": tuple(float(b) for b in self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
        }

    @property
    def supports_flat_params(self) -> bool:
        """False: flat parameters do not show which of them decay."""
        return False


def _lr_scale(parameter: nn.Parameter) -> float:
    return float(getattr(getattr(parameter, "param_group", None), "lr_scale", 1.0))
