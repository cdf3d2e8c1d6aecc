"""What one image token tells of its tile: tokenisers whose leak is known beforehand."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from test_splits import city

from geojepa.data.splits import blocks
from geojepa.errors import GeoJEPAError
from geojepa.evaluation import leak
from geojepa.evaluation.image_tokens import (
    RandomViT,
    load_backbones,
    patch_tokens,
    random_linear,
    raw_patches,
    weights_of,
)
from geojepa.evaluation.leak import DRAWS, leak_table, pasted_examples, pixel_statistics
from geojepa.figures.image_leak import plot_leak, plot_pasting


class Coloured:
    """Stands in for a corpus: each tile has one colour, of its own, and noise."""

    name = "coloured"

    def __init__(self, side: int = 16):
        self.tiles = city(width=side, height=side)
        self.has_image = np.ones(len(self.tiles), bool)

    def images(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._image(int(row)) for row in rows])

    def _image(self, row: int) -> np.ndarray:
        draw = np.random.default_rng(row)
        noise = draw.integers(-20, 21, (224, 224, 3))
        return (draw.integers(30, 220, 3) + noise).astype(np.uint8)


def local(images: np.ndarray) -> np.ndarray:
    """(n, 49, 3) mean colours of patches of 32 pixels."""
    cells = images.reshape(len(images), 7, 32, 7, 32, 3).astype(np.float64)
    return cells.mean(axis=(2, 4)).reshape(len(images), 49, 3)


def telling(images: np.ndarray) -> np.ndarray:
    """(n, 49, 6): the mean colour of the whole image beside it."""
    tokens = local(images)
    return np.concatenate([tokens, np.broadcast_to(tokens.mean(1)[:, None], tokens.shape)], axis=2)


def silent(images: np.ndarray) -> np.ndarray:
    """(n, 49, 2): noise that knows nothing."""
    draws = [np.random.default_rng(int(one.sum(dtype=np.int64))) for one in images]
    return np.stack([draw.standard_normal((49, 2)) for draw in draws])


@pytest.fixture(scope="module")
def table():
    return leak_table(Coloured(), {"local": local, "telling": telling, "silent": silent})


def r2(table, system, patch, target) -> float:
    is_it = (table.system == system) & (table.patch == patch) & (table.target == target)
    (found,) = table[is_it].r2
    return found


def test_a_local_token_tells_by_likeness_and_never_from_within_another_tile(table):
    # all patches of a tile have its colour
    assert r2(table, "local", "own", "tokens") > 0.95
    assert -0.1 < r2(table, "local", "pasted", "tokens") < 0.02
    assert -0.1 < r2(table, "local", "pasted", "pixels") < 0.02


def test_a_token_that_knows_the_whole_tells_it_wherever_its_patch_is_from(table):
    assert r2(table, "telling", "own", "tokens") > 0.95
    assert r2(table, "telling", "pasted", "tokens") > 0.95
    # three of eight numbers are mean colours; the other five are the noise's, alike everywhere
    assert 0.3 < r2(table, "telling", "pasted", "pixels") < 0.45


def test_noise_tells_nothing(table):
    found = table[table.system == "silent"]
    assert (found.r2 < 0.02).all()
    assert (found.r2 > -0.1).all()


def test_the_table_is_tidy_and_its_intervals_hold_the_value(table):
    keys = table[["system", "patch", "target"]]
    assert len(table) == 12 == len(keys.drop_duplicates())
    assert (table.low <= table.r2).all()
    assert (table.r2 <= table.high).all()
    assert set(table.tokens) == {DRAWS}
    assert table.tiles.nunique() == 1
    assert set(table.blocks) == {len(set(blocks(Coloured().tiles)))}
    assert table[table.system == "telling"].width.unique().tolist() == [6]


def test_a_table_does_not_depend_on_other_systems_and_reads_no_more_tiles_than_told(table):
    alone = leak_table(Coloured(), {"local": local})
    np.testing.assert_allclose(alone.r2, table[table.system == "local"].r2)
    assert set(leak_table(Coloured(), {"local": local}, tiles=120).tiles) == {120}


def test_pasted_patches_are_those_of_the_giver():
    corpus = Coloured()
    rows, draw = np.arange(8), np.arange(8, dtype=np.uint64)
    giver = np.roll(rows, 3)
    read = leak._read(corpus, rows, giver, local, draw, "local")
    images = corpus.images(rows)
    whole = local(images)
    for i in range(8):
        places = np.random.default_rng(i).permutation(49)[:DRAWS]
        np.testing.assert_allclose(read["own"][i], whole[i, places])
        np.testing.assert_allclose(read["pasted"][i], whole[giver[i], places])
        rest = np.setdiff1d(np.arange(49), places)
        np.testing.assert_allclose(read["tokens"][i], whole[i, rest].mean(0))
        # nothing of the patches that are read is in what is to be told
        shown = images[i].reshape(7, 32, 7, 32, 3).transpose(0, 2, 1, 3, 4).reshape(49, -1, 3)
        np.testing.assert_allclose(read["pixels"][i, :3], shown[rest].mean(axis=(0, 1)))


def test_givers_are_others_of_the_same_fold():
    fold = np.random.default_rng(0).integers(0, 5, 60)
    giver = leak._givers(np.arange(60), fold, np.random.default_rng(1).permutation(60))
    assert sorted(giver) == list(range(60))
    assert (giver != np.arange(60)).all()
    assert (fold[giver] == fold).all()


def test_pixel_statistics_equal_a_plain_count():
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    live = np.random.default_rng(1).random((1, 9, 9)) < 0.7
    pixels = [[int(v) for v in image[0, r, c]] for r in range(9) for c in range(9) if live[0, r, c]]
    mean = [sum(p[k] for p in pixels) / len(pixels) for k in range(3)]
    spread = [sum((p[k] - mean[k]) ** 2 for p in pixels) / len(pixels) for k in range(3)]
    steps: dict[tuple[int, int], list[float]] = {(0, 1): [], (1, 0): []}
    for (down, right), found in steps.items():
        for r in range(9 - down):
            for c in range(9 - right):
                if live[0, r, c] and live[0, r + down, c + right]:
                    here, there = image[0, r, c], image[0, r + down, c + right]
                    found.append(abs(int(here.sum()) - int(there.sum())) / 3)
    textures = [sum(found) / len(found) for found in steps.values()]
    exact = [*mean, *(one**0.5 for one in spread), *textures]
    np.testing.assert_allclose(pixel_statistics(image, live)[0], exact)


@pytest.mark.parametrize("side", [14, 16, 24])
def test_patches_of_any_grid_lie_on_their_pixels(side):
    marks = np.zeros((1, side * side), bool)
    marks[0, 2 * side + 5] = True
    found = np.argwhere(leak._spread(marks, 224)[0])
    assert (found // (224 / side)).astype(int)[0].tolist() == [2, 5]
    assert abs(len(found) - (224 / side) ** 2) < 224 / side * 2


def test_local_tokens_are_raw_pixels_and_their_normed_projection():
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    raw = raw_patches(images)
    assert raw.shape == (2, 196, 768)
    first = images[1, 16:32, :16].astype(np.float64).ravel() / 127.5 - 1
    np.testing.assert_allclose(raw[1, 14], first, atol=1e-6)
    projected = random_linear(32)(images)
    assert projected.shape == (2, 196, 32)
    np.testing.assert_allclose(projected.mean(2), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(2), 1, atol=1e-3)
    np.testing.assert_array_equal(patch_tokens(raw_patches)(images), raw[:, 1:])


@pytest.mark.parametrize(
    ("side", "kept", "words"),
    [
        (16, 0, "coloured: no tile has an image; prepare it with --imagery"),
        (16, 3, "coloured: too few tiles with an image to hold out each of 5 folds"),
        # a single block
        (3, 9, "coloured: too few tiles with an image to hold out each of 5 folds"),
    ],
)
def test_a_corpus_that_is_too_small_is_told(side, kept, words):
    corpus = Coloured(side)
    corpus.has_image[kept:] = False
    with pytest.raises(GeoJEPAError, match=words):
        leak_table(corpus, {"local": local})


def test_an_untrained_vit_is_the_seeds_alone_and_mixes_all_patches():
    tokens = RandomViT(width=24, depth=2, heads=2, seed=1).tokens
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    found = tokens(images)
    assert found.shape == (3, 196, 24)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(RandomViT(24, 2, 2, seed=1).tokens(images), found)
    assert np.abs(RandomViT(24, 2, 2, seed=2).tokens(images) - found).max() > 0.1
    # alone as among others
    np.testing.assert_allclose(tokens(images[1:2])[0], found[1], atol=1e-5)
    other = images.copy()
    other[0, :16, :16] = 255 - other[0, :16, :16]
    change = np.abs(tokens(other) - found).max(axis=2)
    # most of all the patch's own token, and every other one
    assert change[0].argmax() == 0
    assert (change[0] > 1e-5).all()
    assert change[1:].max() < 1e-5


def test_blocks_of_an_untrained_vit_differ_and_biases_are_zero():
    model = RandomViT(width=24, depth=2, heads=2)
    first, second = (dict(block.named_parameters()) for block in model.blocks.layers)
    for name, weight in first.items():
        if weight.ndim > 1:
            assert not torch.equal(weight, second[name])
            assert 0.015 < weight.std() < 0.025
        elif name.endswith("bias"):
            assert not weight.any()
        else:
            assert (weight == 1).all()


def test_backbones_are_named_after_their_folders(tmp_path):
    pytest.importorskip("transformers", reason="needs geojepa[vision]")
    from test_backbone import make

    a, b = (make("ViT", tmp_path / name, seed) for seed, name in enumerate(("a", "b")))
    found = load_backbones(f"{a}; {b};")
    assert list(found) == ["a", "b"]
    assert found["a"].sha256 != found["b"].sha256
    told = weights_of(found)
    assert f"a@folder sha256 {found['a'].sha256}; b@folder" in told
    assert str(tmp_path) not in told
    assert load_backbones("") == {}
    with pytest.raises(GeoJEPAError, match="two vision models are called a; rename a folder"):
        load_backbones(f"{a};{a}")
    tokens = patch_tokens(found["a"])(Coloured().images(np.arange(2)))
    assert tokens.shape == (2, 196, 24)


def test_examples_are_what_is_pasted():
    corpus, seen = Coloured(), []

    def watched(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return local(images)

    leak_table(corpus, {"watched": watched}, tiles=100, seed=3)
    # lots of whole and of pasted images take turns
    whole, pasted = (np.concatenate(seen[start::2]) for start in (0, 1))
    assert len(whole) == 100
    images, after, is_read = pasted_examples(corpus, tiles=100, seed=3, count=5, side=7)
    assert is_read.sum(axis=(1, 2)).tolist() == [DRAWS * 32 * 32] * 5
    for image, changed, marks in zip(images, after, is_read, strict=True):
        (row,) = np.flatnonzero((whole == image).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(pasted[row], changed)
        np.testing.assert_array_equal((image != changed).any(axis=2) & ~marks, False)
    figure = plot_pasting(images, after, is_read)
    assert len(figure.axes) == 10
    plt.close(figure)


def test_the_figure_shows_every_row(table):
    figure = plot_leak(table)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["silent", "telling", "local"]
    for axis, target in zip(figure.axes, ("pixels", "tokens"), strict=True):
        drawn = sorted(x for line in axis.lines[:2] for x in line.get_xdata())
        assert drawn == sorted(table[table.target == target].r2)
    plt.close(figure)
