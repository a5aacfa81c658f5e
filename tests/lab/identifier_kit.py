"""The 18 kinds of direct identifiers of 45 CFR 164.514(b)(2), 50 made-up ones each: planting them, and finding them.

Everything here is invented. Each kind is planted where a real source of that kind would hold it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb
import numpy as np

from cameo_client.data.fhir_pick import person_number

EACH = 50
HEAD = 8
KINDS: dict[str, str] = {
    "name": "Quillon Vartexby {0:03d}",
    "street": "{0:03d} Zanderquist Lane, Oxmoreton",
    "date": "19{1:02d}-03-17T04:31:{2:02d}",
    "phone": "+1-902-555-7{0:03d}",
    "fax": "+1-902-556-8{0:03d}",
    "email": "qvartex{0:03d}@mailbox.example",
    "ssn": "917-64-3{0:03d}",
    "mrn": "MRN-77415{0:03d}",
    "health_plan": "HPBN-60218-{0:03d}",
    "account": "ACCT-55093-{0:03d}",
    "licence": "LIC-KX-83820-{0:03d}",
    "vehicle": "VIN-1QZ9T44R{0:03d}",
    "device": "DEV-SN-92731-{0:03d}",
    "url": "https://people.example/~qv{0:03d}",
    "ip": "198.51.100.{0:d}:59{0:03d}",
    "biometric": "FPR-TEMPLATE-3c9f1{0:03d}",
    "photo": "portrait-quillon-{0:03d}.jpg",
    "other_code": "STUDY-CODE-XR-{0:03d}",
}
PERSON = 730_514_900_000


def identifier(kind: str, row: int) -> str:
    """The row's identifier of a kind."""
    return KINDS[kind].format(row, 20 + row, row % 60)


def planted(kind: str) -> list[str]:
    """All 50 of a kind."""
    return [identifier(kind, row) for row in range(EACH)]


def plant_table(file: Path, old_ids: list[str]) -> list[str]:
    """A column for every kind; the medical record number is the person id. Returns the new columns."""
    with file.open(encoding="utf-8", newline="") as source:
        head, *rows = list(csv.reader(source))
    columns = [f"{kind}_column" for kind in KINDS]
    at = head.index("person_id")
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow([*head, *columns])
        for row in rows:
            place = old_ids.index(row[at]) if row[at] in old_ids else None
            more = ["" if place is None else identifier(kind, place) for kind in KINDS]
            if place is not None:
                row[at] = identifier("mrn", place)
            writer.writerow([*row, *more])
    return columns


def plant_omop(database: Path) -> None:
    """Source values, a table of notes, and words of observations that no fact reads; person ids of 12 digits."""
    with duckdb.connect(str(database)) as db:
        tables = [row[0] for row in db.execute("SELECT table_name FROM information_schema.columns "
                                               "WHERE column_name = 'person_id'").fetchall()]  # fmt: skip
        for table in tables:
            db.execute(f"UPDATE {table} SET person_id = person_id + {PERSON}")
        kinds = list(KINDS)
        db.execute(f"CREATE TEMP TABLE ids (person_id BIGINT, {', '.join(f'{kind} VARCHAR' for kind in kinds)})")
        db.executemany(
            f"INSERT INTO ids VALUES ({', '.join('?' * (len(kinds) + 1))})",
            [[PERSON + row + 1, *(identifier(kind, row) for kind in kinds)] for row in range(EACH)],
        )
        db.execute("CREATE TABLE note (person_id BIGINT, note_text VARCHAR)")
        for place, kind in enumerate(kinds):
            db.execute(f"ALTER TABLE person ADD COLUMN {kind}_source_value VARCHAR")
            db.execute(
                f"UPDATE person SET {kind}_source_value = {kind} FROM ids WHERE person.person_id = ids.person_id"
            )
            db.execute(f"INSERT INTO note SELECT person_id, 'Call ' || {kind} || '.' FROM ids")
            db.execute(
                "INSERT INTO observation (observation_id, person_id, observation_concept_id, observation_date, "
                f"value_as_string) SELECT {place + 1} * 1000000 + person_id, person_id, 0, DATE '2026-01-01', {kind} "
                "FROM ids"
            )
        db.execute("UPDATE person SET person_source_value = mrn_source_value WHERE mrn_source_value IS NOT NULL")


