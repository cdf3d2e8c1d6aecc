"""What training costs: bytes kept for the backward pass, floating-point operations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from geojepa.model.jepa import GeoJEPA
from geojepa.training.ahead import Pass
from geojepa.training.config import TrainConfig
from geojepa.training.gradients import add_gradients
from geojepa.training.processes import Processes

# FLOP/s of dense products in bfloat16, of the SXM boards, by a part of the device's name
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}

# PyTorch counts that of a GPU alone
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


@dataclass(frozen=True)
class Cost:
    """Of a forward and backward pass, the teacher's forward pass included.

    Attributes:
        tiles: in the pass.
        tokens: of its tiles.
        activation_bytes: that the forward pass keeps for the backward pass.
        flops: floating-point operations of its matrix products.
    """

    tiles: int
    tokens: int
    activation_bytes: int
    flops: int

    def __str__(self) -> str:
        return (
            f"a pass of {self.tiles} tiles: activations {self.activation_bytes / 2**20:.1f} MiB, "
            f"{self.flops / self.tiles / 1e9:.3g} GFLOP a tile"
        )

    def facts(self, tokens_per_second: float, peak: float | None, devices: int) -> dict[str, Any]:
        """Numbers for config.json.

        Args:
            tokens_per_second: of the run.
            peak: FLOP/s of a device, None where it is not known.
            devices: that train together.
        """
        per_token = self.flops / self.tokens
        speed = per_token * tokens_per_second
        return {
            "activation_bytes_per_token": round(self.activation_bytes / self.tokens),
            "flops_per_token": round(per_token),
            "flops_per_second": round(speed),
            "utilisation": speed / (peak * devices) if peak else None,
        }


def measure(model: GeoJEPA, config: TrainConfig, here: Processes, ahead: Pass) -> Cost:
    """The cost of a pass, which leaves neither gradients nor the generators changed.

    Args:
        model: in training mode, without gradients, as yet neither compiled nor in DDP.
        config: of the run.
        here: this process; all that train together measure at once.
        ahead: the first pass of the run.
    """
    devices = [here.device] if here.device.type == "cuda" else []
    if devices:
        # registers how its operators are counted, which a counter reads when it is made
        import_module("geojepa_kernels.attention.operator")
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    with torch.random.fork_rng(devices), kept_for_backward(model) as kept, counter:
        add_gradients(model, config, here, iter([ahead]), 1)
    model.zero_grad(set_to_none=True)
    return Cost(
        tiles=len(ahead.batch.tile_key),
        tokens=len(ahead.batch.box),
        activation_bytes=sum(kept.values()),
        flops=counter.get_total_flops(),
    )


@contextmanager
def kept_for_backward(model: nn.Module) -> Iterator[dict[int, int]]:
    """Address -> bytes of every storage that is saved for a backward pass, but for the model's."""
    own = {x.untyped_storage().data_ptr() for x in chain(model.parameters(), model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # the tensor itself would hold its own graph
        return tensor.detach()

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def peak_of(device: torch.device) -> float | None:
    """FLOP/s that a device can reach in bfloat16; None for a CPU or an unknown GPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
