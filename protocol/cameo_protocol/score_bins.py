"""The bins in which risk scores are counted: public, the same for every hospital and every model.

They are equally wide in the logit, not in the score: where an outcome is rare nearly all scores lie below 0.2, and
equal bins of [0, 1] would put them into two or three bins and lose the ranking (measured: AUC .76 read as .68).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cameo_protocol.errors import Bug

Floats = NDArray[np.float64]
# The inner bins span logits of -5 to 5, scores of 0.0067 to 0.9933; the first and the last bin are open. Bins
# that hardly anybody is in carry as much noise as the others, so the reach is no wider than scores need.
REACH = 5.0


def bin_edges(bins: int) -> Floats:
    """The scores between bins, rising from 0 to 1, shape (bins + 1,); bin i holds edges[i] <= score < edges[i + 1]."""
    if bins < 1:
        raise Bug("score-bins", what="a histogram needs at least one bin")
    edges = 1 / (1 + np.exp(-np.linspace(-REACH, REACH, bins + 1)))
    edges[0], edges[-1] = 0.0, 1.0
    return edges


def bin_logits(bins: int) -> Floats:
    """The middle of each bin as a logit, (bins,); for the open ones, the middle of their part within REACH."""
    return (np.arange(bins) + 0.5) / bins * 2 * REACH - REACH


def bin_of(scores: Floats, bins: int) -> NDArray[np.int64]:
    """The bin of each score of [0, 1], same shape; 1 lies in the last."""
    found: NDArray[np.int64] = np.searchsorted(bin_edges(bins)[1:-1], scores, side="right")
    return found
