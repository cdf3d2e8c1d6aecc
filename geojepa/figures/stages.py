"""What becomes of a tile's tokens on their way through the network."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from geojepa.data.corpus import TileData
from geojepa.figures.style import BLUE, GREY, WIDTH
from geojepa.model.batch import Batch
from geojepa.model.jepa import Network
from geojepa.training.rank import effective_rank

# the first of these keys that an entity carries says what it is
MAIN_KEYS = ("building", "highway", "natural", "landuse", "leisure", "amenity", "barrier")
SHOWN = 5


@torch.no_grad()
def activations(network: Network, batch: Batch) -> dict[str, Tensor]:
    """Tokens (S, width) at each stage: content, input (with position), blocks, output."""
    found: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        return lambda module, inputs, output: found.__setitem__(name, output)

    hooks = [network.tokenizer.register_forward_hook(keep("content"))]
    for number, block in enumerate(network.encoder.blocks, 1):
        hooks.append(block.register_forward_hook(keep(f"block {number}")))
    try:
        network.eval()
        output = network(batch)
        position = network.position(batch.box, batch.modality)
    finally:
        for hook in hooks:
            hook.remove()
    # the registers, where there are any, come before a tile's own tokens
    extra = len(network.encoder.registers)
    own = torch.cat(
        [
            torch.arange(start, stop) + extra * (tile + 1)
            for tile, (start, stop) in enumerate(
                zip(batch.cu_seqlens.tolist(), batch.cu_seqlens.tolist()[1:], strict=False)
            )
        ]
    )
    blocks = {name: x[own] for name, x in found.items() if name.startswith("block")}
    content = found["content"]
    return {"content": content, "input": content + position, **blocks, "output": output}


def stage_table(networks: dict[str, Network], batch: Batch) -> pd.DataFrame:
    """By network and stage: norm, likeness within a tile, and rank of the tokens of a batch.

    `cosine` is the mean over pairs of tokens of a tile, then over tiles; `own_content` that of
    a token with itself at the first stage, once the mean token is taken from both;
    `effective_rank` is of all tokens together.
    """
    rows = []
    tiles = list(zip(batch.cu_seqlens.tolist(), batch.cu_seqlens.tolist()[1:], strict=False))
    for name, network in networks.items():
        stages = activations(network, batch)
        first = stages["content"] - stages["content"].mean(0)
        for depth, (stage, x) in enumerate(stages.items()):
            likeness = [_mean_off_diagonal(cosines(x[a:b])) for a, b in tiles if b - a > 1]
            own = torch.cosine_similarity(x - x.mean(0), first).mean().item()
            rows.append(
                {
                    "network": name,
                    "depth": depth,
                    "stage": stage,
                    "norm": x.norm(dim=1).mean().item(),
                    "cosine": float(np.mean(likeness)),
                    "own_content": own,
                    "effective_rank": effective_rank(x.numpy()),
                }
            )
    return pd.DataFrame(rows)


def cosines(x: Tensor) -> Tensor:
    """Cosine of each pair of tokens: (S, width) to (S, S)."""
    unit = torch.nn.functional.normalize(x, dim=1)
    return unit @ unit.T


def _mean_off_diagonal(square: Tensor) -> float:
    n = len(square)
    return ((square.sum() - square.trace()) / (n * (n - 1))).item()


def what_entities_are(tiles: TileData) -> np.ndarray:
    """(N,) strings: the main key of each entity, "other" without one."""
    return np.array(
        [next((key for key in MAIN_KEYS if key in tags), "other") for tags in tiles.tags()], object
    )


def plot_stages(stages: dict[str, Tensor], what: np.ndarray, table: pd.DataFrame) -> Figure:
    """Likeness of one tile's tokens at some stages, and four numbers at every stage.

    Args:
        stages: of one tile, entities first, then patches; see `activations`.
        what: of each entity, to sort them by.
        table: of `stage_table`.
    """
    figure = plt.figure(figsize=(WIDTH + 3, 5.4))
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=(1.15, 1)))
    names = list(stages)
    patches = len(stages["content"]) - len(what)
    picked = [names[round(i)] for i in np.linspace(0, len(names) - 1, min(SHOWN, len(names)))]
    order = np.argsort(what, kind="stable")
    order = np.concatenate([order, np.arange(patches) + len(what)]).astype(int)
    groups = np.concatenate([np.sort(what), np.full(patches, "image patch", object)])
    starts = np.flatnonzero(groups != np.roll(groups, 1)) if len(set(groups)) > 1 else np.array([0])
    axes = np.atleast_1d(above.subplots(1, len(picked)))
    for axis, name in zip(axes, picked, strict=True):
        image = axis.imshow(cosines(stages[name])[order][:, order], vmin=-1, vmax=1, cmap="RdBu_r")
        for start in starts[1:]:
            axis.axhline(start - 0.5, color="black", lw=0.4)
            axis.axvline(start - 0.5, color="black", lw=0.4)
        axis.set(title=name, xticks=[], yticks=[])
    stops = np.append(starts[1:], len(groups))
    # a label needs a row of text: about a fourteenth of the side
    wide = (stops - starts) * 14 >= len(groups)
    axes[0].set_yticks(((starts + stops - 1) / 2)[wide], groups[starts[wide]])
    above.colorbar(image, ax=list(axes), label="cosine", shrink=0.7)
    _plot_numbers(below, table)
    return figure


def _plot_numbers(figure: SubFigure, table: pd.DataFrame) -> None:
    titles = {
        "norm": "Norm of a token",
        "cosine": "Cosine within a tile",
        "own_content": "Cosine with own content",
        "effective_rank": "Effective rank of all tokens",
    }
    axes = figure.subplots(1, len(titles))
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        for colour, (name, part) in zip(
            (BLUE, GREY), table.groupby("network", sort=False), strict=False
        ):
            style = {"ls": "-"} if colour == BLUE else {"ls": "--", "mfc": "none"}
            axis.plot(part["depth"], part[column], marker="o", color=colour, label=name, **style)
        stages = table.drop_duplicates("depth")
        axis.set_xticks(stages["depth"], stages["stage"], rotation=60, ha="right")
        axis.set(title=title)
        axis.set_ylim(min(0, 1.1 * table[column].min()), 1.1 * table[column].max())
    axes[0].legend()
