"""Tags out of the store, for people and systems inside the hospital: rows with escaped cells, or safe counts."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from cameo_client.tags.store import StoredTag

if TYPE_CHECKING:
    import polars as pl

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
    buffer = io.BytesIO()
    frame_of(tags).write_parquet(buffer)
    return buffer.getvalue()


def frame_of(tags: Sequence[StoredTag], *, lists: bool = True) -> pl.DataFrame:
    """Rows as a frame with every field's own type; lists: `because` as a list of texts, else as one text."""
    import polars as pl

    texts = {name: pl.String() for name in COLUMNS}
    numbers = dict.fromkeys(("rule_version", "guard", "model_version", "model_round", "run"), pl.Int64())
    schema: dict[str, pl.DataType] = {**texts, **numbers, "because": pl.List(pl.String)}
    frame = pl.DataFrame([{**vars(tag), "because": list(tag.because)} for tag in tags], schema=schema)
    return frame if lists else frame.with_columns(pl.col("because").list.join("; "))


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet runs: leading blanks count, because some programs strip them first."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text


def aggregate(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int | None]]:
    """Row -> cell -> count, made safe to show: each row's cells split the row's total, which is added as "total".

    Below 11 a cell is hidden (None), and with it the largest other cell, so that the total does not give it away. The
    total is hidden too where it would still bound a small cell, or which of the hidden ones it is. The rest is rounded
    to 5. So who sees the row, and knows these rules, still has all of 0 to 10 for each small cell. (Hiding the next
    larger cell instead of the largest would bound it: found by trying all small tables.)
    """
    return {row: _row(cells) for row, cells in counts.items()}


def sha256(data: bytes) -> str:
    """Hash of an export, as it goes into the log."""
    return hashlib.sha256(data).hexdigest()


def _row(cells: Mapping[str, int]) -> dict[str, int | None]:
    total = sum(cells.values())
    small = [name for name, count in cells.items() if count < SMALLEST]
    large = sorted((name for name in cells if name not in small), key=lambda name: (cells[name], name))
    hidden = {*small, *large[-1:]} if small else set()
    shown: dict[str, int | None] = {name: None if name in hidden else _rounded(count) for name, count in cells.items()}
    # The largest cell could still be the largest if every small one were 10, at the same total.
    rival = max([SMALLEST, *(cells[name] for name in large[:-1])])
    safe = not small or sum(cells[name] for name in hidden) - (SMALLEST - 1) * len(small) > rival
    return {**shown, "total": _rounded(total) if safe and large else None}


def _rounded(count: int) -> int:
    return BASE * ((count + BASE // 2) // BASE)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return "; ".join(value) if isinstance(value, tuple) else str(value)
