"""Loss landscapes along random, filter-normalised directions (Li et al., Visualizing the Loss Landscape of Neural
Nets, NeurIPS 2018): Figure 2 of the GraphSAM paper.

A Gaussian direction D is scaled, filter by filter, to the norms of the weights: D_f <- D_f norm(theta_f) / norm(D_f).
Landscapes of different models are then comparable. A filter is a row of a weight matrix (the weights into one unit).
Parameters of one dimension (biases, gains) are not moved, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from molsam.diagnostics.surface import Flat, Surface


def filter_normalised(surface: Surface, rng: np.random.Generator) -> Flat:
    """Return a random direction with the weights' filter norms."""
    parts, start = [], 0
    for parameter in surface.parameters:
        size = parameter.numel()
        draw = rng.normal(size=size)
        if parameter.ndim < 2:
            parts.append(np.zeros(size))
        else:
            filters = draw.reshape(parameter.shape[0], -1)
            weights = surface.theta[start : start + size].reshape(filters.shape)
            norms = np.linalg.norm(weights, axis=1) / np.linalg.norm(filters, axis=1)
            parts.append((filters * norms[:, None]).ravel())
        start += size
    return np.concatenate(parts)


def landscape_1d(surface: Surface, phis: Sequence[float], directions: int = 3, seed: int = 0) -> np.ndarray:
    """Return L(theta + phi D) for several directions D, [directions, len(phis)]."""
    rng = np.random.default_rng(seed)
    chosen = [filter_normalised(surface, rng) for _ in range(directions)]
    return np.array([[surface.value(surface.theta + phi * d) for phi in phis] for d in chosen])


def landscape_2d(surface: Surface, first: Sequence[float], second: Sequence[float], seed: int = 0) -> np.ndarray:
    """Return L(theta + a D + b E) for two independent directions, [len(first), len(second)]."""
    rng = np.random.default_rng(seed)
    d, e = filter_normalised(surface, rng), filter_normalised(surface, rng)
    return np.array([[surface.value(surface.theta + a * d + b * e) for b in second] for a in first])
