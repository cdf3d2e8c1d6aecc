"""A codebook of latents, and a tile as how many of its tokens are nearest to each of its words.

Bags of visual words (Csurka et al., 2004), of the teacher's latents in place of image descriptors.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

WORDS = 64
# of a tile's latents, evenly spaced depths of the encoder that have words of their own
DEPTHS = 2
MAX_TILES, MAX_TOKENS = 1024, 30_000


def fit_words(tokens: np.ndarray) -> np.ndarray:
    """(WORDS, D) float32: the centres of k-means over tokens (n, D), at most MAX_TOKENS of them.

    Tokens that are alike to the bit count once. Where there are fewer tokens than words, the words
    left over repeat the first, and no token is ever nearest to them alone.
    """
    tokens = np.unique(tokens[:: max(1, -(-len(tokens) // MAX_TOKENS))], axis=0)
    words = np.zeros((WORDS, tokens.shape[1]), np.float32)
    if count := min(WORDS, len(tokens)):
        # several threads add up in the order in which they end
        with threadpool_limits(1):
            means = KMeans(count, n_init=1, random_state=0).fit(tokens)
        words[:count] = means.cluster_centers_
        words[count:] = words[0]
    return words


def count_words(x: Tensor, words: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T, WORDS): of how many of a tile's tokens each word is the nearest, the first of equals.

    Args:
        x: (S, D) packed tokens.
        words: (WORDS, D).
        cu_seqlens: (T + 1,) int32.
    """
    nearest = (x @ words.T - words.square().sum(dim=1) / 2).argmax(dim=1)
    member = (nearest[:, None] == torch.arange(len(words), device=x.device)).to(x.dtype)
    return torch.segment_reduce(member, "sum", lengths=cu_seqlens.diff().long(), initial=0.0)