def plant_fhir(folder: Path, old_ids: list[str]) -> None:
    """Patient resources as a registration desk fills them, and notes in observations; ids are record numbers."""
    rows = {f'"{old}"'.encode(): f'"{identifier("mrn", row)}"'.encode() for row, old in enumerate(old_ids)}
    rows |= {
        f'Patient/{old}"'.encode(): f'Patient/{identifier("mrn", row)}"'.encode() for row, old in enumerate(old_ids)
    }
    rows |= {f"Care-{old}".encode(): f"Care-{identifier('mrn', row)}".encode() for row, old in enumerate(old_ids)}
    for file in folder.glob("*.ndjson"):
        text = file.read_bytes()
        for old, new in rows.items():
            text = text.replace(old, new)
        file.write_bytes(text)
    patients = [json.loads(line) for line in (folder / "Patient.ndjson").read_bytes().splitlines() if line.strip()]
    for patient in patients:
        row = next((row for row in range(EACH) if patient["id"] == identifier("mrn", row)), None)
        if row is not None:
            patient |= {
                "name": [{"text": identifier("name", row)}],
                "address": [{"text": identifier("street", row)}],
                "telecom": [{"value": identifier(kind, row)} for kind in ("phone", "fax", "email", "url", "ip")],
                "photo": [{"title": identifier("photo", row)}],
                "identifier": [{"system": kind, "value": identifier(kind, row)} for kind in KINDS],
                "extension": [{"url": kind, "valueString": identifier(kind, row)} for kind in KINDS],
            }
    (folder / "Patient.ndjson").write_text("".join(json.dumps(patient) + "\n" for patient in patients))
    with (folder / "Observation.ndjson").open("a") as file:
        for kind in KINDS:
            for row in range(EACH):
                subject = {"reference": f"Patient/{identifier('mrn', row)}"}
                code = {"coding": [{"system": "local", "code": "free-text"}]}
                note = {"resourceType": "Observation", "status": "final", "subject": subject, "code": code,
                        "effectiveDateTime": "2026-01-01", "valueString": identifier(kind, row)}  # fmt: skip
                file.write(json.dumps(note) + "\n")


def patterns() -> dict[bytes, str]:
    """Bytes that would give an identifier away -> its kind: plain, in other encodings, and hashed without a key."""
    found: dict[bytes, str] = {}
    people = [str(PERSON + row + 1) for row in range(EACH)]
    for kind, values in {**{kind: planted(kind) for kind in KINDS}, "person": people}.items():
        for value in values:
            found |= dict.fromkeys(_forms(value), kind)
    hashed = [person_number(identifier("mrn", row)) for row in range(EACH)]
    found |= dict.fromkeys((str(number).encode() for number in hashed), "mrn")
    for person in (*map(int, people), *hashed):
        found |= {person.to_bytes(8, "little"): "person", person.to_bytes(8, "big"): "person"}
    return found


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode()
    yield from (raw, value.upper().encode(), value.encode("utf-16-le"), raw.hex().encode(), quote(value, "").encode())
    yield json.dumps(value)[1:-1].encode()
    for shift in range(3):  # wherever a base-64 text begins, one of these lies inside
        yield base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        digest = hashlib.new(name, raw)
        yield digest.digest()[:16]
        yield digest.hexdigest()[:16].encode()


class Scanner:
    """Finds patterns in any bytes: candidates by their first 8 bytes at once, then compared in full."""

    def __init__(self, wanted: dict[bytes, str]) -> None:
        self._by_head: dict[int, list[tuple[bytes, str]]] = {}
        for pattern, kind in wanted.items():
            assert len(pattern) >= HEAD
            head = int.from_bytes(pattern[:HEAD], "little")
            self._by_head.setdefault(head, []).append((pattern, kind))
        self._heads = np.array(sorted(self._by_head), dtype=np.uint64)

    def kinds_in(self, data: bytes) -> set[str]:
        """The kinds that data gives away."""
        return {kind for _, kind in self.found(data)}

    def found(self, data: bytes) -> set[tuple[bytes, str]]:
        """Patterns in data, with their kinds."""
        hits: set[tuple[bytes, str]] = set()
        for offset in range(min(HEAD, max(0, len(data) - HEAD + 1))):
            count = (len(data) - offset) // HEAD
            windows = np.frombuffer(data, dtype="<u8", count=count, offset=offset)
            places = np.minimum(np.searchsorted(self._heads, windows), len(self._heads) - 1)
            for window in np.flatnonzero(self._heads[places] == windows).tolist():
                start = offset + window * HEAD
                for pattern, kind in self._by_head[int(windows[window])]:
                    if data[start : start + len(pattern)] == pattern:
                        hits.add((pattern, kind))
        return hits


def every_file(*roots: Path) -> Iterable[Path]:
    """All files below the roots."""
    return (path for root in roots for path in sorted(root.rglob("*")) if path.is_file())
