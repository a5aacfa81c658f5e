"""What `cameo-node ledger` shows: parts by task and purpose, the curve after each release, what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ledger_kit import CAPS, DELTA, PLAN, fresh, releases

from cameo_client.ledger import render
from cameo_protocol.errors import Bug, OperatorError
from cameo_protocol.privacy.accountant import epsilon
from cameo_protocol.privacy.releases import Release


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heart.ledger"


def cost(count: int, sigma: float = 40.0) -> float:
    return epsilon([Release(sigma=sigma, q=1.0, count=count)], DELTA)


def test_by_task_and_curve(path: Path) -> None:
    ledger = fresh(path)
    both = releases(50) + releases(50, sigma=80.0, task="segment") + releases(1, sigma=12.0, task="evaluation")
    each = releases(1) + releases(1, sigma=80.0, task="segment")
    ledger.reserve("run-1", PLAN, both, CAPS)
    for round_no in range(50):
        ledger.commit("run-1", round_no, "train", each)
    ledger.commit("run-1", 50, "evaluate", releases(1, sigma=12.0, task="evaluation"))
    assert ledger.by_task() == pytest.approx({"risk": cost(50), "segment": cost(50, 80.0), "evaluation": cost(1, 12.0)})
    curve = ledger.curve(points=20)
    values = [point.epsilon for point in curve]
    assert len(curve) <= 20
    assert values == sorted(values)
    assert values[-1] == ledger.spent()
    whole = ledger.curve(points=1000)
    assert [point.release for point in whole] == list(range(1, 52))
    assert [point.purpose for point in whole] == ["training"] * 50 + ["evaluation"]
    assert whole[9].epsilon == pytest.approx(epsilon([Release(sigma=s, q=1.0, count=10) for s in (40.0, 80.0)], DELTA))


def test_a_hospitals_own_analytics_and_audits_are_named_and_charged(path: Path) -> None:
    """Runs of one round each, on the same ledger, under the same caps."""
    ledger = fresh(path)
    ledger.reserve("run-1", PLAN, releases(3), CAPS)
    ledger.commit("run-1", 0, "train", releases(1))
    for kind in ("analytics", "audit"):
        own = releases(1, sigma=20.0, task=kind)
        ledger.reserve(f"{kind}-1", kind, own, CAPS)
        ledger.commit(f"{kind}-1", 0, kind, own)
        ledger.close(f"{kind}-1")
    found = ledger.report(CAPS)
    assert [(row["purpose"], row["releases"]) for row in found["purposes"]] == [
        ("training", 1), ("analytics", 1), ("audit", 1),
    ]  # fmt: skip
    assert found["purposes"][1]["spent"] == pytest.approx(cost(1, 20.0))
    assert found["spent"] < sum(row["spent"] for row in found["purposes"]), "parts are not added"
    assert [point["purpose"] for point in found["curve"]] == ["training", "analytics", "audit"]
    assert "analytics" in render(found)
    with pytest.raises(OperatorError, match="budget-spent"):
        ledger.reserve("audit-2", "audit", releases(1, sigma=0.5, task="audit"), CAPS)
    with pytest.raises(Bug, match="ledger-entry"):
        ledger.commit("run-1", 1, "marketing", releases(1))


def test_the_report_is_json_and_reads_well(path: Path) -> None:
    ledger = fresh(path)
    assert json.loads(json.dumps(ledger.report()))["caps"] is None
    assert "after each release" not in render(ledger.report())
    ledger.reserve("run-1", PLAN, releases(33), CAPS)
    for round_no in range(30):
        ledger.commit("run-1", round_no, "train", releases(1))
    found = json.loads(json.dumps(ledger.report(CAPS)))
    assert found["schema_version"] == 1
    assert found["spent"] == pytest.approx(cost(30))
    assert found["spent_and_reserved"] == pytest.approx(cost(33))
    assert found["caps"]["left_data_set"] == pytest.approx(8 - cost(33))
    assert found["tasks"] == [
        {
            "task": "risk",
            "spent": found["spent"],
            "releases": 30,
            "reserved": pytest.approx(cost(3)),
            "releases_reserved": 3,
        }
    ]
    assert [(run["run"], run["state"], run["rounds"]) for run in found["runs"]] == [("run-1", "open", 30)]
    assert [point["epsilon"] for point in found["curve"]] == pytest.approx([cost(n) for n in range(1, 31)])
    assert found["curve"][0].keys() == {"release", "entry", "at", "run", "purpose", "epsilon"}
    text = render(found)
    for expected in (f"{cost(30):.3f}", f"{8 - cost(33):.3f} of 8", "data protection officer", "heart", "run-1"):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 110
