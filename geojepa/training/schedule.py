"""AdamW, and what changes with the steps: its rate and decay, the teacher's momentum."""

import math

import torch

from geojepa.model.jepa import GeoJEPA
from geojepa.training.config import TrainConfig


def optimizer_of(model: GeoJEPA, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, the mask token) do not decay, matrices and tables do."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Rises linearly, stays, and falls by half a cosine, for `progress` in [0, 1]."""
    if progress < config.warm_up:
        return config.learning_rate * progress / config.warm_up
    falling = (progress - 1 + config.cooldown) / config.cooldown if config.cooldown else 0.0
    cosine = (1 + math.cos(math.pi * max(0.0, falling))) / 2
    return config.final_learning_rate + cosine * (config.learning_rate - config.final_learning_rate)


def set_schedules(optimizer: torch.optim.Optimizer, config: TrainConfig, progress: float) -> float:
    """Set rate and decay for `progress` in [0, 1]; returns the teacher's momentum."""
    rate = learning_rate(config, progress)
    decay = config.weight_decay[0] + progress * (config.weight_decay[1] - config.weight_decay[0])
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = decay if group["decays"] else 0.0
    return config.momentum[0] + progress * (config.momentum[1] - config.momentum[0])
