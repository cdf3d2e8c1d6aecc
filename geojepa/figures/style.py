"""The look of every figure: colours that colour-blind readers can tell apart, and plain text."""

import unicodedata

import matplotlib as mpl
import seaborn as sns

# Okabe and Ito (2008): distinct under the common kinds of colour blindness
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
)
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK = PALETTE
GREY, PALE = "#8C8C8C", "#E4E4E4"
# one-way scales: dark is more
SCALE = "cividis_r"
WIDTH = 8.0


def use_style() -> None:
    """Set the style of all figures made from now on in this process."""
    sns.set_theme(context="notebook", style="ticks", palette=list(PALETTE), font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (WIDTH, 4.5),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.linewidth": 0.8,
            # an offset would be written over the title
            "axes.formatter.useoffset": False,
            "image.interpolation": "nearest",
            # text stays text in a PDF
            "pdf.fonttype": 42,
        }
    )


def plain(text: str, length: int = 40) -> str:
    """Text from a map, safe to draw: no control or invisible characters, no formulas, not too long.

    Args:
        text: anything a mapper may have typed.
        length: characters to keep; the rest becomes an ellipsis.
    """
    # C: control, format (which turns writing round) and unassigned characters
    shown = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in str(text))
    shown = " ".join(shown.split())
    if len(shown) > length:
        shown = shown[: length - 1] + "…"
    return shown.replace("$", r"\$")
