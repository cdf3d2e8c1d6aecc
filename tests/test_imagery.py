"""Rasters of known colours at known places land in the right tile, north up."""

import warnings
from contextlib import suppress

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_bounds
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geojepa.data.grid import Grid, to_degrees
from geojepa.data.imagery import SIZE, open_imagery
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


def read_images(source, grid):
    """All tiles, in two batches."""
    rows = np.arange(len(grid.tile_id))
    with open_imagery(source) as imagery:
        parts = [imagery.read(grid, part) for part in np.array_split(rows, 2)]
    images, has_image = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert not images[~has_image].any()
    return images, has_image


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


@pytest.mark.parametrize(
    ("bands", "options"),
    [(3, {}), (4, {"photometric": "RGB", "alpha": "NO"})],
    ids=["rgb", "infrared"],
)
def test_a_tile_that_is_partly_covered_has_no_image(tmp_path, bands, options):
    path = write_raster(tmp_path / "a.tif", width=1.5, bands=bands, **options)
    images, has_image = read_images(path, grid_of([*TILES, (X + 9, Y)]))
    assert has_image.tolist() == [True, False, True, False, False]
    assert_placed(images, [0, 2])


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


def write_pixels(path, pixels, left, top, right, bottom, mask=None, **options):
    """(rows, columns, bands) pixels on ground given in tiles from the first tile's corner."""
    west, north = X * SIDE - HALF, HALF - Y * SIDE
    h, w, bands = pixels.shape
    place = from_bounds(west + left * SIDE, north - bottom * SIDE,
                        west + right * SIDE, north - top * SIDE, w, h)  # fmt: skip
    about = {"driver": "GTiff", "count": bands, "dtype": "uint8", "crs": "EPSG:3857", **options}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", height=h, width=w, transform=place, **about) as file,
    ):
        file.write(pixels.transpose(2, 0, 1))
        if mask is not None:
            file.write_mask(mask)
    return path


def area_means(pixels, low, high):
    """(SIZE, SIZE, bands) means over the area, of pixels that span [0, 1], within [low, high]."""

    def weights(n):
        edges = np.linspace(low, high, SIZE + 1) * n
        cell = np.arange(n)
        overlap = np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell)
        return np.clip(overlap, 0, None) / (edges[1] - edges[0])

    down, across = weights(pixels.shape[0]), weights(pixels.shape[1])
    return np.einsum("ih,hwb,jw->ijb", down, pixels.astype(float), across, optimize=True)


@pytest.mark.parametrize(("n", "side"), [(256, 1.0), (700, 1.0), (900, 0.31)], ids=str)
def test_a_pixel_is_the_mean_over_its_area(tmp_path, n, side):
    pixels = np.random.default_rng(n).integers(0, 256, (n, n, 3), np.uint8)
    path = write_pixels(tmp_path / "a.tif", pixels, 0, 0, 1, 1)
    grid = grid_of(TILES[:1])
    # the upper left corner of the tile, `low` from its borders
    low = 0.2 if side < 1 else 0.0
    grid.frame[0] = X + low, N - Y - low - side, side
    images, has_image = read_images(path, grid)
    assert has_image.all()
    assert np.abs(images[0] - area_means(pixels, low, low + side)).max() <= 0.51


@pytest.mark.parametrize("kind", ["nodata", "transparency", "mask", "infrared, nodata"])
@pytest.mark.parametrize("missing", [5, 40])
def test_what_is_masked_darkens_nothing(tmp_path, kind, missing):
    pixels = np.full((SIZE * 2, SIZE * 2, 3), (200, 90, 40), np.uint8)
    # black is a colour where only one band of it is
    pixels[::2, :, 0] = 0
    covered = np.ones(pixels.shape[:2], bool)
    covered[:, -missing:] = False
    pixels[~covered] = 0
    options = {"nodata": 0} if "nodata" in kind else {}
    if kind == "mask":
        options["mask"] = covered
    if kind in ("transparency", "infrared, nodata"):
        fourth = covered[..., None].astype(np.uint8) * (255 if kind == "transparency" else 80)
        pixels = np.concatenate([pixels, fourth], axis=2)
        options |= {"photometric": "RGB", "alpha": "YES" if kind == "transparency" else "NO"}
    path = write_pixels(tmp_path / "a.tif", pixels, 0, 0, 1, 1, **options)
    images, has_image = read_images(path, grid_of(TILES[:1]))
    assert has_image.tolist() == [missing == 5]
    if has_image[0]:
        assert (images[0] == (100, 90, 40)).all()


