"""Whose decision needs a guardian, and what a run did with patients' data, noted for the report that they are owed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.consent.records import Use
from cameo_client.consent.store import ConsentStore
from cameo_protocol.layout import RoundKind

TRAINING: Final = "model_training"
ADULT_AGE: Final = 18
ACTION: dict[RoundKind, str] = {
    "train": "model trained",
    "recalibrate": "model recalibrated",
    "evaluate": "model tested",
}


def minors(facts: pl.DataFrame, age: str = "age") -> frozenset[str]:
    """Pseudonyms of patients below 18 or of unknown age; nobody where the facts have no age at all."""
    if age not in facts.columns:
        return frozenset()
    return frozenset(facts.filter((pl.col(age) < ADULT_AGE).fill_null(value=True))["pseudonym"].to_list())


@dataclass
class RunUses:
    """Notes a patient once for each thing that a run uses the data for, the first time it does.

    names: whose record each row is. ground: the legal basis in force now, "consent" or the policy's own words.
    """

    names: Sequence[str]
    consents: ConsentStore
    ground: Callable[[], str]
    now: Callable[[], datetime]
    _noted: dict[tuple[str, RoundKind], npt.NDArray[np.bool_]] = field(default_factory=dict)

    def note(self, run: str, kind: RoundKind, rows: npt.NDArray[np.bool_]) -> None:
        """rows: (N,) bool, those that enter a round. On disk when it returns; an `OperatorError` when it cannot be."""
        noted = self._noted.get((run, kind), np.zeros(len(self.names), dtype=np.bool_))
        fresh = rows & ~noted
        if fresh.any():
            use = Use(at=self.now(), scope=TRAINING, action=ACTION[kind], reference=run, ground=self.ground())
            self.consents.log_use(use, [self.names[row] for row in np.flatnonzero(fresh).tolist()])
            self._noted[run, kind] = noted | fresh
