"""Who is kept out of training: a keyed hash of the pseudonym, the same for every run on a data set.

Deterministic, so that a patient held out once is never trained on by a later plan with the same or a larger
share; keyed, so that nobody outside can tell who is in it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cameo_client.data.pseudonyms import derive_key
from cameo_protocol.errors import Bug


def held_out(pseudonyms: Iterable[str], *, share: float, key: bytes, dataset: str) -> npt.NDArray[np.bool_]:
    """(N,) bool, True = kept out of training, for about `share` of the patients.

    key: the hospital's pseudonym key; the hold-out uses a key of its own, derived from it and the data set's name.
    0 <= share <= 1. Each patient's answer depends on that patient alone; a larger share keeps all of a smaller.
    """
    if not 0.0 <= share <= 1.0:
        raise Bug("holdout-share", what="a hold-out share outside [0, 1]")
    own = derive_key(key, f"holdout/{dataset}")
    limit = round(share * 2**64)
    return np.fromiter(
        (int.from_bytes(hmac.digest(own, name.encode(), "sha256")[:8], "big") < limit for name in pseudonyms),
        dtype=np.bool_,
    )
