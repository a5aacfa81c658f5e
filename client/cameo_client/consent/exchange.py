"""Consent records in and out of files: CSV and a subset of FHIR R4 Consent.

Import refuses a file as a whole at its first fault, naming the line and never its content.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from cameo_client.consent.records import METHODS, SCOPES, STATUSES, ConsentRecord
from cameo_client.data.pseudonyms import pseudonym
from cameo_protocol.errors import ExitCode, OperatorError

FIELDS = (
    "scope", "status", "notice_version", "notice_sha256", "method", "at", "expires", "guardian", "fictional",
)  # fmt: skip


def write_csv(records: Iterable[ConsentRecord], file: IO[str]) -> int:
    """Write records under pseudonyms; returns how many. Cells that a spreadsheet would run are escaped."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("pseudonym", *FIELDS))
    count = 0
    for record in records:
        writer.writerow(
            (
                record.pseudonym,
                record.scope,
                record.status,
                _safe(record.notice_version),
                record.notice_sha256,
                record.method,
                iso(record.at),
                "" if record.expires is None else iso(record.expires),
                _safe(record.guardian or ""),
                int(record.fictional),
            )
        )
        count += 1
    return count


def read_csv(path: Path, pseudonym_key: bytes) -> Iterator[ConsentRecord]:
    """Records of a CSV file, streamed. Its first column is `pseudonym`, or `person_id`, which is replaced at once.

    Give the iterator to `ConsentStore.add`, which keeps all of the file or nothing.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = tuple(next(rows, ()))
            if header[1:] != FIELDS or header[0] not in ("pseudonym", "person_id"):
                raise refused(path, 1, f"the header must be person_id or pseudonym, then {', '.join(FIELDS)}")
            who = (lambda name: pseudonym(pseudonym_key, name)) if header[0] == "person_id" else _known
            for number, row in enumerate(rows, start=2):
                yield _parse(path, number, row, who)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, error) from None


def _known(name: str) -> str:
    if len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise ValueError
    return name


def _parse(path: Path, number: int, row: list[str], who: Callable[[str], str]) -> ConsentRecord:
    if len(row) != len(FIELDS) + 1 or not row[0].strip():
        raise refused(path, number, "another number of fields than the header, or no id")
    _, scope, status, version, sha256, method, at, expires, guardian, fictional = row
    if scope not in SCOPES or status not in STATUSES or method not in METHODS:
        raise refused(path, number, "a scope, status or method that is not in the list")
    if fictional != str(int(method == "made_up")):
        raise refused(path, number, "the mark `fictional` is 1 exactly where the method is made_up")
    if len(sha256) != 64 or not version or max(map(len, row)) > 200:
        raise refused(path, number, "no notice version and hash, or a field that is too long")
    try:
        return ConsentRecord(
            pseudonym=who(row[0]),
            scope=scope,
            status=status,
            notice_version=version,
            notice_sha256=sha256,
            method=method,
            at=moment(at),
            expires=moment(expires) if expires else None,
            guardian=guardian or None,
        )
    except ValueError:
        raise refused(path, number, "no pseudonym, or a time that is not ISO 8601 with a zone") from None


def moment(text: str) -> datetime:
    """An ISO 8601 time with its zone, as UTC; anything else is a ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ValueError from None


def iso(when: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond, as the store keeps it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds")


def _safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def unreadable(path: Path, error: OSError | UnicodeDecodeError | csv.Error) -> OperatorError:
    """The error of a file that is not there, or is no text or no CSV at all."""
    if isinstance(error, OSError):
        return refused(path, None, f"it cannot be read: {error.strerror or 'no such file'}")
    return refused(path, None, "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else "it is no CSV")


def refused(path: Path, line: int | None, problem: str) -> OperatorError:
    """The error of an import that stops at this line."""
    where = path.name if line is None else f"{path.name}, line {line}"
    return OperatorError(
        "consent-import-refused",
        what=f"{where}: {problem}; nothing was imported",
        do="correct the file and import it again",
        exit=ExitCode.DATA,
    )
