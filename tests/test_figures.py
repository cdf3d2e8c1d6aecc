"""Figures: what is saved with them, what they say, and that text from a map cannot harm them."""

import ast
import http.server
import io
import json
import math
import subprocess
import threading
from pathlib import Path

import handmade
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from matplotlib import pyplot as plt
from PIL import Image
from rasterio.enums import ColorInterp

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError
from geojepa.figures import contents, label_maps, maps, masks, neighbours, projection, tiles
from geojepa.figures.character import characters, mapped_characters
from geojepa.figures.publication import save_figure
from geojepa.figures.shapes import draw_shapes
from geojepa.figures.style import plain, use_style
from geojepa.origin import code_state
from geojepa.training.config import MaskConfig

mpl.use("agg")
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
HOSTILE = [
    "$\\frac{1}{",
    "a$b$",
    "<script>alert(1)</script>",
    "up\u202edown\x07\n",
    "%s{x}\\",
    "_^$$",
]
COLUMN, ROW = 34432, 23040


@pytest.fixture(autouse=True)
def _closed():
    use_style()
    yield
    plt.close("all")


def degrees(tile: int, x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude of a place in tile units, y north, of the tile-th tile of a row."""
    lon = (COLUMN + tile + x) / 2**16 * 360 - 180
    north = math.pi * (1 - 2 * (ROW + 1 - y) / 2**16)
    return lon, math.degrees(math.atan(math.sinh(north)))


class Ground:
    """Nodes and rectangular ways on a row of tiles."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.ways: list = []

    def node(self, tile: int, x: float, y: float, **tags: str) -> int:
        self.nodes.append(handmade.node(len(self.nodes) + 1, *degrees(tile, x, y), **tags))
        return len(self.nodes)

    def area(self, tile: int, left: float, low: float, right: float, high: float, **tags: str):
        corners = [(left, low), (right, low), (right, high), (left, high)]
        ring = [self.node(tile, *corner) for corner in corners]
        self.ways.append(handmade.way(len(self.ways) + 1, [*ring, ring[0]], **tags))

    def corpus(self, folder: Path) -> Corpus:
        extract = handmade.write_osm(folder / "made.osm.pbf", [*self.nodes, *self.ways])
        return Corpus.open(prepare([extract], folder / "made"))


@pytest.fixture(scope="module")
def row_of_tiles(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Five tiles whose character can be told by hand."""
    ground = Ground()
    for tile in range(5):
        for i in range(5):
            ground.node(tile, 0.1 + 0.2 * i, 0.95, natural="tree")
    # more wood than park
    ground.area(0, 0.05, 0.05, 0.55, 0.9, landuse="forest")
    ground.area(0, 0.6, 0.05, 0.9, 0.9, leisure="park")
    # twelve buildings, and a park too small to matter
    for i in range(12):
        ground.area(1, 0.05 + 0.07 * i, 0.1, 0.1 + 0.07 * i, 0.2, building="yes")
    ground.area(1, 0.1, 0.5, 0.3, 0.7, leisure="park")
    # nothing but trees, and a house
    ground.area(2, 0.4, 0.4, 0.5, 0.5, building="house")
    # two fields together exceed the homes
    ground.area(3, 0.05, 0.05, 0.3, 0.9, landuse="farmland")
    ground.area(3, 0.35, 0.05, 0.6, 0.9, landuse="meadow")
    ground.area(3, 0.65, 0.05, 0.95, 0.9, landuse="residential")
    # one lake under two tags counts once, and loses
    ground.area(4, 0.05, 0.05, 0.35, 0.9, landuse="basin", natural="water")
    ground.area(4, 0.4, 0.05, 0.9, 0.9, natural="bare_rock")
    return ground.corpus(tmp_path_factory.mktemp("row"))


def test_a_tile_is_named_after_its_largest_class_of_area(row_of_tiles: Corpus):
    named = dict(zip(row_of_tiles.tiles.x - COLUMN, mapped_characters(row_of_tiles, np.arange(5)),
                     strict=True))  # fmt: skip
    assert named == {0: "woodland", 1: "built-up", 2: "open", 3: "farmland", 4: "wild"}


def test_quarters_are_the_truth_where_they_name_every_tile(row_of_tiles: Corpus, tmp_path: Path):
    rows, ids = np.arange(5), row_of_tiles.tiles.tile_id
    file = tmp_path / "quarters.csv"
    pd.DataFrame({"tile_id": ids, "quarter": "old_town"}).to_csv(file, index=False)
    assert set(characters(row_of_tiles, rows, file)) == {"old town"}
    pd.DataFrame({"tile_id": ids[:4], "quarter": "old_town"}).to_csv(file, index=False)
    assert "woodland" in characters(row_of_tiles, rows, file)
    assert "woodland" in characters(row_of_tiles, rows, tmp_path / "absent.csv")


def test_a_figure_is_saved_whole_with_its_origin(tiny_corpus: Corpus, tmp_path: Path):
    figure, _ = plt.subplots()
    table = pd.DataFrame({"tile_id": ["16_1_2"], "x": [1 / 3]})
    facts = {"seed": 3, "preset": "small-t"}
    for _ in range(2):
        folder = save_figure(
            tmp_path, "one", figure, table, caption="A.", corpus=tiny_corpus, parameters=facts
        )
    names = {"figure.png", "figure.pdf", "table.csv", "provenance.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert folder == tmp_path / "results" / "one"
    assert [path.name for path in folder.parent.iterdir()] == ["one"]
    assert (folder / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "figure.pdf").read_bytes()[:5] == b"%PDF-"
    pd.testing.assert_frame_equal(pd.read_csv(folder / "table.csv"), table, rtol=1e-6)

    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["figure"] == "one"
    assert origin["caption"] == "A."
    assert origin["parameters"] == facts
    assert origin["seed"] == 3
    assert origin["corpus"]["hash"] == tiny_corpus.hash
    assert origin["versions"]["torch"]
    for field in ("commit", "dirty", "python", "device", "cpu", "threads", "date", "seconds"):
        assert field in origin
    said = [text.get_text() for text in figure.texts]
    assert len(said) == 1
    assert "made city" in said[0]
    assert "images: made by us" in said[0]


def test_a_figure_that_cannot_be_published_is_refused(tiny_corpus: Corpus, tmp_path: Path):
    figure, _ = plt.subplots()
    some, none = pd.DataFrame({"x": [1]}), pd.DataFrame({"x": []})
    for name, table in (("../up", some), ("", some), ("empty", none)):
        with pytest.raises(GeoJEPAError, match="figure"):
            save_figure(
                tmp_path, name, figure, table, caption="", corpus=tiny_corpus, parameters={}
            )
    assert list(tmp_path.rglob("*")) == []


def test_dirty_speaks_of_code_and_not_of_results(tmp_path: Path):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    code = tmp_path / "code"
    code.mkdir()
    assert code_state(code)["dirty"] is None
    git("init")
    (code / "a.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    for folder in ("results", "runs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "figure.png").write_text("x")
    state = code_state(code)
    assert state["dirty"] is False
    assert len(str(state["commit"])) == 40
    (code / "a.py").write_text("2")
    assert code_state(code)["dirty"] is True


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_a_map_is_drawn_as_it_is_written(text: str, tmp_path: Path):
    table = pd.DataFrame({"what": ["key", "tag"], "tag": text, "entities": 1, "share": 0.5})
    figure = contents.draw_tags(table)
    figure.savefig(tmp_path / "figure.pdf")
    for axes in figure.axes:
        label = axes.get_yticklabels()[0]
        drawn, is_formula = label._preprocess_math(label.get_text())
        assert not is_formula
        assert all(c.isprintable() for c in drawn)
        visible = "".join(c if c.isprintable() else " " for c in text)
        assert drawn == " ".join(visible.split())


def test_long_text_is_cut():
    assert plain("a" * 500) == "a" * 39 + "…"


def test_holes_stay_empty():
    square, hole = shapely.box(0, 0, 1, 1), shapely.box(0.25, 0.25, 0.75, 0.75)
    for shape in (square.difference(hole), shapely.reverse(square).difference(hole)):
        figure = plt.figure(figsize=(1, 1), dpi=40, layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        draw_shapes(axes, np.array([shape]), "black", areas={"linewidths": 0})
        figure.canvas.draw()
        shade = np.asarray(figure.canvas.buffer_rgba())[..., 0]
        assert shade[5, 5] == 0
        assert shade[20, 20] == 255


def test_entities_stand_on_their_tiles(row_of_tiles: Corpus):
    data = row_of_tiles.read([0, 3])
    shapes = maps.to_plane(data, row_of_tiles.tiles.geometry.iloc[data.rows])
    tile = maps.footprints(row_of_tiles.tiles.iloc[data.rows])
    owner = np.repeat([0, 1], np.diff(data.cu_entities))
    assert shapely.covers(shapely.buffer(tile[owner], 1e-3), shapes).all()
    forest = shapes[shapely.area(shapes) > 0][0]
    share = shapely.area(forest) / shapely.area(tile[0])
    assert share == pytest.approx(0.5 * 0.85, abs=1e-3)


def test_a_stray_tile_does_not_shrink_the_map():
    grid = np.array([shapely.box(x, y, x + 1, y + 1) for x in range(20) for y in range(20)])
    assert maps.bulk(grid).tolist() == [0, 0, 20, 20]
    with_stray = np.append(grid, shapely.box(500, 0, 501, 1))
    assert maps.bulk(with_stray).tolist() == [0, 0, 20, 20]


def test_neighbours_of_the_same_block_have_no_vote():
    # three blocks, each a cluster and a class of its own: only a leak can name them
    blocks = np.repeat(["a", "b", "c"], 15)
    vectors = np.repeat(np.eye(3), 15, axis=0) + np.random.default_rng(0).normal(0, 0.01, (45, 3))
    assert (projection.neighbour_votes(vectors, blocks, blocks) != blocks).all()
    # classes spread over the blocks are found across them
    names = np.tile(["x", "y", "z"], 15)
    vectors = np.tile(np.eye(3), (15, 1))
    assert (projection.neighbour_votes(vectors, names, blocks) == names).all()
    table = neighbours.neighbour_table(vectors, np.array([0, 20]), np.arange(45), names, blocks, 4)
    assert table[table["rank"] == 0].tile_id.tolist() == [0, 20]
    others = table[table["rank"] > 0]
    assert (blocks[others.tile_id] != blocks[others["query"]]).all()
    assert (others.character == names[others["query"]]).all()


def test_accuracy_counts_rare_classes_alike():
    votes = pd.DataFrame({"system": "s", "character": ["a"] * 9 + ["b"], "vote": ["a"] * 10})
    score = projection.accuracy_table(votes).iloc[0]
    assert (score.accuracy, score.balanced_accuracy, score.commonest) == (0.9, 0.5, 0.9)


def test_umap_is_the_same_for_the_same_seed():
    vectors = np.random.default_rng(0).normal(size=(24, 6))
    one = projection.umap_2d(vectors, seed=1)
    assert one.shape == (24, 2)
    np.testing.assert_array_equal(one, projection.umap_2d(vectors, seed=1))


def test_shares_are_counted_token_by_token(tiny_corpus: Corpus):
    chosen = masks.strategies(MaskConfig(), has_images=True)
    batches = masks.token_batches(tiny_corpus)
    row = tiles.choose_tile(tiny_corpus)
    table = masks.token_table(batches, row, chosen, seed=0, step=0)
    assert set(table.strategy) == {"random", "contiguous", "area", "modality"}
    tokens = tiny_corpus.tiles.entities[row] + batches.config.patches
    shares = masks.share_table(batches, np.array([row]), chosen, seed=0, step=0)
    mean = shares.set_index(["strategy", "part"])["mean"]
    for name, part in table.groupby("strategy"):
        assert len(part) == tokens
        bits = part.targets.to_numpy()
        assert mean[name, "context"] == pytest.approx((bits == 0).mean())
        assert mean[name, "any target set"] == pytest.approx((bits > 0).mean())
        counts = [int(b).bit_count() for b in bits]
        assert mean[name, "predictions"] == pytest.approx(np.mean(counts))
    figure = masks.draw_tile_masks(tiny_corpus, row, table)
    assert len(figure.axes) == 4 * 5


def test_a_picture_with_a_mask_of_its_own_can_lie_below_a_map(tiny_corpus, city, tmp_path):
    """Four bands, the last an alpha: what `prepare` takes for imagery a map takes, too."""
    with rasterio.open(city.imagery) as source:
        rgb, profile = source.read(), source.profile | {"count": 4}
    alpha = np.full_like(rgb[:1], 255)
    alpha[:, : alpha.shape[1] // 2] = 0
    path = tmp_path / "masked.tif"
    with rasterio.open(path, "w", **profile) as file:
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        file.write(np.concatenate([rgb, alpha]))
    table = contents.tile_table(tiny_corpus).assign(part="train")
    figure = contents.draw_split(tiny_corpus, table, str(path))
    drawn = figure.axes[0].images[0].get_array()
    assert set(np.unique(drawn[..., 3])) == {0, 255}
    assert 0.4 < (drawn[..., 3] == 0).mean() < 0.6


def test_every_figure_of_a_corpus_can_be_drawn(tiny_corpus: Corpus, city, tmp_path: Path):
    table = contents.tile_table(tiny_corpus).assign(part="train")
    contents.draw_split(tiny_corpus, table, str(city.imagery)).canvas.draw()
    contents.draw_split(tiny_corpus, table, "").canvas.draw()
    entities = contents.histogram_table(tiny_corpus)
    assert (entities.groupby("what").tiles.sum() == len(tiny_corpus)).all()
    contents.draw_histograms(tiny_corpus, entities).canvas.draw()
    label_maps.draw_labels(tiny_corpus, label_maps.label_table(tiny_corpus)).canvas.draw()
    row = tiles.choose_tile(tiny_corpus)
    assert len(tiles.entity_table(tiny_corpus.read([row]))) == tiny_corpus.tiles.entities[row]
    tiles.draw_layers(tiny_corpus, row).canvas.draw()
    (tmp_path / "bad.tif").write_text("no raster")
    with pytest.raises(GeoJEPAError, match=r"bad\.tif"):
        contents.draw_split(tiny_corpus, table, str(tmp_path / "bad.tif"))
    with pytest.raises(GeoJEPAError, match="16_0_0"):
        tiles.choose_tile(tiny_corpus, "16_0_0")


def test_tag_shares_are_those_of_entities(row_of_tiles: Corpus):
    table = contents.tag_table(row_of_tiles).set_index("tag")
    # 25 trees, 12 + 1 buildings, 2 + 1 + 3 + 2 areas
    entities = 25 + 13 + 8
    assert table.share["natural=tree"] == pytest.approx(25 / entities)
    assert table.share["building"] == pytest.approx(13 / entities)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_clean_and_parameterised(path: Path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert len(code) <= 15
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    for line in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(line, ast.Assign)
        assert type(ast.literal_eval(line.value)) in (str, int, float)


def test_web_tiles_are_drawn_below_a_map(tiny_corpus):
    """From a server of the test's own; the real ones take the same path."""
    tile = io.BytesIO()
    Image.new("RGB", (256, 256), (10, 200, 30)).save(tile, "PNG")
    asked = []

    class Tiles(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(tile.getvalue())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tiles)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    figure, axes = plt.subplots()
    west, south, east, north = tiny_corpus.tiles.to_crs(3857).total_bounds
    axes.set(xlim=(west, east), ylim=(south, north))
    address = f"http://127.0.0.1:{server.server_port}/{{z}}/{{x}}/{{y}}.png"
    maps.draw_ground(axes, tiny_corpus, tiny_corpus.usable, address)
    server.shutdown()
    assert asked
    shown = np.asarray(axes.images[0].get_array())[..., :3]
    assert (shown.reshape(-1, 3) == (10, 200, 30)).all(axis=1).mean() > 0.9
    plt.close(figure)
