"""Everything a decision depends on besides the facts: rules, consent, policy, models, earlier tags, the clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.pack import Scope
from cameo_client.tags.policy import TagPolicy
from cameo_client.tags.schema import LeftOut, ModelInfo, Schema

Mask = npt.NDArray[np.bool_]


class ConsentLookup(Protocol):
    """Who agreed to what; `consent.store.ConsentStore` is one."""

    def granted(
        self,
        pseudonyms: Sequence[str],
        scope: Scope,
        now: datetime,
        *,
        minors: frozenset[str] = frozenset(),
        double_confirmed: bool = False,
    ) -> Mask:
        """(N,) bool: whose grant is valid now; a minor's counts only with a guardian's decision."""
        ...

    def withdrawn(self, scope: Scope, now: datetime) -> frozenset[str]:
        """Who said no: denied or withdrawn."""
        ...


@dataclass(frozen=True)
class Quality:
    """score: 0..100 of the whole data set. poor: pseudonyms whose own record is below the floor."""

    score: float
    poor: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Memory:
    """What the store knows from before, all of it still valid at `now`.

    held: rule key -> pseudonyms that have the tag.   approvals: (pseudonym, rule key, rule version) -> how many
    people approved.   rejections: the same keys.   contacted: (pseudonym, rule key) -> time of the last message.
    contacts_today: pseudonym -> messages since midnight in the policy's zone, over all packs.
    """

    held: Mapping[str, frozenset[str]] = field(default_factory=dict)
    approvals: Mapping[tuple[str, str, int], int] = field(default_factory=dict)
    rejections: frozenset[tuple[str, str, int]] = frozenset()
    contacted: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    contacts_today: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The inputs of one evaluation that are not facts. now: timezone-aware. snapshot: index date of the facts.

    left_out: stored models that do not serve, for people to see; no decision looks at them. approved_at: pack hash ->
    when people approved it last; needed where a segment's number has changed its meaning.
    """

    policy: TagPolicy
    consent: ConsentLookup
    quality: Quality
    models: Sequence[ModelInfo] = ()
    left_out: Sequence[LeftOut] = ()
    approved_packs: Collection[str] = ()
    approved_at: Mapping[str, datetime] = field(default_factory=dict)
    now: datetime
    snapshot: date | None
    memory: Memory = Memory()


@dataclass(frozen=True, kw_only=True)
class World:
    """What guards see: the prepared frame, its pseudonyms in row order, the rules, and the circumstances.

    unknown: rule key -> rows whose answer is unknown.
    """

    frame: pl.DataFrame
    pseudonyms: tuple[str, ...]
    schema: Schema
    rules: Sequence[BoundRule]
    given: Circumstances
    unknown: Mapping[str, Mask]

    def members(self, of: Collection[str]) -> Mask:
        """Rows whose pseudonym is in a set."""
        if not of:
            return np.zeros(len(self.pseudonyms), dtype=bool)
        chosen = pl.Series(list(of), dtype=pl.String)
        return np.asarray(self.frame["pseudonym"].is_in(chosen.implode()).to_numpy(), dtype=bool)

    def rows(self, exprs: Sequence[pl.Expr]) -> list[Mask]:
        """Boolean expressions without nulls over the frame, as masks, in one pass."""
        found = self.frame.select([expr.alias(str(number)) for number, expr in enumerate(exprs)])
        return [np.asarray(column.to_numpy(), dtype=bool) for column in found.iter_columns()]
