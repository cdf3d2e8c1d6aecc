"""Rasters of known colours at known places land in the right tile, north up."""

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_bounds
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geojepa.data.cutting import Grid, to_degrees
from geojepa.data.imagery import SIZE, read_images
from geojepa.errors import GeoJEPAError

N = 2**16
HALF = np.pi * 6378137
SIDE = 2 * HALF / N
# in zone 31 of EPSG:32631
X, Y = 33500, 22500
TILES = [(X + i, Y + j) for j in (0, 1) for i in (0, 1)]


def grid_of(tiles, images=None) -> Grid:
    xy = np.array(tiles)
    frame = np.stack([xy[:, 0], N - 1 - xy[:, 1], np.ones(len(xy))], axis=1).astype(float)
    boxes = shapely.box(frame[:, 0], frame[:, 1], frame[:, 0] + 1, frame[:, 1] + 1)
    names = [f"16_{x}_{y}" for x, y in tiles]
    blank = [""] * len(tiles)
    footprint = shapely.transform(boxes, to_degrees)
    return Grid(names, xy, frame, footprint, blank, images or blank)


def colours(tile: int) -> np.ndarray:
    """(2, 2, 3) colours of a tile's quarters: first row north, first column west."""
    quarters = [[tile * 60 + 10, 40 * q, 200 - 30 * q] for q in range(4)]
    return np.array(quarters, np.uint8).reshape(2, 2, 3)


def write_raster(path, pixels=64, crs="EPSG:3857", bands=3, dtype="uint8", width=2, **options):
    """The four tiles (or `width` of their two columns), a quarter `pixels` wide."""
    rows = [
        np.concatenate([colours(0), colours(1)], 1),
        np.concatenate([colours(2), colours(3)], 1),
    ]
    image = np.concatenate(rows).repeat(pixels, axis=0).repeat(pixels, axis=1)
    image = image[:, : round(image.shape[1] * width / 2)]
    left, top = X * SIDE - HALF, HALF - Y * SIDE
    bounds = (left, top - 2 * SIDE, left + width * SIDE, top)
    place = from_bounds(*bounds, image.shape[1], image.shape[0])
    data = image.transpose(2, 0, 1).astype(dtype)[:bands]
    if bands == 4:
        data = np.concatenate([data, np.full_like(data[:1], 255)])
    if crs not in ("EPSG:3857", None):
        size = image.shape[1], image.shape[0]
        target, w, h = calculate_default_transform("EPSG:3857", crs, *size, *bounds)
        warped = np.zeros((len(data), h, w), dtype)
        reproject(data, warped, src_transform=place, src_crs="EPSG:3857", dst_transform=target,
                  dst_crs=crs, resampling=Resampling.nearest)  # fmt: skip
        data, place = warped, target
    about = {"driver": "GTiff", "count": len(data), "dtype": dtype, "crs": crs, **options}
    with rasterio.open(
        path, "w", height=data.shape[1], width=data.shape[2], transform=place, **about
    ) as file:
        file.write(data)
    return path


def assert_placed(images, tiles=range(4), tolerance=0):
    for tile in tiles:
        for row in (0, 1):
            for column in (0, 1):
                # the quarter's inside: borders are mixed when resampled
                a, b = SIZE // 2 * row + 8, SIZE // 2 * column + 8
                quarter = images[tile, a : a + 96, b : b + 96].astype(int)
                assert np.abs(quarter - colours(tile)[row, column]).max() <= tolerance


@pytest.mark.parametrize("pixels", [16, 50, 112, 300])
def test_colours_land_where_they_are(tmp_path, pixels):
    images, has_image = read_images(write_raster(tmp_path / "a.tif", pixels), grid_of(TILES))
    assert has_image.all()
    assert images.shape == (4, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert_placed(images)


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_colours_land_where_they_are_in_another_crs(tmp_path, crs):
    images, has_image = read_images(
        write_raster(tmp_path / "a.tif", 200, crs, nodata=0), grid_of(TILES)
    )
    assert_placed(images, np.flatnonzero(has_image))
    assert has_image.sum() >= 1


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "RGB", "alpha": "YES"},
        {"photometric": "RGB", "alpha": "NO"},
    ],
    ids=["transparency", "infrared"],
)
def test_a_fourth_band_is_no_colour(tmp_path, options):
    path = write_raster(tmp_path / "a.tif", bands=4, **options)
    images, has_image = read_images(path, grid_of(TILES))
    assert has_image.all()
    assert_placed(images)


