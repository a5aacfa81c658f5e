"""The worked examples of a pack, run on the real engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from cameo_client.tags.bind import BoundRule
from cameo_client.tags.engine import PSEUDONYM, derive, prepare
from cameo_client.tags.pack import Case
from cameo_client.tags.schema import Column, Schema

_WORD = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True)
class CaseResult:
    """One example: its number in the rule (from 1), what the pack expects, and what the engine says."""

    rule: str
    number: int
    expected: str
    actual: str

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return self.expected == self.actual


def run_cases(rules: Sequence[BoundRule], schema: Schema) -> tuple[CaseResult, ...]:
    """Every example of every rule. A fact that an example leaves out is null."""
    found: list[CaseResult] = []
    for item in rules:
        cases = item.rule.tests
        names = [str(number) for number in range(1, len(cases) + 1)]
        series = [pl.Series(PSEUDONYM, names, dtype=pl.String)]
        series += [_series(schema.column(name), cases) for name in item.columns]
        frame = prepare(pl.DataFrame(series), schema, item.columns)
        held = {item.key: {name for name, case in zip(names, cases, strict=True) if case.held}}
        answers = derive(frame, [item], held)[item.key].to_list()
        for number, (case, answer) in enumerate(zip(cases, answers, strict=True), start=1):
            found.append(CaseResult(item.rule.id, number, case.expect, _WORD[answer]))
    return tuple(found)


def _series(column: Column, cases: Sequence[Case]) -> pl.Series:
    dtype = {"number": pl.Float64(), "bool": pl.Boolean(), "enum": pl.String()}[column.kind]
    values = [case.given.get(column.name) for case in cases]
    return pl.Series(column.name, values, dtype=dtype, strict=column.kind != "number")
