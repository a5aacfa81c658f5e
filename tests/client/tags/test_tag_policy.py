"""The officer's tag policy: what it may say, and what no policy can allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cameo_client.home import NodeHome
from cameo_client.tagging import tag_policy
from cameo_client.tags.policy import load_policy
from cameo_protocol.errors import ExitCode, OperatorError


def loaded(packs: Path, tmp_path: Path, **changes: Any) -> Any:
    values = {**yaml.safe_load((packs / "policy" / "guards.yaml").read_text()), **changes}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_policy(path)


@pytest.mark.parametrize("purpose", ["marketing", "health_education", "service_reminder", "research"])
def test_only_care_may_rest_on_another_basis_than_consent(packs: Path, tmp_path: Path, purpose: str) -> None:
    with pytest.raises(OperatorError, match="always needs consent"):
        loaded(packs, tmp_path, legal_basis={purpose: "because we want to"})
    assert loaded(packs, tmp_path, legal_basis={}).legal_basis == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"quality_floor": 80},
        {"contacts_per_day": 3},
        {"review_sample": 0},
        {"quiet": {"start": "20:00", "end": "08:00", "zone": "Europe/Nowhere"}},
        {"quiet": {"start": "20:00", "end": "08:00", "zone": "../../etc/passwd"}},
        {"quiet": {"start": "25:00", "end": "08:00", "zone": "UTC"}},
        {"situations": [{"name": "x", "when": "abuse", "stops": []}]},
        {"situations": [{"name": "x", "when": "abuse AND", "stops": ["marketing"]}]},
        {"situations": [{"name": "x", "when": "TRUE", "stops": ["marketing"]}]},
        {"extra": 1},
        {"version": 2},
    ],
)
def test_a_policy_can_be_stricter_never_laxer(packs: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match="definition-invalid"):
        loaded(packs, tmp_path, **changes)


def test_a_situation_that_contradicts_the_catalogue_stops_everything(kit: Any, packs: Path, tmp_path: Path) -> None:
    """Skipping it would leave people unprotected without a word."""
    wrong = [{"name": "genetic", "when": "gck_variant = 'Pathogenic'", "stops": ["marketing"]}]
    policy = loaded(packs, tmp_path, situations=wrong)
    with pytest.raises(OperatorError, match="tag-policy-invalid"):
        kit.run([kit.rule()], [{"sbp": 150.0}], policy=policy)


def test_stricter_values_are_taken(packs: Path, tmp_path: Path) -> None:
    policy = loaded(packs, tmp_path, quality_floor=95, contacts_per_day=1, review_sample=0.5, max_snapshot_age_days=30)
    assert (policy.quality_floor, policy.contacts_per_day, policy.max_snapshot_age_days) == (95, 1, 30)


LAXER: list[dict[str, Any]] = [
    {"situations": []},
    {"situations": "all but one"},
    {"situations": "one stops less"},
    {"situations": "one holds later"},
    {"legal_basis": {"care_management": "GDPR Article 9(2)(h)"}, "double_confirmed": []},
    {"flags": {"objected": "objected"}},
    {"review_sample": 0.01},
    {"quiet": {"start": "21:00", "end": "08:00", "zone": "UTC"}},
    {"quiet": {"start": "20:00", "end": "07:59", "zone": "UTC"}},
    {"quiet": {"start": "00:00", "end": "00:00", "zone": "UTC"}},
    {"fairness": {"columns": ["sex"]}},
    {"fairness": {"ratio": 0.5}},
]


@pytest.mark.parametrize("changes", LAXER)
def test_a_hospitals_own_policy_cannot_protect_less(packs: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    shipped = yaml.safe_load((packs / "policy" / "guards.yaml").read_text())["situations"]
    cut = {
        "all but one": shipped[1:],
        "one stops less": [{**shipped[0], "stops": ["marketing"]}, *shipped[1:]],
        "one holds later": [{**shipped[0], "when": "pregnancy_loss AND abuse"}, *shipped[1:]],
    }
    if isinstance(changes.get("situations"), str):
        changes = {"situations": cut[changes["situations"]]}
    home = NodeHome(tmp_path)
    loaded(packs, tmp_path, **changes)
    (tmp_path / "policy.yaml").rename(tmp_path / "tags-policy.yaml")
    with pytest.raises(OperatorError) as error:
        tag_policy(home)
    assert (error.value.code, error.value.exit_code) == ("tag-policy-laxer", ExitCode.POLICY)


def test_a_hospitals_own_policy_may_be_stricter_everywhere(packs: Path, tmp_path: Path) -> None:
    shipped = yaml.safe_load((packs / "policy" / "guards.yaml").read_text())["situations"]
    own = loaded(
        packs, tmp_path, legal_basis={}, double_confirmed=["marketing", "research"], contacts_per_day=1,
        situations=[*shipped, {"name": "old-age", "when": "age >= 90", "stops": ["marketing"]}], review_sample=0.5,
        quiet={"start": "19:00", "end": "09:00", "zone": "Asia/Tokyo"}, fairness={"ratio": 0.9},
        exports={"rows_per_day": 10, "rows_per_person": 5},
    )  # fmt: skip
    (tmp_path / "policy.yaml").rename(tmp_path / "tags-policy.yaml")
    assert tag_policy(NodeHome(tmp_path)) == own
    (tmp_path / "tags-policy.yaml").unlink()
    assert tag_policy(NodeHome(tmp_path)).contacts_per_day == 2


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError):
        load_policy(tmp_path / "none.yaml")
