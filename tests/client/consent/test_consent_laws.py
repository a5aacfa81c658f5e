"""Laws of consent: what goes out comes back the same, and the store agrees with a plain reading of the rules."""

from __future__ import annotations

import io
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cameo_client.consent.exchange import read_csv, write_csv
from cameo_client.consent.fhir import read_ndjson, write_ndjson
from cameo_client.consent.records import METHODS, SCOPES, STATUSES, ConsentRecord
from cameo_client.consent.store import ConsentStore
from cameo_protocol.errors import OperatorError

BASE = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 20).map(lambda days: BASE + timedelta(days=days))
NAMES = st.sampled_from(["a" * 32, "b" * 32, "c" * 32])
REFERENCE = st.text("abcXYZ019 ;,\"'-_.é", min_size=1, max_size=20).map(lambda t: "G" + t)
RECORDS = st.builds(
    ConsentRecord,
    pseudonym=NAMES,
    scope=st.sampled_from(SCOPES),
    status=st.sampled_from(STATUSES),
    notice_version=st.text("0123456789.v:", min_size=1, max_size=8),
    notice_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    method=st.sampled_from(METHODS),
    at=TIMES,
    expires=st.none() | TIMES,
    guardian=st.none() | REFERENCE,
)


@given(records=st.lists(RECORDS, max_size=8))
@settings(max_examples=60, deadline=None)
def test_csv_and_fhir_bring_back_what_was_written(records: list[ConsentRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for write, read in ((write_csv, lambda path: read_csv(path, bytes(32))), (write_ndjson, read_ndjson)):
            text = io.StringIO()
            assert write(records, text) == len(records)
            path = Path(folder) / "x"
            path.write_text(text.getvalue(), encoding="utf-8", newline="")
            assert list(read(path)) == records


@given(records=st.lists(RECORDS, max_size=12), now=TIMES, scope=st.sampled_from(SCOPES))
@settings(max_examples=60, deadline=None)
def test_the_store_agrees_with_a_plain_reading(records: list[ConsentRecord], now: datetime, scope: str) -> None:
    """The latest decision of a scope that is a refusal or already begun; granted and not expired."""
    with tempfile.TemporaryDirectory() as folder, ConsentStore.open(Path(folder) / "c.sqlite") as store:
        store._db.execute("PRAGMA synchronous = OFF")
        store.add(records, now=now)
        names = ["a" * 32, "b" * 32, "c" * 32, "d" * 32]
        for name, found in zip(names, store.granted(names, scope, now), strict=True):  # type: ignore[arg-type]
            relevant = [r for r in records if r.pseudonym == name and r.scope == scope]
            relevant = [r for r in relevant if r.status != "granted" or r.at <= now]
            last = max(enumerate(relevant), key=lambda pair: (pair[1].at, pair[0]), default=(0, None))[1]
            assert found == (
                last is not None and last.status == "granted" and (last.expires is None or now < last.expires)
            )


@given(data=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_records_or_an_operator_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(data)
        for read in (lambda: list(read_csv(path, bytes(32))), lambda: list(read_ndjson(path))):
            try:
                read()
            except OperatorError:
                continue
