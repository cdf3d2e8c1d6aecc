"""Token features that no training changes: of geometries and patches, kept by the cache."""

from typing import Protocol

import numpy as np

from geojepa.data.corpus import Corpus
from geojepa.model.feature_cache import Rows, cached
from geojepa.model.geometry import ENCODER_VERSION, GEOMETRY_DIM, encode_geometries
from geojepa.model.graph_network import (
    LAYERS,
    NETWORK_VERSION,
    GraphNetwork,
    encode_by_network,
)

# images of 150 kB that are in memory at once
LOT_IMAGES = 64


class PatchEncoder(Protocol):
    """Anything that turns images into features of their patches.

    Attributes:
        name: of the encoder with its version and settings: whatever changes the features.
        shape: patches of an image, and D.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 to (n, *shape)."""
        ...


def geometry_features(corpus: Corpus, network: GraphNetwork | None = None) -> Rows:
    """Vectors of all entities' geometries, by position in the corpus.

    Args:
        corpus: the tiles.
        network: that encodes them, (entities, LAYERS * width) float16; without it their Fourier
            transform, (entities, GEOMETRY_DIM) float32.
    """
    width, name = GEOMETRY_DIM, f"fourier {ENCODER_VERSION}"
    if network is not None:
        width, name = LAYERS * network.width, f"network {NETWORK_VERSION} {network.sha256()}"
    # the network's are a run's own, and take space for each
    kind = np.float32 if network is None else np.float16

    def kept(one: Corpus) -> np.ndarray:
        def encode(tiles: np.ndarray) -> np.ndarray:
            data = one.read(tiles)
            if network is None:
                return encode_geometries(data.geometry, data.box)
            return encode_by_network(network, data.geometry, data.box)

        tiles, shape = np.arange(len(one)), (one.entities, width)
        return cached(one, "geometry", name, shape, kind, tiles, encode)

    return Rows([kept(one) for one in _parts(corpus)])


def patch_features(corpus: Corpus, encoder: PatchEncoder) -> Rows:
    """(patches of all images, D) float16; image i is that of tile `flatnonzero(has_image)[i]`."""
    patches, width = encoder.shape

    def kept(one: Corpus) -> np.ndarray:
        tiles = np.flatnonzero(one.has_image)
        shape = (len(tiles) * patches, width)

        def encode(tiles: np.ndarray) -> np.ndarray:
            return encoder(one.images(tiles)).reshape(-1, width)

        return cached(one, "patches", encoder.name, shape, np.float16, tiles, encode, LOT_IMAGES)

    return Rows([kept(one) for one in _parts(corpus)])


def _parts(corpus: Corpus) -> list[Corpus]:
    """The corpora that one is joined of."""
    several = len(corpus.paths) > 1
    return [Corpus.open(path) for path in corpus.paths] if several else [corpus]
