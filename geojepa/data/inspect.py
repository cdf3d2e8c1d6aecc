"""What is in a corpus, as plain values and as text."""

from pathlib import Path

import numpy as np
import pandas as pd

from geojepa.data.corpus import Corpus
from geojepa.data.features import KINDS
from geojepa.data.labels import column_of, paper_kept
from geojepa.data.meaning import TASKS
from geojepa.data.splits import FOLDS, blocks, split
from geojepa.errors import GeoJEPAError, printable
from geojepa.files import whole


def summary(corpus: Corpus, rule: str = "exact") -> dict:
    """Tiles, entities by kind, tags, labels by one of the two rules, and splits of a corpus."""
    tiles = corpus.tiles
    kinds = np.zeros(len(KINDS), dtype=int)
    for first in range(0, len(corpus), 4096):
        rows = np.arange(first, min(first + 4096, len(corpus)))
        kinds += np.bincount(corpus.read(rows).kind, minlength=len(KINDS))
    uses = corpus.tag_uses
    per_key: dict[str, int] = {}
    for (key, _), count in zip(corpus.vocabulary, uses.tolist(), strict=True):
        per_key[key] = per_key.get(key, 0) + count
    return {
        "corpus": corpus.name,
        "hash": corpus.hash,
        "attribution": corpus.attribution,
        "places": [place for info in corpus.infos for place in info["places"]],
        "tiles": len(corpus),
        "tiles_with_image": int(corpus.has_image.sum()),
        "ground_m": [round(float(v), 1) for v in tiles.ground_m.quantile([0, 0.5, 1])],
        "entities": corpus.entities,
        "entities_by_kind": dict(zip(KINDS, kinds.tolist(), strict=True)),
        "entities_per_tile": {
            name: float(value)
            for name, value in zip(
                ("mean", "median", "p95", "max"),
                (tiles.entities.mean(), *tiles.entities.quantile([0.5, 0.95, 1])),
                strict=True,
            )
        },
        "tags": int(uses.sum()),
        "distinct_tags": int((uses > 0).sum()),
        "top_keys": dict(sorted(per_key.items(), key=lambda item: -item[1])[:12]),
        "labels": {column_of(task, rule): _label(corpus, task, rule) for task in TASKS},
        "splits": _splits(corpus),
    }


def _label(corpus: Corpus, task: str, rule: str) -> dict | None:
    values = corpus.tiles[column_of(task, rule)]
    known = values.dropna()
    if known.empty:
        return None
    found: dict[str, int | float | None] = {
        "tiles": len(known),
        "positive": int((known > 0).sum()),
    }
    if task == "max_speed":
        # rule paper has a negative speed where there is no road
        mean = known[known >= 0].mean()
        found["mean"] = None if np.isnan(mean) else round(float(mean), 1)
    else:
        found["total"] = int(known.sum())
    return found | {"kept": int(paper_kept(values, task).sum())} if rule == "paper" else found


def _splits(corpus: Corpus) -> dict:
    """Number of blocks; and of each fold the sizes of its parts, or why there is none."""
    folds: list[dict[str, int | str]] = []
    for fold in range(FOLDS):
        try:
            parts = split(corpus.tiles, fold).describe()
        except GeoJEPAError as error:
            folds.append({"error": str(error)})
        else:
            names = ("train", "validation", "test", "left_out")
            folds.append({part: parts[part] for part in names})
    return {"blocks": len(set(blocks(corpus.tiles))), "folds": folds}


def summary_text(found: dict) -> str:
    """The summary as a table for people."""
    lines = [
        f"{found['corpus']}  (hash {found['hash']})  {found['attribution']}",
        f"tiles      {found['tiles']:>9,}  with image {found['tiles_with_image']:,}, "
        f"side {' / '.join(map(str, found['ground_m']))} m (least / median / most)",
        f"entities   {found['entities']:>9,}  "
        + ", ".join(f"{n} {c:,}" for n, c in found["entities_by_kind"].items()),
        "           a tile: "
        + ", ".join(f"{n} {v:.0f}" for n, v in found["entities_per_tile"].items()),
        f"tags       {found['tags']:>9,}  {found['distinct_tags']:,} distinct; "
        + ", ".join(f"{k} {n:,}" for k, n in list(found["top_keys"].items())[:6]),
    ]
    for task, label in found["labels"].items():
        told = "no label in this source"
        if label:
            known = f"mean {label['mean']} km/h" if "mean" in label else f"total {label['total']:,}"
            told = f"{label['positive']:,} of {label['tiles']:,} tiles positive, {known}"
        told += f", {label['kept']:,} kept" if label and "kept" in label else ""
        lines.append(f"label      {task:<16} {told}")
    for fold, parts in enumerate(found["splits"]["folds"]):
        counts = ", ".join(f"{part} {n}" for part, n in parts.items())
        lines.append(parts.get("error", f"fold {fold}     {counts}"))
    for place in found["places"]:
        skipped = ", ".join(f"{k}: {n}" for k, n in place["skipped"].items()) or "nothing"
        lines.append(
            f"{place['place']}: {place['tiles']:,} tiles, {place['tiles_below_limit']:,} below and "
            f"{place['tiles_above_limit']:,} above the limits; skipped or repaired: {skipped}"
        )
    return "\n".join(map(printable, lines))


def write_labels(corpus: Corpus, path: str | Path, rule: str = "exact") -> None:
    """One line a tile: tile_id, entities and the five labels, empty where there is none.

    By rule paper also which tiles it keeps for each task, in columns such as `kept_bridge`.
    """
    tiles = corpus.tiles
    table = pd.DataFrame({"tile_id": tiles.tile_id, "entities": tiles.entities})
    for task in TASKS:
        values = tiles[column_of(task, rule)].astype(float)
        column = values.round(1) if task == "max_speed" else values.astype("Int64")
        table[column_of(task, rule)] = column
    if rule == "paper":
        for task in TASKS:
            kept = paper_kept(tiles[column_of(task, rule)], task)
            table[f"kept_{task}"] = kept.astype(int)
    with whole(path) as part:
        table.to_csv(part, index=False)
