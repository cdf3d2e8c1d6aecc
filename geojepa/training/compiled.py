"""The blocks of the networks compiled by torch.compile, for any number of tokens."""

import torch

from geojepa.model.jepa import GeoJEPA
from geojepa.model.transformer import Block


def compile_blocks(model: GeoJEPA, backend: str = "inductor") -> None:
    """Compile, in place, what a block does before and after its attention.

    Attention is left as it is: on a GPU a kernel, on a CPU a loop over sequences that no graph
    holds. The names of the weights stay. What the process has compiled before is forgotten, since
    PyTorch gives up at some number of graphs.
    """
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for block in model.modules():
        if isinstance(block, Block):
            for part in ("ask", "answer"):
                compiled = torch.compile(getattr(block, part), dynamic=True, backend=backend)
                setattr(block, part, compiled)


def graphs_compiled() -> int:
    """Graphs compiled since `compile_blocks`."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
