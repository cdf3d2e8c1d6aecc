"""Figures of what a corpus holds: counted again from first principles, drawn from hostile text."""

import itertools
import math
from pathlib import Path

import handmade
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import shapely
from matplotlib import pyplot as plt
from matplotlib.text import Text

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare
from geojepa.figures import contents, cooccurrence, label_maps, sheet, tiles, treemap
from geojepa.figures.style import use_style

mpl.use("agg")
HOSTILE = [
    "$\\frac{1}{",
    "a$b$ \\alpha",
    "<script>alert(1)</script><img src=x>",
    "up\u202edown\x07\n\x1b[31m",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u202bx\u202c",
    "../../%s{x}\\",
    "w" * 10_000,
]


@pytest.fixture(autouse=True)
def _closed():
    use_style()
    yield
    plt.close("all")


def degrees(column: int, row: int, x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude of a place in a zoom-16 tile, y north."""
    north = math.pi * (1 - 2 * (row + 1 - y) / 2**16)
    return (column + x) / 2**16 * 360 - 180, math.degrees(math.atan(math.sinh(north)))


def grove(column: int, row: int, trees: int = 5, start: int = 1, **tags: str) -> list:
    """Trees, tagged nodes, on one tile."""
    at = [degrees(column, row, 0.1 + 0.8 * i / trees, 0.5) for i in range(trees)]
    return [handmade.node(start + i, *at[i], natural="tree", **tags) for i in range(trees)]


def corpus_of(folder: Path, name: str, objects: list) -> Corpus:
    extract = handmade.write_osm(folder / f"{name}.osm.pbf", objects)
    return Corpus.open(prepare([extract], folder / name))


def drawn_text(figure: plt.Figure) -> list[str]:
    """Every text of a figure as it is drawn, formulas refused."""
    figure.canvas.draw()
    shown = []
    for text in figure.findobj(Text):
        drawn, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula, drawn
        shown.append(drawn)
    return shown


@pytest.mark.parametrize("sizes", [[1], [5, 3, 2, 1], [1] * 7, [1000, 1, 1], [9] * 50], ids=str)
def test_rectangles_of_a_treemap_fill_its_box_without_overlap(sizes: list[float]):
    left, top, width, height = 1.0, 2.0, 8.0, 5.0
    boxes = treemap.squarify(sizes, (left, top, width, height))
    shapes = shapely.box(*np.array([(x, y, x + w, y + h) for x, y, w, h in boxes]).T)
    share = np.array(sizes) / sum(sizes)
    np.testing.assert_allclose(shapely.area(shapes), share * width * height)
    assert shapely.area(shapely.union_all(shapes)) == pytest.approx(width * height)
    frame = shapely.buffer(shapely.box(left, top, left + width, top + height), 1e-9)
    assert shapely.covers(frame, shapes).all()


def test_equal_rectangles_of_a_treemap_are_squarish():
    boxes = treemap.squarify([1.0] * 12, (0, 0, 4, 3))
    np.testing.assert_allclose([box[2:] for box in boxes], 1.0)


def test_treemap_counts_every_use_once(tiny_corpus: Corpus):
    table = treemap.treemap_table(tiny_corpus, keys=5, values=3)
    uses = pd.Series(
        [pair for tags in tiny_corpus.read(range(len(tiny_corpus))).tags() for pair in tags.items()]
    ).value_counts()
    assert table.uses.sum() == uses.sum()
    whole = table.groupby("key").uses.sum()
    for key, count in whole.items():
        if not key.startswith("other keys ("):
            assert count == sum(n for pair, n in uses.items() if pair[0] == key)
    assert len(whole) == 6
    for line in table.itertuples():
        if (line.key, line.value) in uses:
            assert uses[line.key, line.value] == line.uses
    assert set(table[table.value == "yes"].kind) == {"polygon"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_of_the_map_harms_no_figure(text: str):
    table = pd.DataFrame(
        {
            "key": ["building", "building", text, text],
            "value": [text, "yes", text, "b" + text],
            "uses": [500, 400, 300, 200],
            "kind": ["polygon", "line", "point", "group"],
        }
    )
    pairs = pd.DataFrame(
        {
            "scope": ["tile"] * 3 + ["entity"] * 3,
            "key": [text, text, "a"] * 2,
            "other": ["a", "b", "b"] * 2,
            "lift": [2.0, 0.0, np.nan, 1.0, 4.0, 0.0],
        }
    )
    for figure in (treemap.draw_treemap(table), cooccurrence.draw_cooccurrence(pairs)):
        for drawn in drawn_text(figure):
            assert all(c.isprintable() or c == "\n" for c in drawn)
            assert len(drawn) < 150
        figure.canvas.draw()


def test_hostile_tags_pass_from_extract_to_figures(tmp_path: Path):
    objects = []
    for i, text in enumerate(text[:255] for text in HOSTILE):
        legal = "".join(c for c in text if c >= " ")
        objects += grove(34432 + i % 2, 23040, 5, 1 + 5 * i, shop=legal, operator=legal)
    corpus = corpus_of(tmp_path, "made", objects)
    assert len(corpus) == 2
    figures = [
        treemap.draw_treemap(treemap.treemap_table(corpus)),
        contents.draw_tags(contents.tag_table(corpus)),
        cooccurrence.draw_cooccurrence(cooccurrence.cooccurrence_table(corpus)),
        tiles.draw_layers(corpus, 0),
        label_maps.draw_labels(corpus, label_maps.label_table(corpus)),
    ]
    for figure in figures:
        drawn_text(figure)


def test_lift_is_what_counting_by_hand_gives(tiny_corpus: Corpus):
    table = cooccurrence.cooccurrence_table(tiny_corpus, most=8)
    data = tiny_corpus.read(range(len(tiny_corpus)))
    entities = [{k for k, v in tags.items() if v} for tags in data.tags()]
    bounds = itertools.pairwise(data.cu_entities.tolist())
    on_tile = [set().union(*entities[a:b]) for a, b in bounds]
    assert len(table) == 2 * 8 * 7 / 2
    for line in table.itertuples():
        sets = {"tile": on_tile, "entity": entities}[line.scope]
        one, other, both = (
            sum(keys <= found for found in sets)
            for keys in ({line.key}, {line.other}, {line.key, line.other})
        )
        assert (line.with_key, line.with_other, line.together) == (one, other, both)
        assert line.of == len(sets)
        expected = one * other / len(sets)
        if max(expected, both) >= cooccurrence.LEAST:
            assert line.lift == pytest.approx(both / expected)
        else:
            assert math.isnan(line.lift)
    assert cooccurrence.draw_cooccurrence(table).axes


def test_tables_do_not_depend_on_the_rows_read_at_once(tiny_corpus: Corpus, monkeypatch):
    def tables() -> list[pd.DataFrame]:
        makers = (treemap.treemap_table, contents.tag_table, cooccurrence.cooccurrence_table)
        return [make(tiny_corpus) for make in makers]

    at_once = tables()
    monkeypatch.setattr(contents, "CHUNK", 7)
    most = []
    read = Corpus.read
    monkeypatch.setattr(
        Corpus, "read", lambda self, rows: most.append(len(rows)) or read(self, rows)
    )
    for one, other in zip(at_once, tables(), strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert max(most) == 7


def test_tokens_are_entities_and_patches(tiny_corpus: Corpus):
    assert contents.PATCHES == 196
    table = contents.histogram_table(tiny_corpus)
    counts = {"entities": tiny_corpus.tiles.entities.to_numpy()}
    counts["tokens"] = counts["entities"] + 196 * tiny_corpus.has_image
    for line in table.itertuples():
        values = counts[line.what]
        assert line.tiles == ((values >= line[2]) & (values < line.to)).sum()
    # the name of the median stands above the frame, where no bar reaches
    figure = contents.draw_histograms(tiny_corpus, table)
    figure.canvas.draw()
    for axes in figure.axes:
        name = axes.texts[0].get_window_extent()
        assert name.y0 >= max(bar.get_window_extent().y1 for bar in axes.patches)


def test_places_apart_share_a_sheet_without_overlap(tmp_path: Path):
    west = [o for i in range(4) for o in grove(20000 + i, 23040, 5, 1 + 5 * i)]
    east = [o for i in range(3) for o in grove(40000, 23040 + i, 5, 1 + 5 * i)]
    # a scattered place: two tiles far apart
    apart = [o for i in range(2) for o in grove(50000 + 3000 * i, 20000, 5, 1 + 5 * i)]
    folders = [tmp_path / name for name in ("west", "east", "apart")]
    for folder, objects in zip(folders, (west, east, apart), strict=True):
        corpus_of(tmp_path, folder.name, objects)
    corpus = Corpus.open(folders)
    assert sorted(map(len, sheet.groups(corpus.tiles))) == [1, 1, 3, 4]
    placed = sheet.lay_out(corpus.tiles, 6, 4)
    assert sorted(placed.rows) == list(range(9))
    assert not placed.is_map
    left, bottom, right, top = shapely.total_bounds(placed.shapes)
    assert min(left, bottom) >= -1e-9
    assert right <= 6
    assert top <= 4
    area = shapely.area(placed.shapes)
    np.testing.assert_allclose(area, area[0])
    assert shapely.area(shapely.union_all(placed.shapes)) == pytest.approx(area.sum())
    assert {text for _, _, text in placed.names} >= {"west, 4 tiles", "east, 3 tiles"}
    part = contents.tile_table(corpus).assign(part="train")
    contents.draw_split(corpus, part).canvas.draw()
    label_maps.draw_labels(corpus, label_maps.label_table(corpus)).canvas.draw()


def test_a_tile_is_chosen_where_members_of_a_relation_see_each_other(tmp_path: Path):
    objects: list = []
    for tile in range(12):
        objects += grove(34432 + tile, 23040, 5 + tile, 1 + 100 * tile)
    # two stretches of a route that do not touch, on the poorest tile
    ends = [(0.2, 0.2), (0.2, 0.8), (0.6, 0.2), (0.6, 0.8)]
    nodes = [handmade.node(5000 + i, *degrees(34432, 23040, *at)) for i, at in enumerate(ends)]
    ways = [handmade.way(1, [5000, 5001], highway="path")]
    ways.append(handmade.way(2, [5002, 5003], highway="path"))
    members = [("w", 1, ""), ("w", 2, "")]
    route = handmade.relation(1, members, type="route", route="hiking")
    without = corpus_of(tmp_path, "without", [*objects, *nodes, *ways])
    corpus = corpus_of(tmp_path, "with", [*objects, *nodes, *ways, route])
    assert corpus.tiles.tile_id[tiles.choose_tile(corpus)] == "16_34432_23040"
    rich = without.tiles.entities[tiles.choose_tile(without)]
    assert (without.tiles.entities < rich).mean() == pytest.approx(0.8, abs=0.15)
    axes = plt.figure().add_subplot()
    data = corpus.read([tiles.choose_tile(corpus)])
    # each end of a stretch sees the end of the other, and a way alone has one edge
    assert tiles.draw_graph(axes, data.geometry) == (5 + 4 + 4, 4, 2)


def test_rules_are_compared_where_both_give_a_label(tiny_corpus: Corpus):
    assert label_maps.rule_table(tiny_corpus).empty or "paper_bridge" in tiny_corpus.tiles

    class Two:
        tiles = pd.DataFrame(
            {"bridge": [1.0, 0.0, np.nan, 0.0], "paper_bridge": [1.0, 1.0, 1.0, np.nan]}
        )

    found = label_maps.rule_table(Two())  # type: ignore[arg-type]
    line = found.iloc[0].to_dict()
    assert line == {
        "task": "bridge",
        "tiles_ours": 3,
        "tiles_paper": 3,
        "tiles_both": 2,
        "mean_ours": 0.5,
        "mean_paper": 1.0,
        "above_zero_ours": 1,
        "above_zero_paper": 2,
        "differ": 1,
    }
