"""Key material of one hospital for one epoch: in buffers that are overwritten, and refuse to be shown or copied.

CPython cannot promise that no other copy of a secret exists (the CSPRNG returns immutable bytes, OpenSSL copies
keys); what this file promises is that none is reachable from the protocol state after its erasure.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import numpy.typing as npt

from cameo_protocol.errors import Bug
from cameo_protocol.secagg.kdf import KEY_BYTES

Bytes = npt.NDArray[np.uint8]


class Withheld:
    """Base of states that hold secrets: no repr of the contents, no copy, no pickle."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: keys withheld>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise Bug("secret-copied", what=f"a {type(self).__name__} holds keys and must not be copied or stored")


class RoundKeys(Withheld):
    """What a live hospital keeps, by round and by position of the peer in the cohort.

    masks: (R, 32) own b. edges: (R, n, 32) k shared with each peer (own row unused).
    mask_shares, open_shares: (R, n, 32), its share of each party's b and c.
    """

    __slots__ = ("edges", "mask_shares", "masks", "open_shares")

    def __init__(self, rounds: int, parties: int) -> None:
        self.masks: Bytes = np.zeros((rounds, KEY_BYTES), dtype=np.uint8)
        self.edges: Bytes = np.zeros((rounds, parties, KEY_BYTES), dtype=np.uint8)
        self.mask_shares: Bytes = np.zeros((rounds, parties, KEY_BYTES), dtype=np.uint8)
        self.open_shares: Bytes = np.zeros((rounds, parties, KEY_BYTES), dtype=np.uint8)

    def erase_upload_keys(self, round_no: int) -> None:
        """Overwrite b and all k of one round: they have masked the one vector that they may mask."""
        self.masks[round_no] = 0
        self.edges[round_no] = 0

    def erase_before(self, round_no: int) -> None:
        """Overwrite every key and share of the rounds below `round_no`."""
        for buffer in (self.masks, self.edges, self.mask_shares, self.open_shares):
            buffer[:round_no] = 0

    def holds_nothing_of(self, round_no: int) -> bool:
        """Whether every key and share of a round is overwritten."""
        buffers = (self.masks, self.edges, self.mask_shares, self.open_shares)
        return not any(buffer[round_no].any() for buffer in buffers)
