"""The rate of training: the script's table on a CPU, and what its numbers mean."""

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import train_rate


def test_every_setting_is_a_row_whose_numbers_belong_together(tiny_corpus, tmp_path, monkeypatch):
    arguments = f"train_rate {tiny_corpus.paths[0]} --out {tmp_path} --presets smoke-t smoke-gti "
    arguments += "--tiles 4 8 --steps 3 --device cpu --compile 0"
    monkeypatch.setattr(sys, "argv", arguments.split())
    assert train_rate.main() == 0
    table = pd.read_csv(tmp_path / "train_rate.csv")
    assert set(zip(table.preset, table.batch_tiles, strict=True)) == {
        (name, tiles) for name in ("smoke-t", "smoke-gti") for tiles in (4, 8)
    }
    assert (table.low <= table.tiles_per_second).all()
    assert (table.tiles_per_second <= table.high).all()
    # 64.8 million passes of a tile
    assert (table.paper_hours * table.tiles_per_second * 3600).to_list() == pytest.approx(
        [64.8e6] * 4, rel=1e-4
    )
    product = table.flops_per_token * table.tokens_per_second
    assert table.flops_per_second.to_list() == pytest.approx(product.to_list(), rel=1e-3)
    # nobody knows what a CPU could do at best
    assert table.utilisation.isna().all()
