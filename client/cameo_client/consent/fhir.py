"""Consent records as FHIR R4 Consent resources, one JSON object a line (the bulk-data form).

A subset: one purpose a resource. granted = active/permit, denied = rejected/deny, withdrawn = inactive/deny. What R4
has no element for (the way consent was given) stands in an extension. Made-up records carry the security label HTEST.
Source: https://hl7.org/fhir/R4/consent.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from cameo_client.consent.exchange import iso, moment, refused, unreadable
from cameo_client.consent.records import METHODS, SCOPES, ConsentRecord, Scope, Status

PSEUDONYM_SYSTEM = "urn:cameo:pseudonym"
GUARDIAN_SYSTEM = "urn:cameo:guardian"
SCOPE_SYSTEM = "urn:cameo:consent-scope"
METHOD_URL = "urn:cameo:consent-method"
NOTICE_PREFIX = "urn:cameo:notice:"
MAX_LINE = 16_384
_TEST_DATA = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
_STATUS: dict[Status, tuple[str, str]] = {
    "granted": ("active", "permit"),
    "denied": ("rejected", "deny"),
    "withdrawn": ("inactive", "deny"),
}


def to_fhir(record: ConsentRecord) -> dict[str, Any]:
    """One record as a Consent resource."""
    status, kind = _STATUS[record.status]
    area = "research" if record.scope == "research" else "patient-privacy"
    period = {"start": iso(record.at)} | ({} if record.expires is None else {"end": iso(record.expires)})
    resource: dict[str, Any] = {
        "resourceType": "Consent",
        "extension": [{"url": METHOD_URL, "valueCode": record.method}],
        "status": status,
        "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": area}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"identifier": {"system": PSEUDONYM_SYSTEM, "value": record.pseudonym}},
        "dateTime": iso(record.at),
        "policy": [{"uri": f"{NOTICE_PREFIX}{record.notice_version}:{record.notice_sha256}"}],
        "provision": {
            "type": kind,
            "period": period,
            "purpose": [{"system": SCOPE_SYSTEM, "code": record.scope}],
        },
    }
    if record.guardian is not None:
        resource["performer"] = [{"identifier": {"system": GUARDIAN_SYSTEM, "value": record.guardian}}]
    if record.fictional:
        resource["meta"] = {"security": [_TEST_DATA]}
    return resource


def write_ndjson(records: Iterable[ConsentRecord], file: IO[str]) -> int:
    """Write records as NDJSON; returns how many."""
    count = 0
    for record in records:
        file.write(json.dumps(to_fhir(record), separators=(",", ":")) + "\n")
        count += 1
    return count


def read_ndjson(path: Path) -> Iterator[ConsentRecord]:
    """Records of an NDJSON file of our subset, streamed; the first line that is not of it is an `OperatorError`."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise refused(path, number, f"longer than {MAX_LINE} characters")
                if line.strip():
                    yield _from_line(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


def _from_line(path: Path, number: int, line: str) -> ConsentRecord:
    try:
        return from_fhir(json.loads(line))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise refused(path, number, "no Consent resource of the subset that we write") from None


def from_fhir(resource: Any) -> ConsentRecord:
    """The record of one resource; anything outside the subset raises ValueError, LookupError or TypeError."""
    provision = resource["provision"]
    (purpose,), (policy,), (extension,) = provision["purpose"], resource["policy"], resource["extension"]
    statuses = [ours for ours, pair in _STATUS.items() if pair == (resource["status"], provision["type"])]
    version, _, sha256 = _text(policy["uri"]).removeprefix(NOTICE_PREFIX).rpartition(":")
    performers = resource.get("performer", [])
    if (
        resource["resourceType"] != "Consent"
        or purpose["system"] != SCOPE_SYSTEM
        or extension["url"] != METHOD_URL
        or not policy["uri"].startswith(NOTICE_PREFIX)
        or len(sha256) != 64
        or len(performers) > 1
        or (extension["valueCode"] == "made_up") != (_TEST_DATA in resource.get("meta", {}).get("security", []))
    ):
        raise ValueError
    end = provision["period"].get("end")
    return ConsentRecord(
        pseudonym=_identifier(resource["patient"], PSEUDONYM_SYSTEM),
        scope=_scope(purpose["code"]),
        status=statuses[0],
        notice_version=version,
        notice_sha256=sha256,
        method=METHODS[METHODS.index(extension["valueCode"])],
        at=_time(resource["dateTime"]),
        expires=None if end is None else _time(end),
        guardian=_identifier(performers[0], GUARDIAN_SYSTEM) if performers else None,
    )


def _scope(code: Any) -> Scope:
    return SCOPES[SCOPES.index(code)]


def _identifier(reference: Any, system: str) -> str:
    value = _text(reference["identifier"]["value"])
    if reference["identifier"]["system"] != system or not 0 < len(value) <= 200:
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _time(value: Any) -> datetime:
    return moment(_text(value))
