"""How good a representation is while it is learnt: rank, agreement, and a probe on validation.

Nothing here touches the weights, the generators of training, or a test tile. The codebook of a
model that counts is fitted to the tiles that the probe learns from.
"""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from geojepa.data.labels import HEADLINE_SKILL, SAME_VIEW
from geojepa.model.batch import Batches
from geojepa.model.embedding import embed_tiles, fit_codebook
from geojepa.model.jepa import GeoJEPA
from geojepa.training.config import TrainConfig
from geojepa.training.rank import effective_rank, lidar
from geojepa.training.sampling import masks_of_step

MAX_TILES = 192
# of LiDAR: draws of masks, and tiles
VIEWS, VIEWED = 4, 32


def watch(
    model: GeoJEPA, batches: Batches, config: TrainConfig, train: np.ndarray, held: np.ndarray
) -> dict[str, float]:
    """Measures of the teacher's embeddings.

    Args:
        model: in any mode; it is left in training.
        batches: of its corpus.
        config: of the run.
        train: rows of training tiles, which fit the probe.
        held: rows of validation tiles, which everything is measured on, evenly spaced; training
            tiles where there are none, and no probe.

    Returns:
        effective_rank (RankMe) of tiles; token_rank of their tokens; lidar of tiles; token_lidar;
        agreement, the mean cosine of the student's and the teacher's tokens; probe, see `probe`,
        where it can be had.
    """
    is_unseen = not np.isin(held, train).any()
    train, held = _some(train, MAX_TILES), _some(held, MAX_TILES)
    fit_codebook(model, batches, train)
    batch = batches(_some(held, VIEWED)).to(next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        teacher, student = model.teacher(batch), model.student(batch)
    tiles, tokens = student_views(model, batches, config, held)
    found = {
        "effective_rank": effective_rank(embed_tiles(model, batches, held)),
        "token_rank": effective_rank(teacher.float().cpu().numpy()),
        "lidar": lidar(tiles),
        "token_lidar": lidar(tokens),
        "agreement": float(F.cosine_similarity(student, teacher).mean()),
    }
    score = probe(model, batches, train, held) if is_unseen else None
    model.train()
    return found if score is None else found | {"probe": score}


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the rows, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // count))]


def probe(model: GeoJEPA, batches: Batches, train: np.ndarray, held: np.ndarray) -> float | None:
    """Mean R2 on held tiles of ridge regressions on embeddings without the tasks' evidence.

    A task without two different labels in both parts is left out; None if none is left.
    """
    parts = train, held
    scores = []
    features: dict[str, tuple[np.ndarray, ...]] = {}
    for task in HEADLINE_SKILL:
        label = batches.corpus.tiles[task].to_numpy(float)
        known = [np.isfinite(label[rows]) for rows in parts]
        y, y_held = (label[rows][is_known] for rows, is_known in zip(parts, known, strict=True))
        if min(len(np.unique(y)), len(np.unique(y_held))) < 2:
            continue
        if task == "traffic_signals":
            y, y_held = np.log1p(y), np.log1p(y_held)
        view = SAME_VIEW.get(task, task)
        if view not in features:
            features[view] = tuple(embed_tiles(model, batches, rows, view) for rows in parts)
        x, x_held = (x[is_known] for x, is_known in zip(features[view], known, strict=True))
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
        scores.append(ridge.fit(x, y).score(x_held, y_held))
    return float(np.mean(scores)) if scores else None


@torch.no_grad()
def student_views(
    model: GeoJEPA, batches: Batches, config: TrainConfig, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the student makes of the contexts of VIEWS draws of masks.

    Returns:
        (VIEWS, T, width): the mean token of each tile under each draw; and (2, n, width): each
        token that is context in two draws or more, under the first two of them.
    """
    batch = batches(_some(rows, VIEWED)).to(next(model.parameters()).device)
    content = model.student.tokenizer(batch) + model.student.position(batch.box, batch.modality)
    tiles = []
    tokens = content.new_zeros(VIEWS, *content.shape, dtype=torch.float32)
    is_context = torch.zeros(VIEWS, len(content), dtype=torch.bool, device=content.device)
    for view in range(VIEWS):
        masks = masks_of_step(batch, config, view)[1]
        count = masks.cu_context.diff().long()
        seen = model.student.encoder(content[masks.context], masks.cu_context, int(count.max()))
        tiles.append(torch.segment_reduce(seen, "mean", lengths=count, initial=0.0).float())
        is_context[view] = masks.context
        tokens[view, masks.context] = seen.float()
    twice = seen_twice(tokens.cpu().numpy(), is_context.cpu().numpy())
    return torch.stack(tiles).cpu().numpy(), twice


def seen_twice(tokens: np.ndarray, is_context: np.ndarray) -> np.ndarray:
    """(2, n, D) of (views, S, D): the first two views in which a token is context, where it is."""
    chosen = np.flatnonzero(is_context.sum(axis=0) >= 2)
    first = np.argsort(~is_context, axis=0, kind="stable")[:2, chosen]
    return tokens[first, chosen]
