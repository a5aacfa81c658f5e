"""Patients by one fact, so that a model can be judged for each group: women and men, age bands."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from cameo_protocol.facts import Catalogue

MAX_GROUPS = 16


class Groups(BaseModel, frozen=True, extra="forbid"):
    """A partition by `fact`: one group a value of an enum, or number bands between rising `cuts`.

    Exactly one of values and cuts is given. Cuts (50, 65) make three groups: below 50, 50 to 65, 65 and more.
    Public: it stands in the plan. A patient without the fact is in no group.
    """

    fact: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    values: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    cuts: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if bool(self.values) == bool(self.cuts):
            raise ValueError(f"groups by {self.fact} need either values or cuts")
        if len(set(self.values)) != len(self.values) or list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError(f"groups by {self.fact}: values must differ and cuts must rise")
        if len(self) > MAX_GROUPS:
            raise ValueError(f"groups by {self.fact}: at most {MAX_GROUPS}")
        return self

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self.values) or len(self.cuts) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """The groups for people, in order.

        >>> Groups(fact="age", cuts=(50, 65)).names
        ('below 50', '50 to 65', '65 and more')
        """
        if self.values:
            return self.values
        bands = [f"{low:g} to {high:g}" for low, high in zip(self.cuts, self.cuts[1:], strict=False)]
        return (f"below {self.cuts[0]:g}", *bands, f"{self.cuts[-1]:g} and more")

    def fits(self, catalogue: Catalogue) -> str:
        """Why a catalogue does not allow these groups; empty when it does. Only facts that are not sensitive do."""
        fact = next((fact for fact in catalogue.facts if fact.name == self.fact), None)
        if fact is None:
            return f"the catalogue {catalogue.id} has no fact {self.fact}"
        if fact.sensitivity != "normal":
            return f"the fact {self.fact} is sensitive ({fact.sensitivity}), so no groups are made by it"
        if self.values and fact.values != self.values:
            return f"the values of {self.fact} are {', '.join(fact.values) or 'not listed'}"
        if self.cuts and fact.type not in ("float", "int"):
            return f"the fact {self.fact} is no number"
        return ""

    def of_numbers(self, column: NDArray[np.float64]) -> NDArray[np.int64]:
        """The group of each entry of (N,), -1 for NaN. Enums come as the index into `values`."""
        known = ~np.isnan(column)
        numbers = np.where(known, column, 0.0)
        if self.values:
            found = numbers.astype(np.int64)
            return np.where(known & (found >= 0) & (found < len(self)), found, -1)
        return np.where(known, np.searchsorted(np.array(self.cuts), numbers, side="right"), -1)
