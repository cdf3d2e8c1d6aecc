"""The masking rules written out token by token with Python integers, as the tests' judge."""

from math import floor, isqrt

STRATEGY, RANDOM, RUN, AREA, MODALITY, FREE = range(6)
UNIT = 65536


def philox(counter, key):
    """Philox4x32-10 on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(c[0] * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(c[2] * 0xCD9E8D57, 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return c


class Tile:
    """One tile: boxes (n lists of 8 numbers), modalities (n integers), its key and the step's."""

    def __init__(self, boxes, modality, tile_key, seed, step):
        self.n, self.modality, self.key = len(boxes), modality, (seed, step)
        self.low, self.high = tile_key % (1 << 32), (tile_key >> 32) % (1 << 32)
        self.x = [self.centre(box[0::2]) for box in boxes]
        self.y = [self.centre(box[1::2]) for box in boxes]

    @staticmethod
    def centre(corners):
        return floor((sum(round(c * UNIT) for c in corners) + 2) / 4)

    def words(self, purpose, index, block=0):
        return philox((index, purpose + 256 * block, self.low, self.high), self.key)

    def token_word(self, purpose, token, m=0):
        return self.words(purpose, token, m // 4)[m % 4]

    def count(self, size):
        return max(1, size * self.n // 1000)

    def random(self, size, m):
        order = sorted(range(self.n), key=lambda t: (self.token_word(RANDOM, t, m), t))
        return set(order[: self.count(size)])

    def contiguous(self, size, m):
        def morton(t):
            x, y = (min(max(c, 0), UNIT - 1) for c in (self.x[t], self.y[t]))
            return sum(((x >> b & 1) << 2 * b) + ((y >> b & 1) << 2 * b + 1) for b in range(16))

        order = sorted(range(self.n), key=lambda t: (morton(t), t))
        k = self.count(size)
        start = self.words(RUN, m)[0] * (self.n - k + 1) >> 32
        return set(order[start : start + k])

    def rectangle(self, size, m):
        """(low x, low y, width, height) in 1/65536 tile."""
        a, u, v, _ = self.words(AREA, m)
        side = (isqrt(4 * size * UNIT**2 // 1000) + 1) // 2
        a = UNIT // 2 + (a * (2 * UNIT - UNIT // 2 + 1) >> 32)
        width = min(UNIT, (side * a + UNIT // 2) // UNIT)
        height = min(UNIT, (side * UNIT + a // 2) // a)
        lowest, highest = round(-0.1 * UNIT), round(1.1 * UNIT)
        x, y = (
            lowest + (word * (highest - length - lowest + 1) >> 32)
            for word, length in ((u, width), (v, height))
        )
        return x, y, width, height

    def area(self, size, m):
        x, y, width, height = self.rectangle(size, m)
        return {
            t for t in range(self.n) if x <= self.x[t] <= x + width and y <= self.y[t] <= y + height
        }

    def modal(self, modalities):
        present = sorted(set(self.modality))
        context = present[self.words(MODALITY, 0)[0] * len(present) >> 32]
        others = [kind for kind in range(modalities) if kind != context]
        return [{t for t in range(self.n) if self.modality[t] == kind} for kind in others]

    def masks(self, strategy, size, min_context, sets, modalities):
        """The target sets, a list of sets of tokens."""
        if self.n == 0:
            return [set()] * (modalities - 1 if strategy == "modality" else sets)
        if strategy == "modality":
            targets = self.modal(modalities)
        else:
            draw = {"random": self.random, "contiguous": self.contiguous, "area": self.area}
            targets = [draw[strategy](size, m) for m in range(sets)]
        if not any(targets):
            targets = [self.random(size, m) for m in range(len(targets))]
        hidden = set().union(*targets)
        needed = max(1, -(-min_context * self.n // 1000))
        order = sorted(hidden, key=lambda t: (self.token_word(FREE, t), t))
        freed = set(order[: max(0, needed - (self.n - len(hidden)))])
        return [chosen - freed for chosen in targets]
