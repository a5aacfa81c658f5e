"""The doctor's table of checks: what needs what, and that a consequence of a failure stays silent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cameo_client import doctor
from cameo_client.doctor import CHECKS, Examination, Warned
from cameo_client.home import NodeHome
from cameo_protocol.errors import ExitCode, OperatorError

NAMES = [name for name, _, _ in CHECKS]
Look = Callable[[Examination], str]


def well(_at: Examination) -> str:
    return "well"


def failing(_at: Examination) -> str:
    raise OperatorError("broken", what="it is broken", do="mend it", exit=ExitCode.DATA)


def examination(monkeypatch: pytest.MonkeyPatch, looks: dict[str, Look]) -> Examination:
    table = tuple((name, needs, looks.get(name, well)) for name, needs, _ in CHECKS)
    monkeypatch.setattr(doctor, "CHECKS", table)
    return Examination(NodeHome(Path("/nonexistent")), lambda: datetime.now(UTC))


def behind(name: str) -> set[str]:
    """Every check that needs `name`, directly or not."""
    found: set[str] = set()
    for other, needs, _ in CHECKS:
        if {name, *found} & set(needs):
            found.add(other)
    return found


def test_names_are_unique_and_needs_come_first() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for place, (_, needs, _) in enumerate(CHECKS):
        assert set(needs) <= set(NAMES[:place])


@pytest.mark.parametrize("name", NAMES)
def test_what_needs_a_failed_check_stays_silent_and_everything_else_speaks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = examination(monkeypatch, {name: failing})
    checks = look.checks()
    assert set(look.silent) == behind(name)
    assert [check.name for check in checks] == [other for other in NAMES if other not in behind(name)]
    (failed,) = [check for check in checks if check.severity == "failed"]
    assert (failed.name, failed.code, failed.do, failed.exit) == (name, "broken", "mend it", ExitCode.DATA)


def test_a_silent_check_is_not_even_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_at: Examination) -> str:
        raise AssertionError("it was carried out")

    examination(monkeypatch, {"configuration": failing} | dict.fromkeys(behind("configuration"), never)).checks()


@pytest.mark.parametrize("hollow", [False, True])
def test_a_warning_silences_others_only_where_there_is_nothing_to_look_at(
    hollow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(_at: Examination) -> str:
        raise Warned("odd", "odd", "look", hollow=hollow)

    look = examination(monkeypatch, {"coordinator": warn})
    checks = look.checks()
    assert set(look.silent) == (behind("coordinator") if hollow else set())
    (warned,) = [check for check in checks if check.severity == "warning"]
    assert (warned.code, warned.exit) == ("odd", ExitCode.OK)


def test_every_check_is_in_the_handbook() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
    table = page.partition("## The doctor")[2].partition("\n## ")[0]
    missing = [name for name in NAMES if f"| `{name}` |" not in table]
    assert not missing


def test_consents_and_rules_are_missed_until_they_are_there(tmp_path: Path) -> None:
    from cameo_client.consent.records import NOTICE, ConsentRecord
    from cameo_client.consent.store import ConsentStore

    home, now = NodeHome(tmp_path), datetime(2026, 6, 1, tzinfo=UTC)
    template = (Path(__file__).parents[2] / "conf" / "policy" / "default.yaml").read_text()
    mark = "# --- approved: begin ---\n"
    fingerprint = "-".join(["0000"] * 10)
    home.policy.write_text(template.replace(mark, f'{mark}coordinator: "{fingerprint}"\npeers: {{}}\n'))
    look = Examination(home, lambda: now)

    def found() -> dict[str, str]:
        checks = {name: look._one(name, check)[0] for name, _, check in CHECKS if name in ("consents", "rules")}
        return {name: check.code for name, check in checks.items()}

    assert found() == {"consents": "consents-none", "rules": "rules-none"}
    assert not home.consent.exists(), "the doctor makes no store"
    assert not home.tags.exists()
    record = ConsentRecord(
        pseudonym="p" * 32,
        scope="model_training",
        status="granted",
        notice_version=NOTICE.version,
        notice_sha256=NOTICE.sha256,
        method="paper",
        at=now,
    )
    with ConsentStore.open(home.consent) as store:
        store.add([record], now=now)
    assert found()["consents"] == "ok"
    home.consent.unlink()
    home.policy.write_text(
        home.policy.read_text().replace("legal_basis: {}", 'legal_basis:\n  model_training: "an ethics decision"')
    )
    assert found()["consents"] == "ok"
