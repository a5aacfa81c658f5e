"""Tags out of the store, for people and systems inside the hospital: rows with escaped cells, or safe counts."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields

from cameo_client.tags.store import StoredTag

SMALLEST = 11
BASE = 5
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
COLUMNS = tuple(field.name for field in fields(StoredTag))


def to_csv(tags: Sequence[StoredTag]) -> bytes:
    """Rows as CSV (RFC 4180, UTF-8). A cell that a spreadsheet would run as a formula starts with an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for tag in tags:
        writer.writerow([safe_cell(_cell(getattr(tag, name))) for name in COLUMNS])
    return text.getvalue().encode()


def to_parquet(tags: Sequence[StoredTag]) -> bytes:
    """Rows as Parquet; `because` is a list of texts."""
    import polars as pl

    texts = {name: pl.String() for name in COLUMNS}
    numbers = dict.fromkeys(("rule_version", "guard", "model_version", "model_round", "run"), pl.Int64())
    schema: dict[str, pl.DataType] = {**texts, **numbers, "because": pl.List(pl.String)}
    rows = [{name: getattr(tag, name) for name in COLUMNS} for tag in tags]
    frame = pl.DataFrame([{**row, "because": list(row["because"])} for row in rows], schema=schema)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs: leading blanks count, because some programs strip them first."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text


def aggregate(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int | None]]:
    """Row -> cell -> count, made safe to show: each row's cells split the row's total, which is added as "total".

    Below 11 a cell is hidden (None). So that it cannot be computed from the total, further cells are hidden, the
    smallest first, until all hidden ones sum to 11 or more; no cell below 11 does so alone. The rest is rounded to 5.
    """
    return {row: _row(cells) for row, cells in counts.items()}


def sha256(data: bytes) -> str:
    """Hash of an export, as it goes into the log."""
    return hashlib.sha256(data).hexdigest()


def _row(cells: Mapping[str, int]) -> dict[str, int | None]:
    total = sum(cells.values())
    hidden = {name for name, count in cells.items() if count < SMALLEST}
    if hidden:
        for name in sorted(cells, key=lambda cell: (cells[cell], cell)):
            if sum(cells[one] for one in hidden) >= SMALLEST:
                break
            hidden.add(name)
    shown: dict[str, int | None] = {name: None if name in hidden else _rounded(count) for name, count in cells.items()}
    return {**shown, "total": _rounded(total) if total >= SMALLEST else None}


def _rounded(count: int) -> int:
    return BASE * ((count + BASE // 2) // BASE)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return "; ".join(value) if isinstance(value, tuple) else str(value)
