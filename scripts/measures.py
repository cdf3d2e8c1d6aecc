"""A table of measures, printed row by row as they are made."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from process_tree import Cost


@dataclass
class Measures:
    """Rows of the table, printed as they come."""

    rows: list[dict[str, str | float | int]] = field(default_factory=list)

    def add(
        self, measure: str, values: Sequence[float], unit: str, value: float | None = None
    ) -> None:
        """Median, least and most of some values; or `value` in place of the median."""
        middle = float(np.median(values)) if value is None else value
        row = {"measure": measure, "value": middle, "low": min(values), "high": max(values)}
        self.rows.append(row | {"unit": unit, "repeats": len(values)})
        spread = f"  ({_short(min(values))} to {_short(max(values))})" if len(values) > 1 else ""
        print(f"{measure:58} {_short(middle):>12} {unit}{spread}", flush=True)

    def add_costs(self, name: str, costs: Sequence[Cost]) -> None:
        """What some runs of one command cost."""
        self.add(f"{name}: time", [c.seconds for c in costs], "s")
        self.add(f"{name}: processor time", [c.cpu_seconds for c in costs], "s")
        self.add(f"{name}: peak memory", [c.peak_bytes / 2**30 for c in costs], "GiB")
        self.add(f"{name}: processes", [c.processes for c in costs], "processes")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
