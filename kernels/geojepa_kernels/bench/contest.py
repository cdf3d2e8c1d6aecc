"""One case of an operation: every way checked, then timed, and the rows of the table."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from geojepa_kernels.bench.bounds import Rates, Work, bounds
from geojepa_kernels.bench.rows import Row
from geojepa_kernels.bench.timing import Clock, Run, make_clock, reason, summary, take_turns


@dataclass(frozen=True)
class Entry:
    """A way that enters a contest.

    Attributes:
        check: its error on a small sample; may raise.
        prepare: to its run on a numbered buffer; may raise.
    """

    check: Callable[[], float]
    prepare: Callable[[], Run]


UNQUEUED = "not queued: waits for the device, or one call has too many launches"


@dataclass
class Judge:
    """Times contests on one device.

    Attributes:
        device: of the ways.
        rates: of the device.
        rounds: of each way, at most.
        seconds: of a contest.
    """

    device: torch.device
    rates: Rates
    rounds: int
    seconds: float

    def __post_init__(self) -> None:
        self.clock: Clock = make_clock(self.device)

    def rows(self, facts: Row, entries: Mapping[str, Entry], buffers: int, work: Work) -> list[Row]:
        """A row for each way and clock, and one for each way that failed, with the reason.

        Args:
            facts: of the case, in every row.
            entries: by name of the way; "ours" is what ratios are relative to.
            buffers: that the runs have.
            work: the least of the case.
        """
        errors, runs, failures = {}, {}, {}
        for way, entry in entries.items():
            try:
                errors[way] = entry.check()
                runs[way] = entry.prepare()
            except Exception as error:
                failures[way] = reason(error)
        times, failed = take_turns(runs, buffers, self.clock, self.rounds, self.seconds)
        failures |= failed
        del runs
        self.release()
        rows: list[Row] = []
        for way in entries:
            row = {"buffers": buffers, **facts, "way": way}
            if way in errors:
                row["error"] = errors[way]
            if way in failures:
                rows.append({**row, "status": failures[way]})
                continue
            for clock in self.clock.names:
                found = summary(times[way, clock], times.get(("ours", clock), {}))
                status = "ok" if found["rounds"] else UNQUEUED
                best = bounds(work, self.rates, found.get("ms_median"))
                rows.append({**row, "clock": clock, "status": status, **found, **best})
        return rows

    def release(self) -> None:
        """Frees the buffers of a contest."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
