"""The release gate in a run: a failed audit stops it before anything is spent, and shuts it again at publication."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_federation
from small_federation import SmallFederation, events, made_up_vectors, small_plan

from cameo_protocol.errors import OperatorError
from cameo_protocol.plan import RunPlan
from cameo_server.run.release_gate import Audit, failure
from passed_audit import passed_audit


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFederation]:
    made = SmallFederation(small_plan(4, "training.rounds=2", "training.spare=1"), tmp_path)
    made_up_vectors(monkeypatch, made)
    yield made
    made.close()


def shut_after(opened: int) -> object:
    """A gate that is open so many times, then finds that the audit failed."""
    asked = []

    def ask(plan: RunPlan) -> Audit:
        asked.append(plan)
        audit = passed_audit(plan)
        if len(asked) > opened:
            raise failure(audit.model_copy(update={"lower_bound": 2 * audit.claim}))
        return audit

    return ask


def test_nothing_is_asked_of_a_hospital_without_an_audit(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_federation, "passed_audit", shut_after(0))
    with pytest.raises(OperatorError, match="audit-failed"):
        federation.drive()
    store = federation.store("r1")
    assert [event["event"] for event in store.events()][:2] == ["start", "stopped"]
    assert not events(store, "admission", "epoch", "round")
    assert all(hospital.ledger.head().entries == 1 for hospital in federation.hospitals.values())


def test_no_model_leaves_when_the_audit_fails_before_publication(
    federation: SmallFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_federation, "passed_audit", shut_after(1))
    with pytest.raises(OperatorError, match="audit-failed"):
        federation.drive()
    store = federation.store("r1")
    (stopped,) = events(store, "stopped")
    assert stopped["code"] == "audit-failed"
    assert {event["kind"] for event in events(store, "round")} == {"train"}
    assert not events(store, "published", "evaluated")
    assert not (store.folder / "card.json").exists()
    assert not list(store.folder.glob("*.safetensors"))


def test_the_card_carries_the_audit(federation: SmallFederation) -> None:
    store = federation.drive()
    audit = json.loads((store.folder / "card.json").read_bytes())["audit"]
    assert audit == passed_audit(federation.plan).card()
    assert audit.keys() >= {"effort", "passed", "findings", "lower_bound", "claim"}
    assert audit["passed"] is True
