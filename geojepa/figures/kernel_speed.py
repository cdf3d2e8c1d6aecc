"""The kernels in numbers: time beside every alternative, share of the bounds, registers.

`python -m geojepa.figures.kernel_speed` draws what tables there are in `results/kernels`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geojepa.figures.style import BLUE, GREY, PALETTE, RED, WIDTH, use_style
from geojepa.files import whole

FOLDER = Path(__file__).resolve().parents[2] / "results/kernels"
PASSES = ("forward", "forward+backward")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
NO_HEADS = "none"


def read_table(name: str, folder: Path = FOLDER) -> pd.DataFrame | None:
    """A table of the kernels, or None where it has not been made."""
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else None


def comparable(table: pd.DataFrame, dtype: str = "bfloat16") -> pd.DataFrame:
    """The rows of a speed table that were timed, in one dtype, by the device's own clock."""
    clock = "queued" if (table["clock"] == "queued").any() else "launched"
    # masks are drawn in none
    is_dtype = table["dtype"].isna() | (table["dtype"] == dtype)
    return table[is_dtype & (table["clock"] == clock) & (table["status"] == "ok")]


def plot_speed(table: pd.DataFrame) -> Figure:
    """How many times as long as ours each way takes: median and quartiles by batch and head size.

    Args:
        table: what `comparable` leaves of attention.csv or shared_context.csv.
    """
    cases, sizes = list(table["case"].unique()), sorted(table["head_dim"].unique())
    ways = [way for way in table["way"].unique() if way != "ours"]
    colours = dict(zip(ways, [*PALETTE[1:], GREY] * 2, strict=False))
    figure, axes = plt.subplots(
        2, len(sizes), figsize=(WIDTH + 3, 6), sharex=True, sharey="row", squeeze=False
    )
    for row, part in zip(axes, PASSES, strict=True):
        for axis, size in zip(row, sizes, strict=True):
            here = table[(table["pass"] == part) & (table["head_dim"] == size)]
            for step, (way, rows) in enumerate(here[here["way"] != "ours"].groupby("way")):
                rows = rows.set_index("case").reindex(cases)
                place = np.arange(len(cases)) + 0.06 * (step - len(ways) / 2)
                axis.vlines(place, rows["ratio_q25"], rows["ratio_q75"], color=colours[way], lw=2)
                axis.plot(place, rows["ratio_median"], "o", color=colours[way], ms=4)
            axis.axhline(1, color=BLUE, lw=1.5)
            axis.set_title(f"{part}, heads of {size:.0f}")
            axis.set_yscale("log", base=2)
            axis.yaxis.set_major_formatter("{x:g}")
            axis.grid(axis="y", lw=0.4)
            axis.set_xticks(
                range(len(cases)), cases, rotation=60, ha="right", rotation_mode="anchor"
            )
        row[0].set_ylabel("time / ours")
    keys = [Line2D([], [], color=BLUE, label="ours")]
    keys += [Line2D([], [], ls="", marker="o", color=colours[way], label=way) for way in ways]
    figure.legend(handles=keys, loc="outside lower center", ncols=5)
    return figure


