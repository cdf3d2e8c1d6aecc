"""Times of several ways to do the same, taking turns, by two clocks.

"launched": calls one after another on a device that waits for them, the host's work included: what
a program gets whose device is faster than its host. "queued": the same calls after the device was
held up until the host had issued all of them: what the device itself takes. Each block of calls
works on different buffers and keeps its results, so that no cache serves what memory must.
"""

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Protocol

import numpy as np
import torch

Run = Callable[[int], object]
# seconds of a call, by round
Times = dict[int, float]

LEAST_ROUNDS = 5
QUANTILES = {"q10": 0.1, "q25": 0.25, "median": 0.5, "q75": 0.75, "q90": 0.9}
# a way for which the device cannot be held up so long has no queued time
LONGEST_HOLD = 0.2


class Clock(Protocol):
    """Times blocks of calls."""

    names: tuple[str, ...]

    def seconds(self, work: Callable[[], object], name: str) -> float | None:
        """Of a block by one of `names`; None where it cannot be had."""


class HostClock:
    """Of work on the CPU."""

    names = ("launched",)

    def seconds(self, work: Callable[[], object], name: str) -> float:
        """Until the call returns."""
        start = perf_counter()
        work()
        return perf_counter() - start


class DeviceClock:
    """Of work on a CUDA device, by its events."""

    names = ("launched", "queued")

    def __init__(self) -> None:
        self.issuing = 0.0
        cycles = 20_000_000
        self._between(lambda: torch.cuda._sleep(cycles), 0)
        self.rate = cycles / self._between(lambda: torch.cuda._sleep(cycles), 0)[0]

    def seconds(self, work: Callable[[], object], name: str) -> float | None:
        """Between an event before the block's work and one behind it."""
        if name == "launched":
            return self._between(work, 0)[0]
        # the host has as a rule just issued the same work
        hold = 0.001 + 1.5 * self.issuing
        while hold <= LONGEST_HOLD:
            found, was_held = self._between(work, round(hold * self.rate))
            if was_held:
                return found
            hold *= 4
        return None

    def _between(self, work: Callable[[], object], cycles: int) -> tuple[float, bool]:
        """Seconds, and whether the host had issued all before the device began."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        if cycles:
            torch.cuda._sleep(cycles)
        start.record()
        began = perf_counter()
        kept = work()
        self.issuing = perf_counter() - began
        end.record()
        was_held = not start.query()
        end.synchronize()
        del kept
        return start.elapsed_time(end) / 1000, was_held


def make_clock(device: torch.device) -> Clock:
    """The clock of a device."""
    return DeviceClock() if device.type == "cuda" else HostClock()


def take_turns(
    runs: Mapping[str, Run], buffers: int, clock: Clock, rounds: int, seconds: float, seed: int = 0
) -> tuple[dict[tuple[str, str], Times], dict[str, str]]:
    """Seconds of a call of each way, in rounds of random order.

    Args:
        runs: by name of the way; each is called with the number of a buffer.
        buffers: calls of a block, each on its own.
        clock: of the device that the ways run on.
        rounds: of each way, after two blocks that are not timed.
        seconds: for all ways together; a way too slow for its share has fewer rounds, at least 5.
        seed: of the order.

    Returns:
        Times by way and clock, and the reasons of the ways that failed.
    """
    generator = torch.Generator().manual_seed(seed)
    works, turns, failures = {}, {}, {}
    for way, run in runs.items():

        def work(calls: int = buffers, first: int = 0, run: Run = run) -> list[object]:
            return [run((first + call) % buffers) for call in range(calls)]

        try:
            work()
            took = clock.seconds(work, "launched") or 0.0
        except Exception as error:
            failures[way] = reason(error)
            continue
        works[way] = work
        share = seconds / len(runs) / len(clock.names)
        turns[way] = max(LEAST_ROUNDS, int(min(rounds, share / max(took, 1e-9))))
    times: dict[tuple[str, str], Times] = {(w, name): {} for w in works for name in clock.names}
    calls = dict.fromkeys(times, buffers)
    ways = list(works)
    for turn in range(rounds):
        for place in torch.randperm(len(ways), generator=generator).tolist():
            way = ways[place]
            if turn >= turns[way] or way in failures:
                continue
            try:
                for name in clock.names:
                    found = None
                    while found is None and calls[way, name]:
                        count = calls[way, name]
                        block = partial(works[way], count, turn * count)
                        found = clock.seconds(block, name)
                        # a device takes about a thousand launches ahead: fewer calls may fit
                        calls[way, name] = count if found is not None else count // 2
                    if found is not None:
                        times[way, name][turn] = found / count
            except Exception as error:
                failures[way] = reason(error)
    return times, failures


def reason(error: BaseException) -> str:
    """An error in a few words, for a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160].rstrip(": ")


def spread(values: list[float], prefix: str) -> dict[str, float]:
    """Quantiles by name; none of no values."""
    if not values:
        return {}
    found = np.quantile(values, list(QUANTILES.values())).tolist()
    return {f"{prefix}_{name}": value for name, value in zip(QUANTILES, found, strict=True)}


def summary(times: Times, reference: Times) -> dict[str, float | int]:
    """Milliseconds of a call and their ratio to the reference's of the same rounds."""
    ratios = [seconds / reference[turn] for turn, seconds in times.items() if turn in reference]
    milliseconds = [1000 * seconds for seconds in times.values()]
    return {"rounds": len(times), **spread(milliseconds, "ms"), **spread(ratios, "ratio")}