def test_a_tile_that_is_partly_covered_has_no_image(tmp_path):
    path = write_raster(tmp_path / "a.tif", width=1.5)
    images, has_image = read_images(path, grid_of([*TILES, (X + 9, Y)]))
    assert has_image.tolist() == [True, False, True, False, False]
    assert_placed(images, [0, 2])
    assert not images[~has_image].any()


def test_averages_where_the_raster_is_finer(tmp_path):
    left, top = X * SIDE - HALF, HALF - Y * SIDE
    n = SIZE * 2
    chequers = ((np.indices((n, n)).sum(axis=0) % 2) * 200).astype(np.uint8)
    place = from_bounds(left, top - SIDE, left + SIDE, top, n, n)
    about = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(
        tmp_path / "a.tif", "w", height=n, width=n, transform=place, **about
    ) as file:
        file.write(np.stack([chequers] * 3))
    images, _ = read_images(tmp_path / "a.tif", grid_of(TILES[:1]))
    assert (images[0] == 100).all()


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"crs": None}, "has no CRS"),
        ({"bands": 1}, "1 bands; RGB is needed"),
        ({"dtype": "uint16"}, "holds uint16; scale it to 8 bits"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rasters_that_cannot_be_placed_or_read_are_refused(tmp_path, options, cause):
    with pytest.raises(GeoJEPAError, match=rf"a.tif: .*{cause}"):
        read_images(write_raster(tmp_path / "a.tif", **options), grid_of(TILES))


def test_missing_broken_and_distant_imagery_is_refused(tmp_path):
    with pytest.raises(GeoJEPAError, match=r"no.tif: no such imagery"):
        read_images(tmp_path / "no.tif", grid_of(TILES))
    path = tmp_path / "text.tif"
    path.write_text("not a raster")
    with pytest.raises(GeoJEPAError, match=r"text.tif: not a readable raster"):
        read_images(path, grid_of(TILES))
    with pytest.raises(GeoJEPAError, match=r"a.tif: the imagery covers no tile"):
        read_images(write_raster(tmp_path / "a.tif"), grid_of([(10, 10)]))
    whole = path.with_name("a.tif").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GeoJEPAError, match=r"text.tif: not a readable raster"):
        read_images(path, grid_of(TILES))
    (tmp_path / "folder").mkdir()
    with pytest.raises(GeoJEPAError, match="covers no tile"):
        read_images(tmp_path / "folder", grid_of(TILES))


def picture(path, tile, size=(2, 2), mode="RGB"):
    image = Image.fromarray(colours(tile)).resize(size, Image.Resampling.NEAREST)
    image.convert(mode).save(path)


def test_images_by_name(tmp_path):
    picture(tmp_path / f"16_{X}_{Y}.png", 0)
    picture(tmp_path / "east.png", 1, (256, 256), "RGBA")
    picture(tmp_path / f"16_{X}_{Y + 1}.tif", 2, (500, 300))
    grid = grid_of([*TILES, (X + 5, Y)], ["", "east.png", "", "none.png", ""])
    images, has_image = read_images(tmp_path, grid)
    assert has_image.tolist() == [True, True, True, False, False]
    assert_placed(images, [0, 1, 2], tolerance=0)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    picture(tmp_path / "secret.png", 1)
    picture(inside / "own.png", 0)
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["own.png", "../secret.png", str(tmp_path / "secret.png"), "link.png"]
    _, has_image = read_images(inside, grid_of(TILES, names))
    assert has_image.tolist() == [True, False, False, False]


def test_a_damaged_image_is_named(tmp_path):
    path = tmp_path / f"16_{X}_{Y}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for some in (b"not a picture", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(some)
        with pytest.raises(GeoJEPAError, match=rf"{path.name}: not a readable image"):
            read_images(tmp_path, grid_of(TILES))