def write_vrt(path, parts, size):
    """A mosaic as gdalbuildvrt writes it, of rasters (name, column, row) of `size` pixels."""
    pixel = SIDE / size
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{size}" '
            f'ySize="{size}"/><DstRect xOff="{column * size}" yOff="{row * size}" '
            f'xSize="{size}" ySize="{size}"/></SimpleSource>'
            for name, column, row in parts
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = f"{X * SIDE - HALF}, {pixel}, 0, {HALF - Y * SIDE}, 0, {-pixel}"
    path.write_text(
        f'<VRTDataset rasterXSize="{2 * size}" rasterYSize="{size}"><SRS>EPSG:3857</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def quarters(tile, pixels=64):
    return colours(tile).repeat(pixels, axis=0).repeat(pixels, axis=1)


def test_a_virtual_raster_of_two(tmp_path):
    write_pixels(tmp_path / "west.tif", quarters(0), 0, 0, 1, 1)
    write_pixels(tmp_path / "east.tif", quarters(1), 1, 0, 2, 1)
    path = write_vrt(tmp_path / "both.vrt", [("west.tif", 0, 0), ("east.tif", 1, 0)], 128)
    images, has_image = read_images(path, grid_of(TILES))
    assert has_image.tolist() == [True, True, False, False]
    assert_placed(images, [0, 1])


def test_the_copyright_of_a_raster_is_its_credit(tmp_path):
    path = write_raster(tmp_path / "a.tif")
    with open_imagery(path) as imagery:
        assert imagery.credit == ""
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_COPYRIGHT="A Surveyor,\n2020")
    for source in (path, tmp_path):
        with open_imagery(source) as imagery:
            assert imagery.credit == "A Surveyor, 2020"


def test_a_palette_is_refused(tmp_path):
    path = write_pixels(tmp_path / "a.tif", np.zeros((9, 9, 1), np.uint8), 0, 0, 1, 1)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (9, 9, 9, 255)})
    with pytest.raises(GeoJEPAError, match=r"a.tif: the raster has a palette; expand it"):
        open_imagery(path)


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


def test_a_raster_beyond_the_earth_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif")
    for x in (-1e47, np.inf, np.nan):
        with rasterio.open(path, "r+") as file:
            file.transform = rasterio.Affine(19, 0, x, 0, -19, 0)
        with pytest.raises(GeoJEPAError, match=r"a.tif: the raster lies beyond the Earth"):
            open_imagery(path)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_damaged_rasters_are_read_or_refused(tmp_path):
    whole = write_raster(tmp_path / "a.tif", 16, "EPSG:32631", compress="deflate").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        # the head, where a damage has a meaning
        data[rng.integers(0, min(len(data), 900), 8)] = rng.integers(0, 256, 8)
        (tmp_path / "a.tif").write_bytes(data.tobytes())
        with suppress(GeoJEPAError):
            read_images(tmp_path / "a.tif", grid_of(TILES))


def test_missing_broken_and_distant_imagery_is_refused(tmp_path):
    with pytest.raises(GeoJEPAError, match=r"no.tif: no such imagery"):
        read_images(tmp_path / "no.tif", grid_of(TILES))
    path = tmp_path / "text.tif"
    path.write_text("not a raster")
    with pytest.raises(GeoJEPAError, match=r"text.tif: not a readable raster"):
        read_images(path, grid_of(TILES))
    far = grid_of([(10, 10), (N - 1, N - 1), (X, N - 1 - Y)])
    assert not read_images(write_raster(tmp_path / "a.tif"), far)[1].any()
    whole = path.with_name("a.tif").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GeoJEPAError, match=r"text.tif: not a readable raster"):
        read_images(path, grid_of(TILES))
    (tmp_path / "folder").mkdir()
    assert not read_images(tmp_path / "folder", grid_of(TILES))[1].any()


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


def test_a_transparent_picture_is_no_ground(tmp_path):
    rgba = np.full((SIZE, SIZE, 4), (200, 90, 40, 255), np.uint8)
    for tile, missing in enumerate((2, 20)):
        rgba[:, :missing] = 0
        x, y = TILES[tile]
        Image.fromarray(rgba).save(tmp_path / f"16_{x}_{y}.png")
    images, has_image = read_images(tmp_path, grid_of(TILES[:2]))
    assert has_image.tolist() == [True, False]
    assert (images[0] == (200, 90, 40)).all()


