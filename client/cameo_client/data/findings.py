"""What is wrong with a source, in words that hold no value of a patient and no small count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cameo_protocol.errors import ExitCode, OperatorError

if TYPE_CHECKING:
    import polars as pl

SMALLEST_SHOWN = 11


def shown(count: int) -> str:
    """A count for a person to read: below 11 it is hidden, because so few rows may point at one patient."""
    if count == 0:
        return "no"
    return f"{count:,}" if count >= SMALLEST_SHOWN else f"fewer than {SMALLEST_SHOWN}"


def rows_of(bad: pl.Series) -> tuple[int, ...]:
    """Positions, from 1, at which a boolean series is true."""
    return tuple((bad.fill_null(value=False).arg_true() + 1).to_list())


@dataclass(frozen=True)
class Finding:
    """One fault of one column. rows: shown on this machine, on request only.

    Rows are positions among the data rows or lines, from 1; of an event table of OMOP, their keys in that table.
    """

    code: str
    table: str
    column: str
    problem: str
    rows: tuple[int, ...] = field(repr=False)

    def text(self) -> str:
        """The fault as one line, without row numbers."""
        where = f"{self.table}, column {self.column}" if self.column else self.table
        return f"{where}: {shown(len(self.rows))} rows {self.problem}"


def refuse(findings: Iterable[Finding]) -> None:
    """Raise the first finding as an `OperatorError` (exit code DATA) that says how many further ones there are."""
    found = tuple(findings)
    if found:
        more = f" (and {len(found) - 1} more faults)" if len(found) > 1 else ""
        raise OperatorError(
            found[0].code,
            what=found[0].text() + more,
            do="run: cameo-node data check --rows all   (prints the row numbers on this machine only)",
            exit=ExitCode.DATA,
        )


MISSING_DO = "correct path under [data] in node.toml, or bring the data there"


def bad_file(code: str, what: str, do: str) -> OperatorError:
    """An error about a file as a whole, exit code DATA."""
    return OperatorError(code, what=what, do=do, exit=ExitCode.DATA)
