"""Embeddings of tiles and entities from a frozen model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import shapely
import torch
from torch.nn import functional

from geojepa.data.corpus import Corpus
from geojepa.data.grid import to_degrees, to_units
from geojepa.files import whole
from geojepa.model.batch import Batch, Batches
from geojepa.model.codebook import MAX_TILES, count_words, fit_words
from geojepa.model.jepa import GeoJEPA

TILES_PER_BATCH = 32


def embed_tiles(
    model: GeoJEPA, batches: Batches, rows: np.ndarray, hide: str | None = None
) -> np.ndarray:
    """(T, F) float32: each tile's tokens pooled, at two depths of the teacher; see `pool`.

    The depths are the content tokens that enter the encoder (what is there) and its output (what
    is there in its context). A model that counts pools each modality's tokens apart, and adds the
    logarithms of how many are nearest to each word of its codebook, halfway through the encoder and
    at its output. The result does not depend on which tiles share a batch. A tile without tokens
    gets zeros.
    """
    found = []
    for depths in _depths(model, batches, rows, hide):
        parts = _apart(model, *depths)
        vectors = [
            _pooled(part, model.codebook[kind :: len(parts)], model.config.pooling)
            for kind, part in enumerate(parts)
        ]
        found.append(torch.cat(vectors, dim=1).cpu())
    # no tile is as wide as any
    return torch.cat(found).numpy() if found else embed_tiles(model, batches, np.arange(1))[:0]


class Pooled(NamedTuple):
    """Tokens that are pooled together: content and latents (n, width), offsets of their tiles."""

    content: torch.Tensor
    latents: list[torch.Tensor]
    cu_seqlens: torch.Tensor


def _apart(
    model: GeoJEPA, content: torch.Tensor, latents: list[torch.Tensor], batch: Batch
) -> list[Pooled]:
    """All tokens together, or those of each modality where the model counts."""
    if model.config.pooling != "counts":
        return [Pooled(content, latents, batch.cu_seqlens)]
    found = []
    for kind in range(len(model.config.token_modalities)):
        chosen = batch.modality == kind
        before = functional.pad(chosen.cumsum(0, dtype=torch.int32), (1, 0))
        kept = [x[chosen] for x in latents]
        found.append(Pooled(content[chosen], kept, before[batch.cu_seqlens.long()]))
    return found


def _pooled(part: Pooled, codebook: torch.Tensor, how: str) -> torch.Tensor:
    found = [pool(x, part.cu_seqlens, how) for x in (part.content, part.latents[-1])]
    for x, words in zip(part.latents, codebook, strict=False):
        found.append(count_words(x, words, part.cu_seqlens).log1p())
    return torch.cat(found, dim=1)


def fit_codebook(model: GeoJEPA, batches: Batches, rows: np.ndarray) -> None:
    """Fit the codebook of a model that counts to the latents of tiles that it may learn from.

    Of the rows, at most MAX_TILES, evenly spaced. Without any it stays as it is.
    """
    rows = rows[:: max(1, -(-len(rows) // MAX_TILES))]
    if len(model.codebook) == 0 or len(rows) == 0:
        return
    found: list[list[np.ndarray]] = [[] for _ in model.codebook]
    for depths in _depths(model, batches, rows, None):
        parts = _apart(model, *depths)
        for number, tokens in enumerate(found):
            depth, kind = divmod(number, len(parts))
            tokens.append(parts[kind].latents[depth].cpu().numpy())
    words = [fit_words(np.concatenate(tokens)) for tokens in found]
    model.codebook.copy_(torch.from_numpy(np.stack(words)))


def pool(x: torch.Tensor, cu_seqlens: torch.Tensor, how: str = "mean") -> torch.Tensor:
    """Pool the tokens of each tile; zeros where it has none.

    A mean forgets how many tokens there are, and a sum of both signs cancels. The sums of the
    positive and of the negative parts of a dimension count what points its way.

    Args:
        x: (S, D) packed tokens.
        cu_seqlens: (T + 1,) int32.
        how: "mean", mean and max; "counts", log1p of the sums of positive and of negative parts,
            and max.

    Returns:
        (T, 2 D) for "mean", (T, 3 D) for "counts".
    """
    count = cu_seqlens.diff().long()
    largest = torch.segment_reduce(x, "max", lengths=count)
    if how == "mean":
        parts = [torch.segment_reduce(x, "mean", lengths=count, initial=0.0)]
    else:
        signed = torch.cat([x.relu(), (-x).relu()], dim=1)
        parts = [torch.segment_reduce(signed, "sum", lengths=count, initial=0.0).log1p()]
    empty = (count == 0)[:, None]
    return torch.cat([*parts, largest], dim=1).masked_fill(empty, 0.0)


@torch.no_grad()
def _depths(
    model: GeoJEPA, batches: Batches, rows: np.ndarray, hide: str | None
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor], Batch]]:
    device = next(model.parameters()).device
    count = max(1, len(model.codebook) // len(model.config.token_modalities))
    model.eval()
    rows = np.asarray(rows)
    for start in range(0, len(rows), TILES_PER_BATCH):
        batch = batches(rows[start : start + TILES_PER_BATCH], hide).to(device)
        yield *model.teacher.latents(batch, count), batch


def embed_regions(model: GeoJEPA, corpus: Corpus) -> geopandas.GeoDataFrame:
    """Every tile of a corpus: index region_id, its footprint (EPSG:4326) and `embedding`."""
    batches = Batches(corpus, model.config, model.shapes)
    vectors = embed_tiles(model, batches, np.arange(len(corpus)))
    frame = {"place": corpus.tiles.place, "embedding": list(vectors)}
    table = geopandas.GeoDataFrame(frame, geometry=corpus.tiles.geometry, crs=4326)
    table.index = pd.Index(corpus.tiles.tile_id, name="region_id")
    return table


def embed_entities(model: GeoJEPA, corpus: Corpus) -> geopandas.GeoDataFrame:
    """Every entity of every tile: index feature_id, region_id, clipped geometry, `embedding`."""
    batches = Batches(corpus, model.config, model.shapes)
    rows = np.arange(len(corpus))
    vectors = [
        latents[-1][batch.entity_slot].cpu().numpy()
        for _, latents, batch in _depths(model, batches, rows, None)
    ]
    data = corpus.read(rows)
    tile = np.repeat(rows, np.diff(data.cu_entities))
    bounds = shapely.bounds(shapely.transform(corpus.tiles.geometry.to_numpy(), to_units))
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    coords, owner = shapely.get_coordinates(data.geometry, return_index=True)
    units = coords * side[tile[owner], None] + bounds[tile[owner], :2]
    geometry = shapely.set_coordinates(data.geometry.copy(), to_degrees(units))
    frame = {
        "region_id": corpus.tiles.tile_id.to_numpy()[tile],
        "embedding": list(np.concatenate(vectors)),
    }
    table = geopandas.GeoDataFrame(frame, geometry=geometry, crs=4326)
    table.index = pd.Index(data.feature_id, name="feature_id")
    return table


def write_embeddings(
    model: GeoJEPA, corpus: Corpus, out: str | Path, facts: dict, entities: bool = False
) -> int:
    """Write the embeddings of a corpus as GeoParquet and return their number.

    The file's metadata names the run (`facts`, as its config.json holds them), the corpus and the
    attribution, so that embeddings of two models cannot be mixed unseen.
    """
    table = (embed_entities if entities else embed_regions)(model, corpus)
    notes = {"run": facts, "corpus": corpus.hash, "attribution": corpus.attribution}
    with whole(out) as part:
        table.to_parquet(part)
        arrow = pyarrow.parquet.read_table(part)
        metadata = (arrow.schema.metadata or {}) | {b"geojepa": json.dumps(notes).encode()}
        pyarrow.parquet.write_table(arrow.replace_schema_metadata(metadata), part)
    return len(table)
