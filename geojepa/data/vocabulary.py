"""What the tags of many features say, worked out once for each distinct tag.

Every rule on tags here is a rule on single tags (`geojepa.data.meaning`) joined by "any", so a
million features cost a few array operations and not a million dictionaries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojepa.data.keys import MAX_LENGTH, is_bookkeeping, is_identifying
from geojepa.data.meaning import Says, paper_speed, says, says_raw, speed_kmh

Pair = tuple[str, str]


@dataclass
class Tagging:
    """Tags of n features, k in all.

    Attributes:
        cu: (n + 1,) int64 and tag: (k,) int32, the cleaned tags of each feature, as rows of the
            vocabulary.
        any: (n,) int64, `Says` of at least one tag.
        speed: (n,) float32, km/h of maxspeed, NaN without.
        paper_speed: (n,) float32, highest speed as the published generator reads it, -1 without.
    """

    cu: np.ndarray
    tag: np.ndarray
    any: np.ndarray
    speed: np.ndarray
    paper_speed: np.ndarray

    def __len__(self) -> int:
        return len(self.cu) - 1

    def say(self, fact: Says) -> np.ndarray:
        """(n,) bool, whether any tag of a feature states one of these facts."""
        return (self.any & int(fact)) != 0

    def take(self, rows: np.ndarray) -> "Tagging":
        """The tags of some of the features."""
        at, cu = take_rows(self.cu, rows)
        return Tagging(
            cu, self.tag[at], self.any[rows], self.speed[rows], self.paper_speed[rows],
        )  # fmt: skip

    @staticmethod
    def join(taggings: Sequence["Tagging"]) -> "Tagging":
        """One after another, of one vocabulary."""
        taggings = [Vocabulary().describe([], np.empty(0, np.int64), np.zeros(1, int)), *taggings]
        count = np.concatenate([np.diff(t.cu) for t in taggings])
        return Tagging(
            np.concatenate([[0], np.cumsum(count)]),
            *(
                np.concatenate([getattr(t, name) for t in taggings])
                for name in ("tag", "any", "speed", "paper_speed")
            ),
        )


class Vocabulary:
    """Distinct cleaned tags in the order of their first use, and what each of them says."""

    def __init__(self) -> None:
        self.pairs: dict[Pair, int] = {}
        self._key: dict[str, int] = {}
        self._facts: list[tuple[int, int, float]] = []
        self._key_of: dict[str, tuple[str | None, bool]] = {}

    def describe(self, distinct: Sequence[Pair], index: np.ndarray, cu: np.ndarray) -> Tagging:
        """Clean the tags of n features (see `keys.clean`) and tell what they say.

        Args:
            distinct: raw tags.
            index: (k,) the features' tags one after another, as rows of `distinct`.
            cu: (n + 1,) feature i has the tags from cu[i] to cu[i + 1].
        """
        cleaned = np.array([self._clean(pair) for pair in distinct], dtype=np.int64)
        raw = np.fromiter((says_raw(*pair) for pair in distinct), np.int64, len(distinct))
        raw_speed = np.fromiter(
            (paper_speed(*pair) for pair in distinct), np.float32, len(distinct)
        )
        facts = np.array(self._facts, dtype=np.float64).reshape(-1, 3)
        bits = facts[:, 0].astype(np.int64)
        key, speed = facts[:, 1].astype(np.int64), facts[:, 2].astype(np.float32)
        row = np.repeat(np.arange(len(cu) - 1), np.diff(cu))
        tag = cleaned[index]
        kept = np.flatnonzero(tag >= 0)
        # of keys that become equal the first counts
        _, first = np.unique(row[kept] * (len(self._key) + 1) + key[tag[kept]], return_index=True)
        kept = kept[np.sort(first)]
        tag, row_kept = tag[kept], row[kept]
        cu_kept = np.concatenate([[0], np.cumsum(np.bincount(row_kept, minlength=len(cu) - 1))])
        said = reduce_rows(np.bitwise_or, bits[tag], cu_kept, 0)
        said |= reduce_rows(np.bitwise_or, raw[index], cu, 0)
        return Tagging(
            cu_kept,
            tag.astype(np.int32),
            said,
            reduce_rows(np.fmax, speed[tag], cu_kept, np.nan),
            reduce_rows(np.maximum, raw_speed[index], cu, -1),
        )

    def _clean(self, raw: Pair) -> int:
        """Row of the tag that `keys.clean` makes of a raw one, -1 where it drops it."""
        raw_key, raw_value = raw
        if raw_key not in self._key_of:
            key = raw_key.strip()[:MAX_LENGTH]
            dropped = not key or is_bookkeeping(key)
            self._key_of[raw_key] = (None if dropped else key, is_identifying(key))
        key_or_none, identifies = self._key_of[raw_key]
        if key_or_none is None:
            return -1
        pair = (key_or_none, "" if identifies else raw_value.strip()[:MAX_LENGTH])
        number = self.pairs.get(pair)
        if number is None:
            number = self.pairs[pair] = len(self.pairs)
            key_number = self._key.setdefault(pair[0], len(self._key))
            speed = speed_kmh(pair[1]) if pair[0] == "maxspeed" else np.nan
            self._facts.append((int(says(*pair)), key_number, speed))
        return number


def reduce_rows(
    operation: np.ufunc, values: np.ndarray, cu: np.ndarray, empty: float
) -> np.ndarray:
    """One value a row of a ragged array: `operation` over it, `empty` where the row is."""
    out = np.full(len(cu) - 1, empty, dtype=values.dtype)
    filled = cu[1:] > cu[:-1]
    if filled.any():
        out[filled] = operation.reduceat(values, cu[:-1][filled])
    return out


def take_rows(cu: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of the values of ragged `rows`, in order, and their offsets (rows + 1)."""
    count = cu[rows + 1] - cu[rows]
    offsets = np.concatenate([[0], np.cumsum(count)])
    return np.repeat(cu[rows] - offsets[:-1], count) + np.arange(offsets[-1]), offsets
