"""Consent files in and out: bad files are refused whole, by line, without their content."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cameo_client.consent.exchange import FIELDS, read_csv, write_csv
from cameo_client.consent.fhir import read_ndjson, to_fhir, write_ndjson
from cameo_client.consent.records import NOTICE, ConsentRecord, made_up
from cameo_client.consent.store import ConsentStore
from cameo_client.data.pseudonyms import pseudonym
from cameo_protocol.errors import ExitCode, OperatorError

KEY = bytes(range(32))
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HASH = NOTICE.sha256
HEADER = ",".join(("person_id", *FIELDS))
GOOD = f"SYN-1,marketing,granted,1,{HASH},paper,2026-01-01T10:00:00+02:00,,,0"
RECORD = ConsentRecord(
    pseudonym="ab" * 16, scope="research", status="withdrawn", notice_version="1", notice_sha256=HASH,
    method="electronic", at=NOW, guardian="G-1",
)  # fmt: skip


def file(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "consents.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_person_ids_become_pseudonyms_at_once(tmp_path: Path) -> None:
    (record,) = read_csv(file(tmp_path, GOOD), KEY)
    assert record.pseudonym == pseudonym(KEY, "SYN-1")
    assert record.at == datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert (record.expires, record.guardian, record.fictional) == (None, None, False)


def test_formula_cells_are_escaped_on_the_way_out() -> None:
    text = io.StringIO()
    write_csv([RECORD, made_up(["cd" * 16], ("care",), NOW)[0]], text)
    lines = text.getvalue().splitlines()
    assert lines[0].split(",")[0] == "pseudonym"
    assert lines[2].endswith(",1")
    risky = io.StringIO()
    write_csv([ConsentRecord(**vars(RECORD) | {"guardian": "=HYPERLINK(1)"})], risky)
    assert ",'=HYPERLINK(1)," in risky.getvalue()


BAD = {
    "empty": ("", ()),
    "another header": ("person_id,scope", (GOOD,)),
    "no id": (HEADER, (GOOD, GOOD.replace("SYN-1", " "))),
    "short row": (HEADER, (GOOD, "SYN-2,marketing,granted")),
    "unknown scope": (HEADER, (GOOD, GOOD.replace("marketing", "everything"))),
    "unknown status": (HEADER, (GOOD, GOOD.replace("granted", "perhaps"))),
    "unknown method": (HEADER, (GOOD, GOOD.replace("paper", "telepathy"))),
    "short hash": (HEADER, (GOOD, GOOD.replace(HASH, "abc"))),
    "no zone": (HEADER, (GOOD, GOOD.replace("+02:00", ""))),
    "no time": (HEADER, (GOOD, GOOD.replace("2026-01-01T10:00:00+02:00", "soon"))),
    "time out of range": (HEADER, (GOOD, GOOD.replace("2026-01-01T10:00:00+02:00", "0001-01-01T00:00:00+02:00"))),
    "mark without method": (HEADER, (GOOD, GOOD[:-1] + "1")),
    "method without mark": (HEADER, (GOOD, GOOD.replace("paper", "made_up"))),
    "open quote": (HEADER, (GOOD, GOOD.replace("SYN-1", '"SYN-1'))),
    "long field": (HEADER, (GOOD, GOOD.replace("SYN-1", "9" * 300))),
    "no pseudonym": (HEADER.replace("person_id", "pseudonym"), (GOOD,)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_csv_is_refused_whole(name: str, tmp_path: Path) -> None:
    header, rows = BAD[name]
    with ConsentStore.open(tmp_path / "c.sqlite") as store:
        with pytest.raises(OperatorError) as caught:
            store.add(read_csv(file(tmp_path, *rows, header=header), KEY), now=NOW)
        assert caught.value.code == "consent-import-refused"
        assert caught.value.exit_code is ExitCode.DATA
        assert not any(word in str(caught.value) for word in ("SYN", "telepathy", "everything", "soon", "999"))
        assert list(store.records()) == []


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\0")
    for path in (tmp_path / "gone", tmp_path / "x"):
        with pytest.raises(OperatorError, match="consent-import-refused"):
            list(read_csv(path, KEY))
        with pytest.raises(OperatorError, match="consent-import-refused"):
            list(read_ndjson(path))


def test_the_fhir_subset() -> None:
    resource = to_fhir(RECORD)
    assert resource["resourceType"] == "Consent"
    assert (resource["status"], resource["provision"]["type"]) == ("inactive", "deny")
    assert resource["patient"]["identifier"]["value"] == RECORD.pseudonym
    assert "meta" not in resource
    fictional = to_fhir(made_up(["ab" * 16], ("care",), NOW)[0])
    assert (fictional["status"], fictional["provision"]["type"]) == ("active", "permit")
    assert fictional["meta"]["security"][0]["code"] == "HTEST"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.update(resourceType="Patient"),
        lambda r: r.update(status="active"),
        lambda r: r["provision"].update(type="permit"),
        lambda r: r["provision"].update(purpose=[]),
        lambda r: r["provision"]["purpose"].append(r["provision"]["purpose"][0]),
        lambda r: r["provision"]["purpose"][0].update(code="everything"),
        lambda r: r["provision"].pop("period"),
        lambda r: r.update(dateTime="2026-01-01"),
        lambda r: r.update(dateTime=7),
        lambda r: r.update(policy=[{"uri": "urn:other:1"}]),
        lambda r: r.update(policy=[{"uri": None}]),
        lambda r: r["patient"]["identifier"].update(system="urn:other"),
        lambda r: r["patient"].update(identifier="x"),
        lambda r: r.update(extension=None),
        lambda r: r["extension"][0].update(valueCode="made_up"),
        lambda r: r["extension"][0].update(valueCode=["paper"]),
        lambda r: r.update(performer=[{}, {}]),
        lambda r: r.update(meta=[]),
        lambda r: r.update(scope="x" * 20_000),
    ],
)
def test_resources_outside_the_subset_are_refused(spoil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    resource = to_fhir(RECORD)
    spoil(resource)
    path = tmp_path / "c.ndjson"
    path.write_text(json.dumps(to_fhir(RECORD)) + "\n\n" + json.dumps(resource) + "\n")
    with pytest.raises(OperatorError, match=r"c\.ndjson, line 3"):
        list(read_ndjson(path))


@pytest.mark.parametrize("line", ["[" * 9000, "null", "3", '"x"', "{", "[]", '{"a":' * 3000])
def test_lines_that_are_no_resources_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "c.ndjson"
    path.write_text(line + "\n")
    with pytest.raises(OperatorError, match="line 1"):
        list(read_ndjson(path))


def test_ndjson_streams_out_one_line_a_record() -> None:
    text = io.StringIO()
    assert write_ndjson([RECORD, RECORD], text) == 2
    assert text.getvalue().count("\n") == 2