def uniform(path, colour, left, top, right, bottom, crs="EPSG:3857"):
    """A raster of one colour, 4 px of nodata around it."""
    pixels = np.zeros((208, 208, 3), np.uint8)
    pixels[4:-4, 4:-4] = colour
    if crs == "EPSG:3857":
        return write_pixels(path, pixels, left, top, right, bottom, nodata=0)
    plain = write_pixels(path.with_suffix(".part"), pixels, left, top, right, bottom, nodata=0)
    with rasterio.open(plain) as file:
        place, w, h = calculate_default_transform(file.crs, crs, 208, 208, *file.bounds)
        about = file.profile | {"crs": crs, "transform": place, "width": w, "height": h}
        data = np.zeros((3, h, w), np.uint8)
        reproject(file.read(), data, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
                  dst_transform=place, dst_crs=crs, dst_nodata=0)  # fmt: skip
    plain.unlink()
    with rasterio.open(path, "w", **about) as file:
        file.write(data)
    return path


@pytest.mark.parametrize(("old", "new"), [("EPSG:32631", "EPSG:3857"), ("EPSG:3857", "EPSG:32631")])
def test_a_folder_of_rasters_is_a_mosaic_with_the_last_name_on_top(tmp_path, old, new):
    dark, bright = (30, 20, 10), (250, 240, 230)
    uniform(tmp_path / "2019_bright.tif", bright, -0.2, -0.2, 1.2, 1.2, old)
    uniform(tmp_path / "2021_dark.tif", dark, 0.5, -0.2, 2.2, 1.2, new)
    (tmp_path / "notes.txt").write_text("no raster")
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasterio.errors.NotGeoreferencedWarning)
        Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "picture.tif")
        images, has_image = read_images(tmp_path, grid_of([*TILES, (X + 9, Y)]))
    assert has_image.tolist() == [True, True, False, False, False]
    for tile in (0, 1):
        is_dark, is_bright = ((images[tile] == colour).all(axis=-1) for colour in (dark, bright))
        assert (is_dark ^ is_bright).all()
        # the dark one begins in the middle of the first tile, after its nodata
        expected = SIZE * (0.5 + 1.7 * 4 / 208) if tile == 0 else 0
        assert np.abs((~is_dark).sum(axis=1) - expected).max() <= 3


def test_a_picture_by_name_precedes_the_rasters_of_its_folder(tmp_path):
    uniform(tmp_path / "ground.tif", (30, 20, 10), -0.2, -0.2, 2.2, 1.2)
    picture(tmp_path / "own.png", 1)
    images, has_image = read_images(tmp_path, grid_of(TILES[:2], ["", "own.png"]))
    assert has_image.all()
    assert (images[0] == (30, 20, 10)).all()
    assert_placed(images, [1])


def test_a_broken_raster_of_a_folder_is_named(tmp_path):
    write_raster(tmp_path / "a.tif")
    write_raster(tmp_path / "b.tif", dtype="uint16")
    with pytest.raises(GeoJEPAError, match=r"b.tif: the raster holds uint16"):
        open_imagery(tmp_path)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:50])
    with pytest.raises(GeoJEPAError, match=r"b.tif: not a readable raster"):
        open_imagery(tmp_path)


def test_a_tile_has_the_same_pixels_in_every_batch(tmp_path):
    noise = np.random.default_rng(0).integers(1, 256, (300, 300, 3), np.uint8)
    write_pixels(tmp_path / "a.tif", noise, -0.1, -0.1, 1.3, 2.1)
    write_pixels(tmp_path / "b.tif", noise[::-1], 0.7, -0.2, 2.1, 2.1)
    grid = grid_of([*TILES, (X + 5, Y)])
    with open_imagery(tmp_path) as imagery:
        together, has_image = imagery.read(grid, np.arange(5))
        assert has_image.tolist() == [True] * 4 + [False]
        for rows in ([2], [3, 0], [4, 1, 1]):
            images, has = imagery.read(grid, np.array(rows))
            assert np.array_equal(images, together[rows])
            assert np.array_equal(has, has_image[rows])
        images, has = imagery.read(grid, np.arange(0))
        assert images.shape == (0, SIZE, SIZE, 3)
        assert has.shape == (0,)