def plot_share(table: pd.DataFrame) -> Figure:
    """Share that ours reaches of what binds, memory (filled) or arithmetic, by batch."""
    table = table[table["way"] == "ours"]
    cases, sizes = list(table["case"].unique()), sorted(table["head_dim"].unique())
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    for axis, part in zip(axes, PASSES, strict=True):
        for step, (size, colour) in enumerate(zip(sizes, PALETTE, strict=False)):
            rows = table[(table["pass"] == part) & (table["head_dim"] == size)]
            rows = rows.set_index("case").reindex(cases)
            place = np.arange(len(cases)) + 0.1 * (step - (len(sizes) - 1) / 2)
            filled = np.where(rows["binding"] == "memory", colour, "white")
            axis.scatter(
                place,
                100 * rows["share"],
                c=filled,
                edgecolors=colour,
                label=f"heads of {size:.0f}",
            )
        axis.set(title=part, ylim=(0, 100))
        axis.grid(axis="y", lw=0.4)
        axis.set_xticks(range(len(cases)), cases, rotation=60, ha="right", rotation_mode="anchor")
    axes[0].set_ylabel("% of the bound")
    keys = [
        Line2D([], [], ls="", marker="o", color=colour, label=f"heads of {size:.0f}")
        for size, colour in zip(sizes, PALETTE, strict=False)
    ]
    keys += [
        Line2D([], [], ls="", marker="o", color=GREY, label="memory binds"),
        Line2D([], [], ls="", marker="o", color=GREY, mfc="white", label="arithmetic binds"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def plot_compiled(table: pd.DataFrame, target: str = "sm_90", dtype: str = "bf16") -> Figure:
    """Registers a thread and shared memory of each kernel and configuration, spills ringed.

    Args:
        table: compiled.csv.
        target: the GPUs to show.
        dtype: of the attention kernels; those without heads are shown in every dtype.
    """
    table = table[table["target"] == target]
    size = table["head_dim"].fillna(0).astype(int)
    table = table.assign(heads=size.astype(str).where(size > 0, NO_HEADS))
    table = table[(size == 0) | table["dtype"].isin((dtype, "bfloat16"))]
    sizes = sorted(set(table["heads"]), key=lambda size: int(size) if size != NO_HEADS else 1000)
    kernels = list(table.loc[table["heads"] != NO_HEADS, "kernel"].unique())
    looks = {k: (PALETTE[i % 8], MARKS[i % 7]) for i, k in enumerate(kernels)}
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8))
    for axis, column, unit in zip(axes, ("registers", "shared_bytes"), (1, 1024), strict=True):
        for at, size in enumerate(sizes):
            rows = table[table["heads"] == size]
            spread = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else np.zeros(len(rows))
            for x, row in zip(at + spread, rows.to_dict("records"), strict=True):
                colour, mark = looks.get(row["kernel"], (GREY, "."))
                axis.plot(x, row[column] / unit, mark, color=colour, ms=4)
                if row["spill_bytes"]:
                    axis.plot(x, row[column] / unit, "o", mfc="none", mec=RED, ms=9)
        axis.set_xticks(range(len(sizes)), sizes)
        axis.set(xlabel="head size", ylim=(0, None))
        axis.grid(axis="y", lw=0.4)
    axes[0].set(title=f"Registers a thread, {target}", ylim=(0, 265))
    axes[0].axhline(255, color=GREY, lw=0.8, ls=":")
    axes[1].set(title="Shared memory a program, KiB")
    figure.legend(handles=_keys(table, looks), loc="outside lower center", ncols=3)
    return figure


def _keys(table: pd.DataFrame, looks: dict[str, tuple[str, str]]) -> list[Line2D]:
    keys = [
        Line2D([], [], ls="", marker=mark, color=colour, label=kernel)
        for kernel, (colour, mark) in looks.items()
    ]
    if (table["heads"] == NO_HEADS).any():
        keys.append(Line2D([], [], ls="", marker=".", color=GREY, label="kernels without heads"))
    if table["spill_bytes"].any():
        keys.append(Line2D([], [], ls="", marker="o", mfc="none", mec=RED, label="spills"))
    return keys


def plot_masking(table: pd.DataFrame) -> Figure:
    """Microseconds of each step of masking, ours and plain PyTorch: median and quartiles."""
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2))
    steps = list(table["pass"].unique())
    for colour, (way, rows) in zip((BLUE, GREY), table.groupby("way", sort=False), strict=False):
        rows = rows.set_index("pass").reindex(steps)
        _times(axis, rows, colour, str(way))
    axis.set_yticks(range(len(steps)), steps)
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="microseconds")
    axis.grid(axis="x", lw=0.4)
    axis.legend()
    return figure


def _times(axis: Axes, rows: pd.DataFrame, colour: str, name: str) -> None:
    place = np.arange(len(rows))
    axis.hlines(place, 1000 * rows["ms_q25"], 1000 * rows["ms_q75"], color=colour, lw=2)
    axis.plot(1000 * rows["ms_median"], place, "o", color=colour, label=name)


def main() -> None:
    """Draw every table of the kernels that there is, beside it."""
    use_style()
    figures: dict[str, Figure] = {}
    for name in ("attention", "shared_context", "masking"):
        table = read_table(name)
        rows = None if table is None else comparable(table)
        if rows is None or rows.empty:
            continue
        figures[name] = plot_masking(rows) if name == "masking" else plot_speed(rows)
        if name != "masking":
            figures[f"{name}_share"] = plot_share(rows)
    table = read_table("compiled")
    if table is not None:
        figures["compiled"] = plot_compiled(table)
    for name, figure in figures.items():
        with whole(FOLDER / f"{name}.png") as part:
            figure.savefig(part, dpi=150, bbox_inches="tight", format="png")
    print(f"{FOLDER.name}: {', '.join(figures) or 'no table to draw'}")


if __name__ == "__main__":
    main()
