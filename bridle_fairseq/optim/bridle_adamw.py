"""fairseq optimizer ``bridle_adamw``: torch's fused AdamW, without weight decay on one-dimensional parameters."""

from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II


@dataclass
class BridleAdamWConfig(FairseqDataclass):
    """The settings of METHOD, section 4."""

    adam_betas: Any = field(default=(0.9, 0.95), metadata={"help": "betas"})
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon"})
    weight_decay: float = field(
        default=1e-4, metadata={"help": "decoupled weight decay; biases, norms and tokens have none"}
    )
    lr: List[float] = II("optimization.lr")


@register_optimizer("bridle_adamw", dataclass=BridleAdamWConfig)
class BridleAdamW(FairseqOptimizer):
    """AdamW (arXiv 1711.05101) on two groups of parameters; fairseq's own Adam walks through them one by one."""

    def __init__(self, cfg, params):
        super().__init__(cfg)
        params = list(params)
        groups = [
            {"params": [p for p in params if p.dim() > 1], "weight_decay": cfg.weight_decay},
            {"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0},
        ]
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        self._optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=float(cfg.lr[0]),
            betas=tuple(float(b) for b in cfg.adam_betas),
            eps=cfg.adam_eps,
            fused=fused,
        )

    @property
    def optimizer_config(self):
        """What a resumed run takes from its configuration rather than from the checkpoint."""
        return {
            "lr": float(self.cfg.lr[0]),
            "betas": tuple(float(b) for b in self.cfg.adam_betas),
            "eps": self.cfg.adam_eps,
        }

    @property
    def supports_flat_params(self):
        """Flattened parameters have no dimensions to tell matrices from biases by."""
        return False
