"""How many tiles have how many tokens, by place: the lengths that kernels are timed on.

`python scripts/tile_lengths.py CORPUS...` writes `results/kernels/lengths.csv` and
`lengths.json`, where the table comes from. A token is an entity of a tile; tiles are those that
training and benchmark take.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.files import whole
from geojepa.origin import code_state

ROOT = Path(__file__).resolve().parent.parent


def length_table(corpora: Sequence[Corpus]) -> pd.DataFrame:
    """place, tokens, tiles: sorted by place, then tokens."""
    tables = []
    for corpus in corpora:
        tokens = corpus.tiles["entities"].iloc[corpus.usable]
        counts = tokens.value_counts().rename_axis("tokens").reset_index(name="tiles")
        tables.append(counts.assign(place=corpus.name))
    table = pd.concat(tables)[["place", "tokens", "tiles"]]
    return table.sort_values(["place", "tokens"], ignore_index=True)


def write_lengths(corpora: Sequence[Corpus], folder: Path) -> None:
    """Writes `lengths.csv`, its first line the attribution, and `lengths.json`."""
    credits = list(dict.fromkeys(corpus.attribution for corpus in corpora))
    table = length_table(corpora)
    with whole(folder / "lengths.csv") as part:
        text = f"# {'; '.join(credits)}\n" + table.to_csv(index=False, lineterminator="\n")
        part.write_text(text, encoding="utf-8")
    facts = {
        "attribution": "; ".join(credits),
        **code_state(ROOT),
        "corpora": {one.name: {"hash": one.hash, "tiles": len(one.usable)} for one in corpora},
    }
    with whole(folder / "lengths.json") as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name corpora, as in: python scripts/tile_lengths.py corpus/malta")
    try:
        write_lengths([Corpus.open(path) for path in sys.argv[1:]], ROOT / "results/kernels")
    except GeoJEPAError as error:
        sys.exit(f"tile_lengths: {error}")
