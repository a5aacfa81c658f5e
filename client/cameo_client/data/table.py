"""Opening a flat table: bytes on disk to a frame of text columns, or an error that says what is wrong with the file.

The file is checked twice before polars parses it, once as bytes and once as lines and fields, because a lenient
reader fills short lines with nulls and swallows a wrong delimiter without a word.
"""

from __future__ import annotations

import codecs
import csv
from pathlib import Path

import polars as pl

from cameo_client.data.findings import MISSING_DO, Finding, bad_file, refuse
from cameo_client.data.table_mapping import TableMapping, TableSource

CHUNK = 1 << 20
MAX_LINE_BYTES = 1 << 17  # the csv module's own limit for one field
MAX_CELL = 1000
MAX_COLUMNS = 2000
_BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(source: TableSource) -> pl.DataFrame:
    """The mapped columns of the source as text, in file order, nulls where a missing token stood.

    Columns are named by the mapping's `column` as text ("age_years", or "3" for a position). Only mapped columns
    are read. Every fault of the file is an `OperatorError` with exit code DATA and no value in it.
    """
    path, mapping = source.path, source.mapping
    try:
        if not path.is_file():
            raise bad_file("data-missing-file", f"{path}: no such file", MISSING_DO)
        if path.stat().st_size == 0:
            raise bad_file("data-empty", f"{path.name}: the file is empty", "export the table again")
        frame = _parquet(path, mapping) if path.suffix == ".parquet" else _csv(path, mapping)
    except OSError as error:
        raise bad_file(
            "data-unreadable",
            f"{path.name}: {error.strerror or 'cannot be read'}",
            "check that this user may read the file",
        ) from None
    stripped = pl.all().cast(pl.String).str.strip_chars()
    return frame.select(pl.when(~stripped.is_in(list({*mapping.missing, ""}))).then(stripped).name.keep())


def _csv(path: Path, mapping: TableMapping) -> pl.DataFrame:
    check_bytes(path)
    names, rows = _check_lines(path, mapping)
    wanted = _wanted(path, mapping, names)
    if rows == 0:
        raise bad_file("data-empty", f"{path.name}: it holds no rows", "export the table again")
    if not wanted:
        raise bad_file("data-no-columns", f"{path.name}: no column is mapped", "correct the mapping")
    try:
        frame = pl.read_csv(
            path,
            has_header=False,
            skip_rows=int(mapping.header),
            separator=mapping.delimiter,
            columns=sorted(wanted.values()),
            infer_schema=False,
        )
    except pl.exceptions.PolarsError:
        raise _malformed(path) from None
    if frame.height != rows:
        raise _malformed(path)
    frame.columns = sorted(wanted, key=lambda name: wanted[name])
    return frame


def _parquet(path: Path, mapping: TableMapping) -> pl.DataFrame:
    try:
        lazy = pl.scan_parquet(path)
        schema = lazy.collect_schema()
        wanted = _wanted(path, mapping, list(schema))
        types = list(schema.values())
        for name, at in wanted.items():
            if types[at].is_nested() or types[at] in (pl.Binary, pl.Time, pl.Duration, pl.Object):
                raise bad_file(
                    "data-type", f"{path.name}, column {name}: no text, number or date", "export flat columns"
                )
        frame = lazy.select(
            pl.nth(at).dt.strftime("%Y-%m-%d").alias(name)
            if types[at].is_temporal()
            else pl.nth(at).cast(pl.String).alias(name)
            for name, at in wanted.items()
        ).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        raise bad_file("data-unreadable", f"{path.name}: not a Parquet file", "export the table again") from None
    if frame.height == 0:
        raise bad_file("data-empty", f"{path.name}: it holds no rows", "export the table again")
    return frame


