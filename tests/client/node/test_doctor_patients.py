"""The doctor's look at consents and data together, on a hospital that has both."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cameo_client import source
from cameo_client.consent.store import ConsentStore
from cameo_client.doctor import Check, Examination
from cameo_client.home import NodeHome, load_config
from cameo_protocol.errors import OperatorError


def check_of(home: NodeHome, name: str) -> Check | None:
    return next((c for c in Examination(home, lambda: datetime.now(UTC)).checks() if c.name == name), None)


def test_consents_of_people_who_are_not_in_the_source_are_noticed(homes: Path) -> None:
    home = NodeHome(homes / "h1")
    found = check_of(home, "patients")
    assert found is not None
    assert found.code == "ok"
    with ConsentStore.open(home.consent) as store:
        records = [replace(record, pseudonym=f"{i:032x}") for i, record in enumerate(store.records())]
    home.consent.unlink()
    with ConsentStore.open(home.consent) as store:
        store.add(records, now=datetime.now(UTC))
    consents, patients = check_of(home, "consents"), check_of(home, "patients")
    assert consents is not None
    assert patients is not None
    assert (consents.code, patients.code, patients.severity) == ("ok", "consents-elsewhere", "warning")


def test_without_consents_only_their_absence_is_told(homes: Path) -> None:
    home = NodeHome(homes / "h1")
    home.consent.unlink()
    consents = check_of(home, "consents")
    assert consents is not None
    assert consents.code == "consents-none"
    assert check_of(home, "patients") is None
    assert not home.consent.exists()


def test_a_source_that_this_user_may_not_read_is_the_sources_fault(
    homes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another user's folder or file; the tests may run as root, who may read everything."""
    home = NodeHome(homes / "h1")
    monkeypatch.setattr(source.os, "access", lambda *_: False)
    found = check_of(home, "source")
    assert found is not None
    assert (found.code, "may not be read by this user" in found.what) == ("source-missing", True)

    data, whole = load_config(home).data, Path.stat

    def denied(path: Path, **options: bool) -> object:
        if str(path) == data.path:
            raise PermissionError(13, "Permission denied")
        return whole(path, **options)

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(OperatorError, match="Permission denied") as refused:
        source.present(data)
    assert refused.value.code == "source-missing"
