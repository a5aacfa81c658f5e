"""The tables of `tags.sqlite`, and one row of the main one.

In clear: times, states, run numbers, row counts, the packs' ids, versions and hashes. Everything else about a patient,
a tag or a person is a blind index (`who`, `what`, `slot`, `person`) or sealed (`body`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cameo_client.tags import chain

VERSION = 2
SCHEMA = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE tags (
  who BLOB NOT NULL, what BLOB NOT NULL, state TEXT NOT NULL CHECK (state IN ('stored', 'waiting')),
  expires TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (who, what)) STRICT, WITHOUT ROWID;
CREATE TABLE history (run INTEGER NOT NULL, at TEXT NOT NULL, who BLOB NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX history_by_patient ON history (who);
CREATE TABLE runs (run INTEGER PRIMARY KEY, at TEXT NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE packs (
  sha256 TEXT PRIMARY KEY, pack TEXT NOT NULL, version TEXT NOT NULL, retired TEXT, body BLOB NOT NULL) STRICT;
CREATE TABLE reviews (
  who BLOB NOT NULL, slot BLOB NOT NULL, expires TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (who, slot)) STRICT, WITHOUT ROWID;
CREATE TABLE contacts (
  who BLOB NOT NULL, what BLOB NOT NULL, at TEXT NOT NULL, safety INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX contacts_by_time ON contacts (at);
CREATE INDEX contacts_by_patient ON contacts (who, what, at);
CREATE TABLE exports (
  at TEXT NOT NULL, person BLOB NOT NULL, kind TEXT NOT NULL, rows INTEGER NOT NULL, sha256 TEXT NOT NULL) STRICT;
CREATE TABLE access (at TEXT NOT NULL, who BLOB NOT NULL, body BLOB NOT NULL) STRICT;
CREATE INDEX access_by_patient ON access (who);
"""
    + chain.SCHEMA
)


@dataclass(frozen=True, kw_only=True)
class StoredTag:
    """A stored or waiting tag with everything that led to it.

    run: the evaluation. model_run: the run that trained the model, "" where no model was read, and in rows that an
    earlier version wrote.
    """

    pseudonym: str
    tag: str
    rule: str
    rule_version: int
    pack: str
    pack_version: str
    pack_sha256: str
    purpose: str
    state: str
    reason: str
    guard: int
    because: tuple[str, ...]
    snapshot: str | None
    model: str
    model_version: int | None
    model_id: str
    model_round: int | None
    since: str
    decided: str
    expires: str
    run: int
    model_run: str = ""


NAMES = tuple(StoredTag.__dataclass_fields__)
LEAST_NAMES = NAMES.index("model_run")  # as many as the first rows of this file's version have


def values_of(tag: StoredTag) -> list[object]:
    """A row as it is sealed."""
    return [getattr(tag, name) for name in NAMES]


def tag_of(values: Sequence[Any]) -> StoredTag:
    """The row of what was sealed, also by an earlier version, whose rows lack the last fields."""
    named = dict(zip(NAMES[: max(len(values), LEAST_NAMES)], values, strict=True))
    return StoredTag(**{**named, "because": tuple(named["because"])})


def same(one: str, other: str) -> bool:
    """Whether two names are the same person or role: case and spaces do not count."""
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def utc_text(at: datetime) -> str:
    """A time as the store writes it: UTC, of fixed width, so that text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