def check_bytes(path: Path) -> None:
    """One pass in constant memory: encoding, NUL bytes, and lines that are too long to be a row."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, first = 0, True
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                if first and chunk.startswith(_BOMS):
                    raise bad_file(
                        "data-encoding",
                        f"{path.name}: it starts with a byte-order mark",
                        "save it as UTF-8 without a byte-order mark",
                    )
                if b"\0" in chunk:
                    raise bad_file(
                        "data-nul", f"{path.name}: it holds NUL bytes, so it is not text", "export it again as text"
                    )
                decoder.decode(chunk)
                line, first = _longest_tail(path, chunk, line), False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise bad_file("data-encoding", f"{path.name}: not UTF-8", "save it as UTF-8") from None


def _longest_tail(path: Path, chunk: bytes, before: int) -> int:
    """Bytes of the unfinished line at the end of the chunk; refuses a line longer than MAX_LINE_BYTES."""
    lines = chunk.split(b"\n")
    longest = max(before + len(lines[0]), *(len(part) for part in lines[1:]), 0)
    if longest > MAX_LINE_BYTES:
        raise bad_file(
            "data-line-too-long",
            f"{path.name}: a line is longer than {MAX_LINE_BYTES // 1024} KiB",
            "check the line ends and quotes of the export",
        )
    return before + len(lines[0]) if len(lines) == 1 else len(lines[-1])


def _check_lines(path: Path, mapping: TableMapping) -> tuple[list[str], int]:
    """The column names (empty without a header) and the number of data rows; refuses ragged lines and huge cells."""
    ragged: list[int] = []
    huge: list[int] = []
    number = 0
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter=mapping.delimiter, strict=True)
        try:
            first = next(rows, [])
            width = len(first)
            names = [name.strip() for name in first] if mapping.header else [""] * width
            _check_width(path, mapping, width)
            number = 0 if mapping.header else 1
            for row in rows:
                number += 1
                if len(row) != width:
                    ragged.append(number)
                elif max(map(len, row), default=0) > MAX_CELL:
                    huge.append(number)
        except csv.Error:
            raise _malformed(path) from None
    refuse(
        Finding(code, path.name, "", problem, tuple(lines))
        for code, problem, lines in (
            ("data-ragged", "do not have as many fields as the first line", ragged),
            ("data-cell-too-long", f"hold a cell of more than {MAX_CELL} characters", huge),
        )
        if lines
    )
    return names, number


def _check_width(path: Path, mapping: TableMapping, width: int) -> None:
    """A mapping that names several columns and a first line with one field: the delimiter is another one."""
    if width == 1 and len(mapping.columns()) > 1:
        raise bad_file(
            "data-delimiter",
            f"{path.name}: the first line has one field, so its delimiter is not the mapping's",
            "correct `delimiter` in the mapping",
        )
    if width > MAX_COLUMNS:
        raise bad_file("data-too-wide", f"{path.name}: more than {MAX_COLUMNS} columns", "export fewer columns")


def _wanted(path: Path, mapping: TableMapping, names: list[str]) -> dict[str, int]:
    """Mapped column (as text) -> its position from 0; refuses columns that are missing, unknown or named twice."""
    twice = [place for place, name in enumerate(names) if name and name in names[:place]]
    if twice:  # by position: where the header is missing, a name is a patient's value
        raise bad_file(
            "data-column-twice",
            f"{path.name}: column {twice[0] + 1} has the name of an earlier one",
            "rename one of the two, or set `header: false` in the mapping",
        )
    places: dict[str | int, int] = {}
    for column in mapping.columns():
        place = column - 1 if isinstance(column, int) else _find(names, column)
        if column in mapping.ignore and not 0 <= place < len(names):
            continue
        if not 0 <= place < len(names):
            raise bad_file(
                "data-column-missing",
                f"{path.name}: it has no column {column!r}",
                "correct the mapping, the delimiter or the export",
            )
        places[column] = place
    unknown = set(range(len(names))) - set(places.values())
    if unknown or len(set(places.values())) != len(places):
        at = min(unknown, default=0)
        raise bad_file(
            "data-column-unknown",
            f"{path.name}: column {at + 1} is not in the mapping, or is there under two names",
            "map it, or list it under `ignore` in the mapping",
        )
    return {str(column): place for column, place in places.items() if column not in mapping.ignore}


def _find(names: list[str], column: str) -> int:
    return names.index(column) if column in names else -1


def _malformed(path: Path) -> Exception:
    return bad_file(
        "data-malformed",
        f"{path.name}: its quotes or line ends do not make a table",
        "export it again as CSV with doubled quotes",
    )
