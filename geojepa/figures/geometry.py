"""Geometry encoders as pictures: what their vectors know, and distances read back from one."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import shapely
import torch
from matplotlib.figure import Figure

from geojepa.evaluation.shapes import QUESTIONS
from geojepa.figures.style import BLUE, GREEN, GREY, ORANGE, WIDTH
from geojepa.model.geometry import Frame
from geojepa.model.graph_network import GraphNetwork, graph_batch
from geojepa.training.geometry import REACH, Field

# cells of a side of a field's picture
SIDE = 96


def plot_shapes(table: pd.DataFrame) -> Figure:
    """Held-out R2 with its 95 % interval, by question and encoder.

    Args:
        table: of `shapes.shape_table`.
    """
    questions = [name for name in QUESTIONS if name in set(table["question"])][::-1]
    encoders = list(dict.fromkeys(table["encoder"]))
    figure, axis = plt.subplots(figsize=(WIDTH, 1.4 + 0.55 * len(questions)))
    shifts = np.linspace(0.24, -0.24, len(encoders))
    for shift, name, colour in zip(shifts, encoders, (BLUE, ORANGE, GREEN, GREY), strict=False):
        rows = table[table["encoder"] == name].set_index("question").reindex(questions)
        place = np.arange(len(questions)) + shift
        # a few questions are hopeless for a few encoders: their bars may start beyond the edge
        low, high, r2 = (rows[column].clip(lower=-0.1) for column in ("low", "high", "r2"))
        axis.hlines(place, low, high, color=colour, lw=1.4)
        axis.plot(r2, place, "o", color=colour, ms=5, label=name)
    axis.axvline(0, color=GREY, lw=0.8)
    axis.axvline(1, color=GREY, lw=0.8)
    axis.grid(axis="x", lw=0.4)
    axis.set_yticks(range(len(questions)), questions)
    axis.set(xlim=(-0.12, 1.03), xlabel="R² of a linear answer, geometries of held-out tiles")
    figure.legend(loc="outside upper center", ncols=len(encoders))
    return figure


def telling_shapes(geometry: np.ndarray) -> np.ndarray:
    """Rows of up to six that differ: line, ring, house, area with a hole, several parts, point."""
    count = shapely.get_num_coordinates(geometry)
    kind, parts = shapely.get_type_id(geometry), shapely.get_num_geometries(geometry)
    holes = shapely.get_num_interior_rings(geometry)
    is_line, is_area, is_drawn = kind == 1, kind == 3, count <= 120
    wanted = (
        (is_line & ~shapely.is_ring(geometry), count * is_drawn),
        (is_line & shapely.is_ring(geometry), count * is_drawn),
        (is_area & (holes == 0) & (count <= 25), count),
        (is_area & (holes > 0), count * is_drawn),
        ((parts > 1) & (kind == 6), count * is_drawn),
        (kind == 0, count),
    )
    return np.array(
        [int(np.argmax(np.where(fits, score, -1))) for fits, score in wanted if fits.any()]
    )


@torch.no_grad()
def field_table(
    network: GraphNetwork, field: Field, geometry: np.ndarray, box: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """Distances around geometries, true and read back from the network's vectors alone.

    Returns:
        One row a geometry: its type, nodes, mean absolute error of the distance and share of
        places rightly said to lie within, over a square grid. And the distances (n, 2, SIDE,
        SIDE), true and read, in units of half the box's longer side, rows from the south.
    """
    steps = np.linspace(-REACH, REACH, SIDE)
    place = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, -1, 2)
    frame, n = Frame.of(box), len(geometry)
    owner = np.repeat(np.arange(n), SIDE * SIDE)
    points = shapely.points(frame.tile(np.tile(place[0], (n, 1)), owner))
    far = shapely.distance(geometry[owner], points) / frame.scale[owner]
    far = far.reshape(n, -1)
    device = next(network.parameters()).device
    vector = network(graph_batch(geometry, box).to(device))
    asked = torch.tensor(np.tile(place, (n, 1, 1)), dtype=torch.float32, device=device)
    read, within = field(vector, asked).float().cpu().numpy().transpose(2, 0, 1)
    read = np.where(within > 0, 0, read.clip(min=0))
    table = pd.DataFrame(
        {
            "type": [shape.geom_type for shape in geometry],
            "nodes": shapely.get_num_coordinates(geometry),
            "distance_error": np.abs(read - far).mean(axis=1),
            "within_right": ((within > 0) == (far == 0)).mean(axis=1),
        }
    )
    return table, np.stack([far, read], axis=1).reshape(n, 2, SIDE, SIDE)


def plot_fields(
    table: pd.DataFrame, fields: np.ndarray, geometry: np.ndarray, box: np.ndarray
) -> Figure:
    """True distances above, those read from the vector below, the geometry drawn over both.

    Args:
        table, fields: of `field_table`.
        geometry, box: (n,) and (n, 8), in tile units.
    """
    n, frame = len(geometry), Frame.of(box)
    figure, axes = plt.subplots(2, n, figsize=(1.5 * n + 1.6, 3.9), squeeze=False)
    for column, shape in enumerate(geometry):

        def local(xy: np.ndarray, row: int = column) -> np.ndarray:
            return frame.local(xy, np.full(len(xy), row))

        shown = shapely.transform(shape, local)
        paths = shapely.get_parts(shapely.boundary(shown) if shown.area else shown)
        for axis, field in zip(axes[:, column], fields[column], strict=True):
            extent = (-REACH, REACH, -REACH, REACH)
            image = axis.imshow(
                field, origin="lower", extent=extent, cmap="cividis", vmin=0, vmax=1
            )
            for path in paths:
                xy = shapely.get_coordinates(path)
                style = "o" if len(xy) == 1 else "-"
                axis.plot(*xy.T, style, color="white", lw=0.9, ms=4)
            axis.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[:2])
        row = table.iloc[column]
        axes[0, column].set_title(f"{row['type']}\n{row['nodes']} vertices", fontsize=9)
        axes[1, column].set_xlabel(f"error {row['distance_error']:.3f}")
    axes[0, 0].set_ylabel("true")
    axes[1, 0].set_ylabel("read from the vector")
    figure.colorbar(image, ax=list(axes.flat), label="distance, half box sides", shrink=0.8)
    return figure
